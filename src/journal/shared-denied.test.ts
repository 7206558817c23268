/** A store that one master may not write to any more. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { RunningClock } from "../testing/running-clock.ts";
import { SharedGroup } from "../testing/shared-group.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

test("a primary that may not write to the store any more lets another one lead, which loses nothing", async () => {
  const clock = new RunningClock();
  const group = new SharedGroup({ clock, random: new Random(seed), ids: ["m1", "m2"] });
  try {
    for (const id of ["m1", "m2"]) await group.format(id);
    let isDenied = false;
    const first = await group.open("m1", {
      before: async (call) => {
        if (isDenied && call === "create") throw new HeadpondError("denied", "read-only file system");
      },
    });
    const second = await group.open("m2");
    await group.until("m1 leads", 5000, () => first.journal.role === "leader");
    await first.journal.propose(Buffer.from("acknowledged"));
    isDenied = true;
    for (const text of ["refused", "at once"]) {
      await assert.rejects(first.journal.propose(Buffer.from(text)), { code: "unavailable", outcome: "none" });
    }
    await group.until("m2 leads", 20_000, () => {
      first.journal.propose(Buffer.from("again")).catch(() => {});
      return second.journal.role === "leader";
    });
    await second.journal.propose(Buffer.from("of the second"));
    assert.equal(second.machine.list.length, 2);
    await group.settled();
    assert.deepEqual(first.machine.list, second.machine.list);
    assert.deepEqual(first.fatal, []);
  } finally {
    await group.killAll();
    clock.stop();
  }
});
