/**
 * The masters' journals on the same work: Raft, ZooKeeper with a directory, ZooKeeper with a bucket, beside Alluxio's two. Throughput and
 * latency, what an operation writes and sends, how long nobody can write after each kind of loss, and how long it takes to come back. With
 * `--report FILE` the figures become a page with pictures.
 *
 * Conditions: all masters, the servers beside them and what asks them share this machine; one system after the other, each after a warm-up.
 */

import { join } from "node:path";
import { type Benchmark, type BenchmarkContext, bySize, median, round } from "./lib/benchmark.ts";
import { type Blow, HeadpondMasters } from "./lib/headpond-masters.ts";
import {
  type CatchUp,
  type Load,
  loseDependency,
  measureCatchUp,
  measureLoads,
  medianOf,
  outstandings,
} from "./lib/journal-measures.ts";
import { type JournalFigures, type PeerFigures, writeJournalsPage } from "./lib/journals-page.ts";
import { failoverInNamespaces } from "./lib/namespaced-failover.ts";
import type { FailoverResult, LoadResult } from "./lib/peer.ts";
import { withEachPeer } from "./lib/peers.ts";
import { withDirectory } from "./lib/processes.ts";
import { type JournalKind, journalKinds, whyNoJournal, withJournal } from "./lib/two-journals.ts";

export const journals: Benchmark = {
  name: "journals",
  description:
    "the journals compared: work, bytes, failover, coming back; beside Alluxio's two (--report FILE writes the page)",
  run: (context) => withDirectory((directory) => run(context, directory)),
};

async function run(context: BenchmarkContext, directory: string): Promise<void> {
  const { report, note } = context;
  const peers = await measurePeers(context, directory);
  const ours: JournalFigures[] = [];
  for (const kind of journalKinds) {
    const missing = await whyNoJournal(kind);
    if (missing !== undefined) {
      note(`${kind} skipped: ${missing}`);
      continue;
    }
    const figures = await measureKind(context, kind, join(directory, kind));
    emitKind(context, figures, peers);
    ours.push(figures);
  }
  if (report === undefined) return;
  const written = await writeJournalsPage(report, ours, peers);
  note(`wrote ${written.join(", ")}`);
}

async function measurePeers(context: BenchmarkContext, directory: string): Promise<readonly PeerFigures[]> {
  const { emit, note } = context;
  const results: PeerFigures[] = [];
  await withEachPeer(context, directory, ["alluxio-raft", "alluxio-zookeeper"], async (peer) => {
    await peer.writes(256, 40);
    const loads = new Map<number, LoadResult>();
    for (const outstanding of outstandings) {
      const load = await peer.writes(outstanding, 6);
      loads.set(outstanding, load);
      emit({
        system: peer.system,
        metric: `creates_per_s_${outstanding}`,
        value: round(load.perSecond),
        unit: "1/s",
        runs: 1,
        conditions: `${peer.conditions}; ${outstanding} outstanding, median ${round(load.medianUs)} us`,
      });
    }
    note(`${peer.system}: leader killed`);
    const { ms } = await peer.failover();
    const { system, conditions } = peer;
    emit({ system, metric: "kill_ms", value: round(ms), unit: "ms", runs: 1, conditions });
    results.push({ system, conditions, loads, killMs: ms });
  });
  return results;
}

async function measureKind(context: BenchmarkContext, kind: JournalKind, directory: string): Promise<JournalFigures> {
  const { size, note, only } = context;
  const seconds = bySize(size, { full: 6, quick: 1.5, smoke: 0.3 });
  const warmSeconds = bySize(size, { full: 8, quick: 2, smoke: 0.3 });
  const runs = bySize(size, { full: 3, quick: 1, smoke: 1 });
  const rounds = bySize(size, { full: 10, quick: 1, smoke: 1 });
  const awayMs = bySize(size, { full: 5000, quick: 2000, smoke: 1500 });
  const isWanted = (metric: string): boolean => only === undefined || only.startsWith(metric);
  let conditions = "";
  let loads: readonly Load[] = [];
  let partitions: readonly FailoverResult[] = [];
  let failovers: Pick<JournalFigures, "kills" | "pauses" | "closes" | "losses"> = {
    kills: [],
    pauses: [],
    closes: [],
    losses: [],
  };
  await withJournal(kind, join(directory, "work"), async (parts) => {
    note(`${kind}: starting`);
    const masters = await HeadpondMasters.start(parts.options);
    ({ conditions } = masters);
    try {
      note(`${kind}: creates`);
      if (isWanted("creates_per_s")) {
        loads = await measureLoads(masters, parts, join(directory, "work"), { warmSeconds, seconds, runs });
      }
      if (!isWanted("failover")) return;
      const pause: Blow = { strike: (leader) => leader.pause(), relieve: (leader) => leader.resume() };
      const repeated = async <T>(what: string, once: () => Promise<T>): Promise<T[]> => {
        const results: T[] = [];
        for (let n = 1; n <= rounds; n++) {
          note(`${kind}: ${what}, round ${n} of ${rounds}`);
          results.push(await once());
        }
        return results;
      };
      failovers = {
        kills: await repeated("killed", () => masters.killed()),
        pauses: await repeated("frozen", () => masters.disabled(pause)),
        closes: await repeated("stopped", () => masters.closed()),
        losses: await loseDependency(masters, parts, awayMs),
      };
    } finally {
      await masters.close();
    }
  });
  if (isWanted("failover") && kind !== "zookeeper-s3") {
    const blow = kind === "raft" ? "cut" : "cut-zookeeper";
    partitions = (await failoverInNamespaces(context, blow, rounds, join(directory, "partition"))) ?? [];
  }
  let catchUps: readonly CatchUp[] = [];
  if (isWanted("catch_up")) {
    const lengths = bySize(size, { full: [100_000, 1_000_000], quick: [20_000], smoke: [3000] });
    await withJournal(kind, join(directory, "long"), async (parts) => {
      catchUps = await measureCatchUp(context, parts, lengths);
    });
  }
  return { kind, conditions, loads, catchUps, partitions, ...failovers };
}

function emitKind({ emit }: BenchmarkContext, figures: JournalFigures, peers: readonly PeerFigures[]): void {
  const { kind, conditions, loads, kills, pauses, closes, partitions, losses, catchUps } = figures;
  const system = `headpond-${kind}`;
  const suffix = kind.replaceAll("-", "_");
  const line = (metric: string, value: number, unit: string, runs: number, detail: string): void =>
    emit({ system, metric, value: round(value), unit, runs, conditions: `${conditions}; ${detail}` });
  for (const { outstanding, runs, writtenBytes, sentBytes, mastersCpuUs, othersCpuUs } of loads) {
    const perSecond = median(runs.map((run) => run.perSecond));
    const medianUs = median(runs.map((run) => run.medianUs));
    const metric = outstanding === 256 ? `creates_per_s_${suffix}` : `creates_per_s_${outstanding}_${suffix}`;
    const detail = `${outstanding} outstanding, median ${round(medianUs)} us, ${round(mastersCpuUs)} us of CPU each in all masters, ${round(othersCpuUs)} us in the servers beside them`;
    const result = {
      system,
      metric,
      value: round(perSecond),
      unit: "1/s",
      runs: runs.length,
      conditions: `${conditions}; ${detail}`,
    };
    const rivals = peers.flatMap((peer) => {
      const load = peer.loads.get(outstanding);
      return load === undefined ? [] : [{ against: peer.system, ratio: round(perSecond / load.perSecond) }];
    });
    if (rivals.length === 0) emit(result);
    for (const rival of rivals) emit({ ...result, ...rival });
    line(`create_latency_us_${outstanding}_${suffix}`, medianUs, "us", runs.length, "median");
    if (writtenBytes !== undefined && sentBytes !== undefined) {
      const where = "all masters and the servers beside them, by the kernel's counts";
      line(`written_bytes_${outstanding}_${suffix}`, writtenBytes, "B", runs.length, where);
      line(`sent_bytes_${outstanding}_${suffix}`, sentBytes, "B", runs.length, where);
    }
  }
  for (const [name, rounds] of Object.entries({ kill: kills, pause: pauses, close: closes, partition: partitions })) {
    if (rounds.length === 0) continue;
    const failed = rounds.reduce((sum, each) => sum + each.failed, 0);
    line(`${name}_median_ms_${suffix}`, medianOf(rounds), "ms", rounds.length, `${failed} writes failed in all rounds`);
  }
  if (pauses.length > 0) {
    const writes = pauses.map((each) => each.writes);
    const reads = pauses.map((each) => each.reads);
    const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
    const acknowledged = `${sum(writes.map((each) => each.acknowledged))} acknowledged to clients that follow, ${sum(writes.map((each) => each.acknowledgedPinned))} to pinned ones`;
    line(`pause_lost_acks_${suffix}`, sum(writes.map(({ lost }) => lost)), "1", pauses.length, acknowledged);
    const answered = `${sum(reads.map((each) => each.answeredFollowing))} answers to clients that follow, ${sum(reads.map((each) => each.answered))} to pinned ones`;
    line(`pause_stale_reads_${suffix}`, sum(reads.map(({ stale }) => stale)), "1", pauses.length, answered);
  }
  for (const { what, gap, awayMs } of losses) {
    const detail = `${what} away for ${awayMs} ms: the longest time without an acknowledgement; ${gap.failed} writes failed`;
    line(`loss_gap_ms_${suffix}`, gap.ms, "ms", 1, detail);
  }
  for (const { entries, newMasterMs, restartMs } of catchUps) {
    line(`new_master_s_${suffix}`, newMasterMs / 1000, "s", 1, `from the start of its process, ${entries} entries`);
    line(
      `restart_s_${suffix}`,
      restartMs / 1000,
      "s",
      1,
      `all killed, to the first acknowledged write, ${entries} entries`,
    );
  }
}
