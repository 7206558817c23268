/**
 * Many workers that load one file, with the scheduling code of the real ones (claim table, views, routes, attempts) over a network of
 * links with rates. Time goes in steps; in a step the bytes of all transfers flow at max-min fair rates, limited by each worker's links,
 * the origin's, and by what the source itself has: bytes that arrive in a step can leave in the next, so a step is also the time per hop.
 *
 * Leaves out: packets, disks, processors, and several files at once.
 */

import { BlockBitmap } from "../base/blocks.ts";
import { AttemptWatch, attemptLimits } from "../base/claim-attempt.ts";
import { type ClaimLimits, ClaimTable, claimLimits } from "../base/claim-table.ts";
import { ClaimView } from "../base/claim-view.ts";
import type { BlockIndex, WorkerId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { FairShares } from "./fair-shares.ts";

export type FleetCase = {
  readonly seed: number;
  readonly workers: number;
  readonly fileBytes: number;
  readonly blockBytes: number;
  readonly linkBytesPerSecond: number;
  readonly originBytesPerSecond: number;
  readonly stepMs: number;
  /** From a question to its answer. */
  readonly roundTripMs: number;
  /** Between two reports of a worker. */
  readonly reportMs: number;
  /** Orders reach workers within so long. */
  readonly startWithinMs?: number;
  /** Links of some workers, by number. */
  readonly slow?: ReadonlyMap<number, number>;
  readonly kill?: readonly { readonly worker: number; readonly atMs: number; readonly backMs?: number }[];
  /** Workers whose bytes stop while they go on to answer. */
  readonly stall?: readonly { readonly worker: number; readonly atMs: number; readonly forMs: number }[];
  readonly limits?: Partial<ClaimLimits>;
  readonly timeoutMs?: number;
};

export type FleetOutcome = {
  /** Of each worker; undefined: it never had everything. */
  readonly doneMs: readonly (number | undefined)[];
  readonly originBytes: number;
  readonly steps: number;
};

/** Blocks of a file that a worker asks for at once, and those whose bytes come at once. */
const aheadMax = 24;

type Transfer = {
  readonly block: number;
  bytes: number;
  /** Undefined: the origin. */
  source: SimWorker | undefined;
  route: readonly WorkerId[];
  at: number;
  claimant: WorkerId;
  watch: AttemptWatch;
  plan: object;
  lookAtMs: number;
};

type SimWorker = {
  readonly id: WorkerId;
  readonly number: number;
  view: ClaimView;
  have: BlockBitmap;
  readonly transfers: Map<number, Transfer>;
  /** Position in `view.claimed` up to which blocks were begun. */
  begun: number;
  version: number;
  nextReportMs: number;
  toldMs: number;
  alive: boolean;
  doneMs: number | undefined;
  lost: Map<number, WorkerId>;
};

export class FleetSimulator {
  readonly #case: FleetCase;
  readonly #random: Random;
  readonly #workers: SimWorker[] = [];
  readonly #byId = new Map<WorkerId, SimWorker>();
  readonly #blockCount: number;
  readonly #shares: FairShares;
  #table: ClaimTable | undefined;
  #tableName = "";
  #tables = 0;
  #coordinator = 0;
  #toldVersion: number | undefined;
  #nowMs = 0;
  #originBytes = 0;
  /** What happens later: answers on their way, deaths seen. */
  #later: { readonly atMs: number; readonly run: () => void }[] = [];

  constructor(fleet: FleetCase) {
    this.#case = fleet;
    this.#random = new Random(fleet.seed);
    this.#blockCount = Math.ceil(fleet.fileBytes / fleet.blockBytes);
    for (let number = 0; number < fleet.workers; number++) {
      const id = `w${number}` as WorkerId;
      const worker: SimWorker = { ...this.#fresh(id), id, number, transfers: new Map(), alive: true };
      this.#workers.push(worker);
      this.#byId.set(id, worker);
    }
    // Links: the origin's, each worker's out, each worker's in.
    const rates = [
      fleet.originBytesPerSecond,
      ...this.#workers.map((w) => this.#rate(w)),
      ...this.#workers.map((w) => this.#rate(w)),
    ];
    this.#shares = new FairShares(rates.map((rate) => (rate * fleet.stepMs) / 1000));
    for (const { worker, atMs, backMs } of fleet.kill ?? []) {
      this.#at(atMs, () => this.#kill(worker));
      if (backMs !== undefined) this.#at(backMs, () => this.#restart(worker));
    }
    for (const { worker, atMs, forMs } of fleet.stall ?? []) {
      this.#at(atMs, () => this.#setRate(worker, 0));
      this.#at(atMs + forMs, () => this.#setRate(worker, this.#rate(this.#workers[worker] as SimWorker)));
    }
  }

  get table(): ClaimTable | undefined {
    return this.#table;
  }

  /** Until everybody alive has everything. Throws when that takes longer than `timeoutMs` of simulated time. */
  run(): FleetOutcome {
    const { stepMs, timeoutMs = 600_000 } = this.#case;
    let steps = 0;
    for (; !this.#workers.every(({ alive, doneMs }) => !alive || doneMs !== undefined); steps++) {
      this.#nowMs = steps * stepMs;
      if (this.#nowMs > timeoutMs)
        throw new Error(`seed ${this.#case.seed}: not done after ${timeoutMs} ms: ${this.#state()}`);
      this.#runLater();
      this.#table?.tick(this.#nowMs);
      for (const worker of this.#workers) if (worker.alive) this.#turn(worker);
      this.#tellAll();
      this.#flow();
    }
    return { doneMs: this.#workers.map(({ doneMs }) => doneMs), originBytes: this.#originBytes, steps };
  }

  #fresh(id: WorkerId): Omit<SimWorker, "id" | "number" | "transfers" | "alive"> {
    const startMs = this.#random.between(0, this.#case.startWithinMs ?? 20);
    return {
      view: new ClaimView(id),
      have: new BlockBitmap(this.#blockCount),
      begun: 0,
      version: -1,
      nextReportMs: this.#nowMs + startMs,
      toldMs: -1,
      doneMs: undefined,
      lost: new Map(),
    };
  }

  #rate({ number }: SimWorker): number {
    return this.#case.slow?.get(number) ?? this.#case.linkBytesPerSecond;
  }

  #setRate(number: number, rate: number): void {
    const perStep = (rate * this.#case.stepMs) / 1000;
    this.#shares.setCapacity(1 + number, perStep);
    this.#shares.setCapacity(1 + this.#workers.length + number, perStep);
  }

  #at(atMs: number, run: () => void): void {
    this.#later.push({ atMs, run });
  }

  #runLater(): void {
    const due = this.#later.filter(({ atMs }) => atMs <= this.#nowMs);
    if (due.length === 0) return;
    this.#later = this.#later.filter(({ atMs }) => atMs > this.#nowMs);
    for (const { run } of due) run();
  }

  #turn(worker: SimWorker): void {
    if (worker.nextReportMs <= this.#nowMs && worker.doneMs === undefined) this.#report(worker);
    this.#begin(worker);
    for (const transfer of worker.transfers.values()) {
      if (transfer.lookAtMs <= this.#nowMs) this.#look(worker, transfer);
    }
  }

  /** To the coordinator and back: it takes effect there at once, and is known here one round trip later. */
  #report(worker: SimWorker): void {
    const { reportMs, roundTripMs } = this.#case;
    worker.nextReportMs = this.#nowMs + Math.max(reportMs, this.#workers.length * 0.25);
    const coordinator = this.#workers[this.#coordinator] as SimWorker;
    if (!coordinator.alive) {
      // Its connection is refused: everybody goes to the next one.
      this.#coordinator = this.#workers.findIndex(({ alive }) => alive);
      this.#table = undefined;
    }
    if (this.#table === undefined) {
      this.#tableName = `table ${++this.#tables}`;
      this.#table = new ClaimTable({
        blockCount: this.#blockCount,
        blockSizeBytes: this.#case.blockBytes,
        limits: { ...claimLimits, ...this.#case.limits },
        nowMs: this.#nowMs,
        expected: this.#workers.filter(({ alive }) => alive).length,
        rankOf: (id) => id.slice(1).padStart(6, "0"),
      });
    }
    const table = this.#table;
    const name = this.#tableName;
    const transfers = [...worker.transfers.values()];
    table.report(
      {
        worker: worker.id,
        session: "",
        sequence: this.#nowMs,
        have: worker.have,
        reading: transfers
          .filter(({ source, claimant }) => source === undefined && claimant === worker.id)
          .map(({ block }) => block),
        arriving: transfers.filter(({ bytes }) => bytes > 0).map(({ block, bytes }) => [block, bytes]),
        lost: [...worker.lost],
        wanted: [],
        done: worker.have.isFull,
        succeeds: worker.view.table !== undefined && worker.view.table !== name,
      },
      this.#nowMs,
    );
    worker.lost.clear();
    this.#tell(worker, this.#nowMs + roundTripMs);
  }

  /** What is new at the coordinator reaches the worker. */
  #tell(worker: SimWorker, atMs: number): void {
    const { view } = worker;
    const table = this.#table;
    const name = this.#tableName;
    if (table === undefined || worker.toldMs >= atMs) return;
    worker.toldMs = atMs;
    this.#at(atMs, () => {
      if (worker.view === view && this.#table === table) view.learn(name, table.news(view.sinceOf(name)));
    });
  }

  /** Reports wait at the coordinator for news: they are answered as soon as there is some. */
  #tellAll(): void {
    const version = this.#table?.version;
    if (version === this.#toldVersion) return;
    this.#toldVersion = version;
    const gapMs = Math.max(10, this.#workers.length * 0.25);
    for (const worker of this.#workers) {
      this.#tell(worker, Math.max(this.#nowMs + this.#case.roundTripMs / 2, worker.toldMs + gapMs));
    }
  }

  #begin(worker: SimWorker): void {
    const { claimed } = worker.view;
    while (worker.transfers.size < aheadMax && worker.begun < claimed.length) {
      const block = claimed[worker.begun++] as number;
      if (!worker.have.has(block as BlockIndex)) this.#open(worker, block, 0);
    }
  }

  #open(worker: SimWorker, block: number, bytes: number): void {
    const claimant = worker.view.claimant(block) as WorkerId;
    const route = worker.view.route(block) ?? [];
    const transfer: Transfer = {
      block,
      bytes,
      source: undefined,
      route,
      at: 0,
      claimant,
      watch: new AttemptWatch(bytes, this.#nowMs),
      plan: worker.view.plan,
      lookAtMs: this.#nowMs + attemptLimits.lookMs,
    };
    worker.transfers.set(block, transfer);
    if (claimant !== worker.id) this.#ask(worker, transfer, 0);
  }

  /** Asks the neighbour at place `at` of the route, or whoever of those behind him is alive; else the block is lost. */
  #ask(worker: SimWorker, transfer: Transfer, at: number): void {
    for (let place = at; place < transfer.route.length; place++) {
      const source = this.#byId.get(transfer.route[place] as WorkerId);
      if (source === undefined || !source.alive) continue;
      transfer.at = place;
      transfer.source = source;
      transfer.watch = new AttemptWatch(transfer.bytes, this.#nowMs);
      transfer.lookAtMs = this.#nowMs + attemptLimits.lookMs;
      source.view.hear(transfer.block, transfer.claimant);
      return;
    }
    worker.lost.set(transfer.block, transfer.claimant);
    worker.nextReportMs = Math.min(worker.nextReportMs, this.#nowMs);
    if (this.#byId.get(transfer.claimant)?.alive !== true) {
      // The coordinator looks whether it lives.
      this.#at(this.#nowMs + this.#case.roundTripMs, () => this.#table?.drop(transfer.claimant));
    }
    this.#at(this.#nowMs + 300, () => {
      if (worker.transfers.get(transfer.block) === transfer) this.#reopen(worker, transfer);
    });
    transfer.source = worker;
  }

  #reopen(worker: SimWorker, transfer: Transfer): void {
    worker.transfers.delete(transfer.block);
    this.#open(worker, transfer.block, transfer.bytes);
  }

  #look(worker: SimWorker, transfer: Transfer): void {
    transfer.lookAtMs = this.#nowMs + attemptLimits.lookMs;
    const { source, claimant, block, plan } = transfer;
    // Our claim went to somebody else.
    if (source === undefined && worker.view.claimant(block) !== worker.id) return this.#reopen(worker, transfer);
    if (source === undefined || source === worker) {
      // Waits for a lost block that has an owner by now.
      if (source === worker && worker.view.claimant(block) !== claimant) this.#reopen(worker, transfer);
      return;
    }
    if (!source.alive) return this.#ask(worker, transfer, transfer.at + 1);
    const isBest = worker.view.plan === plan || worker.view.route(block)?.[0] === source.id;
    const verdict = transfer.watch.look(transfer.bytes, this.#nowMs, {
      isBest,
      isClaimant: source.id === claimant,
      isApart: !worker.view.plan.ring.includes(source.id),
    });
    if (verdict === "stalled") this.#ask(worker, transfer, transfer.at + 1);
    if (verdict === "reroute") this.#reopen(worker, transfer);
  }

  #flow(): void {
    const shares = this.#shares;
    const count = this.#workers.length;
    const moving: { readonly worker: SimWorker; readonly transfer: Transfer }[] = [];
    shares.begin();
    for (const worker of this.#workers) {
      if (!worker.alive) continue;
      for (const transfer of worker.transfers.values()) {
        const want = this.#available(worker, transfer) - transfer.bytes;
        if (want <= 0) continue;
        const out = transfer.source === undefined ? 0 : 1 + transfer.source.number;
        shares.add(out, 1 + count + worker.number, want);
        moving.push({ worker, transfer });
      }
    }
    const amounts = shares.share();
    // Two passes: what arrives in this step leaves in the next one.
    for (const [i, { worker, transfer }] of moving.entries()) {
      const bytes = amounts[i] as number;
      transfer.bytes += bytes;
      if (transfer.source === undefined) this.#originBytes += bytes;
      if (transfer.bytes >= this.#length(transfer.block) - 0.5) this.#finish(worker, transfer);
    }
  }

  #available(worker: SimWorker, { source, block, claimant }: Transfer): number {
    if (source === undefined) return claimant === worker.id ? this.#length(block) : 0;
    if (source === worker) return 0;
    if (source.have.has(block as BlockIndex)) return this.#length(block);
    return source.transfers.get(block)?.bytes ?? 0;
  }

  #length(block: number): number {
    const { fileBytes, blockBytes } = this.#case;
    return Math.min(blockBytes, fileBytes - block * blockBytes);
  }

  #finish(worker: SimWorker, { block, claimant }: Transfer): void {
    worker.transfers.delete(block);
    worker.have.add(block as BlockIndex);
    if (claimant === worker.id) worker.nextReportMs = Math.min(worker.nextReportMs, this.#nowMs);
    if (!worker.have.isFull) return;
    worker.doneMs = this.#nowMs + this.#case.stepMs;
    this.#report(worker);
  }

  #kill(number: number): void {
    const worker = this.#workers[number] as SimWorker;
    worker.alive = false;
    worker.transfers.clear();
    worker.doneMs = undefined;
  }

  /** With what it held on its disk. */
  #restart(number: number): void {
    const worker = this.#workers[number] as SimWorker;
    const { have } = worker;
    Object.assign(worker, this.#fresh(worker.id), { have, alive: true });
    if (have.isFull) worker.doneMs = this.#nowMs;
  }

  #state(): string {
    return this.#workers
      .map(({ id, alive, have, transfers }) => {
        const waits = [...transfers.values()].map(
          ({ block, source, claimant }) => `${block}<${source?.id ?? "origin"}(${claimant})`,
        );
        return `${id}${alive ? "" : "+"} ${have.count} ${waits.slice(0, 4).join(",")}`;
      })
      .slice(0, 40)
      .join("; ");
  }
}

/** max(S/origin, S/link, N S/(origin + all links)), in milliseconds. */
export function boundMs({ fileBytes, workers, linkBytesPerSecond, originBytesPerSecond }: FleetCase): number {
  const all = originBytesPerSecond + workers * linkBytesPerSecond;
  return 1000 * Math.max(fileBytes / originBytesPerSecond, fileBytes / linkBytesPerSecond, (workers * fileBytes) / all);
}
