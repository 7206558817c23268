import assert from "node:assert/strict";
import { test } from "node:test";
import { exploreSharedLog, type LeftOut, type ModelBounds } from "./shared-log-model.ts";

/** Pipelined writes of two primaries; three primaries of which one sleeps through all of it. */
const pipelined: ModelBounds = { writers: 2, values: 2, epochs: 2, window: 2 };
const successions: ModelBounds = { writers: 2, values: 1, epochs: 3, window: 1 };

test("no order of steps loses what was acknowledged, doubles anything, or shows anybody another log", (t) => {
  for (const bounds of [pipelined, successions]) {
    const { states, violation } = exploreSharedLog(bounds, "none");
    assert.equal(
      violation,
      undefined,
      violation === undefined ? "" : `${violation.what}\n${violation.steps.join("\n")}`,
    );
    t.diagnostic(`${JSON.stringify(bounds)}: ${states} states`);
  }
});

const rules: readonly (readonly [Exclude<LeftOut, "none">, ModelBounds])[] = [
  ["epoch-read", successions],
  ["checkpoint-look", successions],
  ["seal", successions],
  ["contiguity", pipelined],
];

for (const [rule, bounds] of rules) {
  test(`without the rule of the ${rule} the model finds what goes wrong`, (t) => {
    const { states, violation } = exploreSharedLog(bounds, rule);
    assert.ok(violation, `nothing was found in ${states} states`);
    t.diagnostic(`${states} states: ${violation.what}; ${violation.steps.join("; ")}`);
  });
}
