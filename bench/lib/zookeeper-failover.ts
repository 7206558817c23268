/**
 * The part of the failover benchmark that is about the journal in shared storage: how long nobody can write when its primary is killed, closes,
 * is frozen past its session or cut off from ZooKeeper; what a thawed one still acknowledges and answers; and what a crowd of standbys costs ZooKeeper
 * when it loses its primary.
 */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ZooKeeperEnsemble } from "../../src/testing/zookeeper-ensemble.ts";
import { type BenchmarkContext, bySize, median, round } from "./benchmark.ts";
import { type Blow, HeadpondMasters } from "./headpond-masters.ts";
import type { FailoverResult } from "./peer.ts";
import { type JournalKind, whyNoJournal, withJournal } from "./two-journals.ts";
import { ask } from "./zookeeper.ts";

const kind: JournalKind = "zookeeper-directory";
const system = `headpond-${kind}`;
/** Standbys start a few at a time: each takes a second of a core. */
const startedAtOnce = 4;
/** Requests to ZooKeeper are counted over so long, once while nothing happens and once from the kill on. */
const countedMs = 4000;
const agreeMs = 15_000;

export async function zookeeperFailover(context: BenchmarkContext, directory: string): Promise<void> {
  const missing = await whyNoJournal(kind);
  if (missing !== undefined) {
    context.note(`${system} skipped: ${missing}`);
    return;
  }
  const { only } = context;
  const isWanted = (part: string): boolean => only === undefined || only === "zookeeper_" || only.startsWith(part);
  if (!only?.startsWith("zookeeper_standbys")) await threeMasters(context, join(directory, "three"));
  if (isWanted("zookeeper_standbys")) await manyStandbys(context, join(directory, "many"));
}

async function threeMasters(context: BenchmarkContext, directory: string): Promise<void> {
  const { size, note, emit } = context;
  const kills = bySize(size, { full: 20, quick: 2, smoke: 1 });
  const others = bySize(size, { full: 10, quick: 1, smoke: 1 });
  await withJournal(kind, directory, async ({ options }) => {
    note(`${system}: starting`);
    const masters = await HeadpondMasters.start(options);
    const { conditions } = masters;
    const repeated = async <T extends FailoverResult>(
      count: number,
      what: string,
      once: () => Promise<T>,
    ): Promise<T[]> => {
      const results: T[] = [];
      for (let n = 1; n <= count; n++) {
        results.push(await once());
        note(`${system} ${what}, round ${n} of ${count}: ${results.at(-1)?.ms.toFixed(0)} ms`);
      }
      return results;
    };
    const report = (metric: string, rounds: readonly FailoverResult[]): void => {
      const times = rounds.map(({ ms }) => ms);
      const failed = rounds.reduce((sum, each) => sum + each.failed, 0);
      const detail = `session 1 s; longest ${round(Math.max(...times))} ms; ${failed} writes failed in all rounds`;
      emit({
        system,
        metric,
        value: round(median(times)),
        unit: "ms",
        runs: rounds.length,
        conditions: `${conditions}; ${detail}`,
      });
    };
    try {
      report("zookeeper_kill_median_ms", await repeated(kills, "killed", () => masters.killed()));
      report("zookeeper_close_ms", await repeated(others, "closed", () => masters.closed()));
      const pause: Blow = { strike: (leader) => leader.pause(), relieve: (leader) => leader.resume() };
      const pauses = await repeated(others, "frozen", () => masters.disabled(pause));
      report("zookeeper_pause_median_ms", pauses);
      const sum = (of: (round: (typeof pauses)[number]) => number): number =>
        pauses.reduce((all, each) => all + of(each), 0);
      const frozen = "frozen past its session, deposed, thawed";
      emit({
        ...{ system, metric: "zookeeper_pause_lost_acks", value: sum(({ writes }) => writes.lost), unit: "1" },
        runs: pauses.length,
        conditions: `${conditions}; ${frozen}; ${sum(({ writes }) => writes.acknowledged)} writes acknowledged to 8 clients that follow, ${sum(({ writes }) => writes.acknowledgedPinned)} to 50 that ask the frozen one alone, which refused ${sum(({ writes }) => writes.refusedPinned)}`,
      });
      emit({
        ...{ system, metric: "zookeeper_pause_stale_reads", value: sum(({ reads }) => reads.stale), unit: "1" },
        runs: pauses.length,
        conditions: `${conditions}; ${frozen}; ${sum(({ reads }) => reads.answeredFollowing)} answers to clients that follow, ${sum(({ reads }) => reads.answered)} of the frozen one, ${sum(({ reads }) => reads.refused)} refusals, ${sum(({ reads }) => reads.acknowledged)} changes meanwhile`,
      });
    } finally {
      await masters.close();
    }
  });
}

/** One primary and a crowd behind it. */
async function manyStandbys({ size, note, emit }: BenchmarkContext, directory: string): Promise<void> {
  const standbys = bySize(size, { full: 20, quick: 5, smoke: 2 });
  await mkdir(directory, { recursive: true });
  await withJournal(kind, directory, async ({ options, ensemble }) => {
    if (ensemble === undefined) throw new Error("a journal with ZooKeeper has an ensemble");
    note(`${system}: one primary and ${standbys} standbys are starting`);
    const masters = await HeadpondMasters.start(options, 1);
    const { group } = masters;
    try {
      const nodes = [];
      for (let n = 0; n < standbys; n++) nodes.push(await group.addNode());
      for (let at = 0; at < nodes.length; at += startedAtOnce) {
        await Promise.all(nodes.slice(at, at + startedAtOnce).map((node) => group.start(node, [], 120_000)));
      }
      await masters.level();
      const quiet = await countedOver(ensemble, async () => {});
      const primary = await group.leader();
      const before = (await primary.status())?.term ?? 0;
      let result: FailoverResult | undefined;
      const during = await countedOver(ensemble, async () => {
        result = await masters.struck(
          () => primary.process?.child.kill("SIGKILL"),
          async () => {},
        );
      });
      const successor = await group.leader({ except: primary });
      await masters.level();
      const after = (await successor.status())?.term ?? 0;
      const primaries = await agreedPrimaries(masters);
      const conditions = `${standbys} standbys on loopback, three ZooKeeper servers (tickTime 500), session 1 s, primary killed under load`;
      const detail = `requests that the servers received in the ${countedMs} ms from the kill on, pings included, after ${quiet} in as long a time before; ${round(result?.ms ?? Number.NaN)} ms without a primary`;
      const line = { system, unit: "1", runs: 1 };
      emit({
        ...line,
        metric: `zookeeper_standbys_${standbys}`,
        value: during,
        conditions: `${conditions}; ${detail}`,
      });
      emit({
        ...line,
        metric: `zookeeper_standbys_${standbys}_new_primaries`,
        value: after - before,
        conditions: `${conditions}; epochs claimed after the kill; ${primaries} of the masters leads in the eyes of any`,
      });
    } finally {
      await masters.close();
    }
  });
}

/** How many masters lead in the eyes of any of them, once they agree or have had the time to. */
async function agreedPrimaries({ group }: HeadpondMasters): Promise<number> {
  for (const endMs = performance.now() + agreeMs; ; await sleep(200)) {
    const views = await Promise.all(group.nodes.filter((node) => node.isRunning).map((node) => node.status()));
    const leaders = views.flatMap(
      (view) => view?.masters.filter(({ role }) => role === "leader").map(({ id }) => id) ?? [],
    );
    const count = new Set(leaders).size;
    if (count === 1 || performance.now() > endMs) return count;
  }
}

/** What the servers received while `act` ran and until the time is over. */
async function countedOver(ensemble: ZooKeeperEnsemble, act: () => Promise<void>): Promise<number> {
  const before = await received(ensemble);
  await Promise.all([act(), sleep(countedMs)]);
  return (await received(ensemble)) - before;
}

async function received({ servers }: ZooKeeperEnsemble): Promise<number> {
  const answers = await Promise.all(servers.map(({ port }) => ask(port, "srvr")));
  return answers.reduce((sum, answer) => sum + Number(/^Received: ([0-9]+)$/m.exec(answer)?.[1] ?? 0), 0);
}
