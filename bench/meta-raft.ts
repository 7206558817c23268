/**
 * Metadata through three masters with the Raft journal: durable creates, their latency, and linearizable stats, beside
 * three nodes each of etcd, ZooKeeper and Alluxio's embedded journal in the same run.
 *
 * Conditions: all nodes of a system and what asks them share this machine; systems run one after the other, each after a warm-up.
 * A create is one inode, one request, fsynced by a majority before it is acknowledged; etcd puts a key, ZooKeeper creates a
 * node, Alluxio makes a directory (one request, one flush), because a file takes it two.
 */

import { type Benchmark, type BenchmarkContext, bySize, median, type Result, round } from "./lib/benchmark.ts";
import { HeadpondMasters } from "./lib/headpond-masters.ts";
import type { LoadResult, Peer } from "./lib/peer.ts";
import { isAlluxio, withEachPeer } from "./lib/peers.ts";
import { withDirectory } from "./lib/processes.ts";

const outstanding = 256;

export const metaRaft: Benchmark = {
  name: "meta-raft",
  description: "creates, stats and latency of three masters with the Raft journal, beside etcd, ZooKeeper and Alluxio",
  run: (context) => withDirectory((directory) => run(context, directory)),
};

type Figures = { writes: number[]; latencyUs: number; reads: number };

async function run(context: BenchmarkContext, directory: string): Promise<void> {
  const { size, note, emit } = context;
  const warmSeconds = bySize(size, { full: 8, quick: 2, smoke: 0.5 });
  const seconds = bySize(size, { full: 6, quick: 2, smoke: 0.5 });
  const runs = bySize(size, { full: 3, quick: 1, smoke: 1 });

  const peers = new Map<string, Figures>();
  await withEachPeer(context, directory, ["etcd", "zookeeper", "alluxio-raft"], async (peer, name) => {
    const figures = await measurePeer(peer, { warmSeconds: isAlluxio(name) ? 40 : warmSeconds, seconds, runs });
    peers.set(peer.system, figures);
    emitFigures(emit, peer, figures, runs);
  });
  note("headpond-raft: starting");
  const masters = await HeadpondMasters.start({ directory });
  try {
    await measureOurs(context, masters, peers, { warmSeconds, seconds, runs });
  } finally {
    await masters.close();
  }
}

type Times = { readonly warmSeconds: number; readonly seconds: number; readonly runs: number };

async function measurePeer(peer: Peer, { warmSeconds, seconds, runs }: Times): Promise<Figures> {
  await peer.writes(outstanding, warmSeconds);
  const writes: number[] = [];
  for (let n = 0; n < runs; n++) writes.push((await peer.writes(outstanding, seconds)).perSecond);
  const { medianUs } = await peer.writes(1, seconds);
  const { perSecond } = await peer.reads(outstanding, seconds);
  return { writes, latencyUs: medianUs, reads: perSecond };
}

function emitFigures(emit: (result: Result) => void, peer: Peer, figures: Figures, runs: number): void {
  const { system, conditions } = peer;
  const reads = system === "etcd" ? "linearizable" : "of the asked server's own state";
  emit({
    system,
    metric: "creates_per_s",
    value: round(median(figures.writes)),
    unit: "1/s",
    runs,
    conditions: `${conditions}; ${outstanding} outstanding`,
  });
  emit({
    system,
    metric: "create_latency_us",
    value: round(figures.latencyUs),
    unit: "us",
    runs: 1,
    conditions: `${conditions}; median, one outstanding`,
  });
  emit({
    system,
    metric: "stats_per_s",
    value: round(figures.reads),
    unit: "1/s",
    runs: 1,
    conditions: `${conditions}; ${outstanding} outstanding, ${reads}`,
  });
}

async function measureOurs(
  { emit, note }: BenchmarkContext,
  masters: HeadpondMasters,
  peers: ReadonlyMap<string, Figures>,
  { warmSeconds, seconds, runs }: Times,
): Promise<void> {
  const { system } = masters;
  const { conditions } = masters;
  await masters.writes(outstanding, warmSeconds);
  const rates: number[] = [];
  const cpu = { leader: [] as number[], follower: [] as number[], client: [] as number[] };
  for (let n = 0; n < runs; n++) {
    note(`creates, run ${n + 1} of ${runs}`);
    const shares = await masters.cpuShares(() => masters.writes(outstanding, seconds));
    rates.push(shares.load.perSecond);
    cpu.leader.push(shares.cpu.leaderUs);
    cpu.follower.push(shares.cpu.followerUs);
    cpu.client.push(shares.load.clientCpuUs);
  }
  note("one at a time");
  const single = await masters.writes(1, seconds);
  note("stats");
  const reads = await masters.reads(outstanding, seconds);
  const readsOfAll = await masters.readsOfAll(outstanding, seconds);

  const lines = (metric: string, value: number, unit: string, detail: string, of: (peer: Figures) => number): void => {
    const result = { system, metric, value: round(value), unit, runs, conditions: `${conditions}; ${detail}` };
    if (peers.size === 0) emit(result);
    for (const [against, figures] of peers) emit({ ...result, ratio: round(value / of(figures)), against });
  };
  lines("creates_per_s", median(rates), "1/s", `${outstanding} outstanding`, ({ writes }) => median(writes));
  lines("create_latency_us", single.medianUs, "us", "median, one outstanding", ({ latencyUs }) => latencyUs);
  lines("stats_per_s", reads.perSecond, "1/s", readsDetail(reads, "at the leader"), (peer) => peer.reads);
  emit({
    system,
    metric: "stats_per_s_all",
    value: round(readsOfAll.perSecond),
    unit: "1/s",
    ratio: round(readsOfAll.perSecond / reads.perSecond),
    against: "headpond-raft stats_per_s",
    runs: 1,
    conditions: `${conditions}; ${readsDetail(readsOfAll, "from all masters in turn")}`,
  });
  for (const [who, values] of Object.entries(cpu)) {
    emit({
      system,
      metric: `create_cpu_us_${who}`,
      value: round(median(values)),
      unit: "us",
      runs,
      conditions: `${conditions}; ${outstanding} outstanding`,
    });
  }
}

function readsDetail(load: LoadResult, where: string): string {
  return `linearizable, ${where}, ${outstanding} outstanding, ${load.serversCpuUs.toFixed(1)} us of CPU each in all masters, ${load.clientCpuUs.toFixed(1)} us in the client`;
}
