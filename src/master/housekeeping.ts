/**
 * What the leader does beside requests, in bounded slices: frees rows of removed trees, ends TTLs and sessions, gives up
 * files whose writers never came back, frees dead versions on workers. Only while it leads, and sessions only when it
 * has led for as long as they last: their clients could not renew them before.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { FileVersionId, WorkerId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Namespace } from "../namespace/namespace.ts";
import type { DeadVersions } from "./dead-versions.ts";
import type { Intents } from "./intents.ts";
import type { Proposer } from "./proposer.ts";

export type HousekeepingLimits = {
  readonly intervalMs: number;
  /** Rows of one slice. */
  readonly sliceRows: number;
  /** Slices of one kind in one interval. */
  readonly slicesMax: number;
  readonly sessionTimeoutMs: number;
  /** How often is looked for what nobody announced. */
  readonly sweepIntervalMs: number;
};

export const housekeepingLimits: HousekeepingLimits = {
  intervalMs: 1000,
  sliceRows: 1000,
  slicesMax: 20,
  sessionTimeoutMs: 300_000,
  sweepIntervalMs: 30_000,
};

export type HousekeepingDependencies = {
  readonly namespace: Namespace;
  readonly proposer: Proposer;
  readonly intents: Intents;
  readonly deadVersions: DeadVersions;
  readonly free: (byWorker: ReadonlyMap<WorkerId, readonly FileVersionId[]>) => void;
  readonly freePath: (path: Path, signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits?: Partial<HousekeepingLimits>;
};

export class Housekeeping {
  readonly #deps: HousekeepingDependencies;
  readonly #limits: HousekeepingLimits;
  #stopping: AbortController | undefined;
  #loop: Promise<void> = Promise.resolve();
  #reclaimIsDue = true;

  constructor(dependencies: HousekeepingDependencies) {
    this.#deps = dependencies;
    this.#limits = { ...housekeepingLimits, ...dependencies.limits };
  }

  start(): void {
    this.#stopping = new AbortController();
    this.#reclaimIsDue = true;
    this.#deps.deadVersions.reset();
    this.#loop = this.#run(this.#stopping.signal);
  }

  async stop(): Promise<void> {
    this.#stopping?.abort(new HeadpondError("cancelled", "this master leads no more"));
    this.#stopping = undefined;
    await this.#loop;
  }

  /** Something was removed: its rows are waiting. */
  removed(): void {
    this.#reclaimIsDue = true;
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#deps;
    const startedMs = clock.monotonicMs();
    let sweptMs = startedMs;
    while (!signal.aborted) {
      try {
        await clock.sleep(this.#limits.intervalMs, signal);
        const nowMs = clock.monotonicMs();
        await this.#expireTtl(signal);
        if (nowMs - sweptMs >= this.#limits.sweepIntervalMs) {
          sweptMs = nowMs;
          this.#reclaimIsDue = true;
          if (nowMs - startedMs >= this.#limits.sessionTimeoutMs) await this.#expireSessions(signal);
          await this.#deps.intents.giveUpOldCreates(this.#limits.sliceRows);
        }
        if (this.#reclaimIsDue) await this.#reclaim(signal);
        this.#deps.free(this.#deps.deadVersions.step());
      } catch (error) {
        if (signal.aborted) return;
        if (!isHeadpondError(error)) throw error;
        logger.warn("housekeeping: a step failed, it is tried again", { error });
      }
    }
  }

  async #reclaim(signal: AbortSignal): Promise<void> {
    const { proposer } = this.#deps;
    this.#reclaimIsDue = false;
    for (let slice = 0; slice < this.#limits.slicesMax && !signal.aborted; slice++) {
      const done = await proposer.propose({ kind: "reclaim", limit: this.#limits.sliceRows, timeMs: proposer.nowMs() });
      if (!done.more) return;
    }
    this.#reclaimIsDue = true;
  }

  async #expireTtl(signal: AbortSignal): Promise<void> {
    const { namespace, proposer, intents } = this.#deps;
    for (let slice = 0; slice < this.#limits.slicesMax && !signal.aborted; slice++) {
      const timeMs = proposer.nowMs();
      if (namespace.dueTtl(1, timeMs) === 0) return;
      const done = await proposer.propose({ kind: "expire-ttl", limit: this.#limits.sliceRows, timeMs });
      for (const { path } of done.free) await this.#deps.freePath(path, signal).catch(ignoreGone);
      for (const id of done.intents) intents.settle(id).catch(() => {});
      if (done.removed.length > 0) this.#reclaimIsDue = true;
      if (!done.more) return;
    }
  }

  async #expireSessions(signal: AbortSignal): Promise<void> {
    const { namespace, proposer } = this.#deps;
    for (let slice = 0; slice < this.#limits.slicesMax && !signal.aborted; slice++) {
      const timeMs = proposer.nowMs();
      if (!namespace.sessions().some(({ lastSeenMs, timeoutMs }) => lastSeenMs + timeoutMs < timeMs)) return;
      const done = await proposer.propose({ kind: "expire-sessions", limit: this.#limits.sliceRows, timeMs });
      if (!done.more) return;
    }
  }
}

/** It was removed before it could be freed: the sweep of dead versions does that. */
function ignoreGone(error: unknown): void {
  if (!isHeadpondError(error, "not-found")) throw error as Error;
}
