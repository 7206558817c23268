/**
 * The journal makes the masters' commands durable and ordered. This is the interface that the local, the Raft and the
 * shared-storage implementations have in common; `contract.ts` is the test suite that each of them passes.
 *
 * WAL first, no speculation: a command changes the state only when it is committed, and it is applied in the order of
 * its index on every master. So there is nothing to roll back when leadership is lost.
 */

import type { JournalType, MoveMember, MovePlan, MoveReport } from "./migration.ts";

/** One committed command. */
export type Entry = {
  /** Position in the log, from 1, without gaps. */
  readonly index: number;
  /** Raft's term or the shared journal's epoch; the local journal counts its starts. */
  readonly term: number;
  /** An encoded command (docs/formats/command.md). Empty: a no-op that the journal wrote for itself. */
  readonly payload: Uint8Array;
};

/** What the journal drives: in production the namespace. `Result` is what a command returns to its proposer. */
export interface StateMachine<Result> {
  /** Highest entry in the state, with its term: the journal goes on behind it, or resets a state that is ahead of its log. */
  readonly applied: { readonly index: number; readonly term: number };
  /**
   * Applies entries `applied.index + 1 ...` in order, one result each. Synchronous and deterministic: the same entries
   * give the same state and results everywhere. A throw is a defect and ends the process.
   */
  apply(entries: readonly Entry[]): Result[];
  /** Order-free digest of the whole state at `applied`, hexadecimal. */
  digest(): string;
  /**
   * Writes a consistent copy of the state as it is at the call into the new file `path`, durable when it resolves. Goes on applying
   * meanwhile. Rejects with the signal's reason, leaving no file, as soon as it can when that fires.
   */
  writeCheckpoint(
    path: string,
    signal?: AbortSignal,
  ): Promise<{
    readonly index: number;
    readonly term: number;
    readonly digest: string;
    /** Of the file, by a machine that summed what it wrote: then nobody needs to read it again. */
    readonly sum?: { readonly bytes: number; readonly xxh64: string } | undefined;
  }>;
  /** While the state's own disk is far behind: resolves when it is level enough to apply more. Undefined: apply. */
  backPressure?(): Promise<void> | undefined;
  /**
   * Makes the state as it is at the call durable on its own disk. The journal calls it before it leaves the mark that
   * lets the next start trust the state after a reboot; without it such a start rebuilds the state.
   */
  flush?(): Promise<void>;
  /** Replaces the whole state by the checkpoint file at `path`; `undefined`: by the empty state. */
  reset(path: string | undefined): Promise<void>;
}

export type Role = "leader" | "standby";

export type Proposed<Result> = { readonly index: number; readonly result: Result };

export type JournalStatus = {
  readonly type: JournalType;
  readonly role: Role;
  readonly term: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly checkpointIndex: number;
  readonly bytes: number;
  /** Of a journal whose primary is elected by a service beside it. */
  readonly election?: {
    /** The service answers. A primary goes on without it; nobody else can become one. */
    readonly connected: boolean;
    readonly candidates: number;
    /** Why this master cannot take part. */
    readonly problem?: string;
  };
};

/** A master, as its journal knows it. */
export type JournalMember = {
  readonly id: string;
  /** Of the journal's own traffic, `host:port`; empty if it has none. */
  readonly address: string;
  /** For clients and workers; `undefined` while nothing was heard of it. */
  readonly rpc: string | undefined;
  readonly http: string | undefined;
  readonly voter: boolean;
  readonly leader: boolean;
  /** As of its last report; `undefined`: unknown. */
  readonly appliedIndex: number | undefined;
  /** Of the state at `digestIndex`. */
  readonly digestIndex: number | undefined;
  readonly digest: string | undefined;
  /** Highest feature level that its software understands; `undefined`: not heard yet. */
  readonly featureLevel: number | undefined;
  /** Heard of within the last seconds. */
  readonly reachable: boolean;
};

export type MemberChange =
  /** Joins as a learner. */
  | { readonly kind: "add"; readonly id: string; readonly address: string }
  /** A learner that has caught up votes from then on; waits until it has. */
  | { readonly kind: "promote"; readonly id: string }
  | { readonly kind: "remove"; readonly id: string };

/** What journals with several masters have beside; the local one answers `unsupported`. */
export interface JournalCluster {
  /** Of any master: what it knows. */
  members(): readonly JournalMember[];
  /** Called, at once, when the members, an address or a feature level of theirs change, and when another one leads or none: clients wait for it. */
  onMembersChange(listener: () => void): void;
  /** Of the leader. Resolves when the change is committed and no longer joint. `not-leader`, `invalid`, `overloaded` (one at a time), `timeout`. */
  changeMembers(change: MemberChange, signal?: AbortSignal): Promise<void>;
  /** Of the leader: hands over to `id`, or to the most advanced voter. Resolves when another one leads. */
  transferLeadership(id: string | undefined, signal?: AbortSignal): Promise<void>;
  /** Milliseconds since which the local state is known to hold all that was acknowledged; `undefined`: never was. */
  freshnessMs(): number | undefined;
}

export type SavedCheckpoint = {
  readonly index: number;
  readonly term: number;
  /** The state machine's digest at `index`. */
  readonly digest: string;
  readonly bytes: number;
  readonly xxh64: string;
  readonly path: string;
  /** The members as of then, encoded; absent of a local journal. */
  readonly configuration?: object | undefined;
};

/** The steps of a move to another journal, of this master (docs/migration.md). */
export interface JournalMoves {
  report(): MoveReport;
  /** May be asked for again. Throws `invalid`, `already-exists` while another move is prepared. */
  prepare(plan: MovePlan): Promise<MoveReport>;
  /** Of the leader: ends the journal in force. Resolves when this master has opened the new one. */
  commit(move: string, members: Readonly<Record<string, MoveMember>>): Promise<MoveReport>;
  /** Takes back what is prepared. Throws `invalid` when the mark is committed. Of the leader first: then it cannot be committed any more. */
  abort(move: string): Promise<MoveReport>;
}

export interface Journal<Result> {
  /** Recovers, and resolves when every durable entry is applied. Rejects with `corrupt` naming file and offset, never drops acknowledged entries. */
  start(): Promise<void>;
  readonly role: Role;
  /** Where the leader is, as far as known (`host:port` of its RPC). */
  readonly leaderAddress: string | undefined;
  /** Why the own disk takes no more of the log for now; reads go on. Absent: it does, or the journal does not tell. */
  readonly noSpace?: string | undefined;
  /** `undefined`: this journal has one member. */
  readonly cluster: JournalCluster | undefined;
  /** Of a journal that can move to another one: as `JournalCluster.onMembersChange`, of the present one and of those to come. */
  onMembersChange?(listener: () => void): void;
  readonly moves?: JournalMoves | undefined;
  /** Called at every change of role, also during `start`. */
  onRoleChange(listener: (role: Role) => void): void;
  /**
   * Makes the command durable, applies it, and resolves with its result. Rejects with `not-leader` or `overloaded`
   * (never appended, outcome none), `no-space` (likewise), `invalid` (empty or too large), or `unknown-outcome`
   * (appended, fate not known). The payload must not be changed any more.
   */
  propose(payload: Uint8Array): Promise<Proposed<Result>>;
  /** Whether a read of the local state in this turn is linearizable: no barrier is needed then. */
  readonly mayRead: boolean;
  /** Resolves when a read of the local state is linearizable: it then sees all that was acknowledged before the call. */
  readBarrier(): Promise<void>;
  /** Committed entries from `fromIndex` on, live. Throws `compacted` when they have been cut. Ends when the signal fires. */
  committed(fromIndex: number, signal: AbortSignal): AsyncIterable<Entry>;
  /** Saved states, oldest first; their files may go when newer ones come. */
  readonly checkpoints: readonly SavedCheckpoint[];
  /** Saves the state so that the log behind it can be cut. */
  checkpoint(): Promise<{ readonly index: number; readonly bytes: number; readonly durationMs: number }>;
  status(): JournalStatus;
  /** Refuses new proposals, finishes those under way, closes files. */
  close(): Promise<void>;
}
