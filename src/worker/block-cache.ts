/**
 * The blocks that this worker holds, over several cache directories. A file version lives whole in one of them; its
 * space is reserved before the first byte moves. What it holds is the truth for this worker: after a start it is what
 * recovery could trust.
 *
 * Leaves out: where bytes come from (`fetcher.ts`), who reads them (`reader.ts`).
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { BlockIndex, FileVersionId } from "../base/ids.ts";
import { modelOf, modelRoots } from "../base/model-roots.ts";
import { formatBytes } from "../base/units.ts";
import { directAlignmentBytes } from "../io/aligned-buffer.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { emptyIndexState, type IndexState } from "./block-index.ts";
import { CacheDirectory } from "./cache-directory.ts";
import { CachedFile, type FileChange, type MarkLimits } from "./cached-file.ts";
import { chooseEvictions, type EvictionCandidate, unevictableBytes } from "./eviction.ts";
import type { IndexFilePosition } from "./index-file.ts";
import { PassingFile } from "./passing-file.ts";
import { recoverDirectory } from "./recovery.ts";

export type BlockCacheLimits = MarkLimits & {
  /** Largest block of a file that is accepted; fill buffers have this size. */
  readonly blockSizeBytesMax: number;
  /** Data files kept open though nobody reads them now. */
  readonly idleOpenFilesMax: number;
  /** Files without room that are read through at once: each needs some blocks in memory. */
  readonly passingFilesMax: number;
};

export const blockCacheLimits: BlockCacheLimits = {
  markBlocks: 64,
  markDelayMs: 300,
  blockSizeBytesMax: 4 * 1024 * 1024,
  idleOpenFilesMax: 256,
  passingFilesMax: 4,
};

/** What took a millisecond to add up may be a tenth of a second old. */
const rememberedPerCost = 100;

export type BlockCacheOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly directories: readonly { readonly path: string; readonly capacityBytes: number }[];
  readonly limits?: Partial<BlockCacheLimits>;
};

/** `gone`: nothing of it is held any more. */
export type CacheListener = (file: CachedFile, change: FileChange | { readonly gone: true }) => void;

export type CacheUsage = {
  readonly capacityBytes: number;

  readonly usedBytes: number;
  readonly reservedBytes: number;
  readonly files: number;
};

export class BlockCache {
  /** Told of every change of what is held. */
  onChange: CacheListener = () => {};
  /** Told of every block that did not match its checksum. */
  onDamaged: (file: CachedFile, block: BlockIndex) => void = () => {};
  onEvicted: (file: CachedFile) => void = () => {};
  /**
   * These versions are not held any more as far as anybody is told, and their bytes are still there: resolves when whoever may have
   * said that they are READY here has heard it, or cannot be waited for. Must not reject.
   */
  withdraw: (files: readonly CachedFile[]) => Promise<void> = () => Promise.resolve();
  readonly limits: BlockCacheLimits;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #directories: readonly CacheDirectory[];
  readonly #files = new Map<FileVersionId, CachedFile>();
  /** Open data files without users, in the order in which they fell idle. */
  readonly #idle = new Set<CachedFile>();
  /** To be freed, but still read. */
  readonly #freedWhenIdle = new Set<CachedFile>();
  /** Being read, but not kept. */
  readonly #passing = new Map<FileVersionId, PassingFile>();
  #usedBytes = 0;
  #kept = { bytes: 0, untilMs: 0 };
  /** Admissions, one after another: two must not be promised the same space. */
  #admission: Promise<unknown> = Promise.resolve();

  private constructor(options: BlockCacheOptions) {
    this.limits = { ...blockCacheLimits, ...options.limits };
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#directories = options.directories.map((directory) => new CacheDirectory(directory, options));
    for (const directory of this.#directories) directory.onFailed = () => this.#takeOut(directory);
  }

  /** Opens and recovers all directories. Throws `unavailable` if none is in service. */
  static async open(options: BlockCacheOptions): Promise<BlockCache> {
    const cache = new BlockCache(options);
    try {
      for (const directory of cache.#directories) {
        await directory.open();
        if (directory.state !== "failed") await cache.#recover(directory);
      }
      if (cache.#directories.every((directory) => directory.state === "failed")) {
        throw new HeadpondError("unavailable", `no cache directory is usable: ${cache.problems().join("; ")}`);
      }
    } catch (error) {
      await cache.close();
      throw error;
    }
    return cache;
  }

  get directories(): readonly CacheDirectory[] {
    return this.#directories;
  }

  /** Clear states of trouble, for status and masters. */
  problems(): readonly string[] {
    return this.#directories.flatMap((directory) => directory.problem ?? []);
  }

  /** The version if anything is known of it here, also when it holds no block yet. */
  get(id: FileVersionId): CachedFile | undefined {
    return this.#files.get(id);
  }

  list(): IterableIterator<CachedFile> {
    return this.#files.values();
  }

  /** Present bytes; capacity of the directories that are in service. */
  usage(): CacheUsage {
    const healthy = this.#directories.filter((directory) => directory.state !== "failed");
    return {
      capacityBytes: healthy.reduce((sum, directory) => sum + directory.capacityBytes, 0),
      reservedBytes: healthy.reduce((sum, directory) => sum + directory.reservedBytes, 0),
      usedBytes: this.#usedBytes,
      files: this.#files.size,
    };
  }

  /** Reserved for what no eviction may take as things are: nobody should count on that space. A moment old where it is costly. */
  keptBytes(): number {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs < this.#kept.untilMs) return this.#kept.bytes;
    const bytes = unevictableBytes(this.#candidates((file) => file.directory.state !== "failed"));
    const doneMs = this.#clock.monotonicMs();
    this.#kept = { bytes, untilMs: doneMs + (doneMs - nowMs) * rememberedPerCost };
    return bytes;
  }

  /**
   * The version, with its whole size reserved: others are evicted if that is needed and enough. Throws `no-space`, or
   * `version-mismatch` when the id names another content here. A caller that goes on using it calls `acquire` or `protect` in
   * the same turn.
   */
  async open(descriptor: FileDescriptor): Promise<CachedFile> {
    const known = this.#known(descriptor);
    if (known !== undefined) return known;
    const { blockSizeBytes } = descriptor;
    if (blockSizeBytes === 0 || blockSizeBytes % directAlignmentBytes !== 0) {
      throw new HeadpondError(
        "invalid",
        `${descriptor.path}: blocks of ${blockSizeBytes} bytes are no multiple of 4096`,
      );
    }
    if (blockSizeBytes > this.limits.blockSizeBytesMax) {
      throw new HeadpondError(
        "invalid",
        `${descriptor.path}: blocks of ${blockSizeBytes} bytes, this worker takes ${this.limits.blockSizeBytesMax} at most`,
      );
    }
    const admitted = this.#admission.then(() => this.#known(descriptor) ?? this.#admit(descriptor));
    this.#admission = admitted.catch(() => {});
    const file = await admitted;
    await file.completeEmpty();
    return file;
  }

  /** As `open`; when there is no room for it, one that is read through and not kept. Throws `no-space` when too many of those are read already. */
  async openOrPass(descriptor: FileDescriptor): Promise<CachedFile> {
    try {
      return await this.open(descriptor);
    } catch (error) {
      if (!isHeadpondError(error, "no-space") || descriptor.sizeBytes === 0) throw error;
      const known = this.#passing.get(descriptor.id);
      if (known !== undefined) return known;
      const [directory] = this.#directories;
      if (directory === undefined || this.#passing.size >= this.limits.passingFilesMax) throw error;
      const file: PassingFile = new PassingFile(descriptor, {
        directory,
        clock: this.#clock,
        logger: this.#logger,
        limits: this.limits,
        onIdle: () => {
          if (this.#passing.get(descriptor.id) === file) this.#passing.delete(descriptor.id);
        },
      });
      this.#passing.set(descriptor.id, file);
      this.#logger.info("there is no room for a file: it is read through, and not kept", {
        id: descriptor.id,
        path: descriptor.path,
      });
      return file;
    }
  }

  /**
   * Drops versions by wish; those that are pinned or protected stay, and one that is read goes when its last reader has
   * left. Returns the bytes that were dropped now.
   */
  async free(ids: readonly FileVersionId[]): Promise<number> {
    const going: CachedFile[] = [];
    let bytes = 0;
    for (const id of ids) {
      const file = this.#files.get(id);
      if (file === undefined || file.isPinned || file.isProtected) continue;
      if (file.isOpen) {
        this.#freedWhenIdle.add(file);
        continue;
      }
      bytes += file.heldBytes;
      going.push(file);
    }
    await this.#removeInTurn(going);
    return bytes;
  }

  /** File version ids mean something only within one cluster: those of another one are dropped. Durable when it resolves. */
  async bindCluster(clusterId: string): Promise<void> {
    for (const directory of this.#directories) {
      if (directory.state === "failed" || directory.identity.clusterId === clusterId) continue;
      const foreign = [...this.#files.values()].filter((file) => file.directory === directory);
      if (foreign.length > 0) {
        this.#logger.warn("the cache held files of another cluster: they are dropped", {
          directory: directory.path,
          was: directory.identity.clusterId ?? "none",
          now: clusterId,
          files: foreign.length,
        });
      }
      await this.#removeInTurn(foreign);
      await directory.setIdentity({ ...directory.identity, clusterId });
    }
  }

  /** Everything present is made durable first. */
  async close(): Promise<void> {
    await this.#admission;
    await Promise.all([...this.#files.values()].map((file) => file.close()));
    await Promise.all(this.#directories.map((directory) => directory.close()));
  }

  #known(descriptor: FileDescriptor): CachedFile | undefined {
    const file = this.#files.get(descriptor.id);
    if (file === undefined) return undefined;
    const held = file.descriptor;
    if (
      held.sizeBytes !== descriptor.sizeBytes ||
      held.blockSizeBytes !== descriptor.blockSizeBytes ||
      held.etag !== descriptor.etag
    ) {
      throw new HeadpondError(
        "version-mismatch",
        `${descriptor.path}: ${descriptor.id} is held with ${held.sizeBytes} bytes and etag ${held.etag}, not ${descriptor.sizeBytes} and ${descriptor.etag}`,
      );
    }
    return file;
  }

  async #admit(descriptor: FileDescriptor): Promise<CachedFile> {
    const state = emptyIndexState(descriptor);
    const needed = descriptor.sizeBytes;
    const healthy = this.#directories.filter((directory) => directory.state === "healthy");
    const roomiest = healthy.toSorted((a, b) => b.freeBytes - a.freeBytes)[0];
    if (roomiest !== undefined && roomiest.freeBytes >= needed) return this.#add(roomiest, state, undefined);
    for (const directory of healthy) {
      const victims = this.#victims(directory, needed - directory.freeBytes);
      if (victims === undefined) continue;
      for (const victim of victims) {
        this.#logger.info("evicted", { id: victim.id, path: victim.descriptor.path, bytes: victim.heldBytes });
      }
      await this.#takeOff(this.#forget(victims));
      for (const victim of victims) this.onEvicted(victim);
      return this.#add(directory, state, undefined);
    }
    const why =
      healthy.length === 0
        ? this.problems().join("; ")
        : `the cache has ${healthy.map((d) => `${formatBytes(d.freeBytes)} free in ${d.path}`).join(", ")} and nothing more may be evicted`;
    throw new HeadpondError("no-space", `${descriptor.path} needs ${formatBytes(needed)}: ${why}`);
  }

  /** Files of other directories go with their model, but bring no space. */
  #victims(directory: CacheDirectory, bytesNeeded: number): readonly CachedFile[] | undefined {
    const ids = chooseEvictions(
      this.#candidates((file) => file.directory === directory),
      bytesNeeded,
    );
    return ids?.flatMap((id) => this.#files.get(id) ?? []);
  }

  #candidates(counts: (file: CachedFile) => boolean): EvictionCandidate[] {
    const files = [...this.#files.values()];
    const roots = modelRoots(files.map(({ descriptor }) => descriptor.path));
    return files.map((file) => ({
      id: file.id,
      model: modelOf(file.descriptor.path, roots),
      reservedBytes: counts(file) ? file.descriptor.sizeBytes : 0,
      lastAccessMs: file.lastAccessMs,
      complete: file.isComplete,
      pinned: file.isPinned,
      open: file.isOpen,
      protected: file.isProtected,
    }));
  }

  #add(directory: CacheDirectory, state: IndexState, indexEnd: IndexFilePosition | undefined): CachedFile {
    directory.reserve(state.descriptor.sizeBytes);
    const file = new CachedFile(
      {
        directory,
        clock: this.#clock,
        logger: this.#logger,
        limits: this.limits,
        onChange: (changed, change) => {
          if (this.#files.get(changed.id) !== changed) return;
          if (change.added !== undefined) this.#usedBytes += changed.blockLength(change.added);
          if (change.removed !== undefined) this.#usedBytes -= changed.blockLength(change.removed);
          this.onChange(changed, change);
        },
        onDamaged: (changed, block) => {
          this.#logger.error("a block on disk is damaged: dropped, to be fetched again", {
            id: changed.id,
            path: changed.descriptor.path,
            block,
            file: directory.dataPath(changed.id),
          });
          this.onDamaged(changed, block);
        },
        onIdle: (idle) => this.#noteIdle(idle),
      },
      state,
      indexEnd,
    );
    this.#files.set(file.id, file);
    this.#usedBytes += file.heldBytes;
    return file;
  }

  /** Not held any more from this moment; off the disk among the admissions: none may find the old file under its name. */
  #removeInTurn(files: readonly CachedFile[]): Promise<void> {
    const forgotten = this.#forget(files);
    if (forgotten.length === 0) return Promise.resolve();
    const removed = this.#admission.then(() => this.#takeOff(forgotten));
    this.#admission = removed.catch(() => {});
    return removed;
  }

  #forget(files: readonly CachedFile[]): readonly CachedFile[] {
    const held = files.filter((file) => this.#files.get(file.id) === file);
    for (const file of held) {
      this.#files.delete(file.id);
      this.#idle.delete(file);
      this.#freedWhenIdle.delete(file);
      this.#usedBytes -= file.heldBytes;
      this.onChange(file, { gone: true });
    }
    return held;
  }

  async #takeOff(forgotten: readonly CachedFile[]): Promise<void> {
    await this.withdraw(forgotten);
    for (const file of forgotten) {
      try {
        await file.remove();
      } catch (error) {
        file.directory.fail(error);
      }
      file.directory.release(file.descriptor.sizeBytes);
    }
  }

  /** A directory has failed: its files are out of service, and masters hear of it. */
  #takeOut(directory: CacheDirectory): void {
    for (const file of [...this.#files.values()]) {
      if (file.directory !== directory) continue;
      this.#files.delete(file.id);
      this.#idle.delete(file);
      this.#usedBytes -= file.heldBytes;
      this.onChange(file, { gone: true });
    }
  }

  async #recover(directory: CacheDirectory): Promise<void> {
    try {
      const { files, findings } = await recoverDirectory(directory);
      for (const finding of findings)
        this.#logger.warn("recovery found something", { directory: directory.path, finding });
      let bytes = 0;
      for (const { state, indexEnd } of files) {
        if (this.#files.has(state.descriptor.id)) {
          this.#logger.warn("a version lies in two directories: the second is ignored", { id: state.descriptor.id });
          continue;
        }
        bytes += this.#add(directory, state, indexEnd).heldBytes;
      }
      this.#logger.info("cache directory recovered", {
        directory: directory.path,
        files: files.length,
        bytes,
        findings: findings.length,
      });
    } catch (error) {
      directory.fail(error);
    }
  }

  #noteIdle(file: CachedFile): void {
    this.#idle.delete(file);
    if (this.#freedWhenIdle.delete(file) && !file.isPinned && !file.isProtected) {
      // `remove` takes the directory out of service itself when its disk fails.
      this.#removeInTurn([file]).catch(() => {});
      return;
    }
    this.#idle.add(file);
    for (const oldest of this.#idle) {
      if (this.#idle.size <= this.limits.idleOpenFilesMax) return;
      this.#idle.delete(oldest);
      // A descriptor that cannot be closed is of no use to anybody; the disk's own trouble shows elsewhere.
      oldest.closeHandles().catch(() => {});
    }
  }
}
