/**
 * A worker's side of claims, for one file that it loads: reports to the coordinator what is here and on its way, learns who brings in what,
 * and goes to the next coordinator when one is gone. Keeps nothing that matters: a session may begin and end at any time.
 */

import type { BlockBitmap } from "../base/blocks.ts";
import { ClaimView } from "../base/claim-view.ts";
import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { BlockIndex, WorkerId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { CachedFile } from "./cached-file.ts";
import { coordinatorBlock } from "./claim-service.ts";
import { type ClaimReply, type ClaimRequest, newsOf } from "./claim-wire.ts";
import type { Members } from "./members.ts";
import { untilAborted } from "./until-aborted.ts";

export type ClaimSessionLimits = {
  /** How long a coordinator may keep a report when there is no news. */
  readonly pollMs: number;
  /** Before a coordinator that failed, or the next one, is asked again. */
  readonly retryMs: number;
  /** How long somebody waits for a block that is lost to change hands before he tries again. */
  readonly lostWaitMs: number;
  /** How long what outsiders hold counts. */
  readonly outsideMs: number;
};

export const claimSessionLimits: ClaimSessionLimits = { pollMs: 200, retryMs: 50, lostWaitMs: 300, outsideMs: 10_000 };

type UnderWay = { readonly block: BlockIndex; readonly bytes: number; readonly fromOrigin: boolean };

export type ClaimSessionDependencies = {
  /** Another one for each session. */
  readonly name: string;
  readonly file: CachedFile;
  readonly members: Members;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: ClaimSessionLimits;
  readonly underWay: () => readonly UnderWay[];
  /** Asks a coordinator, this worker included. */
  readonly ask: (worker: WorkerId, request: ClaimRequest, signal: AbortSignal) => Promise<ClaimReply>;
  /** Whether a worker answers at all. */
  readonly isAlive: (worker: WorkerId) => Promise<boolean>;
  /** Workers that hold some of the file, and what. */
  readonly holders: () => Promise<ReadonlyMap<WorkerId, BlockBitmap>>;
};

export class ClaimSession {
  readonly view: ClaimView;
  readonly #deps: ClaimSessionDependencies;
  readonly #closing = new AbortController();
  readonly #lost = new Map<BlockIndex, WorkerId>();
  readonly #wanted = new Set<BlockIndex>();
  readonly #failed = new Set<BlockIndex>();
  #version = 0;
  #sequence = 0;
  #gapMs = 0;
  #change = Promise.withResolvers<void>();
  #hurrying = false;
  #hurryAgain = false;
  #outside: { readonly atMs: number; readonly holders: Promise<ReadonlyMap<WorkerId, BlockBitmap>> } | undefined;
  readonly #running: Promise<void>;
  readonly #extra = new Set<Promise<void>>();

  constructor(dependencies: ClaimSessionDependencies) {
    this.#deps = dependencies;
    this.view = new ClaimView(dependencies.members.self);
    this.#running = this.#run();
  }

  get isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Resolves at the next news, or rejects with the signal's reason. */
  changed(signal: AbortSignal): Promise<void> {
    return untilAborted(this.#change.promise, AbortSignal.any([signal, this.#closing.signal]));
  }

  /** Whose the block is; waits until it is somebody's. */
  async claimant(block: BlockIndex, signal: AbortSignal): Promise<WorkerId> {
    const known = this.view.claimant(block);
    if (known !== undefined) return known;
    this.#wanted.add(block);
    try {
      // Once: every report says what is wanted.
      this.hurry();
      for (;;) {
        await this.changed(signal);
        const claimant = this.view.claimant(block);
        if (claimant !== undefined) return claimant;
      }
    } finally {
      this.#wanted.delete(block);
    }
  }

  /** Nobody on its way gave us the block. Resolves when something has changed, or after a while. */
  async lost(block: BlockIndex, claimant: WorkerId, signal: AbortSignal): Promise<void> {
    this.#lost.set(block, claimant);
    this.hurry();
    const wait = new AbortController();
    const timer = this.#deps.clock.timer(this.#deps.limits.lostWaitMs, () => wait.abort(new Error("long enough")));
    try {
      while (!wait.signal.aborted && this.view.claimant(block) === claimant) {
        await this.changed(AbortSignal.any([signal, wait.signal]));
      }
    } catch (error) {
      if (!wait.signal.aborted) throw error;
    } finally {
      timer.clear();
      this.#lost.delete(block);
    }
  }

  /** Our claim came to nothing: somebody else may have more luck. */
  async failed(block: BlockIndex): Promise<void> {
    this.#failed.add(block);
    await this.#report(0).catch(() => {});
    this.#failed.delete(block);
  }

  /** Workers that hold the block and take no part in the load. */
  async outsideHolders(block: BlockIndex): Promise<readonly WorkerId[]> {
    const { clock, holders, limits } = this.#deps;
    const now = clock.monotonicMs();
    if (this.#outside === undefined || now - this.#outside.atMs > limits.outsideMs) {
      this.#outside = { atMs: now, holders: holders() };
    }
    const { ring } = this.view.plan;
    const maps = await this.#outside.holders;
    return [...maps].filter(([worker, map]) => map.has(block) && !ring.includes(worker)).map(([worker]) => worker);
  }

  /** Reports at once: the coordinator has something to decide. */
  hurry(): void {
    if (this.#hurrying) {
      this.#hurryAgain = true;
      return;
    }
    this.#hurrying = true;
    const work = this.#report(0)
      .catch(() => {})
      .finally(() => {
        this.#extra.delete(work);
        this.#hurrying = false;
        if (!this.#hurryAgain || this.#closing.signal.aborted) return;
        this.#hurryAgain = false;
        this.hurry();
      });
    this.#extra.add(work);
  }

  /** Says that everything is here, if it is. */
  async close(): Promise<void> {
    if (this.#deps.file.isFull) await this.#report(0).catch(() => {});
    this.#closing.abort(new HeadpondError("cancelled", "the load is over"));
    await Promise.all([this.#running, ...this.#extra]);
    this.#change.promise.catch(() => {});
  }

  async #run(): Promise<void> {
    const { clock, limits } = this.#deps;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const startedMs = clock.monotonicMs();
      try {
        await this.#report(limits.pollMs);
        const restMs = this.#gapMs - (clock.monotonicMs() - startedMs);
        if (restMs > 0) await clock.sleep(restMs, signal);
      } catch {
        if (!signal.aborted) await clock.sleep(limits.retryMs, signal).catch(() => {});
      }
    }
  }

  async #report(waitMs: number): Promise<void> {
    const { members, file, ask, isAlive, logger } = this.#deps;
    const { signal } = this.#closing;
    const skipped: WorkerId[] = [];
    const order = members.order(file.id, coordinatorBlock);
    const coordinator = order.find((worker) => {
      if (!members.isSuspected(worker)) return true;
      skipped.push(worker);
      return false;
    });
    const asked = coordinator ?? members.self;
    try {
      const reply = await ask(asked, this.#request(skipped, waitMs), signal);
      members.trust(asked);
      this.#gapMs = reply.gapMs;
      if (reply.table !== this.view.table) this.#version = 0;
      if (reply.version < this.#version) return;
      this.#version = reply.version;
      this.view.learn(reply.table, newsOf(reply));
      this.#wake();
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      const error = toHeadpondError(thrown);
      logger.debug("a coordinator did not answer", { id: file.id, worker: asked, error: error.message });
      if ((error.code === "unavailable" || error.code === "timeout") && asked !== members.self) {
        if (!(await isAlive(asked))) members.suspect(asked);
      }
      throw error;
    }
  }

  #request(skipped: readonly WorkerId[], waitMs: number): ClaimRequest {
    const { file, members, underWay } = this.#deps;
    const underWayNow = underWay();
    return {
      by: members.self,
      workers: members.version,
      skipped: [...skipped].slice(0, 64),
      table: this.view.table ?? "",
      claimsVersion: this.view.claimsVersion,
      version: this.#version,
      session: this.#deps.name,
      sequence: ++this.#sequence,
      have: Buffer.from(file.bitmap()).toString("base64"),
      reading: underWayNow.filter(({ fromOrigin }) => fromOrigin).map(({ block }) => block),
      arriving: underWayNow.filter(({ bytes }) => bytes > 0).map(({ block, bytes }) => [block, bytes]),
      lost: [...this.#lost, ...[...this.#failed].map((block) => [block, members.self] as const)].map(([a, b]) => [
        a,
        b,
      ]),
      wanted: [...this.#wanted].slice(0, 1024),
      done: file.isFull,
      waitMs,
    };
  }

  #wake(): void {
    const { resolve } = this.#change;
    this.#change = Promise.withResolvers();
    resolve();
  }
}
