/**
 * A new master with an empty disk joins while creates go on at a steady rate: it gets the newest checkpoint from the leader,
 * then what was written meanwhile, and becomes a voter. What does that cost those who create?
 *
 * The rate is open: a create is due at its time, whatever became of those before it, and its latency counts from then. All
 * masters and what asks them share this machine. The log is kept short, so that at every size the checkpoint has to travel.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { MiB } from "../src/base/units.ts";
import { connect, type HeadpondClient } from "../src/client/client.ts";
import { MasterGroup, type MasterNode } from "../src/testing/master-group.ts";
import { type Benchmark, type BenchmarkContext, bySize, percentile, round, runOutstanding } from "./lib/benchmark.ts";
import { withDirectory } from "./lib/processes.ts";

const outstanding = 256;
const directoryCount = 1000;
/** Creates that are under way at once; beyond, those that are due wait, and their latency shows it. */
const underWayMax = 20_000;
const beatMs = 5;
const joinTimeoutMs = 600_000;
/** Of a segment of the log. */
const segmentBytes = 64 * MiB;

export const snapshot: Benchmark = {
  name: "snapshot",
  description: "an empty master joins by a checkpoint while creates go on: how long it takes, and what it costs them",
  run: (context) => withDirectory((directory) => run(context, directory)),
};

async function run(context: BenchmarkContext, directory: string): Promise<void> {
  const { size, note } = context;
  const inodes = bySize(size, { full: 10_000_000, quick: 200_000, smoke: 2_000 });
  const perSecond = bySize(size, { full: 20_000, quick: 2_000, smoke: 200 });
  const quietMs = bySize(size, { full: 20_000, quick: 4_000, smoke: 500 });
  const group = new MasterGroup({ directory, raft: { logKeep: "1MiB" }, journal: { checkpointEvery: "4GiB" } });
  let client: HeadpondClient | undefined;
  let rate: SteadyCreates | undefined;
  try {
    await group.found(3);
    const asking = connect({ masters: group.addresses });
    client = asking;
    note(`creating ${inodes} inodes`);
    await runOutstanding(directoryCount, outstanding, (i) => asking.mkdir(`/d${i}`));
    const fillSeconds = await runOutstanding(inodes, outstanding, (i) => asking.create(pathOf("file", i)));
    note(`${Math.round(inodes / fillSeconds)} a second; a checkpoint`);
    await cutLog(asking);
    rate = new SteadyCreates(asking, perSecond);
    await sleep(quietMs / 2);
    note(`${perSecond} creates a second, quiet`);
    rate.reset();
    await sleep(quietMs);
    const quiet = rate.reset();
    note("a new master joins");
    const began = performance.now();
    const joined = await group.join({ readyTimeoutMs: joinTimeoutMs });
    const joinSeconds = (performance.now() - began) / 1000;
    const during = rate.reset();
    await rate.stop();
    await checkJoined(group, joined);
    report(context, { inodes, perSecond, joinSeconds, quiet, during });
  } finally {
    rate?.end();
    await client?.close().catch(() => {});
    await group.close();
  }
}

type Figures = {
  readonly inodes: number;
  readonly perSecond: number;
  readonly joinSeconds: number;
  readonly quiet: RatePart;
  readonly during: RatePart;
};

function report({ emit }: BenchmarkContext, { inodes, perSecond, joinSeconds, quiet, during }: Figures): void {
  const conditions = `${inodes} inodes, ${perSecond} creates/s wanted, 3 masters and the new one on one machine`;
  const common = { system: "headpond-raft", runs: 1 };
  emit({
    ...common,
    metric: "join_s",
    value: round(joinSeconds),
    unit: "s",
    conditions: `${conditions}; from the start of the process until it votes`,
  });
  for (const [metric, { p99Ms, perSecond: reached }] of [
    ["quiet_create_p99_ms", quiet],
    ["join_create_p99_ms", during],
  ] as const) {
    emit({
      ...common,
      metric,
      value: round(p99Ms),
      unit: "ms",
      conditions: `${conditions}; ${Math.round(reached)} creates/s reached`,
    });
  }
  emit({
    ...common,
    metric: "join_p99_ratio",
    value: round(during.p99Ms / quiet.p99Ms),
    unit: "1",
    conditions: `${conditions}; p99 of creates while the master joins over that before`,
  });
}

/** The log is cut by whole segments behind the older of two checkpoints; so that a small one has some, it is filled up first. */
async function cutLog(client: HeadpondClient): Promise<void> {
  const value = "x".repeat(4000);
  const set = Object.fromEntries(Array.from({ length: 15 }, (_, k) => [`padding-${k}`, value]));
  while ((await client.journalStatus()).bytes < 3 * segmentBytes)
    await runOutstanding(200, 16, (i) => client.setAttributes(`/d${i}`, { set }));
  let made = 0;
  // More than twice if another one came to lead meanwhile: each has its own log.
  while (made < 2 || (await client.journalStatus()).firstIndex === 1) {
    await client.journalCheckpoint({ timeoutMs: 600_000 });
    await client.create(pathOf("checkpoint", made++));
  }
}

/** It has what the others have, and it came by a checkpoint. */
async function checkJoined(group: MasterGroup, joined: MasterNode): Promise<void> {
  await group.settled(120_000);
  const client = connect({ masters: [joined.rpc], follow: false });
  try {
    const { firstIndex, checkpointIndex } = await client.journalStatus();
    if (firstIndex > 1 && checkpointIndex > 0) return;
    throw new Error(`${joined.id} came by the log from ${firstIndex} on, not by a checkpoint`);
  } finally {
    await client.close();
  }
}

type RatePart = { readonly p99Ms: number; readonly perSecond: number };

/** Creates that are due at a steady rate. */
class SteadyCreates {
  readonly #client: HeadpondClient;
  readonly #perSecond: number;
  readonly #beat: NodeJS.Timeout;
  readonly #beganMs = performance.now();
  readonly #underWay = new Set<Promise<void>>();
  #begun = 0;
  #latencies: number[] = [];
  #sinceMs = this.#beganMs;
  #failure: Error | undefined;

  constructor(client: HeadpondClient, perSecond: number) {
    this.#client = client;
    this.#perSecond = perSecond;
    this.#beat = setInterval(() => this.#due(), beatMs);
  }

  /** What was reached since the last call. Throws if a create failed. */
  reset(): RatePart {
    if (this.#failure !== undefined) throw this.#failure;
    const nowMs = performance.now();
    const latencies = this.#latencies;
    const perSecond = latencies.length / ((nowMs - this.#sinceMs) / 1000);
    this.#latencies = [];
    this.#sinceMs = nowMs;
    return { p99Ms: percentile(latencies, 0.99), perSecond };
  }

  /** Begins no more creates. */
  end(): void {
    clearInterval(this.#beat);
  }

  /** Resolves when all that were begun are answered. Throws if one failed. */
  async stop(): Promise<void> {
    this.end();
    await Promise.all(this.#underWay);
    if (this.#failure !== undefined) throw this.#failure;
  }

  #due(): void {
    const dueMs = performance.now();
    const due = Math.floor(((dueMs - this.#beganMs) / 1000) * this.#perSecond);
    while (this.#begun < due && this.#underWay.size < underWayMax) {
      const i = this.#begun++;
      const atMs = this.#beganMs + (i / this.#perSecond) * 1000;
      const create = this.#client.create(pathOf("steady", i)).then(
        () => void this.#latencies.push(performance.now() - atMs),
        (error: unknown) => {
          this.#failure ??= error as Error;
        },
      );
      const tracked = create.finally(() => this.#underWay.delete(tracked));
      this.#underWay.add(tracked);
    }
  }
}

function pathOf(kind: string, i: number): string {
  return `/d${i % directoryCount}/${kind}-${i}`;
}
