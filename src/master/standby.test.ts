/** A master that does not lead: what it answers, how new that is, and what it sends to the leader. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadpondError } from "../base/errors.ts";
import type { ClusterId, MasterId } from "../base/ids.ts";
import { parsePath } from "../base/path.ts";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { MemoryNetwork } from "../io/memory-network.ts";
import { Metrics } from "../io/metrics.ts";
import type { Journal, JournalCluster, JournalMember, JournalStatus, Role } from "../journal/journal.ts";
import type { Command, CommandResult } from "../namespace/command.ts";
import { encodeCommand } from "../namespace/command-codec.ts";
import { MemoryStore } from "../namespace/memory-store.ts";
import { Namespace } from "../namespace/namespace.ts";
import type { ChangeEvent } from "../rpc/master-service.ts";
import type { RequestContext } from "../rpc/server.ts";
import { Master } from "./master.ts";

const leaderRpc = "h1:7070";

/** The journal of a standby: a test says what is committed, how old the state is, and what becomes of barriers. */
class StandbyJournal {
  role: Role = "standby";
  mayRead = false;
  leaderAddress: string | undefined = leaderRpc;
  leader: string | undefined = "m1";
  term = 3;
  freshnessMs: number | undefined;
  barriers = 0;
  /** What a barrier waits for. */
  onBarrier: () => Promise<void> = async () => {};
  readonly #namespace: Namespace;
  #roleChanged: (role: Role) => void = () => {};
  readonly #membersChanged: (() => void)[] = [];

  constructor(namespace: Namespace) {
    this.#namespace = namespace;
  }

  readonly cluster: Partial<JournalCluster> = {
    members: () =>
      ["m1", "m2"].map(
        (id) => ({ id, rpc: `${id}:7070`, voter: true, leader: id === this.leader, featureLevel: 1 }) as JournalMember,
      ),
    onMembersChange: (listener) => void this.#membersChanged.push(listener),
    freshnessMs: () => this.freshnessMs,
  };

  async start(): Promise<void> {}

  onRoleChange(listener: (role: Role) => void): void {
    this.#roleChanged = listener;
  }

  setLeader(id: string | undefined, term: number): void {
    this.leader = id;
    this.term = term;
    this.leaderAddress = id === undefined ? undefined : `${id}:7070`;
    this.mayRead = id === "m2";
    const role = id === "m2" ? "leader" : "standby";
    if (role !== this.role) {
      this.role = role;
      this.#roleChanged(role);
    }
    for (const listener of this.#membersChanged) listener();
  }

  readBarrier(): Promise<void> {
    this.barriers++;
    return this.onBarrier();
  }

  async propose(payload: Uint8Array): Promise<{ readonly index: number; readonly result: CommandResult }> {
    if (this.role !== "leader") throw new HeadpondError("not-leader", "does not lead");
    return { index: this.#namespace.applied.index + 1, result: this.commit(payload) };
  }

  commit(payload: Uint8Array): CommandResult {
    const index = this.#namespace.applied.index + 1;
    return this.#namespace.apply([{ index, term: this.term, payload }])[0] as CommandResult;
  }

  status(): JournalStatus {
    const { index } = this.#namespace.applied;
    const indexes = { firstIndex: 1, lastIndex: index, commitIndex: index, appliedIndex: index, checkpointIndex: 0 };
    return { type: "raft", role: this.role, term: this.term, ...indexes, bytes: 0 };
  }
}

class Standby implements AsyncDisposable {
  readonly clock = new ManualClock();
  readonly namespace = new Namespace({ store: new MemoryStore(), backgroundFlush: false });
  readonly journal = new StandbyJournal(this.namespace);
  readonly context: RequestContext;
  readonly ending = new AbortController();
  readonly master: Master;

  constructor(limits: ConstructorParameters<typeof Master>[0]["limits"] = {}) {
    const { clock, ending } = this;
    const remainingMs = (): number => 1000;
    const peer = { software: "1", role: "client", name: "c" };
    this.context = { signal: ending.signal, deadlineMs: Number.POSITIVE_INFINITY, remainingMs, remote: "c", peer };
    this.master = new Master({
      id: "m2" as MasterId,
      clusterId: "c" as ClusterId,
      clusterName: "test",
      version: "0",
      nodeVersion: "v0",
      directory: "/",
      disk: new MemoryDisk(),
      network: new MemoryNetwork({ clock }).at("m2"),
      clock,
      logger: silentLogger,
      metrics: new Metrics(),
      rpcAddress: { host: "m2", port: 7070 },
      httpAddress: { host: "m2", port: 7071 },
      http: { listen: async (address) => address, close: async () => {} },
      journal: this.journal as unknown as Journal<CommandResult>,
      namespace: this.namespace,
      verifyJournal: async () => ({ ok: true, entries: 0, bytes: 0, findings: [] }),
      openUnderStore: async () => {
        throw new Error("a standby opens no under store");
      },
      limits,
    });
  }

  static async start(limits?: ConstructorParameters<typeof Master>[0]["limits"]): Promise<Standby> {
    const standby = new Standby(limits);
    await standby.master.start();
    return standby;
  }

  commit(command: Command): CommandResult {
    return this.journal.commit(encodeCommand(command));
  }

  create(path: string): CommandResult {
    return this.commit({
      ...shared,
      kind: "create",
      path: parsePath(path),
      exclusive: true,
      recursive: true,
      forWriting: false,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.ending.abort();
    const closing = this.master.close();
    await this.clock.advance(10_000);
    await closing;
    await this.namespace.close();
  }
}

const shared = { mode: 0o644, owner: "root", group: "root", attributes: {}, timeMs: 1000 };

test("a linearizable read at a standby waits for a barrier, and sees what came with it", async () => {
  await using standby = await Standby.start();
  const { stat } = standby.master.handlers;
  standby.journal.onBarrier = async () => void standby.create("/a");
  const { status, read } = await stat({ path: "/a" }, standby.context);
  assert.equal(status.path, "/a");
  assert.equal(read, undefined);
  assert.equal(standby.journal.barriers, 1);
});

test("all reads of one turn share one barrier, which begins after the last of them", async () => {
  await using standby = await Standby.start();
  const { stat } = standby.master.handlers;
  standby.create("/a");
  let asked = 0;
  let askedWhenItBegan = 0;
  standby.journal.onBarrier = async () => {
    askedWhenItBegan = asked;
  };
  const reads = Array.from({ length: 100 }, () => {
    asked++;
    return Promise.resolve(stat({ path: "/a" }, standby.context));
  });
  await Promise.all(reads);
  assert.equal(standby.journal.barriers, 1);
  assert.equal(askedWhenItBegan, 100);
  await stat({ path: "/a" }, standby.context);
  assert.equal(standby.journal.barriers, 2, "a later read has its own");
});

test("a read whose barrier fails is refused, and not answered with what may be old", async () => {
  await using standby = await Standby.start();
  standby.create("/a");
  standby.journal.onBarrier = () => Promise.reject(new HeadpondError("not-leader", "no leader is known"));
  const { stat } = standby.master.handlers;
  await assert.rejects(async () => stat({ path: "/a" }, standby.context), { code: "not-leader" });
  await assert.rejects(async () => stat({ path: "/a", consistency: "stale", maxStaleMs: 10 }, standby.context), {
    code: "not-leader",
  });
});

test("a stale read is answered at once within its bound, which it tells; beyond, behind a barrier", async () => {
  await using standby = await Standby.start();
  const { stat } = standby.master.handlers;
  const { journal } = standby;
  standby.create("/a");
  const ask = async (maxStaleMs?: number) =>
    (
      await stat(
        { path: "/a", consistency: "stale", ...(maxStaleMs === undefined ? {} : { maxStaleMs }) },
        standby.context,
      )
    ).read;
  journal.freshnessMs = 400.5;
  assert.deepEqual(await ask(), { appliedIndex: 1, staleMs: 401 });
  assert.deepEqual(await ask(401), { appliedIndex: 1, staleMs: 401 });
  assert.equal(journal.barriers, 0);
  journal.onBarrier = async () => {
    journal.freshnessMs = 2;
  };
  assert.deepEqual(await ask(400), { appliedIndex: 1, staleMs: 2 });
  assert.equal(journal.barriers, 1);
  journal.freshnessMs = undefined;
  assert.deepEqual(await ask(), { appliedIndex: 1, staleMs: 2 }, "a state that was never known to be new is too old");
  assert.equal(journal.barriers, 2);
});

test("a local read is answered with whatever is there, and its index", async () => {
  await using standby = await Standby.start();
  const { stat, open, mounts } = standby.master.handlers;
  standby.create("/a");
  standby.journal.onBarrier = () => new Promise(() => {});
  const read = { appliedIndex: 1 };
  assert.deepEqual((await stat({ path: "/a", consistency: "local" }, standby.context)).read, read);
  assert.deepEqual((await open({ path: "/a", consistency: "local" }, standby.context)).read, read);
  assert.deepEqual((await mounts({ consistency: "local" }, standby.context)).read, read);
  standby.journal.freshnessMs = 7000;
  assert.deepEqual((await stat({ path: "/a", consistency: "local" }, standby.context)).read, {
    ...read,
    staleMs: 7000,
  });
});

test("a listing says once what it is worth, before its rows", async () => {
  await using standby = await Standby.start();
  standby.create("/d/a");
  standby.create("/d/b");
  const pages = [];
  const request = { path: "/d", consistency: "local" as const };
  for await (const page of standby.master.handlers.list(request, standby.context)) pages.push(page);
  assert.deepEqual(
    pages.map(({ entries, read }) => ({ names: entries.map(({ path }) => path), index: read?.appliedIndex })),
    [
      { names: [], index: 2 },
      { names: ["/d/a", "/d/b"], index: undefined },
    ],
  );
});

test("below a mount a standby answers what is new enough, and sends the rest to the leader", async () => {
  await using standby = await Standby.start();
  const { stat, list } = standby.master.handlers;
  const { clock } = standby;
  const timeMs = clock.wallMs();
  standby.commit({
    kind: "mount",
    path: parsePath("/m"),
    uri: "memory://x",
    options: { sync: "1m" },
    secretOptions: [],
    readOnly: false,
    timeMs,
  });
  const directoryInodeId = standby.namespace.stat(parsePath("/m")).inodeId;
  const row = { name: "f", kind: "file" as const, sizeBytes: 3, etag: "e", modifiedMs: 1 };
  const listingBeganVersion = standby.namespace.version;
  const mountId = standby.namespace.mounts()[0]?.id;
  assert.ok(mountId !== undefined);
  standby.commit({ kind: "sync-rows", mountId, directoryInodeId, listingBeganVersion, rows: [row], timeMs });
  const toLeader = { code: "not-leader", details: { leader: leaderRpc, term: 3 } };
  const ask = async (path: string): Promise<string> => (await stat({ path }, standby.context)).status.path;
  const names = async (): Promise<string[]> => {
    const found: string[] = [];
    for await (const { entries } of list({ path: "/m" }, standby.context))
      found.push(...entries.map(({ path }) => path));
    return found;
  };
  await assert.rejects(ask("/m/f"), toLeader, "the directory was never listed as a whole");
  await assert.rejects(names(), toLeader);
  standby.commit({ kind: "sync-end", directoryInodeId, listingBeganVersion, goneNames: [], finished: true, timeMs });
  assert.equal(await ask("/m/f"), "/m/f");
  assert.deepEqual(await names(), ["/m/f"]);
  await assert.rejects(ask("/m/unknown"), toLeader, "only the store knows");
  await clock.advance(61_000);
  await assert.rejects(ask("/m/f"), toLeader, "somebody has to look at it again");
  await assert.rejects(names(), toLeader);
  assert.equal((await stat({ path: "/m/f", consistency: "local" }, standby.context)).status.sizeBytes, 3);
});

test("changes, and what only a leader knows, are sent to the leader, whose term is told", async () => {
  await using standby = await Standby.start();
  const { create, models, revision } = standby.master.handlers;
  const toLeader = { code: "not-leader", outcome: "none", details: { leader: leaderRpc, term: 3 } };
  for (const refused of [
    async () => create({ path: "/a" }, standby.context),
    async () => models({}, standby.context),
    async () => revision({ path: "/", revision: "main" }, standby.context),
  ]) {
    await assert.rejects(refused, toLeader);
  }
  standby.journal.setLeader(undefined, 4);
  await assert.rejects(async () => create({ path: "/a" }, standby.context), {
    code: "not-leader",
    details: { term: 4 },
  });
});

test("a master that was elected and does not lead yet asks for a moment, and denies nothing", async () => {
  await using standby = await Standby.start();
  standby.journal.leader = "m2";
  standby.journal.leaderAddress = "m2:7070";
  await assert.rejects(async () => standby.master.handlers.create({ path: "/a" }, standby.context), {
    code: "overloaded",
    details: { retryAfterMs: 5 },
  });
});

test("who listens to a standby hears of each new leader at once, and of nothing twice", async () => {
  await using standby = await Standby.start();
  const heard: string[] = [];
  const listening = (async () => {
    for await (const { self, leader, term, masters, leads } of standby.master.handlers.masters({}, standby.context)) {
      const members = masters.map(({ id, rpc }) => `${id}@${rpc}`).join(" ");
      heard.push(
        `${self}: ${leader ?? "nobody"} leads in ${term} of ${members}${leads === true ? ", and answers" : ""}`,
      );
    }
  })();
  await standby.clock.advance(0);
  standby.journal.setLeader("m1", 3);
  await standby.clock.advance(0);
  standby.journal.setLeader(undefined, 4);
  await standby.clock.advance(0);
  standby.journal.setLeader("m2", 5);
  await standby.clock.advance(0);
  await standby.clock.advance(2000);
  const all = "of m1@m1:7070 m2@m2:7070";
  assert.deepEqual(heard, [
    `m2: m1 leads in 3 ${all}`,
    `m2: nobody leads in 4 ${all}`,
    `m2: m2 leads in 5 ${all}`,
    `m2: m2 leads in 5 ${all}, and answers`,
  ]);
  standby.ending.abort();
  await listening;
});

test("a watch at a standby tells what is applied there, goes on where another one stopped, and tells no repetition", async () => {
  await using standby = await Standby.start({ events: { keptMax: 4 } });
  standby.commit({ kind: "open-session", timeoutMs: 1000, client: "c", timeMs: 1000 });
  const origin = { sessionId: 1 as never, sequence: 1, acknowledged: 0 };
  const once: Command = {
    ...shared,
    origin,
    kind: "create",
    path: parsePath("/once"),
    exclusive: true,
    recursive: false,
    forWriting: false,
  };
  standby.commit(once);
  standby.commit(once);
  standby.create("/once");
  const seen: string[] = [];
  const watch = async (fromIndex: number, until: number): Promise<void> => {
    for await (const { events } of standby.master.handlers.watch({ path: "/", fromIndex }, standby.context)) {
      for (const { index, kind, path } of events as ChangeEvent[]) seen.push(`${index} ${kind} ${path}`);
      if (seen.length >= until) return;
    }
  };
  const watching = watch(2, 2);
  await standby.clock.advance(0);
  standby.create("/b");
  await standby.clock.advance(0);
  await watching;
  assert.deepEqual(seen, ["2 created /once", "5 created /b"]);
  // A master that is behind tells nothing that the watcher has seen elsewhere.
  const ahead = watch(7, 3);
  await standby.clock.advance(0);
  standby.create("/seen-elsewhere");
  standby.create("/c");
  await standby.clock.advance(0);
  await ahead;
  assert.deepEqual(seen.slice(2), ["7 created /c"]);
  standby.create("/d");
  await assert.rejects(watch(2, 9), { code: "compacted", details: { firstIndex: 3 } });
});

test("after a checkpoint was taken over, watches of before are told that changes are missing", async () => {
  await using standby = await Standby.start();
  standby.create("/a");
  const watching = (async () => {
    for await (const _ of standby.master.handlers.watch({ path: "/" }, standby.context));
  })();
  const rejects = assert.rejects(watching, { code: "compacted" });
  await standby.clock.advance(0);
  await standby.namespace.reset(undefined);
  await rejects;
});

/** A worker that attaches to the standby and has reported that it holds nothing; the orders that it gets, each as a word or two. */
async function attachWorker(standby: Standby): Promise<string[]> {
  const orders: string[] = [];
  const address = { id: "w1" as never, place: "a/b/c/d" as never, data: "h:1", http: "h:2", gateways: {} };
  const incarnation = "incarnation-1";
  const { attachWorker: attach, reportHoldings } = standby.master.handlers;
  const attached = (async () => {
    for await (const order of attach({ address, incarnation, capacityBytes: 1, version: "1" }, standby.context)) {
      if (order.kind === "welcome") orders.push(`welcome: ${order.leader ? "leads" : "stands by"} in ${order.term}`);
      else if (order.kind === "masters") orders.push(`masters: ${order.list.leader ?? "nobody"} in ${order.list.term}`);
      else if (order.kind === "workers") orders.push(`workers: ${order.list.workers.map(({ id }) => id).join(" ")}`);
      else orders.push(order.kind);
    }
  })();
  attached.catch(() => {});
  await standby.clock.advance(0);
  const workerId = address.id;
  await reportHoldings({ workerId, incarnation, sequence: 0, full: true, last: true, holdings: [] }, standby.context);
  await standby.clock.advance(0);
  return orders;
}

test("a master that stood by for a while gives the workers their list the moment it leads; before, it orders nothing", async () => {
  await using standby = await Standby.start();
  const orders = await attachWorker(standby);
  await standby.clock.advance(1000);
  assert.deepEqual(orders.splice(0), ["welcome: stands by in 3", "masters: m1 in 3"]);
  standby.journal.setLeader("m2", 4);
  await standby.clock.advance(0);
  assert.deepEqual(
    orders.splice(0).filter((order) => !order.startsWith("masters")),
    ["welcome: leads in 4", "mounts", "workers: w1"],
  );
  standby.journal.setLeader("m1", 5);
  await standby.clock.advance(0);
  assert.deepEqual(orders.splice(0).sort(), ["masters: m1 in 5", "welcome: stands by in 5"]);
});

test("a master that leads as soon as it has started waits until workers had time to come", async () => {
  await using standby = await Standby.start({ settleMs: 1000 });
  standby.journal.setLeader("m2", 4);
  const orders = await attachWorker(standby);
  await standby.clock.advance(900);
  assert.equal(orders.includes("workers: w1"), false);
  await standby.clock.advance(100);
  assert.equal(orders.includes("workers: w1"), true);
});
