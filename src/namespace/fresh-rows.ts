/**
 * The new files since the last freeze that nobody has changed since they came: their rows wait in the ring, and here is how to find
 * them by id, by directory and name, and by directory. Their names are changes that need no map: they stand in the rows.
 *
 * Ids are given out in sequence, so a file is known by its ordinal, which is its id less the first one's; 0 is no ordinal.
 */

import { rowIsNamed } from "./inode.ts";
import type { RowRing } from "./row-ring.ts";

const firstCapacity = 1024;

export class FreshRows {
  readonly #ring: RowRing;
  /** Id of ordinal 0, which no file has. */
  #base = 0;
  /** Ordinals given so far, 0 and those of other inodes included. */
  #end = 1;
  #count = 0;
  /** By ordinal: position in the ring (0: none), hash of directory and name, the file before in the same directory. */
  #positions = new Float64Array(firstCapacity);
  #hashes = new Int32Array(firstCapacity);
  #previous = new Int32Array(firstCapacity);
  /** Ordinals by hash, open addressing; more than twice as many slots as files. */
  #table = new Int32Array(4 * firstCapacity);

  constructor(ring: RowRing) {
    this.#ring = ring;
  }

  get count(): number {
    return this.#count;
  }

  /** One behind the last ordinal. */
  get end(): number {
    return this.#end;
  }

  get firstPosition(): number {
    for (let ordinal = 1; ordinal < this.#end; ordinal++) {
      const position = this.#positions[ordinal] as number;
      if (position !== 0) return position;
    }
    return Number.POSITIVE_INFINITY;
  }

  /** A file whose row is at `position`. `previous`: the ordinal of the last one in its directory. Returns its own. */
  add(id: number, position: number, hash: number, previous: number): number {
    if (this.#count === 0) this.#base = id - 1;
    const ordinal = id - this.#base;
    if (ordinal >= this.#positions.length) this.#grow(ordinal + 1);
    this.#positions[ordinal] = position;
    this.#hashes[ordinal] = hash;
    this.#previous[ordinal] = previous;
    this.#end = ordinal + 1;
    this.#count++;
    this.#enter(ordinal);
    return ordinal;
  }

  idOf(ordinal: number): number {
    return this.#base + ordinal;
  }

  /** The ordinal of an id, or the nearest one; at most `end`. */
  ordinalFrom(id: number): number {
    return this.#count === 0 ? this.#end : Math.max(0, Math.min(this.#end, id - this.#base));
  }

  /** By ordinal; 0: no file. */
  positionAt(ordinal: number): number {
    return this.#positions[ordinal] as number;
  }

  previousOf(ordinal: number): number {
    return this.#previous[ordinal] as number;
  }

  /** Of an id; 0: not here. */
  positionOf(id: number): number {
    const ordinal = id - this.#base;
    return ordinal > 0 && ordinal < this.#end ? (this.#positions[ordinal] as number) : 0;
  }

  /** The id of the file of this name in the directory; 0: none of these. */
  find(directoryId: number, name: string, hash: number): number {
    if (this.#count === 0) return 0;
    const ring = this.#ring;
    const mask = this.#table.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const ordinal = this.#table[slot] as number;
      if (ordinal === 0) return 0;
      if (this.#hashes[ordinal] !== hash) continue;
      ring.locate(this.#positions[ordinal] as number);
      if (rowIsNamed(ring.bytes, ring.start, directoryId, name)) return this.#base + ordinal;
    }
  }

  clear(): void {
    if (this.#count === 0) return;
    this.#positions.fill(0, 0, this.#end);
    this.#table.fill(0);
    this.#end = 1;
    this.#count = 0;
  }

  #enter(ordinal: number): void {
    const mask = this.#table.length - 1;
    let slot = (this.#hashes[ordinal] as number) & mask;
    while (this.#table[slot] !== 0) slot = (slot + 1) & mask;
    this.#table[slot] = ordinal;
  }

  #grow(needed: number): void {
    let capacity = this.#positions.length;
    while (capacity < needed) capacity *= 2;
    const [positions, hashes, previous] = [this.#positions, this.#hashes, this.#previous];
    this.#positions = new Float64Array(capacity);
    this.#positions.set(positions);
    this.#hashes = new Int32Array(capacity);
    this.#hashes.set(hashes);
    this.#previous = new Int32Array(capacity);
    this.#previous.set(previous);
    this.#table = new Int32Array(4 * capacity);
    for (let ordinal = 1; ordinal < this.#end; ordinal++) if (this.#positions[ordinal] !== 0) this.#enter(ordinal);
  }
}
