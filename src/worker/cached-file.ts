/**
 * One file version in a cache directory: a sparse data file and an index of what in it can be trusted. A block is
 * present once its checked bytes are written, durable once the data is synced and the index says so; many blocks share
 * one sync. Blocks written by this process or an earlier one are read back and compared with their checksum before they
 * are served from the disk for the first time; one that does not match is dropped and named, never served.
 */

import { assert } from "../base/assert.ts";
import { BlockBitmap, blockRange } from "../base/blocks.ts";
import { HeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { BlockIndex, FileVersionId } from "../base/ids.ts";
import { directAlignmentBytes } from "../io/aligned-buffer.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { DiskFile } from "../io/disk.ts";
import { xxh64 } from "../io/hash.ts";
import type { Logger } from "../io/logger.ts";
import { checksumOf, type IndexRecord, type IndexState } from "./block-index.ts";
import { type CacheDirectory, errorCode } from "./cache-directory.ts";
import { IndexFile, type IndexFilePosition, unlinkIfThere } from "./index-file.ts";

export type MarkLimits = {
  /** Blocks written since the last mark that start the next one. */
  readonly markBlocks: number;
  /** How long a written block waits for its mark at most. */
  readonly markDelayMs: number;
};

/** What happened to a file version: reported to masters. */
export type FileChange = { readonly added?: BlockIndex; readonly removed?: BlockIndex; readonly complete?: boolean };

export type CachedFileDependencies = {
  readonly directory: CacheDirectory;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: MarkLimits;
  readonly onChange: (file: CachedFile, change: FileChange) => void;
  readonly onDamaged: (file: CachedFile, block: BlockIndex) => void;
  /** Asked whenever nobody uses the handles any more. */
  readonly onIdle: (file: CachedFile) => void;
};

type Handles = { readonly buffered: DiskFile; readonly direct: DiskFile };

export class CachedFile {
  readonly id: FileVersionId;
  readonly descriptor: FileDescriptor;
  readonly directory: CacheDirectory;
  /** Monotonic; of the last read. */
  lastAccessMs: number;
  readonly #deps: CachedFileDependencies;
  readonly #state: IndexState;
  readonly #index: IndexFile;
  /** Written and servable; a superset of the durable ones. */
  readonly #present: BlockBitmap;
  /** Present blocks that this process has read back and found right. */
  readonly #checked: BlockBitmap;
  #unmarked: BlockIndex[] = [];
  #markTimer: Timer | undefined;
  #complete: boolean;
  #handles: Promise<Handles> | undefined;
  #users = 0;
  #openCount = 0;
  #protectCount = 0;
  #removed = false;

  constructor(dependencies: CachedFileDependencies, state: IndexState, indexEnd: IndexFilePosition | undefined) {
    this.#deps = dependencies;
    this.#state = state;
    this.descriptor = state.descriptor;
    this.id = state.descriptor.id;
    this.directory = dependencies.directory;
    this.lastAccessMs = dependencies.clock.monotonicMs();
    this.#present = BlockBitmap.fromBytes(state.durable.toBytes(), state.durable.length);
    this.#checked = new BlockBitmap(state.durable.length);
    this.#index = new IndexFile({
      disk: this.directory.disk,
      directoryPath: this.directory.versionsPath,
      path: this.directory.indexPath(this.id),
      end: indexEnd,
    });
    this.#complete = state.durable.isFull && indexEnd !== undefined;
  }

  get blockCount(): number {
    return this.#present.length;
  }

  /** Every block is there, checked and durable. */
  get isComplete(): boolean {
    return this.#complete;
  }

  /** Every block is there and checked; the last may not be durable yet. */
  get isFull(): boolean {
    return this.#present.isFull;
  }

  get digestVerified(): boolean {
    return this.#state.digestVerified;
  }

  get isPinned(): boolean {
    return this.#state.pinned;
  }

  get isStale(): boolean {
    return this.#state.stale;
  }

  /** Somebody reads it now. */
  get isOpen(): boolean {
    return this.#openCount > 0;
  }

  get isProtected(): boolean {
    return this.#protectCount > 0;
  }

  /** Nothing of it is kept: there was no room (`passing-file.ts`). */
  get isPassing(): boolean {
    return false;
  }

  /** Dropped, or its directory failed: whoever still has it must ask the cache again. */
  get isGone(): boolean {
    return this.#removed || this.directory.state === "failed";
  }

  get heldBytes(): number {
    return this.#present.coveredBytes(this.descriptor.sizeBytes, this.descriptor.blockSizeBytes);
  }

  has(block: BlockIndex): boolean {
    return this.#present.has(block) && !this.isGone;
  }

  /** Whether `readAt` may serve it without another look at its checksum. */
  isChecked(block: BlockIndex): boolean {
    return this.#checked.has(block);
  }

  bitmap(): Uint8Array {
    return this.#present.toBytes();
  }

  /** xxh64 of a present block, 8 bytes. */
  checksum(block: BlockIndex): Uint8Array {
    assert(this.#present.has(block), `${this.id}: block ${block} is not present`);
    return checksumOf(this.#state, block);
  }

  blockLength(block: BlockIndex): number {
    return blockRange(block, this.descriptor.sizeBytes, this.descriptor.blockSizeBytes).length;
  }

  /** Readers hold a file open: it is not evicted meanwhile. */
  acquire(): void {
    this.#openCount++;
    this.lastAccessMs = this.#deps.clock.monotonicMs();
  }

  release(): void {
    assert(this.#openCount > 0, `${this.id} was released more often than acquired`);
    this.#openCount--;
    this.lastAccessMs = this.#deps.clock.monotonicMs();
    this.#noteIdle();
  }

  /** Load jobs and fills protect a file from eviction. */
  protect(): void {
    this.#protectCount++;
  }

  unprotect(): void {
    assert(this.#protectCount > 0, `${this.id} was unprotected more often than protected`);
    this.#protectCount--;
  }

  /** Bytes from the data file as they are: only for ranges inside checked blocks. Returns how many: 0 when the disk fails. */
  async readAt(buffer: Uint8Array, position: number): Promise<number> {
    return this.#withHandles(async ({ buffered }) => {
      try {
        return await buffered.read(buffer, position);
      } catch (error) {
        this.directory.readFailed(error);
        return 0;
      }
    });
  }

  /** Lends the data file's descriptor, for ranges inside checked blocks; undefined where its disk has none. */
  async withDescriptor<T>(use: (descriptor: number) => Promise<T>): Promise<T | undefined> {
    return this.#withHandles(async ({ buffered }) =>
      buffered.descriptor === undefined ? undefined : await use(buffered.descriptor),
    );
  }

  /** A present block, compared with its checksum, in `buffer`. Throws `corrupt` when it was damaged; it is dropped then. */
  async readBlock(block: BlockIndex, buffer: Uint8Array): Promise<Uint8Array> {
    const { position, length } = blockRange(block, this.descriptor.sizeBytes, this.descriptor.blockSizeBytes);
    const expected = Uint8Array.from(this.checksum(block));
    const bytes = buffer.subarray(0, length);
    const count = await this.#withHandles(async ({ buffered }) => {
      try {
        return await readFully(buffered, bytes, position);
      } catch (error) {
        this.directory.readFailed(error);
        return 0;
      }
    });
    if (this.isGone) throw this.goneError();
    if (count === length && equalBytes(xxh64(bytes), expected)) {
      if (this.#present.has(block)) this.#checked.add(block);
      return bytes;
    }
    this.drop(block);
    this.#deps.onDamaged(this, block);
    throw new HeadpondError("corrupt", `${this.descriptor.path} (${this.id}): block ${block} on disk is damaged`);
  }

  /**
   * Writes a block whose bytes were checked; `buffer` is a whole aligned buffer of which the block's length counts. Present
   * when it resolves; durable some time after. Not `direct`: into the page cache. Throws `no-space`.
   */
  async commit(
    block: BlockIndex,
    buffer: Uint8Array,
    checksum: Uint8Array,
    options: { readonly direct: boolean } = { direct: true },
  ): Promise<void> {
    if (this.isGone) throw this.goneError();
    const { position, length } = blockRange(block, this.descriptor.sizeBytes, this.descriptor.blockSizeBytes);
    await this.#withHandles(async ({ buffered, direct }) => {
      try {
        // The end of a file is no multiple of the alignment: it goes through the page cache.
        const file = options.direct && length % directAlignmentBytes === 0 ? direct : buffered;
        await file.write(buffer.subarray(0, length), position);
      } catch (error) {
        throw this.directory.writeFailed(error);
      }
    });
    if (this.isGone) throw this.goneError();
    checksumOf(this.#state, block).set(checksum);
    this.#present.add(block);
    this.#unmarked.push(block);
    if (this.#present.isFull || this.#unmarked.length >= this.#deps.limits.markBlocks) this.#markSoon();
    else this.#markTimer ??= this.#deps.clock.timer(this.#deps.limits.markDelayMs, () => this.#markSoon());
    this.#deps.onChange(this, { added: block });
  }

  /** An empty file is complete once its index says so: there is no block whose commit would say it. */
  async completeEmpty(): Promise<void> {
    if (this.#complete || this.blockCount > 0) return;
    await this.#change(async () => [{ kind: "complete" }]);
    this.#complete = true;
    this.#deps.onChange(this, { complete: true });
  }

  /** Forgets a block: its bytes are not to be trusted, or the whole content is not. */
  drop(block: BlockIndex): void {
    if (!this.#present.delete(block)) return;
    this.#checked.delete(block);
    this.#complete = false;
    this.#deps.onChange(this, { removed: block });
    this.#record(async () => {
      if (!this.#state.durable.delete(block)) return [];
      this.#state.digestVerified = false;
      return [{ kind: "dropped", blocks: [block] }];
    });
  }

  /** Durable when it resolves. */
  setDigestVerified(): Promise<void> {
    return this.#change(async () => {
      if (!this.#state.durable.isFull || this.#state.digestVerified) return [];
      this.#state.digestVerified = true;
      return [{ kind: "digest-verified" }];
    });
  }

  setPinned(pinned: boolean): void {
    if (this.#state.pinned === pinned) return;
    this.#state.pinned = pinned;
    this.#record(async () => [{ kind: "pinned", pinned }]);
  }

  setStale(): void {
    if (this.#state.stale) return;
    this.#state.stale = true;
    // A version without a block on disk needs no note: it would be an index without data, which nobody ever frees.
    this.#record(async () => (this.#index.exists ? [{ kind: "stale" }] : []));
  }

  /** Resolves when everything present is durable. Throws when the directory failed. */
  async flush(): Promise<void> {
    await this.#mark();
    await this.#index.settle();
    if (this.isGone) throw this.goneError();
  }

  /** Closes the handles, if nobody uses them; they open again on demand. */
  async closeHandles(): Promise<void> {
    if (this.#users > 0 || this.#handles === undefined) return;
    const opened = this.#handles;
    this.#handles = undefined;
    const { buffered, direct } = await opened;
    await this.#index.close();
    await Promise.all([buffered.close(), direct.close()]);
  }

  /** At the end of the process: what is present is made durable. */
  async close(): Promise<void> {
    if (!this.isGone) await this.#mark().catch(() => {});
    this.#markTimer?.clear();
    await this.#index.settle();
    await this.closeHandles();
  }

  /** Takes the version off the disk, the index first: a data file without one is nothing. */
  async remove(): Promise<void> {
    this.#removed = true;
    this.#markTimer?.clear();
    this.#unmarked = [];
    await this.#index.settle();
    await this.closeHandles();
    if (this.directory.state === "failed") return;
    await this.#index.remove();
    await unlinkIfThere(this.directory.disk, this.directory.dataPath(this.id));
  }

  #markSoon(): void {
    this.#mark().catch(() => {});
  }

  /** One sync of the data, then one record for all blocks written before it. */
  async #mark(): Promise<void> {
    this.#markTimer?.clear();
    this.#markTimer = undefined;
    let batch: BlockIndex[] = [];
    const marked = this.#change(async () => {
      batch = this.#unmarked;
      this.#unmarked = [];
      if (batch.length === 0) return [];
      await this.#withHandles(({ buffered }) => buffered.datasync());
      const blocks = batch.filter((block) => this.#present.has(block));
      for (const block of blocks) this.#state.durable.add(block);
      const checksums = new Uint8Array(blocks.length * 8);
      blocks.forEach((block, i) => checksums.set(checksumOf(this.#state, block), i * 8));
      const records: IndexRecord[] = [{ kind: "blocks", blocks, checksums }];
      if (this.#state.durable.isFull) records.push({ kind: "complete" });
      return records;
    });
    try {
      await marked;
    } catch (error) {
      // A full disk may have room later: the blocks keep waiting for their mark.
      this.#unmarked = [...batch, ...this.#unmarked];
      if (!this.isGone) {
        this.#markTimer ??= this.#deps.clock.timer(this.#deps.limits.markDelayMs * 10, () => this.#markSoon());
      }
      throw error;
    }
    if (this.#complete || this.isGone || !this.#state.durable.isFull || !this.#present.isFull) return;
    this.#complete = true;
    this.#deps.onChange(this, { complete: true });
  }

  #record(prepare: () => Promise<readonly IndexRecord[]>): void {
    // A failure has made the directory fail; there is nobody else to tell.
    this.#change(prepare).catch(() => {});
  }

  async #change(prepare: () => Promise<readonly IndexRecord[]>): Promise<void> {
    try {
      await this.#index.change(this.#state, async () => (this.isGone ? [] : await prepare()));
    } catch (error) {
      if (error instanceof HeadpondError) throw error;
      // After a failed sync nothing is known of what was written: only ENOSPC leaves the directory in service.
      throw this.directory.writeFailed(error);
    }
  }

  async #withHandles<T>(use: (handles: Handles) => Promise<T>): Promise<T> {
    this.#users++;
    try {
      this.#handles ??= this.#openHandles();
      return await use(await this.#handles);
    } finally {
      this.#users--;
      this.#noteIdle();
    }
  }

  #openHandles(): Promise<Handles> {
    const opening = this.#openBoth();
    opening.catch(() => {
      if (this.#handles === opening) this.#handles = undefined;
    });
    return opening;
  }

  async #openBoth(): Promise<Handles> {
    const { disk } = this.directory;
    const path = this.directory.dataPath(this.id);
    try {
      const buffered = await disk.open(path, "open-or-create");
      try {
        if ((await buffered.stat()).sizeBytes !== this.descriptor.sizeBytes) {
          await buffered.truncate(this.descriptor.sizeBytes);
        }
        return { buffered, direct: await disk.open(path, "write", { direct: true }) };
      } catch (error) {
        await buffered.close();
        throw error;
      }
    } catch (error) {
      if (errorCode(error) === "EMFILE" || errorCode(error) === "ENFILE") {
        throw new HeadpondError("overloaded", `${path}: too many open files: raise the limit (ulimit -n)`, {
          cause: error,
        });
      }
      throw this.directory.writeFailed(error);
    }
  }

  #noteIdle(): void {
    if (this.#users > 0 || this.#openCount > 0) return;
    // A version that was removed while its handles were used gives them back now; nobody else would.
    if (this.#removed) this.closeHandles().catch(() => {});
    else this.#deps.onIdle(this);
  }

  /** Why nothing can be done with it any more. */
  goneError(): HeadpondError {
    if (this.directory.state === "failed") return this.directory.failure();
    return new HeadpondError("unavailable", `${this.descriptor.path} (${this.id}) was dropped from the cache`);
  }
}

async function readFully(file: DiskFile, buffer: Uint8Array, position: number): Promise<number> {
  let count = 0;
  while (count < buffer.length) {
    const read = await file.read(buffer.subarray(count), position + count);
    if (read === 0) break;
    count += read;
  }
  return count;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
