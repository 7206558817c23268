/**
 * Load orders: every block of the named files comes in, a bounded number at a time, and each file is reported once it is
 * complete, durable and, where its under store vouches for a digest, digest-verified; or with the reason why not. An order may
 * be repeated: what is there already is reported again, what runs goes on.
 */

import { BlockBitmap } from "../base/blocks.ts";
import type { WorkerOrder } from "../base/cluster.ts";
import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { BlockIndex, FileVersionId, JobId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { BlockCache } from "./block-cache.ts";
import type { CachedFile } from "./cached-file.ts";
import type { ClaimSession } from "./claim-session.ts";
import type { Claims } from "./claims.ts";
import type { Fetcher } from "./fetcher.ts";
import type { FileDigests } from "./file-digest.ts";
import { loadUrgency, type Urgency } from "./slots.ts";
import { untilAborted } from "./until-aborted.ts";

export type LoadRunnerLimits = {
  /** Files of all jobs at once. */
  readonly filesMax: number;
  /** Blocks of one file asked for at once; the fetcher bounds them all. */
  readonly blocksAheadMax: number;
  /** Waits before a file that failed for a passing reason is tried again. */
  readonly retryDelaysMs: readonly number[];
};

export const loadRunnerLimits: LoadRunnerLimits = {
  filesMax: 4,
  blocksAheadMax: 24,
  retryDelaysMs: [500, 2000, 5000],
};

export type FileOutcome = {
  readonly id: FileVersionId;
  readonly ok: boolean;
  readonly code?: string;
  readonly message?: string;
};

export type LoadRunnerDependencies = {
  readonly cache: BlockCache;
  readonly fetcher: Fetcher;
  readonly claims: Pick<Claims, "begin" | "end">;
  readonly digests: FileDigests;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: LoadRunnerLimits;
  /** Tells the masters; must not throw. */
  readonly onOutcome: (jobId: JobId, outcome: FileOutcome) => void;
};

type Task = {
  readonly jobId: JobId;
  readonly descriptor: FileDescriptor;
  readonly urgency: Urgency;
  readonly order: number;
  readonly abort: AbortController;
};
type LoadOrder = Extract<WorkerOrder, { kind: "load" }>;

export class LoadRunner {
  readonly #deps: LoadRunnerDependencies;
  /** By job and file, so that a repeated order finds what runs. */
  readonly #waiting = new Map<string, Task>();
  readonly #running = new Map<string, Promise<void>>();
  readonly #active = new Map<string, Task>();
  /** Versions that a finished task of a running job brought in: not to be evicted before the job is over or cancelled. */
  readonly #kept = new Map<JobId, Set<CachedFile>>();
  #order = 0;
  #closed = false;

  constructor(dependencies: LoadRunnerDependencies) {
    this.#deps = dependencies;
  }

  get activeFiles(): number {
    return this.#running.size;
  }

  get waitingFiles(): number {
    return this.#waiting.size;
  }

  load(order: LoadOrder): void {
    if (this.#closed) return;
    for (const descriptor of order.files) {
      const key = `${order.jobId}/${descriptor.id}`;
      if (this.#waiting.has(key) || this.#active.has(key)) continue;
      this.#waiting.set(key, {
        jobId: order.jobId,
        descriptor,
        urgency: loadUrgency(order.priority),
        order: this.#order++,
        abort: new AbortController(),
      });
    }
    this.#startMore();
  }

  /** What waits or runs for the job ends; what is there stays. */
  cancel(jobId: JobId): void {
    for (const [key, task] of this.#waiting) if (task.jobId === jobId) this.#waiting.delete(key);
    for (const task of this.#active.values()) {
      if (task.jobId === jobId) task.abort.abort(new HeadpondError("cancelled", `job ${jobId} was cancelled`));
    }
    this.#letGo(jobId);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#waiting.clear();
    for (const task of this.#active.values()) {
      task.abort.abort(new HeadpondError("unavailable", "the worker is stopping"));
    }
    await Promise.all(this.#running.values());
    for (const jobId of [...this.#kept.keys()]) this.#letGo(jobId);
  }

  #startMore(): void {
    while (!this.#closed && this.#running.size < this.#deps.limits.filesMax && this.#waiting.size > 0) {
      let next: [string, Task] | undefined;
      for (const entry of this.#waiting) {
        const [, task] = entry;
        if (next === undefined || task.urgency < next[1].urgency) next = entry;
      }
      if (next === undefined) return;
      const [key, task] = next;
      this.#waiting.delete(key);
      this.#active.set(key, task);
      const work = this.#run(task).finally(() => {
        this.#active.delete(key);
        this.#running.delete(key);
        if (!this.#hasTasks(task.jobId)) this.#letGo(task.jobId);
        this.#startMore();
      });
      this.#running.set(key, work);
    }
  }

  async #run(task: Task): Promise<void> {
    const { clock, limits, onOutcome, logger } = this.#deps;
    const { descriptor, jobId } = task;
    const { signal } = task.abort;
    for (let attempt = 0; ; attempt++) {
      try {
        await this.#bringIn(task);
        onOutcome(jobId, { id: descriptor.id, ok: true });
        return;
      } catch (thrown) {
        const error = toHeadpondError(signal.aborted ? signal.reason : thrown);
        const delayMs = limits.retryDelaysMs[attempt];
        // A digest that did not match the first time gets its second fetch here.
        const again = error.retryable || (error.code === "corrupt" && attempt === 0);
        if (signal.aborted || !again || delayMs === undefined) {
          if (this.#closed) return;
          logger.warn("a file could not be loaded", {
            jobId,
            path: descriptor.path,
            code: error.code,
            error: error.message,
          });
          onOutcome(jobId, { id: descriptor.id, ok: false, code: error.code, message: error.message });
          return;
        }
        logger.debug("a file is tried again", { jobId, path: descriptor.path, code: error.code, error: error.message });
        await clock.sleep(delayMs, signal).catch(() => {});
      }
    }
  }

  async #bringIn({ descriptor, urgency, jobId, abort: { signal } }: Task): Promise<void> {
    const { cache, digests } = this.#deps;
    const file = await cache.open(descriptor);
    this.#keep(jobId, file);
    if (descriptor.pinned) file.setPinned(true);
    const claims = await this.#deps.claims.begin(file);
    try {
      await this.#bringInBlocks(file, claims, urgency, signal);
    } finally {
      if (claims !== undefined) await this.#deps.claims.end(file);
    }
    await digests.verify(file, signal);
    await file.flush();
    if (!file.isComplete) {
      throw new HeadpondError("unavailable", `${descriptor.path}: blocks were lost while it was loaded`);
    }
  }

  /** A bounded number of blocks at a time: of a file that others load, too, in the order in which somebody brings them in. */
  async #bringInBlocks(
    file: CachedFile,
    claims: ClaimSession | undefined,
    urgency: Urgency,
    signal: AbortSignal,
  ): Promise<void> {
    const { fetcher, limits } = this.#deps;
    const running = new Set<Promise<void>>();
    const failed = new AbortController();
    const both = AbortSignal.any([signal, failed.signal]);
    const blocks = claims === undefined ? allBlocks(file) : claimedBlocks(file, claims, both);
    for await (const block of blocks) {
      if (file.has(block)) continue;
      while (running.size >= limits.blocksAheadMax) await untilAborted(Promise.race(running), both);
      both.throwIfAborted();
      const stored = fetcher
        .start(file, block, { urgency })
        .stored.catch((error: unknown) => failed.abort(error))
        .finally(() => running.delete(stored));
      running.add(stored);
    }
    await untilAborted(Promise.all(running), both);
    both.throwIfAborted();
  }

  #keep(jobId: JobId, file: CachedFile): void {
    const kept = this.#kept.get(jobId) ?? new Set();
    this.#kept.set(jobId, kept);
    if (kept.has(file)) return;
    kept.add(file);
    file.protect();
  }

  #letGo(jobId: JobId): void {
    const kept = this.#kept.get(jobId);
    this.#kept.delete(jobId);
    for (const file of kept ?? []) file.unprotect();
  }

  #hasTasks(jobId: JobId): boolean {
    for (const task of this.#waiting.values()) if (task.jobId === jobId) return true;
    for (const task of this.#active.values()) if (task.jobId === jobId) return true;
    return false;
  }
}

async function* allBlocks(file: CachedFile): AsyncGenerator<BlockIndex> {
  for (let block = 0 as BlockIndex; block < file.blockCount; block++) yield block;
}

/** Every block of the file once, as claims become known. */
async function* claimedBlocks(file: CachedFile, claims: ClaimSession, signal: AbortSignal): AsyncGenerator<BlockIndex> {
  const named = new BlockBitmap(file.blockCount);
  for (let at = 0; ; ) {
    const { claimed } = claims.view;
    for (; at < claimed.length; at++) {
      const block = claimed[at] as BlockIndex;
      if (named.add(block)) yield block;
    }
    for (let block = 0 as BlockIndex; block < file.blockCount; block++) if (file.has(block)) named.add(block);
    if (named.isFull) return;
    if (at === claims.view.claimed.length) await claims.changed(signal);
  }
}
