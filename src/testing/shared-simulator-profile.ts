/** How hard a simulated history of shared journals is: drawn from its seed. */

import type { Random } from "../base/random.ts";
import type { SharedJournalLimits } from "../journal/shared-limits.ts";

const never = Number.POSITIVE_INFINITY;

/** Means in milliseconds; `Infinity`: never. Probabilities are of one call. */
export type SharedProfile = ReturnType<typeof drawSharedProfile>;

export function drawSharedProfile(random: Random) {
  const every = (probability: number, ...means: readonly number[]): number =>
    random.chance(probability) ? random.pick(means) : never;
  return {
    size: random.pick([1, 2, 3, 3, 3]),
    clients: random.between(1, 4),
    thinkMs: random.pick([3, 10, 40]),
    readShare: random.pick([0.2, 0.2, 0.6]),
    fillerBytes: random.pick([0, 300, 3000]),
    parallelCalls: random.pick([1, 2, 8, 16]),
    delayMs: random.pick([1, 2, 10, 40]),
    lostRequest: random.pick([0, 0, 0.005, 0.05]),
    lostAnswer: random.pick([0, 0.005, 0.05]),
    lateRequest: random.pick([0, 0.01, 0.05]),
    /** The requests of one master get lost, not those of the others. */
    oneLosesRequests: random.pick([0, 0, 0, 0.3]),
    existsAfterSuccess: random.pick([0, 0, 0.02]),
    staleListing: random.pick([0, 0.3]),
    sessionMs: random.pick([200, 600, 2000]),
    killMs: every(0.7, 500, 2000, 5000),
    stopMs: every(0.5, 700, 3000),
    powerMs: every(0.5, 1000, 4000),
    downMs: random.pick([5, 50, 400, 2000, 6000]),
    pauseMs: every(0.7, 400, 1500),
    outageMs: every(0.5, 1000, 4000),
    fullMs: every(0.3, 2000),
    electionMs: every(0.4, 2000),
    misleadMs: every(0.5, 300, 1500),
    transferMs: every(0.5, 500, 3000),
    checkpointMs: every(0.6, 50, 300, 1500),
    checkpointEveryEntries: random.pick([10, 50, 100_000]),
  };
}

export function sharedLimits({ checkpointEveryEntries }: SharedProfile): Partial<SharedJournalLimits> {
  return {
    checkpointEveryEntries,
    maxPayloadBytes: 8192,
    slotEntriesMax: 8,
    applySliceEntries: 3,
    slotBytesMax: 8192,
    idleCheckMs: 100,
    storePatienceMs: 1500,
    readPatienceMs: 600,
    noSpaceRetryMs: 50,
    pollMinMs: 3,
    pollMaxMs: 40,
    positionEveryMs: 150,
    rememberedSlots: 100,
    reclaimDelayMs: 80,
    digestEveryEntries: 40,
    digestWaitMs: 500,
    retry: { retryMinMs: 3, retryMaxMs: 100 },
  };
}
