import assert from "node:assert/strict";
import { test } from "node:test";
import { Progress } from "./progress.ts";

const limits = { inflightMessages: 2, inflightBytes: 100 };

test("one probe at a time, until its answer or a sign of life", () => {
  const progress = new Progress(10, 0, limits);
  progress.sent(12, 30);
  assert.equal(progress.isPaused, true);
  progress.answeredHeartbeat(12);
  assert.equal(progress.isPaused, false);
  progress.sent(12, 30);
  assert.equal(progress.rejected(9, 5), true);
  assert.equal(progress.describe(), "probe match=0 next=6");
});

test("the window is bounded by messages and by bytes", () => {
  const progress = new Progress(1, 0, limits);
  progress.acknowledged(0, 1);
  assert.equal(progress.state, "replicate");
  progress.sent(1, 10);
  progress.sent(2, 10);
  assert.equal(progress.isPaused, true);
  progress.acknowledged(2, 1);
  assert.equal(progress.isPaused, false);
  progress.sent(3, 100);
  assert.equal(progress.isPaused, true);
  assert.equal(progress.describe(), "replicate match=2 next=4 paused inflight=1");
});

test("hazard 22: a member that has everything is not left probing", () => {
  const progress = new Progress(8, 0, limits);
  progress.acknowledged(7, 1);
  assert.equal(progress.state, "replicate");
  progress.unreachable();
  assert.equal(progress.state, "probe");
  // It has nothing new to say, and that is enough.
  progress.acknowledged(7, 1);
  assert.equal(progress.state, "replicate");
});

test("hazard 25: rejections of what is known to be there, and doubled ones, change nothing", () => {
  const progress = new Progress(8, 0, limits);
  progress.acknowledged(7, 1);
  assert.equal(progress.rejected(7, 3), false);
  assert.equal(progress.rejected(5, 3), false);
  assert.equal(progress.describe(), "replicate match=7 next=8");
  progress.sent(9, 10);
  assert.equal(progress.rejected(9, 8), true);
  assert.equal(progress.describe(), "probe match=7 next=8");
  assert.equal(progress.rejected(9, 8), false);
});

test("acknowledgements that come late take nothing back", () => {
  const progress = new Progress(8, 0, limits);
  assert.equal(progress.acknowledged(9, 1), true);
  assert.equal(progress.acknowledged(4, 1), false);
  assert.equal(progress.describe(), "replicate match=9 next=10");
});

test("hazard 21: a snapshot ends by its arrival, by failure, or by silence", () => {
  const start = (): Progress => {
    const progress = new Progress(3, 0, limits);
    progress.acknowledged(2, 1);
    progress.snapshotStarted(50, 1000);
    assert.equal(progress.isPaused, true);
    return progress;
  };
  const arrived = start();
  arrived.acknowledged(50, 40);
  assert.equal(arrived.describe(), "replicate match=50 next=51");
  const caughtUp = start();
  caughtUp.acknowledged(20, 21);
  assert.equal(caughtUp.state, "replicate", "it got far enough by other means");
  const failed = start();
  failed.snapshotFailed();
  assert.equal(failed.describe(), "probe match=2 next=3 paused");
  const delivered = start();
  delivered.snapshotSent(1500);
  delivered.snapshotFailed();
  assert.equal(delivered.describe(), "probe match=2 next=51 paused");
  const silent = start();
  assert.equal(silent.isSnapshotOverdue(1200, 200), false);
  assert.equal(silent.isSnapshotOverdue(1201, 200), true);
  silent.snapshotProgressed(1201);
  assert.equal(silent.isSnapshotOverdue(1300, 200), false);
});
