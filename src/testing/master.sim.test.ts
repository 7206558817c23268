import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { test } from "node:test";
import { type MasterSimulationResult, simulateMasters } from "./master-simulator.ts";

const ticks = 6000;

async function runSeeds(first: number, count: number): Promise<MasterSimulationResult[]> {
  const results: MasterSimulationResult[] = [];
  for (let seed = first; seed < first + count; seed++) {
    const result = await simulateMasters({ seed, ticks });
    const end = result.lines.slice(-40).join("\n");
    assert.equal(result.violation, undefined, `seed ${seed}, ${ticks} ms: ${result.violation}\n${end}`);
    results.push(result);
  }
  return results;
}

test("no history of 40 fixed seeds breaks a promise of the masters", async (t) => {
  const results = await runSeeds(1, 40);
  const sum = (what: string): number => results.reduce((total, { counts }) => total + (counts[what] ?? 0), 0);
  const counted = [
    "returned",
    "unknown",
    "elections",
    "kills",
    "powerLosses",
    "pauses",
    "installs",
    "wipes",
    "changes",
  ];
  t.diagnostic(`seeds 1-40: ${counted.map((what) => `${what} ${sum(what)}`).join(", ")}`);
  // Histories in which nothing happens would prove nothing.
  assert.ok(sum("returned") > 3000 && sum("elections") > 60 && sum("comparedStates") > 5000);
  for (const what of ["unknown", "kills", "powerLosses", "pauses", "installs", "wipes", "changes", "transfers"]) {
    assert.ok(sum(what) > 0, `${what} occur`);
  }
});

test("no history of 12 random seeds does either", async (t) => {
  const first = randomInt(1_000_000, 1_000_000_000);
  t.diagnostic(`seeds ${first}-${first + 11}`);
  await runSeeds(first, 12);
});

test("one seed is one history: its transcripts are the same to the byte", async () => {
  for (const seed of [3, 4, 12]) {
    const [once, again] = [await simulateMasters({ seed, ticks: 4000 }), await simulateMasters({ seed, ticks: 4000 })];
    assert.deepEqual(once, again);
  }
  const [three, four] = [
    await simulateMasters({ seed: 3, ticks: 1000 }),
    await simulateMasters({ seed: 4, ticks: 1000 }),
  ];
  assert.notEqual(three.transcript, four.transcript);
});
