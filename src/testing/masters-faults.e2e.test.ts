/**
 * Real masters on hosts of their own (network namespaces), under clients whose history must be linearizable. Each test runs
 * `masters-faults.ts`, which says what it does and how long each fault kept changes from being acknowledged.
 */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { runInNamespaces, whyNoNamespaces } from "./network-namespaces.ts";

const skip = whyNoNamespaces();
const scenarioTimeoutMs = 240_000;

for (const { scenario, claim } of [
  {
    scenario: "processes",
    claim: "three masters that are killed, frozen, rolled and all killed at once lose nothing and serve nothing stale",
  },
  {
    scenario: "links",
    claim: "three masters go on under cuts of every kind, one way and between two, and under lossy and slow links",
  },
  {
    scenario: "disks",
    claim:
      "a full disk of a follower is not noticed, and one of the leader makes another lead or changes wait for room",
  },
  {
    scenario: "five",
    claim: "five masters survive two that die, halves, rings, and a network that flaps",
  },
  {
    scenario: "all",
    claim: "all faults at once lose nothing and serve nothing stale, and when they end five masters go on",
  },
]) {
  const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
  test(`${claim} (seed ${seed})`, { timeout: scenarioTimeoutMs, skip }, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "headpond-faults-"));
    try {
      const { code, log } = await runInNamespaces(
        new URL("masters-faults.ts", import.meta.url),
        [scenario, String(seed), directory],
        { onLine: (line) => console.log(`  ${line}`), signal: t.signal },
      );
      assert.equal(code, 0, `${scenario}, seed ${seed}: ended with ${code}:\n${log}`);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
}
