/**
 * MessagePack out of bytes that the reader does not own: text and binary values are copied out. Nothing is used beyond
 * the end that it was given, and bad bytes throw `invalid`.
 */

import { HeadpondError } from "../base/errors.ts";
import { maxDepth } from "./message-writer.ts";

/** Up to this length a loop over bytes beats a call into the runtime (measured: docs/decisions/0020). */
const shortTextLength = 9;

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
    if (bytes <= shortTextLength) {
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
      if (typeof key !== "string") throw malformed("a key of a map is not a field's name");
      const value = this.value(depth + 1);
      // A plain assignment would set the prototype. Attributes may have this name: without it, a file that has one could
      // not be read by anybody.
      if (key === "__proto__") Object.defineProperty(result, key, { value, ...plainProperty });
      else result[key] = value;
    }
    return result;
  }
}

function getUint32(buffer: Buffer, position: number): number {
  const high = ((buffer[position] ?? 0) << 8) | (buffer[position + 1] ?? 0);
  return ((high << 16) | ((buffer[position + 2] ?? 0) << 8) | (buffer[position + 3] ?? 0)) >>> 0;
}

const plainProperty = { enumerable: true, writable: true, configurable: true };

function malformed(why: string): HeadpondError {
  return new HeadpondError("invalid", `malformed message: ${why}`);
}
