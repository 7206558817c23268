import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { defaultRaftLimits } from "../raft/types.ts";
import { type Master, RaftGroup } from "../testing/raft-group.ts";
import { RunningClock } from "../testing/running-clock.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

/** So that a few hundred entries are cut, and read from the disk. */
const limits = {
  logKeepBytes: 0,
  logMemoryBytes: 16 * KiB,
  core: { ...defaultRaftLimits, messageBytes: 4 * KiB, inflightMessages: 4 },
};

async function withGroup(
  run: (group: RaftGroup, random: Random) => Promise<void>,
  ids?: readonly string[],
): Promise<void> {
  const random = new Random(seed);
  const clock = new RunningClock();
  const group = await RaftGroup.start({ clock, random, limits, ...(ids === undefined ? {} : { ids }) });
  try {
    await run(group, random);
    for (const { id, fatal } of group.masters) assert.deepEqual(fatal, [], `${id} failed`);
    await group.closeAll();
  } finally {
    await group.killAll();
    clock.stop();
  }
}

async function propose(master: Master, count: number, name: string): Promise<void> {
  const texts = Array.from({ length: count }, (_, n) => `${name} ${n} ${"x".repeat(300)}`);
  await Promise.all(texts.map((text) => master.journal.propose(new TextEncoder().encode(text))));
}

function same(group: RaftGroup): void {
  const [first, ...others] = group.masters;
  for (const { id, machine } of others) assert.deepEqual(machine.list, first?.machine.list, `${id} and ${first?.id}`);
}

/** A leader that has cut what `behind`, a standby that is down, would need. */
async function cutWithout(group: RaftGroup): Promise<{ leader: Master; behind: string }> {
  const leader = await group.described();
  const behind = group.ids.find((id) => id !== leader.id) as string;
  await propose(leader, 100, "before");
  await group.settled();
  const { index } = leader.machine.applied;
  await group.kill(behind);
  for (const round of [1, 2, 3]) {
    await propose(leader, 200, `round ${round}`);
    await leader.journal.checkpoint();
  }
  assert.ok(leader.journal.status().firstIndex > index + 1, "the log was cut behind the standby");
  return { leader, behind };
}

test("hazard 21: a master that needs what was cut gets a snapshot, and goes on from there", async () => {
  await withGroup(async (group) => {
    const { leader, behind } = await cutWithout(group);
    const back = await group.open(behind);
    await group.settled();
    assert.equal(back.machine.resets > 0, true, "its state was replaced");
    await propose(leader, 50, "after");
    await group.settled();
    same(group);
    // It starts again from what it received.
    await group.kill(behind, true);
    await propose(leader, 50, "later");
    await group.open(behind);
    await group.settled();
    same(group);
  });
});

test("hazard 21: a transfer whose receiver dies in the middle is made again when it is back", async () => {
  await withGroup(async (group) => {
    const { leader, behind } = await cutWithout(group);
    for (let n = 0; n < 5; n++) {
      await group.open(behind);
      await group.clock.sleep(20 + n * 3);
      await group.kill(behind, n % 2 === 0);
      await propose(leader, 10, `meanwhile ${n}`);
    }
    await group.open(behind);
    await group.settled();
    same(group);
  });
});

test("hazard 21: a transfer whose sender dies in the middle is made by the next leader", async () => {
  await withGroup(async (group) => {
    const { leader, behind } = await cutWithout(group);
    const third = group.ids.find((id) => id !== behind && id !== leader.id) as string;
    // It has what the other one lacks, and is not to win with less.
    await group.settled();
    await group.master(third).journal.checkpoint();
    await group.open(behind);
    await group.clock.sleep(25);
    await group.kill(leader.id);
    await group.leader();
    await group.settled();
    same(group);
  });
});

test("hazard 24: a crash at any step of taking over a snapshot leaves the old state or leads to the new one", async () => {
  const random = new Random(seed);
  const clock = new RunningClock();
  const group = await RaftGroup.start({ clock, random, limits });
  try {
    const { leader, behind } = await cutWithout(group);
    let isThrough = false;
    let steps = 0;
    // Each round the process lives a little longer, until it lives through all of it.
    for (let operations = 20; !isThrough; operations += 1 + random.between(0, 3)) {
      steps++;
      const life = await group.open(behind, { operations }).catch(() => undefined);
      const target = leader.machine.applied.index;
      if (life !== undefined) {
        // A dead disk under the transfer is the transport's to notice: the master itself may have nothing to write.
        const end = group.clock.monotonicMs() + 1000;
        const isOver = (): boolean => life.fatal.length > 0 || group.clock.monotonicMs() > end;
        await group.until("dead or level", 5000, () => isOver() || life.machine.applied.index >= target);
        isThrough = life.fatal.length === 0 && life.machine.applied.index >= target;
        for (const error of life.fatal) assert.ok(isHeadpondError(error, "unavailable", "internal"), String(error));
        // Whatever there is, is a beginning of what the leader has.
        const { list } = life.machine;
        if (isThrough) assert.deepEqual(list, leader.machine.list.slice(0, list.length));
      }
      await group.kill(behind, random.chance(0.7));
      await propose(leader, 1, `step ${steps}`);
      assert.ok(steps < 500, "it never got through");
    }
    await group.open(behind);
    await group.settled();
    same(group);
    assert.ok(steps > 10, `only ${steps} crashes`);
  } finally {
    await group.killAll();
    clock.stop();
  }
});

test("a standby that is far behind, but not cut off, is led on from the disk", async () => {
  await withGroup(async (group) => {
    const leader = await group.described();
    const behind = group.ids.find((id) => id !== leader.id) as string;
    await group.kill(behind);
    await propose(leader, 1000, "many");
    const back = await group.open(behind);
    await group.settled();
    same(group);
    // Once, at its start.
    assert.ok(back.machine.resets <= 1);
  });
});

test("the log is kept for standbys that are behind, up to its hard limit", async () => {
  const random = new Random(seed);
  const clock = new RunningClock();
  const group = await RaftGroup.start({
    clock,
    random,
    limits: { ...limits, logKeepBytes: 512 * KiB, logMaxBytes: 1024 * KiB, checkpointEveryEntries: 400 },
  });
  try {
    const leader = await group.described();
    let largest = 0;
    for (let round = 0; round < 20; round++) {
      await propose(leader, 200, `round ${round}`);
      largest = Math.max(largest, leader.journal.status().bytes);
    }
    await group.until("a checkpoint", 1000, () => leader.journal.status().checkpointIndex > 3000);
    const { bytes, firstIndex } = leader.journal.status();
    assert.ok(firstIndex > 1, "it was cut");
    assert.ok(bytes >= 512 * KiB, `${bytes} bytes are kept`);
    assert.ok(largest <= 1024 * KiB + 4 * 64 * KiB, `${largest} bytes at most`);
  } finally {
    await group.killAll();
    clock.stop();
  }
});

test("a committed stream that waits at a standby learns that a snapshot has jumped over its place", async () => {
  await withGroup(async (group) => {
    const { behind } = await cutWithout(group);
    const back = await group.open(behind);
    const from = back.machine.applied.index + 1;
    const ended = (async () => {
      let next = from;
      for await (const entry of back.journal.committed(from, new AbortController().signal)) {
        if (entry.index !== next++) return "a gap";
      }
      return "the end";
    })().catch((error: unknown) => (isHeadpondError(error) ? error.code : String(error)));
    await group.settled();
    assert.equal(await ended, "compacted");
  });
});
