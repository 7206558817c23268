/** What the comparison of the journals measures of one of them: work, bytes, time without a leader, time to come back. */

import { readdirSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { BenchmarkContext } from "./benchmark.ts";
import { median } from "./benchmark.ts";
import { appliedBy, HeadpondMasters } from "./headpond-masters.ts";
import type { FailoverResult, LoadResult } from "./peer.ts";
import { measureGap, usualFailoverLoad } from "./peer.ts";
import { processBytes } from "./process-bytes.ts";
import type { JournalParts } from "./two-journals.ts";

export const outstandings = [1, 32, 256] as const;

export type Load = {
  readonly outstanding: number;
  readonly runs: readonly LoadResult[];
  /** Of an operation, in all masters and servers together. */
  readonly writtenBytes: number | undefined;
  readonly sentBytes: number | undefined;
  /** CPU of an operation: in masters, and in the servers beside them. */
  readonly mastersCpuUs: number;
  readonly othersCpuUs: number;
};

export type CatchUp = {
  readonly entries: number;
  /** Of a new master with an empty disk, from the start of its process until it knows all. */
  readonly newMasterMs: number;
  /** Of all masters, killed, from their start to the first acknowledged write. */
  readonly restartMs: number;
};

export type LossResult = { readonly what: string; readonly gap: FailoverResult; readonly awayMs: number };

/** Node starts, opens and says that it is ready: part of each figure of `CatchUp`. */
const pollMs = 20;

export async function measureLoads(
  masters: HeadpondMasters,
  { s3, ensemble }: JournalParts,
  directory: string,
  times: { readonly warmSeconds: number; readonly seconds: number; readonly runs: number },
): Promise<readonly Load[]> {
  const ours = masters.group.nodes.flatMap(({ process }) => (process === undefined ? [] : [process.pid]));
  const others = [
    ...(ensemble === undefined ? [] : pidsWith(`${directory}/zookeeper-`)),
    ...(s3 === undefined ? [] : pidsWith(s3.directory)),
  ];
  await masters.writes(256, times.warmSeconds);
  const loads: Load[] = [];
  for (const outstanding of outstandings) {
    const runs: LoadResult[] = [];
    const before = processBytes([...ours, ...others]);
    const [oursBefore, othersBefore] = [cpuUs(ours), cpuUs(others)];
    for (let n = 0; n < times.runs; n++) runs.push(await masters.writes(outstanding, times.seconds));
    const after = processBytes([...ours, ...others]);
    const count = runs.reduce((sum, run) => sum + run.count, 0);
    const each = (of: "written" | "sent"): number | undefined =>
      before === undefined || after === undefined ? undefined : (after[of] - before[of]) / count;
    loads.push({
      outstanding,
      runs,
      writtenBytes: each("written"),
      sentBytes: each("sent"),
      mastersCpuUs: (cpuUs(ours) - oursBefore) / count,
      othersCpuUs: (cpuUs(others) - othersBefore) / count,
    });
  }
  return loads;
}

/**
 * What the journal depends on beside the masters goes away for `awayMs` and comes back: how long nobody could write. Of Raft that is a
 * majority of the disks: a standby is killed, which changes nothing, and then the second, which stops everything.
 */
export async function loseDependency(
  masters: HeadpondMasters,
  { ensemble, s3 }: JournalParts,
  awayMs: number,
): Promise<readonly LossResult[]> {
  const load = { write: () => masters.create(), ...usualFailoverLoad };
  const results: LossResult[] = [];
  const lose = async (what: string, go: () => unknown, comeBack: () => Promise<unknown>): Promise<void> => {
    const gap = await measureGap(load, async () => {
      await go();
      await sleep(awayMs);
      await comeBack();
    });
    results.push({ what, gap, awayMs });
    await masters.level();
  };
  if (ensemble === undefined) {
    const standbys = await masters.group.standbys();
    const [first] = standbys;
    if (first !== undefined) {
      await lose(
        "one of two standbys",
        () => first.kill(),
        () => masters.group.start(first),
      );
    }
    await lose(
      "both standbys",
      () => standbys.map((node) => node.pause()),
      async () => standbys.map((node) => node.resume()),
    );
    return results;
  }
  await lose(
    "all of ZooKeeper",
    () => ensemble.servers.map((_, i) => ensemble.freeze(i)),
    async () => ensemble.servers.map((_, i) => ensemble.thaw(i)),
  );
  if (s3 !== undefined) {
    const pids = pidsWith(s3.directory);
    await lose(
      "the S3 server",
      () => pids.map((pid) => process.kill(pid, "SIGSTOP")),
      async () => pids.map((pid) => process.kill(pid, "SIGCONT")),
    );
  }
  return results;
}

/** Grows the log to each length, and has a new master and a restarted cluster come to know all of it. */
export async function measureCatchUp(
  { note }: Pick<BenchmarkContext, "note">,
  parts: JournalParts,
  lengths: readonly number[],
): Promise<readonly CatchUp[]> {
  const results: CatchUp[] = [];
  const masters = await HeadpondMasters.start(parts.options);
  try {
    for (const entries of lengths) {
      const leader = await masters.group.leader();
      for (let have = await appliedBy(leader); (have ?? 0) < entries; have = await appliedBy(leader)) {
        await masters.writeMany(Math.max(1, entries - (have ?? 0)), 256);
      }
      await masters.level();
      note(`${masters.system}: a new master, ${entries} entries`);
      const newMasterMs = await timeNewMaster(masters, parts);
      note(`${masters.system}: all masters start again, ${entries} entries`);
      const restartMs = await timeRestart(masters);
      results.push({ entries, newMasterMs, restartMs });
    }
  } finally {
    await masters.close();
  }
  return results;
}

async function timeNewMaster(masters: HeadpondMasters, parts: JournalParts): Promise<number> {
  const { group } = masters;
  const wanted = (await appliedBy(await group.leader())) ?? 0;
  const began = performance.now();
  const isRaft = parts.ensemble === undefined;
  // A master of the shared journal joins by starting.
  const node = isRaft ? await group.join() : await group.addNode();
  if (!isRaft) await group.start(node);
  while (((await appliedBy(node)) ?? 0) < wanted) await sleep(pollMs);
  const ms = performance.now() - began;
  if (isRaft) await masters.client.membership.remove(node.id);
  await node.kill();
  // Its id is not used again.
  await rm(node.directory, { recursive: true, force: true });
  return ms;
}

async function timeRestart(masters: HeadpondMasters): Promise<number> {
  const { group } = masters;
  const running = group.nodes.filter((node) => node.isRunning);
  await Promise.all(running.map((node) => node.kill()));
  const began = performance.now();
  await Promise.all([Promise.all(running.map((node) => group.start(node))), masters.create()]);
  const ms = performance.now() - began;
  await masters.level();
  return ms;
}

export function medianOf(results: readonly FailoverResult[]): number {
  return median(results.map(({ ms }) => ms));
}

/** Processes one of whose arguments contains `text`. */
export function pidsWith(text: string): number[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^[0-9]+$/.test(name) || Number(name) === process.pid) return [];
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
      return words.some((word) => word.includes(text)) ? [Number(name)] : [];
    } catch {
      // It has ended since.
      return [];
    }
  });
}

function cpuUs(pids: readonly number[]): number {
  const clockTicksPerSecond = 100;
  return pids.reduce((sum, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
    return sum + ((Number(fields[11]) + Number(fields[12])) / clockTicksPerSecond) * 1e6;
  }, 0);
}
