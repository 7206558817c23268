/**
 * Inodes and names in three layers: what changed since the last flush, what a flush is writing right now (frozen), and the
 * store. Apply changes objects in memory and never waits; a flush freezes all that changed at one applied index,
 * encodes it in slices, and hands one atomic batch to the store. An object that changes again while it is frozen is
 * encoded first, as it was.
 *
 * New files are many and seldom asked for again soon: each is an object only while it is made, then a row outside the heap
 * (row-ring.ts) that waits for its flush (fresh-rows.ts) and serves reads until newer ones need the room. An inode that
 * has an object is what the object says, whatever rows there are of it.
 *
 * Eight inodes share a row of the store (a page): ids are given out in sequence, so a flush of new inodes is a few appends.
 * Clean objects are cached up to a limit and let go by a clock hand.
 */

import { assert } from "../base/assert.ts";
import type { InodeId, MountId } from "../base/ids.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import { FreshRows } from "./fresh-rows.ts";
import { type Digest, hashBytes, hashHigh, hashLow } from "./hash.ts";
import { inherit } from "./inheritance.ts";
import { Inode, readFileInto, readInode, rowIsNamed, writeInode } from "./inode.ts";
import { InodeCache, isIdle } from "./inode-cache.ts";
import { findInPage, inodesPerPage, lengthAt, rowEnd, rowHeaderBytes, rowStart } from "./inode-page.ts";
import { type FreshLayers, type NamedInode, NameTable } from "./name-table.ts";
import { RowRing } from "./row-ring.ts";
import { type Batch, inodesTable, type Store } from "./store.ts";

export class InodeTable {
  readonly #store: Store;
  readonly #digest: Digest;
  readonly #cache: InodeCache;
  #dirty: Inode[] = [];
  #frozen: Inode[] = [];
  #encodedInodes = 0;
  #readPage = 0;
  /** Pages from here on are not in the store. */
  #pageEnd: number;
  readonly #names: NameTable;
  readonly #scratch = new ByteWriter(4096);
  readonly #keyWriter = new ByteWriter(512);
  readonly #reader: ByteReader;
  readonly #ring: RowRing;
  readonly #fresh: FreshLayers;
  #encodedFresh = 0;
  /** The file that was made last, and the hash of its directory and name: until the next one or the end of the operation it is changed freely. */
  #new: Inode | undefined = undefined;
  #newHash = 0;
  /** Sums of the hashes of fresh rows, which the digest does not know yet. */
  #freshLow = 0;
  #freshHigh = 0;
  /** What `peek` answers with when there is no object. */
  readonly #peeked = new Inode(0 as InodeId, false);
  /** Raised by whatever changes what directories inherit: moved or pinned directories, mounts. */
  epoch = 0;
  /** Inodes found in memory, and read from the store. */
  hits = 0;
  #rowMisses = 0;

  constructor(options: {
    readonly store: Store;
    readonly digest: Digest;
    readonly cachedInodesMax: number;
    readonly cachedNamesMax: number;
    readonly cachedRowsBytesMax: number;
    /** No inode in the store has this id or a higher one. */
    readonly nextInodeId: number;
  }) {
    this.#store = options.store;
    this.#digest = options.digest;
    this.#cache = new InodeCache(options.cachedInodesMax);
    this.#pageEnd = Math.ceil(options.nextInodeId / inodesPerPage);
    this.#reader = new ByteReader("an inode row of the state", Buffer.alloc(0));
    this.#ring = new RowRing(options.cachedRowsBytesMax);
    this.#fresh = { current: new FreshRows(this.#ring), frozen: new FreshRows(this.#ring) };
    this.#names = new NameTable({ ...options, ring: this.#ring, fresh: this.#fresh });
  }

  /** Rows that the next flush has to write. */
  get dirtyCount(): number {
    return this.#dirty.length + this.#names.dirtyCount + 2 * this.#fresh.current.count;
  }

  get isFrozen(): boolean {
    return this.#frozen.length > 0 || this.#names.isFrozen || this.#fresh.frozen.count > 0;
  }

  /** Looks into the store, for inodes and for names. */
  get misses(): number {
    return this.#rowMisses + this.#names.misses;
  }

  /** Memory of the rows outside the heap, and objects in it. */
  get memory(): { readonly rowBytes: number; readonly inodes: number } {
    return { rowBytes: this.#ring.usedBytes, inodes: this.#cache.count };
  }

  /**
   * Ends an operation: nobody may hold an object behind it. The file that was made becomes a row. Clean objects go while there are
   * too many: a clock hand passes over them, those used since its last round get another one.
   */
  trim(): void {
    if (this.#new !== undefined) this.#settle();
    this.#cache.trim();
  }

  get(id: number): Inode | undefined {
    const held = this.#held(id);
    if (held !== undefined) {
      this.hits++;
      return held.removed ? undefined : held;
    }
    const inode = this.#locate(id) ? this.#readLocated(id) : undefined;
    if (inode !== undefined) this.#cache.add(inode);
    return inode;
  }

  child(directory: Inode, name: string): Inode | undefined {
    const hash = this.#names.hash(directory.id, name);
    const guess = this.#names.guess(hash);
    if (guess !== 0) {
      const inode = this.get(guess);
      if (inode !== undefined && inode.parentId === directory.id && inode.name === name) {
        inode.parent = directory;
        return inode;
      }
    }
    const id = this.#idOf(directory, name, hash);
    if (id === 0) return undefined;
    this.#names.found(hash, id);
    return this.get(id);
  }

  /**
   * As `child`, to be looked at at once and not changed: a file that has no object gets none, but is read into one that is used again. So
   * its name is not filled in.
   */
  peek(directory: Inode, name: string): Inode | undefined {
    const hash = this.#names.hash(directory.id, name);
    const guess = this.#names.guess(hash);
    if (guess !== 0) {
      const held = this.#held(guess);
      if (held !== undefined) {
        if (held.parentId === directory.id && held.name === name && !held.removed) {
          this.hits++;
          return held;
        }
      } else if (this.#locate(guess) && rowIsNamed(this.#ring.bytes, this.#ring.start, directory.id, name)) {
        return this.#peekLocated(guess, directory);
      }
    }
    const id = this.#idOf(directory, name, hash);
    if (id === 0) return undefined;
    this.#names.found(hash, id);
    if (this.#held(id) !== undefined || !this.#locate(id)) return this.get(id);
    return this.#peekLocated(id, directory);
  }

  /** The child's id, or 0. */
  #idOf(directory: Inode, name: string, hash: number): number {
    const made = this.#new;
    if (made !== undefined && made.parentId === directory.id && made.name === name && !made.removed) return made.id;
    return this.#names.find(directory, name, hash);
  }

  /** The inode that has an object; also one that was removed. */
  #held(id: number): Inode | undefined {
    const cached = this.#cache.get(id);
    if (cached !== undefined) return cached;
    return this.#new?.id === id ? this.#new : undefined;
  }

  /** Must come before every change of an inode's fields. */
  touch(inode: Inode): void {
    if (inode.frozen === 1) this.#encodeFrozen(inode);
    if (!inode.dirty) {
      assert(inode.live, "an inode is changed through an object that was let go");
      inode.dirty = true;
      this.#dirty.push(inode);
      this.#ring.drop(inode.id);
    }
  }

  /** Takes a new inode in, under its name, which is free. */
  insert(inode: Inode, directory: Inode): void {
    if (this.#new !== undefined) this.#settle();
    inode.dirty = true;
    if (inode.isDirectory) {
      this.insertRoot(inode);
      this.#names.link(directory, inode.name, inode.id);
      return;
    }
    const hash = this.#names.hash(directory.id, inode.name);
    this.#new = inode;
    this.#newHash = hash;
    this.#names.made(directory, inode.name, inode.id, hash);
  }

  /** Takes a directory in that has no name. */
  insertRoot(inode: Inode): void {
    inode.dirty = true;
    this.#names.begin(inode);
    this.#dirty.push(inode);
    this.#cache.add(inode);
  }

  remove(inode: Inode): void {
    this.touch(inode);
    inode.removed = true;
  }

  link(directory: Inode, name: string, id: number): void {
    this.#names.link(directory, name, id);
  }

  unlink(directory: Inode, name: string): void {
    this.#names.unlink(directory, name);
  }

  /** Children behind `afterName`, in the order of their bytes. */
  list(directory: Inode, afterName: string | undefined, limit: number): NamedInode[] {
    return this.#names.list(directory, afterName, limit);
  }

  /** The inode's parent; undefined of roots. */
  parentOf(inode: Inode): Inode | undefined {
    const { parent, parentId } = inode;
    if (parent?.id === parentId && parent.live && !parent.removed) {
      parent.referenced = true;
      return parent;
    }
    if (parentId === 0) return undefined;
    inode.parent = this.get(parentId);
    return inode.parent;
  }

  /** Brings the `inherited` fields of a directory up to date: they hold for what lies in it. */
  inherit(directory: Inode): void {
    if (directory.inheritedEpoch !== this.epoch) inherit(directory, this.epoch, (id) => this.get(id));
  }

  /** The mount that holds what lies in the directory; 0: none. */
  mountIdBelow(directory: Inode): MountId {
    this.inherit(directory);
    return directory.inheritedMountId;
  }

  /** Brings the digest up to date with all changes. */
  count(): void {
    assert(!this.isFrozen || this.#isEncoded, "the digest of frozen inodes is not counted yet");
    this.#countFresh();
    for (const inode of this.#dirty) {
      if (inode.removed) {
        this.#countRow(inode, 0, 0);
        continue;
      }
      this.#scratch.position = 0;
      writeInode(this.#scratch, inode);
      hashBytes(this.#scratch.buffer, 0, this.#scratch.position, inode.id);
      this.#countRow(inode, hashLow, hashHigh);
    }
  }

  /** All changes so far become the batch of a flush. */
  freeze(): void {
    assert(!this.isFrozen, "a flush is under way");
    this.#countFresh();
    const { current, frozen } = this.#fresh;
    this.#fresh.current = frozen;
    this.#fresh.frozen = current;
    this.#names.freeze();
    this.#frozen = this.#dirty.sort((a, b) => a.id - b.id);
    this.#dirty = [];
    this.#encodedInodes = 0;
    this.#encodedFresh = 0;
    this.#readPage = this.#pageEnd;
    for (const inode of this.#frozen) {
      inode.dirty = false;
      inode.frozen = 1;
      inode.frozenRemoved = inode.removed;
    }
  }

  get #isEncoded(): boolean {
    return this.#encodedInodes >= this.#frozen.length && this.#encodedFresh >= this.#fresh.frozen.end;
  }

  /** Encodes about `rows` frozen rows into the batch; returns whether all are done. */
  encode(batch: Batch, rows: number): boolean {
    let budget = rows;
    while (!this.#isEncoded) {
      if (budget <= 0) return false;
      budget -= this.#encodePage(batch);
    }
    return this.#names.encode(batch, budget);
  }

  /** The store holds what was frozen. */
  thaw(): void {
    for (const inode of this.#frozen) {
      inode.frozen = 0;
      if (!inode.dirty && (inode.removed || (!inode.referenced && isIdle(inode)))) this.#cache.forget(inode);
    }
    this.#names.thaw();
    const fresh = this.#fresh.frozen;
    const lastId = Math.max(
      this.#frozen[this.#frozen.length - 1]?.id ?? 0,
      fresh.count === 0 ? 0 : fresh.idOf(fresh.end - 1),
    );
    this.#pageEnd = Math.max(this.#pageEnd, Math.floor(lastId / inodesPerPage) + 1);
    this.#frozen = [];
    fresh.clear();
    this.#ring.keepFrom(this.#fresh.current.firstPosition);
  }

  /** The file that was made becomes a row, or stays an object if there is no room for the row. */
  #settle(): void {
    const inode = this.#new as Inode;
    this.#new = undefined;
    if (inode.removed) return;
    const scratch = this.#scratch;
    scratch.position = 0;
    writeInode(scratch, inode);
    const position = this.#ring.put(inode.id, scratch.buffer, 0, scratch.position);
    const directory = inode.parent as Inode;
    if (position === 0) {
      // Most new files are not asked for again soon: they go once they are in the store.
      inode.referenced = false;
      this.#dirty.push(inode);
      this.#cache.add(inode);
      this.#names.link(directory, inode.name, inode.id);
      return;
    }
    inode.live = false;
    hashBytes(scratch.buffer, 0, scratch.position, inode.id);
    this.#freshLow = (this.#freshLow + hashLow) | 0;
    this.#freshHigh = (this.#freshHigh + hashHigh) | 0;
    if (this.#fresh.current.count === 0 && this.#fresh.frozen.count === 0) this.#ring.keepFrom(position);
    this.#names.settled(directory, inode.id, position, this.#newHash);
  }

  #countFresh(): void {
    if (this.#new !== undefined) this.#settle();
    this.#digest.add(this.#freshLow, this.#freshHigh);
    this.#freshLow = 0;
    this.#freshHigh = 0;
  }

  #pageKey(page: number): Buffer {
    const w = this.#keyWriter;
    w.position = 0;
    w.uint48(page);
    return w.buffer.subarray(0, 6);
  }

  /** Has the ring at the row of an inode that has no object, from the store if need be; false: there is no such inode. */
  #locate(id: number): boolean {
    const ring = this.#ring;
    const position = this.#fresh.current.positionOf(id) || this.#fresh.frozen.positionOf(id) || ring.find(id);
    if (position !== 0) {
      this.hits++;
      ring.locate(position);
      return true;
    }
    const page = Math.floor(id / inodesPerPage);
    if (page >= this.#pageEnd) return false;
    this.#rowMisses++;
    const bytes = this.#store.get(inodesTable, this.#pageKey(page));
    if (bytes === undefined) return false;
    if (!findInPage(bytes, id % inodesPerPage)) return false;
    if (!(rowEnd <= bytes.length)) this.#reader.reset(bytes).fail("is longer than its page");
    const put = ring.put(id, bytes, rowStart, rowEnd);
    if (put === 0) ring.point(Buffer.from(bytes.subarray(rowStart, rowEnd)));
    else ring.locate(put);
    return true;
  }

  #readLocated(id: number): Inode {
    const { bytes, start, end } = this.#ring;
    const inode = readInode(this.#reader.reset(bytes, start, end), id as InodeId);
    hashBytes(bytes, start, end, id);
    inode.hashLow = hashLow;
    inode.hashHigh = hashHigh;
    return inode;
  }

  #peekLocated(id: number, directory: Inode): Inode | undefined {
    const { bytes, start, end } = this.#ring;
    const inode = this.#peeked;
    if (!readFileInto(this.#reader.reset(bytes, start, end), inode, id as InodeId)) return this.get(id);
    inode.parent = directory;
    return inode;
  }

  #countRow(inode: Inode, low: number, high: number): void {
    this.#digest.subtract(inode.hashLow, inode.hashHigh);
    this.#digest.add(low, high);
    inode.hashLow = low;
    inode.hashHigh = high;
  }

  /** The row of a frozen inode that is about to change. */
  #encodeFrozen(inode: Inode): void {
    if (inode.frozenRemoved) {
      this.#countRow(inode, 0, 0);
    } else {
      this.#scratch.position = 0;
      writeInode(this.#scratch, inode);
      inode.frozenRow = this.#scratch.bytes();
      hashBytes(inode.frozenRow, 0, inode.frozenRow.length, inode.id);
      this.#countRow(inode, hashLow, hashHigh);
    }
    inode.frozen = 2;
  }

  /** Writes the page of the next frozen inode, with the rows of its other inodes as they are in the store. */
  #encodePage(batch: Batch): number {
    const fresh = this.#fresh.frozen;
    while (this.#encodedFresh < fresh.end && fresh.positionAt(this.#encodedFresh) === 0) this.#encodedFresh++;
    const firstId = Math.min(
      this.#frozen[this.#encodedInodes]?.id ?? Number.POSITIVE_INFINITY,
      this.#encodedFresh < fresh.end ? fresh.idOf(this.#encodedFresh) : Number.POSITIVE_INFINITY,
    );
    if (firstId === Number.POSITIVE_INFINITY) return 0;
    const page = Math.floor(firstId / inodesPerPage);
    const old = page < this.#readPage ? this.#store.get(inodesTable, this.#pageKey(page)) : undefined;
    const oldBitmap = old?.[0] ?? 0;
    let oldAt = 1;
    const w = batch.writer;
    batch.begin(inodesTable);
    w.uint48(page);
    batch.value();
    const bitmapAt = w.position;
    w.byte(0);
    let bitmap = 0;
    let count = 0;
    for (let slot = 0; slot < inodesPerPage; slot++) {
      const bit = 1 << slot;
      const oldStart = oldAt;
      if ((oldBitmap & bit) !== 0) oldAt += rowHeaderBytes + lengthAt(old as Buffer, oldAt);
      const id = page * inodesPerPage + slot;
      const inode = this.#frozen[this.#encodedInodes];
      const position = fresh.positionOf(id);
      if (inode !== undefined && inode.id === id) {
        this.#encodedInodes++;
        if (this.#encodeRow(w, inode)) bitmap |= bit;
        count++;
      } else if (position !== 0) {
        this.#copyRow(w, position);
        bitmap |= bit;
        count++;
      } else if ((oldBitmap & bit) !== 0) {
        w.raw((old as Buffer).subarray(oldStart, oldAt));
        bitmap |= bit;
      }
    }
    this.#encodedFresh = fresh.ordinalFrom((page + 1) * inodesPerPage);
    w.buffer[bitmapAt] = bitmap;
    if (bitmap !== 0) {
      batch.end();
    } else {
      w.position = bitmapAt;
      batch.remove();
    }
    return count;
  }

  #copyRow(w: ByteWriter, position: number): void {
    const ring = this.#ring;
    ring.locate(position);
    const length = ring.end - ring.start;
    w.reserve(rowHeaderBytes);
    const { buffer } = w;
    buffer[w.position++] = length >>> 16;
    buffer[w.position++] = length >>> 8;
    buffer[w.position++] = length;
    w.copy(ring.bytes, ring.start, ring.end);
  }

  #encodeRow(w: ByteWriter, inode: Inode): boolean {
    if (inode.frozenRemoved) {
      if (inode.frozen === 1) this.#countRow(inode, 0, 0);
      inode.frozen = 2;
      return false;
    }
    w.reserve(rowHeaderBytes);
    const headerAt = w.position;
    w.position += rowHeaderBytes;
    if (inode.frozen === 1) {
      writeInode(w, inode);
      hashBytes(w.buffer, headerAt + rowHeaderBytes, w.position, inode.id);
      this.#countRow(inode, hashLow, hashHigh);
      inode.frozen = 2;
    } else {
      w.raw(inode.frozenRow as Buffer);
      inode.frozenRow = undefined;
    }
    w.buffer.writeUIntBE(w.position - headerAt - rowHeaderBytes, headerAt, rowHeaderBytes);
    return true;
  }
}
