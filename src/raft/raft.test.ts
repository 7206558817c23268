import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { RaftDisk } from "../testing/raft-disk.ts";
import { configurationOf } from "./membership.ts";
import { Raft } from "./raft.ts";
import {
  checkRaftConfig,
  defaultRaftConfig,
  defaultRaftLimits,
  type Entry,
  type LogStorage,
  type Message,
  type RaftLimits,
} from "./types.ts";

const two = configurationOf(["1", "2"]);

type Options = { readonly disk?: RaftDisk; readonly storage?: LogStorage; readonly seed?: number };

function start(id: string, options: Options & { readonly limits?: Partial<RaftLimits> } = {}): Raft {
  const disk = options.disk ?? new RaftDisk(two);
  const raft = new Raft({
    id,
    config: defaultRaftConfig,
    limits: { ...defaultRaftLimits, ...options.limits },
    random: new Random(options.seed ?? 1),
    storage: options.storage ?? disk,
    hardState: disk.hardState,
    configurations: disk.configurations,
    appliedIndex: disk.checkpoint.point.index,
    restartedAtMs: 0,
  });
  return raft;
}

/** Does what the core asks of its disk, and returns what it sends. */
function settle(raft: Raft, disk: RaftDisk, nowMs: number): Message[] {
  const messages: Message[] = [];
  for (;;) {
    const ready = raft.ready();
    messages.push(...ready.messages);
    const last = ready.committed.at(-1);
    if (last !== undefined) raft.applied(last.index);
    if (ready.append === undefined) return messages;
    disk.write(ready.append);
    disk.beginFlush();
    raft.appended(disk.endFlush().token ?? 0, nowMs);
  }
}

/** Makes member 1 the leader of term 1 with the help of a made-up member 2. */
function elect(raft: Raft, disk: RaftDisk, nowMs: number): Message[] {
  raft.campaign(nowMs);
  settle(raft, disk, nowMs);
  const term = raft.term + 1;
  raft.step({ type: "pre-vote-reply", from: "2", to: "1", term, granted: true }, nowMs);
  settle(raft, disk, nowMs);
  raft.step({ type: "vote-reply", from: "2", to: "1", term, granted: true }, nowMs);
  return settle(raft, disk, nowMs);
}

test("two members that are told the same do the same", () => {
  const play = (): unknown => {
    const disk = new RaftDisk(two);
    const raft = start("1", { disk });
    const said = elect(raft, disk, 400);
    raft.propose([new Uint8Array([1, 2])], 401);
    return [said, settle(raft, disk, 402), raft.status];
  };
  assert.deepEqual(play(), play());
});

test("an answer to a read of an earlier life of a member answers none of this life", () => {
  const heartbeat: Message = { type: "heartbeat", from: "2", to: "1", term: 1, round: 1, commit: 0, sentAtMs: 5 };
  const disk = new RaftDisk(two);
  const ask = (seed: number): { raft: Raft; read: Message } => {
    const raft = start("1", { disk, seed });
    raft.step(heartbeat, 10);
    raft.readIndex(7, 11);
    const read = settle(raft, disk, 12).find(({ type }) => type === "read");
    assert.ok(read?.type === "read");
    return { raft, read };
  };
  const before = ask(1);
  const after = ask(2);
  assert.ok(before.read.type === "read" && after.read.type === "read");
  after.raft.step({ type: "read-reply", from: "2", to: "1", term: 1, request: before.read.request, index: 1 }, 13);
  assert.deepEqual(after.raft.ready().reads, []);
  after.raft.step({ type: "read-reply", from: "2", to: "1", term: 1, request: after.read.request, index: 9 }, 14);
  assert.deepEqual(after.raft.ready().reads, [{ context: 7, index: 9, via: "quorum" }]);
});

test("a read that a leader never answers is refused after one election timeout", () => {
  const disk = new RaftDisk(two);
  const raft = start("1", { disk });
  const heartbeat = (atMs: number): void =>
    raft.step({ type: "heartbeat", from: "2", to: "1", term: 1, round: 1, commit: 0, sentAtMs: atMs }, atMs);
  heartbeat(0);
  raft.readIndex(7, 0);
  for (let nowMs = 10; nowMs <= 300; nowMs += 10) {
    heartbeat(nowMs);
    raft.tick(nowMs);
    assert.deepEqual(raft.ready().refusedReads, []);
  }
  raft.tick(310);
  assert.deepEqual(raft.ready().refusedReads, [{ context: 7, reason: "timeout" }]);
});

test("reads that wait are bounded", () => {
  const disk = new RaftDisk(two);
  const raft = start("1", { disk, limits: { pendingReads: 2 } });
  elect(raft, disk, 400);
  for (const context of [1, 2, 3]) raft.readIndex(context, 401);
  assert.deepEqual(raft.ready().refusedReads, [{ context: 3, reason: "overloaded" }]);
  raft.step({ type: "read", from: "2", to: "1", term: 1, request: 5 }, 402);
  assert.deepEqual(
    raft.ready().messages.filter(({ type }) => type === "read-reply"),
    [{ type: "read-reply", from: "1", to: "2", term: 1, request: 5, index: 0 }],
  );
});

test("a restarted voter grants no vote for one election timeout", () => {
  const disk = new RaftDisk(two);
  const raft = start("1", { disk });
  const ask = (nowMs: number): string[] => {
    raft.step({ type: "pre-vote", from: "2", to: "1", term: 1, lastIndex: 0, lastTerm: 0 }, nowMs);
    raft.step({ type: "vote", from: "2", to: "1", term: 1, lastIndex: 0, lastTerm: 0, transfer: false }, nowMs);
    return settle(raft, disk, nowMs).map(({ type }) => type);
  };
  assert.deepEqual(ask(299), []);
  assert.equal(raft.term, 0);
  assert.deepEqual(ask(300), ["pre-vote-reply", "vote-reply"]);
});

test("entries that are being loaded are sent when they are there, and the others are not kept waiting", () => {
  const disk = new RaftDisk(two);
  const entries = Array.from({ length: 5 }, (_, i): Entry => {
    return { index: i + 1, term: 1, kind: "command", payload: new Uint8Array([i]) };
  });
  disk.write({ token: 0, hardState: { term: 1, vote: undefined }, truncateFrom: undefined, entries });
  disk.beginFlush();
  disk.endFlush();
  let loading = true;
  const storage: LogStorage = {
    get firstIndex() {
      return disk.firstIndex;
    },
    get lastIndex() {
      return disk.lastIndex;
    },
    snapshot: undefined,
    term: (index) => disk.term(index),
    entries: (...args) => (loading ? "loading" : disk.entries(...args)),
  };
  const raft = start("1", { disk, storage });
  elect(raft, disk, 400);
  raft.step(
    { type: "append-reject", from: "2", to: "1", term: 2, prevIndex: 5, hintIndex: 2, hintTerm: 1, sentAtMs: 400 },
    401,
  );
  assert.deepEqual(settle(raft, disk, 401), []);
  loading = false;
  const [append] = settle(raft, disk, 402);
  assert.ok(append?.type === "append");
  assert.deepEqual(
    append.entries.map(({ index }) => index),
    [3, 4, 5, 6],
  );
});

test("a leader whose log was cut asks for a snapshot to send, and sends it when there is one", () => {
  const disk = new RaftDisk(two);
  let isReady = false;
  const storage: LogStorage = {
    get firstIndex() {
      return disk.firstIndex;
    },
    get lastIndex() {
      return disk.lastIndex;
    },
    get snapshot() {
      return isReady ? disk.snapshot : undefined;
    },
    term: (index) => disk.term(index),
    entries: (...args) => disk.entries(...args),
  };
  const raft = start("1", { disk, storage });
  elect(raft, disk, 400);
  raft.step({ type: "append-ok", from: "2", to: "1", term: 1, index: 1, sentAtMs: 400 }, 401);
  settle(raft, disk, 401);
  disk.save({ point: { index: 1, term: 1, configuration: two }, state: 0 }, 1);
  raft.changeMembership([{ type: "add-learner", id: "3" }], 402);
  settle(raft, disk, 402);
  const lacksAll = { type: "append-reject", prevIndex: 2, hintIndex: 0, hintTerm: 0, sentAtMs: 402 } as const;
  raft.step({ ...lacksAll, from: "3", to: "1", term: 1 }, 403);
  const ready = raft.ready();
  assert.equal(ready.snapshotWanted, true);
  assert.deepEqual(ready.messages, []);
  isReady = true;
  const [snapshot] = raft.ready().messages;
  assert.ok(snapshot?.type === "snapshot");
  assert.deepEqual(snapshot.snapshot, { index: 1, term: 1, configuration: two });
});

test("impossible input ends the process: wrong receiver, unknown write, two leaders of a term", () => {
  const disk = new RaftDisk(two);
  const raft = start("1", { disk });
  const impossible = { name: "AssertionError" };
  assert.throws(() => raft.step({ type: "stale-term", from: "2", to: "9", term: 1 }, 1), impossible);
  assert.throws(() => raft.appended(1, 1), impossible);
  assert.throws(() => raft.propose([new Uint8Array(0)], 1), impossible);
  elect(raft, disk, 400);
  assert.throws(
    () => raft.step({ type: "heartbeat", from: "2", to: "1", term: 1, round: 1, commit: 0, sentAtMs: 1 }, 401),
    { name: "AssertionError", message: /1 leads, but there is 2→1 heartbeat/ },
  );
});

test("timings that could not work are refused", () => {
  for (const wrong of [{ tickMs: 0 }, { tickMs: 31 }, { heartbeatMs: 120 }, { leaseMs: 300 }, { leaseMs: 0 }]) {
    assert.throws(() => checkRaftConfig({ ...defaultRaftConfig, ...wrong }), { code: "invalid" });
  }
  checkRaftConfig(defaultRaftConfig);
});
