/**
 * Which worker holds which blocks of which file version. Nothing of it is journaled: every worker reports to every master,
 * so a new leader knows it at once.
 *
 * Made for a thousand workers with ten thousand versions each: a complete version costs one bit per worker, and only
 * incomplete ones have a bitmap. A worker that is lost goes in the time that its own versions take.
 *
 * Versions that the namespace does not know yet (a report overtook the journal) are kept like the others, up to a limit of
 * their own; which versions are dead is decided in dead-versions.ts.
 */

import { present } from "../base/assert.ts";
import { BlockBitmap } from "../base/blocks.ts";
import type { Holding } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import { type FileVersionId, type InodeId, parseFileVersionId, type WorkerId } from "../base/ids.ts";
import { SlotSet } from "./slot-set.ts";

/** Blocks of one file version: 64 TiB in 4 MiB blocks, a bitmap of 2 MiB. */
export const blockCountMax = 2 ** 24;

/** How much of a version somebody has: the number of blocks and whether the last, shorter one is among them. */
export type Coverage = { readonly blocks: number; readonly last: boolean; readonly complete: boolean };

const nothing: Coverage = { blocks: 0, last: false, complete: false };

export type MapChange = {
  readonly worker: WorkerId;
  readonly version: MappedVersion;
  readonly before: Coverage;
  readonly after: Coverage;
  /** Bytes read from the under store since the last report; never negative. */
  readonly originBytes: number;
};

export type MappedVersion = {
  readonly id: FileVersionId;
  readonly inodeId: InodeId;
  readonly contentVersion: number;
  readonly blockCount: number;
};

type Version = MappedVersion & {
  /** Position in `#versions`, used again after the version has gone. */
  readonly slot: number;
  readonly complete: SlotSet;
  readonly partial: Map<number, BlockBitmap>;
  /** Bytes read from the under store, by worker slot, as each worker reported last. */
  origin: Float64Array | undefined;
  /** Other contents of the same inode. */
  next: Version | undefined;
  /** Blocks that at least one worker has, when no worker has all; undefined: to be counted again. */
  union: Coverage | undefined;
  parked: boolean;
};

type Worker = {
  readonly id: WorkerId;
  readonly slot: number;
  /** Slots of the versions of which it holds at least one block, or all of none. */
  readonly held: SlotSet;
  /** During a full report: what has not been reported again yet. */
  unconfirmed: SlotSet | undefined;
};

export type BlockMapDependencies = {
  /** Whether the namespace has ever given out this inode. */
  readonly isKnown: (inodeId: InodeId) => boolean;
  readonly limits?: { readonly versionsMax?: number; readonly parkedMax?: number };
};

export class BlockMap {
  readonly #isKnown: (inodeId: InodeId) => boolean;
  readonly #versionsMax: number;
  readonly #parkedMax: number;
  readonly #byInode = new Map<InodeId, Version>();
  readonly #versions: (Version | undefined)[] = [];
  readonly #freeVersionSlots: number[] = [];
  readonly #workers = new Map<WorkerId, Worker>();
  readonly #bySlot: (Worker | undefined)[] = [];
  readonly #freeWorkerSlots: number[] = [];
  readonly #listeners = new Set<(change: MapChange) => void>();
  #versionCount = 0;
  #parkedCount = 0;
  #refusedCount = 0;
  #bitmapBytes = 0;

  constructor({ isKnown, limits = {} }: BlockMapDependencies) {
    this.#isKnown = isKnown;
    this.#versionsMax = limits.versionsMax ?? 4_000_000;
    this.#parkedMax = limits.parkedMax ?? 100_000;
  }

  get versionCount(): number {
    return this.#versionCount;
  }

  /** Versions that the namespace did not know when they were reported first. */
  get parkedCount(): number {
    return this.#parkedCount;
  }

  /** Reports that found no room; their workers have to report again. */
  get refusedCount(): number {
    return this.#refusedCount;
  }

  /** An estimate of the memory that it takes. */
  get memoryBytes(): number {
    let bytes = this.#bitmapBytes + this.#versionCount * 400;
    for (const worker of this.#workers.values()) bytes += worker.held.memoryBytes + 200;
    return bytes + this.#versionCount * Math.ceil(this.#bySlot.length / 32) * 4;
  }

  /** Calls back after each change of what a worker holds. Returns what takes the listener away. */
  onChange(listener: (change: MapChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  addWorker(id: WorkerId): void {
    if (this.#workers.has(id)) return;
    const slot = this.#freeWorkerSlots.pop() ?? this.#bySlot.length;
    const worker: Worker = { id, slot, held: new SlotSet(), unconfirmed: undefined };
    this.#workers.set(id, worker);
    this.#bySlot[slot] = worker;
  }

  /** Forgets all that the worker holds, in time proportional to that. */
  removeWorker(id: WorkerId): void {
    const worker = this.#workers.get(id);
    if (worker === undefined) return;
    worker.held.forEach((slot) => this.#drop(worker, present(this.#versions[slot], "a held version is mapped")));
    this.#workers.delete(id);
    this.#bySlot[worker.slot] = undefined;
    this.#freeWorkerSlots.push(worker.slot);
  }

  /** A full report begins: what it does not mention until `endFull` is gone. Until then it counts as held. */
  beginFull(id: WorkerId): void {
    const worker = this.#worker(id);
    worker.unconfirmed = worker.held.copy();
  }

  endFull(id: WorkerId): void {
    const worker = this.#worker(id);
    const gone = worker.unconfirmed;
    worker.unconfirmed = undefined;
    gone?.forEach((slot) => {
      const version = this.#versions[slot];
      if (version !== undefined && worker.held.has(slot)) this.#drop(worker, version);
    });
  }

  /** False: there is no room for another version; the worker must report again later. Throws `invalid`. */
  report(id: WorkerId, holding: Holding): boolean {
    const worker = this.#worker(id);
    const { inodeId, contentVersion } = parseFileVersionId(holding.id);
    let version = this.#find(inodeId, contentVersion);
    if (holding.gone === true) {
      if (version !== undefined) this.#drop(worker, version, holding.originBytes);
      return true;
    }
    if (holding.blockCount > blockCountMax) {
      throw new HeadpondError("invalid", `${holding.id} has ${holding.blockCount} blocks, more than ${blockCountMax}`);
    }
    const bitmap =
      holding.bitmap === undefined || holding.complete
        ? undefined
        : BlockBitmap.fromBytes(holding.bitmap, holding.blockCount);
    if (version === undefined) {
      version = this.#make(holding, inodeId, contentVersion);
      if (version === undefined) return false;
    } else if (version.blockCount !== holding.blockCount) {
      throw new HeadpondError(
        "invalid",
        `${holding.id} has ${version.blockCount} blocks, not the ${holding.blockCount} that worker ${id} reports`,
      );
    }
    const before = this.#coverage(version, worker);
    this.#store(worker, version, holding, bitmap);
    const after = this.#coverage(version, worker);
    worker.held.add(version.slot);
    worker.unconfirmed?.delete(version.slot);
    const originBytes = this.#countOrigin(worker, version, holding.originBytes);
    this.#tell(worker, version, before, after, originBytes);
    return true;
  }

  /** Workers that have at least one block (or all, of an empty file). */
  holders(inodeId: InodeId, contentVersion: number): WorkerId[] {
    const result: WorkerId[] = [];
    this.forEachHolder(inodeId, contentVersion, (id) => result.push(id));
    return result;
  }

  /** Calls back for each worker that holds something of the version. */
  forEachHolder(inodeId: InodeId, contentVersion: number, visit: (id: WorkerId, coverage: Coverage) => void): void {
    const version = this.#find(inodeId, contentVersion);
    if (version === undefined) return;
    const all = fullCoverage(version.blockCount, true);
    version.complete.forEach((slot) => visit(present(this.#bySlot[slot], "a holder is a worker").id, all));
    for (const [slot, bitmap] of version.partial) {
      if (bitmap.count > 0) visit(present(this.#bySlot[slot], "a holder is a worker").id, bitmapCoverage(bitmap));
    }
  }

  coverage(id: WorkerId, inodeId: InodeId, contentVersion: number): Coverage {
    const worker = this.#workers.get(id);
    const version = this.#find(inodeId, contentVersion);
    return worker === undefined || version === undefined ? nothing : this.#coverage(version, worker);
  }

  isComplete(id: WorkerId, inodeId: InodeId, contentVersion: number): boolean {
    const worker = this.#workers.get(id);
    return worker !== undefined && this.#find(inodeId, contentVersion)?.complete.has(worker.slot) === true;
  }

  /** Blocks that at least one worker (of `among`, if given) has. */
  union(inodeId: InodeId, contentVersion: number, among?: ReadonlySet<WorkerId>): Coverage {
    const version = this.#find(inodeId, contentVersion);
    if (version === undefined) return nothing;
    if (among !== undefined) return this.#unionAmong(version, among);
    if (version.complete.count > 0) return fullCoverage(version.blockCount, true);
    version.union ??= unionOf(version.blockCount, version.partial.values());
    return version.union;
  }

  /** Bytes of the content that at least one worker has. */
  cachedBytes(inodeId: InodeId, contentVersion: number, sizeBytes: number, blockSizeBytes: number): number {
    if (this.#versionCount === 0) return 0;
    return coverageBytes(this.union(inodeId, contentVersion), sizeBytes, blockSizeBytes);
  }

  /** Bytes that this worker read from the under store for this version, as it reported last. */
  originBytes(id: WorkerId, inodeId: InodeId, contentVersion: number): number {
    const worker = this.#workers.get(id);
    if (worker === undefined) return 0;
    return this.#find(inodeId, contentVersion)?.origin?.[worker.slot] ?? 0;
  }

  /** The versions that a worker holds anything of, as they are now. */
  heldBy(id: WorkerId): MappedVersion[] {
    const held: MappedVersion[] = [];
    this.#workers.get(id)?.held.forEach((slot) => held.push(present(this.#versions[slot], "a held version is mapped")));
    return held;
  }

  /** How many versions a worker holds. */
  heldCount(id: WorkerId): number {
    return this.#workers.get(id)?.held.count ?? 0;
  }

  /** At most `limit` versions from `cursor` on, with the cursor behind them: for walks in slices. `next` 0: it was the end. */
  slice(cursor: number, limit: number): { readonly versions: readonly MappedVersion[]; readonly next: number } {
    const versions: MappedVersion[] = [];
    let at = cursor;
    for (; at < this.#versions.length && at < cursor + limit; at++) {
      const version = this.#versions[at];
      if (version === undefined) continue;
      if (version.parked && this.#isKnown(version.inodeId)) {
        version.parked = false;
        this.#parkedCount--;
      }
      versions.push(version);
    }
    return { versions, next: at < this.#versions.length ? at : 0 };
  }

  #worker(id: WorkerId): Worker {
    return present(this.#workers.get(id), `worker ${id} is in the block map`);
  }

  #find(inodeId: InodeId, contentVersion: number): Version | undefined {
    let version = this.#byInode.get(inodeId);
    while (version !== undefined && version.contentVersion !== contentVersion) version = version.next;
    return version;
  }

  #make(holding: Holding, inodeId: InodeId, contentVersion: number): Version | undefined {
    const parked = !this.#isKnown(inodeId);
    if (this.#versionCount >= this.#versionsMax || (parked && this.#parkedCount >= this.#parkedMax)) {
      this.#refusedCount++;
      return undefined;
    }
    const slot = this.#freeVersionSlots.pop() ?? this.#versions.length;
    const version: Version = {
      id: holding.id,
      inodeId,
      contentVersion,
      blockCount: holding.blockCount,
      slot,
      complete: new SlotSet(),
      partial: new Map(),
      origin: undefined,
      next: this.#byInode.get(inodeId),
      union: undefined,
      parked,
    };
    this.#byInode.set(inodeId, version);
    this.#versions[slot] = version;
    this.#versionCount++;
    if (parked) this.#parkedCount++;
    return version;
  }

  #store(worker: Worker, version: Version, holding: Holding, reported: BlockBitmap | undefined): void {
    version.union = undefined;
    const bitmap = version.partial.get(worker.slot);
    if (holding.complete) {
      if (bitmap !== undefined) this.#deletePartial(worker, version);
      version.complete.add(worker.slot);
      return;
    }
    let next: BlockBitmap;
    if (reported !== undefined) {
      next = reported;
    } else if (bitmap !== undefined) {
      next = bitmap;
    } else {
      next = version.complete.has(worker.slot)
        ? BlockBitmap.full(version.blockCount)
        : new BlockBitmap(version.blockCount);
    }
    for (const index of holding.added ?? []) {
      if (index < version.blockCount) next.add(index);
    }
    for (const index of holding.removed ?? []) next.delete(index);
    version.complete.delete(worker.slot);
    if (bitmap === undefined) this.#bitmapBytes += bitmapBytes(version);
    version.partial.set(worker.slot, next);
  }

  #deletePartial(worker: Worker, version: Version): void {
    this.#bitmapBytes -= bitmapBytes(version);
    version.partial.delete(worker.slot);
  }

  /** The worker holds nothing of the version any more. */
  #drop(worker: Worker, version: Version, originBytes?: number): void {
    const before = this.#coverage(version, worker);
    const read = originBytes === undefined ? 0 : this.#countOrigin(worker, version, originBytes);
    const bitmap = version.partial.get(worker.slot);
    if (bitmap !== undefined) this.#deletePartial(worker, version);
    version.complete.delete(worker.slot);
    version.union = undefined;
    worker.held.delete(version.slot);
    worker.unconfirmed?.delete(version.slot);
    if (version.origin !== undefined) version.origin[worker.slot] = 0;
    this.#tell(worker, version, before, nothing, read);
    if (version.complete.count === 0 && version.partial.size === 0) this.#forget(version);
  }

  #forget(version: Version): void {
    const first = this.#byInode.get(version.inodeId);
    if (first === version) {
      if (version.next === undefined) this.#byInode.delete(version.inodeId);
      else this.#byInode.set(version.inodeId, version.next);
    } else {
      for (let other = first; other !== undefined; other = other.next) {
        if (other.next === version) other.next = version.next;
      }
    }
    this.#versions[version.slot] = undefined;
    this.#freeVersionSlots.push(version.slot);
    this.#versionCount--;
    if (version.parked) this.#parkedCount--;
    if (version.origin !== undefined) this.#bitmapBytes -= version.origin.byteLength;
  }

  /** A worker counts from its start: a lower number than before is the count of a new life. */
  #countOrigin(worker: Worker, version: Version, originBytes: number): number {
    const before = version.origin?.[worker.slot] ?? 0;
    if (originBytes === before) return 0;
    if (version.origin === undefined || worker.slot >= version.origin.length) {
      const grown = new Float64Array(Math.max(worker.slot + 1, (version.origin?.length ?? 0) * 2));
      if (version.origin !== undefined) grown.set(version.origin);
      this.#bitmapBytes += grown.byteLength - (version.origin?.byteLength ?? 0);
      version.origin = grown;
    }
    version.origin[worker.slot] = originBytes;
    return originBytes > before ? originBytes - before : originBytes;
  }

  #coverage(version: Version, worker: Worker): Coverage {
    if (version.complete.has(worker.slot)) return fullCoverage(version.blockCount, true);
    const bitmap = version.partial.get(worker.slot);
    return bitmap === undefined ? nothing : bitmapCoverage(bitmap);
  }

  #unionAmong(version: Version, among: ReadonlySet<WorkerId>): Coverage {
    const bitmaps: BlockBitmap[] = [];
    for (const id of among) {
      const slot = this.#workers.get(id)?.slot;
      if (slot === undefined) continue;
      if (version.complete.has(slot)) return fullCoverage(version.blockCount, true);
      const bitmap = version.partial.get(slot);
      if (bitmap !== undefined) bitmaps.push(bitmap);
    }
    return unionOf(version.blockCount, bitmaps);
  }

  #tell(worker: Worker, version: Version, before: Coverage, after: Coverage, originBytes: number): void {
    if (this.#listeners.size === 0) return;
    if (before.blocks === after.blocks && before.complete === after.complete && before.last === after.last) {
      if (originBytes === 0) return;
    }
    for (const listener of this.#listeners) listener({ worker: worker.id, version, before, after, originBytes });
  }
}

/** Bytes of the file that a coverage stands for. */
export function coverageBytes(coverage: Coverage, sizeBytes: number, blockSizeBytes: number): number {
  if (coverage.blocks === 0) return 0;
  if (coverage.complete) return sizeBytes;
  const lastBytes = sizeBytes - (Math.ceil(sizeBytes / blockSizeBytes) - 1) * blockSizeBytes;
  const bytes = coverage.last ? (coverage.blocks - 1) * blockSizeBytes + lastBytes : coverage.blocks * blockSizeBytes;
  return Math.min(bytes, sizeBytes);
}

function fullCoverage(blockCount: number, complete: boolean): Coverage {
  return { blocks: blockCount, last: blockCount > 0, complete };
}

function bitmapCoverage(bitmap: BlockBitmap): Coverage {
  const last = bitmap.length > 0 && bitmap.has((bitmap.length - 1) as Parameters<BlockBitmap["has"]>[0]);
  return { blocks: bitmap.count, last, complete: false };
}

function unionOf(blockCount: number, bitmaps: Iterable<BlockBitmap>): Coverage {
  const union = new Uint8Array(Math.ceil(blockCount / 8));
  for (const bitmap of bitmaps) {
    const bytes = bitmap.toBytes();
    for (let i = 0; i < union.length; i++) union[i] = (union[i] as number) | (bytes[i] as number);
  }
  // A union of all blocks is not `complete`: no single worker vouches for the whole.
  return bitmapCoverage(BlockBitmap.fromBytes(union, blockCount));
}

function bitmapBytes(version: Version): number {
  return Math.ceil(version.blockCount / 8) + 160;
}
