import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { test } from "node:test";
import { type MasterSimulationResult, simulateMasters } from "./master-simulator.ts";

const ticks = 4000;

async function runSeeds(first: number, count: number): Promise<MasterSimulationResult[]> {
  const results: MasterSimulationResult[] = [];
  for (let seed = first; seed < first + count; seed++) {
    const result = await simulateMasters({ seed, ticks, journal: "shared" });
    const end = result.lines.slice(-40).join("\n");
    assert.equal(result.violation, undefined, `seed ${seed}, ${ticks} ms: ${result.violation}\n${end}`);
    results.push(result);
  }
  return results;
}

test("no history of 12 fixed seeds breaks a promise of masters over shared storage", async (t) => {
  const results = await runSeeds(1, 12);
  const sum = (what: string): number => results.reduce((total, { counts }) => total + (counts[what] ?? 0), 0);
  const counted = ["returned", "unknown", "standbyReads", "elections", "kills", "powerLosses", "outages", "wipes"];
  t.diagnostic(`seeds 1-12: ${counted.map((what) => `${what} ${sum(what)}`).join(", ")}`);
  // Histories in which nothing happens would prove nothing.
  assert.ok(sum("returned") > 300 && sum("elections") > 15 && sum("comparedStates") > 300);
  for (const what of ["kills", "powerLosses", "pauses", "outages", "misled", "transfers", "rebuilds"]) {
    assert.ok(sum(what) > 0, `${what} occur`);
  }
});

test("no history of 4 random seeds does either", async (t) => {
  const first = randomInt(1_000_000, 1_000_000_000);
  t.diagnostic(`seeds ${first}-${first + 3}`);
  await runSeeds(first, 4);
});

test("one seed of masters over shared storage is one history", async () => {
  const run = (): Promise<MasterSimulationResult> => simulateMasters({ seed: 5, ticks: 1500, journal: "shared" });
  assert.deepEqual(await run(), await run());
});
