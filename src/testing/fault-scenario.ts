/** Registers a test that runs one scenario of `masters-faults.ts`, or of a program like it, on hosts of its own, and prints what that says. */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { runInNamespaces, whyNoNamespaces } from "./network-namespaces.ts";

const whyNot = whyNoNamespaces();
const scenarioTimeoutMs = 240_000;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

export type FaultScenarioOptions = {
  /** Beside this file. */
  readonly program?: string;
  /** Why it cannot run here. */
  readonly skip?: string | false;
};

export function testFaultScenario(scenario: string, claim: string, options: FaultScenarioOptions = {}): void {
  const { program = "masters-faults.ts" } = options;
  const skip = options.skip === undefined || options.skip === false ? whyNot : options.skip;
  test(`${claim} (seed ${seed})`, { timeout: scenarioTimeoutMs, skip }, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), "headpond-faults-"));
    try {
      const { code, log } = await runInNamespaces(
        new URL(program, import.meta.url),
        [scenario, String(seed), directory],
        { onLine: (line) => console.log(`  ${line}`), signal: t.signal },
      );
      assert.equal(code, 0, `${scenario}, seed ${seed}: ended with ${code}:\n${log}`);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
}
