/**
 * MessagePack into and out of one buffer. The writer appends to a buffer that its owner gathers frames in; the reader
 * walks over bytes that it does not own, so text and binary values are copied out.
 *
 * Both know nil, booleans, numbers, text, binary, arrays and maps with text keys: what a message may consist of. There
 * are no extensions, and nothing is read beyond the end that the reader was given: bad bytes throw `invalid`.
 */

import { HeadpondError } from "../base/errors.ts";

/** Values nested deeper than this are refused: the reader recurses. */
const maxDepth = 64;
/** Up to these lengths a loop over characters beats a call into the runtime (measured: docs/decisions/0020). */
const shortTextLength = 20;
const shortTextReadLength = 9;

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

const nothing = Buffer.alloc(0);

/**
 * Reads whatever value comes, not what was expected: a field of a wrong type is for the schema's check to name. Single
 * bytes are read without a check of the end, which is safe because `finish` makes sure that none was passed.
 */
export class Reader {
  buffer: Buffer = nothing;
  position = 0;
  end = 0;

  reset(buffer: Buffer, position: number, end: number): this {
    this.buffer = buffer;
    this.position = position;
    this.end = end;
    return this;
  }

  /** Forgets the bytes and throws unless exactly all of them were read. */
  finish(): void {
    const { position, end } = this;
    this.buffer = nothing;
    if (position !== end) throw malformed(position > end ? "it ends within a value" : "bytes follow its end");
  }

  /** Text, or whatever stands in its place. */
  string(): unknown {
    const tag = this.buffer[this.position] ?? 0xc1;
    if ((tag & 0xe0) === 0xa0) {
      this.position++;
      return this.#text(tag & 0x1f);
    }
    if (tag === 0xd9) {
      const size = this.buffer[this.position + 1] ?? 0;
      this.position += 2;
      return this.#text(size);
    }
    return this.value();
  }

  /** A number, or whatever stands in its place. */
  number(): unknown {
    const { buffer, position } = this;
    const tag = buffer[position] ?? 0xc1;
    if (tag < 0x80) {
      this.position = position + 1;
      return tag;
    }
    if (tag === 0xcd) {
      this.position = position + 3;
      return ((buffer[position + 1] ?? 0) << 8) | (buffer[position + 2] ?? 0);
    }
    if (tag === 0xce) {
      this.position = position + 5;
      return getUint32(buffer, position + 1);
    }
    if (tag === 0xcf) {
      this.position = position + 9;
      return getUint32(buffer, position + 1) * 0x1_0000_0000 + getUint32(buffer, position + 5);
    }
    return this.value();
  }

  /** Whether the next value is nil, which is then consumed. */
  isNil(): boolean {
    if (this.buffer[this.position] !== 0xc0) return false;
    this.position++;
    return true;
  }

  /** The length of the array that begins here, or -1 when something else does (nothing is consumed then). */
  arrayLength(): number {
    const tag = this.buffer[this.position] ?? 0xc1;
    if ((tag & 0xf0) === 0x90) {
      this.position++;
      return this.#count(tag & 0x0f);
    }
    if (tag === 0xdc || tag === 0xdd) {
      this.position++;
      return this.#count(this.#uint(tag === 0xdc ? 2 : 4));
    }
    return -1;
  }

  /** Passes over `count` values: the fields that a newer peer appended. */
  skip(count: number): void {
    for (let i = 0; i < count; i++) this.value();
  }

  value(depth = 0): unknown {
    if (depth > maxDepth) throw malformed(`it is nested deeper than ${maxDepth}`);
    if (this.position >= this.end) throw malformed("it ends before a value");
    const tag = this.buffer[this.position++] ?? 0xc1;
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.#map(tag & 0x0f, depth);
    if (tag < 0xa0) return this.#array(tag & 0x0f, depth);
    if (tag < 0xc0) return this.#text(tag & 0x1f);
    if (tag >= 0xe0) return tag - 0x100;
    switch (tag) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
        return this.#bytes(this.#uint(1));
      case 0xc5:
        return this.#bytes(this.#uint(2));
      case 0xc6:
        return this.#bytes(this.#uint(4));
      case 0xca:
        this.#need(4);
        return this.buffer.readFloatBE((this.position += 4) - 4);
      case 0xcb:
        this.#need(8);
        return this.buffer.readDoubleBE((this.position += 8) - 8);
      case 0xcc:
        return this.#uint(1);
      case 0xcd:
        return this.#uint(2);
      case 0xce:
        return this.#uint(4);
      case 0xcf:
        return this.#uint(4) * 0x1_0000_0000 + this.#uint(4);
      case 0xd0:
        return (this.#uint(1) << 24) >> 24;
      case 0xd1:
        return (this.#uint(2) << 16) >> 16;
      case 0xd2:
        return this.#uint(4) | 0;
      case 0xd3:
        return (this.#uint(4) | 0) * 0x1_0000_0000 + this.#uint(4);
      case 0xd9:
        return this.#text(this.#uint(1));
      case 0xda:
        return this.#text(this.#uint(2));
      case 0xdb:
        return this.#text(this.#uint(4));
      case 0xdc:
        return this.#array(this.#uint(2), depth);
      case 0xdd:
        return this.#array(this.#uint(4), depth);
      case 0xde:
        return this.#map(this.#uint(2), depth);
      case 0xdf:
        return this.#map(this.#uint(4), depth);
      default:
        throw malformed(`0x${tag.toString(16)} begins no value`);
    }
  }

  #need(bytes: number): void {
    if (bytes > this.end - this.position) throw malformed("it ends within a value");
  }

  #uint(bytes: 1 | 2 | 4): number {
    const { buffer, position } = this;
    this.position = position + bytes;
    let result = 0;
    for (let i = position; i < position + bytes; i++) result = ((result << 8) | (buffer[i] ?? 0)) >>> 0;
    return result;
  }

  /** A count of values takes at least as many bytes, so that a lie cannot make us allocate. */
  #count(count: number): number {
    this.#need(count);
    return count;
  }

  #text(bytes: number): string {
    this.#need(bytes);
    const { buffer, position } = this;
    const end = position + bytes;
    this.position = end;
    if (bytes <= shortTextReadLength) {
      let text = "";
      for (let i = position; i < end; i++) {
        const code = buffer[i] ?? 0;
        if (code >= 0x80) return buffer.toString("utf8", position, end);
        text += String.fromCharCode(code);
      }
      return text;
    }
    return buffer.toString("utf8", position, end);
  }

  #bytes(bytes: number): Uint8Array {
    this.#need(bytes);
    // Not zeroed: every byte is written at once.
    const copy = new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer);
    copy.set(this.buffer.subarray(this.position, this.position + bytes));
    this.position += bytes;
    return copy;
  }

  #array(count: number, depth: number): unknown[] {
    const result: unknown[] = [];
    for (let i = this.#count(count); i > 0; i--) result.push(this.value(depth + 1));
    return result;
  }

  #map(count: number, depth: number): Record<string, unknown> {
    const result: Record<string, unknown> = {};
    for (let i = this.#count(count); i > 0; i--) {
      const key = this.value(depth + 1);
      if (typeof key !== "string" || key === "__proto__") throw malformed("a key of a map is not a field's name");
      result[key] = this.value(depth + 1);
    }
    return result;
  }
}

function putUint32(buffer: Buffer, position: number, value: number): number {
  buffer[position] = value >>> 24;
  buffer[position + 1] = value >>> 16;
  buffer[position + 2] = value >>> 8;
  buffer[position + 3] = value;
  return position + 4;
}

function getUint32(buffer: Buffer, position: number): number {
  const high = ((buffer[position] ?? 0) << 8) | (buffer[position + 1] ?? 0);
  return ((high << 16) | ((buffer[position + 2] ?? 0) << 8) | (buffer[position + 3] ?? 0)) >>> 0;
}

/** Types should have kept it out: it must not turn into something else on the way. */
function notA(type: string, value: unknown): HeadpondError {
  return new HeadpondError("internal", `a message has a ${typeof value} where a ${type} belongs`);
}

function malformed(why: string): HeadpondError {
  return new HeadpondError("invalid", `malformed message: ${why}`);
}
