/** The real clock: order and revocation, never durations. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { NodeClock } from "./node-clock.ts";

const clock = new NodeClock();

test("the monotonic clock does not run backwards", () => {
  let last = clock.monotonicMs();
  for (let i = 0; i < 1000; i++) {
    const now = clock.monotonicMs();
    assert.ok(now >= last);
    last = now;
  }
});

test("an aborted sleep rejects with the signal's reason, before and during", async () => {
  const abort = new AbortController();
  const sleeping = clock.sleep(60_000, abort.signal);
  abort.abort(new Error("enough"));
  await assert.rejects(sleeping, /enough/);
  await assert.rejects(clock.sleep(60_000, abort.signal), /enough/);
});

test("a cleared timer never calls back, one beyond Node's limit does not fire at once", async () => {
  const fired: string[] = [];
  clock.timer(1, () => fired.push("cleared")).clear();
  const far = clock.timer(2 ** 31 + 5, () => fired.push("far"));
  clock.timer(0, () => fired.push("kept"));
  await clock.sleep(20);
  far.clear();
  assert.deepEqual(fired, ["kept"]);
});

test("a timer does not keep the process alive, a sleep does", () => {
  const run = (statement: string): string => {
    const module = JSON.stringify(new URL("./node-clock.ts", import.meta.url).href);
    const code = `import { NodeClock } from ${module}; const clock = new NodeClock(); ${statement}`;
    return spawnSync(process.execPath, ["--input-type=module", "-e", code], { encoding: "utf8" }).stdout;
  };
  assert.equal(run("clock.timer(600_000, () => {}); process.stdout.write('ended')"), "ended");
  assert.equal(run("await clock.sleep(30); process.stdout.write('slept')"), "slept");
});
