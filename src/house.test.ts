/** The scripts that run the gates: that they count what happened, and that a failure cannot look like a pass. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

type GateResult = {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: readonly { readonly name: string; readonly reason: string }[];
};

/** Runs files of the given contents as one gate, as `scripts/test.mjs` does, in a process of its own. */
function runGate(context: TestContext, contents: readonly string[]): { result: GateResult; output: string } {
  const directory = mkdtempSync(join(tmpdir(), "headpond-house-"));
  context.after(() => rmSync(directory, { recursive: true }));
  const files = contents.map((content, i) => {
    const path = join(directory, `${i}.test.mjs`);
    writeFileSync(path, `import { describe, test } from "node:test";\n${content}`);
    return path;
  });
  const gates = JSON.stringify(new URL("../scripts/gates.mjs", import.meta.url).href);
  const options = JSON.stringify({ node: process.execPath, files, concurrency: 2, timeoutMs: 1500, cwd: directory });
  const code = `import { runTests } from ${gates};
    const result = await runTests({ ...${options}, env: process.env });
    console.log("\\nRESULT " + JSON.stringify(result));`;
  // The runner refuses to run inside another one, and knows it by this variable.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", code], { encoding: "utf8", env });
  const line = stdout.split("\n").find((text) => text.startsWith("RESULT "));
  return { result: JSON.parse((line ?? "").slice(7)) as GateResult, output: stdout };
}

test("passes, failures and skips are counted one by one, with names and reasons, inside suites, too", (context) => {
  const { result, output } = runGate(context, [
    `test("a", () => {}); test("b", { skip: "no nginx" }, () => {}); test("c", () => { console.log("seed 77"); throw new Error("broken c"); });`,
    `describe("suite", () => { test("d", () => {}); test("e", () => { throw new Error("broken e"); }); test.skip("f"); });`,
    `test("g", { todo: "later" }, () => { throw new Error("x"); });`,
  ]);
  assert.equal(result.passed, 2);
  assert.equal(result.failed, 2);
  assert.deepEqual(result.skipped.map(({ name, reason }) => `${name}: ${reason}`).sort(), [
    "b: no nginx",
    "f: no reason given",
    "g: later",
  ]);
  assert.match(output, /✖ c\n/);
  assert.match(output, /broken e/);
  assert.match(output, /seed 77/, "what a failing file printed is shown");
});

test("a file that crashes, hangs, has no tests or fails after its tests is a failure", (context) => {
  for (const content of [
    `throw new Error("at the top");`,
    `test("hangs", () => new Promise(() => setInterval(() => {}, 1000)));`,
    ``,
    `process.exit(3);`,
    `test("ends well", () => {}); setTimeout(() => { throw new Error("afterwards"); }, 50);`,
  ]) {
    const { result } = runGate(context, [content]);
    assert.ok(result.failed >= 1, content);
    assert.equal(result.passed, content.includes("ends well") ? 1 : 0);
  }
});

test("the command line answers on the Node of the machine, or says which one it needs", () => {
  const source = readFileSync(join(root, "bin", "headpond"), "utf8");
  assert.match(source, /^#!\/usr\/bin\/env node\n/);
  const { status, stdout } = spawnSync(join(root, "bin", "headpond"), ["--help"], { encoding: "utf8" });
  assert.equal(status, 0);
  assert.match(stdout, /headpond/);
});

test("every gate can be named, an unknown one cannot", () => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [join(root, "scripts", "test.mjs"), ...args], { encoding: "utf8" });
  const unknown = run("--only", "nonsense");
  assert.equal(unknown.status, 2);
  assert.match(unknown.stderr, /unknown gate nonsense/);
  // Nothing that ran is not everything that held.
  const nothing = run("--only", "unit", "src/no-such-directory");
  assert.equal(nothing.status, 1);
  assert.match(nothing.stdout, /none yet/);
  assert.match(nothing.stdout, /\n0 passed, 0 failed\n$/);
});
