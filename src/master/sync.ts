/**
 * Metadata sync: the namespace below a mount follows its under store. A name that nobody asked for yet is looked up by one
 * `head`, a directory that was never listed is listed when somebody lists it, and what is older than the mount's interval
 * is served once more and looked at anew in the background (mount-options.ts). On demand, a whole tree is synced, with
 * progress, as long as somebody wants it.
 *
 * When the under store cannot be reached, what is known is still served; only what is not known fails, with the store's error.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { MountId } from "../base/ids.ts";
import { baseName, joinPath, type Path, parentPath, relativePath } from "../base/path.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { SyncProgress } from "../rpc/master-service.ts";
import type { ListEntry, UnderStore } from "../under-store/under-store.ts";
import { DirectorySync, noCounts, untilAborted } from "./directory-sync.ts";
import { differs, rowOf } from "./listing-merge.ts";
import { type SyncPolicy, syncPolicy } from "./mount-options.ts";
import type { Proposer } from "./proposer.ts";
import type { SyncedInode, SyncedMount, SyncView } from "./sync-view.ts";
import type { TimeSlices } from "./time-slices.ts";
import { TreeSync } from "./tree-sync.ts";

export type SyncLimits = {
  /** Names known to be absent, and files looked at lately. */
  readonly rememberedMax: number;
  /** How long a name that was absent is taken to be so. */
  readonly absentMs: number;
  /** After a store failed, background work leaves it alone for so long. */
  readonly pauseAfterFailureMs: number;
  /** Directories of one tree that are listed at the same time. */
  readonly listingsAtOnce: number;
  /** Looks in the background at one time; beyond, stale answers stay stale for a while longer. */
  readonly backgroundMax: number;
};

export const syncLimits: SyncLimits = {
  rememberedMax: 100_000,
  absentMs: 2000,
  pauseAfterFailureMs: 5000,
  listingsAtOnce: 8,
  backgroundMax: 32,
};

/** For so long at most a directory that was found fresh is not looked at again: reads of its children are the hot path. */
const freshMs = 500;

export type MetadataSyncDependencies = {
  readonly view: SyncView;
  readonly proposer: Proposer;
  readonly storeOf: (mount: SyncedMount) => Promise<UnderStore>;
  readonly slices: TimeSlices;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits?: Partial<SyncLimits>;
};

export class MetadataSync {
  readonly #deps: MetadataSyncDependencies;
  readonly #limits: SyncLimits;
  readonly #directories: DirectorySync;
  readonly #tree: TreeSync;
  readonly #policies = new WeakMap<object, SyncPolicy>();
  /** Monotonic times up to which names are absent. */
  readonly #absent = new Map<Path, number>();
  /** Monotonic times when single files were looked at. */
  readonly #checked = new Map<Path, number>();
  /** Monotonic times up to which the children of a directory are taken to be fresh without a look at it. */
  readonly #fresh = new Map<Path, number>();
  readonly #lookups = new Map<Path, Promise<void>>();
  readonly #pausedUntilMs = new Map<MountId, number>();
  #background = 0;

  constructor(dependencies: MetadataSyncDependencies) {
    this.#deps = dependencies;
    this.#limits = { ...syncLimits, ...dependencies.limits };
    this.#directories = new DirectorySync(dependencies);
    this.#tree = new TreeSync({
      view: dependencies.view,
      directories: this.#directories,
      listingsAtOnce: this.#limits.listingsAtOnce,
      slices: dependencies.slices,
    });
  }

  get rowCount(): number {
    return this.#directories.rowCount;
  }

  /** Names at or below `path` that the namespace cannot express, as far as this master has listed. */
  leftOutBelow(path: Path): number {
    return this.#directories.leftOutBelow(path);
  }

  get listingCount(): number {
    return this.#directories.listingCount;
  }

  /** Before a `stat` or `open` of a path under a mount. Undefined: what is known may be served at once. */
  beforeRead(
    path: Path,
    mount: SyncedMount,
    inode: { readonly kind: "file" | "directory"; readonly complete: boolean } | undefined = this.#deps.view.inode(
      path,
    ),
  ): Promise<void> | undefined {
    const policy = this.#policyOf(mount);
    if (inode === undefined) return this.#findUnknown(path, mount, policy);
    if (path === mount.path || !inode.complete || policy.kind === "never") return undefined;
    if (policy.kind === "always") return this.#lookUp(path, mount);
    const parent = parentPath(path) as Path;
    const nowMs = this.#deps.clock.monotonicMs();
    if ((this.#fresh.get(parent) ?? 0) > nowMs) return undefined;
    const listed = this.#deps.view.inode(parent);
    // One listing refreshes all children; a file whose directory was never listed is looked at alone.
    if (listed === undefined || listed.syncedMs === 0) {
      if (inode.kind === "file") this.#recheckFile(path, mount, policy.intervalMs);
    } else if (!this.#refreshStale(parent, listed, mount, policy.intervalMs)) {
      this.#remember(this.#fresh, parent, nowMs + Math.min(freshMs, policy.intervalMs));
    }
    return undefined;
  }

  /** Whether what is known of a path may be served by a master that looks at no store: nothing is due to be looked at. */
  isFresh(path: Path, mount: SyncedMount, inode: Pick<SyncedInode, "kind" | "complete"> | undefined): boolean {
    if (inode === undefined) return false;
    const policy = this.#policyOf(mount);
    if (path === mount.path || !inode.complete || policy.kind === "never") return true;
    return policy.kind === "interval" && this.#isListedWithin(parentPath(path) as Path, policy.intervalMs);
  }

  /** As `isFresh`, of the children of a directory. */
  isListingFresh(path: Path, mount: SyncedMount): boolean {
    const inode = this.#deps.view.inode(path);
    if (inode?.kind !== "directory") return this.isFresh(path, mount, inode);
    const policy = this.#policyOf(mount);
    if (policy.kind === "never") return inode.syncedMs > 0;
    return policy.kind === "interval" && this.#isListedWithin(path, policy.intervalMs);
  }

  /** Before a directory under a mount is listed. */
  async beforeList(path: Path, mount: SyncedMount, signal?: AbortSignal): Promise<void> {
    await this.beforeRead(path, mount);
    const inode = this.#deps.view.inode(path);
    if (inode?.kind !== "directory") return;
    const policy = this.#policyOf(mount);
    if (inode.syncedMs === 0 || policy.kind === "always") {
      await this.#directories.run(mount, path, inode.inodeId, signal);
    } else if (policy.kind === "interval") {
      this.#refreshStale(path, inode, mount, policy.intervalMs);
    }
  }

  /** One path, or all below it, as the store has it now. Ends with `done: true`. */
  async *sync(path: Path, mount: SyncedMount, recursive: boolean, signal: AbortSignal): AsyncGenerator<SyncProgress> {
    this.#absent.clear();
    await untilAborted(this.#lookUp(path, mount), signal);
    const inode = this.#deps.view.inode(path);
    if (inode?.kind !== "directory") {
      if (inode === undefined)
        throw new HeadpondError("not-found", `${path} is not in ${mount.uri} of mount ${mount.path}`);
      yield { ...noCounts(), files: 1, directories: 0, done: true };
      return;
    }
    yield* this.#tree.run(mount, path, inode.inodeId, recursive, signal);
  }

  /** As `sync` of all below `path`, to the end. When the store fails, what was synced before has to do. */
  async freshen(path: Path, mount: SyncedMount, signal: AbortSignal): Promise<void> {
    try {
      for await (const _ of this.sync(path, mount, true, signal));
    } catch (thrown) {
      const error = toHeadpondError(thrown);
      const known = this.#deps.view.inode(path);
      const isKnown = known !== undefined && (known.kind === "file" || known.syncedMs > 0);
      if (signal.aborted || !error.retryable || !isKnown) throw error;
      this.#deps.logger.warn("an under store cannot be reached, what is known of it is used", { path, error });
    }
  }

  /** Lists those directories at or below `path` that were never listed; others are looked at anew when they are stale. */
  async ensureTree(path: Path, mount: SyncedMount, signal: AbortSignal): Promise<void> {
    await this.beforeRead(path, mount);
    const inode = this.#deps.view.inode(path);
    if (inode?.kind !== "directory") return;
    const always = this.#policyOf(mount).kind === "always";
    const isListed = (directory: SyncedInode): boolean => directory.syncedMs > 0 && !always;
    for await (const _ of this.#tree.run(mount, path, inode.inodeId, true, signal, isListed));
    const policy = this.#policyOf(mount);
    if (policy.kind === "interval") this.#refreshStale(path, inode, mount, policy.intervalMs);
  }

  /** Forgets that a name was absent: somebody has made it through Headpond. */
  nameMade(path: Path): void {
    this.#absent.delete(path);
  }

  /** Looks at one name in the background, after a change of it in the store that changed more than was asked (an etag). */
  refreshLater(path: Path, mount: SyncedMount): void {
    this.#inBackground(mount, () => this.#lookUp(path, mount));
  }

  close(): void {
    this.#directories.close();
    this.#absent.clear();
    this.#checked.clear();
    this.#fresh.clear();
  }

  #findUnknown(path: Path, mount: SyncedMount, policy: SyncPolicy): Promise<void> | undefined {
    const nowMs = this.#deps.clock.monotonicMs();
    if ((this.#absent.get(path) ?? 0) > nowMs) return undefined;
    if (policy.kind === "never") {
      // A directory that was taken in as a whole has no other names until it is synced on demand.
      const parent = parentPath(path);
      const listed = parent === undefined ? undefined : this.#deps.view.inode(parent);
      if (listed !== undefined && listed.syncedMs > 0) return undefined;
    }
    return this.#lookUp(path, mount);
  }

  #isListedWithin(directory: Path, intervalMs: number): boolean {
    const syncedMs = this.#deps.view.inode(directory)?.syncedMs ?? 0;
    return syncedMs > 0 && this.#deps.proposer.nowMs() - syncedMs < intervalMs;
  }

  /** Whether there was anything to refresh. */
  #refreshStale(path: Path, inode: SyncedInode, mount: SyncedMount, intervalMs: number): boolean {
    if (this.#deps.proposer.nowMs() - inode.syncedMs < intervalMs) return false;
    this.#inBackground(mount, async () => {
      await this.#directories.run(mount, path, inode.inodeId);
    });
    return true;
  }

  #recheckFile(path: Path, mount: SyncedMount, intervalMs: number): void {
    const nowMs = this.#deps.clock.monotonicMs();
    const checkedMs = this.#checked.get(path);
    if (checkedMs === undefined) this.#remember(this.#checked, path, nowMs);
    else if (nowMs - checkedMs >= intervalMs) this.#inBackground(mount, () => this.#lookUp(path, mount));
  }

  /** Single-flight `head` of one path; its result becomes rows, or the end of an inode. */
  #lookUp(path: Path, mount: SyncedMount): Promise<void> {
    let lookup = this.#lookups.get(path);
    if (lookup === undefined) {
      lookup = this.#ask(path, mount).finally(() => this.#lookups.delete(path));
      this.#lookups.set(path, lookup);
    }
    return lookup;
  }

  async #ask(path: Path, mount: SyncedMount): Promise<void> {
    // The root of a mount is there as long as the mount is.
    if (path === mount.path) return;
    const { view, clock } = this.#deps;
    const listingBeganVersion = view.version;
    const store = await this.#deps.storeOf(mount);
    let entry: ListEntry | undefined;
    try {
      entry = await store.head(relativePath(path, mount.path));
    } catch (thrown) {
      const error = toHeadpondError(thrown);
      if (error.retryable) this.#pause(mount);
      const where = `${path}: under store ${store.uri} of mount ${mount.path} did not answer`;
      throw new HeadpondError(error.code, `${where}: ${error.message}`, {
        cause: thrown,
        retryable: error.retryable,
        ...(error.details === undefined ? {} : { details: error.details }),
      });
    }
    this.#remember(this.#checked, path, clock.monotonicMs());
    if (entry === undefined) await this.#takeAway(path, listingBeganVersion);
    else await this.#takeIn(path, mount, entry, listingBeganVersion);
  }

  /** Makes what is missing of the way to `path`, then the entry itself. */
  async #takeIn(path: Path, mount: SyncedMount, entry: ListEntry, listingBeganVersion: number): Promise<void> {
    const { view, proposer } = this.#deps;
    this.#absent.delete(path);
    const names = relativePath(path, mount.path).split("/");
    let directory = mount.path;
    for (const [position, name] of names.entries()) {
      const child = joinPath(directory, name);
      const isLast = position === names.length - 1;
      const row = isLast ? rowOf(entry) : rowOf({ kind: "directory", key: name });
      const known = view.inode(child);
      const parent = view.inode(directory);
      if (parent === undefined) return;
      const knownChild = known === undefined ? undefined : view.child(directory, name);
      if (knownChild === undefined || differs(knownChild, row)) {
        await proposer.propose({
          kind: "sync-rows",
          mountId: mount.id,
          directoryInodeId: parent.inodeId,
          listingBeganVersion,
          rows: [row],
          timeMs: proposer.nowMs(),
        });
      }
      directory = child;
    }
  }

  async #takeAway(path: Path, listingBeganVersion: number): Promise<void> {
    const { view, proposer, clock } = this.#deps;
    this.#remember(this.#absent, path, clock.monotonicMs() + this.#limits.absentMs);
    const inode = view.inode(path);
    const parent = parentPath(path);
    if (inode === undefined || !inode.complete || parent === undefined) return;
    const directory = view.inode(parent);
    if (directory === undefined) return;
    await proposer.propose({
      kind: "sync-end",
      directoryInodeId: directory.inodeId,
      listingBeganVersion,
      goneNames: [baseName(path)],
      finished: false,
      timeMs: proposer.nowMs(),
    });
  }

  #inBackground(mount: SyncedMount, work: () => Promise<void>): void {
    const nowMs = this.#deps.clock.monotonicMs();
    if (this.#background >= this.#limits.backgroundMax || (this.#pausedUntilMs.get(mount.id) ?? 0) > nowMs) return;
    this.#background++;
    work()
      .catch((error: unknown) => {
        this.#pause(mount);
        this.#deps.logger.warn("a look at an under store in the background failed", { mount: mount.path, error });
      })
      .finally(() => this.#background--);
  }

  #pause(mount: SyncedMount): void {
    this.#pausedUntilMs.set(mount.id, this.#deps.clock.monotonicMs() + this.#limits.pauseAfterFailureMs);
  }

  #policyOf(mount: SyncedMount): SyncPolicy {
    let policy = this.#policies.get(mount);
    if (policy === undefined) {
      policy = syncPolicy(mount.options);
      this.#policies.set(mount, policy);
    }
    return policy;
  }

  /** The oldest entries go first. */
  #remember(map: Map<Path, number>, path: Path, timeMs: number): void {
    map.delete(path);
    map.set(path, timeMs);
    if (map.size <= this.#limits.rememberedMax) return;
    for (const oldest of map.keys()) {
      map.delete(oldest);
      break;
    }
  }
}
