/** The order of a clock that tests move. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "./manual-clock.ts";

test("timers fire by due time, then in the order in which they were set, and see the time at which they were due", () => {
  const clock = new ManualClock();
  const fired: string[] = [];
  const note = (name: string) => () => fired.push(`${name}@${clock.monotonicMs()}`);
  clock.timer(20, note("late"));
  clock.timer(10, note("first"));
  clock.timer(10, note("second"));
  clock.timer(10, note("cleared")).clear();
  clock.timer(5, () => clock.timer(1, note("nested")));
  clock.advanceSync(15);
  assert.deepEqual(fired, ["nested@6", "first@10", "second@10"]);
  assert.equal(clock.monotonicMs(), 15);
  clock.advanceSync(5);
  assert.equal(fired.at(-1), "late@20");
  assert.equal(clock.pendingCount, 0);
});

test("a loop of sleeps gets every turn that is due while time advances", async () => {
  const clock = new ManualClock();
  const abort = new AbortController();
  let turns = 0;
  const loop = (async () => {
    for (;;) {
      await clock.sleep(10, abort.signal);
      turns++;
    }
  })();
  await clock.advance(100);
  assert.equal(turns, 10);
  abort.abort(new Error("over"));
  await assert.rejects(loop, /over/);
  await assert.rejects(clock.sleep(1, abort.signal), /over/);
  assert.equal(clock.pendingCount, 0);
});

test("the wall clock jumps, the monotonic one does not", () => {
  const clock = new ManualClock({ wallMs: 1000 });
  clock.advanceSync(5);
  clock.jumpWall(-500);
  assert.equal(clock.wallMs(), 505);
  assert.equal(clock.monotonicMs(), 5);
});

test("time never runs back when two move it at once", async () => {
  const clock = new ManualClock();
  const slow = clock.advance(10);
  clock.advanceSync(2000);
  await slow;
  assert.equal(clock.monotonicMs(), 2000);
});
