/**
 * `npm run bench`: lists the benchmarks; `npm run bench NAME [-- --quick]` runs one. Results are JSON lines on stdout, progress
 * goes to stderr. `--only METRIC`: no more of it than that figure needs, where a benchmark has parts. `--report FILE`: writes the page too, where a benchmark has one. `--smoke` runs every benchmark at its smallest size, so that none rots: it checks that each still works,
 * and judges no figure.
 */

import { parseArgs } from "node:util";
import { distribute } from "./distribute.ts";
import { failover } from "./failover.ts";
import { fleetSim } from "./fleet-sim.ts";
import { journals } from "./journals.ts";
import type { Benchmark, BenchmarkSize, Result } from "./lib/benchmark.ts";
import { metaLocal } from "./meta-local.ts";
import { metaRaft } from "./meta-raft.ts";
import { metaRestart } from "./meta-restart.ts";
import { readCached } from "./read-cached.ts";
import { readMiss } from "./read-miss.ts";
import { readPeer } from "./read-peer.ts";
import { snapshot } from "./snapshot.ts";

const benchmarks: readonly Benchmark[] = [
  metaLocal,
  metaRaft,
  metaRestart,
  readCached,
  readMiss,
  readPeer,
  distribute,
  fleetSim,
  failover,
  journals,
  snapshot,
];

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      quick: { type: "boolean" },
      smoke: { type: "boolean" },
      only: { type: "string" },
      report: { type: "string" },
    },
  });
  const size: BenchmarkSize = values.smoke === true ? "smoke" : values.quick === true ? "quick" : "full";
  const [name] = positionals;
  if (name === undefined && size !== "smoke") {
    for (const benchmark of benchmarks) process.stdout.write(`${benchmark.name.padEnd(14)}${benchmark.description}\n`);
    process.stdout.write("\nnpm run bench NAME [-- --quick]\n");
    return 0;
  }
  const chosen = benchmarks.filter((benchmark) => name === undefined || benchmark.name === name);
  if (chosen.length === 0) {
    process.stderr.write(
      `no benchmark ${name}: there are ${benchmarks.map((benchmark) => benchmark.name).join(", ")}\n`,
    );
    return 2;
  }
  let failed = 0;
  for (const benchmark of chosen) {
    const results: Result[] = [];
    try {
      await benchmark.run({
        size,
        only: values.only,
        report: values.report,
        emit: (given) => {
          const { ratio, ...rest } = given;
          // A peer's figure can round to 0 at smoke size: no ratio is better than a wrong one.
          const result: Result = ratio === undefined || !Number.isFinite(ratio) ? rest : { ...rest, ratio };
          results.push(result);
          process.stdout.write(`${JSON.stringify({ bench: benchmark.name, ...result })}\n`);
        },
        note: (text) => process.stderr.write(`${benchmark.name}: ${text}\n`),
      });
      if (results.length === 0) throw new Error("gave no result");
    } catch (error) {
      failed++;
      process.stderr.write(`${benchmark.name}: ${error instanceof Error ? error.stack : String(error)}\n`);
    }
  }
  if (size === "smoke") process.stdout.write(`${chosen.length - failed} passed, ${failed} failed\n`);
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main();
