/**
 * The words of the consensus core: entries, messages, what it is told and what it asks for. All of it is plain data; a
 * journal encodes it for disk and wire. Terms and indexes are numbers below 2^53; positions count from 1, and 0 means
 * "before the first".
 */

import { assert } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import { KiB, MiB } from "../base/units.ts";

/** Names one member for ever. A member that lost its disk comes back under another id. */
export type NodeId = string;

export type Entry = {
  readonly index: number;
  readonly term: number;
  /** `configuration`: the payload is the whole membership from this entry on (membership.ts). */
  readonly kind: "command" | "configuration";
  /** Empty for the no-op that every new leader appends. */
  readonly payload: Uint8Array;
};

/** What a member must remember across a crash before it lets others know. */
export type HardState = { readonly term: number; readonly vote: NodeId | undefined };

/** Carried for the journal; means nothing here. */
export type MemberDescription = {
  /** Where the member's consensus is reached, `host:port`. */
  readonly address: string;
  /** Of its disk; empty: not known yet. */
  readonly incarnation: string;
  /** For clients and workers. */
  readonly rpc?: string;
  readonly http?: string;
};

export type Configuration = {
  readonly voters: readonly NodeId[];
  /** The voters of the configuration that is being left. Not empty: joint state, both majorities decide. */
  readonly outgoing: readonly NodeId[];
  /** Receive the log and decide nothing. */
  readonly learners: readonly NodeId[];
  readonly members: Readonly<Record<NodeId, MemberDescription>>;
};

/** The last entry that a checkpoint contains, and the membership as of then. */
export type SnapshotPoint = {
  readonly index: number;
  readonly term: number;
  readonly configuration: Configuration;
};

type Envelope = { readonly from: NodeId; readonly to: NodeId; readonly term: number };

/**
 * `sentAtMs` is the leader's own clock at sending. Followers give it back unread: what a quorum gave back began the lease.
 * The term is the sender's, but that of a pre-vote and of its grant is the one the sender would like to reach.
 */
export type Message = Envelope &
  (
    | { readonly type: "pre-vote"; readonly lastIndex: number; readonly lastTerm: number }
    | { readonly type: "pre-vote-reply"; readonly granted: boolean }
    /** `transfer`: the leader itself asked for this election and has given up its lease. */
    | { readonly type: "vote"; readonly lastIndex: number; readonly lastTerm: number; readonly transfer: boolean }
    | { readonly type: "vote-reply"; readonly granted: boolean }
    | {
        readonly type: "append";
        readonly prevIndex: number;
        readonly prevTerm: number;
        readonly entries: readonly Entry[];
        readonly commit: number;
        readonly sentAtMs: number;
      }
    /** All up to `index` is durable here and as the leader has it. */
    | { readonly type: "append-ok"; readonly index: number; readonly sentAtMs: number }
    /** There is no entry `prevIndex` of the right term. Entry `hintIndex` is the last that may be shared. */
    | {
        readonly type: "append-reject";
        readonly prevIndex: number;
        readonly hintIndex: number;
        readonly hintTerm: number;
        readonly sentAtMs: number;
      }
    | { readonly type: "heartbeat"; readonly round: number; readonly commit: number; readonly sentAtMs: number }
    | { readonly type: "heartbeat-ok"; readonly round: number; readonly sentAtMs: number }
    /** News of the commit index for one who has all entries. Not answered. */
    | { readonly type: "commit"; readonly commit: number }
    /** The journal sends the checkpoint along with it, and hands it to the receiver's core when all has arrived. */
    | { readonly type: "snapshot"; readonly snapshot: SnapshotPoint; readonly sentAtMs: number }
    /** To a leader of the past: its term is over. */
    | { readonly type: "stale-term" }
    /** To a voter that has everything: hold an election now. */
    | { readonly type: "timeout-now" }
    /** A follower asks for a read index. */
    | { readonly type: "read"; readonly request: number }
    /** `index` 0: refused. */
    | { readonly type: "read-reply"; readonly request: number; readonly index: number }
  );

export type Role = "follower" | "pre-candidate" | "candidate" | "leader";

export type RaftConfig = {
  /** `tick` is called so often. One call counts for at most this much, however long the process stood still. */
  readonly tickMs: number;
  readonly heartbeatMs: number;
  /** Elections begin after a silence drawn from [this, 2 x this). */
  readonly electionTimeoutMs: number;
  /** How long a quorum's answer lets the leader read without asking; less than the election timeout by more than clocks drift. */
  readonly leaseMs: number;
  /** A snapshot of which nothing is heard for so long has failed. */
  readonly snapshotTimeoutMs: number;
};

export const defaultRaftConfig: RaftConfig = {
  tickMs: 10,
  heartbeatMs: 30,
  electionTimeoutMs: 300,
  leaseMs: 270,
  snapshotTimeoutMs: 10_000,
};

export type RaftLimits = {
  /** Entries in one message; a single larger entry travels alone. */
  readonly messageBytes: number;
  /** Unanswered appends to one member. */
  readonly inflightMessages: number;
  readonly inflightBytes: number;
  /** What a leader accepted and is not yet both committed and on its own disk. More is refused as `overloaded`. */
  readonly uncommittedBytes: number;
  /** Handed out to be applied at once. */
  readonly applyBytes: number;
  /** Reads that wait, for a round or for the leader's answer. */
  readonly pendingReads: number;
};

export const defaultRaftLimits: RaftLimits = {
  messageBytes: 512 * KiB,
  inflightMessages: 128,
  inflightBytes: 8 * MiB,
  uncommittedBytes: 32 * MiB,
  applyBytes: 4 * MiB,
  pendingReads: 65_536,
};

/** What an entry counts for beside its payload, in all limits. */
const entryOverheadBytes = 32;

export function entryBytes(entry: Entry): number {
  return entry.payload.length + entryOverheadBytes;
}

/** Throws `invalid`. */
export function checkRaftConfig(config: RaftConfig): void {
  const { tickMs, heartbeatMs, electionTimeoutMs, leaseMs } = config;
  const problem =
    !(tickMs > 0 && tickMs <= heartbeatMs) || !(heartbeatMs * 3 <= electionTimeoutMs)
      ? `tick ${tickMs} ms, heartbeat ${heartbeatMs} ms and election timeout ${electionTimeoutMs} ms must rise, the last by a factor of 3`
      : !(leaseMs > 0 && leaseMs <= 0.95 * electionTimeoutMs)
        ? `a lease of ${leaseMs} ms is not safely shorter than the election timeout of ${electionTimeoutMs} ms`
        : undefined;
  if (problem !== undefined) throw new HeadpondError("invalid", problem);
}

export type RefusalReason = "not-leader" | "overloaded" | "transferring" | "timeout";
/** Never appended, and never will be. */
export type Refusal = { readonly accepted: false; readonly reason: RefusalReason; readonly leader: NodeId | undefined };

/** Accepted: appended to the leader's log as these entries; applied with this term they are done, else they are lost. */
export type Proposal =
  | { readonly accepted: true; readonly term: number; readonly firstIndex: number; readonly lastIndex: number }
  | Refusal;

export type ChangeOutcome =
  | { readonly accepted: true; readonly term: number; readonly index: number }
  | {
      readonly accepted: false;
      readonly reason: RefusalReason | "pending-change" | "not-ready" | "invalid";
      readonly message: string;
    };

export type TransferOutcome =
  | { readonly accepted: true }
  | { readonly accepted: false; readonly reason: "not-leader" | "transferring" | "invalid"; readonly message: string };

/** One write to the log's disk. Writes are made in the order of their tokens: hard state, then truncation, then entries. */
export type AppendWork = {
  readonly token: number;
  readonly hardState: HardState | undefined;
  /** Entries from here on are void. */
  readonly truncateFrom: number | undefined;
  readonly entries: readonly Entry[];
};

/** A state in which all up to `index` is applied answers the read. */
export type ReadGrant = { readonly context: number; readonly index: number; readonly via: "lease" | "quorum" };
export type ReadRefusal = { readonly context: number; readonly reason: RefusalReason };

export type RoleChange = { readonly role: Role; readonly term: number; readonly leader: NodeId | undefined };
/** Entries that a leader accepted and no longer leads to a decision: they may be committed or not. */
export type UnknownRange = { readonly term: number; readonly firstIndex: number; readonly lastIndex: number };

/** What the core wants done. Everything in it is handed out once. */
export type Ready = {
  readonly messages: readonly Message[];
  readonly append: AppendWork | undefined;
  /** After all earlier writes: replace state and log by this snapshot, then report `snapshotInstalled`. */
  readonly install: SnapshotPoint | undefined;
  /** Durable here and committed: apply in this order, then report `applied`. */
  readonly committed: readonly Entry[];
  readonly reads: readonly ReadGrant[];
  readonly refusedReads: readonly ReadRefusal[];
  readonly roleChange: RoleChange | undefined;
  /** Answer the proposers of these `unknown` at once. */
  readonly unknown: UnknownRange | undefined;
  /** A member needs a snapshot and there is none: make one. */
  readonly snapshotWanted: boolean;
};

/** The durable log as it was at the last acknowledged write. Answers at once, from memory. */
export interface LogStorage {
  /** Of the first entry that is still there; `lastIndex + 1` if none is. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** Of the entries, and of the one right before the first. */
  term(index: number): number | undefined;
  /** From `first` to before `end`, at least one, then as many as fit. `loading`: ask again after `resume`. */
  entries(first: number, end: number, maxBytes: number): readonly Entry[] | "compacted" | "loading";
  /** The newest checkpoint that could be sent. */
  readonly snapshot: SnapshotPoint | undefined;
}

export function checkPosition(value: number, what: string): void {
  assert(Number.isSafeInteger(value) && value >= 0, () => `${what} ${value} is no position`);
}

export type RaftOptions = {
  readonly id: NodeId;
  readonly config: RaftConfig;
  readonly limits: RaftLimits;
  readonly random: Random;
  readonly storage: LogStorage;
  readonly hardState: HardState;
  /** The configuration of the snapshot (or of the format, at index 0), then those in the log behind it. */
  readonly configurations: readonly LoggedConfiguration[];
  /** Last entry in the state: it is committed. */
  readonly appliedIndex: number;
  /** The present, by the clock that all calls go by. */
  readonly restartedAtMs: number;
  /** Whether it may vote and stand at once; by default yes. Else it waits for `admit`. */
  readonly admitted?: boolean;
};

export type LoggedConfiguration = { readonly index: number; readonly configuration: Configuration };

export type RaftStatus = {
  readonly id: NodeId;
  readonly role: Role;
  readonly term: number;
  readonly leader: NodeId | undefined;
  /** Whether this leader has committed in its term: its commit index is right from then on. */
  readonly hasCommitted: boolean;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly stableIndex: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly configuration: Configuration;
  readonly configurationIndex: number;
  readonly peers: readonly { readonly id: NodeId; readonly matchIndex: number; readonly progress: string }[];
};
