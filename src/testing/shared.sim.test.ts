import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { test } from "node:test";
import { type SharedSimulationResult, simulateShared } from "./shared-simulator.ts";

const ticks = 3000;

async function runSeeds(first: number, count: number): Promise<SharedSimulationResult[]> {
  const results: SharedSimulationResult[] = [];
  for (let seed = first; seed < first + count; seed++) {
    const result = await simulateShared({ seed, ticks });
    const end = result.lines.slice(-40).join("\n");
    assert.equal(result.violation, undefined, `seed ${seed}, ${ticks} ms: ${result.violation}\n${end}`);
    results.push(result);
  }
  return results;
}

test("no history of 24 fixed seeds breaks a promise of the shared journal", async (t) => {
  const results = await runSeeds(1, 24);
  const sum = (what: string): number => results.reduce((total, { counts }) => total + (counts[what] ?? 0), 0);
  const counted = ["acknowledged", "unknown", "reads", "standbyReads", "reigns", "kills", "pauses", "rebuilds"];
  t.diagnostic(`seeds 1-24: ${counted.map((what) => `${what} ${sum(what)}`).join(", ")}`);
  // Histories in which nothing happens would prove nothing.
  assert.ok(sum("acknowledged") > 3000 && sum("reigns") > 40 && sum("standbyReads") > 500);
  for (const what of ["unknown", "kills", "powerLosses", "pauses", "outages", "full", "transfers", "rebuilds"]) {
    assert.ok(sum(what) > 0, `${what} occur`);
  }
});

test("no history of 8 random seeds does either", async (t) => {
  const first = randomInt(1_000_000, 1_000_000_000);
  t.diagnostic(`seeds ${first}-${first + 7}`);
  await runSeeds(first, 8);
});

test("one seed of shared journals is one history: its transcripts are the same to the byte", async () => {
  for (const seed of [3, 5]) {
    const [once, again] = [await simulateShared({ seed, ticks: 1500 }), await simulateShared({ seed, ticks: 1500 })];
    assert.deepEqual(once, again);
  }
});
