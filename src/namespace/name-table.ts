/**
 * Names of directories, in the same three layers as inodes (inode-table.ts): changes since the last flush, frozen ones, the store. The names
 * of fresh files are changes that stand in their rows; all others are in maps of their directories, which go before. A filter and a
 * cache of guesses spare most looks into the store.
 */

import type { InodeId } from "../base/ids.ts";
import { ByteWriter } from "./bytes.ts";
import type { FreshRows } from "./fresh-rows.ts";
import { compareNames, findName, type Inode, nameEnd, nameStart } from "./inode.ts";
import { NameCache } from "./name-cache.ts";
import { hashName, NameFilter } from "./name-filter.ts";
import type { RowRing } from "./row-ring.ts";
import { firstBehind, sortedNames } from "./sorted-names.ts";
import { type Batch, namesTable, type Store } from "./store.ts";

export type NamedInode = { readonly name: string; readonly inodeId: InodeId };

/** The files that nobody has changed since they came: those since the last freeze, and those of the flush that is under way. */
export type FreshLayers = { current: FreshRows; frozen: FreshRows };

export class NameTable {
  readonly #store: Store;
  readonly #ring: RowRing;
  readonly #fresh: FreshLayers;
  readonly #filter = new NameFilter();
  readonly #cache: NameCache;
  #dirty: Inode[] = [];
  #frozen: Inode[] = [];
  #encoded = 0;
  #dirtyCount = 0;
  readonly #keyWriter = new ByteWriter(512);
  /** Of the last name that was hashed: one that is looked up and not found is often made next. */
  #hashedIn = 0;
  #hashedName = "";
  #hashed = 0;
  /** Looks into the store. */
  misses = 0;

  constructor(options: {
    readonly store: Store;
    readonly ring: RowRing;
    readonly fresh: FreshLayers;
    readonly cachedNamesMax: number;
  }) {
    this.#store = options.store;
    this.#ring = options.ring;
    this.#fresh = options.fresh;
    this.#cache = new NameCache(options.cachedNamesMax);
  }

  /** Names that changed and are in no fresh row. */
  get dirtyCount(): number {
    return this.#dirtyCount;
  }

  get isFrozen(): boolean {
    return this.#frozen.length > 0;
  }

  hash(directoryId: number, name: string): number {
    if (this.#hashedIn !== directoryId || this.#hashedName !== name) {
      this.#hashedIn = directoryId;
      this.#hashedName = name;
      this.#hashed = hashName(directoryId, name);
    }
    return this.#hashed;
  }

  /** The inode that the name may be; 0: no idea. */
  guess(hash: number): number {
    return this.#cache.get(hash);
  }

  found(hash: number, id: number): void {
    this.#cache.set(hash, id);
  }

  /** A directory that has no names yet. */
  begin(directory: Inode): void {
    this.#filter.begin(directory);
  }

  /** A name was given to a new file, whose row will say so. */
  made(directory: Inode, name: string, id: number, hash: number): void {
    this.#filter.add(directory, hash);
    this.#cache.set(hash, id);
    // A name that has changed since the freeze is looked up there before anywhere else.
    if (directory.names?.has(name) === true) this.link(directory, name, id);
  }

  /** The row is there. */
  settled(directory: Inode, id: number, position: number, hash: number): void {
    this.#note(directory);
    directory.freshLast = this.#fresh.current.add(id, position, hash, directory.freshLast);
    directory.sortedNames = undefined;
  }

  /** The child's id, or 0. */
  find(directory: Inode, name: string, hash: number): number {
    if (this.#filter.isAbsent(directory, hash)) return 0;
    const changed = this.#changed(directory, name, hash);
    if (changed !== undefined) return changed;
    this.misses++;
    const value = this.#store.get(namesTable, this.#nameKey(directory.id, name));
    return value === undefined ? 0 : value.readUIntBE(0, 6);
  }

  /** What a name has become that the store does not hold as it is (0: it is gone); undefined: it does. */
  #changed(directory: Inode, name: string, hash: number): number | undefined {
    const changed = directory.names?.get(name);
    if (changed !== undefined) return changed;
    if (directory.freshLast !== 0) {
      const id = this.#fresh.current.find(directory.id, name, hash);
      if (id !== 0) return id;
    }
    const frozen = directory.frozenNames?.get(name);
    if (frozen !== undefined) return frozen;
    if (directory.frozenFreshLast === 0) return undefined;
    const id = this.#fresh.frozen.find(directory.id, name, hash);
    return id === 0 ? undefined : id;
  }

  link(directory: Inode, name: string, id: number): void {
    this.#note(directory);
    directory.names ??= new Map();
    const { size } = directory.names;
    directory.names.set(name, id);
    directory.sortedNames = undefined;
    if (id !== 0) {
      const hash = this.hash(directory.id, name);
      this.#filter.add(directory, hash);
      this.#cache.set(hash, id);
    }
    this.#dirtyCount += directory.names.size - size;
  }

  unlink(directory: Inode, name: string): void {
    this.link(directory, name, 0);
  }

  /** Children behind `afterName`, in the order of their bytes. */
  list(directory: Inode, afterName: string | undefined, limit: number): NamedInode[] {
    const changes = this.#sortedNames(directory);
    let next = afterName === undefined ? 0 : firstBehind(changes, afterName);
    const changedId = (name: string): number => this.#changed(directory, name, hashName(directory.id, name)) ?? 0;
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

  freeze(): void {
    this.#frozen = this.#dirty.sort((a, b) => a.id - b.id);
    this.#dirty = [];
    this.#dirtyCount = 0;
    this.#encoded = 0;
    for (const directory of this.#frozen) {
      directory.frozenNames = directory.names;
      directory.names = undefined;
      directory.frozenFreshLast = directory.freshLast;
      directory.freshLast = 0;
    }
  }

  /** Encodes about `rows` names into the batch; returns whether all are done. */
  encode(batch: Batch, rows: number): boolean {
    let budget = rows;
    while (this.#encoded < this.#frozen.length) {
      if (budget <= 0) return false;
      budget -= this.#encodeNames(batch, this.#frozen[this.#encoded++] as Inode);
    }
    return true;
  }

  thaw(): void {
    for (const directory of this.#frozen) {
      directory.frozenNames = undefined;
      directory.frozenFreshLast = 0;
      directory.sortedNames = undefined;
    }
    this.#frozen = [];
  }

  /** The names that changed in a directory. */
  #encodeNames(batch: Batch, directory: Inode): number {
    const [ring, fresh, w] = [this.#ring, this.#fresh.frozen, batch.writer];
    let count = 0;
    for (let ordinal = directory.frozenFreshLast; ordinal !== 0; ordinal = fresh.previousOf(ordinal)) {
      ring.locate(fresh.positionAt(ordinal));
      findName(ring.bytes, ring.start);
      batch.begin(namesTable);
      w.uint48(directory.id);
      w.copy(ring.bytes, nameStart, nameEnd);
      batch.value();
      w.uint48(fresh.idOf(ordinal));
      batch.end();
      count++;
    }
    const changes = directory.frozenNames;
    if (changes === undefined) return count;
    const names = [...changes.keys()];
    if (names.length > 1) names.sort(compareNames);
    for (const name of names) {
      const id = changes.get(name) as number;
      batch.begin(namesTable);
      w.uint48(directory.id);
      const bytes = Buffer.byteLength(name);
      w.reserve(bytes);
      w.position += w.buffer.write(name, w.position, bytes, "utf8");
      if (id === 0) {
        batch.remove();
      } else {
        batch.value();
        w.uint48(id);
        batch.end();
      }
    }
    return count + names.length;
  }

  /** Names of the directory are about to change. */
  #note(directory: Inode): void {
    if (directory.names === undefined && directory.freshLast === 0) this.#dirty.push(directory);
  }

  /** Names below the directory that the store does not hold as they are, in order. */
  #sortedNames(directory: Inode): readonly string[] {
    return sortedNames(directory, () => [
      ...this.#freshNames(this.#fresh.current, directory.freshLast),
      ...this.#freshNames(this.#fresh.frozen, directory.frozenFreshLast),
    ]);
  }

  *#freshNames(fresh: FreshRows, last: number): Generator<string, void> {
    for (let ordinal = last; ordinal !== 0; ordinal = fresh.previousOf(ordinal)) {
      this.#ring.locate(fresh.positionAt(ordinal));
      findName(this.#ring.bytes, this.#ring.start);
      yield this.#ring.bytes.toString("utf8", nameStart, nameEnd);
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
}
