/**
 * The namespace: the deterministic state machine that the journal drives (`apply`, `digest`, `writeCheckpoint`, `reset`) and the
 * master reads. The same log gives the same state, results and digest on every master, whenever each flushes or restarts.
 *
 * Applying is synchronous and in memory; the store follows in the background (flusher.ts). What is applied but not
 * flushed when the process dies is applied again from the log, so `applied` at start is that of the last flush.
 */

import { HeadpondError } from "../base/errors.ts";
import type { FileDescriptor, FileStatus, MountInfo } from "../base/file.ts";
import { type FileVersionId, fileVersionId, type InodeId, parseFileVersionId, type SessionId } from "../base/ids.ts";
import { joinPath, type Path } from "../base/path.ts";
import { MiB } from "../base/units.ts";
import { type ApplyObserver, applyPayload } from "./apply.ts";
import type { CommandResult } from "./command.ts";
import { describeKept, describeVersion, statusOf } from "./describe.ts";
import { Documents } from "./documents.ts";
import { quote } from "./failure.ts";
import { featureLevelMax } from "./feature-level.ts";
import { Flusher, type FlushLimits, flushLimitsDefault } from "./flusher.ts";
import type { Inode } from "./inode.ts";
import { keyNumber, ttlPrefix } from "./keys.ts";
import type { Intent, MountRow } from "./registry.ts";
import { describeHeader, headerKey, State } from "./state.ts";
import { type FileSum, rowsTable, type Store } from "./store.ts";
import { Tree } from "./tree.ts";

export type NamespaceLimits = {
  /** Clean inodes kept in memory, about 450 bytes each. */
  readonly cachedInodesMax: number;
  /** Names whose inodes need no look into the store, 16 to 32 bytes each. */
  readonly cachedNamesMax: number;
  /** Rows of inodes outside the heap: those that wait for their flush, and those read or made last. */
  readonly cachedRowsBytesMax: number;
  /** Resolved paths of directories. */
  readonly cachedDirectoriesMax: number;
  readonly flush: FlushLimits;
};

export const namespaceLimitsDefault: NamespaceLimits = {
  cachedInodesMax: 200_000,
  cachedNamesMax: 2 ** 21,
  cachedRowsBytesMax: 256 * MiB,
  cachedDirectoriesMax: 50_000,
  flush: flushLimitsDefault,
};

export const listPageMax = 10_000;

export type NamespaceOptions = {
  readonly store: Store;
  readonly limits?: Partial<NamespaceLimits>;
  /** False: nothing is flushed unless `flush()` is called (simulations). */
  readonly backgroundFlush?: boolean;
  /** Highest feature level that it follows: that of this software, or of an older one that a test pretends. */
  readonly featureLevelMax?: number;
};

/** One committed command, as the journal hands it over. An empty payload is a no-op. */
type Entry = { readonly index: number; readonly term: number; readonly payload: Uint8Array };

export type ListOptions = { readonly afterName?: string; readonly limit: number };

export type Counters = {
  /** Also those of removed trees that are not reclaimed yet. */
  readonly files: number;
  readonly directories: number;
  readonly sizeBytes: number;
  readonly sessions: number;
  readonly openIntents: number;
  readonly requestIds: number;
};

export class Namespace {
  readonly #store: Store;
  readonly #limits: NamespaceLimits;
  readonly #backgroundFlush: boolean;
  readonly #featureLevelMax: number;
  #state: State;
  #tree: Tree;
  #flusher: Flusher;
  #documents: Documents;
  #observer: ApplyObserver | undefined;
  #onReset: () => void = () => {};

  /** Throws `corrupt` or `unsupported` when the store's rows cannot be read. */
  constructor(options: NamespaceOptions) {
    this.#store = options.store;
    this.#limits = { ...namespaceLimitsDefault, ...options.limits };
    this.#backgroundFlush = options.backgroundFlush ?? true;
    this.#featureLevelMax = options.featureLevelMax ?? featureLevelMax;
    this.#state = new State(this.#store, this.#limits, this.#featureLevelMax);
    this.#tree = new Tree(this.#state, this.#limits.cachedDirectoriesMax);
    this.#documents = new Documents(this.#state.rows);
    this.#flusher = this.#makeFlusher();
  }

  // What the journal drives.

  get applied(): { readonly index: number; readonly term: number } {
    return { index: this.#state.header.appliedIndex, term: this.#state.header.appliedTerm };
  }

  apply(entries: readonly Entry[]): CommandResult[] {
    const results: CommandResult[] = [];
    const { header, inodes } = this.#state;
    const observer = this.#observer;
    for (const entry of entries) {
      if (entry.index !== header.appliedIndex + 1) {
        throw new HeadpondError("internal", `entry ${entry.index} cannot be applied behind ${header.appliedIndex}`);
      }
      results.push(entry.payload.length === 0 ? noOp : applyPayload(this.#tree, entry.payload, observer));
      header.appliedIndex = entry.index;
      header.appliedTerm = entry.term;
      inodes.trim();
    }
    this.#flusher.changed();
    return results;
  }

  /** Of the whole state as of `applied`, 16 hexadecimal digits. */
  digest(): string {
    return this.#state.digest();
  }

  /**
   * Flushes, then copies the store while applies go on. The copy is of one index, which is returned; it is at or after
   * that of the call.
   */
  async writeCheckpoint(
    path: string,
    signal?: AbortSignal,
  ): Promise<{
    readonly index: number;
    readonly term: number;
    readonly digest: string;
    readonly sum?: FileSum;
  }> {
    await this.#flusher.flush();
    const sum = await this.#store.backup(path, signal);
    // A flush may have come between: what the copy holds, the copy says.
    const header = await this.#store.peek(path, rowsTable, headerKey);
    if (header === undefined) throw new HeadpondError("corrupt", `the checkpoint ${path} has no header`);
    return { ...describeHeader(header), ...(sum === undefined ? {} : { sum }) };
  }

  /** Nothing else may be called until it resolves. */
  async reset(path: string | undefined): Promise<void> {
    await this.#flusher.close();
    await this.#store.replace(path);
    this.#state = new State(this.#store, this.#limits, this.#featureLevelMax);
    this.#tree = new Tree(this.#state, this.#limits.cachedDirectoriesMax);
    this.#documents = new Documents(this.#state.rows);
    this.#flusher = this.#makeFlusher();
    this.#onReset();
  }

  /** Hears of every command that is carried out, as `ApplyObserver`, and when the whole state was replaced. One at most. */
  observe(observer: ApplyObserver & { reset(): void }): void {
    this.#observer = observer;
    this.#onReset = () => observer.reset();
  }

  /** 0 to 1: how full the memory for what is not in the store yet is. At 1, await `drained()` before proposing more. */
  get pressure(): number {
    return this.#flusher.pressure;
  }

  drained(): Promise<void> {
    return this.#flusher.drained();
  }

  /** What whoever applies awaits before more; undefined: nothing. Rejects when the store refuses to be written. */
  backPressure(): Promise<void> | undefined {
    return this.pressure >= 1 ? this.drained() : undefined;
  }

  /** Resolves when all that is applied at the call is in the store. */
  flush(): Promise<void> {
    return this.#flusher.flush();
  }

  /** Why the store refuses to be written, if so. */
  get flushError(): unknown {
    return this.#flusher.error;
  }

  /** Flushes and closes the store. */
  async close(): Promise<void> {
    try {
      await this.#flusher.flush();
    } finally {
      await this.#flusher.close();
      await this.#store.close();
    }
  }

  /** Ends without a flush, as a killed process would. */
  async abandon(): Promise<void> {
    await this.#flusher.close();
  }

  // What the master reads.

  /** Counts applied commands: `listingBeganVersion` of a sync. */
  get version(): number {
    return this.#state.header.version;
  }

  /** The state's clock. */
  get nowMs(): number {
    return this.#state.header.nowMs;
  }

  /** No inode has had this id or a higher one yet. */
  get nextInodeId(): number {
    return this.#state.header.nextInodeId;
  }

  get featureLevel(): number {
    return this.#state.header.featureLevel;
  }

  /** `cachedBytes` is 0: the state does not know who holds what. Throws `not-found`, `not-a-directory`. */
  stat(path: Path): FileStatus {
    const status = this.find(path);
    if (status !== undefined) return status;
    const { code, message } = this.#tree.missing(path).error;
    throw new HeadpondError(code, message);
  }

  /** As `stat`; undefined when there is nothing. */
  find(path: Path): FileStatus | undefined {
    const inode = this.#tree.peek(path);
    const status = inode === undefined ? undefined : statusOf(this.#tree, inode, path);
    this.#state.inodes.trim();
    return status;
  }

  /** By id; undefined when it is gone, or in a removed tree. */
  get(inodeId: InodeId): FileStatus | undefined {
    const inode = this.#state.inodes.get(inodeId);
    const path = inode === undefined ? undefined : this.#tree.pathOf(inode);
    return inode === undefined || path === undefined ? undefined : statusOf(this.#tree, inode, path);
  }

  /** What metadata sync asks of a directory: when it was last listed as a whole (0: never). */
  syncedMs(inodeId: InodeId): number {
    return this.#state.inodes.get(inodeId)?.syncedMs ?? 0;
  }

  /** A page of children, in the order of their bytes; one shorter than `limit` is the last. Throws as `stat`. */
  list(path: Path, options: ListOptions): FileStatus[] {
    const inode = this.#tree.resolve(path);
    if (inode === undefined) this.stat(path);
    if (inode === undefined || !inode.isDirectory)
      throw new HeadpondError("not-a-directory", `${quote(path)} is a file`);
    return this.#page(inode, path, options);
  }

  /** A page of names only: cheap even for millions. */
  listNames(inodeId: InodeId, options: ListOptions): { readonly name: string; readonly inodeId: InodeId }[] {
    const inode = this.#state.inodes.get(inodeId);
    if (inode?.isDirectory !== true) throw new HeadpondError("not-found", `inode ${inodeId} is no directory`);
    return this.#state.inodes.list(inode, options.afterName, Math.min(options.limit, listPageMax));
  }

  /**
   * All below `path`, depth first, parents before children, in pages of at most `limit`. The tree may change between two pages: what
   * stays is seen once, what comes or goes may be seen or not.
   */
  *walk(path: Path, limit: number): Generator<FileStatus[], void> {
    const open: { path: Path; rows: FileStatus[]; next: number; ended: boolean }[] = [];
    open.push({ path, rows: [], next: 0, ended: false });
    let page: FileStatus[] = [];
    while (open.length > 0) {
      const at = open[open.length - 1] as (typeof open)[number];
      const row = at.rows[at.next++];
      if (row !== undefined) {
        page.push(row);
        if (row.kind === "directory") open.push({ path: row.path, rows: [], next: 0, ended: false });
        if (page.length >= limit) {
          yield page;
          page = [];
        }
        continue;
      }
      const directory = at.ended ? undefined : this.#tree.directory(at.path);
      if (directory === undefined) {
        open.pop();
        continue;
      }
      const last = at.rows[at.rows.length - 1];
      at.rows = this.#page(directory, at.path, {
        limit,
        ...(last === undefined ? {} : { afterName: last.path.slice(last.path.lastIndexOf("/") + 1) }),
      });
      at.next = 0;
      at.ended = at.rows.length < Math.min(limit, listPageMax);
    }
    if (page.length > 0) yield page;
  }

  /** Throws `invalid` for malformed ids, `not-found` for versions that neither the tree nor a kept revision names. */
  describe(version: FileVersionId): FileDescriptor {
    const { inodeId, contentVersion } = parseFileVersionId(version);
    const descriptor =
      describeVersion(this.#tree, inodeId, contentVersion) ?? describeKept(this.#tree, inodeId, contentVersion);
    if (descriptor === undefined)
      throw new HeadpondError("not-found", `no file version ${version}: it was replaced or removed`);
    return descriptor;
  }

  /** The version that readers of a path get; undefined of directories and of files that were never complete. */
  currentVersion(path: Path): FileVersionId | undefined {
    const inode = this.#tree.resolve(path);
    return inode === undefined || inode.isDirectory || !inode.complete
      ? undefined
      : fileVersionId(inode.id, inode.contentVersion);
  }

  get mountCount(): number {
    return this.#tree.registry.mountCount;
  }

  mounts(): MountInfo[] {
    return this.#tree.registry.mounts().map(withoutSecrets);
  }

  /** The innermost mount that holds `path`, whether or not it exists. */
  mountOf(path: Path): MountInfo | undefined {
    const mount = this.#tree.registry.mountHolding(path);
    return mount === undefined ? undefined : withoutSecrets(mount);
  }

  /** With the values of secrets: for those who open the under store, never for an answer. */
  mountWithSecrets(id: number): MountRow | undefined {
    return this.#tree.registry.mount(id);
  }

  /** For a new leader to drive again, oldest first. */
  openIntents(): readonly Intent[] {
    return this.#tree.registry.intents();
  }

  intent(id: number): Intent | undefined {
    return this.#tree.registry.intent(id);
  }

  hasSession(id: SessionId): boolean {
    return this.#state.sessions.get(id) !== undefined;
  }

  sessions(): { id: number; client: string; timeoutMs: number; openedMs: number; lastSeenMs: number }[] {
    return this.#state.sessions
      .all()
      .map(({ id, client, timeoutMs, openedMs, lastSeenMs }) => ({ id, client, timeoutMs, openedMs, lastSeenMs }));
  }

  get documents(): Documents {
    return this.#documents;
  }

  /** How many TTLs are over at `nowMs`, counted up to `limit`: whether an `expire-ttl` is worth proposing. */
  dueTtl(limit: number, nowMs: number): number {
    return this.#state.rows.list(ttlPrefix, limit).filter(({ key }) => keyNumber(key, 0) <= nowMs).length;
  }

  get counters(): Counters {
    const { fileCount, directoryCount, sizeBytes, requestIdCount } = this.#state.header;
    return {
      files: fileCount,
      directories: directoryCount,
      sizeBytes,
      sessions: this.#state.sessions.size,
      openIntents: this.#tree.registry.intentCount,
      requestIds: requestIdCount,
    };
  }

  /** For metrics. Misses are looks into the store; `rowBytes` is what `cachedRowsBytesMax` limits. */
  get cache(): {
    hits: number;
    misses: number;
    inodes: number;
    rowBytes: number;
    unflushedRows: number;
    flushes: number;
    flushedRows: number;
  } {
    const { inodes } = this.#state;
    return {
      hits: inodes.hits,
      misses: inodes.misses,
      ...inodes.memory,
      unflushedRows: this.#state.dirtyCount,
      flushes: this.#flusher.flushes,
      flushedRows: this.#flusher.flushedRows,
    };
  }

  #page(directory: Inode, path: Path, options: ListOptions): FileStatus[] {
    const { inodes } = this.#state;
    const statuses: FileStatus[] = [];
    for (const { name, inodeId } of inodes.list(directory, options.afterName, Math.min(options.limit, listPageMax))) {
      const inode = inodes.get(inodeId);
      if (inode !== undefined) statuses.push(statusOf(this.#tree, inode, joinPath(path, name)));
    }
    inodes.trim();
    return statuses;
  }

  #makeFlusher(): Flusher {
    return new Flusher({ state: this.#state, limits: this.#limits.flush, background: this.#backgroundFlush });
  }
}

const noOp: CommandResult = Object.freeze({ ok: true, none: true });

function withoutSecrets(mount: MountRow): MountInfo {
  const { id, path, uri, readOnly } = mount;
  const options = Object.fromEntries(
    Object.entries(mount.options).filter(([key]) => !mount.secretOptions.includes(key)),
  );
  return { id, path, uri, readOnly, options };
}
