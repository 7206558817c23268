/**
 * `npm run soak -- NAME [--seeds N] [--seed S]`: as many simulated histories as time allows, beginning with one seed.
 * Prints what was run and every violation with the seed that repeats it; ends with 1 if there was any.
 */

import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { simulateMasters } from "./master-simulator.ts";
import { simulate } from "./raft-core-simulator.ts";
import { simulateShared } from "./shared-simulator.ts";

type Outcome = {
  readonly ticks: number;
  readonly violation: string | undefined;
  readonly counts: Readonly<Record<string, number>>;
};

const ticksPerSeed = 20_000;

/** One history of each soak. */
const soaks: Readonly<Record<string, (seed: number) => Outcome | Promise<Outcome>>> = {
  "raft-master": (seed) => simulateMasters({ seed, ticks: ticksPerSeed }),
  "shared-master": (seed) => simulateMasters({ seed, ticks: ticksPerSeed, journal: "shared" }),
  "shared-journal": (seed) => simulateShared({ seed, ticks: ticksPerSeed }),
  "raft-core": (seed) => {
    const { ticks, violation, leaders, committed, counts } = simulate({ seed, ticks: ticksPerSeed });
    return { ticks, violation, counts: { leaders, committed, ...counts } };
  },
};

async function soak(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { seeds: { type: "string", default: "1000" }, seed: { type: "string" } },
  });
  const name = positionals[0] ?? "";
  const run = soaks[name];
  const seeds = Number(values.seeds);
  const first = values.seed === undefined ? randomInt(1, 2 ** 31) : Number(values.seed);
  if (run === undefined || positionals.length !== 1 || !Number.isSafeInteger(seeds) || !Number.isSafeInteger(first)) {
    console.error(`usage: npm run soak -- ${Object.keys(soaks).join("|")} [--seeds N] [--seed FIRST]`);
    return 2;
  }
  const totals: Record<string, number> = { ticks: 0 };
  const add = (key: string, value: number): void => void (totals[key] = (totals[key] ?? 0) + value);
  let violations = 0;
  const startMs = performance.now();
  console.log(`${name}: seeds ${first} to ${first + seeds - 1}, ${ticksPerSeed} ticks each before they heal`);
  for (let i = 0; i < seeds; i++) {
    const { ticks, violation, counts } = await run(first + i);
    add("ticks", ticks);
    for (const [key, value] of Object.entries(counts)) add(key, value);
    if (violation !== undefined) {
      violations++;
      console.log(`seed ${first + i}: ${violation}`);
    }
    if ((i + 1) % (name === "raft-core" ? 1000 : 100) === 0) console.log(`${i + 1} seeds, ${violations} violations`);
  }
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  console.log(
    Object.entries(totals)
      .map(([key, value]) => `${key} ${Math.round(value)}`)
      .join(", "),
  );
  console.log(`${name}: ${seeds} seeds, ${violations} violations, ${seconds} s`);
  return violations === 0 ? 0 : 1;
}

process.exitCode = await soak(process.argv.slice(2));
