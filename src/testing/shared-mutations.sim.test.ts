import assert from "node:assert/strict";
import { test } from "node:test";
import { plantInShared, sharedMutations } from "./shared-mutations.ts";
import { type SharedSimulationOptions, simulateShared } from "./shared-simulator.ts";

const ticks = 4000;
const seedsMax = 12;

for (const mutation of sharedMutations) {
  test(`the simulator of shared journals finds out when one ${mutation.name}`, async (t) => {
    const { parts, discard } = await plantInShared(mutation);
    try {
      for (let seed = 1; seed <= seedsMax; seed++) {
        const options: SharedSimulationOptions = { seed, ticks, profile: mutation.profile };
        const { violation } = await simulateShared({ ...options, parts });
        if (violation === undefined) continue;
        t.diagnostic(`seed ${seed}: ${violation.split("\n")[0]?.slice(0, 300)}`);
        // The same history is sound without the bug, so what was found is the bug.
        assert.equal((await simulateShared(options)).violation, undefined);
        return;
      }
      assert.fail(`not found in ${seedsMax} seeds`);
    } finally {
      await discard();
    }
  });
}
