/** The limits of a Raft journal, by name. */

import { GiB, MiB } from "../base/units.ts";
import { defaultRaftConfig, defaultRaftLimits, type RaftConfig, type RaftLimits } from "../raft/types.ts";
import { defaultFeedLimits, type FeedLimits } from "./committed-feed.ts";
import { defaultRaftMembersLimits, type RaftMembersLimits } from "./raft-members.ts";
import { defaultWalLimits, type WalLimits } from "./wal.ts";

export type RaftJournalLimits = {
  readonly maxPayloadBytes: number;
  /** Proposals that are not answered yet, beyond which new ones are refused with `overloaded`. */
  readonly maxQueuedEntries: number;
  readonly maxQueuedBytes: number;
  /** What was proposed in one turn is offered to the core in portions of this much, so that it is refused in portions. */
  readonly portionBytes: number;
  /** Reads that wait. */
  readonly maxQueuedReads: number;
  /**
   * One call of `apply` takes at most so many; then others have their turn. What clients send in answer to one slice travels together to
   * all masters, so a slice is also the size of most messages and flushes (three masters and their client in one process, 256 outstanding:
   * 18.9 us of processor time per entry in slices of 64, 13.1 in slices of 256).
   */
  readonly applySliceEntries: number;
  /** A checkpoint is made after so many bytes of payload or entries, whichever comes first. */
  readonly checkpointEveryBytes: number;
  readonly checkpointEveryEntries: number;
  /** Kept of the log behind a checkpoint for those who are a little behind, and at most. */
  readonly logKeepBytes: number;
  readonly logMaxBytes: number;
  /** The newest entries are in memory, for the state and for the others. */
  readonly logMemoryBytes: number;
  /** Masters compare their states every so many entries. */
  readonly digestEveryEntries: number;
  /** So long a difference waits for masters that have not come as far. */
  readonly digestWaitMs: number;
  /** The log rests so long before it is witnessed (`Wal.witness`). */
  readonly restMs: number;
  /** After a full disk: how long until the next attempt. */
  readonly noSpaceRetryMs: number;
  /** Timing of the consensus. */
  readonly raft: Partial<RaftConfig>;
  /** Limits of the consensus. */
  readonly core: Partial<RaftLimits>;
  readonly members: Partial<RaftMembersLimits>;
  readonly feed: FeedLimits;
  readonly wal: WalLimits;
};

export const defaultRaftJournalLimits = {
  maxPayloadBytes: MiB,
  maxQueuedEntries: 65_536,
  maxQueuedBytes: 64 * MiB,
  portionBytes: MiB,
  maxQueuedReads: 65_536,
  applySliceEntries: 256,
  checkpointEveryBytes: GiB,
  checkpointEveryEntries: 10_000_000,
  logKeepBytes: 256 * MiB,
  logMaxBytes: 4 * GiB,
  logMemoryBytes: 32 * MiB,
  digestEveryEntries: 100_000,
  digestWaitMs: 5000,
  restMs: 20,
  noSpaceRetryMs: 250,
  raft: defaultRaftConfig,
  core: defaultRaftLimits,
  members: defaultRaftMembersLimits,
  feed: defaultFeedLimits,
  wal: defaultWalLimits,
} as const satisfies RaftJournalLimits;
