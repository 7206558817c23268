/** One TCP (or TLS, or unix) socket as a `Connection`. Gathering small writes is the caller's business: Nagle is off. */

import type net from "node:net";
import type { Connection } from "./network.ts";

/**
 * Silence after which the kernel begins to probe the peer; it gives up about ten seconds later. So a peer that vanished
 * without a word is noticed in half a minute even if nobody waits for it.
 */
const keepAliveDelayMs = 15_000;

export class TcpConnection implements Connection {
  readonly remote: string;
  onClose: (error: Error | undefined) => void = () => {};
  onDrain: () => void = () => {};
  readonly #socket: net.Socket;
  #onData: ((chunk: Uint8Array) => void) | undefined;
  #closed = false;
  #error: Error | undefined;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    this.remote = socketAddress(socket);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, keepAliveDelayMs);
    socket.on("drain", () => this.onDrain());
    socket.on("error", (error) => {
      this.#error ??= error;
    });
    // A peer that has ended its half gets no more from us than what is queued.
    socket.on("end", () => this.#close());
    socket.on("close", () => this.#close());
  }

  get onData(): (chunk: Uint8Array) => void {
    return this.#onData ?? (() => {});
  }

  /** The socket starts to flow when the first consumer is there, so no byte is lost before. */
  set onData(consumer: (chunk: Uint8Array) => void) {
    const starts = this.#onData === undefined;
    this.#onData = consumer;
    if (starts) this.#socket.on("data", (chunk: Buffer) => this.#onData?.(chunk));
  }

  get pendingBytes(): number {
    return this.#socket.writableLength;
  }

  write(bytes: Uint8Array): boolean {
    // After the end there is nobody to write to, and `onClose` has said so or will.
    if (!this.#socket.writable) return false;
    return this.#socket.write(bytes);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    this.#socket.end();
  }

  destroy(error?: Error): void {
    this.#error ??= error;
    this.#socket.destroy();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.onClose(this.#error);
  }
}

/** `host:port` of the peer, IPv6 in brackets; `local` for unix sockets. */
export function socketAddress(socket: net.Socket): string {
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined) return "local";
  return remoteAddress.includes(":") ? `[${remoteAddress}]:${remotePort}` : `${remoteAddress}:${remotePort}`;
}
