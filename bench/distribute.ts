/**
 * How fast N workers get a cold model, and how often its bytes leave the origin: real worker processes on hosts of their own with
 * shaped links, beside a curl for each node and BitTorrent in the same run.
 *
 * The clock starts when everything runs and nothing was fetched; a node is done when the leader calls it READY (BitTorrent: when
 * it has all pieces; curl: when it ends). New random bytes every run; the SHA-256 of every copy is compared after the timed part.
 * Efficiency = bound / completion of the slowest node, bound = max(S/origin, S/link, N S/(origin + sum of links), S/link between
 * regions). Payload is counted by the origin itself, and bytes at its link by the kernel. The sum of the nodes' rates is at most
 * 160 MB/s: beyond, the machine is measured and not the network. How busy it was stands with each result.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MiB } from "../src/base/units.ts";
import { pythonClient } from "../src/testing/hf-clients.ts";
import { runInNamespaces, whyNoNamespaces } from "../src/testing/network-namespaces.ts";
import {
  type Benchmark,
  type BenchmarkContext,
  bySize,
  median,
  percentile,
  type Result,
  round,
} from "./lib/benchmark.ts";
import {
  boundSeconds,
  describeCase,
  type ShapedCase,
  type ShapedResult,
  type ShapedSystem,
} from "./lib/shaped-case.ts";

const script = new URL("lib/shaped-run.ts", import.meta.url);
/** Above, the machine may have been the limit. */
const busyMax = 0.8;
const libtorrent = "libtorrent==2.1.1";

type Scenario = {
  readonly metrics: readonly string[];
  readonly systems: readonly ShapedSystem[];
  readonly given: Omit<ShapedCase, "system">;
  /** From each run of a system, one value for each of the metrics that it has. */
  readonly figures: (given: ShapedCase, result: ShapedResult) => Readonly<Record<string, number>>;
};

const units: Readonly<Record<string, string>> = { cpu_s_per_gb: "s/GB" };

export const distribute: Benchmark = {
  name: "distribute",
  description: "a cold model on N workers with shaped links, beside a curl for each node and BitTorrent",
  run,
};

async function run(context: BenchmarkContext): Promise<void> {
  const { size, note, only } = context;
  const why = whyNoNamespaces();
  if (why !== false) throw new Error(why);
  const chosen = scenarios(size).filter(({ metrics }) => only === undefined || metrics.includes(only));
  if (chosen.length === 0) {
    throw new Error(
      `no metric ${only}: there are ${scenarios("full")
        .flatMap(({ metrics }) => metrics)
        .join(", ")}`,
    );
  }
  const python = chosen.some(({ systems }) => systems.includes("bittorrent"))
    ? await pythonClient("libtorrent-2.1.1", [libtorrent])
    : { missing: "not asked for" };
  if ("missing" in python) note(`bittorrent is left out: ${python.missing}`);
  else process.env["SHAPED_PYTHON"] = join(python.bin, "python");
  const runs = bySize(size, { full: 3, quick: 1, smoke: 1 });
  for (const scenario of chosen) {
    for (const system of scenario.systems) {
      if (system === "bittorrent" && "missing" in python) continue;
      await measure(context, scenario, { ...scenario.given, system }, runs);
    }
  }
}

async function measure(context: BenchmarkContext, scenario: Scenario, given: ShapedCase, runs: number): Promise<void> {
  const { emit, note, only } = context;
  const values = new Map<string, number[]>();
  const busy: number[] = [];
  for (let count = 1; count <= runs; count++) {
    const result = await once(given);
    const figures = scenario.figures(given, result);
    busy.push(result.busy);
    const shown = Object.entries(figures).map(([name, value]) => `${name} ${round(value)}`);
    const slowest = Math.max(...result.seconds.map((seconds) => seconds ?? 0));
    note(
      `${given.system}, ${describeCase(given)}, run ${count} of ${runs}: ${slowest.toFixed(2)} s of ` +
        `${boundSeconds(given).toFixed(2)} s, ${shown.join(", ")}, ${Math.round(result.busy * 100)} % busy`,
    );
    for (const [name, value] of Object.entries(figures)) values.set(name, [...(values.get(name) ?? []), value]);
  }
  const machine = `machine ${Math.round(median(busy) * 100)} % busy${median(busy) > busyMax ? " (too busy to be trusted)" : ""}`;
  for (const [metric, all] of values) {
    if (only !== undefined && only !== metric) continue;
    const result: Result = {
      system: given.system,
      metric,
      value: round(median(all)),
      unit: units[metric] ?? "1",
      runs,
      conditions: `${describeCase(given)}; caches in memory; ${machine}`,
    };
    emit(result);
  }
}

/** One run, in a network of its own. Throws when a copy is not the origin's. */
async function once(given: ShapedCase): Promise<ShapedResult> {
  const directory = await mkdtemp(join(tmpdir(), "headpond-distribute-"));
  const lines: string[] = [];
  try {
    const { code, log } = await runInNamespaces(script, [JSON.stringify(given), directory], {
      onLine: (line) => lines.push(line),
    });
    if (code !== 0) throw new Error(`${given.system}, ${describeCase(given)}: ended with ${code}:\n${log}`);
    const result = JSON.parse(lines.at(-1) ?? "") as ShapedResult;
    if (result.wrong.length > 0) throw new Error(`wrong bytes: ${result.wrong.join("; ")}`);
    return result;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function scenarios(size: BenchmarkContext["size"]): readonly Scenario[] {
  const MB = 1e6;
  const all: readonly ShapedSystem[] = ["headpond", "direct", "bittorrent"];
  const eight = { nodes: 8, nodeBytesPerSecond: 20 * MB, originBytesPerSecond: 20 * MB, fileBytes: 200 * MiB };
  const cold = (nodes: number): Scenario["figures"] => {
    return (given, result) => ({ [`efficiency_${nodes}`]: efficiency(given, result) });
  };
  const coldOfEight: Scenario = {
    metrics: ["efficiency_8", "fairness_8", "origin_amplification_8", "origin_link_ratio_8", "cpu_s_per_gb"],
    systems: all,
    given: eight,
    figures: (given, result) => ({
      efficiency_8: efficiency(given, result),
      fairness_8: fairness(result),
      origin_amplification_8: result.originBytes / given.fileBytes,
      origin_link_ratio_8: result.originLinkBytes / given.fileBytes,
      ...(result.cpuSeconds.length === 0 ? {} : { cpu_s_per_gb: cpuPerGb(given, result) }),
    }),
  };
  const ownerKilled: Scenario = {
    metrics: ["efficiency_owner_killed", "origin_amplification_owner_killed"],
    systems: ["headpond"],
    given: { ...eight, kill: true },
    figures: (given, result) => ({
      efficiency_owner_killed: efficiency(given, result),
      origin_amplification_owner_killed: result.originBytes / given.fileBytes,
    }),
  };
  const readers: Scenario = {
    metrics: ["readers_64", "readers_64_last_to_first"],
    systems: ["headpond"],
    given: { nodes: 1, nodeBytesPerSecond: 20 * MB, originBytesPerSecond: 5 * MB, fileBytes: 40 * MiB, readers: 64 },
    figures: (given, result) => ({
      readers_64: result.originBytes / given.fileBytes,
      readers_64_last_to_first: Math.max(...known(result)) / Math.min(...known(result)),
    }),
  };
  if (size === "smoke") {
    const small = { nodes: 3, fileBytes: 12 * MiB, nodeBytesPerSecond: 20 * MB, originBytesPerSecond: 20 * MB };
    return [{ ...coldOfEight, given: small, systems: ["headpond", "direct", "bittorrent"] }];
  }
  if (size === "quick") {
    return [
      { ...coldOfEight, systems: ["headpond", "bittorrent"], given: { ...eight, fileBytes: 100 * MiB } },
      { ...coldOfEight, systems: ["direct"], given: { ...eight, fileBytes: 16 * MiB } },
      { ...ownerKilled, given: { ...ownerKilled.given, fileBytes: 100 * MiB } },
      { ...readers, given: { ...readers.given, fileBytes: 16 * MiB } },
    ];
  }
  return [
    { ...coldOfEight, systems: ["headpond", "bittorrent"] },
    { ...coldOfEight, systems: ["direct"], given: { ...eight, fileBytes: 50 * MiB } },
    {
      metrics: ["efficiency_16"],
      systems: ["headpond", "bittorrent"],
      given: { nodes: 16, nodeBytesPerSecond: 10 * MB, originBytesPerSecond: 10 * MB, fileBytes: 100 * MiB },
      figures: cold(16),
    },
    {
      metrics: ["efficiency_32"],
      systems: ["headpond"],
      given: { nodes: 32, nodeBytesPerSecond: 5 * MB, originBytesPerSecond: 5 * MB, fileBytes: 100 * MiB },
      figures: cold(32),
    },
    ownerKilled,
    {
      metrics: ["efficiency_slow_node"],
      systems: ["headpond"],
      given: { ...eight, slowBytesPerSecond: 5 * MB, fileBytes: 100 * MiB },
      figures: (given, result) => ({ efficiency_slow_node: efficiency(given, result) }),
    },
    {
      metrics: ["efficiency_slow_origin"],
      systems: ["headpond"],
      given: { ...eight, originBytesPerSecond: 5 * MB, fileBytes: 100 * MiB },
      figures: (given, result) => ({ efficiency_slow_origin: efficiency(given, result) }),
    },
    {
      metrics: ["efficiency_fast_origin"],
      systems: ["headpond"],
      given: { ...eight, nodeBytesPerSecond: 10 * MB, originBytesPerSecond: 40 * MB, fileBytes: 100 * MiB },
      figures: (given, result) => ({ efficiency_fast_origin: efficiency(given, result) }),
    },
    {
      metrics: ["efficiency_regions", "cross_region_ratio"],
      systems: ["headpond"],
      given: { ...eight, regions: 2, regionLinkBytesPerSecond: 10 * MB, fileBytes: 100 * MiB },
      figures: (given, result) => ({
        efficiency_regions: efficiency(given, result),
        cross_region_ratio: result.crossRegionBytes / given.fileBytes,
      }),
    },
    readers,
  ];
}

function known({ seconds }: ShapedResult): number[] {
  return seconds.filter((value) => value !== null);
}

function efficiency(given: ShapedCase, result: ShapedResult): number {
  return boundSeconds(given) / Math.max(...known(result));
}

function fairness(result: ShapedResult): number {
  return percentile(known(result), 0.99) / median(known(result));
}

/** Of a node, over the file's bytes. */
function cpuPerGb(given: ShapedCase, { cpuSeconds }: ShapedResult): number {
  return cpuSeconds.reduce((sum, seconds) => sum + seconds, 0) / cpuSeconds.length / (given.fileBytes / 1e9);
}
