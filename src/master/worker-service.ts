/**
 * What workers ask of a master: to be registered and given orders, and to be heard. Every master answers, leader or not:
 * that is why a new leader knows at once who holds what.
 */

import type { WorkerOrder } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import type { ClusterId, FileVersionId, WorkerId } from "../base/ids.ts";
import type { MasterList } from "../base/masters.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { ReplyOf, RequestOf } from "../rpc/method.ts";
import type { RequestContext } from "../rpc/server.ts";
import type { Core } from "./core.ts";
import type { Jobs } from "./jobs.ts";
import type { MasterLists } from "./master-lists.ts";
import { storeOptions } from "./mount-options.ts";
import { PushQueue } from "./push-queue.ts";
import type { WorkerRegistry } from "./worker-registry.ts";

type Request<K extends keyof MasterMethods> = RequestOf<MasterMethods[K]>;
type Reply<K extends keyof MasterMethods> = ReplyOf<MasterMethods[K]>;

/** Orders that a worker may be behind; beyond, its stream ends, and it attaches anew. */
const ordersQueuedMax = 10_000;
const versionsPerOrder = 1000;

export class WorkerService {
  readonly #core: Core;
  readonly #registry: WorkerRegistry;
  readonly #jobs: Jobs;
  readonly #clusterId: ClusterId;
  readonly #lists: MasterLists;
  /** The version of the list that each worker was sent last. */
  #pushedVersion = -1;
  #isSettled = false;
  readonly #clock: Clock;
  readonly #listDelayMs: number;
  #listTimer: Timer | undefined;
  #closed = false;
  #endSettling: () => void = () => {};

  constructor(dependencies: {
    readonly core: Core;
    readonly registry: WorkerRegistry;
    readonly jobs: Jobs;
    readonly clusterId: ClusterId;
    readonly lists: MasterLists;
    readonly clock: Clock;
    readonly listDelayMs: number;
  }) {
    this.#core = dependencies.core;
    this.#registry = dependencies.registry;
    this.#jobs = dependencies.jobs;
    this.#clusterId = dependencies.clusterId;
    this.#lists = dependencies.lists;
    this.#clock = dependencies.clock;
    this.#listDelayMs = dependencies.listDelayMs;
  }

  /**
   * A new leader sends no list before the workers had time to register with it: a short list would make wrong owners. Resolves
   * when they had, or when it leads no more.
   */
  settleIn(waitMs: number): Promise<void> {
    this.unsettle();
    this.#pushedVersion = -1;
    if (waitMs <= 0) {
      this.#settled();
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const timer = this.#clock.timer(waitMs, () => {
        this.#settled();
        resolve();
      });
      this.#endSettling = () => {
        timer.clear();
        resolve();
      };
    });
  }

  unsettle(): void {
    this.#isSettled = false;
    this.#endSettling();
    this.#endSettling = () => {};
  }

  #settled(): void {
    this.#isSettled = true;
    this.pushWorkerList();
  }

  async *attachWorker(request: Request<"attachWorker">, context: RequestContext): AsyncGenerator<WorkerOrder> {
    const { id } = request.address;
    const { clusterId } = context.peer;
    if (clusterId !== undefined && clusterId !== this.#clusterId) {
      throw new HeadpondError("denied", `worker ${id} belongs to cluster ${clusterId}, this is ${this.#clusterId}`);
    }
    const orders = new PushQueue<WorkerOrder>({ name: `orders to worker ${id}`, limit: ordersQueuedMax });
    const isLeader = this.#core.leads;
    this.#registry.attach(request, orders, this.#welcome());
    const onAbort = (): void => orders.end();
    context.signal.addEventListener("abort", onAbort, { once: true });
    try {
      orders.push({ kind: "masters", list: this.#lists.current });
      if (isLeader) {
        orders.push(this.#mountsOrder());
        if (this.#isSettled) orders.push({ kind: "workers", list: this.#registry.list });
      }
      yield* orders;
    } finally {
      context.signal.removeEventListener("abort", onAbort);
      this.#registry.detach(id, orders);
    }
  }

  reportHoldings(request: Request<"reportHoldings">): Reply<"reportHoldings"> {
    this.#registry.report(request);
    return {};
  }

  heartbeat(request: Request<"heartbeat">): Reply<"heartbeat"> {
    this.#registry.heartbeat(request);
    return { workersVersion: this.#core.leads ? this.#registry.list.version : 0 };
  }

  reportLoad(request: Request<"reportLoad">): Reply<"reportLoad"> {
    this.#registry.check(request.workerId, request.incarnation);
    if (this.#core.leads) this.#jobs.reported(request.workerId, request.jobId, request.files);
    return {};
  }

  /** Sends the list a little later: a thousand workers that register at once make a few lists, not a thousand for each of them. */
  pushListSoon(): void {
    if (this.#closed) return;
    this.#listTimer ??= this.#clock.timer(this.#listDelayMs, () => {
      this.#listTimer = undefined;
      this.pushWorkerList();
    });
  }

  close(): void {
    this.#closed = true;
    this.#listTimer?.clear();
    this.unsettle();
  }

  /** Sends the list to all workers, if it has changed since it was sent last. */
  pushWorkerList(): void {
    if (!this.#isSettled || !this.#core.leads) return;
    const { list } = this.#registry;
    if (list.version === this.#pushedVersion) return;
    this.#pushedVersion = list.version;
    this.#pushAll({ kind: "workers", list });
  }

  pushMounts(): void {
    if (this.#core.leads) this.#pushAll(this.#mountsOrder());
  }

  /** Tells every worker whether this master leads. */
  pushRole(): void {
    this.#pushAll(this.#welcome());
  }

  /** Tells every worker who the masters are: also a standby does. */
  pushMasters(list: MasterList): void {
    this.#pushAll({ kind: "masters", list });
  }

  free(byWorker: ReadonlyMap<WorkerId, readonly FileVersionId[]>): void {
    for (const [id, versions] of byWorker) {
      for (let at = 0; at < versions.length; at += versionsPerOrder) {
        this.#push(id, { kind: "free", versions: versions.slice(at, at + versionsPerOrder) });
      }
    }
  }

  pin(byWorker: ReadonlyMap<WorkerId, readonly FileVersionId[]>, pinned: boolean): void {
    for (const [id, versions] of byWorker) {
      for (let at = 0; at < versions.length; at += versionsPerOrder) {
        this.#push(id, { kind: "pin", versions: versions.slice(at, at + versionsPerOrder), pinned });
      }
    }
  }

  #push(id: WorkerId, order: WorkerOrder): void {
    this.#registry.get(id)?.sink?.push(order);
  }

  #pushAll(order: WorkerOrder): void {
    for (const { sink } of this.#registry.all()) sink?.push(order);
  }

  #welcome(): WorkerOrder {
    const { term } = this.#core.journal.status();
    return { kind: "welcome", clusterId: this.#clusterId, leader: this.#core.leads, term };
  }

  #mountsOrder(): WorkerOrder {
    const mounts = this.#core.mounts().map(({ id, path, uri, readOnly, options }) => {
      return { id, path, uri, readOnly, options: storeOptions(options) };
    });
    return { kind: "mounts", mounts };
  }
}
