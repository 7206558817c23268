/**
 * Writes and reads the positional binary forms of commands and rows: varints, strings with their length in front, numbers
 * in 6 bytes. One writer is reused for many values; a reader checks every length, so damaged bytes are `corrupt`, never
 * a crash or garbage.
 */

import { HeadpondError } from "../base/errors.ts";

export class ByteWriter {
  buffer: Buffer;
  position = 0;

  constructor(capacityBytes = 4096) {
    this.buffer = Buffer.allocUnsafeSlow(capacityBytes);
  }

  /** A copy of what was written. */
  bytes(from = 0): Buffer {
    const copy = Buffer.allocUnsafe(this.position - from);
    this.buffer.copy(copy, 0, from, this.position);
    return copy;
  }

  reserve(bytes: number): void {
    if (this.position + bytes <= this.buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.buffer.length * 2, this.position + bytes));
    this.buffer.copy(grown, 0, 0, this.position);
    this.buffer = grown;
  }

  byte(value: number): void {
    this.reserve(1);
    this.buffer[this.position++] = value;
  }

  /** A whole number from 0 to 2^53 - 1, 7 bits a byte, low ones first. */
  varint(value: number): void {
    this.reserve(8);
    const { buffer } = this;
    let position = this.position;
    let rest = value;
    while (rest >= 0x1000_0000) {
      buffer[position++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    while (rest >= 0x80) {
      buffer[position++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    buffer[position++] = rest;
    this.position = position;
  }

  /** 0 to 2^48 - 1, big end first: sorts as the number does. */
  uint48(value: number): void {
    this.reserve(6);
    const { buffer } = this;
    const high = Math.floor(value / 2 ** 32);
    const low = value >>> 0;
    const at = this.position;
    buffer[at] = high >>> 8;
    buffer[at + 1] = high;
    buffer[at + 2] = low >>> 24;
    buffer[at + 3] = low >>> 16;
    buffer[at + 4] = low >>> 8;
    buffer[at + 5] = low;
    this.position = at + 6;
  }

  string(text: string): void {
    const { length } = text;
    if (length < 128) {
      // Most strings are short and ASCII: a loop beats a call into the engine.
      this.reserve(length + 1);
      const { buffer } = this;
      let at = this.position;
      buffer[at++] = length;
      let i = 0;
      for (; i < length; i++) {
        const unit = text.charCodeAt(i);
        if (unit >= 0x80) break;
        buffer[at++] = unit;
      }
      if (i === length) {
        this.position = at;
        return;
      }
    }
    const bytes = Buffer.byteLength(text);
    this.varint(bytes);
    this.reserve(bytes);
    this.position += this.buffer.write(text, this.position, bytes, "utf8");
  }

  /** A few bytes of `source`: a loop, which beats a call into the engine and needs no view. */
  copy(source: Uint8Array, from: number, to: number): void {
    this.reserve(to - from);
    const { buffer } = this;
    let at = this.position;
    for (let i = from; i < to; i++) buffer[at++] = source[i] as number;
    this.position = at;
  }

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.buffer.set(bytes, this.position);
    this.position += bytes.length;
  }
}

export class ByteReader {
  buffer: Buffer;
  position: number;
  end: number;
  /** For messages: what the bytes are. */
  readonly what: string;

  constructor(what: string, bytes: Uint8Array) {
    this.what = what;
    this.buffer = asBuffer(bytes);
    this.position = 0;
    this.end = bytes.length;
  }

  /** Goes on with other bytes: saves an object per row. */
  reset(bytes: Uint8Array, position = 0, end = bytes.length): this {
    this.buffer = asBuffer(bytes);
    this.position = position;
    this.end = end;
    return this;
  }

  get atEnd(): boolean {
    return this.position >= this.end;
  }

  byte(): number {
    if (this.position >= this.end) this.#short();
    return this.buffer[this.position++] as number;
  }

  varint(): number {
    const { buffer } = this;
    let at = this.position;
    // What is read beyond the end does not count: that is looked at afterwards.
    let byte = buffer[at++] as number;
    let value = byte & 0x7f;
    let factor = 128;
    while (byte >= 0x80) {
      byte = buffer[at++] as number;
      value += (byte & 0x7f) * factor;
      factor *= 128;
    }
    if (at > this.end) this.#short();
    if (value > Number.MAX_SAFE_INTEGER) this.fail("holds a number above 2^53");
    this.position = at;
    return value;
  }

  uint48(): number {
    const at = this.position;
    if (at + 6 > this.end) this.#short();
    this.position = at + 6;
    const b = this.buffer;
    const low =
      (b[at + 2] as number) * 0x1000000 +
      (((b[at + 3] as number) << 16) | ((b[at + 4] as number) << 8) | (b[at + 5] as number));
    return ((b[at] as number) * 256 + (b[at + 1] as number)) * 2 ** 32 + low;
  }

  string(): string {
    const length = this.varint();
    const at = this.position;
    const end = at + length;
    if (end > this.end) this.#short();
    this.position = end;
    if (length === 0) return "";
    return (this.buffer as Sliceable).utf8Slice(at, end);
  }

  skipString(): void {
    const length = this.varint();
    if (this.position + length > this.end) this.#short();
    this.position += length;
  }

  fail(why: string): never {
    throw new HeadpondError("corrupt", `${this.what} ${why} (at byte ${this.position} of ${this.end})`);
  }

  #short(): never {
    this.fail("ends too early");
  }
}

/** Node's own fast path behind `toString`, absent from its types. */
type Sliceable = Buffer & { utf8Slice(start: number, end: number): string };

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
