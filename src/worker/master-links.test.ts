/** A worker and several masters: who is linked to, and whose orders count. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Holding, WorkerOrder } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import type { FileVersionId, MasterId, WorkerId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { hedged } from "./hedged.ts";
import { type MasterConnection, masterLinkLimits } from "./master-link.ts";
import { MasterLinks } from "./master-links.ts";

/** One master as a worker sees it, by its address. */
class FakeMaster {
  readonly address: string;
  isUp = true;
  closed = false;
  readonly reported: FileVersionId[] = [];
  /** Answers to reports wait for it. */
  holdBack: Promise<void> = Promise.resolve();
  #queue: WorkerOrder[] = [];
  #wake: () => void = () => {};
  attached = 0;

  constructor(address: string) {
    this.address = address;
  }

  push(...orders: readonly WorkerOrder[]): void {
    this.#queue.push(...orders);
    this.#wake();
  }

  welcome(leader: boolean, term: number): void {
    this.push({ kind: "welcome", clusterId: "c" as never, leader, term });
  }

  goAway(): void {
    this.isUp = false;
    this.#wake();
  }

  connection(): MasterConnection {
    return {
      name: this.address,
      attach: (_request, signal) => this.#attach(signal),
      reportHoldings: async ({ holdings }) => {
        this.reported.push(...holdings.map(({ id }) => id));
        await this.holdBack;
      },
      heartbeat: async () => ({ workersVersion: 0 }),
      reportLoad: async () => {},
      describe: () => Promise.reject(new HeadpondError("not-found", "none")),
      close: async () => {
        this.closed = true;
      },
    };
  }

  async *#attach(signal: AbortSignal): AsyncGenerator<WorkerOrder> {
    this.closed = false;
    this.attached++;
    signal.addEventListener("abort", () => this.#wake());
    while (!signal.aborted && this.isUp) {
      const order = this.#queue.shift();
      if (order !== undefined) yield order;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    throw new HeadpondError("unavailable", "away");
  }
}

class TestWorker implements AsyncDisposable {
  readonly clock = new ManualClock();
  readonly masters = new Map<string, FakeMaster>();
  readonly obeyed: string[] = [];
  readonly links: MasterLinks;

  constructor(given: readonly string[]) {
    const holding: Holding = { id: "7-1" as FileVersionId, blockCount: 1, complete: true, originBytes: 0 };
    this.links = new MasterLinks({
      masters: given.map((address) => this.master(address).connection()),
      connect: (address) => this.master(address).connection(),
      clock: this.clock,
      random: new Random(1),
      logger: silentLogger,
      limits: masterLinkLimits,
      onOrder: async (order) => {
        if (order.kind !== "welcome") this.obeyed.push(order.kind);
      },
      worker: {
        id: "w1" as WorkerId,
        incarnation: "incarnation",
        software: "1",
        address: () => ({ id: "w1" as WorkerId, place: "a/b/c/d" as never, data: "d", http: "h", gateways: {} }),
        heartbeat: () => ({ usedBytes: 0, capacityBytes: 1, originBytes: 0, originRate: 0, peerRate: 0, problems: [] }),
        holdings: () => [holding],
        holding: () => holding,
      },
    });
  }

  master(address: string): FakeMaster {
    let master = this.masters.get(address);
    if (master === undefined) {
      master = new FakeMaster(address);
      this.masters.set(address, master);
    }
    return master;
  }

  /** `from` tells that `leader` leads, and who the masters are. */
  tell(from: string, leader: string | undefined, term: number, members: readonly string[]): void {
    const masters = members.map((id) => ({ id: id as MasterId, rpc: `${id}:7070`, voter: true }));
    const leads = leader === undefined ? {} : { leader: leader as MasterId };
    this.master(`${from}:7070`).push({ kind: "masters", list: { self: from as MasterId, term, ...leads, masters } });
  }

  get linked(): string[] {
    return this.links
      .all()
      .map(({ master }) => master.name)
      .sort();
  }

  async settle(durationMs = 0): Promise<void> {
    await this.clock.advance(durationMs);
    await this.clock.advance(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closing = this.links.close();
    await this.clock.advance(1000);
    await closing;
  }
}

const free: WorkerOrder = { kind: "free", versions: [] };
const load: WorkerOrder = { kind: "load", jobId: 1 as never, priority: 0, files: [] };

test("a worker that knows one master links to all, and reports everything to each", async () => {
  await using worker = new TestWorker(["m2:7070"]);
  worker.master("m2:7070").welcome(false, 4);
  worker.tell("m2", "m1", 4, ["m1", "m2", "m3"]);
  await worker.settle();
  assert.deepEqual(worker.linked, ["m1:7070", "m2:7070", "m3:7070"]);
  for (const id of ["m1", "m3"]) worker.master(`${id}:7070`).welcome(id === "m1", 4);
  await worker.settle();
  for (const master of worker.masters.values()) assert.deepEqual(master.reported, ["7-1"], master.address);
  assert.equal(worker.links.inCharge()?.master.name, "m1:7070");
});

test("only the leader's word takes a master away; its link is closed", async () => {
  await using worker = new TestWorker(["m1:7070", "m2:7070", "m3:7070"]);
  worker.master("m1:7070").welcome(true, 4);
  worker.tell("m1", "m1", 4, ["m1", "m2", "m3"]);
  worker.tell("m3", "m1", 4, ["m3"]);
  await worker.settle();
  assert.deepEqual(worker.linked, ["m1:7070", "m2:7070", "m3:7070"]);
  worker.tell("m1", "m1", 4, ["m1", "m2", "m4"]);
  await worker.settle();
  assert.deepEqual(worker.linked, ["m1:7070", "m2:7070", "m4:7070"]);
  assert.equal(worker.master("m3:7070").closed, true);
});

test("orders of a standby are not obeyed, nor those of an old leader once anybody told of its successor", async () => {
  await using worker = new TestWorker(["m1:7070", "m2:7070"]);
  const [old, standby] = [worker.master("m1:7070"), worker.master("m2:7070")];
  old.welcome(true, 4);
  standby.welcome(false, 4);
  await worker.settle();
  standby.push(free);
  old.push(load);
  await worker.settle();
  assert.deepEqual(worker.obeyed, ["load"]);
  // The old one is cut off from the others, and does not know that m3 was elected.
  worker.tell("m2", "m3", 5, ["m1", "m2", "m3"]);
  await worker.settle();
  assert.equal(worker.links.inCharge(), undefined);
  old.push(free, load);
  await worker.settle();
  assert.deepEqual(worker.obeyed, ["load"]);
  worker.master("m3:7070").welcome(true, 5);
  worker.master("m3:7070").push(free);
  await worker.settle();
  assert.deepEqual(worker.obeyed, ["load", "free"]);
});

test("of two that say that they lead, the one of the later term is obeyed", async () => {
  await using worker = new TestWorker(["m1:7070", "m2:7070"]);
  worker.master("m2:7070").welcome(true, 6);
  worker.master("m1:7070").welcome(true, 5);
  await worker.settle();
  worker.master("m1:7070").push(free);
  worker.master("m2:7070").push(load);
  await worker.settle();
  assert.deepEqual(worker.obeyed, ["load"]);
  assert.deepEqual(
    worker.links.attached().map(({ master }) => master.name),
    ["m2:7070", "m1:7070"],
  );
});

test("when no master is left, those that were given are tried again: they may be other machines by now", async () => {
  await using worker = new TestWorker(["seed:7070"]);
  worker.master("seed:7070").welcome(false, 4);
  worker.tell("seed", "m1", 4, ["m1"]);
  worker.master("seed:7070").push({
    kind: "masters",
    list: {
      self: "m9" as MasterId,
      term: 4,
      leader: "m1" as MasterId,
      masters: [{ id: "m1" as MasterId, rpc: "m1:7070", voter: true }],
    },
  });
  await worker.settle();
  worker.master("m1:7070").welcome(true, 4);
  worker.tell("m1", "m1", 4, ["m1"]);
  await worker.settle();
  assert.deepEqual(worker.linked, ["m1:7070"]);
  worker.master("m1:7070").goAway();
  await worker.settle(100);
  assert.deepEqual(worker.linked, ["m1:7070", "seed:7070"]);
});

test("a question goes to the next when one fails or is slow, and the first answer counts", async () => {
  const clock = new ManualClock();
  const options = { clock, afterMs: 300 };
  const asked: string[] = [];
  const asker = (name: string, answer: () => Promise<string>) => (): Promise<string> => {
    asked.push(name);
    return answer();
  };
  const slow = asker("slow", async () => {
    await clock.sleep(1000);
    return "late";
  });
  const answer = hedged([slow, asker("quick", async () => "quick")], options);
  await clock.advance(299);
  assert.deepEqual(asked, ["slow"]);
  await clock.advance(1);
  assert.equal(await answer, "quick");
  const away = asker("away", () => Promise.reject(new HeadpondError("unavailable", "away")));
  assert.equal(await hedged([away, asker("next", async () => "next")], options), "next");
  await assert.rejects(hedged([away, away], options), { code: "unavailable" });
  const gone = asker("gone", () => Promise.reject(new HeadpondError("not-found", "gone")));
  await assert.rejects(hedged([gone, asker("never", async () => "")], options), { code: "not-found" });
  assert.equal(asked.includes("never"), false);
});

test("what is gone is told to every master before its bytes go; one that does not answer holds them up for a bounded time", async () => {
  await using worker = new TestWorker(["m1:7070", "m2:7070"]);
  const [leader, standby] = [worker.master("m1:7070"), worker.master("m2:7070")];
  leader.welcome(true, 4);
  standby.welcome(false, 4);
  await worker.settle();
  const answer = Promise.withResolvers<void>();
  standby.holdBack = answer.promise;
  for (const link of worker.links.all()) link.changes.noteGone("7-1" as FileVersionId);
  let told = false;
  const first = worker.links.reported().then(() => (told = true));
  await worker.settle();
  assert.deepEqual([leader.reported.at(-1), standby.reported.at(-1)], ["7-1", "7-1"]);
  assert.equal(told, false, "one master has not answered yet");
  answer.resolve();
  await first;
  const late = Promise.withResolvers<void>();
  standby.holdBack = late.promise;
  for (const link of worker.links.all()) link.changes.noteGone("7-1" as FileVersionId);
  told = false;
  const second = worker.links.reported().then(() => (told = true));
  await worker.clock.advance(masterLinkLimits.withdrawTimeoutMs - 10);
  assert.equal(told, false);
  await worker.clock.advance(20);
  await second;
  late.resolve();
});
