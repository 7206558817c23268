import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { test } from "node:test";
import { mutations, plant } from "./raft-core-mutations.ts";
import { type SimulationOptions, type SimulationResult, simulate } from "./raft-core-simulator.ts";

const ticks = 20_000;

function runSeeds(first: number, count: number): SimulationResult[] {
  return Array.from({ length: count }, (_, i) => {
    const result = simulate({ seed: first + i, ticks });
    const replay = `npm run soak -- raft-core --seeds 1 --seed ${result.seed}`;
    assert.equal(result.violation, undefined, `seed ${result.seed}: ${result.violation}\nreplay: ${replay}`);
    return result;
  });
}

test("no history of 200 fixed seeds breaks a promise of the consensus core", (t) => {
  const results = runSeeds(1, 200);
  const sum = (of: (result: SimulationResult) => number): number => results.reduce((total, r) => total + of(r), 0);
  const elections = sum(({ leaders }) => leaders);
  const committed = sum(({ committed }) => committed);
  t.diagnostic(`seeds 1-200: ${elections} elections, ${committed} entries, ${sum((r) => r.counts.crashes)} crashes`);
  // Histories in which nothing happens would prove nothing.
  assert.ok(elections > 500 && committed > 20_000);
  for (const what of ["leaseReads", "quorumReads", "installs", "crashes", "changes", "transfers", "unknown"] as const) {
    assert.ok(sum(({ counts }) => counts[what]) > 100, `${what} occur`);
  }
});

test("no history of 150 random seeds does either", (t) => {
  const first = randomInt(1_000_000, 1_000_000_000);
  t.diagnostic(`seeds ${first}-${first + 149}`);
  runSeeds(first, 150);
});

test("one seed is one history", () => {
  assert.deepEqual(simulate({ seed: 7, ticks }), simulate({ seed: 7, ticks }));
});

const seedsMax = 300;

for (const mutation of mutations) {
  test(`the simulator finds out when ${mutation.name}`, async (t) => {
    const { Raft, discard } = await plant(mutation);
    try {
      const { profile } = mutation;
      for (let seed = 1; seed <= seedsMax; seed++) {
        const options: SimulationOptions = { seed, ticks, Raft, ...(profile === undefined ? {} : { profile }) };
        const { violation } = simulate(options);
        if (violation === undefined) continue;
        t.diagnostic(`seed ${seed}: ${violation.split("\n")[0]}`);
        // The same history is sound without the bug, so what was found is the bug.
        assert.equal(simulate({ seed, ticks, ...(profile === undefined ? {} : { profile }) }).violation, undefined);
        return;
      }
      assert.fail(`not found in ${seedsMax} seeds`);
    } finally {
      await discard();
    }
  });
}
