import assert from "node:assert/strict";
import { test } from "node:test";
import { BlockBitmap } from "./blocks.ts";
import { type ClaimReport, ClaimTable, claimLimits } from "./claim-table.ts";
import { ClaimView } from "./claim-view.ts";
import type { BlockIndex, WorkerId } from "./ids.ts";
import { Random } from "./random.ts";

const blockCount = 40;
const a = "a" as WorkerId;
const b = "b" as WorkerId;
const c = "c" as WorkerId;

let sequence = 0;

function table(expected = 3): ClaimTable {
  return new ClaimTable({
    blockCount,
    blockSizeBytes: 100,
    limits: { ...claimLimits, claimsMax: 4, claimsPerWorkerMax: 2 },
    nowMs: 0,
    expected,
    rankOf: (worker) => worker,
  });
}

function report(worker: WorkerId, have: readonly number[] = [], more: Partial<ClaimReport> = {}): ClaimReport {
  const bitmap = new BlockBitmap(blockCount);
  for (const block of have) bitmap.add(block as BlockIndex);
  return {
    worker,
    session: "s",
    sequence: ++sequence,
    have: bitmap,
    reading: [],
    arriving: [],
    lost: [],
    wanted: [],
    done: false,
    succeeds: false,
    ...more,
  };
}

function claimsOf(claims: ClaimTable, worker: WorkerId): number[] {
  const blocks: number[] = [];
  for (let block = 0; block < blockCount; block++) if (claims.owner(block) === worker) blocks.push(block);
  return blocks;
}

test("nothing is claimed before all that are expected have come, or a while has passed", () => {
  const claims = table();
  claims.report(report(a), 0);
  claims.report(report(b), 10);
  assert.equal(claims.claimedCount, 0);
  claims.report(report(c), 20);
  assert.equal(claims.claimedCount, 4);
  const few = table();
  few.report(report(a), 0);
  few.tick(claimLimits.settleMs);
  assert.equal(few.claimedCount, 2);
});

test("claims go round, are bounded in all and for each, and the next ones go to whoever has done his", () => {
  const claims = table();
  for (const worker of [a, b, c]) claims.report(report(worker), 0);
  assert.deepEqual([claimsOf(claims, a), claimsOf(claims, b), claimsOf(claims, c)], [[0, 3], [1], [2]]);
  claims.report(report(b, [1]), 50);
  assert.deepEqual(claimsOf(claims, b), [1, 4]);
  assert.equal(claims.claimedCount, 4);
});

test("what somebody holds is never claimed; what he loses is claimed again", () => {
  const claims = table();
  claims.report(report(a, [0, 1, 2]), 0);
  for (const worker of [b, c]) claims.report(report(worker), 0);
  assert.deepEqual(claimsOf(claims, a).slice(0, 3), [0, 1, 2]);
  claims.report(report(a, [0, 2]), 10);
  const before = claims.owner(1);
  for (const worker of [a, b, c]) claims.report(report(worker, worker === a ? [0, 2] : []), 20);
  assert.equal(before === undefined || before === claims.owner(1), true);
  claims.report(report(a, [0, 2, ...claimsOf(claims, a)]), 30);
  assert.notEqual(claims.owner(1), undefined);
});

test("the claim of a worker that is gone goes to whoever has most of the block's bytes", () => {
  const claims = table();
  for (const worker of [a, b, c]) claims.report(report(worker), 0);
  claims.report(report(b, [], { arriving: [[0, 30]] }), 100);
  claims.report(report(c, [], { arriving: [[0, 70]] }), 100);
  claims.drop(a);
  claims.tick(110);
  assert.equal(claims.owner(0), c);
  assert.deepEqual(claims.plan.ring, [b, c]);
});

test("a block that a dead worker brought in belongs to somebody else who holds it", () => {
  const claims = table();
  for (const worker of [a, b, c]) claims.report(report(worker), 0);
  claims.report(report(a, [0]), 10);
  claims.report(report(b, [0]), 20);
  claims.drop(a);
  assert.equal(claims.owner(0), b);
});

test("a silent worker is dropped, one that has everything is not", () => {
  const claims = table();
  const everything = Array.from({ length: blockCount }, (_, i) => i);
  claims.report(report(a), 0);
  claims.report(report(b, everything, { done: true }), 0);
  claims.report(report(c), claimLimits.silentMs + 1);
  assert.deepEqual(
    claims.plan.ring.filter((worker) => worker === a),
    [],
  );
  assert.ok(claims.plan.ring.includes(b));
});

test("one complaint about a living owner is an accident, several are not", () => {
  const claims = table();
  for (const worker of [a, b, c]) claims.report(report(worker), 0);
  const complain = (nowMs: number): void => claims.report(report(b, [], { lost: [[0, a]] }), nowMs);
  claims.report(report(a), 10);
  complain(20);
  assert.equal(claims.owner(0), a);
  for (let i = 0; i < 3; i++) complain(30 + i);
  assert.equal(claims.owner(0), b);
});

test("a table that has a predecessor waits until the workers have told what they read", () => {
  const claims = table(2);
  claims.report(report(a, [], { succeeds: true, reading: [7] }), 0);
  claims.report(report(b, [], { succeeds: true, reading: [8] }), 10);
  assert.equal(claims.claimedCount, 2);
  assert.deepEqual([claims.owner(7), claims.owner(8)], [a, b]);
  claims.tick(claimLimits.succeedMs + 1);
  assert.equal(claims.claimedCount, 4);
});

test("what somebody waits for is claimed first", () => {
  const claims = table();
  for (const worker of [a, b]) claims.report(report(worker), 0);
  claims.report(report(c, [], { wanted: [33] }), 0);
  assert.notEqual(claims.owner(33), undefined);
});

test("a view that hears all news knows every owner, in whatever pieces the news come", () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const random = new Random(seed);
  const claims = table();
  const view = new ClaimView(c);
  const held = new Map([a, b, c].map((worker) => [worker, new Set<number>()]));
  for (let nowMs = 0; nowMs < 40_000; nowMs += random.between(1, 100)) {
    const worker = random.pick([a, b, c]);
    const mine = held.get(worker) ?? assert.fail();
    for (let block = 0; block < blockCount; block++) {
      const owner = claims.owner(block);
      if ((owner === worker || (owner !== undefined && held.get(owner)?.has(block))) && random.chance(0.3))
        mine.add(block);
    }
    // Towards the end they live on: who has just died holds nothing yet.
    if (nowMs < 30_000 && random.chance(0.02)) {
      claims.drop(worker);
      mine.clear();
    }
    claims.report(report(worker, [...mine]), nowMs);
    if (random.chance(0.4)) view.learn("t", claims.news(view.sinceOf("t")));
    assert.ok(claims.claimedCount <= 4, `seed ${seed}: ${claims.claimedCount} claims at once`);
  }
  view.learn("t", claims.news(view.sinceOf("t")));
  for (let block = 0; block < blockCount; block++) {
    const owner = claims.owner(block);
    if (owner !== undefined) assert.equal(view.claimant(block), owner, `seed ${seed}: block ${block}`);
  }
  assert.ok(
    [a, b, c].every((worker) => (held.get(worker)?.size ?? 0) > blockCount / 2),
    `seed ${seed}: the load stands still`,
  );
});

test("a report that was overtaken takes nothing away", () => {
  const claims = table();
  const old = report(a);
  for (const worker of [a, b, c]) claims.report(report(worker), 0);
  claims.report(report(a, [0]), 10);
  claims.report(old, 20);
  assert.equal(claims.owner(0), a);
  assert.equal([...claims.participants()].find(({ worker }) => worker === a)?.have.count, 1);
});
