/**
 * One connection of the HTTP client. Bytes arrive in one buffer that the socket fills again and again (`onread`: a third
 * of the CPU of streams), or where their user wants them; a reader that stops leaves the rest of it where it is and the socket paused,
 * so nothing is copied and the peer is slowed down.
 */

import net from "node:net";
import tls from "node:tls";
import { assert } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";

export type Origin = {
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
};

/** What uses the connection now. */
export type ConnectionUser = {
  /** Returns how many bytes were used up; less than all pauses the connection until `resume`. */
  readonly onBytes: (bytes: Uint8Array) => number;
  /** Whether the bytes last given are still in use, or no more are wanted: asked after each `onBytes`. */
  readonly paused: () => boolean;
  /** Where the next bytes should arrive, asked after each `onBytes`; undefined: anywhere. Nothing is written there once the user is gone. */
  readonly room?: () => Uint8Array | undefined;
  /** The connection has ended; nothing follows. */
  readonly onClose: (error: Error | undefined) => void;
};

export type ConnectOptions = {
  readonly signal: AbortSignal | undefined;
  readonly readBufferBytes: number;
  readonly tls: tls.ConnectionOptions;
};

/**
 * Read at once while nobody has said where to: the head of a response, and what comes with it. Small, because what is behind the head
 * may have to be copied to its place.
 */
const firstReadBytes = 16 * 1024;

export class HttpClientConnection {
  readonly origin: Origin;
  readonly #socket: net.Socket;
  #user: ConnectionUser | undefined;
  /** What arrived and was not used up. The socket is paused while there is any. */
  #rest: Uint8Array | undefined;
  #closed = false;
  #error: Error | undefined;
  /** Whether a response has been read from it: only then may the peer have closed it out of boredom. */
  used = false;

  private constructor(origin: Origin, socket: net.Socket) {
    this.origin = origin;
    this.#socket = socket;
  }

  /** Rejects with `unavailable`, or with the signal's reason. */
  static open(origin: Origin, options: ConnectOptions): Promise<HttpClientConnection> {
    const { signal, readBufferBytes } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const target = { host: origin.host, port: origin.port };
      const onBytes = (bytes: Uint8Array): boolean => opened.receive(bytes);
      let socket: net.Socket;
      let isMade = false;
      if (origin.secure) {
        const servername = net.isIP(origin.host) === 0 ? { servername: origin.host } : {};
        socket = tls.connect({ ...target, ...servername, ALPNProtocols: ["http/1.1"], ...options.tls });
        socket.on("data", (chunk: Buffer) => {
          if (!onBytes(chunk)) socket.pause();
        });
      } else {
        const own = Buffer.allocUnsafeSlow(readBufferBytes);
        const first = own.subarray(0, firstReadBytes);
        let current: Uint8Array = first;
        // Called once while the socket is made, and after each read.
        const buffer = (): Uint8Array => {
          current = isMade ? opened.#nextRoom(own, first) : first;
          return current;
        };
        const callback = (count: number): boolean => onBytes(current.subarray(0, count));
        socket = net.connect({ ...target, onread: { buffer, callback } });
      }
      const opened = new HttpClientConnection(origin, socket);
      isMade = true;
      const onAbort = (): void => {
        socket.destroy();
        reject(signal?.reason as Error);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      opened.use({
        onBytes: () => 0,
        paused: () => false,
        onClose: (error) => {
          signal?.removeEventListener("abort", onAbort);
          const why = error?.message ?? "it closed at once";
          const message = `cannot connect to ${origin.host}:${origin.port}: ${why}`;
          reject(new HeadpondError("unavailable", message, { cause: error }));
        },
      });
      socket.once(origin.secure ? "secureConnect" : "connect", () => {
        signal?.removeEventListener("abort", onAbort);
        opened.free();
        resolve(opened);
      });
      socket.setNoDelay(true);
      socket.setKeepAlive(true, 15_000);
      socket.on("error", (error) => {
        opened.#error ??= error;
      });
      socket.on("end", () => socket.destroy());
      socket.on("close", () => opened.#close());
    });
  }

  get closed(): boolean {
    return this.#closed || this.#socket.destroyed;
  }

  /** Whether something lies unread: then it belongs to nobody, and the connection is worth nothing. */
  get hasUnread(): boolean {
    return this.#rest !== undefined;
  }

  use(user: ConnectionUser): void {
    assert(this.#user === undefined, "an HTTP/1 connection has one user at a time");
    this.#user = user;
  }

  /** Back to nobody: what arrives now is unasked for, and ends the connection. */
  free(): void {
    this.#user = undefined;
    // Only a socket that reads notices that the peer has closed.
    if (!this.hasUnread && !this.closed) this.#socket.resume();
  }

  /** Resolves when more may be written. */
  async write(bytes: Uint8Array | string): Promise<void> {
    if (this.closed) throw this.#broken();
    if (this.#socket.write(bytes)) return;
    await new Promise<void>((resolve, reject) => {
      const settle = (): void => {
        this.#socket.off("drain", settle);
        this.#socket.off("close", settle);
        if (this.closed) reject(this.#broken());
        else resolve();
      };
      this.#socket.on("drain", settle);
      this.#socket.on("close", settle);
    });
  }

  /** Offers the rest again, then lets more arrive. */
  resume(): void {
    const rest = this.#rest;
    this.#rest = undefined;
    if (rest !== undefined && !this.receive(rest)) return;
    if (!this.#socket.destroyed) this.#socket.resume();
    else if (this.#closed) this.#tellClosed();
  }

  /** Idle connections do not keep the process alive. */
  keepAlive(keeps: boolean): void {
    if (keeps) this.#socket.ref();
    else this.#socket.unref();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Takes bytes from the socket; false pauses it. */
  receive(bytes: Uint8Array): boolean {
    if (this.#user === undefined) {
      this.#socket.destroy();
      return false;
    }
    const user = this.#user;
    const count = user.onBytes(bytes);
    if (count < bytes.length) this.#rest = bytes.subarray(count);
    return this.#rest === undefined && !(this.#user === user && user.paused());
  }

  #nextRoom(own: Uint8Array, first: Uint8Array): Uint8Array {
    const user = this.#user;
    // What waits unread lies in the own buffer, or where its user wants it; while it does the socket is paused.
    if (user === undefined || this.#rest !== undefined) return first;
    return user.room === undefined ? own : (user.room() ?? own);
  }

  #broken(): HeadpondError {
    const { host, port } = this.origin;
    const why = this.#error?.message ?? "closed";
    return new HeadpondError("unavailable", `the connection to ${host}:${port} broke: ${why}`, { cause: this.#error });
  }

  #close(): void {
    this.#closed = true;
    // A reader that stopped in the middle of the last bytes gets them first.
    if (this.#rest === undefined) this.#tellClosed();
  }

  #tellClosed(): void {
    const user = this.#user;
    this.#user = undefined;
    user?.onClose(this.#error);
  }
}
