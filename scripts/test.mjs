/**
 * Every gate, in order, with its result: format, lint, types, dead code, then the tests by kind, then each benchmark at
 * smoke size. The last line says `N passed, N failed`, and the exit code is 0 only if nothing failed. A kind without
 * files is "none yet", which is not a pass.
 *
 *   npm test                         everything
 *   npm test -- --static             what needs nothing to run
 *   npm test -- --only unit,types    some gates
 *   npm test -- --only unit src/io   tests of some paths
 *   npm test -- --only soak          fault runs of minutes each, which `npm test` leaves out (docs/verification.md)
 */

import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { installPrograms } from "./debian.mjs";
import { findFiles, runProgram, runTests } from "./gates.mjs";
import { projectEnvironment, root, setup } from "./setup.mjs";

const codeDirectories = ["src", "bench", "examples", "scripts"];

const staticGates = [
  { name: "format", command: "biome", args: ["check", "--error-on-warnings", "."] },
  { name: "lint", command: "oxlint", args: ["--type-aware", "--deny-warnings", ...codeDirectories.filter(hasCode)] },
  { name: "types", command: "tsc", args: [] },
  { name: "dead-code", command: "knip", args: ["--no-config-hints", "--no-progress"] },
];

/** `suffix`: what the names of the files end with; the rest are unit tests. */
const testGates = [
  { name: "unit", suffix: undefined, timeoutMs: 120_000 },
  { name: "simulation", suffix: ".sim.test.ts", timeoutMs: 300_000 },
  { name: "integration", suffix: ".integration.test.ts", timeoutMs: 300_000 },
  { name: "e2e", suffix: ".e2e.test.ts", timeoutMs: 300_000 },
  { name: "browser", suffix: ".browser.test.ts", timeoutMs: 300_000 },
  { name: "soak", suffix: ".soak.test.ts", timeoutMs: 600_000 },
];
const suffixes = testGates.map(({ suffix }) => suffix).filter((suffix) => suffix !== undefined);
const gateNames = [...staticGates, ...testGates].map(({ name }) => name).concat("bench");
const onDemand = ["soak"];

const { wanted, paths } = parseArguments(process.argv.slice(2));
const node = setup();
const environment = projectEnvironment();
const total = { passed: 0, failed: 0, skipped: [] };
const lines = [];

for (const { name, command, args } of staticGates) {
  await gate(name, () => runProgram({ command, args, cwd: root, env: environment }));
}
installPrograms(wanted.filter((name) => name !== "bench"));
for (const { name, suffix, timeoutMs } of testGates) {
  await gate(name, () => {
    const files = findFiles(root, "src", (file) => {
      if (!file.endsWith(".test.ts") || (paths.length > 0 && !paths.some((path) => file.startsWith(path))))
        return false;
      return suffix === undefined ? !suffixes.some((other) => file.endsWith(other)) : file.endsWith(suffix);
    });
    if (files.length === 0) return undefined;
    // Tests that start processes or count on a free machine do not share it with others; simulated time does not mind.
    const shares = name === "unit" || name === "simulation";
    const concurrency = shares ? Math.min(4, availableParallelism()) : 1;
    return runTests({ node, files, concurrency, timeoutMs, cwd: root, env: environment });
  });
}
await gate("bench", () => {
  if (!existsSync(join(root, "bench", "run.ts"))) return undefined;
  installPrograms(["bench"]);
  return runProgram({ command: node, args: ["bench/run.ts", "--smoke"], cwd: root, env: environment });
});

console.log(`\n${lines.join("\n")}\n`);
if (total.skipped.length > 0) {
  console.log("skipped:");
  for (const { name, reason } of total.skipped) console.log(`  ${name}: ${reason}`);
  console.log("");
}
for (const name of onDemand) if (!wanted.includes(name)) console.log(`not run: ${name} (npm test -- --only ${name})`);
const skippedText = total.skipped.length > 0 ? `, ${total.skipped.length} skipped` : "";
console.log(`${total.passed} passed, ${total.failed} failed${skippedText}`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;

async function gate(name, run) {
  if (!wanted.includes(name)) return;
  const startMs = performance.now();
  console.log(`\n== ${name}`);
  const result = await run();
  const seconds = `${((performance.now() - startMs) / 1000).toFixed(1)} s`.padStart(8);
  if (result === undefined) {
    console.log("none yet");
    lines.push(`${name.padEnd(12)} ${seconds}  none yet`);
    return;
  }
  const { passed, failed, skipped } = result;
  total.passed += passed;
  total.failed += failed;
  total.skipped.push(...skipped);
  const counts = `${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ""}`;
  lines.push(`${name.padEnd(12)} ${seconds}  ${counts}`);
}

function parseArguments(args) {
  let wanted = gateNames.filter((name) => !onDemand.includes(name));
  const paths = [];
  for (let i = 0; i < args.length; i++) {
    if (args[i] === "--static") wanted = staticGates.map(({ name }) => name);
    else if (args[i] === "--only") wanted = (args[++i] ?? "").split(",");
    else if (args[i].startsWith("-")) usage(`unknown option ${args[i]}`);
    else paths.push(args[i]);
  }
  const unknown = wanted.filter((name) => !gateNames.includes(name));
  if (unknown.length > 0) usage(`unknown gate ${unknown.join(", ")}`);
  return { wanted, paths };
}

function usage(problem) {
  console.error(`${problem}\nusage: node scripts/test.mjs [--static | --only ${gateNames.join(",")}] [PATH...]`);
  process.exit(2);
}

function hasCode(directory) {
  return findFiles(root, directory, (file) => /\.(ts|mjs)$/.test(file)).length > 0;
}
