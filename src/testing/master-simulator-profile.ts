/** How hard a simulated history of masters is: drawn from its seed. */

import type { Random } from "../base/random.ts";
import { defaultRaftJournalLimits, type RaftJournalLimits } from "../journal/raft-limits.ts";

const never = Number.POSITIVE_INFINITY;

/** Means in milliseconds; `Infinity`: never. */
export type Profile = ReturnType<typeof drawProfile>;

export function drawProfile(random: Random) {
  const every = (probability: number, ...means: readonly number[]): number =>
    random.chance(probability) ? random.pick(means) : never;
  return {
    size: random.pick([1, 3, 3, 3, 3, 5]),
    /** The network: one way, at most; and how many pieces stall. */
    delayMs: random.pick([1, 1, 3, 10, 25]),
    stall: random.pick([0, 0, 0.002, 0.02]),
    flushMs: random.pick([1, 3, 10]),
    clients: random.between(2, 4),
    concurrency: random.between(1, 3),
    thinkMs: random.pick([20, 50, 150]),
    paths: random.pick([2, 4, 6]),
    /** Of an attribute that fills up the log. */
    fillerBytes: random.pick([0, 300, 1500]),
    timeoutMs: random.pick([1500, 4000]),
    cutMs: every(0.7, 500, 1500, 5000),
    resetMs: every(0.4, 500, 3000),
    killMs: every(0.7, 500, 2000, 5000),
    stopMs: every(0.5, 700, 3000),
    powerMs: every(0.6, 1000, 4000),
    /** Part of the power failures that hit all machines at once. */
    powerOfAll: random.pick([0, 0.1, 0.3]),
    downMs: random.pick([5, 50, 400, 2000, 6000]),
    pauseMs: every(0.6, 800, 3000),
    hangMs: every(0.4, 2000, 6000),
    flushFailsMs: every(0.25, 4000),
    fullMs: every(0.25, 5000),
    wipeMs: every(0.4, 4000, 8000),
    /** Whether a master whose disk was lost is started with an empty one first as if it were the same. */
    comesBackUnderItsName: random.pick([0, 0, 0.5]),
    rotMs: every(0.2, 4000),
    changeMs: every(0.5, 1000, 4000),
    transferMs: every(0.5, 500, 3000),
    checkpointMs: every(0.6, 400, 2000),
    wallJumpMs: every(0.3, 2000),
    clientDeathMs: every(0.4, 3000),
    flushStateMs: random.pick([20, 100, 1000]),
    /** Clients that nobody hears of for so long lose their sessions. */
    sessionTimeoutMs: random.pick([2000, 300_000]),
    checkpointEveryEntries: random.pick([20, 100, 100_000]),
    logKeepBytes: random.pick([0, 2000, 1_000_000]),
    segmentBytes: random.pick([8192, 65_536]),
  };
}

export function journalLimits(profile: Profile): Partial<RaftJournalLimits> {
  const { checkpointEveryEntries, logKeepBytes, segmentBytes } = profile;
  const { wal } = defaultRaftJournalLimits;
  return {
    checkpointEveryEntries,
    logKeepBytes,
    maxPayloadBytes: 4096,
    digestEveryEntries: 50,
    wal: { ...wal, segmentBytes, batchBytes: segmentBytes, reserveBytes: 4096 },
  };
}
