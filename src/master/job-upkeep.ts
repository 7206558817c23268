/**
 * What the leader does so that enough whole copies are there: it empties workers that are drained without losing a last copy, brings
 * what has fewer copies than its replica target wants onto more workers, takes what has more, and tells workers that were
 * away what is pinned. It asks for loads, which are jobs as any other.
 *
 * Only whole files count as copies; a part of a file is worth no more than its origin. Copies that nobody has room for are tried
 * again, and said (`DrainStatus.problems`, the log).
 */

import { present } from "../base/assert.ts";
import type { DrainStatus } from "../base/cluster.ts";
import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { FileVersionId, InodeId, JobId, WorkerId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import type { Place } from "../base/place.ts";
import { formatBytes } from "../base/units.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { BlockMap } from "./block-map.ts";
import { type CopyTask, planCopies, surplusCopies, type Wanted } from "./job-copies.ts";
import type { Drains } from "./job-drain.ts";
import type { Jobs } from "./jobs.ts";
import type { TimeSlices } from "./time-slices.ts";
import type { TreeFiles } from "./tree-files.ts";
import { isServing, type RegisteredWorker, type WorkerRegistry } from "./worker-registry.ts";

export type UpkeepLimits = {
  /** Between two looks, if something has changed. */
  readonly intervalMs: number;
  /** What is lost heals by itself when its worker comes back soon. */
  readonly healAfterMs: number;
  /** Loads that upkeep has running at once. */
  readonly loadsMax: number;
  /** Files that one look takes up. */
  readonly filesMax: number;
  /** A load that failed is asked for again after so long. */
  readonly retryAfterMs: number;
};

export const upkeepLimits: UpkeepLimits = {
  intervalMs: 1000,
  healAfterMs: 30_000,
  loadsMax: 8,
  filesMax: 200_000,
  retryAfterMs: 60_000,
};

/** What cost a millisecond to look at is not looked at again for so many. */
const restPerCost = 20;
const sliceVersions = 2000;
const drainPriority = 7;
const healPriority = 3;
const retriesRememberedMax = 10_000;

export type UpkeepDependencies = {
  readonly drains: Drains;
  readonly jobs: Jobs;
  readonly registry: WorkerRegistry;
  readonly blockMap: BlockMap;
  readonly files: TreeFiles;
  readonly slices: TimeSlices;
  readonly settled: () => Promise<void>;
  readonly free: (byWorker: ReadonlyMap<WorkerId, readonly FileVersionId[]>) => void;
  readonly pin: (byWorker: ReadonlyMap<WorkerId, readonly FileVersionId[]>, pinned: boolean) => void;
  /** Raised by every change of the namespace. */
  readonly namespaceVersion: () => number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits?: Partial<UpkeepLimits>;
};

type OnlyThere = { readonly incarnation: string; files: number; bytes: number };
type Target = { readonly file: FileDescriptor; readonly min: number; readonly max: number };

export class Upkeep {
  readonly #deps: UpkeepDependencies;
  readonly #limits: UpkeepLimits;
  #stopping: AbortController | undefined;
  #loop: Promise<void> = Promise.resolve();
  /** Of what the last look saw: the versions that are whole on a drained worker only, in this life of it. */
  #onlyThere = new Map<WorkerId, OnlyThere>();
  #lacking: readonly CopyTask[] = [];
  #targets: readonly Target[] = [];
  #targetsVersion = -1;
  #changes = 0;
  #lostMs = Number.NEGATIVE_INFINITY;
  readonly #jobs = new Map<JobId, Path>();
  /** Monotonic times before which a path is not tried again. */
  readonly #retryMs = new Map<Path, number>();

  constructor(dependencies: UpkeepDependencies) {
    this.#deps = dependencies;
    this.#limits = { ...upkeepLimits, ...dependencies.limits };
    dependencies.blockMap.onChange(() => void this.#changes++);
  }

  start(): void {
    const { drains, registry } = this.#deps;
    this.#stopping = new AbortController();
    this.#jobs.clear();
    this.#retryMs.clear();
    this.#targetsVersion = -1;
    this.#changes++;
    drains.load();
    registry.setDraining(drains.workers);
    // What the leader before was about to tell them may not have arrived.
    for (const worker of registry.serving()) this.workerLive(worker);
    this.#loop = this.#run(this.#stopping.signal);
  }

  async stop(): Promise<void> {
    this.#stopping?.abort(new HeadpondError("cancelled", "this master leads no more"));
    this.#stopping = undefined;
    await this.#loop;
  }

  workerLive(worker: RegisteredWorker): void {
    const signal = this.#stopping?.signal;
    this.#changes++;
    if (signal === undefined) return;
    this.#tellPins(worker.id, signal).catch((error: unknown) => {
      if (!signal.aborted) this.#deps.logger.warn("a worker was not told what is pinned", { worker: worker.id, error });
    });
  }

  workerLost(): void {
    this.#changes++;
    this.#lostMs = this.#deps.clock.monotonicMs();
  }

  /** Durable when it resolves; the copies are made in the background. Throws `not-found`. */
  async drain(worker: WorkerId): Promise<DrainStatus> {
    const { drains, registry } = this.#deps;
    if (registry.get(worker) === undefined && drains.startedMs(worker) === undefined) {
      const known = [...registry.all()].map(({ id }) => id).sort();
      throw new HeadpondError("not-found", `there is no worker ${worker}: there are ${known.join(", ") || "none"}`);
    }
    await drains.add(worker);
    registry.setDraining(drains.workers);
    await this.#look(this.#stopping?.signal ?? AbortSignal.abort(new HeadpondError("not-leader", "no leader")));
    return this.status(worker);
  }

  /** It is given blocks again. */
  async undrain(worker: WorkerId): Promise<DrainStatus> {
    const { drains, registry } = this.#deps;
    await drains.remove(worker);
    registry.setDraining(drains.workers);
    this.#onlyThere.delete(worker);
    this.#changes++;
    return this.status(worker);
  }

  statuses(): DrainStatus[] {
    return [...this.#deps.drains.workers].sort().map((worker) => this.status(worker));
  }

  status(worker: WorkerId): DrainStatus {
    const { drains, registry } = this.#deps;
    const startedMs = drains.startedMs(worker);
    const none = { files: 0, bytes: 0, jobs: [], problems: [] };
    if (startedMs === undefined) return { worker, state: "live", ...none };
    if (!isServing(registry.get(worker)?.state)) return { worker, state: "away", startedMs, ...none };
    const { incarnation } = registry.get(worker) ?? {};
    const seen = this.#onlyThere.get(worker);
    const { files, bytes } = seen ?? none;
    const problems = this.#lacking.map(
      ({ path, bytes: size, lacking }) =>
        `${path}: no worker has room for ${lacking === 1 ? "a copy" : `${lacking} copies`} of ${formatBytes(size)}`,
    );
    const state = seen?.incarnation === incarnation && files === 0 ? "drained" : "draining";
    return { worker, state, startedMs, files, bytes, jobs: [...this.#jobs.keys()], problems };
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#deps;
    let seenChanges = -1;
    while (!signal.aborted) {
      const beganMs = clock.monotonicMs();
      try {
        await this.#deps.settled();
        const isHealing = beganMs - this.#lostMs <= this.#limits.healAfterMs + 2 * this.#limits.intervalMs;
        const isWaiting = this.#jobs.size > 0 || this.#lacking.length > 0 || this.#retryMs.size > 0 || isHealing;
        if (seenChanges !== this.#changes || isWaiting || this.#targetsVersion !== this.#deps.namespaceVersion()) {
          seenChanges = this.#changes;
          await this.#look(signal);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (!isHeadpondError(error)) throw error;
        logger.warn("upkeep: a look failed, it is tried again", { error });
      }
      const costMs = clock.monotonicMs() - beganMs;
      await clock.sleep(Math.max(this.#limits.intervalMs, costMs * restPerCost), signal).catch(() => {});
    }
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    this.#noteEnded();
    const lastCopies = await this.#lastCopies(signal);
    await this.#refreshTargets(signal);
    const isHealTime = clock.monotonicMs() - this.#lostMs >= this.#limits.healAfterMs;
    const tooFew = isHealTime ? this.#targets.map(({ file, min }): Wanted => ({ file, copies: min })) : [];
    const drainTasks = this.#plan(lastCopies);
    this.#lacking = drainTasks.filter(({ lacking }) => lacking > 0);
    await this.#ask(drainTasks, drainPriority);
    await this.#ask(this.#plan(tooFew), healPriority);
    if (isHealTime) this.#trim();
  }

  /** Files that are whole on drained workers and on no other. */
  async #lastCopies(signal: AbortSignal): Promise<Wanted[]> {
    const { drains, registry, blockMap, files, slices } = this.#deps;
    // Of one that has not reported yet, or does not any more, nothing can be said.
    const seen = new Map<WorkerId, OnlyThere>();
    for (const id of drains.workers) {
      const worker = registry.get(id);
      if (isServing(worker?.state)) seen.set(id, { incarnation: worker?.incarnation ?? "", files: 0, bytes: 0 });
    }
    const draining = new Set(seen.keys());
    const wanted: Wanted[] = [];
    for (let cursor = 0, isFirst = true; draining.size > 0 && (isFirst || cursor > 0); isFirst = false) {
      const { versions, next } = blockMap.slice(cursor, sliceVersions);
      for (const { inodeId, contentVersion } of versions) {
        let place: Place | undefined;
        const holders: WorkerId[] = [];
        let stays = false;
        blockMap.forEachHolder(inodeId, contentVersion, (id, { complete }) => {
          if (!complete) return;
          if (!draining.has(id)) stays = true;
          else holders.push(id);
        });
        if (stays || holders.length === 0) continue;
        const file = files.current(inodeId, contentVersion);
        if (file === undefined) continue;
        for (const id of holders) {
          const count = present(seen.get(id), "a drained holder is counted");
          count.files++;
          count.bytes += file.sizeBytes;
          place ??= registry.get(id)?.address.place;
        }
        if (wanted.length < this.#limits.filesMax) {
          wanted.push({ file, copies: 1, ...(place === undefined ? {} : { near: place }) });
        }
      }
      cursor = next;
      await slices.pause(signal);
    }
    this.#onlyThere = seen;
    return wanted;
  }

  /** Everything that has a replica target of its own or of a directory above it. */
  async #refreshTargets(signal: AbortSignal): Promise<void> {
    const { files, namespaceVersion, logger } = this.#deps;
    const version = namespaceVersion();
    if (version === this.#targetsVersion) return;
    const targets: Target[] = [];
    let leftOut = 0;
    await files.forEach(
      "/" as Path,
      (status) => {
        if (status.replicas === undefined || status.kind !== "file") return;
        const file = files.describe(status);
        if (file === undefined) return;
        if (targets.length < this.#limits.filesMax) targets.push({ file, ...status.replicas });
        else leftOut++;
      },
      signal,
    );
    if (leftOut > 0) logger.warn("files with a replica target beyond the limit are not looked after", { leftOut });
    this.#targets = targets;
    this.#targetsVersion = version;
  }

  #plan(wanted: readonly Wanted[]): CopyTask[] {
    if (wanted.length === 0) return [];
    const { registry, blockMap, jobs } = this.#deps;
    const workers = registry.live().map(({ id, address, capacityBytes, keptBytes }) => {
      return { id, place: address.place, roomBytes: capacityBytes - keptBytes };
    });
    return planCopies({
      wanted,
      workers,
      isWhole: (id, { inodeId, contentVersion }) => blockMap.isComplete(id, inodeId, contentVersion),
      underWay: (path) => jobs.workersOf(path),
    });
  }

  async #ask(tasks: readonly CopyTask[], priority: number): Promise<void> {
    const { clock, jobs, logger } = this.#deps;
    for (const { path, workers, bytes } of tasks) {
      if (this.#jobs.size >= this.#limits.loadsMax) return;
      if (workers.length === 0 || (this.#retryMs.get(path) ?? 0) > clock.monotonicMs()) continue;
      // Until it is seen to have ended well.
      if (this.#retryMs.size < retriesRememberedMax) {
        this.#retryMs.set(path, clock.monotonicMs() + this.#limits.retryAfterMs);
      }
      try {
        const { job } = await jobs.load({ path, to: `worker=${workers.join("|")}`, priority });
        this.#jobs.set(job.id, path);
        logger.info("upkeep: copies are made", { path, workers, bytes, jobId: job.id });
      } catch (error) {
        if (isHeadpondError(error, "not-leader")) throw error;
        logger.warn("upkeep: copies cannot be made now", { path, workers, error: toHeadpondError(error).message });
      }
    }
  }

  #noteEnded(): void {
    const { clock, jobs } = this.#deps;
    for (const [id, path] of this.#jobs) {
      const { state } = jobs.status(id);
      if (state === "running" || state === "planning") continue;
      this.#jobs.delete(id);
      if (state === "succeeded") this.#retryMs.delete(path);
    }
    const nowMs = clock.monotonicMs();
    for (const [path, untilMs] of this.#retryMs) if (untilMs <= nowMs) this.#retryMs.delete(path);
  }

  #trim(): void {
    const { registry, blockMap, jobs, free, logger } = this.#deps;
    const rooms = new Map(registry.live().map(({ id, capacityBytes, usedBytes }) => [id, capacityBytes - usedBytes]));
    const isWanted = new Set(jobs.runningVersions());
    const held = this.#targets
      .filter(({ file }) => !isWanted.has(file.id))
      .map(({ file, max }) => ({
        file,
        max,
        holders: [...rooms.keys()].filter((id) => blockMap.isComplete(id, file.inodeId, file.contentVersion)),
      }));
    const surplus = surplusCopies(held, (id) => rooms.get(id) ?? 0);
    if (surplus.size === 0) return;
    const counts = Object.fromEntries([...surplus].map(([id, versions]) => [id, versions.length]));
    logger.info("upkeep: there are more copies than the target allows", { files: counts });
    free(surplus);
  }

  async #tellPins(worker: WorkerId, signal: AbortSignal): Promise<void> {
    const { blockMap, files, slices, pin } = this.#deps;
    const pinned: FileVersionId[] = [];
    const free: FileVersionId[] = [];
    await slices.forEach(
      blockMap.heldBy(worker),
      ({ id, inodeId, contentVersion }) => {
        const file = files.current(inodeId as InodeId, contentVersion);
        if (file !== undefined) (file.pinned ? pinned : free).push(id);
      },
      signal,
    );
    if (pinned.length > 0) pin(new Map([[worker, pinned]]), true);
    if (free.length > 0) pin(new Map([[worker, free]]), false);
  }
}
