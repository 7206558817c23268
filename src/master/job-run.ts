/**
 * One load job while it runs: what each worker still has to bring in, what went wrong, how fast it goes, and when it is
 * over. Synchronous and without I/O: events come in (block map, reports, workers that come and go), orders and verdicts
 * come out.
 *
 * A file is done on a worker when the worker has said so *and* the block map shows it complete: the word of the one is
 * checked by the other. A worker that is lost is waited for, for a bounded time; what it had not done has failed then.
 */

import { present } from "../base/assert.ts";
import type { JobFailure, JobStatus, JobWorkerProgress } from "../base/cluster.ts";
import { errorTable, isErrorCode } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { JobId, WorkerId } from "../base/ids.ts";
import { type Coverage, coverageBytes } from "./block-map.ts";
import { type JobDocument, type JobMark, jobFailuresMax } from "./job-document.ts";
import { jobStatus } from "./job-status.ts";
import { SlotSet } from "./slot-set.ts";

export type JobRunLimits = {
  /** A lost worker may come back for so long. */
  readonly workerReturnMs: number;
  /** Tries of one file on one worker while its error is retryable; the worker itself rides out short faults. */
  readonly attemptsMax: number;
  readonly attemptBackoffMs: number;
  /** The rate is taken over so long. */
  readonly rateWindowMs: number;
  /** Files of one order. */
  readonly orderFilesMax: number;
  /** The last counts of origin bytes come a little after the last block: a job that still misses some waits so long. */
  readonly originSettleMs: number;
};

export const jobRunLimits: JobRunLimits = {
  workerReturnMs: 60_000,
  attemptsMax: 3,
  attemptBackoffMs: 1000,
  rateWindowMs: 5000,
  orderFilesMax: 500,
  originSettleMs: 600,
};

/** What a run asks of the block map, for one worker at a time. */
export type WorkerView = {
  readonly incarnation: string;
  readonly coverage: (file: FileDescriptor) => Coverage;
  readonly originBytes: (file: FileDescriptor) => number;
};

export type LoadOrder = { readonly worker: WorkerId; readonly files: readonly FileDescriptor[] };

type Part = {
  readonly id: WorkerId;
  bytesDone: number;
  /** Reported as brought in and kept. */
  readonly ok: SlotSet;
  /** `ok`, and complete in the block map. */
  readonly done: SlotSet;
  readonly failed: SlotSet;
  readonly attempts: Map<number, number>;
  /** Files to order (again), and when. */
  readonly due: Map<number, number>;
  live: boolean;
  lostSinceMs: number | undefined;
  incarnation: string;
  /** When it had the whole; undefined: not now. */
  readyAtMs: number | undefined;
  /** Sum of the worker's own counts of origin bytes, as last seen. */
  originAbsolute: number;
  /** Of those, what this job has to answer for. */
  originCounted: number;
};

type Sample = { readonly atMs: number; readonly bytes: number };

export class JobRun {
  readonly id: JobId;
  readonly document: JobDocument;
  readonly files: readonly FileDescriptor[];
  readonly #limits: JobRunLimits;
  readonly #parts = new Map<WorkerId, Part>();
  readonly #indexOf = new Map<string, number>();
  readonly #bytesPerWorker: number;
  readonly #failures: JobFailure[];
  #failedCount: number;
  readonly #samples: Sample[] = [];
  readonly #startedMonotonicMs: number;
  /** Bytes that workers which were not chosen read from the under store, as owners of blocks, since the job began. */
  #relayedOriginBytes: number;
  #overSinceMs: number | undefined;
  /** Raised by everything that a watcher would want to see. */
  changes = 0;

  constructor(options: {
    readonly id: JobId;
    readonly document: JobDocument;
    readonly files: readonly FileDescriptor[];
    readonly mark: JobMark;
    /** Failures known beforehand, e.g. files that changed while no master ran. */
    readonly failures?: readonly JobFailure[];
    readonly nowMs: number;
    /** How long it has been running already, by the wall clock. */
    readonly elapsedMs: number;
    readonly limits?: Partial<JobRunLimits>;
  }) {
    this.id = options.id;
    this.document = options.document;
    this.files = options.files;
    this.#limits = { ...jobRunLimits, ...options.limits };
    this.#startedMonotonicMs = options.nowMs - options.elapsedMs;
    this.#failures = (options.failures ?? []).slice(0, jobFailuresMax);
    this.#failedCount = options.failures?.length ?? 0;
    this.#relayedOriginBytes = options.mark.relayed ?? 0;
    let bytes = 0;
    options.files.forEach((file, index) => {
      this.#indexOf.set(file.id, index);
      bytes += file.sizeBytes;
    });
    this.#bytesPerWorker = bytes;
    for (const id of options.document.plan.workers) {
      const mark = options.mark.origin[id];
      this.#parts.set(id, {
        id,
        bytesDone: 0,
        ok: new SlotSet(),
        done: new SlotSet(),
        failed: new SlotSet(),
        attempts: new Map(),
        due: new Map(),
        live: false,
        lostSinceMs: options.nowMs,
        incarnation: mark?.incarnation ?? "",
        readyAtMs: undefined,
        originAbsolute: mark?.absolute ?? 0,
        originCounted: mark?.counted ?? 0,
      });
    }
  }

  has(worker: WorkerId): boolean {
    return this.#parts.has(worker);
  }

  /** Sizes of the files that it still has to bring to the worker, those of `except` left out; failed ones are not waited for. */
  remainingBytes(worker: WorkerId, except?: ReadonlySet<string>): number {
    const part = this.#parts.get(worker);
    if (part === undefined || part.done.count + part.failed.count === this.files.length) return 0;
    let bytes = 0;
    this.files.forEach((file, index) => {
      if (part.done.has(index) || part.failed.has(index) || except?.has(file.id) === true) return;
      bytes += file.sizeBytes;
    });
    return bytes;
  }

  /**
   * The worker is there (again), with all that it holds reported. What it has not said to be done is ordered (again).
   * `isFirst`: the job begins, and what was read before is not its doing. `trustComplete` (of a retry): files that are
   * whole on the worker need no order.
   */
  workerLive(
    worker: WorkerId,
    view: WorkerView,
    nowMs: number,
    { isFirst = false, trustComplete = false }: { readonly isFirst?: boolean; readonly trustComplete?: boolean } = {},
  ): void {
    const part = this.#parts.get(worker);
    if (part === undefined) return;
    part.live = true;
    part.lostSinceMs = undefined;
    part.bytesDone = 0;
    let absolute = 0;
    this.files.forEach((file, index) => {
      const coverage = view.coverage(file);
      absolute += view.originBytes(file);
      part.bytesDone += coverageBytes(coverage, file.sizeBytes, file.blockSizeBytes);
      if (trustComplete && coverage.complete) part.ok.add(index);
      this.#settle(part, index, coverage.complete, nowMs);
      if (!part.done.has(index) && !part.failed.has(index)) part.due.set(index, nowMs);
    });
    // Counts of another life begin at 0; those of the same life go on from where they were seen last.
    if (isFirst) part.originAbsolute = absolute;
    else if (part.incarnation !== view.incarnation) part.originCounted += absolute;
    else part.originCounted += Math.max(0, absolute - part.originAbsolute);
    part.originAbsolute = absolute;
    part.incarnation = view.incarnation;
    this.changes++;
  }

  workerLost(worker: WorkerId, nowMs: number): void {
    const part = this.#parts.get(worker);
    if (part === undefined || !part.live) return;
    part.live = false;
    part.lostSinceMs = nowMs;
    part.bytesDone = 0;
    part.due.clear();
    this.changes++;
  }

  /** The block map has changed for a file of this job. */
  covered(
    worker: WorkerId,
    versionId: string,
    before: Coverage,
    after: Coverage,
    originBytes: number,
    nowMs: number,
  ): void {
    const part = this.#parts.get(worker);
    const index = this.#indexOf.get(versionId);
    if (index === undefined) return;
    if (part === undefined) {
      this.#relayedOriginBytes += originBytes;
      if (originBytes > 0) this.changes++;
      return;
    }
    if (!part.live) return;
    const file = present(this.files[index], "an indexed file exists");
    const { sizeBytes, blockSizeBytes } = file;
    part.bytesDone +=
      coverageBytes(after, sizeBytes, blockSizeBytes) - coverageBytes(before, sizeBytes, blockSizeBytes);
    part.originCounted += originBytes;
    part.originAbsolute += originBytes;
    if (part.ok.has(index) && before.complete && !after.complete) {
      // It was whole and has lost something since: its word is void, and it is asked again.
      part.ok.delete(index);
      part.due.set(index, nowMs);
    }
    this.#settle(part, index, after.complete, nowMs);
    this.changes++;
  }

  /** A worker's word about one file. */
  reported(
    worker: WorkerId,
    versionId: string,
    verdict: { readonly ok: boolean; readonly code?: string; readonly message?: string },
    complete: boolean,
    nowMs: number,
  ): void {
    const part = this.#parts.get(worker);
    const index = this.#indexOf.get(versionId);
    if (part === undefined || index === undefined || part.failed.has(index)) return;
    this.changes++;
    if (verdict.ok) {
      part.ok.add(index);
      this.#settle(part, index, complete, nowMs);
      return;
    }
    const attempts = (part.attempts.get(index) ?? 0) + 1;
    part.attempts.set(index, attempts);
    const code = isErrorCode(verdict.code) ? verdict.code : "internal";
    // A worker has waited for room by itself for long enough.
    const mayPass = errorTable[code].retryable && code !== "no-space";
    if (mayPass && attempts < this.#limits.attemptsMax) {
      part.due.set(index, nowMs + attempts * this.#limits.attemptBackoffMs);
      return;
    }
    this.#fail(part, index, code, verdict.message ?? "the worker gave no reason");
  }

  /** The file is no longer what it was when the job began: on no worker can it be done any more. */
  fileGone(index: number, code: string, message: string): void {
    for (const part of this.#parts.values()) {
      part.done.delete(index);
      if (!part.failed.has(index)) this.#fail(part, index, code, message);
    }
    this.changes++;
  }

  /** Orders that are due now. */
  takeOrders(nowMs: number): LoadOrder[] {
    const orders: LoadOrder[] = [];
    for (const part of this.#parts.values()) {
      if (!part.live || part.due.size === 0) continue;
      let files: FileDescriptor[] = [];
      for (const [index, dueMs] of part.due) {
        if (dueMs > nowMs) continue;
        part.due.delete(index);
        if (part.done.has(index) || part.failed.has(index)) continue;
        files.push(present(this.files[index], "a due file exists"));
        if (files.length >= this.#limits.orderFilesMax) {
          orders.push({ worker: part.id, files });
          files = [];
        }
      }
      if (files.length > 0) orders.push({ worker: part.id, files });
    }
    return orders;
  }

  /** Takes a sample for the rate, and gives up on workers that have been away for too long. */
  tick(nowMs: number): void {
    const samples = this.#samples;
    samples.push({ atMs: nowMs, bytes: this.bytesDone });
    while (samples.length > 2 && nowMs - (samples[0] as Sample).atMs > this.#limits.rateWindowMs) samples.shift();
    for (const part of this.#parts.values()) {
      if (part.lostSinceMs === undefined) continue;
      const awayMs = nowMs - part.lostSinceMs;
      if (awayMs <= this.#limits.workerReturnMs) continue;
      const message = `worker ${part.id} has been away for ${Math.round(awayMs / 1000)} s: bring it back, then retry the job`;
      for (let index = 0; index < this.files.length; index++) {
        if (part.failed.has(index)) continue;
        part.done.delete(index);
        this.#fail(part, index, "unavailable", message);
      }
      part.lostSinceMs = undefined;
    }
  }

  /** Whether nothing is left to wait for. */
  get isOver(): boolean {
    for (const part of this.#parts.values()) {
      if (part.done.count + part.failed.count < this.files.length) return false;
    }
    return true;
  }

  /** How long nothing has been left to wait for, once the counts of origin bytes are in as well; undefined: not yet. */
  settledForMs(nowMs: number): number | undefined {
    if (!this.isOver) {
      this.#overSinceMs = undefined;
      return undefined;
    }
    this.#overSinceMs ??= nowMs;
    const overMs = nowMs - this.#overSinceMs;
    let originBytes = this.#relayedOriginBytes;
    for (const part of this.#parts.values()) originBytes += part.originCounted;
    const isCounted = this.#failedCount > 0 || originBytes >= this.document.plan.originBytes;
    return isCounted || overMs >= this.#limits.originSettleMs ? overMs : undefined;
  }

  /** What it would end as now. */
  get verdict(): "succeeded" | "partial" | "failed" {
    if (this.#failedCount === 0) return "succeeded";
    for (const part of this.#parts.values()) if (part.done.count > 0) return "partial";
    return "failed";
  }

  get failedCount(): number {
    return this.#failedCount;
  }

  get failures(): readonly JobFailure[] {
    return this.#failures;
  }

  get bytesDone(): number {
    let bytes = 0;
    for (const part of this.#parts.values()) bytes += part.bytesDone;
    return bytes;
  }

  get mark(): JobMark {
    const origin: JobMark["origin"] = {};
    for (const { id, incarnation, originAbsolute, originCounted } of this.#parts.values()) {
      if (incarnation !== "") origin[id] = { incarnation, absolute: originAbsolute, counted: originCounted };
    }
    return { origin, relayed: this.#relayedOriginBytes };
  }

  get relayedOriginBytes(): number {
    return this.#relayedOriginBytes;
  }

  workers(): JobWorkerProgress[] {
    return [...this.#parts.values()].map((part) => {
      const ready = part.done.count === this.files.length && this.files.length > 0;
      return {
        worker: part.id,
        bytesDone: Math.max(0, Math.min(part.bytesDone, this.#bytesPerWorker)),
        bytesTotal: this.#bytesPerWorker,
        filesDone: part.done.count,
        filesTotal: this.files.length,
        ready,
        ...(ready && part.readyAtMs !== undefined ? { readyMs: this.#wallMs(part.readyAtMs) } : {}),
        originBytes: part.originCounted,
      };
    });
  }

  /** As the leader's clock had it, counted from the job's start. */
  #wallMs(monotonicMs: number): number {
    const { startedMs, createdMs } = this.document;
    return Math.round((startedMs ?? createdMs) + Math.max(0, monotonicMs - this.#startedMonotonicMs));
  }

  /** Bytes per second over the last seconds. */
  rate(nowMs: number): number {
    const first = this.#samples[0];
    if (first === undefined || nowMs <= first.atMs) return 0;
    return Math.max(0, (this.bytesDone - first.bytes) / ((nowMs - first.atMs) / 1000));
  }

  status(nowMs: number): JobStatus {
    const rate = this.rate(nowMs);
    const elapsedSeconds = Math.max(0.001, (nowMs - this.#startedMonotonicMs) / 1000);
    const workers = this.workers();
    const bytesDone = workers.reduce((sum, worker) => sum + worker.bytesDone, 0);
    const bytesTotal = this.#bytesPerWorker * workers.length;
    return jobStatus(this.id, this.document, {
      workers,
      rate,
      elapsedSeconds,
      failed: this.#failures,
      relayedOriginBytes: this.#relayedOriginBytes,
      ...(rate > 0 ? { etaSeconds: (bytesTotal - bytesDone) / rate } : {}),
    });
  }

  /** Brings `done` in line with what the worker has said and the block map shows. */
  #settle(part: Part, index: number, complete: boolean, nowMs: number): void {
    if (complete && part.ok.has(index) && !part.failed.has(index)) part.done.add(index);
    else part.done.delete(index);
    if (part.done.count < this.files.length) part.readyAtMs = undefined;
    else part.readyAtMs ??= nowMs;
  }

  #fail(part: Part, index: number, code: string, message: string): void {
    part.failed.add(index);
    part.due.delete(index);
    part.attempts.delete(index);
    this.#failedCount++;
    if (this.#failures.length >= jobFailuresMax) return;
    const file = present(this.files[index], "a failed file exists");
    this.#failures.push({ path: file.path, worker: part.id, code, message });
  }
}
