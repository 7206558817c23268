/** The limits of a shared journal, by name. */

import { GiB, MiB } from "../base/units.ts";
import { defaultFeedLimits, type FeedLimits } from "./committed-feed.ts";
import { defaultRetryLimits, type RetryLimits } from "./shared-objects.ts";

export type SharedJournalLimits = {
  readonly maxPayloadBytes: number;
  /** Proposals that are not answered yet, beyond which new ones are refused with `overloaded`. */
  readonly maxQueuedEntries: number;
  readonly maxQueuedBytes: number;
  /** Reads that wait. */
  readonly maxQueuedReads: number;
  /** One slot takes at most so much. */
  readonly slotEntriesMax: number;
  readonly slotBytesMax: number;
  /** Slots that are created at once; never more than the store's `parallelCalls`. */
  readonly slotsUnderWayMax: number;
  /** Reads of the epoch under way at once. */
  readonly epochReadsMax: number;
  /** A primary that has nothing to write looks so often whether it still is one. */
  readonly idleCheckMs: number;
  /** So long a primary tries in vain to reach the store before it lets another master try. */
  readonly storePatienceMs: number;
  /** Reads wait so long for a store that does not answer. */
  readonly readPatienceMs: number;
  /** After a full store: how long until the next attempt. */
  readonly noSpaceRetryMs: number;
  /** Slots that a reader asks for at once when it is behind. */
  readonly readAheadSlots: number;
  /** A standby asks for the next slot after so long, and after growing waits while nothing comes. */
  readonly pollMinMs: number;
  readonly pollMaxMs: number;
  /** The share of its time that a standby spends waiting for answers to such questions is at most one in so many. */
  readonly pollShare: number;
  /** One call of `apply` takes at most so many. */
  readonly applySliceEntries: number;
  /** A checkpoint is made after so many bytes of payload or entries, whichever comes first. */
  readonly checkpointEveryBytes: number;
  readonly checkpointEveryEntries: number;
  /** A master that is the next in line makes it so much later, in parts of a whole interval: if the one before it does not. */
  readonly checkpointRankDelay: number;
  /** Where the state stands in the log is written down so often. */
  readonly positionEveryMs: number;
  /** Slots whose places are remembered, for whoever reads the log again. */
  readonly rememberedSlots: number;
  /** Masters compare their states every so many entries. */
  readonly digestEveryEntries: number;
  /** So long a difference waits for masters that have not come as far. */
  readonly digestWaitMs: number;
  /** After it was deposed a master waits so long, and up to twice as long, before it tries to lead again. */
  readonly reclaimDelayMs: number;
  readonly retry: RetryLimits;
  readonly feed: FeedLimits;
};

export const defaultSharedJournalLimits = {
  maxPayloadBytes: MiB,
  maxQueuedEntries: 65_536,
  maxQueuedBytes: 64 * MiB,
  maxQueuedReads: 65_536,
  slotEntriesMax: 4096,
  slotBytesMax: 4 * MiB,
  slotsUnderWayMax: 16,
  epochReadsMax: 2,
  idleCheckMs: 500,
  storePatienceMs: 5000,
  readPatienceMs: 1000,
  noSpaceRetryMs: 250,
  readAheadSlots: 32,
  pollMinMs: 3,
  pollMaxMs: 50,
  pollShare: 4,
  applySliceEntries: 256,
  checkpointEveryBytes: GiB,
  checkpointEveryEntries: 10_000_000,
  checkpointRankDelay: 0.5,
  positionEveryMs: 5000,
  rememberedSlots: 500_000,
  digestEveryEntries: 100_000,
  digestWaitMs: 5000,
  reclaimDelayMs: 500,
  retry: defaultRetryLimits,
  feed: defaultFeedLimits,
} as const satisfies SharedJournalLimits;
