import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { RunningClock } from "../testing/running-clock.ts";
import { SharedGroup, type SharedGroupOptions, type SharedMaster } from "../testing/shared-group.ts";
import { epochName, recordName, slotName } from "./shared-names.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

async function withGroup(
  options: Partial<SharedGroupOptions>,
  run: (group: SharedGroup) => Promise<void>,
): Promise<void> {
  const clock = new RunningClock();
  const group = await SharedGroup.start({ clock, random: new Random(seed), ...options });
  try {
    await run(group);
    for (const { id, fatal } of group.masters) assert.deepEqual(fatal, [], `${id} failed`);
  } finally {
    await group.killAll();
    clock.stop();
  }
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** What became of a proposal, or of a read. */
function fateOf(promise: Promise<unknown>): Promise<"done" | { readonly code: string; readonly outcome: string }> {
  return promise.then(
    () => "done" as const,
    (error: unknown) => {
      assert.ok(isHeadpondError(error), String(error));
      return { code: error.code, outcome: error.outcome };
    },
  );
}

async function write(master: SharedMaster, ...texts: readonly string[]): Promise<void> {
  for (const text of texts) await master.journal.propose(encode(text));
}

function textsOf({ machine }: SharedMaster): string[] {
  return machine.list.map(({ text }) => text);
}

/** Another than `not` leads. */
function successor(group: SharedGroup, not: string): Promise<SharedMaster> {
  return group.until(`a leader other than ${not}`, 10_000, () =>
    group.masters.find(({ id, journal }) => id !== not && journal.role === "leader"),
  );
}

/** The process stands still, and its session ends. */
function freeze(group: SharedGroup, master: SharedMaster): void {
  master.isPaused = true;
  master.election.isDeaf = true;
  group.elections.expire(master.id);
}

function thaw(master: SharedMaster): void {
  master.election.isDeaf = false;
  master.isPaused = false;
}

test("hazard 32: a primary that was paused past its session writes after it goes on, and none of it is acknowledged", () =>
  withGroup({}, async (group) => {
    const first = await group.leader();
    await write(first, "a", "b");
    freeze(group, first);
    const late = Array.from({ length: 20 }, (_, n) => fateOf(first.journal.propose(encode(`late ${n}`))));
    const reads = Array.from({ length: 5 }, () => fateOf(first.journal.readBarrier()));
    const second = await successor(group, first.id);
    await write(second, "c", "d");
    thaw(first);
    for (const fate of await Promise.all(late)) assert.notEqual(fate, "done");
    // Its reads may be answered when it is a standby, but then they see what the second acknowledged.
    for (const fate of await Promise.all(reads)) if (fate === "done") assert.ok(first.machine.applied.index >= 4);
    await group.settled();
    assert.deepEqual(textsOf(first), ["a", "b", "c", "d"]);
    assert.deepEqual(first.machine.list, second.machine.list);
  }));

test("hazard 33: a slot that a deposed primary creates where garbage collection had removed one counts for nothing", async () => {
  for (const rounds of [1, 2, 4]) {
    await withGroup({}, async (group) => {
      const first = await group.leader();
      await write(first, "a");
      const { term } = first.journal.status();
      // Its next slot is on its way for very long.
      freeze(group, first);
      const late = fateOf(first.journal.propose(encode("late")));
      const second = await successor(group, first.id);
      assert.ok(group.store.objects.has(slotName({ epoch: term, slot: 2 })), "the seal is where the slot was to be");
      for (let round = 0; round < rounds; round++) {
        await write(second, `round ${round}`);
        await second.journal.checkpoint();
      }
      const isCollected = !group.store.objects.has(slotName({ epoch: term, slot: 2 }));
      assert.equal(isCollected, rounds > 1);
      thaw(first);
      assert.notEqual(await late, "done");
      assert.equal(group.store.objects.has(slotName({ epoch: term, slot: 2 })), true);
      await write(second, "behind");
      await group.settled();
      for (const master of group.masters) assert.ok(!textsOf(master).includes("late"), `${master.id} has it`);
      // A new primary that comes from far behind finds the same log.
      await group.kill("m3");
      await group.format("m3");
      const third = await group.open("m3");
      assert.deepEqual(third.machine.list, second.machine.list);
    });
  }
});

test("hazard 34: a slot that a successor adopted is answered as unknown, never as failed", () =>
  withGroup({}, async (group) => {
    const first = await group.leader();
    await write(first, "a");
    // The create takes effect, and then the primary stands still before it hears of that.
    const before = group.store.history.length;
    const adopted = fateOf(first.journal.propose(encode("adopted")));
    await group.until("the slot is there", 1000, () => group.store.history.length > before);
    freeze(group, first);
    const second = await successor(group, first.id);
    const isAdopted = textsOf(second).includes("adopted");
    thaw(first);
    const fate = await adopted;
    if (fate !== "done") assert.deepEqual(fate, { code: "unknown-outcome", outcome: "unknown" });
    assert.ok(isAdopted);
  }));

test("hazard 35: answers that mean nothing are read back: each command is in the log once", async () => {
  for (const fate of ["answer-lost", "fails", "exists-after-success", "lands-later"] as const) {
    const random = new Random(seed);
    const clock = new RunningClock();
    const group = new SharedGroup({ clock, random, ids: ["m1", "m2"] });
    try {
      for (const id of ["m1", "m2"]) {
        await group.format(id);
        await group.open(id, {
          fate: (call) => {
            if (random.chance(0.3) && group.store.late.length > 0) group.store.land(0);
            return (call === "create" || call === "read") && random.chance(0.4) ? fate : "works";
          },
        });
      }
      const leader = await group.leader();
      const texts = Array.from({ length: 60 }, (_, n) => `${fate} ${n}`);
      await Promise.all(
        texts.map(async (text, n) => {
          await clock.sleep(n);
          await leader.journal.propose(encode(text));
        }),
      );
      await group.settled();
      for (const master of group.masters) assert.deepEqual(textsOf(master).sort(), [...texts].sort(), fate);
    } finally {
      await group.killAll();
      clock.stop();
    }
  }
});

test("hazard 36: 'exists' after success of a claim, a seal, a slot and a record is success", async () => {
  const clock = new RunningClock();
  const group = new SharedGroup({ clock, random: new Random(seed), ids: ["m1", "m2"] });
  try {
    for (const id of ["m1", "m2"]) {
      await group.format(id);
      await group.open(id, { fate: (call) => (call === "create" ? "exists-after-success" : "works") });
    }
    const first = await group.leader();
    assert.equal(first.journal.status().term, 1);
    await write(first, "a");
    await first.journal.checkpoint();
    assert.ok(group.store.objects.has(recordName(1)));
    assert.ok(!group.store.objects.has(recordName(2)));
    await group.kill(first.id);
    const second = await successor(group, first.id);
    assert.equal(second.journal.status().term, 2);
    await write(second, "b");
    assert.deepEqual(textsOf(second), ["a", "b"]);
  } finally {
    await group.killAll();
    clock.stop();
  }
});

test("hazard 37: a listing that hides the newest epochs, slots and records hides nothing from anybody", async () => {
  const clock = new RunningClock();
  const group = new SharedGroup({ clock, random: new Random(seed) });
  try {
    for (const id of ["m1", "m2", "m3"]) {
      await group.format(id);
      await group.open(id, { listsNothing: true });
    }
    for (let round = 0; round < 5; round++) {
      const leader = await group.leader();
      await write(leader, `${round} a`, `${round} b`);
      await leader.journal.checkpoint();
      await group.kill(leader.id);
      await successor(group, leader.id);
      await group.open(leader.id, { listsNothing: true });
      await group.settled();
    }
    const [one] = group.masters;
    assert.equal(one?.machine.list.length, 10);
    for (const { machine } of group.masters) assert.deepEqual(machine.list, one?.machine.list);
  } finally {
    await group.killAll();
    clock.stop();
  }
});

test("hazard 38: a primary that the election has lost goes on as long as storage lets it, and not longer", () =>
  withGroup({}, async (group) => {
    const first = await group.leader();
    await write(first, "a");
    group.elections.isReachable = false;
    group.elections.tell();
    await write(first, "without an election");
    await first.journal.readBarrier();
    assert.equal(first.journal.role, "leader");
    group.elections.isReachable = true;
    // Its session ends, another one is told to lead: until that has claimed, the first may write.
    freeze(group, first);
    const second = await successor(group, first.id);
    thaw(first);
    assert.notEqual(await fateOf(first.journal.propose(encode("too late"))), "done");
    await first.journal.readBarrier();
    await group.until("the first stands back", 5000, () => first.journal.role === "standby");
    await write(second, "b");
    await group.settled();
    assert.deepEqual(textsOf(first), ["a", "without an election", "b"]);
  }));

test("hazard 39: a claim whose answer was lost is known as the own one, and leaves no epoch without a primary", async () => {
  const clock = new RunningClock();
  const group = new SharedGroup({ clock, random: new Random(seed), ids: ["m1"] });
  try {
    await group.format("m1");
    const lost = new Set<string>();
    const master = await group.open("m1", {
      fate: (call, name) => {
        if (call !== "create" || lost.has(name)) return "works";
        lost.add(name);
        return "answer-lost";
      },
    });
    await group.leader();
    await write(master, "a");
    assert.ok(lost.has(epochName(1)));
    assert.equal(master.journal.status().term, 1);
    assert.ok(!group.store.objects.has(epochName(2)));
  } finally {
    await group.killAll();
    clock.stop();
  }
});

test("hazard 40: a new primary reads to the end behind its claim, so it has what was acknowledged until then", () =>
  withGroup({}, async (group) => {
    const first = await group.leader();
    await write(first, "a");
    await group.settled();
    // The second is misled: it claims while the first goes on writing.
    const acknowledged: string[] = [];
    let isOver = false;
    const writing = (async () => {
      for (let n = 0; !isOver; n++) {
        if ((await fateOf(first.journal.propose(encode(`n${n}`)))) !== "done") return;
        acknowledged.push(`n${n}`);
      }
    })();
    await group.clock.sleep(20);
    const second = group.masters.find(({ id }) => id !== first.id) as SharedMaster;
    second.election.pretend(true);
    await group.until("the second leads", 5000, () => second.journal.role === "leader");
    const known = [...acknowledged];
    const had = textsOf(second);
    for (const text of known) assert.ok(had.includes(text), `${text} was acknowledged before`);
    isOver = true;
    await writing;
  }));

test("hazard 40: of twenty standbys one leads when the primary dies, by as many claims as there are primaries", () =>
  withGroup({ ids: Array.from({ length: 21 }, (_, n) => `m${n + 1}`) }, async (group) => {
    const first = await group.leader();
    await write(first, "a");
    await group.settled();
    await group.kill(first.id);
    const second = await successor(group, first.id);
    await write(second, "b");
    await group.settled();
    assert.deepEqual(group.store.names("epochs/"), [epochName(1), epochName(2)]);
  }));
