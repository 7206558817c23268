/** The two ends of a connection in a `MemoryNetwork`. Each end sends into the other's inbox, in order. */

import type { Connection } from "./network.ts";

export type Wire = {
  readonly windowBytes: number;
  /** Calls back after the latency of the network. */
  readonly later: (callback: () => void) => void;
  readonly passes: (from: string, to: string) => boolean;
  /** Calls back once, when a partition may have ended. */
  readonly onHeal: (callback: () => void) => void;
  readonly onClosed: (connection: MemoryConnection) => void;
};

type Parcel = { readonly kind: "bytes"; readonly bytes: Uint8Array } | { readonly kind: "end" };

export function connectionPair(from: string, to: string, wire: Wire): [MemoryConnection, MemoryConnection] {
  const a = new MemoryConnection(from, to, wire);
  const b = new MemoryConnection(to, from, wire);
  a.attach(b);
  b.attach(a);
  return [a, b];
}

export class MemoryConnection implements Connection {
  readonly from: string;
  readonly to: string;
  onClose: (error: Error | undefined) => void = () => {};
  onDrain: () => void = () => {};
  #onData: ((chunk: Uint8Array) => void) | undefined;
  readonly #wire: Wire;
  #peer: MemoryConnection | undefined;
  /** Sent and not yet taken by the peer, in order; the first `#arrivedCount` of the peer's may be taken. */
  #outbox: Parcel[] = [];
  #pendingBytes = 0;
  /** How many parcels of the peer's outbox have crossed the network. */
  #arrivedCount = 0;
  #paused = false;
  #ended = false;
  #closed = false;
  #muted = false;
  #needsDrain = false;

  constructor(from: string, to: string, wire: Wire) {
    this.from = from;
    this.to = to;
    this.#wire = wire;
  }

  get remote(): string {
    return this.to;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  get onData(): (chunk: Uint8Array) => void {
    return this.#onData ?? (() => {});
  }

  /** Bytes that came earlier are handed over in the next microtask. */
  set onData(consumer: (chunk: Uint8Array) => void) {
    const starts = this.#onData === undefined;
    this.#onData = consumer;
    if (starts) queueMicrotask(() => this.#take());
  }

  attach(peer: MemoryConnection): void {
    this.#peer = peer;
  }

  write(bytes: Uint8Array): boolean {
    if (this.#closed || this.#ended) return false;
    this.#pendingBytes += bytes.length;
    this.#send({ kind: "bytes", bytes });
    this.#needsDrain ||= this.#pendingBytes >= this.#wire.windowBytes;
    return !this.#needsDrain;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    queueMicrotask(() => this.#take());
  }

  end(): void {
    if (this.#closed || this.#ended) return;
    this.#ended = true;
    this.#send({ kind: "end" });
  }

  destroy(error?: Error): void {
    if (this.#closed) return;
    // What was queued is lost, but the peer learns that it was the end.
    this.#outbox = this.#outbox.filter(({ kind }) => kind === "end");
    this.#pendingBytes = 0;
    if (this.#peer !== undefined) this.#peer.#arrivedCount = 0;
    if (!this.#ended) this.#send({ kind: "end" });
    else if (this.#outbox.length > 0) this.#wire.later(() => this.#peer?.arrive());
    this.#ended = true;
    this.#close(error);
  }

  /** The network breaks it, for both. */
  fail(error: Error): void {
    this.#close(error);
  }

  /** The process behind this end is gone: nothing is told to it, and nothing is sent. */
  mute(): void {
    this.#muted = true;
    this.#closed = true;
  }

  #send(parcel: Parcel): void {
    this.#outbox.push(parcel);
    this.#wire.later(() => this.#peer?.arrive());
  }

  /** One more parcel of the peer's has crossed the network, unless it is interrupted. */
  arrive(): void {
    if (this.#muted) return;
    if (!this.#wire.passes(this.to, this.from)) {
      this.#wire.onHeal(() => this.arrive());
      return;
    }
    this.#arrivedCount++;
    this.#take();
  }

  #take(): void {
    const peer = this.#peer;
    while (peer !== undefined && !this.#paused && !this.#closed && this.#onData !== undefined) {
      const parcel = this.#arrivedCount > 0 ? peer.#outbox.shift() : undefined;
      if (parcel === undefined) return;
      this.#arrivedCount--;
      if (parcel.kind === "bytes") {
        this.#onData(parcel.bytes);
        peer.#taken(parcel.bytes.length);
      } else {
        // As a socket that does not stay half open: our own end follows.
        this.end();
        this.#close(undefined);
      }
    }
  }

  #taken(bytes: number): void {
    this.#pendingBytes = Math.max(0, this.#pendingBytes - bytes);
    if (!this.#needsDrain || this.#pendingBytes > 0) return;
    this.#needsDrain = false;
    queueMicrotask(() => {
      if (!this.#closed) this.onDrain();
    });
  }

  #close(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wire.onClosed(this);
    queueMicrotask(() => this.onClose(error));
  }
}
