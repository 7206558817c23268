/**
 * Jute, ZooKeeper's encoding (zookeeper.jute of ZooKeeper 3.8): big-endian numbers, byte strings with a 4-byte length of which -1
 * means "none", vectors with a 4-byte count. The reader checks every length against what is there.
 */

import { HeadpondError } from "../base/errors.ts";

export class JuteWriter {
  #bytes = Buffer.allocUnsafe(256);
  #length = 0;

  int(value: number): this {
    this.#room(4);
    this.#length = this.#bytes.writeInt32BE(value, this.#length);
    return this;
  }

  long(value: bigint): this {
    this.#room(8);
    this.#length = this.#bytes.writeBigInt64BE(value, this.#length);
    return this;
  }

  boolean(value: boolean): this {
    this.#room(1);
    this.#bytes[this.#length++] = value ? 1 : 0;
    return this;
  }

  buffer(value: Uint8Array): this {
    this.int(value.length);
    this.#room(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  text(value: string): this {
    return this.buffer(Buffer.from(value, "utf8"));
  }

  texts(values: readonly string[]): this {
    this.int(values.length);
    for (const value of values) this.text(value);
    return this;
  }

  /** What was written, with its length in front: a frame. */
  frame(): Buffer {
    const frame = Buffer.allocUnsafe(4 + this.#length);
    frame.writeInt32BE(this.#length, 0);
    this.#bytes.copy(frame, 4, 0, this.#length);
    return frame;
  }

  #room(count: number): void {
    const needed = this.#length + count;
    if (needed <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(needed, 2 * this.#bytes.length));
    this.#bytes.copy(larger, 0, 0, this.#length);
    this.#bytes = larger;
  }
}

/** Throws `corrupt` where the bytes end too early or a length is absurd. */
export class JuteReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  int(): number {
    return this.#bytes.readInt32BE(this.#take(4));
  }

  long(): bigint {
    return this.#bytes.readBigInt64BE(this.#take(8));
  }

  boolean(): boolean {
    return this.#bytes[this.#take(1)] !== 0;
  }

  /** A copy; empty for "none". */
  buffer(): Buffer {
    const length = this.int();
    if (length <= 0) return Buffer.alloc(0);
    const start = this.#take(length);
    return Buffer.from(this.#bytes.subarray(start, start + length));
  }

  text(): string {
    const length = this.int();
    if (length <= 0) return "";
    const start = this.#take(length);
    return this.#bytes.toString("utf8", start, start + length);
  }

  texts(): string[] {
    const count = this.int();
    // Each has at least its length.
    if (count * 4 > this.#bytes.length - this.#at) throw this.#cut(count * 4);
    return Array.from({ length: Math.max(0, count) }, () => this.text());
  }

  #take(count: number): number {
    const start = this.#at;
    if (count > this.#bytes.length - start) throw this.#cut(count);
    this.#at = start + count;
    return start;
  }

  #cut(count: number): HeadpondError {
    const left = this.#bytes.length - this.#at;
    return new HeadpondError("corrupt", `an answer of ZooKeeper is cut short: ${count} bytes wanted, ${left} left`);
  }
}
