/**
 * What a worker has with one master: it attaches, reports everything it holds in batches and then what changes, beats, and
 * receives orders. There is one link for each master, so that a new leader knows all at once. When the master is gone the
 * link tries again for ever; the worker goes on without.
 */

import type { Holding, WorkerAddress, WorkerOrder } from "../base/cluster.ts";
import { toHeadpondError } from "../base/errors.ts";
import type { WorkerId } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import { masterService } from "../rpc/master-service.ts";
import type { ReplyOf, RequestOf } from "../rpc/method.ts";
import { ChangeSet } from "./change-set.ts";

type Methods = typeof masterService.methods;
export type HeartbeatRequest = RequestOf<Methods["heartbeat"]>;
export type LoadReport = RequestOf<Methods["reportLoad"]>;
export type DescribeReply = ReplyOf<Methods["describe"]>;

/** One master, as a worker needs it: `RpcMaster` in life, a fake in tests. */
export interface MasterConnection {
  readonly name: string;
  attach(request: RequestOf<Methods["attachWorker"]>, signal: AbortSignal): AsyncIterable<WorkerOrder>;
  reportHoldings(request: RequestOf<Methods["reportHoldings"]>): Promise<unknown>;
  heartbeat(request: HeartbeatRequest): Promise<ReplyOf<Methods["heartbeat"]>>;
  reportLoad(request: LoadReport): Promise<unknown>;
  describe(request: RequestOf<Methods["describe"]>): Promise<DescribeReply>;
  close(): Promise<void>;
}

export type MasterLinkLimits = {
  readonly heartbeatMs: number;
  /** How long changes are gathered before they are reported. */
  readonly reportDelayMs: number;
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
  /** So long at most are bytes kept that masters have not heard to be gone. */
  readonly withdrawTimeoutMs: number;
};

export const masterLinkLimits: MasterLinkLimits = {
  heartbeatMs: 1000,
  reportDelayMs: 200,
  backoffMinMs: 50,
  backoffMaxMs: 1000,
  withdrawTimeoutMs: 1000,
};

/** File versions in one report. */
const batchMax = 1000;
/** Bytes of bitmaps and lists in one report, about. */
const batchBytesMax = 1024 * 1024;

/** What the worker says about itself, when asked. */
export type WorkerView = {
  readonly id: WorkerId;
  readonly incarnation: string;
  readonly software: string;
  readonly address: () => WorkerAddress;
  readonly heartbeat: () => Omit<HeartbeatRequest, "workerId" | "incarnation">;
  /** Everything held, whole. */
  readonly holdings: () => Iterable<Holding>;
  /** The whole holding of one version; undefined: nothing is held. */
  readonly holding: (id: Holding["id"]) => Holding | undefined;
};

export type MasterLinkDependencies = {
  readonly master: MasterConnection;
  readonly worker: WorkerView;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly limits: MasterLinkLimits;
  readonly onOrder: (link: MasterLink, order: WorkerOrder) => Promise<void>;
  /** It could not be attached to, or is not any more. */
  readonly onDetached: () => void;
};

export class MasterLink {
  readonly #deps: MasterLinkDependencies;
  readonly #logger: Logger;
  readonly #closing = new AbortController();
  readonly #loop: Promise<void>;
  readonly changes: ChangeSet;
  #attached = false;
  #leads = false;
  #term = 0;
  #problem: string | undefined;
  #sequence = 0;
  #fullWanted = true;
  #reattach = new AbortController();
  #wakeReporter: () => void = () => {};
  /** Ends the gathering of changes that goes on. */
  #hurry = new AbortController();
  /** Those who wait until everything is reported. */
  #unreported: (() => void)[] = [];

  constructor(dependencies: MasterLinkDependencies) {
    this.#deps = dependencies;
    this.#logger = dependencies.logger.child({ master: dependencies.master.name });
    this.changes = new ChangeSet(dependencies.worker.holding);
    this.#loop = this.#run();
  }

  get master(): MasterConnection {
    return this.#deps.master;
  }

  get isAttached(): boolean {
    return this.#attached;
  }

  /** Why it is not attached, as far as is known: the master is away, or refuses this worker. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Whether it said that it leads when it was last heard. */
  get leads(): boolean {
    return this.#leads;
  }

  /** In which term it leads or stands by, as it said. */
  get term(): number {
    return this.#term;
  }

  /** Ends this attachment, if there is one, and attaches at once. */
  reattach(): void {
    this.#reattach.abort(new Error("the worker's address changed"));
  }

  /** There are changes to report. */
  wake(): void {
    this.#wakeReporter();
  }

  /** What has changed is waited for (a load has ended): it is reported now. */
  hurry(): void {
    this.#hurry.abort();
    this.#wakeReporter();
  }

  /** Resolves when this master has answered for everything that changed before; at once when it is not attached, or not any more. */
  reported(): Promise<void> {
    if (!this.#attached) return Promise.resolve();
    return new Promise((resolve) => {
      this.#unreported.push(resolve);
      this.hurry();
    });
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error("the link is closing"));
    this.#wakeReporter();
    await this.#loop;
    await this.#deps.master.close();
  }

  async #run(): Promise<void> {
    const { clock, random, limits } = this.#deps;
    let failures = 0;
    while (!this.#closing.signal.aborted) {
      if (this.#reattach.signal.aborted) this.#reattach = new AbortController();
      const startedMs = clock.monotonicMs();
      try {
        await this.#attach();
        this.#logger.info("the master ended the stream of orders");
      } catch (error) {
        if (this.#closing.signal.aborted) return;
        this.#noteDetached(error);
      }
      if (clock.monotonicMs() - startedMs > 5000) failures = 0;
      const backoffMs = Math.min(limits.backoffMaxMs, limits.backoffMinMs * 2 ** Math.min(failures, 10));
      failures++;
      const woken = AbortSignal.any([this.#closing.signal, this.#reattach.signal]);
      await clock.sleep(backoffMs * (0.5 + random.float() / 2), woken).catch(() => {});
    }
  }

  #noteDetached(error: unknown): void {
    this.#deps.onDetached();
    if (this.#reattach.signal.aborted) return;
    const { message } = toHeadpondError(error);
    // Once is news, every second of an outage is noise.
    if (message === this.#problem) this.#logger.debug("still not attached to this master", { error: message });
    else this.#logger.warn("not attached to this master", { error: message });
    this.#problem = message;
  }

  async #attach(): Promise<void> {
    const { master, worker, onOrder } = this.#deps;
    const attachment = new AbortController();
    const signal = AbortSignal.any([this.#closing.signal, this.#reattach.signal, attachment.signal]);
    const { capacityBytes } = worker.heartbeat();
    const request = {
      address: worker.address(),
      incarnation: worker.incarnation,
      capacityBytes,
      version: worker.software,
    };
    const background: Promise<void>[] = [];
    const guard = (work: Promise<void>): void => {
      background.push(work.catch((error: unknown) => attachment.abort(error)));
    };
    try {
      for await (const order of master.attach(request, signal)) {
        if (order.kind === "welcome") {
          this.#leads = order.leader;
          this.#term = order.term ?? 0;
          if (!this.#attached) {
            this.#attached = true;
            this.#problem = undefined;
            this.#fullWanted = true;
            await onOrder(this, order);
            guard(this.#beat(signal));
            guard(this.#report(signal));
            continue;
          }
        }
        if (order.kind === "report-all") {
          this.#fullWanted = true;
          this.#wakeReporter();
          continue;
        }
        await onOrder(this, order);
      }
    } finally {
      this.#attached = false;
      this.#leads = false;
      this.#tellReported();
      attachment.abort(attachment.signal.aborted ? attachment.signal.reason : new Error("detached"));
      this.#wakeReporter();
      await Promise.all(background);
    }
  }

  async #beat(signal: AbortSignal): Promise<void> {
    const { master, worker, clock, limits } = this.#deps;
    while (!signal.aborted) {
      await master.heartbeat({ workerId: worker.id, incarnation: worker.incarnation, ...worker.heartbeat() });
      await clock.sleep(limits.heartbeatMs, signal).catch(() => {});
    }
  }

  async #report(signal: AbortSignal): Promise<void> {
    const { clock, limits } = this.#deps;
    while (!signal.aborted) {
      if (this.#fullWanted) {
        this.#fullWanted = false;
        await this.#reportAll(signal);
      }
      if (this.changes.isEmpty) {
        this.#tellReported();
        await new Promise<void>((resolve) => (this.#wakeReporter = resolve));
        await clock.sleep(limits.reportDelayMs, AbortSignal.any([signal, this.#hurry.signal])).catch(() => {});
        if (this.#hurry.signal.aborted) this.#hurry = new AbortController();
        continue;
      }
      const batch = this.changes.take(batchMax);
      await this.#send(batch, false, false);
    }
  }

  #tellReported(): void {
    for (const resolve of this.#unreported.splice(0)) resolve();
  }

  async #reportAll(signal: AbortSignal): Promise<void> {
    this.#sequence = 0;
    // Whatever changes from here on is reported after; what changed before is in the whole.
    this.changes.clear();
    let batch: Holding[] = [];
    let bytes = 0;
    const whole = [...this.#deps.worker.holdings()];
    for (const holding of whole) {
      if (signal.aborted) return;
      batch.push(holding);
      bytes += 64 + (holding.bitmap?.length ?? 0);
      if (batch.length < batchMax && bytes < batchBytesMax) continue;
      await this.#send(batch, true, false);
      batch = [];
      bytes = 0;
    }
    await this.#send(batch, true, true);
  }

  async #send(holdings: readonly Holding[], full: boolean, last: boolean): Promise<void> {
    const { master, worker } = this.#deps;
    await master.reportHoldings({
      workerId: worker.id,
      incarnation: worker.incarnation,
      sequence: this.#sequence++,
      full,
      last,
      holdings: [...holdings],
    });
  }
}
