import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { RunningClock } from "../testing/running-clock.ts";
import { SharedGroup, type SharedGroupOptions } from "../testing/shared-group.ts";

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
  } finally {
    await group.killAll();
    clock.stop();
  }
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

test("what a primary acknowledges its standbys apply, and when it dies another goes on behind it", () =>
  withGroup({}, async (group) => {
    const first = await group.leader();
    assert.equal(first.id, "m1");
    const proposed = await Promise.all(
      Array.from({ length: 300 }, (_, n) => first.journal.propose(encode(`first ${n}`))),
    );
    assert.deepEqual(
      proposed.map(({ index }) => index),
      Array.from({ length: 300 }, (_, n) => n + 1),
    );
    await group.settled();
    await group.kill("m1");
    const second = await group.leader();
    assert.notEqual(second.id, "m1");
    assert.equal(second.machine.list.length, 300);
    assert.equal((await second.journal.propose(encode("second"))).index, 301);
    await group.settled();
    for (const { machine } of group.masters) {
      assert.deepEqual(machine.list, second.machine.list);
    }
    const back = await group.open("m1");
    await group.settled();
    assert.deepEqual(back.machine.list, second.machine.list);
  }));

test("a primary that was deposed acknowledges nothing more, and says so", () =>
  withGroup({}, async (group) => {
    const first = await group.leader();
    await first.journal.propose(encode("acknowledged"));
    await group.settled();
    first.isPaused = true;
    first.election.isDeaf = true;
    const late = first.journal.propose(encode("late")).then(
      () => undefined,
      (error: unknown) => error,
    );
    group.elections.expire(first.id);
    const second = await group.until("another leader", 5000, () =>
      group.masters.find(({ id, journal }) => id !== first.id && journal.role === "leader"),
    );
    await second.journal.propose(encode("of the second"));
    first.isPaused = false;
    first.election.isDeaf = false;
    const error = await late;
    assert.ok(isHeadpondError(error, "unknown-outcome", "not-leader"), String(error));
    await group.until("the first steps down", 5000, () => first.journal.role === "standby");
    await group.settled();
    assert.deepEqual(first.machine.list, second.machine.list);
  }));
