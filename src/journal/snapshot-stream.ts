/**
 * Sends one checkpoint to one peer, by a connection of its own: chunk after chunk from where the receiver stopped last
 * time, no faster than the throttle allows and the receiver takes them. Read off the event loop, with one or two chunks
 * in memory. It ends in exactly one of sent, failed or cancelled; who wants it again orders it again.
 */

import { assert } from "../base/assert.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk, DiskFile } from "../io/disk.ts";
import type { NodeId } from "../raft/types.ts";
import { encodeMessage, messageBytes } from "./peer-codec.ts";
import type { PeerConnection } from "./peer-connection.ts";
import { type DialOptions, dialPeer } from "./peer-dial.ts";
import { type Frame, frameBody, frameKind } from "./peer-frame.ts";
import type { CheckpointFile, SnapshotMessage } from "./peers.ts";
import { chunkBytes, isSameCheckpoint, offerOf, readOffset, readReason } from "./snapshot-offer.ts";

export type SnapshotSendingEvents = {
  readonly onProgress: (to: NodeId) => void;
  readonly onSent: (to: NodeId) => void;
  readonly onFailed: (to: NodeId, reason: string) => void;
};

export class SnapshotSending {
  readonly to: NodeId;
  readonly #disk: Disk;
  readonly #throttle: Throttle;
  readonly #file: CheckpointFile;
  readonly #events: SnapshotSendingEvents;
  readonly #stalledTicksMax: number;
  readonly #ending = new AbortController();
  readonly #done: Promise<void>;
  /** The newest order for this checkpoint: the receiver gets it when it has the file. */
  #message: SnapshotMessage;
  #connection: PeerConnection | undefined;
  #stalledTicks = 0;
  #isOver = false;
  /** Why the transfer ended, if somebody knows better than the connection. */
  #failure: string | undefined;
  #wasInstalled = false;
  #onDrain: (() => void) | undefined;

  constructor(options: {
    readonly dial: Omit<DialOptions, "onOpen" | "lane">;
    readonly disk: Disk;
    readonly throttle: Throttle;
    readonly message: SnapshotMessage;
    readonly file: CheckpointFile;
    /** Beats without any progress after which it has failed. */
    readonly stalledTicksMax: number;
    readonly events: SnapshotSendingEvents;
  }) {
    this.to = options.dial.to;
    this.#disk = options.disk;
    this.#throttle = options.throttle;
    this.#file = options.file;
    this.#message = options.message;
    this.#stalledTicksMax = options.stalledTicksMax;
    this.#events = options.events;
    this.#done = this.#run(options.dial);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Takes over a newer order for the same checkpoint; false: it is for another one. */
  renew(message: SnapshotMessage, file: CheckpointFile): boolean {
    if (this.#isOver || message.term !== this.#message.term || !isSameCheckpoint(file, this.#file)) return false;
    this.#message = message;
    return true;
  }

  tick(): void {
    this.#connection?.tick();
    if (++this.#stalledTicks >= this.#stalledTicksMax) this.#fail("the receiver made no progress");
  }

  /** Ends without a word to anybody. */
  async cancel(): Promise<void> {
    this.#isOver = true;
    this.#ending.abort(new Error("cancelled"));
    await this.#done;
  }

  async #run(dial: Omit<DialOptions, "onOpen" | "lane">): Promise<void> {
    let sending: Promise<void> | undefined;
    const options: DialOptions = {
      ...dial,
      lane: "snapshot",
      onOpen: (connection) => {
        sending = this.#send(connection).catch((error: unknown) => this.#fail((error as Error).message));
      },
    };
    const end = await dialPeer(options, this.#ending.signal);
    this.#connection = undefined;
    // A read that is under way, or a wait for the throttle, ends with the connection.
    this.#ending.abort(new Error("the connection is over"));
    this.#onDrain?.();
    await sending;
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#wasInstalled) this.#events.onSent(this.to);
    else this.#events.onFailed(this.to, this.#failure ?? end.reason);
  }

  #fail(reason: string): void {
    this.#failure ??= reason;
    this.#ending.abort(new Error(reason));
  }

  async #send(connection: PeerConnection): Promise<void> {
    this.#connection = connection;
    const offset = new Promise<number>((resolve) => {
      connection.onFrame = (frame) => this.#take(frame, resolve);
    });
    connection.onDrain = () => this.#onDrain?.();
    connection.writeJson(frameKind.offer, offerOf(this.#file, this.#message.term));
    connection.flush();
    const { signal } = this.#ending;
    const over = new Promise<undefined>((resolve) => {
      signal.addEventListener("abort", () => resolve(undefined), { once: true });
    });
    const start = await Promise.race([offset, over]);
    if (start === undefined || signal.aborted) return;
    const file = await this.#disk.open(this.#file.path, "read");
    try {
      await this.#sendChunks(connection, file, start);
    } finally {
      await file.close();
    }
    if (signal.aborted) return;
    const head = Buffer.alloc(messageBytes(this.#message));
    connection.write(frameKind.finish, head.subarray(0, encodeMessage(head, 0, this.#message)));
    connection.flush();
  }

  async #sendChunks(connection: PeerConnection, file: DiskFile, start: number): Promise<void> {
    const { signal } = this.#ending;
    let buffer = new Uint8Array(chunkBytes);
    for (let at = start; at < this.#file.bytes && !signal.aborted; ) {
      const wantedBytes = Math.min(chunkBytes, this.#file.bytes - at);
      // As long as the connection has anything left, it may still hold the chunk before.
      if (connection.pendingBytes > 0) buffer = new Uint8Array(chunkBytes);
      const chunk = buffer.subarray(0, wantedBytes);
      const count = await file.read(chunk, at);
      if (count < wantedBytes) throw new Error(`${file.path}: it ends at byte ${at + count} of ${this.#file.bytes}`);
      await this.#throttle.take(wantedBytes, signal);
      if (signal.aborted) return;
      connection.write(frameKind.chunk, offsetHead(at), frameBody(chunk));
      at += wantedBytes;
      if (!connection.flush()) await this.#drained(connection);
    }
  }

  /** Resolves when there is room again, or nobody left to send to. */
  #drained(connection: PeerConnection): Promise<void> {
    if (connection.isClosed) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onDrain = () => {
        this.#onDrain = undefined;
        resolve();
      };
    });
  }

  #take({ kind, head }: Frame, resume: (offset: number) => void): void {
    this.#stalledTicks = 0;
    switch (kind) {
      case frameKind.resume:
        resume(Math.min(readOffset(head), this.#file.bytes));
        return;
      case frameKind.progress:
        if (!this.#isOver) this.#events.onProgress(this.to);
        return;
      case frameKind.installed:
        this.#wasInstalled = true;
        this.#connection?.destroy("sent");
        return;
      case frameKind.failed:
        this.#fail(readReason(head));
        return;
      default:
        this.#fail(`frame of kind ${kind} does not belong to a checkpoint's transfer`);
    }
  }
}

/** Where in the file a chunk belongs, as its frame's head says it. */
export function offsetHead(offset: number): Uint8Array {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(offset % 2 ** 32, 0);
  head.writeUInt32LE(Math.floor(offset / 2 ** 32), 4);
  return head;
}

/** What it does not use within this time it may use up at once: timers are not exact. */
const burstMs = 20;

/** Lets a number of bytes per second pass, of all who ask together. */
export class Throttle {
  readonly #clock: Clock;
  readonly #bytesPerSecond: number;
  #freeAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: { readonly clock: Clock; readonly bytesPerSecond: number }) {
    assert(options.bytesPerSecond > 0, `${options.bytesPerSecond} bytes per second let nothing pass`);
    this.#clock = options.clock;
    this.#bytesPerSecond = options.bytesPerSecond;
  }

  /** Resolves when it is their turn, or the signal has fired. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    const turnMs = Math.max(this.#freeAtMs, nowMs - burstMs);
    this.#freeAtMs = turnMs + (bytes / this.#bytesPerSecond) * 1000;
    if (turnMs <= nowMs || signal.aborted) return;
    await this.#clock.sleep(turnMs - nowMs, signal).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
  }
}
