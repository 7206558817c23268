import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { describeConfiguration } from "../raft/membership.ts";
import { type Master, RaftGroup } from "../testing/raft-group.ts";
import { RunningClock } from "../testing/running-clock.ts";
import { readIdentity, writeIdentity } from "./raft-identity.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

const three = ["m1", "m2", "m3"];

async function withGroup(
  ids: readonly string[],
  run: (group: RaftGroup) => Promise<void>,
  isStarted = true,
): Promise<void> {
  const random = new Random(seed);
  const clock = new RunningClock();
  const group = new RaftGroup({ clock, random, ids, limits: { logKeepBytes: 0 } });
  try {
    for (const id of ids) await group.format(id);
    if (isStarted) await Promise.all(ids.map((id) => group.open(id)));
    await run(group);
    for (const { id, fatal } of group.masters) assert.deepEqual(fatal, [], `${id} failed`);
    await group.closeAll();
  } finally {
    await group.killAll();
    clock.stop();
  }
}

function standbyOf(group: RaftGroup, leader: Master): Master {
  return group.masters.find(({ id }) => id !== leader.id) as Master;
}

async function propose({ journal }: Master, text: string): Promise<void> {
  await journal.propose(new TextEncoder().encode(text));
}

/** Does what must take effect, whoever leads meanwhile. */
async function proposeSomewhere(group: RaftGroup, text: string): Promise<void> {
  for (let n = 0; n < 50; n++) {
    try {
      return await propose(await group.leader(), text);
    } catch (error) {
      if (!isHeadpondError(error, "not-leader", "unknown-outcome")) throw error;
      await group.clock.sleep(10);
    }
  }
  throw new Error(`"${text}" was not taken`);
}

async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  return promise.then(
    () => undefined,
    (error: unknown) => (isHeadpondError(error) ? error.code : String(error)),
  );
}

test("founders elect a leader when they have met; it writes down everybody's disk and addresses", async () => {
  await withGroup(three, async (group) => {
    await group.described();
    await group.settled();
    for (const { journal } of group.masters) {
      assert.deepEqual(journal.configuration.members, {
        m1: { address: "m1:1", incarnation: "disk-1", rpc: "m1:7070", http: "m1:7071" },
        m2: { address: "m2:1", incarnation: "disk-2", rpc: "m2:7070", http: "m2:7071" },
        m3: { address: "m3:1", incarnation: "disk-3", rpc: "m3:7070", http: "m3:7071" },
      });
    }
    const leader = await group.leader();
    for (const { journal } of group.masters) assert.equal(journal.leaderAddress, `${leader.id}:7070`);
  });
});

test("founders that have not all met elect nobody", async () => {
  await withGroup(
    three,
    async (group) => {
      await group.open("m1");
      await group.open("m2");
      await group.clock.sleep(3000);
      for (const { journal } of group.masters) assert.deepEqual([journal.role, journal.status().term], ["standby", 0]);
      // The third completes them; then a majority is enough, also after a restart of all.
      await group.open("m3");
      await group.described();
      await group.settled();
      await group.closeAll();
      await group.open("m1");
      await group.open("m3");
      await proposeSomewhere(group, "two of three");
    },
    false,
  );
});

test("founders that met and crashed before anything was written need not meet again", async () => {
  await withGroup(three, async (group) => {
    await group.until("all have met", 5000, () => group.masters.every(({ journal }) => journal.status().term > 0));
    for (const id of three) await group.kill(id, true);
    await group.open("m2");
    await group.open("m1");
    await proposeSomewhere(group, "two of three");
  });
});

test("a founder whose disk was wiped after the founding never votes again under its name", async () => {
  await withGroup(three, async (group) => {
    const leader = await group.described();
    await group.settled();
    const others = three.filter((id) => id !== leader.id) as [string, string];
    const [wiped, behind] = others;
    await group.kill(behind);
    await propose(leader, "on two disks of three");
    await group.kill(leader.id);
    await group.kill(wiped);
    await group.format(wiped);
    // It and the one that missed the entry would be a majority that knows nothing of it.
    await group.open(wiped);
    await group.open(behind);
    await group.clock.sleep(3000);
    for (const { journal } of group.masters) assert.equal(journal.role, "standby");
    // The one that has it and the one that missed it are a majority.
    await group.open(leader.id);
    await proposeSomewhere(group, "after");
    assert.equal(group.master(wiped).machine.list.length, 0);
    const kept = group.master(behind).machine.list.map(({ text }) => text);
    assert.ok(kept.includes("on two disks of three"), kept.join());
  });
});

test("two founders whose disks were wiped do not found another cluster with the one that has data", async () => {
  await withGroup(three, async (group) => {
    const leader = await group.described();
    await propose(leader, "data");
    await group.settled();
    for (const id of ["m1", "m2"]) {
      await group.kill(id);
      await group.format(id);
    }
    for (const id of ["m1", "m2"]) await group.open(id);
    await group.clock.sleep(3000);
    for (const { journal } of group.masters) assert.equal(journal.role, "standby");
  });
});

test("a founder that was wiped while the others were still meeting is met anew", async () => {
  await withGroup(
    three,
    async (group) => {
      await group.open("m1");
      await group.open("m2");
      await group.clock.sleep(200);
      await group.kill("m2");
      await group.format("m2");
      await group.open("m2");
      await group.open("m3");
      await group.described();
      assert.equal(group.master("m1").journal.configuration.members["m2"]?.incarnation, "disk-4");
    },
    false,
  );
});

test("one master grows to three: each joins as a learner, catches up, and votes", async () => {
  await withGroup(["m1"], async (group) => {
    const first = await group.described();
    for (let n = 0; n < 200; n++) await propose(first, `early ${n} ${"x".repeat(300)}`);
    // What the new ones need is cut: they begin with a snapshot.
    await first.journal.checkpoint();
    for (let n = 0; n < 200; n++) await propose(first, `later ${n} ${"x".repeat(300)}`);
    await first.journal.checkpoint();
    assert.ok(first.journal.status().firstIndex > 1);
    const { cluster } = first.journal;
    for (const id of ["m2", "m3"]) {
      await group.format(id, { joins: true });
      await group.open(id);
      await cluster.changeMembers({ kind: "add", id, address: `${id}:1` });
      await cluster.changeMembers({ kind: "promote", id });
    }
    assert.equal(describeConfiguration(first.journal.configuration), "(m1 m2 m3)");
    await group.described();
    await group.settled();
    const members = first.journal.cluster.members();
    assert.deepEqual(
      members.map(({ id, voter, leader, reachable, rpc }) => [id, voter, leader, reachable, rpc]),
      three.map((id) => [id, true, id === "m1", true, `${id}:7070`]),
    );
    // They are enough without the first.
    await group.kill("m1");
    await proposeSomewhere(group, "without the first");
    await group.open("m1");
    await group.settled();
    assert.deepEqual(group.master("m3").machine.list, group.master("m1").machine.list);
  });
});

test("a master that is dead with its disk is replaced by a new one under a new name", async () => {
  await withGroup(three, async (group) => {
    const leader = await group.described();
    const dead = standbyOf(group, leader).id;
    await group.kill(dead);
    await group.format("m4", { joins: true });
    await group.open("m4");
    const { cluster } = leader.journal;
    await cluster.changeMembers({ kind: "add", id: "m4", address: "m4:1" });
    await cluster.changeMembers({ kind: "promote", id: "m4" });
    await cluster.changeMembers({ kind: "remove", id: dead });
    const voters = [...three.filter((id) => id !== dead), "m4"];
    assert.deepEqual(leader.journal.configuration.voters, voters);
    await propose(leader, "with the new one");
    await group.described();
    await group.settled();
    assert.deepEqual(group.master("m4").machine.list, leader.machine.list);
  });
});

test("a leader that is removed finishes the change, and another one leads", async () => {
  await withGroup(three, async (group) => {
    const leader = await group.described();
    await leader.journal.cluster.changeMembers({ kind: "remove", id: leader.id });
    const next = await group.until("another leader", 5000, () =>
      group.masters.find(({ id, journal }) => id !== leader.id && journal.role === "leader"),
    );
    assert.equal(next.journal.configuration.voters.length, 2);
    assert.equal(leader.journal.role, "standby");
    await propose(next, "without it");
  });
});

test("leadership is handed over on demand, to the one that was named or to the best", async () => {
  await withGroup(three, async (group) => {
    const leader = await group.described();
    const target = standbyOf(group, leader);
    await leader.journal.cluster.transferLeadership(target.id);
    assert.equal((await group.leader()).id, target.id);
    await propose(target, "under the new one");
    await target.journal.cluster.transferLeadership(undefined);
    assert.notEqual((await group.leader()).id, target.id);
  });
});

test("a leader that is closed leaves a leader behind at once", async () => {
  await withGroup(three, async (group) => {
    const leader = await group.described();
    await group.close(leader.id);
    // No election timeout had to pass.
    const startMs = group.clock.monotonicMs();
    await group.leader();
    assert.ok(group.clock.monotonicMs() - startMs < 50);
  });
});

test("what cannot be changed is refused, and says why", async () => {
  await withGroup(three, async (group) => {
    const leader = await group.described();
    const standby = standbyOf(group, leader);
    const led = leader.journal.cluster;
    assert.equal(await codeOf(led.changeMembers({ kind: "remove", id: "m9" })), "invalid");
    assert.equal(await codeOf(led.changeMembers({ kind: "promote", id: "m9" })), "invalid");
    assert.equal(await codeOf(led.changeMembers({ kind: "add", id: "m9", address: "nowhere" })), "invalid");
    assert.equal(await codeOf(led.transferLeadership("m9")), "invalid");
    const { cluster } = standby.journal;
    assert.equal(await codeOf(cluster.changeMembers({ kind: "remove", id: "m1" })), "not-leader");
    assert.equal(await codeOf(cluster.transferLeadership(undefined)), "not-leader");
    assert.equal(await codeOf(standby.journal.propose(new TextEncoder().encode("no"))), "not-leader");
    // A learner that is not there does not catch up; whoever asks can give up.
    await led.changeMembers({ kind: "add", id: "m9", address: "m9:1" });
    for (let n = 0; n < 1100; n++) await propose(leader, `${n}`);
    const giveUp = new AbortController();
    const promoted = led.changeMembers({ kind: "promote", id: "m9" }, giveUp.signal);
    await group.clock.sleep(500);
    giveUp.abort(new Error("given up"));
    await assert.rejects(promoted, /given up/);
    assert.deepEqual(leader.journal.configuration.learners, ["m9"]);
  });
});

test("a master with another cluster's data, or under another's name, is refused and told so", async () => {
  await withGroup(three, async (group) => {
    const leader = await group.described();
    const standby = standbyOf(group, leader);
    await group.kill(standby.id);
    await group.format(standby.id);
    const stranger = await group.open(standby.id);
    await group.until("told", 2000, () => stranger.refusals.some((reason) => /another disk/.test(reason)));
    await propose(leader, "without it");
    assert.equal(stranger.machine.list.length, 0);
  });
});

test("a learner that nobody has met is not promoted, however short the log is", async () => {
  await withGroup(["m1"], async (group) => {
    const leader = await group.leader();
    const { cluster } = leader.journal;
    await cluster.changeMembers({ kind: "add", id: "m2", address: "m2:1" });
    const giveUp = new AbortController();
    const promoted = cluster.changeMembers({ kind: "promote", id: "m2" }, giveUp.signal);
    await group.clock.sleep(500);
    giveUp.abort(new Error("given up"));
    await assert.rejects(promoted, /given up/);
    assert.deepEqual(leader.journal.configuration.learners, ["m2"]);
    // As a voter it would be missed for ever: it does not know yet that it may vote.
    await group.kill("m1", true);
    await group.open("m1");
    await proposeSomewhere(group, "alone");
  });
});

test("members that never met all founders, but have a membership that names them, vote after a power failure of all", async () => {
  await withGroup(three, async (group) => {
    await group.described();
    await group.settled();
    await propose(await group.leader(), "before");
    for (const id of three) await group.kill(id, true);
    for (const id of ["m2", "m3"]) {
      const identity = await readIdentity(group.disk(id), "/journal");
      assert.ok(identity !== undefined);
      await writeIdentity(group.disk(id), "/journal", { ...identity, met: undefined });
      await group.open(id);
    }
    // Nothing on the disks says what was committed, and no leader can say it before they vote.
    for (const { machine } of group.masters) assert.equal(machine.applied.index, 0);
    await proposeSomewhere(group, "after");
  });
});

test("a master that was removed while it was away is told so when it comes back, by the leader alone", async () => {
  await withGroup(three, async (group) => {
    const leader = await group.described();
    const gone = standbyOf(group, leader);
    await group.kill(gone.id);
    await leader.journal.cluster.changeMembers({ kind: "remove", id: gone.id });
    await propose(leader, "without it");
    const back = await group.open(gone.id);
    await group.until("told", 5000, () => back.refusals.length > 0);
    assert.deepEqual(back.refusals, [`${gone.id} is no member of this cluster any more: it was removed`]);
    assert.ok(back.machine.list.every(({ text }) => text !== "without it"));
  });
});
