/**
 * The workers that a master knows: who is attached, under which incarnation, what each reported last, who is lost. Every
 * worker reports to every master; only the leader's list is sent to the workers, with a version that no other leader gives
 * (`term * 2^22 + n`), so that two views with one version never make two owners.
 *
 * A worker is lost when its stream has been broken, or it has been silent, for a while on the monotonic clock. What it
 * holds is forgotten then, and reported anew when it comes back. Synchronous: timers and streams are the callers'.
 */

import { assert } from "../base/assert.ts";
import type { Holding, WorkerAddress, WorkerList, WorkerOrder, WorkerState, WorkerStatus } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import type { WorkerId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { BlockMap } from "./block-map.ts";

export type WorkerRegistryLimits = {
  readonly workersMax: number;
  /** A worker whose stream has broken is lost after this. */
  readonly lossTimeoutMs: number;
  /** So long may a worker whose stream looks alive be silent. */
  readonly silenceTimeoutMs: number;
  /** Lost workers are shown for so long, and not more of them than `workersMax`. */
  readonly lostKeptMs: number;
};

export const workerRegistryLimits: WorkerRegistryLimits = {
  workersMax: 10_000,
  lossTimeoutMs: 5000,
  silenceTimeoutMs: 30_000,
  lostKeptMs: 600_000,
};

/** Lists of one term fit below this; see the header. */
const listsPerTerm = 2 ** 22;

export type Attach = {
  readonly address: WorkerAddress;
  readonly incarnation: string;
  readonly capacityBytes: number;
  readonly version: string;
};

/** How orders reach a worker; made by whoever holds its stream. */
export type OrderSink = { push(order: WorkerOrder): boolean; end(error?: Error): void };

export type HoldingsReport = {
  readonly workerId: WorkerId;
  readonly incarnation: string;
  readonly sequence: number;
  readonly full: boolean;
  readonly last: boolean;
  readonly holdings: readonly Holding[];
};

export type Heartbeat = {
  readonly workerId: WorkerId;
  readonly incarnation: string;
  readonly usedBytes: number;
  readonly capacityBytes: number;
  readonly keptBytes?: number;
  readonly originBytes: number;
  readonly originRate: number;
  readonly peerRate: number;
  readonly problems: readonly string[];
};

export type RegisteredWorker = {
  readonly id: WorkerId;
  address: WorkerAddress;
  incarnation: string;
  state: WorkerState;
  sink: OrderSink | undefined;
  /** Monotonic time of the last sign of life; of a broken stream, when it broke. */
  seenMonotonicMs: number;
  seenWallMs: number;
  /** The sequence that the next report must carry; undefined: only a full report will do. */
  nextSequence: number | undefined;
  /** Since it attached it has not reported everything yet. */
  isReporting: boolean;
  capacityBytes: number;
  usedBytes: number;
  /** Of its cache: what no eviction may take. */
  keptBytes: number;
  originBytes: number;
  originRate: number;
  peerRate: number;
  problems: readonly string[];
};

export type RegistryEvents = {
  /**
   * It has reported everything since it attached: from now on it counts. Also when it attached again within its life:
   * orders that were on their way down the old stream are lost.
   */
  readonly onLive: (worker: RegisteredWorker) => void;
  readonly onLost: (worker: RegisteredWorker) => void;
};

export class WorkerRegistry {
  readonly #blockMap: BlockMap;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #limits: WorkerRegistryLimits;
  readonly #workers = new Map<WorkerId, RegisteredWorker>();
  #events: RegistryEvents = { onLive: () => {}, onLost: () => {} };
  /** Whose `live` is `draining`. */
  #draining: ReadonlySet<WorkerId> = new Set();
  #listVersion = 0;
  #list: WorkerList | undefined;

  constructor(dependencies: {
    readonly blockMap: BlockMap;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly limits?: Partial<WorkerRegistryLimits>;
  }) {
    this.#blockMap = dependencies.blockMap;
    this.#clock = dependencies.clock;
    this.#logger = dependencies.logger;
    this.#limits = { ...workerRegistryLimits, ...dependencies.limits };
  }

  listen(events: RegistryEvents): void {
    this.#events = events;
  }

  /** The leader's lists begin anew with each term. */
  beginTerm(term: number): void {
    this.#listVersion = Math.max(this.#listVersion + 1, term * listsPerTerm);
    this.#list = undefined;
  }

  /** The workers that count, with the version of this view. The same object until it changes. */
  get list(): WorkerList {
    if (this.#list === undefined) {
      const workers = [...this.#workers.values()]
        .filter(({ state }) => isServing(state))
        .map(({ address, state }): WorkerAddress => (state === "draining" ? { ...address, draining: true } : address));
      workers.sort((a, b) => (a.id < b.id ? -1 : 1));
      this.#list = { version: this.#listVersion, workers };
    }
    return this.#list;
  }

  get(id: WorkerId): RegisteredWorker | undefined {
    return this.#workers.get(id);
  }

  all(): IterableIterator<RegisteredWorker> {
    return this.#workers.values();
  }

  /** Those that new bytes may be brought to. */
  live(): RegisteredWorker[] {
    return [...this.#workers.values()].filter(({ state }) => state === "live");
  }

  /** Those that give what they hold: the draining ones too. */
  serving(): RegisteredWorker[] {
    return [...this.#workers.values()].filter(({ state }) => isServing(state));
  }

  /** These are to be emptied: they serve, but nothing new is brought to them. Also such that are not attached now. */
  setDraining(ids: ReadonlySet<WorkerId>): void {
    this.#draining = ids;
    for (const worker of this.#workers.values()) {
      if (isServing(worker.state)) this.#setState(worker, "live");
    }
  }

  /**
   * `welcome` is the first order that goes down the stream. Throws `already-exists` when another process uses the worker's
   * id, `overloaded` when there are too many workers.
   */
  attach(attach: Attach, sink: OrderSink, welcome: WorkerOrder): RegisteredWorker {
    const { id } = attach.address;
    const known = this.#workers.get(id);
    if (known !== undefined) {
      this.#refuseDuplicate(known, attach);
      const sameLife = known.incarnation === attach.incarnation && known.state !== "lost";
      known.sink?.end(new HeadpondError("cancelled", `worker ${id} has attached again, at ${attach.address.data}`));
      known.sink = sink;
      known.isReporting = true;
      sink.push(welcome);
      this.#see(known);
      known.capacityBytes = attach.capacityBytes;
      const moved = JSON.stringify(known.address) !== JSON.stringify(attach.address);
      known.address = attach.address;
      if (sameLife) {
        if (moved && isServing(known.state)) this.#changeList();
        // The order to report anew may have been lost with the stream.
        if (known.nextSequence === undefined) sink.push({ kind: "report-all" });
        return known;
      }
      this.#blockMap.removeWorker(id);
      this.#blockMap.addWorker(id);
      this.#setState(known, "registering");
      known.incarnation = attach.incarnation;
      known.nextSequence = undefined;
      known.originBytes = 0;
      known.problems = [];
      return known;
    }
    if (this.#workers.size >= this.#limits.workersMax) {
      throw new HeadpondError("overloaded", `there are ${this.#workers.size} workers already, no more are taken`);
    }
    const worker: RegisteredWorker = {
      id,
      address: attach.address,
      incarnation: attach.incarnation,
      state: "registering",
      sink,
      seenMonotonicMs: this.#clock.monotonicMs(),
      seenWallMs: this.#clock.wallMs(),
      nextSequence: undefined,
      isReporting: true,
      capacityBytes: attach.capacityBytes,
      usedBytes: 0,
      keptBytes: 0,
      originBytes: 0,
      originRate: 0,
      peerRate: 0,
      problems: [],
    };
    this.#workers.set(id, worker);
    this.#blockMap.addWorker(id);
    sink.push(welcome);
    return worker;
  }

  /** The worker's stream has ended. The clock of its loss starts, unless it has opened another one. */
  detach(id: WorkerId, sink: OrderSink): void {
    const worker = this.#workers.get(id);
    if (worker?.sink !== sink) return;
    worker.sink = undefined;
    worker.seenMonotonicMs = this.#clock.monotonicMs();
  }

  /** Throws `not-found` when the worker has to attach (again) first. */
  report(report: HoldingsReport): void {
    const worker = this.#seen(report.workerId, report.incarnation);
    const begins = report.full && report.sequence === 0;
    if (!begins && report.sequence !== worker.nextSequence) {
      // Something was lost on the way: what is known stays until the full report has come.
      if (worker.nextSequence !== undefined) worker.sink?.push({ kind: "report-all" });
      worker.nextSequence = undefined;
      return;
    }
    if (begins) this.#blockMap.beginFull(worker.id);
    worker.nextSequence = report.sequence + 1;
    let refused = 0;
    for (const holding of report.holdings) {
      if (!this.#blockMap.report(worker.id, holding)) refused++;
    }
    if (refused > 0) {
      this.#logger.warn("no room for what a worker reported", { worker: worker.id, refused });
    }
    if (!report.full || !report.last) return;
    this.#blockMap.endFull(worker.id);
    if (!worker.isReporting) return;
    worker.isReporting = false;
    this.#setState(worker, "live");
    this.#events.onLive(worker);
  }

  /** Throws `not-found` as `report`. */
  heartbeat(beat: Heartbeat): void {
    const worker = this.#seen(beat.workerId, beat.incarnation);
    worker.usedBytes = beat.usedBytes;
    worker.capacityBytes = beat.capacityBytes;
    worker.keptBytes = beat.keptBytes ?? 0;
    worker.originBytes = beat.originBytes;
    worker.originRate = beat.originRate;
    worker.peerRate = beat.peerRate;
    worker.problems = beat.problems;
  }

  /** The worker, when it is attached under this incarnation; it counts as a sign of life. Throws `not-found`. */
  #seen(id: WorkerId, incarnation: string): RegisteredWorker {
    const worker = this.#workers.get(id);
    if (worker === undefined || worker.state === "lost" || worker.incarnation !== incarnation) {
      throw new HeadpondError("not-found", `worker ${id} is not attached in this life (${incarnation}): attach first`);
    }
    this.#see(worker);
    return worker;
  }

  /** As `#seen`, for other calls of a worker. */
  check(id: WorkerId, incarnation: string): RegisteredWorker {
    return this.#seen(id, incarnation);
  }

  /** Finds the lost. To be called a few times in each `lossTimeoutMs`. */
  tick(): void {
    const now = this.#clock.monotonicMs();
    for (const worker of this.#workers.values()) {
      const silentMs = now - worker.seenMonotonicMs;
      if (worker.state === "lost") {
        if (silentMs > this.#limits.lostKeptMs) this.#workers.delete(worker.id);
        continue;
      }
      const timeoutMs = worker.sink === undefined ? this.#limits.lossTimeoutMs : this.#limits.silenceTimeoutMs;
      if (silentMs <= timeoutMs) continue;
      this.#logger.warn("worker is lost", { worker: worker.id, silentMs: Math.round(silentMs) });
      worker.sink?.end(new HeadpondError("timeout", `worker ${worker.id} was silent for ${Math.round(silentMs)} ms`));
      worker.sink = undefined;
      worker.nextSequence = undefined;
      this.#blockMap.removeWorker(worker.id);
      this.#setState(worker, "lost");
      this.#events.onLost(worker);
    }
  }

  statuses(): WorkerStatus[] {
    const result = [...this.#workers.values()].map(
      (worker): WorkerStatus => ({
        id: worker.id,
        place: worker.address.place,
        state: worker.state,
        data: worker.address.data,
        http: worker.address.http,
        gateways: worker.address.gateways,
        capacityBytes: worker.capacityBytes,
        usedBytes: worker.usedBytes,
        files: this.#blockMap.heldCount(worker.id),
        originBytes: worker.originBytes,
        lastSeenMs: worker.seenWallMs,
        problems: [...worker.problems],
      }),
    );
    return result.sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /**
   * Another process under the same id is refused, unless the known one has gone: its stream is broken, or the new one
   * listens where it did (a port has one listener: the old process is dead and its connection half open).
   */
  #refuseDuplicate(known: RegisteredWorker, attach: Attach): void {
    if (known.incarnation === attach.incarnation || known.sink === undefined || known.state === "lost") return;
    if (known.address.data === attach.address.data && known.address.place === attach.address.place) return;
    if (this.#clock.monotonicMs() - known.seenMonotonicMs > this.#limits.lossTimeoutMs) return;
    throw new HeadpondError(
      "already-exists",
      `worker id ${known.id} is in use by a live worker at ${known.address.data}: give the one at ${attach.address.data} ` +
        "another id, or stop the other one first",
    );
  }

  #see(worker: RegisteredWorker): void {
    worker.seenMonotonicMs = this.#clock.monotonicMs();
    worker.seenWallMs = this.#clock.wallMs();
  }

  #setState(worker: RegisteredWorker, wanted: WorkerState): void {
    const state = wanted === "live" && this.#draining.has(worker.id) ? "draining" : wanted;
    if (worker.state === state) return;
    const counted = isServing(worker.state);
    worker.state = state;
    if (counted || isServing(state)) this.#changeList();
  }

  #changeList(): void {
    this.#listVersion++;
    assert(Number.isSafeInteger(this.#listVersion), "versions of the list of workers are safe integers");
    this.#list = undefined;
  }
}

export function isServing(state: WorkerState | undefined): boolean {
  return state === "live" || state === "draining";
}
