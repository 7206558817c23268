/**
 * MessagePack into a growing buffer, which frames are gathered in (outbox.ts). It writes nil, booleans, numbers, text,
 * binary, arrays and maps with text keys: what a message may consist of. There are no extensions.
 */

import { HeadpondError } from "../base/errors.ts";

/** Values nested deeper than this are refused: readers recurse. */
export const maxDepth = 64;
/** Up to this length a loop over characters beats a call into the runtime (measured: docs/decisions/0020). */
const shortTextLength = 20;

export class Writer {
  buffer: Buffer;
  position = 0;

  constructor(capacityBytes: number) {
    this.buffer = Buffer.allocUnsafeSlow(capacityBytes);
  }

  /** Makes room for `bytes` more. An owner that keeps earlier bytes elsewhere overrides it. */
  ensure(bytes: number): void {
    if (this.position + bytes <= this.buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.buffer.length * 2, this.position + bytes));
    this.buffer.copy(larger, 0, 0, this.position);
    this.buffer = larger;
  }

  nil(): void {
    this.ensure(1);
    this.buffer[this.position++] = 0xc0;
  }

  boolean(value: boolean): void {
    if (typeof value !== "boolean") throw notA("boolean", value);
    this.ensure(1);
    this.buffer[this.position++] = value ? 0xc3 : 0xc2;
  }

  number(value: number): void {
    this.ensure(9);
    const { buffer } = this;
    let p = this.position;
    if (!Number.isSafeInteger(value)) {
      if (typeof value !== "number") throw notA("number", value);
      buffer[p] = 0xcb;
      this.position = buffer.writeDoubleBE(value, p + 1);
    } else if (value >= 0) {
      if (value < 0x80) {
        buffer[p++] = value;
      } else if (value < 0x100) {
        buffer[p++] = 0xcc;
        buffer[p++] = value;
      } else if (value < 0x1_0000) {
        buffer[p++] = 0xcd;
        buffer[p++] = value >>> 8;
        buffer[p++] = value;
      } else if (value < 0x1_0000_0000) {
        buffer[p++] = 0xce;
        p = putUint32(buffer, p, value);
      } else {
        buffer[p++] = 0xcf;
        p = putUint32(buffer, p, Math.floor(value / 0x1_0000_0000));
        p = putUint32(buffer, p, value >>> 0);
      }
      this.position = p;
    } else if (value >= -0x20) {
      buffer[p] = value & 0xff;
      this.position = p + 1;
    } else if (value >= -0x8000_0000) {
      buffer[p] = 0xd2;
      this.position = putUint32(buffer, p + 1, value >>> 0);
    } else {
      buffer[p] = 0xd3;
      p = putUint32(buffer, p + 1, Math.floor(value / 0x1_0000_0000) >>> 0);
      this.position = putUint32(buffer, p, value >>> 0);
    }
  }

  string(value: string): void {
    if (typeof value !== "string") throw notA("string", value);
    const { length } = value;
    if (length > shortTextLength) {
      this.#longString(value);
      return;
    }
    this.ensure(length + 2);
    const { buffer } = this;
    let p = this.position;
    if (length < 32) {
      buffer[p++] = 0xa0 | length;
    } else {
      buffer[p++] = 0xd9;
      buffer[p++] = length;
    }
    for (let i = 0; i < length; i++) {
      const code = value.charCodeAt(i);
      if (code >= 0x80) {
        this.#longString(value);
        return;
      }
      buffer[p++] = code;
    }
    this.position = p;
  }

  /** Most text is ASCII, so its size in bytes is guessed to be its length, and put right when that was wrong. */
  #longString(value: string): void {
    this.ensure(value.length * 3 + 5);
    const start = this.position;
    this.#sizedHeader(value.length, 0xa0, 0xd9);
    const bytes = this.buffer.write(value, this.position, "utf8");
    if (bytes !== value.length) {
      this.position = start;
      this.#sizedHeader(bytes, 0xa0, 0xd9);
      this.buffer.write(value, this.position, "utf8");
    }
    this.position += bytes;
  }

  bytes(value: Uint8Array): void {
    if (!(value instanceof Uint8Array)) throw notA("Uint8Array", value);
    this.ensure(value.length + 5);
    this.#sizedHeader(value.length, -1, 0xc4);
    this.buffer.set(value, this.position);
    this.position += value.length;
  }

  /** `tag`, tag + 1, tag + 2 take sizes of 1, 2, 4 bytes; `shortTag` holds a size below 32 itself. */
  #sizedHeader(size: number, shortTag: number, tag: number): void {
    const { buffer } = this;
    let p = this.position;
    if (shortTag >= 0 && size < 32) {
      buffer[p++] = shortTag | size;
    } else if (size < 0x100) {
      buffer[p++] = tag;
      buffer[p++] = size;
    } else if (size < 0x1_0000) {
      buffer[p++] = tag + 1;
      buffer[p++] = size >>> 8;
      buffer[p++] = size;
    } else {
      buffer[p++] = tag + 2;
      p = putUint32(buffer, p, size);
    }
    this.position = p;
  }

  /** The head of an array of `length` values, which follow. */
  array(length: number): void {
    this.#collection(length, 0x90, 0xdc);
  }

  /** The head of a map of `size` pairs, which follow. */
  map(size: number): void {
    this.#collection(size, 0x80, 0xde);
  }

  #collection(size: number, shortTag: number, tag: number): void {
    this.ensure(5);
    const { buffer } = this;
    let p = this.position;
    if (size < 16) {
      buffer[p++] = shortTag | size;
    } else if (size < 0x1_0000) {
      buffer[p++] = tag;
      buffer[p++] = size >>> 8;
      buffer[p++] = size;
    } else {
      buffer[p++] = tag + 1;
      p = putUint32(buffer, p, size);
    }
    this.position = p;
  }

  /** Any value of which no schema is known. Absent (`undefined`) fields of objects are left out. */
  value(value: unknown, depth = 0): void {
    switch (typeof value) {
      case "string":
        this.string(value);
        return;
      case "number":
        this.number(value);
        return;
      case "boolean":
        this.boolean(value);
        return;
      case "undefined":
        this.nil();
        return;
      case "object":
        if (value === null) this.nil();
        else this.#object(value, depth);
        return;
      default:
        throw new HeadpondError("internal", `a message cannot carry a ${typeof value}`);
    }
  }

  #object(value: object, depth: number): void {
    if (depth >= maxDepth) throw new HeadpondError("internal", `a message is nested deeper than ${maxDepth}`);
    if (value instanceof Uint8Array) {
      this.bytes(value);
    } else if (Array.isArray(value)) {
      this.array(value.length);
      for (const item of value) this.value(item, depth + 1);
    } else {
      const entries = Object.entries(value).filter(([, field]) => field !== undefined);
      this.map(entries.length);
      for (const [key, field] of entries) {
        this.string(key);
        this.value(field, depth + 1);
      }
    }
  }
}

function putUint32(buffer: Buffer, position: number, value: number): number {
  buffer[position] = value >>> 24;
  buffer[position + 1] = value >>> 16;
  buffer[position + 2] = value >>> 8;
  buffer[position + 3] = value;
  return position + 4;
}

/** Types should have kept it out: it must not turn into something else on the way. */
function notA(type: string, value: unknown): HeadpondError {
  return new HeadpondError("internal", `a message has a ${typeof value} where a ${type} belongs`);
}
