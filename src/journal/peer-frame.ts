/**
 * The frames between masters (docs/formats/peers.md): a head that says something, and a body of bulk bytes. Header, head
 * and body are each summed, and the frames of a direction are numbered, so that a bit that was flipped on the wire, or a
 * frame that went missing or came twice, ends the connection and is never believed.
 *
 * The body has a sum of its own, and is thus encoded and summed once for all peers that get it. What came in is copied
 * exactly once, frame by frame: a body belongs to its receiver. No input or output here.
 */

import { HeadpondError } from "../base/errors.ts";
import { KiB, MiB } from "../base/units.ts";
import { crc32 } from "../io/hash.ts";

/** The first bytes of a connection between masters; the first is neither text nor the start of a TLS record. */
export const peerPreface: Uint8Array = new Uint8Array([0x8f, 0x48, 0x50, 0x4a]);

/** The numbers are the format's. */
export const frameKind = {
  hello: 1,
  welcome: 2,
  refusal: 3,
  messages: 4,
  report: 5,
  ping: 6,
  pong: 7,
  offer: 8,
  resume: 9,
  chunk: 10,
  finish: 11,
  progress: 12,
  installed: 13,
  failed: 14,
} as const;

export type FrameKind = (typeof frameKind)[keyof typeof frameKind];

/** Kind and number, length of head and body, CRC of the body, of these 16 bytes, of the head. */
export const frameHeaderBytes = 24;

export type FrameLimits = { readonly headBytesMax: number; readonly bodyBytesMax: number };

/** Before the other end has said who it is. */
export const strangerFrameLimits: FrameLimits = { headBytesMax: 16 * KiB, bodyBytesMax: 0 };
/** A body holds at least the largest single entry. */
export const peerFrameLimits: FrameLimits = { headBytesMax: 1 * MiB, bodyBytesMax: 80 * MiB };

export type FrameBody = { readonly bytes: Uint8Array; readonly crc: number };

export type Frame = {
  readonly kind: FrameKind;
  /** Only valid during the call. */
  readonly head: Buffer;
  /** Belongs to whoever takes it. */
  readonly body: Uint8Array;
};

const noBytes = new Uint8Array(0);
const noBody: FrameBody = { bytes: noBytes, crc: 0 };
const numberMask = 0xff_ffff;

export function frameBody(bytes: Uint8Array): FrameBody {
  return { bytes, crc: crc32(bytes) };
}

/** Numbers the frames of one direction. */
export class FrameWriter {
  #number = 0;

  /** Header and head of the next frame; the body, if there is one, goes right behind. */
  encode(kind: FrameKind, head: Uint8Array, body: FrameBody = noBody): Buffer {
    const frame = Buffer.allocUnsafe(frameHeaderBytes + head.length);
    this.#number = (this.#number + 1) & numberMask;
    frame.writeUInt32LE(kind * 2 ** 24 + this.#number, 0);
    frame.writeUInt32LE(head.length, 4);
    frame.writeUInt32LE(body.bytes.length, 8);
    frame.writeUInt32LE(body.crc, 12);
    const headerCrc = crc32(frame.subarray(0, 16));
    frame.writeUInt32LE(headerCrc, 16);
    frame.writeUInt32LE(crc32(head, headerCrc), 20);
    frame.set(head, frameHeaderBytes);
    return frame;
  }
}

/** A frame whose body is on its way. */
type Filling = { readonly header: Header; readonly head: Buffer; readonly body: Uint8Array; filledBytes: number };

type Header = {
  readonly kind: FrameKind;
  readonly headBytes: number;
  readonly headCrc: number;
  readonly headerCrc: number;
  readonly bodyBytes: number;
  readonly bodyCrc: number;
};

/** Cuts the bytes of one direction into frames. After a throw the stream is of no use. */
export class FrameReader {
  readonly #onFrame: (frame: Frame) => void;
  limits: FrameLimits;
  #number = 0;
  /** The beginning of a header and head that are not complete. */
  #held: Buffer = Buffer.allocUnsafe(0);
  #heldBytes = 0;
  #filling: Filling | undefined;

  constructor(options: { readonly limits: FrameLimits; readonly onFrame: (frame: Frame) => void }) {
    this.limits = options.limits;
    this.#onFrame = options.onFrame;
  }

  /** Throws `corrupt` at the first thing that is wrong; the frames before it have been handed out. */
  push(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let at = 0;
    while (at < bytes.length) {
      if (this.#filling !== undefined) at = this.#fill(this.#filling, bytes, at);
      else if (this.#heldBytes === 0) at = this.#readInPlace(bytes, at);
      else at = this.#readHeld(bytes, at);
    }
  }

  #readInPlace(bytes: Buffer, at: number): number {
    if (bytes.length - at < frameHeaderBytes) return this.#hold(bytes, at, frameHeaderBytes);
    const header = this.#header(bytes, at);
    const end = at + frameHeaderBytes + header.headBytes;
    if (end > bytes.length) return this.#hold(bytes, at, frameHeaderBytes + header.headBytes);
    const head = bytes.subarray(at + frameHeaderBytes, end);
    this.#begin(header, head, bytes.length - end >= header.bodyBytes);
    return end;
  }

  #readHeld(bytes: Buffer, from: number): number {
    let at = from;
    if (this.#heldBytes < frameHeaderBytes) at = this.#hold(bytes, at, frameHeaderBytes);
    if (this.#heldBytes < frameHeaderBytes) return at;
    const header = this.#header(this.#held, 0);
    const needed = frameHeaderBytes + header.headBytes;
    at = this.#hold(bytes, at, needed);
    if (this.#heldBytes < needed) return at;
    const head = this.#held.subarray(frameHeaderBytes, needed);
    this.#held = Buffer.allocUnsafe(0);
    this.#heldBytes = 0;
    this.#begin(header, head, true);
    return at;
  }

  /** Keeps what is there of the next `neededBytes`. */
  #hold(bytes: Buffer, at: number, neededBytes: number): number {
    if (this.#held.length < neededBytes) {
      const larger = Buffer.allocUnsafe(neededBytes);
      this.#held.copy(larger, 0, 0, this.#heldBytes);
      this.#held = larger;
    }
    const count = Math.min(neededBytes - this.#heldBytes, bytes.length - at);
    bytes.copy(this.#held, this.#heldBytes, at, at + count);
    this.#heldBytes += count;
    return at + count;
  }

  #header(bytes: Buffer, at: number): Header {
    const word = bytes.readUInt32LE(at);
    const headerCrc = bytes.readUInt32LE(at + 16);
    const number = (this.#number + 1) & numberMask;
    if (crc32(bytes.subarray(at, at + 16)) !== headerCrc)
      throw damaged(number, "its header does not match its checksum");
    if ((word & numberMask) !== number) throw damaged(number, `number ${word & numberMask} came instead`);
    const kind = word >>> 24;
    if (kind < frameKind.hello || kind > frameKind.failed) throw damaged(number, `its kind ${kind} is not known`);
    const headBytes = bytes.readUInt32LE(at + 4);
    const bodyBytes = bytes.readUInt32LE(at + 8);
    const { headBytesMax, bodyBytesMax } = this.limits;
    if (headBytes > headBytesMax) throw damaged(number, `its head of ${headBytes} bytes exceeds ${headBytesMax}`);
    if (bodyBytes > bodyBytesMax) throw damaged(number, `its body of ${bodyBytes} bytes exceeds ${bodyBytesMax}`);
    return {
      kind: kind as FrameKind,
      headBytes,
      headCrc: bytes.readUInt32LE(at + 20),
      headerCrc,
      bodyBytes,
      bodyCrc: bytes.readUInt32LE(at + 12),
    };
  }

  #begin(header: Header, head: Buffer, isHeadKept: boolean): void {
    this.#number = (this.#number + 1) & numberMask;
    if (crc32(head, header.headerCrc) !== header.headCrc)
      throw damaged(this.#number, "its head does not match its checksum");
    if (header.bodyBytes === 0) {
      this.#onFrame({ kind: header.kind, head, body: noBytes });
      return;
    }
    this.#filling = {
      header,
      // The chunk that it lies in is gone when the rest of the body comes.
      head: isHeadKept ? head : Buffer.from(head),
      body: new Uint8Array(header.bodyBytes),
      filledBytes: 0,
    };
  }

  #fill(filling: Filling, bytes: Buffer, at: number): number {
    const { header, head, body } = filling;
    const count = Math.min(body.length - filling.filledBytes, bytes.length - at);
    body.set(bytes.subarray(at, at + count), filling.filledBytes);
    filling.filledBytes += count;
    if (filling.filledBytes < body.length) return at + count;
    this.#filling = undefined;
    if (crc32(body) !== header.bodyCrc) throw damaged(this.#number, "its body does not match its checksum");
    this.#onFrame({ kind: header.kind, head, body });
    return at + count;
  }
}

function damaged(number: number, what: string): HeadpondError {
  return new HeadpondError("corrupt", `frame ${number}: ${what}`);
}
