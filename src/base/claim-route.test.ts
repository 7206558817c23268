import assert from "node:assert/strict";
import { test } from "node:test";
import { ringsFor } from "./claim-ring.ts";
import { claimRoute, type RingPlan } from "./claim-route.ts";
import type { WorkerId } from "./ids.ts";

function workers(count: number): WorkerId[] {
  return Array.from({ length: count }, (_, i) => `w${i}` as WorkerId);
}

test("whoever asks, each answer comes from a worker nearer to the claimant, in one ring and in several", () => {
  for (const count of [1, 2, 3, 8, 17, 40]) {
    for (const rings of [1, 2, 3, 5]) {
      if (rings > count) continue;
      const ring = workers(count);
      const plan: RingPlan = { ring, rings };
      for (const claimant of [...ring, "outsider" as WorkerId]) {
        for (const self of [...ring, "apart" as WorkerId]) {
          let at = self;
          let hops = 0;
          while (at !== claimant) {
            const [next] = claimRoute(plan, at, claimant, 7);
            assert.ok(next !== undefined, `${at} has nobody to ask`);
            at = next;
            assert.ok(
              ++hops <= count + 1,
              `${count} workers, ${rings} rings: ${self} asks in a circle for ${claimant}`,
            );
          }
        }
      }
    }
  }
});

test("in one ring each worker gives a block to one other, and the last one to nobody", () => {
  const ring = workers(9);
  const given = new Map<WorkerId, number>();
  for (const self of ring) {
    const [source] = claimRoute({ ring, rings: 1 }, self, "w4" as WorkerId, 0);
    if (source !== undefined) given.set(source, (given.get(source) ?? 0) + 1);
  }
  assert.deepEqual([...given.values()], Array(8).fill(1));
  assert.equal(given.get("w3" as WorkerId), undefined);
});

test("with a hundred rings nobody is more than a row of hops away, and the claimant gives one copy a ring", () => {
  const ring = workers(1000);
  const rings = ringsFor(1000);
  const plan: RingPlan = { ring, rings };
  const claimant = "w500" as WorkerId;
  let copies = 0;
  for (const self of ring) if (claimRoute(plan, self, claimant, 0)[0] === claimant) copies++;
  assert.equal(copies, rings);
});

test("the claimant is the last one to be asked, and the only one that is asked by whoever does not know the rings", () => {
  const ring = workers(12);
  const route = claimRoute({ ring, rings: 1 }, "w0" as WorkerId, "w6" as WorkerId, 0);
  assert.deepEqual(route, ["w11", "w10", "w9", "w6"]);
  assert.deepEqual(claimRoute({ ring: [], rings: 1 }, "w0" as WorkerId, "w6" as WorkerId, 3), ["w6"]);
});

test("who stands apart takes blocks from all in turn", () => {
  const ring = workers(5);
  const first = [0, 1, 2, 3, 4].map(
    (block) => claimRoute({ ring, rings: 1 }, "slow" as WorkerId, "w9" as WorkerId, block)[0],
  );
  assert.deepEqual(first, ring);
});
