/**
 * How long nobody can write when the leader of three masters dies, hangs, is cut off, has a disk that hangs, or hands over: from the
 * blow to the first acknowledgement of a write that began after it, beside etcd, ZooKeeper and Alluxio in the same run.
 * And what a leader that was away answers when it is back: stale reads, of which there must be none.
 *
 * Conditions: all nodes and what asks them share this machine; 16 lanes that always write and one write more every 5 ms. Clients of
 * the peers ask the survivors only, so it is the servers that are timed; ours has to find the new leader itself.
 */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Benchmark, type BenchmarkContext, bySize, median, round } from "./lib/benchmark.ts";
import { type Blow, HeadpondMasters } from "./lib/headpond-masters.ts";
import { failoverInNamespaces, type Round } from "./lib/namespaced-failover.ts";
import { isAlluxio, withEachPeer } from "./lib/peers.ts";
import { withDirectory } from "./lib/processes.ts";
import type { StaleReads } from "./lib/stale-reads.ts";
import { zookeeperFailover } from "./lib/zookeeper-failover.ts";

export const failover: Benchmark = {
  name: "failover",
  description:
    "time without a leader: killed, frozen, cut off, hung disk, handed over; beside etcd, ZooKeeper, Alluxio",
  run: (context) => withDirectory((directory) => run(context, directory)),
};

async function run(context: BenchmarkContext, directory: string): Promise<void> {
  const { size, note, only } = context;
  if (only?.startsWith("zookeeper_") === true) return zookeeperFailover(context, join(directory, "zookeeper-journal"));
  const kills = bySize(size, { full: 20, quick: 3, smoke: 1 });
  const others = bySize(size, { full: 10, quick: 1, smoke: 1 });
  const peers = await killPeers(context, directory, bySize(size, { full: 10, quick: 1, smoke: 1 }));

  note("headpond-raft: starting");
  const home = join(directory, "headpond");
  await mkdir(home);
  const masters = await HeadpondMasters.start({ directory: home });
  const { conditions } = masters;
  const stale: StaleReads[] = [];
  const report = (name: string, rounds: readonly Round[]): void => {
    for (const { reads } of rounds) if (reads !== undefined) stale.push(reads);
    emitRounds(context, "headpond-raft", name, rounds, conditions, name === "kill" ? peers : new Map());
  };
  try {
    report("kill", await repeated(kills, () => masters.killed(), note, "killed"));
    const pause: Blow = { strike: (leader) => leader.pause(), relieve: (leader) => leader.resume() };
    report("pause", await repeated(others, () => masters.disabled(pause), note, "frozen"));
    emitTransfers(context, await repeated(others, () => masters.transferred(), note, "handed over"), conditions);
  } finally {
    await masters.close();
  }
  for (const [name, kind] of [
    ["partition", "cut"],
    ["disk_hang", "hang"],
  ] as const) {
    const rounds = await failoverInNamespaces(context, kind, others, join(directory, kind));
    if (rounds !== undefined) report(name, rounds);
  }
  emitStale(context, stale, conditions);
  await zookeeperFailover(context, join(directory, "zookeeper-journal"));
}

/** The median of each system that could be had. */
async function killPeers(context: BenchmarkContext, directory: string, rounds: number): Promise<Map<string, number>> {
  const medians = new Map<string, number>();
  await withEachPeer(context, directory, ["etcd", "etcd-tuned", "zookeeper", "alluxio-raft"], async (peer, name) => {
    // A round takes Alluxio half a minute.
    const count = isAlluxio(name) ? 3 : rounds;
    const results = await repeated(count, () => peer.failover(), context.note, `${name} killed`);
    medians.set(peer.system, median(results.map(({ ms }) => ms)));
    emitRounds(context, peer.system, "kill", results, peer.conditions, new Map());
  });
  return medians;
}

async function repeated<T extends Round>(
  count: number,
  once: () => Promise<T>,
  note: (text: string) => void,
  what: string,
): Promise<T[]> {
  const results: T[] = [];
  for (let n = 0; n < count; n++) {
    results.push(await once());
    note(`${what}, round ${n + 1} of ${count}: ${results.at(-1)?.ms.toFixed(0)} ms`);
  }
  return results;
}

function emitRounds(
  { emit }: BenchmarkContext,
  system: string,
  name: string,
  rounds: readonly Round[],
  conditions: string,
  peers: ReadonlyMap<string, number>,
): void {
  const times = rounds.map(({ ms }) => ms);
  const failed = rounds.reduce((sum, one) => sum + one.failed, 0);
  const result = {
    system,
    metric: `${name}_median_ms`,
    value: round(median(times)),
    unit: "ms",
    runs: rounds.length,
    conditions: `${conditions}; ${failed} writes failed in all rounds`,
  };
  if (peers.size === 0) emit(result);
  for (const [against, ms] of peers) emit({ ...result, ratio: round(median(times) / ms), against });
  emit({ ...result, metric: `${name}_max_ms`, value: round(Math.max(...times)) });
}

function emitTransfers({ emit }: BenchmarkContext, rounds: readonly Round[], conditions: string): void {
  const times = rounds.map(({ ms }) => ms);
  const result = { system: "headpond-raft", unit: "ms", runs: rounds.length, conditions };
  emit({
    ...result,
    metric: "transfer_ms",
    value: round(median(times)),
    conditions: `${conditions}; the longest time without an acknowledgement, median; longest of all ${Math.max(...times).toFixed(0)} ms`,
  });
  const failed = rounds.reduce((sum, one) => sum + one.failed, 0);
  emit({ ...result, metric: "transfer_failed_requests", value: failed, unit: "1" });
}

function emitStale({ emit }: BenchmarkContext, stale: readonly StaleReads[], conditions: string): void {
  const sum = (of: (reads: StaleReads) => number): number => stale.reduce((total, reads) => total + of(reads), 0);
  emit({
    system: "headpond-raft",
    metric: "stale_reads",
    value: sum((reads) => reads.stale),
    unit: "1",
    runs: stale.length,
    conditions: `${conditions}; asked of a leader that was frozen, cut off or hung and came back: ${sum((reads) => reads.answered)} answers, ${sum((reads) => reads.answeredFollowing)} to clients that follow, ${sum((reads) => reads.refused)} refusals, ${sum((reads) => reads.acknowledged)} changes meanwhile`,
  });
}
