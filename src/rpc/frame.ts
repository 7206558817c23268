/**
 * Frames: the pieces of a connection's byte stream. `u32 length | u8 kind | u32 request id | payload`, big-endian;
 * `length` counts what follows it. The layout is fixed for ever, as the preface and the hello are (hello.ts).
 *
 * The parser hands out payloads inside the chunk they came in; only a frame that crosses the border of two chunks is
 * copied, once. It does not know what payloads mean.
 */

import { HeadpondError } from "../base/errors.ts";

export const frameKinds = {
  /** Client: who I am. Server: who I am and which methods I have. */
  hello: 1,
  /** A unary request: method id, timeout, message. */
  request: 2,
  reply: 3,
  /** Ends a unary request or a stream: an error document. */
  error: 4,
  /** Opens a stream: method id, timeout, first credit, message. */
  open: 5,
  item: 6,
  /** The stream has ended well. */
  end: 7,
  /** The client takes more of a stream: items, bytes. */
  credit: 8,
  /** The client no longer wants the answer. */
  cancel: 9,
  ping: 10,
  pong: 11,
  /** The server is closing: what is under way is finished, new requests are refused. */
  farewell: 12,
} as const;

export type FrameKind = (typeof frameKinds)[keyof typeof frameKinds];

/** What `length` covers of the head: kind and request id. */
export const headAfterLengthBytes = 5;
export const frameHeadBytes = 4 + headAfterLengthBytes;

/** Called with bytes that are only valid during the call. False: take no more frames now. */
export type OnFrame = (kind: number, id: number, buffer: Buffer, start: number, end: number) => boolean;

export class FrameParser {
  readonly #onFrame: OnFrame;
  /** Larger frames are refused. Small until the peer has introduced itself. */
  maxFrameBytes: number;
  /** A frame of which more is to come (or, after a stop, whole frames). Holds `#heldBytes`. */
  #held: Buffer | undefined;
  /** The memory of the frame held last, for the next one: frames are used up during `onFrame`. */
  #scratch: Buffer | undefined;
  #heldBytes = 0;
  #stopped = false;

  constructor(options: { readonly onFrame: OnFrame; readonly maxFrameBytes: number }) {
    this.#onFrame = options.onFrame;
    this.maxFrameBytes = options.maxFrameBytes;
  }

  /** Bytes kept because their frame is not complete, or was not wanted yet. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Throws `invalid` when the stream is not one of frames; the connection is then of no use. */
  push(chunk: Uint8Array): void {
    let bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    if (this.#stopped) {
      this.#hold(bytes);
      return;
    }
    while (this.#held !== undefined) {
      const missing = this.#missingBytes(this.#held);
      const part = bytes.subarray(0, missing);
      this.#hold(part);
      bytes = bytes.subarray(part.length);
      if (part.length < missing) return;
      if (this.#missingBytes(this.#held) > 0) continue;
      const frame = this.#held.subarray(0, this.#heldBytes);
      this.#release();
      this.#parse(frame);
      if (this.#stopped) {
        this.#hold(bytes);
        return;
      }
    }
    this.#parse(bytes);
  }

  /** After `onFrame` returned false: goes on with what was kept. */
  resume(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    const held = this.#held?.subarray(0, this.#heldBytes);
    this.#release();
    if (held !== undefined) this.#parse(held);
  }

  /** Gives back the memory of a connection that has become quiet. */
  trim(): void {
    this.#scratch = undefined;
  }

  #release(): void {
    if (this.#held !== undefined && this.#held.length <= scratchBytesMax) this.#scratch = this.#held;
    this.#held = undefined;
    this.#heldBytes = 0;
  }

  #parse(bytes: Buffer): void {
    let position = 0;
    while (bytes.length - position >= 4) {
      const length = this.#frameLength(bytes, position);
      const end = position + 4 + length;
      if (end > bytes.length) break;
      const goOn = this.#onFrame(
        bytes[position + 4] as number,
        bytes.readUInt32BE(position + 5),
        bytes,
        position + frameHeadBytes,
        end,
      );
      position = end;
      if (!goOn) {
        this.#stopped = true;
        break;
      }
    }
    if (position < bytes.length) this.#hold(bytes.subarray(position));
  }

  #frameLength(bytes: Buffer, position: number): number {
    const length = bytes.readUInt32BE(position);
    if (length < headAfterLengthBytes)
      throw new HeadpondError("invalid", `a frame of ${length} bytes has no room for its head`);
    if (length > this.maxFrameBytes) {
      throw new HeadpondError(
        "invalid",
        `a frame of ${length} bytes is larger than the limit of ${this.maxFrameBytes} bytes`,
      );
    }
    return length;
  }

  /** How many bytes to add until the length, and then the frame, is complete. */
  #missingBytes(held: Buffer): number {
    if (this.#heldBytes < 4) return 4 - this.#heldBytes;
    return 4 + this.#frameLength(held, 0) - this.#heldBytes;
  }

  /** Room for a whole frame at once if it is not large; else it grows with what came: the length may be a lie. */
  #hold(bytes: Buffer): void {
    const needed = this.#heldBytes + bytes.length;
    if (this.#held === undefined && this.#scratch !== undefined && this.#scratch.length >= needed) {
      this.#held = this.#scratch;
    }
    if (this.#held === undefined || this.#held.length < needed) {
      const frameBytes = needed >= 4 && !this.#stopped ? this.#announcedBytes(bytes) : 0;
      const wanted = Math.min(frameBytes, trustedFrameBytes);
      const larger = Buffer.allocUnsafeSlow(Math.max(64, needed, wanted, 2 * (this.#held?.length ?? 0)));
      this.#held?.copy(larger, 0, 0, this.#heldBytes);
      this.#held = larger;
    }
    bytes.copy(this.#held, this.#heldBytes);
    this.#heldBytes = needed;
  }

  /** The size of the frame that is held, or that begins with `bytes`. */
  #announcedBytes(bytes: Buffer): number {
    const head = this.#heldBytes >= 4 ? this.#held : bytes;
    return head === undefined || head.length < 4 ? 0 : 4 + head.readUInt32BE(0);
  }
}

/** Larger memory is not kept for the next frame. */
const scratchBytesMax = 1024 * 1024;
/** So much is allocated on the word of a length that was announced. */
const trustedFrameBytes = 256 * 1024;
