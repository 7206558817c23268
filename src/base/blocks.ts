/** Blocks of a file, and the bitmap that says which of them somebody holds (1 TB in 4 MiB blocks: 32 KiB). */

import { assert } from "./assert.ts";
import { HeadpondError } from "./errors.ts";
import type { BlockIndex } from "./ids.ts";
import { MiB } from "./units.ts";

/** The unit of presence, checksum, placement and transfer. */
export const blockSizeBytesDefault = 4 * MiB;

export type BlockRange = {
  /** First byte in the file. */
  readonly position: number;
  readonly length: number;
};

export function blockCount(sizeBytes: number, blockSizeBytes: number): number {
  return Math.ceil(sizeBytes / blockSizeBytes);
}

/** Where block `index` lies in its file; the last block may be shorter. */
export function blockRange(index: BlockIndex, sizeBytes: number, blockSizeBytes: number): BlockRange {
  const position = index * blockSizeBytes;
  assert(position < sizeBytes, `block ${index} lies behind the end of a file of ${sizeBytes} bytes`);
  return { position, length: Math.min(blockSizeBytes, sizeBytes - position) };
}

/** A growable-by-copy, fixed-length set of block indexes. */
export class BlockBitmap {
  readonly length: number;
  #bits: Uint8Array;
  #count = 0;

  constructor(length: number) {
    this.length = length;
    this.#bits = new Uint8Array(Math.ceil(length / 8));
  }

  /** Inverse of `toBytes`. Throws `corrupt` when the bytes are not those of `length` bits. */
  static fromBytes(bytes: Uint8Array, length: number): BlockBitmap {
    const bitmap = new BlockBitmap(length);
    if (bytes.length !== bitmap.#bits.length) {
      throw new HeadpondError("corrupt", `bitmap has ${bytes.length} bytes, not ${bitmap.#bits.length}`);
    }
    bitmap.#bits = Uint8Array.from(bytes);
    for (const byte of bytes) bitmap.#count += popCount(byte);
    const spare = bytes.length * 8 - length;
    if (spare > 0 && (bytes[bytes.length - 1] as number) >> (8 - spare) !== 0) {
      throw new HeadpondError("corrupt", `bitmap has bits behind block ${length - 1}`);
    }
    return bitmap;
  }

  static full(length: number): BlockBitmap {
    const bitmap = new BlockBitmap(length);
    for (let index = 0; index < length; index++) bitmap.add(index as BlockIndex);
    return bitmap;
  }

  /** How many blocks are in the set. */
  get count(): number {
    return this.#count;
  }

  get isFull(): boolean {
    return this.#count === this.length;
  }

  has(index: BlockIndex): boolean {
    return ((this.#bits[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
  }

  /** Returns whether the set changed. */
  add(index: BlockIndex): boolean {
    assert(index >= 0 && index < this.length, `block ${index} is not among ${this.length}`);
    if (this.has(index)) return false;
    this.#bits[index >> 3] = (this.#bits[index >> 3] as number) | (1 << (index & 7));
    this.#count++;
    return true;
  }

  delete(index: BlockIndex): boolean {
    if (!this.has(index)) return false;
    this.#bits[index >> 3] = (this.#bits[index >> 3] as number) & ~(1 << (index & 7));
    this.#count--;
    return true;
  }

  /** Bit `i` is bit `i % 8` of byte `i / 8`. */
  toBytes(): Uint8Array {
    return Uint8Array.from(this.#bits);
  }

  /** Bytes of the file that the set covers. */
  coveredBytes(sizeBytes: number, blockSizeBytes: number): number {
    if (this.length === 0) return 0;
    const lastIndex = (this.length - 1) as BlockIndex;
    const lastBytes = sizeBytes - lastIndex * blockSizeBytes;
    return this.has(lastIndex) ? (this.#count - 1) * blockSizeBytes + lastBytes : this.#count * blockSizeBytes;
  }
}

function popCount(byte: number): number {
  let count = 0;
  for (let rest = byte; rest !== 0; rest &= rest - 1) count++;
  return count;
}
