/**
 * One term of leading: what the other members have, what to send them, what is committed, how long the lease lasts and
 * whether a quorum is still there. Made when an election is won and thrown away when the term ends, so nothing of one
 * term is taken for something of another.
 */

import { present } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import type { RaftLog } from "./log.ts";
import {
  changed,
  describeConfiguration,
  encodeConfiguration,
  isJoint,
  isVoter,
  type Membership,
  type MembershipChange,
  membersOf,
  withoutOutgoing,
} from "./membership.ts";
import type { Outbox } from "./outbox.ts";
import { Progress } from "./progress.ts";
import { quorumValue } from "./quorum.ts";
import {
  type ChangeOutcome,
  type Configuration,
  type Entry,
  entryBytes,
  type LogStorage,
  type Message,
  type NodeId,
  type Proposal,
  type RaftConfig,
  type RaftLimits,
  type RaftStatus,
  type TransferOutcome,
} from "./types.ts";

type Of<Type extends Message["type"]> = Extract<Message, { readonly type: Type }>;

export type LeadershipOptions = {
  readonly id: NodeId;
  readonly term: number;
  readonly log: RaftLog;
  readonly membership: Membership;
  readonly outbox: Outbox;
  readonly storage: LogStorage;
  readonly config: RaftConfig;
  readonly limits: RaftLimits;
  /** Sum of all ticks so far. */
  readonly uptimeMs: number;
};

export class Leadership {
  readonly #options: LeadershipOptions;
  readonly #peers = new Map<NodeId, Progress>();
  #uptimeMs: number;
  #sinceHeartbeatMs = 0;
  #round = 0;
  #hasCommitted = false;
  /** Set with the first TimeoutNow, for the rest of the term: it may arrive late, and voters then break their promise. */
  #leaseEnded = false;
  /** When what a quorum answered had been sent; undefined: to be found out again. */
  #leasedAtMs: number | undefined;
  #transfer: { readonly target: NodeId; readonly sinceMs: number; sent: boolean } | undefined;
  /** What was accepted and is not yet both committed and durable here. */
  #open: { readonly index: number; readonly bytes: number }[] = [];
  #openBytes = 0;
  #snapshotWanted = false;
  /** Members that lack the same get the same array: it is then encoded once. */
  #slice: { readonly first: number; readonly entries: readonly Entry[] } | undefined;

  constructor(options: LeadershipOptions) {
    this.#options = options;
    this.#uptimeMs = options.uptimeMs;
    this.#membersChanged();
    // What older terms left is committed with it.
    const { log, term } = options;
    this.#append([{ index: log.lastIndex + 1, term, kind: "command", payload: new Uint8Array(0) }]);
  }

  /** Whether something of this term is committed: from then on the commit index is right, and reads and changes may go on. */
  get hasCommitted(): boolean {
    return this.#hasCommitted;
  }

  get peerStatus(): RaftStatus["peers"] {
    return [...this.#peers].map(([id, peer]) => ({ id, matchIndex: peer.match, progress: peer.describe() }));
  }

  get peers(): ReadonlyMap<NodeId, Progress> {
    return this.#peers;
  }

  /** Appends commands, or says why it will not. A single proposal is never too large. */
  propose(payloads: readonly Uint8Array[]): Proposal {
    const { id, log, term, limits } = this.#options;
    if (this.#transfer !== undefined) return { accepted: false, reason: "transferring", leader: id };
    const firstIndex = log.lastIndex + 1;
    const entries = payloads.map((payload, i): Entry => ({ index: firstIndex + i, term, kind: "command", payload }));
    if (this.#openBytes > 0 && this.#openBytes + totalBytes(entries) > limits.uncommittedBytes) {
      return { accepted: false, reason: "overloaded", leader: id };
    }
    this.#append(entries);
    return { accepted: true, term, firstIndex, lastIndex: log.lastIndex };
  }

  change(changes: readonly MembershipChange[]): ChangeOutcome {
    const { log, term, membership } = this.#options;
    const { current } = membership;
    const refused = (reason: Extract<ChangeOutcome, { accepted: false }>["reason"], message: string): ChangeOutcome => {
      return { accepted: false, reason, message };
    };
    if (this.#transfer !== undefined) {
      return refused("transferring", `leadership goes to ${this.#transfer.target}: ask there`);
    }
    if (isJoint(current) || membership.index > log.commit) {
      return refused(
        "pending-change",
        `the change to ${describeConfiguration(current)} is not finished: try again then`,
      );
    }
    // What an older leader began may still be in some log: two changes at once could be decided by disjoint majorities.
    if (!this.#hasCommitted) return refused("not-ready", `term ${term} has committed nothing yet: try again`);
    try {
      return { accepted: true, term, index: this.#appendConfiguration(changed(current, changes)) };
    } catch (error) {
      if (error instanceof HeadpondError && error.code === "invalid") return refused("invalid", error.message);
      throw error;
    }
  }

  /** Whether the last change of members is committed. */
  get isChangeDone(): boolean {
    return this.#options.membership.index <= this.#options.log.commit;
  }

  /** The second step of a change, also of one that a former leader began. */
  leaveJoint(): void {
    this.#appendConfiguration(withoutOutgoing(this.#options.membership.current));
  }

  /** Commits what a quorum holds. Whether that is news. */
  advanceCommit(): boolean {
    const { log, term } = this.#options;
    const index = this.#quorum(log.stableIndex, ({ match }) => match);
    // An entry of an older term that a quorum holds may still be overwritten: it is committed by one of this term behind it.
    const isNew = index > log.commit && log.term(index) === term;
    if (isNew) {
      log.commitTo(index);
      this.#hasCommitted = true;
    }
    const closed = Math.min(log.commit, log.stableIndex);
    let count = 0;
    for (; (this.#open[count]?.index ?? Number.POSITIVE_INFINITY) <= closed; count++) {
      this.#openBytes -= this.#open[count]?.bytes ?? 0;
    }
    if (count > 0) this.#open.splice(0, count);
    return isNew;
  }

  onAppendOk({ from, index, sentAtMs }: Of<"append-ok">): void {
    const peer = this.#heard(from, sentAtMs);
    peer?.acknowledged(index, this.#options.log.firstIndex);
  }

  onAppendReject({ from, prevIndex, hintIndex, hintTerm, sentAtMs }: Of<"append-reject">): void {
    const peer = this.#heard(from, sentAtMs);
    if (peer === undefined) return;
    peer.rejected(prevIndex, this.#options.log.lastOfTerm(hintIndex, hintTerm).index);
  }

  onHeartbeatOk({ from, round, sentAtMs }: Of<"heartbeat-ok">): void {
    const peer = this.#heard(from, sentAtMs);
    if (peer === undefined) return;
    peer.round = Math.max(peer.round, round);
    peer.answeredHeartbeat(this.#options.log.lastIndex);
  }

  /** Whether the leader may answer reads on its own: a quorum answered what was sent less than a lease ago. */
  mayRead(nowMs: number): boolean {
    if (!this.#hasCommitted || this.#leaseEnded) return false;
    // Asked before every read, and changed by answers and memberships only. What this member says itself is never too old.
    this.#leasedAtMs ??= this.#quorum(Number.POSITIVE_INFINITY, ({ leasedAtMs }) => leasedAtMs);
    return nowMs < this.#leasedAtMs + this.#options.config.leaseMs;
  }

  /** The latest round of heartbeats that a quorum answered. */
  get confirmedRound(): number {
    return this.#quorum(this.#round, ({ round }) => round);
  }

  /** Sends heartbeats; their answers also confirm that this is still the leader. */
  beginRound(nowMs: number): number {
    const { id, term, log, outbox } = this.#options;
    this.#round++;
    this.#sinceHeartbeatMs = 0;
    for (const [to, peer] of this.#peers) {
      const commit = Math.min(log.commit, peer.match);
      peer.sentCommit = Math.max(peer.sentCommit, commit);
      outbox.send({ type: "heartbeat", from: id, to, term, round: this.#round, commit, sentAtMs: nowMs });
    }
    return this.#round;
  }

  /** Sends every member what it lacks, as far as its window goes. */
  replicate(nowMs: number): void {
    for (const [to, peer] of this.#peers) this.#replicateTo(to, peer, nowMs);
    this.#slice = undefined;
  }

  /** One tick. `judge`: whether to draw conclusions from silence. Returns whether the leader has lost its quorum. */
  tick(elapsedMs: number, uptimeMs: number, nowMs: number, judge: boolean): boolean {
    const { heartbeatMs, electionTimeoutMs, snapshotTimeoutMs } = this.#options.config;
    this.#uptimeMs = uptimeMs;
    this.#sinceHeartbeatMs += elapsedMs;
    if (this.#sinceHeartbeatMs >= heartbeatMs) this.beginRound(nowMs);
    if (!judge) return false;
    for (const peer of this.#peers.values()) {
      if (peer.isSnapshotOverdue(uptimeMs, snapshotTimeoutMs)) peer.snapshotFailed();
    }
    if (this.#transfer !== undefined && uptimeMs - this.#transfer.sinceMs >= electionTimeoutMs) {
      this.#transfer = undefined;
    }
    return uptimeMs - this.#quorum(uptimeMs, ({ activeAtMs }) => activeAtMs) >= electionTimeoutMs;
  }

  transfer(target: NodeId): TransferOutcome {
    const { id, membership } = this.#options;
    const refused = (reason: "transferring" | "invalid", message: string): TransferOutcome => {
      return { accepted: false, reason, message };
    };
    if (target === id) return refused("invalid", `${target} leads already`);
    if (!membership.current.voters.includes(target)) {
      return refused("invalid", `${target} is no voter of ${describeConfiguration(membership.current)}`);
    }
    if (this.#transfer !== undefined) {
      return refused("transferring", `leadership is on its way to ${this.#transfer.target}`);
    }
    this.#transfer = { target, sinceMs: this.#uptimeMs, sent: false };
    this.pursueTransfer();
    return { accepted: true };
  }

  /** Asks the target to take over once it has everything and everything is decided. */
  pursueTransfer(): void {
    const { id, term, log, outbox } = this.#options;
    const transfer = this.#transfer;
    if (transfer === undefined || transfer.sent || log.commit < log.lastIndex) return;
    if ((this.#peers.get(transfer.target)?.match ?? 0) < log.lastIndex) return;
    // First no more lease, then the message: whoever it makes leader commits without waiting for any promise.
    this.#leaseEnded = true;
    transfer.sent = true;
    outbox.send({ type: "timeout-now", from: id, to: transfer.target, term });
  }

  /** The voter that a leader who must go leaves the cluster to. */
  get successor(): NodeId | undefined {
    const { id, config, membership } = this.#options;
    const candidates = [...this.#peers]
      .filter(([peer]) => peer !== id && isVoter(membership.current, peer))
      .filter(([, { activeAtMs }]) => this.#uptimeMs - activeAtMs < config.electionTimeoutMs);
    return candidates.sort(([, a], [, b]) => b.match - a.match)[0]?.[0];
  }

  /** Whether a snapshot was needed and there was none since this was asked last. */
  takeSnapshotWanted(): boolean {
    const wanted = this.#snapshotWanted;
    this.#snapshotWanted = false;
    return wanted;
  }

  #append(entries: readonly Entry[]): void {
    this.#options.log.append(entries);
    const bytes = totalBytes(entries);
    this.#open.push({ index: this.#options.log.lastIndex, bytes });
    this.#openBytes += bytes;
  }

  #appendConfiguration(configuration: Configuration): number {
    const { log, term, membership } = this.#options;
    const index = log.lastIndex + 1;
    this.#append([{ index, term, kind: "configuration", payload: encodeConfiguration(configuration) }]);
    membership.append(index, configuration);
    this.#membersChanged();
    return index;
  }

  #membersChanged(): void {
    const { id, membership, log, limits } = this.#options;
    const members = membersOf(membership.current);
    this.#leasedAtMs = undefined;
    for (const peer of this.#peers.keys()) if (!members.includes(peer)) this.#peers.delete(peer);
    for (const peer of members) {
      if (peer !== id && !this.#peers.has(peer)) {
        this.#peers.set(peer, new Progress(log.lastIndex + 1, this.#uptimeMs, limits));
      }
    }
  }

  #heard(from: NodeId, sentAtMs: number): Progress | undefined {
    const peer = this.#peers.get(from);
    if (peer === undefined) return undefined;
    peer.activeAtMs = this.#uptimeMs;
    peer.leasedAtMs = Math.max(peer.leasedAtMs, sentAtMs);
    this.#leasedAtMs = undefined;
    return peer;
  }

  /** What a quorum has reached. This member counts only if it votes: a leader may be on its way out. */
  #quorum(own: number, valueOf: (peer: Progress) => number): number {
    const { id, membership } = this.#options;
    return quorumValue(membership.current, (voter) =>
      voter === id ? own : valueOf(present(this.#peers.get(voter), "every voter has a progress")),
    );
  }

  #replicateTo(to: NodeId, peer: Progress, nowMs: number): void {
    const { id, term, log, outbox, limits } = this.#options;
    while (!peer.isPaused && (peer.next <= log.lastIndex || peer.wantsContact)) {
      const prevIndex = peer.next - 1;
      const prevTerm = log.term(prevIndex);
      const entries = prevTerm === undefined ? "compacted" : this.#sliceFrom(peer.next, limits.messageBytes);
      if (entries === "loading") return;
      if (prevTerm === undefined || entries === "compacted") return this.#sendSnapshot(to, peer, nowMs);
      const lastIndex = prevIndex + entries.length;
      const bytes = totalBytes(entries);
      const { commit } = log;
      outbox.send({ type: "append", from: id, to, term, prevIndex, prevTerm, entries, commit, sentAtMs: nowMs });
      peer.sentCommit = Math.max(peer.sentCommit, Math.min(commit, lastIndex));
      peer.sent(lastIndex, bytes);
    }
    const commit = Math.min(log.commit, peer.match);
    if (peer.state !== "replicate" || commit <= peer.sentCommit) return;
    peer.sentCommit = commit;
    outbox.send({ type: "commit", from: id, to, term, commit });
  }

  #sliceFrom(first: number, maxBytes: number): readonly Entry[] | "compacted" | "loading" {
    if (this.#slice?.first === first) return this.#slice.entries;
    const entries = this.#options.log.slice(first, maxBytes);
    if (typeof entries !== "string") this.#slice = { first, entries };
    return entries;
  }

  #sendSnapshot(to: NodeId, peer: Progress, nowMs: number): void {
    const { id, term, log, outbox, config } = this.#options;
    // A dead member gets none: the transfer is dear, and would have to fail first before the next is tried.
    if (this.#uptimeMs - peer.activeAtMs >= config.electionTimeoutMs) return;
    const snapshot = this.#options.storage.snapshot;
    if (snapshot === undefined || snapshot.index < log.firstIndex - 1) {
      this.#snapshotWanted = true;
      return;
    }
    peer.snapshotStarted(snapshot.index, this.#uptimeMs);
    outbox.send({ type: "snapshot", from: id, to, term, snapshot, sentAtMs: nowMs });
  }
}

function totalBytes(entries: readonly Entry[]): number {
  let bytes = 0;
  for (const entry of entries) bytes += entryBytes(entry);
  return bytes;
}
