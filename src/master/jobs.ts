/**
 * Load jobs: planned, made durable as a job of the state, driven by orders to workers, followed by the block map and the
 * workers' reports, ended only when every chosen worker holds every file or every failure has a reason. Jobs live in the
 * state: a new leader goes on with them as soon as the workers have told it what they hold.
 *
 * Only a leader runs jobs (`start`, `stop`). What one job decides is in job-run.ts; this file does the I/O around it.
 */

import { present } from "../base/assert.ts";
import type { JobFailure, JobStatus, LoadPlan } from "../base/cluster.ts";
import { HeadpondError, isErrorCode, isHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { FileVersionId, InodeId, JobId, WorkerId } from "../base/ids.ts";
import { type Path, parsePath } from "../base/path.ts";
import { parsePlaceSelector } from "../base/place.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Origin } from "../namespace/command.ts";
import type { LoadRequest } from "../rpc/master-service.ts";
import { stampOf } from "./core.ts";
import { untilAborted } from "./directory-sync.ts";
import {
  type JobDocument,
  type JobSeed,
  packVersions,
  readJobDocument,
  readJobMark,
  readJobSeed,
  type StoredJob,
  unpackVersions,
  unplanned,
  writeJobDocument,
} from "./job-document.ts";
import { readDrain } from "./job-drain.ts";
import { JobPlanner, type JobPlannerDependencies } from "./job-planner.ts";
import { JobRun, type JobRunLimits } from "./job-run.ts";
import { endedStatus, endedText } from "./job-status.ts";
import { isServing, type RegisteredWorker } from "./worker-registry.ts";

export type JobLimits = {
  readonly runningMax: number;
  /** Jobs that have ended and are still shown. */
  readonly endedKeptMax: number;
  readonly filesMax: number;
  readonly tickMs: number;
  /** How often the progress of running jobs is journaled while it changes. */
  readonly markIntervalMs: number;
  readonly watchIntervalMinMs: number;
};

export const jobLimits: JobLimits = {
  runningMax: 64,
  endedKeptMax: 200,
  filesMax: 200_000,
  tickMs: 250,
  markIntervalMs: 10_000,
  watchIntervalMinMs: 100,
};

export type Mutation = { readonly origin?: Origin; readonly requestId?: string };

type Running = { readonly run: JobRun; markedAtMs: number; markedChanges: number; ending: boolean };

export type JobsDependencies = JobPlannerDependencies & {
  readonly stored: () => Iterable<StoredJob>;
  /** Brings the current list of workers to all of them, before orders that depend on it. */
  readonly pushWorkerList: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits?: Partial<JobLimits>;
  readonly runLimits?: Partial<JobRunLimits>;
};

export class Jobs {
  readonly #deps: JobsDependencies;
  readonly #limits: JobLimits;
  readonly #running = new Map<JobId, Running>();
  readonly #ended = new Map<JobId, JobStatus>();
  readonly #planning = new Map<JobId, { readonly status: JobStatus; readonly document: Promise<JobDocument> }>();
  readonly #planner: JobPlanner;
  #stopping: AbortController | undefined;
  /** Ends the wait for the next tick: a job may be over. */
  #wake = new AbortController();
  #loop: Promise<void> = Promise.resolve();

  constructor(dependencies: JobsDependencies) {
    this.#deps = dependencies;
    this.#limits = { ...jobLimits, ...dependencies.limits };
    const promisedBytes = (worker: WorkerId, except?: ReadonlySet<string>): number => {
      let bytes = 0;
      for (const { run } of this.#running.values()) bytes += run.remainingBytes(worker, except);
      return bytes;
    };
    this.#planner = new JobPlanner({ ...dependencies, promisedBytes }, this.#limits.filesMax);
    dependencies.blockMap.onChange((change) => {
      if (this.#running.size === 0 || !isServing(dependencies.registry.get(change.worker)?.state)) return;
      const nowMs = dependencies.clock.monotonicMs();
      for (const { run } of this.#running.values()) {
        run.covered(change.worker, change.version.id, change.before, change.after, change.originBytes, nowMs);
        if (run.isOver) this.#wake.abort();
      }
    });
  }

  get runningCount(): number {
    return this.#running.size;
  }

  /** Workers that running jobs bring exactly this path to. */
  workersOf(path: Path): ReadonlySet<WorkerId> {
    const workers = new Set<WorkerId>();
    for (const { run } of this.#running.values()) {
      if (run.document.path === path) for (const worker of run.document.plan.workers) workers.add(worker);
    }
    return workers;
  }

  *runningVersions(): Generator<FileVersionId> {
    for (const { run } of this.#running.values()) for (const { id } of run.files) yield id;
  }

  /** This master leads: it takes up the jobs of the state. */
  start(): void {
    this.#stopping = new AbortController();
    this.#running.clear();
    this.#planning.clear();
    this.#ended.clear();
    for (const stored of this.#deps.stored()) if (readDrain(stored.document) === undefined) this.#resume(stored);
    this.#loop = this.#tickUntil(this.#stopping.signal);
  }

  /** This master leads no more. Workers go on with what they were told. */
  async stop(): Promise<void> {
    this.#stopping?.abort();
    this.#stopping = undefined;
    this.#running.clear();
    await this.#loop;
  }

  workerLive(worker: RegisteredWorker): void {
    const nowMs = this.#deps.clock.monotonicMs();
    for (const { run } of this.#running.values()) {
      if (run.has(worker.id)) run.workerLive(worker.id, this.#viewOf(worker), nowMs);
    }
    this.#sendOrders();
  }

  workerLost(worker: RegisteredWorker): void {
    const nowMs = this.#deps.clock.monotonicMs();
    for (const { run } of this.#running.values()) run.workerLost(worker.id, nowMs);
  }

  reported(
    worker: WorkerId,
    jobId: JobId,
    files: readonly { readonly id: string; readonly ok: boolean; readonly code?: string; readonly message?: string }[],
  ): void {
    const run = this.#running.get(jobId)?.run;
    if (run === undefined) return;
    const nowMs = this.#deps.clock.monotonicMs();
    for (const file of files) {
      const [inodeId, contentVersion] = file.id.split("-").map(Number);
      const complete = this.#deps.blockMap.isComplete(worker, inodeId as InodeId, contentVersion ?? 0);
      run.reported(worker, file.id, file, complete, nowMs);
      if (run.isOver) this.#wake.abort();
    }
  }

  async plan(request: LoadRequest, signal?: AbortSignal): Promise<LoadPlan> {
    return this.#planner.look(parsePath(request.path), request.to, signal);
  }

  /**
   * Resolves when the job is durable and its first orders are out. A request that comes again gets the job of the first
   * time. Throws why the load cannot be done; it is then kept as a failed job.
   */
  async load(
    request: LoadRequest & Mutation,
    signal?: AbortSignal,
  ): Promise<{ readonly job: JobStatus; readonly plan: LoadPlan }> {
    const path = parsePath(request.path);
    parsePlaceSelector(request.to);
    if (this.#running.size + this.#planning.size >= this.#limits.runningMax) {
      throw new HeadpondError("overloaded", `${this.#running.size} jobs are running: wait for one, or cancel one`);
    }
    const { proposer } = this.#deps;
    const seed: JobSeed = {
      format: 1,
      kind: "load",
      path,
      to: request.to,
      priority: request.priority ?? 5,
      pin: request.pin ?? false,
      state: "planning",
    };
    const { jobId } = await proposer.propose({
      kind: "put-job",
      document: JSON.stringify(seed),
      ...stampOf(request, proposer.nowMs()),
    });
    if (!this.#running.has(jobId) && !this.#ended.has(jobId)) {
      const document = await untilAborted(this.#planAndBegin(jobId, seed), signal ?? new AbortController().signal);
      return { job: this.status(jobId), plan: document.plan };
    }
    return { job: this.status(jobId), plan: this.#planOfKnown(jobId) };
  }

  /** Throws `not-found`. */
  status(id: JobId): JobStatus {
    const running = this.#running.get(id);
    if (running !== undefined) return running.run.status(this.#deps.clock.monotonicMs());
    const ended = this.#ended.get(id) ?? this.#planning.get(id)?.status;
    if (ended === undefined) throw new HeadpondError("not-found", `there is no job ${id}: see headpond jobs ls`);
    return ended;
  }

  /** The newest first. */
  list(limit: number): JobStatus[] {
    const ids = [...this.#running.keys(), ...this.#planning.keys(), ...this.#ended.keys()].sort((a, b) => b - a);
    return ids.slice(0, limit).map((id) => this.status(id));
  }

  /** Ends with the job's last status. */
  async *watch(id: JobId, intervalMs: number, signal: AbortSignal): AsyncGenerator<JobStatus> {
    const waitMs = Math.max(this.#limits.watchIntervalMinMs, intervalMs);
    for (;;) {
      const status = this.status(id);
      yield status;
      if (status.state !== "running" && status.state !== "planning") return;
      await this.#deps.clock.sleep(waitMs, signal);
    }
  }

  async cancel(id: JobId): Promise<JobStatus> {
    const running = this.#running.get(id);
    if (running === undefined) return this.status(id);
    await this.#end(running, "cancelled", "cancelled by request");
    return this.status(id);
  }

  /** Starts the failed part again: the path is looked at anew, and only what is not whole is ordered. */
  async retry(id: JobId, signal?: AbortSignal): Promise<JobStatus> {
    const before = this.status(id);
    if (this.#running.has(id) || before.state === "succeeded") return before;
    const stored = [...this.#deps.stored()].find((job) => job.id === id);
    if (stored === undefined) throw new HeadpondError("not-found", `there is no job ${id}: see headpond jobs ls`);
    const old = readJobDocument(id, stored.document);
    const { plan, files } = await this.#planner.plan(old.path, old.to, signal);
    const { proposer } = this.#deps;
    const timeMs = proposer.nowMs();
    const { reason: _reason, finishedMs: _finishedMs, workers: _workers, rate: _rate, ...kept } = old;
    const document: JobDocument = {
      ...kept,
      state: "running",
      startedMs: timeMs,
      plan,
      versions: packVersions(files),
      failed: [],
      failedCount: 0,
      runs: old.runs + 1,
    };
    await proposer.propose({ kind: "put-job", jobId: id, document: writeJobDocument(document), timeMs });
    this.#ended.delete(id);
    this.#begin(id, document, files, true);
    return this.status(id);
  }

  /** From what was asked for to a running job; single-flight, and taken up by a new leader. */
  #planAndBegin(id: JobId, seed: JobSeed): Promise<JobDocument> {
    const known = this.#planning.get(id);
    if (known !== undefined) return known.document;
    const signal = this.#stopping?.signal;
    if (signal === undefined) return Promise.reject(new HeadpondError("not-leader", "this master does not lead"));
    const status = endedStatus(id, unplanned(seed, this.#deps.proposer.nowMs()));
    const document = this.#planNow(id, seed, signal).finally(() => {
      if (this.#planning.get(id)?.document === document) this.#planning.delete(id);
    });
    document.catch(() => {});
    this.#planning.set(id, { status, document });
    return document;
  }

  async #planNow(id: JobId, seed: JobSeed, signal: AbortSignal): Promise<JobDocument> {
    const planned = await this.#planner.make(id, seed, signal);
    if (planned.ok) {
      this.#begin(id, planned.document, planned.files, false);
      return planned.document;
    }
    this.#ended.set(id, endedStatus(id, planned.document));
    await this.#forgetOldest();
    throw planned.error;
  }

  /** The plan of a job that was begun by an earlier attempt of the same request. Throws what that one ended with. */
  #planOfKnown(id: JobId): LoadPlan {
    const running = this.#running.get(id);
    if (running !== undefined) return running.run.document.plan;
    const stored = [...this.#deps.stored()].find((job) => job.id === id);
    if (stored === undefined) throw new HeadpondError("not-found", `there is no job ${id}: see headpond jobs ls`);
    const { plan, planError } = readJobDocument(id, stored.document);
    if (planError === undefined) return plan;
    const { code, message, retryable } = planError;
    throw new HeadpondError(isErrorCode(code) ? code : "internal", message, { retryable });
  }

  #begin(id: JobId, document: JobDocument, files: readonly FileDescriptor[], trustComplete: boolean): void {
    const { clock, runLimits = {} } = this.#deps;
    const nowMs = clock.monotonicMs();
    const run = new JobRun({ id, document, files, mark: { origin: {} }, nowMs, elapsedMs: 0, limits: runLimits });
    this.#running.set(id, { run, markedAtMs: nowMs, markedChanges: 0, ending: false });
    for (const worker of this.#deps.registry.serving()) {
      if (run.has(worker.id)) run.workerLive(worker.id, this.#viewOf(worker), nowMs, { isFirst: true, trustComplete });
    }
    run.tick(nowMs);
    this.#sendOrders();
  }

  #resume(stored: StoredJob): void {
    const { clock, logger, proposer, runLimits = {} } = this.#deps;
    try {
      const seed = readJobSeed(stored.document);
      if (seed !== undefined) {
        this.#planAndBegin(stored.id, seed).catch((error: unknown) => {
          logger.warn("a load that was asked for could not be planned", { jobId: stored.id, error });
        });
        return;
      }
      const document = readJobDocument(stored.id, stored.document);
      if (document.state !== "running" && document.state !== "planning") {
        this.#ended.set(stored.id, endedStatus(stored.id, document));
        return;
      }
      const files: FileDescriptor[] = [];
      const failures: JobFailure[] = [];
      for (const { inodeId, contentVersion } of unpackVersions(document.versions)) {
        const file = this.#deps.files.current(inodeId, contentVersion);
        if (file !== undefined) {
          files.push(file);
          continue;
        }
        const message = `file version ${inodeId}-${contentVersion} changed or was removed while it was loaded`;
        for (const worker of document.plan.workers) {
          failures.push({ path: document.path, worker, code: "version-mismatch", message });
        }
      }
      const nowMs = clock.monotonicMs();
      const elapsedMs = Math.max(0, proposer.nowMs() - (document.startedMs ?? document.createdMs));
      const mark = readJobMark(stored.progress ?? "");
      const run = new JobRun({ id: stored.id, document, files, mark, failures, nowMs, elapsedMs, limits: runLimits });
      this.#running.set(stored.id, { run, markedAtMs: nowMs, markedChanges: 0, ending: false });
      for (const worker of this.#deps.registry.serving()) {
        if (run.has(worker.id)) run.workerLive(worker.id, this.#viewOf(worker), nowMs);
      }
    } catch (error) {
      logger.error("a job of the state cannot be resumed", { jobId: stored.id, error });
    }
  }

  async #tickUntil(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#tick(signal);
        await this.#deps.clock.sleep(this.#limits.tickMs, AbortSignal.any([signal, this.#wake.signal])).catch(() => {});
        if (this.#wake.signal.aborted) this.#wake = new AbortController();
      } catch (error) {
        if (signal.aborted) return;
        if (!isHeadpondError(error)) throw error;
        this.#deps.logger.warn("jobs: a step failed, it is tried again", { error });
        await this.#deps.clock.sleep(this.#limits.tickMs, signal).catch(() => {});
      }
    }
  }

  async #tick(signal: AbortSignal): Promise<void> {
    const nowMs = this.#deps.clock.monotonicMs();
    this.#sendOrders();
    for (const running of [...this.#running.values()]) {
      const { run } = running;
      run.tick(nowMs);
      if (running.ending) continue;
      if (run.settledForMs(nowMs) !== undefined) {
        // What was loaded must still be what the namespace shows: else it is not done, whoever holds it.
        await this.#deps.slices.forEach(
          run.files.keys(),
          (index) => {
            const file = present(run.files[index], "a file of the job");
            if (this.#deps.files.current(file.inodeId, file.contentVersion) !== undefined) return;
            run.fileGone(
              index,
              "version-mismatch",
              `${file.path} changed or was removed while it was loaded: retry the job`,
            );
          },
          signal,
        );
        if (run.isOver) await this.#end(running, run.verdict);
        continue;
      }
      if (nowMs - running.markedAtMs < this.#limits.markIntervalMs || running.markedChanges === run.changes) continue;
      running.markedAtMs = nowMs;
      running.markedChanges = run.changes;
      const { proposer } = this.#deps;
      const progress = JSON.stringify(run.mark);
      await proposer.propose({ kind: "job-progress", jobId: run.id, progress, timeMs: proposer.nowMs() });
    }
  }

  #sendOrders(): void {
    const { clock, registry } = this.#deps;
    const nowMs = clock.monotonicMs();
    for (const { run, ending } of this.#running.values()) {
      if (ending) continue;
      const orders = run.takeOrders(nowMs);
      if (orders.length > 0) this.#deps.pushWorkerList();
      for (const { worker, files } of orders) {
        const { priority } = run.document;
        registry.get(worker)?.sink?.push({ kind: "load", jobId: run.id, priority, files: [...files] });
      }
    }
  }

  async #end(running: Running, state: JobDocument["state"], reason?: string): Promise<void> {
    if (running.ending) return;
    running.ending = true;
    const { run } = running;
    const { clock, proposer, registry } = this.#deps;
    const nowMs = clock.monotonicMs();
    const timeMs = proposer.nowMs();
    const settledMs = run.settledForMs(nowMs) ?? 0;
    const finishedMs = Math.max(run.document.startedMs ?? 0, timeMs - Math.round(settledMs));
    const seconds = Math.max(0.001, (finishedMs - (run.document.startedMs ?? finishedMs)) / 1000);
    const more = run.failedCount - run.failures.length;
    const why = reason ?? (run.failedCount > 0 ? `${run.failedCount} of the files failed on a worker` : undefined);
    const document: JobDocument = {
      ...run.document,
      state,
      // The wait for the last counts is not part of the work.
      finishedMs,
      failed: [...run.failures],
      failedCount: run.failedCount,
      workers: run.workers(),
      relayedOriginBytes: run.relayedOriginBytes,
      rate: (run.bytesDone - Math.min(run.bytesDone, run.document.plan.cachedBytes)) / seconds,
      ...(why === undefined ? {} : { reason: more > 0 ? `${why}; ${more} failures are not listed` : why }),
    };
    try {
      if (state === "cancelled") {
        for (const { worker } of run.workers()) {
          registry.get(worker)?.sink?.push({ kind: "cancel-load", jobId: run.id });
        }
      }
      await proposer.propose({ kind: "put-job", jobId: run.id, document: endedText(document), timeMs });
    } catch (error) {
      running.ending = false;
      throw error;
    }
    this.#running.delete(run.id);
    this.#ended.set(run.id, endedStatus(run.id, document));
    this.#deps.logger.info("load job ended", { jobId: run.id, path: document.path, state, nowMs: Math.round(nowMs) });
    await this.#forgetOldest();
  }

  async #forgetOldest(): Promise<void> {
    const { proposer } = this.#deps;
    while (this.#ended.size > this.#limits.endedKeptMax) {
      const oldest = Math.min(...this.#ended.keys()) as JobId;
      this.#ended.delete(oldest);
      await proposer.propose({ kind: "remove-job", jobId: oldest, timeMs: proposer.nowMs() });
    }
  }

  #viewOf(worker: RegisteredWorker): Parameters<JobRun["workerLive"]>[1] {
    const { blockMap } = this.#deps;
    return {
      incarnation: worker.incarnation,
      coverage: ({ inodeId, contentVersion }) => blockMap.coverage(worker.id, inodeId, contentVersion),
      originBytes: ({ inodeId, contentVersion }) => blockMap.originBytes(worker.id, inodeId, contentVersion),
    };
  }
}
