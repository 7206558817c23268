/**
 * The outgoing half of a connection. Frames written in one turn are gathered in one buffer and handed to the connection
 * in one write per microtask: three times the throughput of a write per frame (docs/decisions/0020). While the
 * connection is full, frames are kept here; whoever produces them looks at `queuedBytes`.
 *
 * It counts the bytes handed over, so that a caller can tell a request that was never sent from one that may have been.
 */

import type { Connection } from "../io/network.ts";
import { type FrameKind, frameHeadBytes } from "./frame.ts";
import { Writer } from "./message-writer.ts";

/** Buffers grow with the traffic of their connection: ten thousand idle ones must be cheap. */
const smallestSlabBytes = 1024;
const largestSlabBytes = 64 * 1024;
/** Room added for what follows a message that outgrows its slab. */
const spareBytesMax = 1024 * 1024;
/** Larger buffers are not kept. */
const reusableBytesMax = 4 * 1024 * 1024;
/** So much is handed over without waiting for the end of the turn: ... */
const flushAtBytes = 256 * 1024;
/**
 * ... the other side begins with these frames while we make the next. Without it two ends with hundreds of requests
 * between them take turns: each waits until the other has dealt with all of them, and one of two cores is idle.
 */
const flushAtFrames = 64;

export class Outbox extends Writer {
  readonly #connection: Connection;
  /** Where the frames that were not handed over begin; before it the buffer belongs to the connection. */
  #gatheredFrom = 0;
  #frameStart = 0;
  /** Frames that were not handed over. */
  #gatheredFrames = 0;
  #flushScheduled = false;
  #full = false;
  #closed = false;
  #nextSlabBytes = smallestSlabBytes;
  /** Bytes of whole frames written so far, and those of them handed to the connection. */
  #writtenBytes = 0;
  #handedOverBytes = 0;

  constructor(connection: Connection) {
    super(0);
    this.#connection = connection;
    connection.onDrain = () => this.#drained();
  }

  /** Called when the connection takes bytes again after it was full. */
  onDrain: () => void = () => {};

  /** Whether the connection takes no more for now. */
  get full(): boolean {
    return this.#full;
  }

  /** Bytes that wait here or in the connection. */
  get queuedBytes(): number {
    return this.position - this.#gatheredFrom + this.#connection.pendingBytes;
  }

  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  get handedOverBytes(): number {
    return this.#handedOverBytes;
  }

  beginFrame(kind: FrameKind, id: number): void {
    this.ensure(frameHeadBytes);
    const { buffer, position } = this;
    this.#frameStart = position;
    buffer[position + 4] = kind;
    buffer.writeUInt32BE(id, position + 5);
    this.position = position + frameHeadBytes;
  }

  /** Bytes of the frame begun, head included. */
  get frameBytes(): number {
    return this.position - this.#frameStart;
  }

  endFrame(): void {
    const bytes = this.position - this.#frameStart;
    this.buffer.writeUInt32BE(bytes - 4, this.#frameStart);
    this.#writtenBytes += bytes;
    if (this.#closed) {
      this.position = this.#gatheredFrom;
    } else if (++this.#gatheredFrames >= flushAtFrames || this.position - this.#gatheredFrom >= flushAtBytes) {
      this.flush();
    } else if (!this.#flushScheduled) {
      this.#flushScheduled = true;
      queueMicrotask(this.#flushLater);
    }
  }

  /** Takes back the frame begun: it could not be written. */
  abandonFrame(): void {
    this.position = this.#frameStart;
  }

  emptyFrame(kind: FrameKind, id: number): void {
    this.beginFrame(kind, id);
    this.endFrame();
  }

  readonly #flushLater = (): void => {
    this.#flushScheduled = false;
    this.flush();
  };

  /** Hands over whole frames, unless the connection is full. Not to be called within a frame. */
  flush(): void {
    const from = this.#gatheredFrom;
    const until = this.position;
    if (this.#full || this.#closed || from === until) return;
    this.#gatheredFrom = until;
    this.#gatheredFrames = 0;
    this.#handedOverBytes = this.#writtenBytes;
    this.#full = !this.#connection.write(this.buffer.subarray(from, until));
  }

  /** Sends what is gathered, then ends the connection. */
  end(): void {
    if (this.#closed) return;
    this.#full = false;
    this.flush();
    this.close();
    this.#connection.end();
  }

  /** The connection is gone: what was not handed over never will be. */
  close(): void {
    this.#closed = true;
    this.position = this.#gatheredFrom;
  }

  /** Gives back the memory of a connection that has become quiet. */
  trim(): void {
    if (this.position !== this.#gatheredFrom) return;
    this.buffer = emptyBuffer;
    this.position = 0;
    this.#gatheredFrom = 0;
    this.#nextSlabBytes = smallestSlabBytes;
  }

  /** Bytes before `#gatheredFrom` belong to the connection, and are left alone until it has none pending. */
  override ensure(bytes: number): void {
    if (this.position + bytes <= this.buffer.length) return;
    if (this.#reuse(bytes)) return;
    const kept = this.position - this.#gatheredFrom;
    const needed = kept + bytes;
    const slab = Buffer.allocUnsafeSlow(Math.max(this.#nextSlabBytes, needed + Math.min(needed, spareBytesMax)));
    this.#nextSlabBytes = Math.min(largestSlabBytes, 2 * this.#nextSlabBytes);
    this.buffer.copy(slab, 0, this.#gatheredFrom, this.position);
    this.#frameStart -= this.#gatheredFrom;
    this.buffer = slab;
    this.position = kept;
    this.#gatheredFrom = 0;
  }

  /**
   * Starts again at the front of the buffer when the connection uses none of it; what is gathered moves along. A new
   * buffer per large answer would keep the garbage collector busier than the answers keep us.
   */
  #reuse(bytes: number): boolean {
    const { buffer, position } = this;
    const from = this.#gatheredFrom;
    if (from === 0 || buffer.length > reusableBytesMax || position - from + bytes > buffer.length) return false;
    if (this.#connection.pendingBytes > 0) return false;
    buffer.copyWithin(0, from, position);
    this.position = position - from;
    this.#gatheredFrom = 0;
    this.#frameStart -= from;
    return true;
  }

  #drained(): void {
    this.#full = false;
    this.flush();
    if (!this.#full) this.onDrain();
  }
}

const emptyBuffer = Buffer.alloc(0);
