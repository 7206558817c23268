/** What reads of different masters see of each other. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { RunningClock } from "../testing/running-clock.ts";
import { SharedGroup } from "../testing/shared-group.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

test("what a read at a standby has shown a later read at the primary shows, also before the primary knows that it is written", async () => {
  const clock = new RunningClock();
  const group = new SharedGroup({ clock, random: new Random(seed), ids: ["m1", "m2"] });
  try {
    for (const id of ["m1", "m2"]) await group.format(id);
    const held = Promise.withResolvers<void>();
    let holds = false;
    const primary = await group.open("m1", {
      after: async (call, name) => {
        if (holds && call === "create" && name.startsWith("log/")) await held.promise;
      },
    });
    const standby = await group.open("m2");
    await group.until("m1 leads", 5000, () => primary.journal.role === "leader");
    await primary.journal.propose(Buffer.from("before"));
    holds = true;
    const proposed = primary.journal.propose(Buffer.from("written"));
    await group.until("the standby has it", 5000, () => standby.machine.applied.index === 2);
    await standby.journal.readBarrier();
    assert.equal(standby.machine.list.length, 2);
    let isAnswered = false;
    const read = primary.journal.readBarrier().then(() => {
      isAnswered = true;
      return primary.machine.list.length;
    });
    // Many looks at the epoch later.
    await clock.sleep(200);
    assert.equal(isAnswered, false, "the primary's state does not have it yet");
    held.resolve();
    assert.equal(await read, 2);
    await proposed;
  } finally {
    await group.killAll();
    clock.stop();
  }
});

test("reads that wait for what a full store refused are answered all the same", async () => {
  const clock = new RunningClock();
  const group = new SharedGroup({ clock, random: new Random(seed), ids: ["m1"] });
  try {
    await group.format("m1");
    let isFull = false;
    const primary = await group.open("m1", {
      fate: (call, name) => (isFull && call === "create" && name.startsWith("log/") ? "no-space" : "works"),
      before: async () => clock.sleep(5),
    });
    await group.until("m1 leads", 5000, () => primary.journal.role === "leader");
    await primary.journal.propose(Buffer.from("before"));
    isFull = true;
    const refused = assert.rejects(primary.journal.propose(Buffer.from("too much")), { code: "no-space" });
    await clock.nextTurn();
    await clock.nextTurn();
    await primary.journal.readBarrier();
    assert.equal(primary.machine.list.length, 1);
    await refused;
  } finally {
    await group.killAll();
    clock.stop();
  }
});

test("reads of a primary that was deposed meanwhile are answered as a standby's, or refused", async () => {
  const clock = new RunningClock();
  const group = await SharedGroup.start({ clock, random: new Random(seed), ids: ["m1", "m2"] });
  try {
    const first = await group.leader();
    await first.journal.propose(Buffer.from("before"));
    first.isPaused = true;
    const late = first.journal.propose(Buffer.from("late")).catch(() => undefined);
    const read = first.journal.readBarrier().then(
      () => first.machine.list.length,
      (error: { code: string }) => error.code,
    );
    group.elections.expire(first.id);
    const second = await group.until("another leader", 5000, () =>
      group.masters.find(({ id, journal }) => id !== first.id && journal.role === "leader"),
    );
    await second.journal.propose(Buffer.from("of the second"));
    first.isPaused = false;
    await late;
    const seen = await read;
    assert.ok(seen === "not-leader" || Number(seen) >= 2, String(seen));
    await group.settled();
  } finally {
    await group.killAll();
    clock.stop();
  }
});
