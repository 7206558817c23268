/**
 * Encoded rows of inodes, outside the heap of the engine: as objects, a million inodes would keep its garbage collector busier than
 * the requests keep us. A ring of chunks that are allocated as they are first used; the newest rows replace the oldest ones, except
 * those that the store does not have yet.
 *
 * It is a cache and a waiting room: what it says of an id is the newest row that was put here and not dropped, or nothing.
 */

/** Before each row: the inode's id (6 bytes) and the row's length (3 bytes). */
const headBytes = 9;
const chunkBytesMax = 1024 * 1024;
const chunksMin = 4;
const firstSlots = 1024;
/** About what a row takes: so the slots do not run out before the bytes. */
const bytesPerSlot = 64;

export class RowRing {
  readonly #chunkBytes: number;
  readonly #chunksMax: number;
  readonly #slotsMax: number;
  readonly #chunks: Buffer[] = [];
  /** Where the next row goes. Positions only grow; 0 is none. */
  #head = 1;
  /** Rows before it were overwritten. */
  #oldest = 1;
  /** Rows from here on are not in the store, and are not overwritten. */
  #keepFrom = Number.POSITIVE_INFINITY;
  /** Positions by the low bits of the id: ids are dense, so few collide. The newest wins. */
  #slots: Float64Array;
  #mask: number;
  #used = 0;
  /** Where the row is that was found last: `bytes[start, end)`. */
  bytes: Buffer = Buffer.alloc(0);
  start = 0;
  end = 0;

  constructor(bytesMax: number) {
    this.#chunkBytes = Math.max(16, Math.min(chunkBytesMax, Math.floor(bytesMax / chunksMin)));
    this.#chunksMax = Math.max(chunksMin, Math.floor(bytesMax / this.#chunkBytes));
    this.#slotsMax = 2 ** Math.ceil(Math.log2(Math.max(2, bytesMax / bytesPerSlot)));
    const slots = Math.min(firstSlots, this.#slotsMax);
    this.#slots = new Float64Array(slots);
    this.#mask = slots - 1;
  }

  /** Memory that it holds now. */
  get usedBytes(): number {
    return this.#chunks.length * this.#chunkBytes + this.#slots.byteLength;
  }

  /** Rows from `position` on must stay until this is called again; Infinity: none must. */
  keepFrom(position: number): void {
    this.#keepFrom = position;
  }

  /** Copies the row of `id` in. Returns its position, or 0 when there is no room for it. */
  put(id: number, source: Buffer, from: number, to: number): number {
    const bytes = headBytes + to - from;
    const chunkBytes = this.#chunkBytes;
    let position = this.#head;
    let at = position % chunkBytes;
    if (at === 0 || at + bytes > chunkBytes || this.#chunks.length === 0) {
      if (bytes > chunkBytes) return 0;
      if (at !== 0 && at + bytes > chunkBytes) {
        position += chunkBytes - at;
        at = 0;
      }
      if (!this.#enter(position)) return 0;
    }
    const chunk = this.#chunks[Math.floor(position / chunkBytes) % this.#chunksMax] as Buffer;
    const high = Math.floor(id / 2 ** 32);
    chunk[at] = high >>> 8;
    chunk[at + 1] = high;
    chunk[at + 2] = id >>> 24;
    chunk[at + 3] = id >>> 16;
    chunk[at + 4] = id >>> 8;
    chunk[at + 5] = id;
    const length = to - from;
    chunk[at + 6] = length >>> 16;
    chunk[at + 7] = length >>> 8;
    chunk[at + 8] = length;
    let target = at + headBytes;
    // Rows are short: a loop beats a call into the engine.
    for (let i = from; i < to; i++) chunk[target++] = source[i] as number;
    this.#head = position + bytes;
    this.#note(id, position);
    return position;
  }

  /** The position of the row of `id`; 0: it is not here. */
  find(id: number): number {
    const position = this.#slots[(id | 0) & this.#mask] as number;
    if (position === 0 || position < this.#oldest || this.#idAt(position) !== id) return 0;
    return position;
  }

  /** Sets `bytes`, `start` and `end` to the row at a position that `put` or `find` returned, and that was not overwritten since. */
  locate(position: number): void {
    const chunk = this.#chunks[Math.floor(position / this.#chunkBytes) % this.#chunksMax] as Buffer;
    const at = position % this.#chunkBytes;
    this.bytes = chunk;
    this.start = at + headBytes;
    this.end =
      this.start + (((chunk[at + 6] as number) << 16) | ((chunk[at + 7] as number) << 8) | (chunk[at + 8] as number));
  }

  /** Sets them to a row that found no room here. */
  point(row: Buffer): void {
    this.bytes = row;
    this.start = 0;
    this.end = row.length;
  }

  /** The inode is about to change: its row here is no longer what `find` may give. */
  drop(id: number): void {
    const slot = (id | 0) & this.#mask;
    const position = this.#slots[slot] as number;
    if (position !== 0 && position >= this.#oldest && this.#idAt(position) === id) this.#slots[slot] = 0;
  }

  /** A new chunk is begun at `position`: the rows that were in its place are gone. False: they have to stay. */
  #enter(position: number): boolean {
    const chunkBytes = this.#chunkBytes;
    const number = Math.floor(position / chunkBytes);
    const oldest = (number - this.#chunksMax + 1) * chunkBytes;
    if (oldest > this.#keepFrom) return false;
    if (oldest > this.#oldest) this.#oldest = oldest;
    if (this.#chunks.length <= number % this.#chunksMax) this.#chunks.push(Buffer.allocUnsafeSlow(chunkBytes));
    return true;
  }

  #note(id: number, position: number): void {
    const slot = (id | 0) & this.#mask;
    const old = this.#slots[slot] as number;
    if (old === 0) {
      this.#used++;
    } else if (this.#used > this.#mask >> 1 && this.#mask + 1 < this.#slotsMax) {
      this.#grow();
      this.#note(id, position);
      return;
    }
    this.#slots[slot] = position;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Float64Array(2 * old.length);
    this.#mask = 2 * old.length - 1;
    this.#used = 0;
    for (const position of old) {
      if (position < this.#oldest) continue;
      const slot = (this.#idAt(position) | 0) & this.#mask;
      if (this.#slots[slot] === 0) this.#used++;
      this.#slots[slot] = position;
    }
  }

  #idAt(position: number): number {
    const chunk = this.#chunks[Math.floor(position / this.#chunkBytes) % this.#chunksMax] as Buffer;
    const at = position % this.#chunkBytes;
    const high = ((chunk[at] as number) << 8) | (chunk[at + 1] as number);
    const low =
      (chunk[at + 2] as number) * 0x1000000 +
      (((chunk[at + 3] as number) << 16) | ((chunk[at + 4] as number) << 8) | (chunk[at + 5] as number));
    return high * 2 ** 32 + low;
  }
}
