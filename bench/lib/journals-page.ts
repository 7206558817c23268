/** The page that compares the journals (docs/journals.md): figures of one run in tables and pictures, around text that does not depend on them. */

import { mkdir, writeFile } from "node:fs/promises";
import { cpus, loadavg, totalmem } from "node:os";
import { basename, dirname, join } from "node:path";
import { type BarChart, barChart } from "../../src/testing/bar-chart.ts";
import { median, round } from "./benchmark.ts";
import { type CatchUp, type Load, type LossResult, medianOf, outstandings } from "./journal-measures.ts";
import { choosing, closing, opening, tolerating } from "./journals-text.ts";
import type { LostWrites } from "./lost-writes.ts";
import type { FailoverResult, LoadResult } from "./peer.ts";
import type { StaleReads } from "./stale-reads.ts";
import type { JournalKind } from "./two-journals.ts";

export type JournalFigures = {
  readonly kind: JournalKind;
  readonly conditions: string;
  readonly loads: readonly Load[];
  readonly kills: readonly FailoverResult[];
  readonly pauses: readonly (FailoverResult & { readonly reads: StaleReads; readonly writes: LostWrites })[];
  readonly closes: readonly FailoverResult[];
  /** The primary cut off from the other masters, and from ZooKeeper; not from its clients. */
  readonly partitions: readonly FailoverResult[];
  readonly losses: readonly LossResult[];
  readonly catchUps: readonly CatchUp[];
};

export type PeerFigures = {
  readonly system: string;
  readonly conditions: string;
  readonly loads: ReadonlyMap<number, LoadResult>;
  readonly killMs: number;
};

const names: Readonly<Record<JournalKind, string>> = {
  raft: "Raft",
  "zookeeper-directory": "ZooKeeper, directory",
  "zookeeper-s3": "ZooKeeper, S3",
};

/** The benchmark by itself makes two or three. */
const busyLoadPerCore = 3;
const busyWarning =
  "**The machine was busy with other work during this run**: rates are several times too low, waits too long, and differences between the journals may be chance; bytes and CPU of an operation depend on how many a batch gathered. The counts of lost writes and stale reads hold.";

/** The files that it wrote: the page at `path`, its pictures in `images/` beside it. */
export async function writeJournalsPage(
  path: string,
  ours: readonly JournalFigures[],
  peers: readonly PeerFigures[],
): Promise<readonly string[]> {
  const images = join(dirname(path), "images");
  await mkdir(images, { recursive: true });
  const written: string[] = [];
  const stem = basename(path, ".md");
  const picture = async (name: string, chart: BarChart): Promise<string> => {
    const file = join(images, `${stem}-${name}.svg`);
    await writeFile(file, barChart(chart));
    written.push(file);
    return `![${chart.title}](images/${basename(file)})`;
  };
  const parts = [
    opening,
    decisionLine(ours),
    choosing,
    conditionsOf(ours, peers),
    "## Work",
    await picture("throughput", throughputChart(ours, peers)),
    workTable(ours, peers),
    "## What an operation costs",
    costTable(ours),
    "## Without a primary",
    await picture("failover", failoverChart(ours, peers)),
    failoverTable(ours, peers),
    faultLine(ours),
    "## What it depends on goes away",
    lossTable(ours),
    "## Coming back",
    catchUpTable(ours),
    tolerating,
    closing,
  ];
  await writeFile(path, `${parts.filter((part) => part !== "").join("\n\n")}\n`);
  return [path, ...written];
}

/** The figures that the choice hangs on, in one sentence. */
function decisionLine(ours: readonly JournalFigures[]): string {
  const of = (figures: JournalFigures): string => {
    const load = figures.loads.find(({ outstanding }) => outstanding === 256);
    const rate = load === undefined ? "no rate measured" : `${thousands(rateOf(load))} creates/s`;
    const kill =
      figures.kills.length === 0 ? "" : `, ${round(medianOf(figures.kills))} ms without a primary after kill -9`;
    return `${names[figures.kind]}: ${rate}${kill}`;
  };
  return `In this run: ${ours.map(of).join("; ")}.`;
}

function conditionsOf(ours: readonly JournalFigures[], peers: readonly PeerFigures[]): string {
  const [first] = cpus();
  const machine = `${cpus().length} cores (${first?.model.trim()}), ${round(totalmem() / 2 ** 30)} GiB, Node ${process.version}; the load average was ${loadavg()
    .map((value) => value.toFixed(1))
    .join(", ")} when the page was written`;
  const [, , loadOf15Minutes = 0] = loadavg();
  const isBusy = loadOf15Minutes > busyLoadPerCore * cpus().length;
  const lines = [
    ...ours.map((each) => `${names[each.kind]}: ${each.conditions}`),
    ...peers.map((each) => `${each.system}: ${each.conditions}`),
  ];
  return [
    ...(isBusy ? [busyWarning] : []),
    `Machine: ${machine}. Everything runs on it at once, so each figure is a lower bound of what separate machines give, and the distances between machines are missing: they cost Raft one round trip to the nearest majority, the other journal one to the storage and one more for the look at the epoch.`,
    lines.map((line) => `- ${line}`).join("\n"),
  ].join("\n\n");
}

function workTable(ours: readonly JournalFigures[], peers: readonly PeerFigures[]): string {
  const rows = [
    ...ours.map((each) => [
      names[each.kind],
      ...outstandings.map((n) => {
        const load = each.loads.find(({ outstanding }) => outstanding === n);
        return load === undefined
          ? ""
          : cell(rateOf(load), median(load.runs.map((run) => run.medianUs)), median(load.runs.map((run) => run.p99Us)));
      }),
    ]),
    ...peers.map((peer) => [
      peer.system,
      ...outstandings.map((n) => {
        const load = peer.loads.get(n);
        return load === undefined ? "" : cell(load.perSecond, load.medianUs, load.p99Us);
      }),
    ]),
  ];
  return table(["creates/s (median, p99)", ...outstandings.map((n) => `${n} outstanding`)], rows);
}

function costTable(ours: readonly JournalFigures[]): string {
  const rows = ours.flatMap((each) =>
    each.loads.map((load) => [
      names[each.kind],
      String(load.outstanding),
      bytes(load.writtenBytes),
      bytes(load.sentBytes),
      micros(load.mastersCpuUs),
      load.othersCpuUs === 0 ? "none" : micros(load.othersCpuUs),
    ]),
  );
  const head = [
    "",
    "outstanding",
    "written to disks",
    "sent over sockets",
    "CPU, all masters",
    "CPU, servers beside them",
  ];
  return `For one create, in all processes together; by the kernel's counts, which take whole pages of 4 KiB for the disk and everything on sockets, the answers to clients included.\n\n${table(head, rows)}`;
}

function failoverTable(ours: readonly JournalFigures[], peers: readonly PeerFigures[]): string {
  const of = (rounds: readonly FailoverResult[]): string =>
    rounds.length === 0
      ? ""
      : `${round(medianOf(rounds))} ms (max ${round(Math.max(...rounds.map(({ ms }) => ms)))}, ${rounds.length}x)`;
  const rows = [
    ...ours.map((each) => [names[each.kind], of(each.kills), of(each.pauses), of(each.closes), of(each.partitions)]),
    ...peers.map((peer) => [peer.system, `${round(peer.killMs)} ms`, "", "", ""]),
  ];
  const text =
    "From the blow to the first acknowledgement of a write that began after it; our client finds the new primary by itself. Cut off: from the other masters and from ZooKeeper, not from its clients nor from the storage, so a primary in shared storage goes on until it is deposed.";
  return `${text}\n\n${table(["", "kill -9", "frozen (SIGSTOP)", "stopped (SIGTERM)", "cut off"], rows)}`;
}

function faultLine(ours: readonly JournalFigures[]): string {
  const lines = ours.flatMap(({ kind, pauses }) => {
    if (pauses.length === 0) return [];
    const sum = (of: (round: (typeof pauses)[number]) => number): number =>
      pauses.reduce((total, each) => total + of(each), 0);
    const writes = `${sum(({ writes: w }) => w.lost)} of ${sum(({ writes: w }) => w.acknowledged + w.acknowledgedPinned)} acknowledged writes lost`;
    const reads = `${sum(({ reads: r }) => r.stale)} of ${sum(({ reads: r }) => r.answered + r.answeredFollowing)} reads stale`;
    return [`- ${names[kind]}: ${writes}, ${reads}`];
  });
  if (lines.length === 0) return "";
  return `A primary that was frozen, deposed and thawed, with clients that follow and clients that ask it alone (${ours[0]?.pauses.length ?? 0} rounds each):\n\n${lines.join("\n")}`;
}

function lossTable(ours: readonly JournalFigures[]): string {
  const rows = ours.flatMap((each) =>
    each.losses.map(({ what, gap, awayMs }) => [
      names[each.kind],
      what,
      `${awayMs} ms`,
      `${round(gap.ms)} ms`,
      String(gap.failed),
    ]),
  );
  return table(["", "what", "away", "longest time without an acknowledgement", "writes failed"], rows);
}

function catchUpTable(ours: readonly JournalFigures[]): string {
  const rows = ours.flatMap((each) =>
    each.catchUps.map(({ entries, newMasterMs, restartMs }) => [
      names[each.kind],
      String(entries),
      `${round(newMasterMs / 1000)} s`,
      `${round(restartMs / 1000)} s`,
    ]),
  );
  const text =
    "With so many entries in the log and no checkpoint yet; the start of Node, about a second of CPU for each process, is part of it.";
  return `${text}\n\n${table(["", "entries", "a new master knows all", "all masters killed: first write"], rows)}`;
}

function throughputChart(ours: readonly JournalFigures[], peers: readonly PeerFigures[]): BarChart {
  return {
    title: "Durable creates",
    unit: "1/s",
    series: [...ours.map(({ kind }) => names[kind]), ...peers.map(({ system }) => system)],
    groups: outstandings.map((n) => ({
      label: `${n} outstanding`,
      values: [
        ...ours
          .map(({ loads }) => loads.find(({ outstanding }) => outstanding === n))
          .map((load) => (load === undefined ? undefined : rateOf(load))),
        ...peers.map(({ loads }) => loads.get(n)?.perSecond),
      ],
    })),
  };
}

function failoverChart(ours: readonly JournalFigures[], peers: readonly PeerFigures[]): BarChart {
  const of = (rounds: readonly FailoverResult[]): number | undefined =>
    rounds.length === 0 ? undefined : medianOf(rounds);
  return {
    title: "Time without a primary",
    unit: "ms",
    series: [...ours.map(({ kind }) => names[kind]), ...peers.map(({ system }) => system)],
    groups: [
      { label: "kill -9", values: [...ours.map(({ kills }) => of(kills)), ...peers.map(({ killMs }) => killMs)] },
      { label: "frozen", values: ours.map(({ pauses }) => of(pauses)) },
      { label: "stopped", values: ours.map(({ closes }) => of(closes)) },
      { label: "cut off", values: ours.map(({ partitions }) => of(partitions)) },
    ],
  };
}

function rateOf(load: Load): number {
  return median(load.runs.map((run) => run.perSecond));
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

function cell(perSecond: number, medianUs: number, p99Us: number): string {
  return `${thousands(perSecond)} (${round(medianUs / 1000)}, ${round(p99Us / 1000)} ms)`;
}

function thousands(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString("en");
}

function bytes(value: number | undefined): string {
  return value === undefined ? "not told here" : `${thousands(Math.max(0, value))} B`;
}

function micros(value: number): string {
  return `${round(value)} us`;
}
