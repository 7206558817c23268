import assert from "node:assert/strict";
import { test } from "node:test";
import { type MasterSimulationOptions, simulateMasters } from "./master-simulator.ts";
import { masterMutations, plantInMasters } from "./master-simulator-mutations.ts";

const ticks = 6000;
const seedsMax = 24;

for (const mutation of masterMutations) {
  test(`the simulator of masters finds out when ${mutation.name}`, async (t) => {
    const { parts, discard } = await plantInMasters(mutation);
    try {
      for (let seed = 1; seed <= seedsMax; seed++) {
        const options: MasterSimulationOptions = { seed, ticks, profile: mutation.profile ?? {} };
        const { violation } = await simulateMasters({ ...options, parts });
        if (violation === undefined) continue;
        t.diagnostic(`seed ${seed}: ${violation.split("\n")[0]?.slice(0, 300)}`);
        // The same history is sound without the bug, so what was found is the bug.
        assert.equal((await simulateMasters(options)).violation, undefined);
        return;
      }
      assert.fail(`not found in ${seedsMax} seeds`);
    } finally {
      await discard();
    }
  });
}
