/**
 * Inodes and names in three layers: what changed since the last flush, what a flush is writing right now (frozen), and the
 * store. Apply changes objects in memory and never waits; a flush freezes all that changed at one applied index,
 * encodes it in slices, and hands one atomic batch to the store. An object that changes again while it is frozen is
 * encoded first, as it was.
 *
 * Eight inodes share a row of the store (a page): ids are given out in sequence, so a flush of new inodes is a few appends.
 * Clean objects are cached up to a limit and let go by a clock hand.
 */

import { assert } from "../base/assert.ts";
import type { InodeId, MountId } from "../base/ids.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import { type Digest, hashBytes, hashHigh, hashLow } from "./hash.ts";
import { compareNames, Inode, type NameChanges, readInode, writeInode } from "./inode.ts";
import { NameCache } from "./name-cache.ts";
import { hashName, NameFilter } from "./name-filter.ts";
import { firstBehind, sortedNames } from "./sorted-names.ts";
import { type Batch, inodesTable, namesTable, type Store } from "./store.ts";

export const inodesPerPage = 8;

/** Several small maps: growing one big one stops the thread for as long as it takes to rehash. */
const shardCount = 16;
/** Keeps one `trim` short. */
const trimStepsMax = 2000;
/** Bytes before a row in a page: its length. */
export const rowHeaderBytes = 3;

export type NamedInode = { readonly name: string; readonly inodeId: InodeId };

export class InodeTable {
  readonly #store: Store;
  readonly #digest: Digest;
  readonly #cachedMax: number;
  readonly #shards: Map<number, Inode>[] = [];
  #cached = 0;
  #handShard = 0;
  #hand: IterableIterator<Inode> | undefined = undefined;
  #dirty: Inode[] = [];
  #dirtyDirectories: Inode[] = [];
  #dirtyNames = 0;
  #frozen: Inode[] = [];
  #frozenDirectories: Inode[] = [];
  #encodedInodes = 0;
  #encodedDirectories = 0;
  #readPage = 0;
  /** Pages from here on are not in the store. */
  #pageEnd: number;
  readonly #filter = new NameFilter();
  readonly #nameCache: NameCache;
  readonly #scratch = new ByteWriter(4096);
  readonly #keyWriter = new ByteWriter(512);
  readonly #reader: ByteReader;
  /** Raised by whatever changes what directories inherit: moved or pinned directories, mounts. */
  epoch = 0;
  hits = 0;
  misses = 0;

  constructor(options: {
    readonly store: Store;
    readonly digest: Digest;
    readonly cachedInodesMax: number;
    readonly cachedNamesMax: number;
    /** No inode in the store has this id or a higher one. */
    readonly nextInodeId: number;
  }) {
    this.#store = options.store;
    this.#digest = options.digest;
    this.#cachedMax = options.cachedInodesMax;
    this.#nameCache = new NameCache(options.cachedNamesMax);
    this.#pageEnd = Math.ceil(options.nextInodeId / inodesPerPage);
    for (let i = 0; i < shardCount; i++) this.#shards.push(new Map());
    this.#reader = new ByteReader("an inode row of the state", Buffer.alloc(0));
  }

  /** Rows that the next flush has to write. */
  get dirtyCount(): number {
    return this.#dirty.length + this.#dirtyNames;
  }

  get isFrozen(): boolean {
    return this.#frozen.length > 0 || this.#frozenDirectories.length > 0;
  }

  get cachedCount(): number {
    return this.#cached;
  }

  /**
   * Lets clean objects go while there are too many: a clock hand passes over them, those used since its last round get another one.
   * Only between operations: nobody may hold an object that is forgotten.
   */
  trim(): void {
    let steps = Math.min(trimStepsMax, (this.#cached - this.#cachedMax) * 2);
    for (; steps > 0 && this.#cached > this.#cachedMax; steps--) {
      this.#hand ??= (this.#shards[this.#handShard] as Map<number, Inode>).values();
      const { value: inode, done } = this.#hand.next() as IteratorResult<Inode, undefined>;
      if (done === true || inode === undefined) {
        this.#hand = undefined;
        this.#handShard = (this.#handShard + 1) % shardCount;
      } else if (inode.referenced) {
        inode.referenced = false;
      } else if (isIdle(inode)) {
        this.#forget(inode);
      }
    }
  }

  get(id: number): Inode | undefined {
    const cached = (this.#shards[id % shardCount] as Map<number, Inode>).get(id);
    if (cached !== undefined) {
      cached.referenced = true;
      this.hits++;
      return cached.removed ? undefined : cached;
    }
    this.misses++;
    const inode = this.#read(id);
    if (inode !== undefined) this.#remember(inode);
    return inode;
  }

  child(directory: Inode, name: string): Inode | undefined {
    const hash = hashName(directory.id, name);
    const guess = this.#nameCache.get(hash);
    if (guess !== 0) {
      const inode = this.get(guess);
      if (inode !== undefined && inode.parentId === directory.id && inode.name === name) {
        inode.parent = directory;
        return inode;
      }
    }
    const id = this.#lookup(directory, name, hash);
    if (id === 0) return undefined;
    this.#nameCache.set(hash, id);
    return this.get(id);
  }

  /** The child's id, or 0. */
  #lookup(directory: Inode, name: string, hash: number): number {
    if (this.#filter.isAbsent(directory, hash)) return 0;
    const changed = directory.names?.get(name) ?? directory.frozenNames?.get(name);
    if (changed !== undefined) return changed;
    const value = this.#store.get(namesTable, this.#nameKey(directory.id, name));
    return value === undefined ? 0 : value.readUIntBE(0, 6);
  }

  /** Must come before every change of an inode's fields. */
  touch(inode: Inode): void {
    if (inode.frozen === 1) this.#encodeFrozen(inode);
    if (!inode.dirty) {
      inode.dirty = true;
      this.#dirty.push(inode);
    }
  }

  /** Takes a new inode in; its name is linked apart. */
  insert(inode: Inode): void {
    inode.dirty = true;
    // Most new files are not asked for again soon: they go once they are in the store.
    inode.referenced = inode.isDirectory;
    if (inode.isDirectory) this.#filter.begin(inode);
    this.#dirty.push(inode);
    this.#remember(inode);
  }

  remove(inode: Inode): void {
    this.touch(inode);
    inode.removed = true;
  }

  link(directory: Inode, name: string, id: number): void {
    if (directory.names === undefined) {
      directory.names = new Map();
      this.#dirtyDirectories.push(directory);
    }
    const { size } = directory.names;
    directory.names.set(name, id);
    directory.sortedNames = undefined;
    if (id !== 0) {
      const hash = hashName(directory.id, name);
      this.#filter.add(directory, hash);
      this.#nameCache.set(hash, id);
    }
    this.#dirtyNames += directory.names.size - size;
  }

  unlink(directory: Inode, name: string): void {
    this.link(directory, name, 0);
  }

  /** Children behind `afterName`, in the order of their bytes. */
  list(directory: Inode, afterName: string | undefined, limit: number): NamedInode[] {
    const changes = sortedNames(directory);
    let next = afterName === undefined ? 0 : firstBehind(changes, afterName);
    const changedId = (name: string): number => directory.names?.get(name) ?? directory.frozenNames?.get(name) ?? 0;
    const result: NamedInode[] = [];
    const from = Buffer.from(this.#nameKey(directory.id, afterName ?? ""));
    this.#store.scan(namesTable, from, (key, value) => {
      if (key.readUIntBE(0, 6) !== directory.id) return false;
      const name = key.toString("utf8", 6);
      if (name === afterName) return true;
      for (; next < changes.length; next++) {
        const changedName = changes[next] as string;
        const order = compareNames(changedName, name);
        if (order > 0) break;
        const id = changedId(changedName);
        if (id !== 0) result.push({ name: changedName, inodeId: id as InodeId });
        if (result.length >= limit) return false;
        if (order === 0) {
          next++;
          return true;
        }
      }
      result.push({ name, inodeId: value.readUIntBE(0, 6) as InodeId });
      return result.length < limit;
    });
    for (; next < changes.length && result.length < limit; next++) {
      const name = changes[next] as string;
      const id = changedId(name);
      if (id !== 0) result.push({ name, inodeId: id as InodeId });
    }
    return result;
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
    if (directory.inheritedEpoch !== this.epoch) this.#inherit(directory);
  }

  /** The mount that holds what lies in the directory; 0: none. */
  mountIdBelow(directory: Inode): MountId {
    this.inherit(directory);
    return directory.inheritedMountId;
  }

  /** Brings the digest up to date with all changes. */
  count(): void {
    assert(this.#encodedInodes >= this.#frozen.length, "the digest of frozen inodes is not counted yet");
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
    this.#frozen = this.#dirty.sort((a, b) => a.id - b.id);
    this.#frozenDirectories = this.#dirtyDirectories.sort((a, b) => a.id - b.id);
    this.#dirty = [];
    this.#dirtyDirectories = [];
    this.#dirtyNames = 0;
    this.#encodedInodes = 0;
    this.#encodedDirectories = 0;
    this.#readPage = this.#pageEnd;
    for (const inode of this.#frozen) {
      inode.dirty = false;
      inode.frozen = 1;
      inode.frozenRemoved = inode.removed;
    }
    for (const directory of this.#frozenDirectories) {
      directory.frozenNames = directory.names;
      directory.names = undefined;
    }
  }

  /** Encodes about `rows` frozen rows into the batch; returns whether all are done. */
  encode(batch: Batch, rows: number): boolean {
    let budget = rows;
    while (this.#encodedInodes < this.#frozen.length) {
      if (budget <= 0) return false;
      budget -= this.#encodePage(batch);
    }
    while (this.#encodedDirectories < this.#frozenDirectories.length) {
      if (budget <= 0) return false;
      const directory = this.#frozenDirectories[this.#encodedDirectories++] as Inode;
      const changes = directory.frozenNames as NameChanges;
      const names = [...changes.keys()];
      if (names.length > 1) names.sort(compareNames);
      for (const name of names) {
        const id = changes.get(name) as number;
        batch.begin(namesTable);
        batch.writer.uint48(directory.id);
        const bytes = Buffer.byteLength(name);
        batch.writer.reserve(bytes);
        batch.writer.position += batch.writer.buffer.write(name, batch.writer.position, bytes, "utf8");
        if (id === 0) {
          batch.remove();
        } else {
          batch.value();
          batch.writer.uint48(id);
          batch.end();
        }
      }
      budget -= names.length;
    }
    return true;
  }

  /** The store holds what was frozen. */
  thaw(): void {
    for (const inode of this.#frozen) {
      inode.frozen = 0;
      if (!inode.dirty && (inode.removed || (!inode.referenced && isIdle(inode)))) this.#forget(inode);
    }
    for (const directory of this.#frozenDirectories) {
      directory.frozenNames = undefined;
      directory.sortedNames = undefined;
    }
    const last = this.#frozen[this.#frozen.length - 1];
    if (last !== undefined) this.#pageEnd = Math.max(this.#pageEnd, Math.floor(last.id / inodesPerPage) + 1);
    this.#frozen = [];
    this.#frozenDirectories = [];
  }

  #inherit(directory: Inode): void {
    // Without recursion: renames can nest directories deeper than any path that names them.
    const stale: Inode[] = [];
    let at: Inode | undefined = directory;
    while (at !== undefined && at.inheritedEpoch !== this.epoch) {
      stale.push(at);
      at = at.parentId === 0 ? undefined : this.get(at.parentId);
    }
    for (let i = stale.length - 1; i >= 0; i--) {
      const inode = stale[i] as Inode;
      const parent: Inode | undefined = i === stale.length - 1 ? at : stale[i + 1];
      inode.inheritedMountId = inode.mountId !== 0 ? inode.mountId : (parent?.inheritedMountId ?? (0 as MountId));
      inode.inheritedPinId = inode.pinned ? inode.id : (parent?.inheritedPinId ?? 0);
      inode.inheritedReplicasId = inode.replicasMax !== 0 ? inode.id : (parent?.inheritedReplicasId ?? 0);
      inode.inheritedEpoch = this.epoch;
    }
  }

  #nameKey(directoryId: number, name: string): Buffer {
    const w = this.#keyWriter;
    w.position = 0;
    w.uint48(directoryId);
    const { length } = name;
    w.reserve(length * 3);
    const { buffer } = w;
    let at = 6;
    let i = 0;
    for (; i < length; i++) {
      const unit = name.charCodeAt(i);
      if (unit >= 0x80) break;
      buffer[at++] = unit;
    }
    if (i < length) at = 6 + buffer.write(name, 6, "utf8");
    return buffer.subarray(0, at);
  }

  #pageKey(page: number): Buffer {
    const w = this.#keyWriter;
    w.position = 0;
    w.uint48(page);
    return w.buffer.subarray(0, 6);
  }

  #read(id: number): Inode | undefined {
    const page = Math.floor(id / inodesPerPage);
    if (page >= this.#pageEnd) return undefined;
    const bytes = this.#store.get(inodesTable, this.#pageKey(page));
    if (bytes === undefined) return undefined;
    const slot = id % inodesPerPage;
    const bitmap = bytes[0] as number;
    if ((bitmap & (1 << slot)) === 0) return undefined;
    let at = 1;
    for (let i = 0; i < slot; i++) {
      if ((bitmap & (1 << i)) !== 0) at += rowHeaderBytes + bytes.readUIntBE(at, rowHeaderBytes);
    }
    const length = bytes.readUIntBE(at, rowHeaderBytes);
    const start = at + rowHeaderBytes;
    const reader = this.#reader.reset(bytes.subarray(start, start + length));
    const inode = readInode(reader, id as InodeId);
    hashBytes(bytes, start, start + length, id);
    inode.hashLow = hashLow;
    inode.hashHigh = hashHigh;
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
    const first = this.#encodedInodes;
    const page = Math.floor((this.#frozen[first] as Inode).id / inodesPerPage);
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
    for (let slot = 0; slot < inodesPerPage; slot++) {
      const bit = 1 << slot;
      const oldStart = oldAt;
      if ((oldBitmap & bit) !== 0) oldAt += rowHeaderBytes + (old as Buffer).readUIntBE(oldAt, rowHeaderBytes);
      const inode = this.#frozen[this.#encodedInodes];
      if (inode !== undefined && inode.id === page * inodesPerPage + slot) {
        this.#encodedInodes++;
        if (this.#encodeRow(w, inode)) bitmap |= bit;
      } else if ((oldBitmap & bit) !== 0) {
        w.raw((old as Buffer).subarray(oldStart, oldAt));
        bitmap |= bit;
      }
    }
    w.buffer[bitmapAt] = bitmap;
    if (bitmap !== 0) {
      batch.end();
    } else {
      w.position = bitmapAt;
      batch.remove();
    }
    return this.#encodedInodes - first;
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

  #remember(inode: Inode): void {
    (this.#shards[inode.id % shardCount] as Map<number, Inode>).set(inode.id, inode);
    this.#cached++;
  }

  #forget(inode: Inode): void {
    inode.live = false;
    if ((this.#shards[inode.id % shardCount] as Map<number, Inode>).delete(inode.id)) this.#cached--;
  }
}

function isIdle(inode: Inode): boolean {
  return (
    !inode.dirty && inode.frozen === 0 && inode.names === undefined && inode.frozenNames === undefined && inode.id !== 1
  );
}
