/**
 * How long a thousand machines of 100 Gbit/s take for a model of 750 GB, by the scheduling code of the real workers over simulated links: nobody here
 * has such a fleet. Blocks are larger than real ones, or there would be 179 million transfers; a hop takes as long as a step.
 */

import { boundMs, type FleetCase, FleetSimulator } from "../src/testing/fleet-simulator.ts";
import { type Benchmark, type BenchmarkContext, bySize, round } from "./lib/benchmark.ts";

const gigabytesPerSecond = 1e9;

export const fleetSim: Benchmark = {
  name: "fleet-sim",
  description: "a model of 750 GB on a simulated fleet of 100 Gbit/s machines, by the real scheduling code",
  run,
};

async function run({ size, emit, note }: BenchmarkContext): Promise<void> {
  const workers = bySize(size, { full: 1000, quick: 100, smoke: 20 });
  const fleet: FleetCase = {
    seed: 1,
    workers,
    fileBytes: bySize(size, { full: 750e9, quick: 750e9, smoke: 75e9 }),
    blockBytes: 2 ** 30,
    linkBytesPerSecond: 12.5 * gigabytesPerSecond,
    originBytesPerSecond: 12.5 * gigabytesPerSecond,
    stepMs: 20,
    roundTripMs: 2,
    reportMs: 250,
    startWithinMs: 200,
  };
  const began = performance.now();
  const { doneMs, originBytes, steps } = new FleetSimulator(fleet).run();
  const slowestMs = Math.max(...doneMs.map((ms) => ms ?? Number.POSITIVE_INFINITY));
  note(
    `${workers} workers: ${(slowestMs / 1000).toFixed(1)} s of ${(boundMs(fleet) / 1000).toFixed(1)} s; ${steps} steps in ${((performance.now() - began) / 1000).toFixed(0)} s`,
  );
  const conditions = `simulated: ${workers} workers of 100 Gbit/s, origin 100 Gbit/s, ${fleet.fileBytes / 1e9} GB in blocks of 1 GiB, ${fleet.stepMs} ms a hop, seed ${fleet.seed}`;
  const figures = [
    { metric: `aggregate_bytes_per_s_${workers}`, value: (workers * fleet.fileBytes * 1000) / slowestMs, unit: "B/s" },
    { metric: `bound_ratio_${workers}`, value: slowestMs / boundMs(fleet), unit: "1" },
    { metric: `origin_amplification_${workers}`, value: originBytes / fleet.fileBytes, unit: "1" },
  ];
  for (const { metric, value, unit } of figures) {
    emit({ system: "headpond", metric, value: round(value), unit, runs: 1, conditions });
  }
}
