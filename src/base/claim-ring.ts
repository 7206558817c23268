/**
 * Who of a load feeds whom; pure. All take part in the rings but those that hold up others: who is slow, came late or fell behind
 * stands apart, takes blocks from all in turn and feeds nobody until it has caught up. If two neighbours in a row fall behind the same worker,
 * it is that worker which does not give: it goes, and they come back.
 */

import type { BlockBitmap } from "./blocks.ts";
import type { RingPlan } from "./claim-route.ts";
import type { WorkerId } from "./ids.ts";

export type LagLimits = {
  /** A worker that gets what the one before it has so much later stands apart. */
  readonly lagMs: number;
  /** It must be at least so many blocks behind as well: small files have no time to measure. */
  readonly lagBlocks: number;
  /** How long after it stood apart for the first time it may come back; doubles each time. */
  readonly apartMs: number;
};

/** A worker that takes part in a load, as its coordinator knows it. */
export type Participant = {
  readonly worker: WorkerId;
  /** Where it stands among the others. */
  readonly rank: string;
  readonly have: BlockBitmap;
  /** Its claims that it does not hold yet, and since when they are its own. */
  readonly claims: Map<number, number>;
  arriving: ReadonlyMap<number, number>;
  session: string;
  sequence: number;
  reportedMs: number;
  done: boolean;
  /** Blocks that it claimed, ever. */
  granted: number;
  /** Feeds nobody. */
  apart: boolean;
  apartUntilMs: number;
  apartCount: number;
  /** Blocks, with fractions, that it had at its last report. */
  progress: number;
  /** Blocks per millisecond, lately. */
  rate: number;
  /** The one that feeds it, since when, and the least that it was behind him. */
  fedBy: WorkerId | undefined;
  fedSinceMs: number;
  gapMin: number;
  /** The last one that fell behind it. */
  victim: WorkerId | undefined;
};

/** When more than that fall behind, it is not theirs to answer for: the rings stay as they are. */
const apartShareMax = 0.35;
const rateWindowMs = 1000;

export function noteProgress(participant: Participant, progress: number, nowMs: number): void {
  const elapsedMs = nowMs - participant.reportedMs;
  if (elapsedMs > 0) {
    const weight = Math.min(1, elapsedMs / rateWindowMs);
    const rate = Math.max(0, progress - participant.progress) / elapsedMs;
    participant.rate += (rate - participant.rate) * weight;
    participant.reportedMs = nowMs;
  }
  participant.progress = progress;
}

/** Judges the worker that has just reported against the one that feeds it. Returns whether places changed. */
export function judge(
  participants: ReadonlyMap<WorkerId, Participant>,
  plan: RingPlan,
  judged: Participant,
  limits: LagLimits,
  nowMs: number,
): boolean {
  if (judged.apart) return comeBack(participants, judged, limits, nowMs);
  const before = neighbour(participants, plan, judged.worker);
  if (before === undefined || judged.done || plan.ring.length < 3) return false;
  // The other one's report is older: where it is by now is guessed, or the lag would be that of the report.
  const sinceMs = Math.min(nowMs - before.reportedMs, limits.lagMs);
  const gap = before.progress + before.rate * sinceMs - judged.progress;
  if (judged.fedBy !== before.worker) {
    judged.fedBy = before.worker;
    judged.fedSinceMs = nowMs;
    judged.gapMin = gap;
  }
  // What it lacked before it came here is not this neighbour's doing: only what was added counts.
  judged.gapMin = Math.min(judged.gapMin, gap);
  const grown = gap - judged.gapMin;
  const isBehind = grown > limits.lagBlocks && grown > Math.max(before.rate, judged.rate) * limits.lagMs;
  if (!isBehind || nowMs - judged.fedSinceMs < limits.lagMs) return false;
  const other = before.victim === undefined ? undefined : participants.get(before.victim);
  if (other !== undefined && other !== judged && other.apart && !before.done) {
    standApart(before, limits, nowMs);
    before.victim = undefined;
    other.apart = false;
    other.fedBy = undefined;
    return true;
  }
  if (slowCount(participants) >= Math.max(1, participants.size * apartShareMax)) return false;
  before.victim = judged.worker;
  standApart(judged, limits, nowMs);
  return true;
}

function slowCount(participants: ReadonlyMap<WorkerId, Participant>): number {
  let count = 0;
  for (const { apart, done } of participants.values()) if (apart && !done) count++;
  return count;
}

function standApart(participant: Participant, limits: LagLimits, nowMs: number): void {
  participant.apart = true;
  participant.apartUntilMs = nowMs + limits.apartMs * 2 ** participant.apartCount;
  participant.apartCount++;
}

function comeBack(
  participants: ReadonlyMap<WorkerId, Participant>,
  judged: Participant,
  limits: LagLimits,
  nowMs: number,
): boolean {
  if (nowMs < judged.apartUntilMs) return false;
  let front = 0;
  for (const { progress } of participants.values()) front = Math.max(front, progress);
  if (!judged.done && front - judged.progress > Math.max(limits.lagBlocks, (judged.rate * limits.lagMs) / 2))
    return false;
  judged.apart = false;
  judged.fedBy = undefined;
  return true;
}

function neighbour(
  participants: ReadonlyMap<WorkerId, Participant>,
  { ring, rings }: RingPlan,
  worker: WorkerId,
): Participant | undefined {
  const at = ring.indexOf(worker);
  if (at === -1) return undefined;
  const rows = Math.ceil(ring.length / rings);
  const row = (Math.floor(at / rings) - 1 + rows) % rows;
  const position = row * rings + (at % rings);
  return participants.get(ring[position < ring.length ? position : at % rings] as WorkerId);
}

/** The rings of those who feed: neighbours by rank, i.e. by place first, so that few blocks go far. */
export function ringOf(participants: Iterable<Participant>): RingPlan {
  const all = [...participants];
  const feeding = all.filter(({ apart }) => !apart);
  const ring = (feeding.length > 0 ? feeding : all)
    .sort((a, b) => (a.rank < b.rank ? -1 : 1))
    .map(({ worker }) => worker);
  return { ring, rings: ringsFor(ring.length) };
}

/**
 * A ring more shortens the way of each block, but its claimant gives one copy more, just when the block comes in: below this length, the copies
 * cost more than the hops (simulated: 32 workers in one ring reach 0.95 of the bound, in two 0.91).
 */
const ringLengthMax = 128;

export function ringsFor(workers: number): number {
  return Math.max(1, Math.round(workers / ringLengthMax));
}
