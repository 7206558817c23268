import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { RaftDisk } from "../testing/raft-disk.ts";
import { RaftLog } from "./log.ts";
import { configurationOf } from "./membership.ts";
import type { Entry } from "./types.ts";

const entry = (term: number, index: number): Entry => {
  return { term, index, kind: "command", payload: new TextEncoder().encode(`${term}.${index}`) };
};

function write(log: RaftLog, disk: RaftDisk, token: number): void {
  disk.write({ token, hardState: undefined, ...log.takeUnwritten(token) });
}

function flush(log: RaftLog, disk: RaftDisk): void {
  if (!disk.isFlushing) disk.beginFlush();
  log.written(disk.endFlush().token ?? 0);
}

function logOf(...terms: number[]): { log: RaftLog; disk: RaftDisk } {
  const disk = new RaftDisk(configurationOf(["1"]));
  disk.write({
    token: 0,
    hardState: undefined,
    truncateFrom: undefined,
    entries: terms.map((term, i) => entry(term, i + 1)),
  });
  disk.beginFlush();
  disk.endFlush();
  return { log: new RaftLog(disk, 0), disk };
}

test("the last entry that may be shared is found by term", () => {
  const { log } = logOf(1, 1, 2, 2, 4, 4, 4, 7);
  assert.deepEqual(log.lastOfTerm(8, 4), { index: 7, term: 4 });
  assert.deepEqual(log.lastOfTerm(8, 3), { index: 4, term: 2 });
  assert.deepEqual(log.lastOfTerm(6, 9), { index: 6, term: 4 });
  assert.deepEqual(log.lastOfTerm(99, 9), { index: 8, term: 7 });
  assert.deepEqual(log.lastOfTerm(8, 0), { index: 0, term: 0 });
});

test("a log is up to date by its last term, then by its length", () => {
  const { log } = logOf(1, 3, 3);
  assert.equal(log.isUpToDate(1, 4), true);
  assert.equal(log.isUpToDate(3, 3), true);
  assert.equal(log.isUpToDate(2, 3), false);
  assert.equal(log.isUpToDate(99, 2), false);
});

test("what contradicts a committed entry ends the process", () => {
  const { log } = logOf(1, 1, 1);
  log.commitTo(2);
  assert.throws(() => log.merge([entry(2, 2)]), { name: "AssertionError", message: /up to 2 is committed/ });
  assert.throws(() => log.commitTo(4), {
    name: "AssertionError",
    message: /this log, which acknowledged it, ends at 3/,
  });
});

test("entries are applied when they are committed and durable here, one batch after the other", () => {
  const { log, disk } = logOf(1);
  log.append([entry(1, 2), entry(1, 3)]);
  log.commitTo(3);
  assert.deepEqual(
    log.takeCommitted(1000).map(({ index }) => index),
    [1],
  );
  assert.deepEqual(log.takeCommitted(1000), []);
  log.appliedTo(1);
  assert.deepEqual(log.takeCommitted(1000), [], "not on the disk yet");
  write(log, disk, 1);
  flush(log, disk);
  assert.deepEqual(
    log.takeCommitted(1).map(({ index }) => index),
    [2],
    "bounded by bytes",
  );
  assert.throws(() => log.appliedTo(3), { name: "AssertionError" });
});

const seed = Math.floor(Math.random() * 2 ** 32);

test(`hazard 4: what counts as stable is what is on the disk, whatever is written, cut and written again (seed ${seed})`, () => {
  const random = new Random(seed);
  for (let round = 0; round < 300; round++) {
    const { log, disk } = logOf(1, 1);
    let term = 1;
    let token = 0;
    for (let i = 0; i < 60; i++) {
      const action = random.between(0, 3);
      if (action === 0) log.append([entry(term, log.lastIndex + 1)]);
      else if (action === 1 && log.hasUnwritten) write(log, disk, ++token);
      else if (action === 2 && !disk.isIdle) {
        if (!disk.isFlushing && random.chance(0.5)) disk.beginFlush();
        else flush(log, disk);
      } else if (action === 3 && log.lastIndex > 1) {
        // Another leader, with entries of few terms, so that what was there before comes back.
        term = random.between(1, 3);
        const from = random.between(1, log.lastIndex);
        log.merge(Array.from({ length: random.between(1, 3) }, (_, k) => entry(term, from + k)));
      }
      for (let index = 1; index <= log.stableIndex; index++) {
        assert.equal(disk.term(index), log.term(index), `entry ${index} counts as stable`);
      }
    }
    for (let i = 0; i < 3; i++) {
      if (log.hasUnwritten) write(log, disk, ++token);
      if (!disk.isIdle) flush(log, disk);
    }
    assert.equal(log.stableIndex, log.lastIndex);
    assert.equal(log.unstableBytes, 0);
    for (let index = 1; index <= log.lastIndex; index++) assert.equal(disk.term(index), log.term(index));
  }
});
