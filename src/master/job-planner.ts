/**
 * From a request for a load to a job with a plan: the path is synced, its files are collected, the workers are chosen. What
 * cannot be done is kept as a job that failed, with the reason, so that every attempt of a request hears the same.
 */

import type { LoadPlan } from "../base/cluster.ts";
import { isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { FileVersionId, InodeId, JobId, WorkerId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import type { BlockMap } from "./block-map.ts";
import { type JobDocument, type JobSeed, packVersions, unplanned, writeJobDocument } from "./job-document.ts";
import { LoadPlanner, type LoadRates, type PlannedWorker } from "./load-planner.ts";
import type { Proposer } from "./proposer.ts";
import type { TimeSlices } from "./time-slices.ts";
import type { WorkerRegistry } from "./worker-registry.ts";

/** Where a job's files come from. */
export interface JobFiles {
  /** All files at or below a path, after the path has been synced. Throws `not-found`, `invalid` beyond `max`. */
  collect(path: Path, max: number, signal: AbortSignal | undefined): Promise<FileDescriptor[]>;
  /** Objects at or below `path` whose names the namespace cannot express, as far as is known. */
  leftOutBelow(path: Path): number;
  /** The file, if it still is and its current content is this one. */
  current(inodeId: InodeId, contentVersion: number): FileDescriptor | undefined;
}

export type JobPlannerDependencies = {
  readonly proposer: Proposer;
  readonly files: JobFiles;
  readonly registry: WorkerRegistry;
  readonly blockMap: BlockMap;
  /** Resolves when the workers had time to register with a new leader. */
  readonly settled: () => Promise<void>;
  readonly slices: TimeSlices;
  readonly rates?: LoadRates;
  /** What running jobs still have to bring to a worker. */
  readonly promisedBytes?: (worker: WorkerId, except: ReadonlySet<FileVersionId>) => number;
};

export type Planned =
  | { readonly ok: true; readonly document: JobDocument; readonly files: readonly FileDescriptor[] }
  | { readonly ok: false; readonly document: JobDocument; readonly error: Error };

export class JobPlanner {
  readonly #deps: JobPlannerDependencies;
  readonly #filesMax: number;

  constructor(dependencies: JobPlannerDependencies, filesMax: number) {
    this.#deps = dependencies;
    this.#filesMax = filesMax;
  }

  /** The workers that may be chosen, and what room they have. */
  plannedWorkers(): PlannedWorker[] {
    const { registry, promisedBytes } = this.#deps;
    return registry.live().map(({ id, address, capacityBytes, keptBytes }) => {
      return {
        id,
        place: address.place,
        capacityBytes,
        keptBytes,
        promisedBytes: (except) => promisedBytes?.(id, except) ?? 0,
      };
    });
  }

  /** A plan to look at. Throws `not-found` and the like, but not for what the plan lists as problems. */
  async look(path: Path, to: string, signal: AbortSignal | undefined): Promise<LoadPlan> {
    return (await this.#plan(path, to, signal, false)).plan;
  }

  /** A plan to be carried out. Throws when it has problems. */
  async plan(
    path: Path,
    to: string,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly plan: LoadPlan; readonly files: readonly FileDescriptor[] }> {
    return this.#plan(path, to, signal, true);
  }

  /** The job of a seed with its plan, or its failure; durable when it resolves. Rejects when nothing could be made durable. */
  async make(id: JobId, seed: JobSeed, signal: AbortSignal): Promise<Planned> {
    const { proposer } = this.#deps;
    try {
      if (seed.pin) await proposer.propose({ kind: "pin", path: seed.path, pinned: true, timeMs: proposer.nowMs() });
      const { plan, files } = await this.#plan(seed.path, seed.to, signal, true);
      const timeMs = proposer.nowMs();
      const versions = packVersions(files);
      const document: JobDocument = { ...unplanned(seed, timeMs), state: "running", startedMs: timeMs, plan, versions };
      await proposer.propose({ kind: "put-job", jobId: id, document: writeJobDocument(document), timeMs });
      signal.throwIfAborted();
      return { ok: true, document, files };
    } catch (thrown) {
      // The next leader plans it again.
      if (signal.aborted || isHeadpondError(thrown, "not-leader")) throw thrown;
      const error = toHeadpondError(thrown);
      const { code, message, retryable } = error;
      const timeMs = proposer.nowMs();
      const document: JobDocument = {
        ...unplanned(seed, timeMs),
        state: "failed",
        finishedMs: timeMs,
        reason: message,
        planError: { code, message, retryable },
      };
      await proposer.propose({ kind: "put-job", jobId: id, document: writeJobDocument(document), timeMs });
      return { ok: false, document, error };
    }
  }

  async #plan(
    path: Path,
    to: string,
    signal: AbortSignal | undefined,
    refuse: boolean,
  ): Promise<{ readonly plan: LoadPlan; readonly files: readonly FileDescriptor[] }> {
    await this.#deps.settled();
    const files = await this.#deps.files.collect(path, this.#filesMax, signal);
    const live = this.plannedWorkers();
    const { blockMap, rates = {}, slices } = this.#deps;
    const planner = new LoadPlanner({ path, to, live, blockMap, rates });
    await slices.forEach(files, (file) => planner.add(file), signal);
    const inexpressible = this.#deps.files.leftOutBelow(path);
    const plan: LoadPlan = { ...planner.finish(), ...(inexpressible > 0 ? { inexpressible } : {}) };
    if (refuse) planner.refuseProblems(plan);
    return { plan, files };
  }
}
