/**
 * One member's part in the consensus: the Raft protocol as a synchronous state machine (docs/raft.md). Messages, ticks
 * and acknowledgements of finished work go in; `ready` says what to send, write, apply and answer. It reads no clock,
 * does no input or output, and two members that are told the same do the same.
 *
 * Promises: at most one leader per term; what is committed is never lost or changed while a majority keeps its disks;
 * a read index is never older than what was committed before the read; what was refused never happens. Leaves out: how
 * bytes travel and where they are kept, who may join with which disk, and what entries mean.
 */

import { assert, unreachable } from "../base/assert.ts";
import { describeMessage, describeStatus } from "./describe.ts";
import { Election } from "./election.ts";
import { Following } from "./following.ts";
import { Leadership } from "./leadership.ts";
import { RaftLog } from "./log.ts";
import { isJoint, isVoter, Membership, type MembershipChange } from "./membership.ts";
import { Outbox } from "./outbox.ts";
import { Reads } from "./reads.ts";
import {
  type ChangeOutcome,
  type Configuration,
  checkPosition,
  checkRaftConfig,
  type LoggedConfiguration,
  type LogStorage,
  type Message,
  type NodeId,
  type Proposal,
  type RaftConfig,
  type RaftLimits,
  type RaftOptions,
  type RaftStatus,
  type Ready,
  type Role,
  type RoleChange,
  type TransferOutcome,
  type UnknownRange,
} from "./types.ts";

export class Raft {
  readonly id: NodeId;
  readonly #config: RaftConfig;
  readonly #limits: RaftLimits;
  readonly #storage: LogStorage;
  readonly #log: RaftLog;
  readonly #membership: Membership;
  readonly #election: Election;
  readonly #outbox: Outbox;
  readonly #following: Following;
  readonly #reads: Reads;
  /** Exactly while this member leads. */
  #leadership: Leadership | undefined;
  /** The latest time that any call told. */
  #nowMs: number;
  #lastTickMs: number;
  #wasLate = false;
  /** Sum of all ticks: stands still while the process does. */
  #uptimeMs = 0;
  #unknown: UnknownRange | undefined;
  #shownRole: RoleChange;

  constructor(options: RaftOptions) {
    checkRaftConfig(options.config);
    checkPosition(options.hardState.term, "term");
    this.id = options.id;
    this.#config = options.config;
    this.#limits = options.limits;
    this.#storage = options.storage;
    this.#log = new RaftLog(options.storage, options.appliedIndex);
    this.#membership = new Membership(options.configurations);
    const { id, hardState, random, restartedAtMs, admitted = true } = options;
    const parts = { id, log: this.#log, membership: this.#membership };
    this.#outbox = new Outbox({ id, log: this.#log, hardState });
    this.#following = new Following({ ...parts, outbox: this.#outbox });
    this.#reads = new Reads({ id, outbox: this.#outbox, random });
    const { electionTimeoutMs } = options.config;
    const waits = { electionTimeoutMs, random, restartedAtMs, admitted };
    this.#election = new Election({ ...parts, ...waits, outbox: this.#outbox, hardState });
    this.#nowMs = restartedAtMs;
    this.#lastTickMs = restartedAtMs;
    this.#shownRole = { role: "follower", term: this.term, leader: undefined };
    const { lastTerm, lastIndex } = this.#log;
    assert(lastTerm <= this.term, `the log ends in term ${lastTerm}, but the term is ${this.term}`);
    assert(this.#membership.index <= lastIndex, "configurations come from the log");
  }

  // What goes in.

  /** Takes one message, which came in before `nowMs` was read. Throws an assertion if it is impossible. */
  step(message: Message, nowMs: number): void {
    this.#observe(nowMs);
    assert(message.to === this.id, () => `${this.id} was given ${describeMessage(message)}`);
    if (!this.#admit(message)) return;
    this.#handle(message);
  }

  /** Called every `tickMs`, after the messages that are there have been given. */
  tick(nowMs: number): void {
    const gapMs = Math.max(0, nowMs - this.#lastTickMs);
    const elapsedMs = Math.min(gapMs, this.#config.tickMs);
    this.#observe(nowMs);
    this.#lastTickMs = this.#nowMs;
    this.#uptimeMs += elapsedMs;
    // The first tick after a pause draws no conclusions: what others said meanwhile may still be on its way in.
    const isLate = gapMs > this.#config.heartbeatMs;
    const judge = !isLate || this.#wasLate;
    this.#wasLate = isLate;
    this.#reads.expire(this.#uptimeMs, this.#config.electionTimeoutMs);
    if (this.#leadership !== undefined) this.#tickLeader(this.#leadership, elapsedMs, judge);
    else this.#tickFollower(elapsedMs, judge);
  }

  /** Appends commands to the leader's log, in order, without gaps. The payloads must not change any more. */
  propose(payloads: readonly Uint8Array[], nowMs: number): Proposal {
    this.#observe(nowMs);
    assert(payloads.length > 0 && payloads.every(({ length }) => length > 0), "a proposal is not empty");
    return this.#leadership?.propose(payloads) ?? { accepted: false, reason: "not-leader", leader: this.leader };
  }

  /** Changes who takes part. Takes effect with the entry that is appended; done when that is applied and no longer joint. */
  changeMembership(changes: readonly MembershipChange[], nowMs: number): ChangeOutcome {
    this.#observe(nowMs);
    return this.#leadership?.change(changes) ?? this.#notLeading();
  }

  /** Hands leadership to `target`, which must vote. Proposals are refused until it leads or one election timeout is over. */
  transfer(target: NodeId, nowMs: number): TransferOutcome {
    this.#observe(nowMs);
    return this.#leadership?.transfer(target) ?? this.#notLeading();
  }

  /** Asks for a read index; `ready` grants or refuses it under `context`. The read came in before `nowMs` was read. */
  readIndex(context: number, nowMs: number): void {
    this.#observe(nowMs);
    if (this.#reads.pendingCount >= this.#limits.pendingReads) return this.#reads.refuse(context, "overloaded");
    if (this.#leadership !== undefined) return this.#read(this.#leadership, this.id, context);
    if (this.leader === undefined) return this.#reads.refuse(context, "not-leader");
    this.#reads.forward(context, this.leader, this.term, this.#uptimeMs);
  }

  /** What `readIndex` would grant at once, without the detour; `undefined` if it would not. */
  leaseIndex(nowMs: number): number | undefined {
    this.#observe(nowMs);
    return this.#leadership?.mayRead(this.#nowMs) === true ? this.#log.commit : undefined;
  }

  /** The write `token`, and all before it, are durable, and the storage shows them. */
  appended(token: number, nowMs: number): void {
    this.#observe(nowMs);
    this.#outbox.ended(token);
    this.#release();
    if (this.#leadership !== undefined) this.#advance(this.#leadership);
  }

  /** The entries handed out up to `index` are in the state. */
  applied(index: number): void {
    this.#log.appliedTo(index);
    this.#membership.forgetBefore(this.#log.firstIndex - 1);
  }

  /** State and log are those of the snapshot that `ready` gave to install; durably. */
  snapshotInstalled(index: number, nowMs: number): void {
    this.#observe(nowMs);
    assert(this.role !== "leader", "a leader has all that is committed");
    this.#following.installed(index);
  }

  /** The snapshot could not be installed; everything is as before. */
  snapshotDiscarded(index: number): void {
    this.#following.discarded(index);
  }

  /** Part of the snapshot for `peer` has arrived there. */
  snapshotProgressed(peer: NodeId): void {
    this.#leadership?.peers.get(peer)?.snapshotProgressed(this.#uptimeMs);
  }

  /** All of it has. */
  snapshotSent(peer: NodeId): void {
    this.#leadership?.peers.get(peer)?.snapshotSent(this.#uptimeMs);
  }

  snapshotFailed(peer: NodeId): void {
    this.#leadership?.peers.get(peer)?.snapshotFailed();
  }

  /** The connection to `peer` broke: what was sent may be lost. */
  unreachable(peer: NodeId): void {
    this.#leadership?.peers.get(peer)?.unreachable();
    if (peer === this.#election.leader) this.#election.lostLeader();
  }

  /** Campaigns now instead of when it gets impatient, unless a leader counts on this member. */
  campaign(nowMs: number): void {
    this.#observe(nowMs);
    if (this.#mayCampaign && !this.#election.isPromised(this.#nowMs)) this.#campaign("pre");
  }

  /** The journal knows now that this disk has not forgotten any promise: it may vote and stand. */
  admit(): void {
    this.#election.admit();
  }

  /** Whether this member may stand for election; it votes and follows all the same. A leader goes on. */
  set mayStand(mayStand: boolean) {
    this.#election.mayStand = mayStand;
  }

  // What comes out.

  /** Takes what is to be done. Called after every input, or after a few. */
  ready(): Ready {
    const leadership = this.#leadership;
    if (leadership !== undefined) {
      if (this.#reads.needsRound) {
        this.#reads.beginRound(leadership.beginRound(this.#nowMs));
        this.#reads.confirm(leadership.confirmedRound, this.term);
      }
      leadership.replicate(this.#nowMs);
    }
    const append = this.#outbox.takeWork(this.#election.hardState, this.#uptimeMs);
    this.#release();
    const unknown = this.#unknown;
    this.#unknown = undefined;
    return {
      append,
      install: this.#following.takeInstall(),
      committed: this.#following.isInstalling ? [] : this.#log.takeCommitted(this.#limits.applyBytes),
      ...this.#reads.take(),
      roleChange: this.#takeRoleChange(),
      unknown,
      snapshotWanted: leadership?.takeSnapshotWanted() ?? false,
      messages: this.#outbox.takeMessages(),
    };
  }

  get role(): Role {
    return this.#election.role;
  }

  get term(): number {
    return this.#election.term;
  }

  get leader(): NodeId | undefined {
    return this.#election.leader;
  }

  /** All up to here is held by a quorum. A leader's is right once it has committed in its term. */
  get commitIndex(): number {
    return this.#log.commit;
  }

  get lastIndex(): number {
    return this.#log.lastIndex;
  }

  /** Whether something of the leader's own term is committed: from then on it knows all that is. */
  get hasCommitted(): boolean {
    return this.#leadership?.hasCommitted ?? false;
  }

  /** In force now, committed or not, and the entry that brought it. */
  get configuration(): LoggedConfiguration {
    return { index: this.#membership.index, configuration: this.#membership.current };
  }

  /** In force at an entry that is still in the log, or at the snapshot before it. */
  configurationAt(index: number): Configuration | undefined {
    return this.#membership.at(index);
  }

  get status(): RaftStatus {
    return {
      id: this.id,
      role: this.role,
      term: this.term,
      leader: this.leader,
      hasCommitted: this.#leadership?.hasCommitted ?? false,
      commitIndex: this.#log.commit,
      appliedIndex: this.#log.applied,
      stableIndex: this.#log.stableIndex,
      lastIndex: this.#log.lastIndex,
      lastTerm: this.#log.lastTerm,
      configuration: this.#membership.current,
      configurationIndex: this.#membership.index,
      peers: this.#leadership?.peerStatus ?? [],
    };
  }

  /** Of an entry in the log, durable or not. */
  termAt(index: number): number | undefined {
    return this.#log.term(index);
  }

  describe(): string {
    return describeStatus(this.status);
  }

  // Terms, and who speaks for them.

  #observe(nowMs: number): void {
    this.#nowMs = Math.max(this.#nowMs, nowMs);
  }

  /** Applies the rules of terms. Whether the message is to be handled. */
  #admit(message: Message): boolean {
    const { type, from, term } = message;
    if (term < this.term) {
      this.#answerPast(message);
      return false;
    }
    const asksForVote = type === "vote" || type === "pre-vote";
    // The leader may be reading under a lease that counts on this. It gave the lease up before it asked for a transfer.
    const isTransfer = type === "vote" && message.transfer;
    if (asksForVote && !isTransfer && this.#election.isPromised(this.#nowMs)) return false;
    // These speak of a term that is only wished for.
    if (type === "pre-vote" || (type === "pre-vote-reply" && message.granted)) return true;
    if (term > this.term) this.#follow(term, undefined);
    if (type === "append" || type === "heartbeat" || type === "commit" || type === "snapshot") {
      this.#hear(from, message);
    }
    return true;
  }

  /** Lets a member that is behind, or a leader of the past, know the term. */
  #answerPast({ type, from }: Message): void {
    if (type === "pre-vote" || type === "vote") {
      this.#outbox.send({ type: `${type}-reply`, ...this.#envelope(from), granted: false });
    } else if (type === "append" || type === "heartbeat" || type === "snapshot") {
      this.#outbox.send({ type: "stale-term", ...this.#envelope(from) });
    }
  }

  /** A message that only the leader of this term sends. */
  #hear(from: NodeId, message: Message): void {
    assert(this.role !== "leader", () => `${this.id} leads, but there is ${describeMessage(message)}`);
    if (this.role !== "follower" || this.leader !== from) this.#follow(this.term, from);
    this.#election.heardLeader(this.#nowMs);
  }

  #follow(term: number, leader: NodeId | undefined): void {
    if (this.#leadership !== undefined) {
      const { commit, lastIndex } = this.#log;
      if (lastIndex > commit) this.#unknown = { term: this.term, firstIndex: commit + 1, lastIndex };
      this.#leadership = undefined;
    }
    // Nobody answers what was asked of the leader of before.
    if (leader !== this.leader) this.#reads.refuseAll();
    this.#election.follow(term, leader);
  }

  // Elections.

  #tickFollower(elapsedMs: number, judge: boolean): void {
    this.#election.elapse(elapsedMs);
    if (judge && this.#election.isDue && this.#mayCampaign) this.#campaign("pre");
  }

  get #mayCampaign(): boolean {
    return this.#election.isEligible && !this.#following.isInstalling && !this.#isDiskHung;
  }

  get #isDiskHung(): boolean {
    return this.#outbox.isHung(this.#uptimeMs, this.#config.electionTimeoutMs);
  }

  #campaign(kind: "pre" | "transfer"): void {
    this.#reads.refuseAll();
    this.#election.campaign(kind);
  }

  // Leading.

  #lead(): void {
    this.#election.lead();
    this.#leadership = new Leadership({
      id: this.id,
      term: this.term,
      log: this.#log,
      membership: this.#membership,
      outbox: this.#outbox,
      storage: this.#storage,
      config: this.#config,
      limits: this.#limits,
      uptimeMs: this.#uptimeMs,
    });
  }

  #tickLeader(leadership: Leadership, elapsedMs: number, judge: boolean): void {
    const lostQuorum = leadership.tick(elapsedMs, this.#uptimeMs, this.#nowMs, judge);
    if (judge && this.#isDiskHung) this.#abdicate(leadership);
    else if (lostQuorum) this.#follow(this.term, undefined);
  }

  /** Steps down, and asks the member that has most to take over at once. */
  #abdicate(leadership: Leadership): void {
    const { successor } = leadership;
    this.#follow(this.term, undefined);
    if (successor !== undefined) this.#outbox.send({ type: "timeout-now", ...this.#envelope(successor) });
  }

  /** Something was acknowledged: commits what that decides, and does what waited for it. */
  #advance(leadership: Leadership): void {
    const hadCommitted = leadership.hasCommitted;
    if (leadership.advanceCommit()) {
      if (!hadCommitted) this.#reads.firstCommit(this.#log.commit);
      const { current } = this.#membership;
      if (leadership.isChangeDone && isJoint(current)) {
        leadership.leaveJoint();
        // The majority that decides is another one now.
        return this.#advance(leadership);
      }
      if (leadership.isChangeDone && !isVoter(current, this.id)) return this.#abdicate(leadership);
    }
    leadership.pursueTransfer();
  }

  #read(leadership: Leadership, from: NodeId, context: number): void {
    if (!leadership.hasCommitted) this.#reads.wait({ from, context });
    else if (!leadership.mayRead(this.#nowMs)) this.#reads.ask({ from, context }, this.#log.commit);
    else this.#reads.reply({ from, context }, this.term, this.#log.commit, "lease");
  }

  // Dispatch.

  #handle(message: Message): void {
    const leadership = this.#leadership;
    switch (message.type) {
      case "pre-vote":
      case "vote":
        return this.#election.onVoteRequest(message);
      case "pre-vote-reply":
      case "vote-reply":
        if (this.#election.onVoteReply(message)) this.#lead();
        return;
      case "append":
        return this.#following.onAppend(message);
      case "snapshot":
        return this.#following.onSnapshot(message);
      case "heartbeat":
        this.#log.commitTo(message.commit);
        return this.#outbox.send({
          type: "heartbeat-ok",
          ...this.#envelope(message.from),
          round: message.round,
          sentAtMs: message.sentAtMs,
        });
      case "commit":
        return this.#log.commitTo(message.commit);
      case "append-ok":
        if (leadership === undefined) return;
        leadership.onAppendOk(message);
        return this.#advance(leadership);
      case "append-reject":
        return leadership?.onAppendReject(message);
      case "heartbeat-ok":
        if (leadership === undefined) return;
        leadership.onHeartbeatOk(message);
        return this.#reads.confirm(leadership.confirmedRound, this.term);
      case "timeout-now":
        if (message.from === this.leader && this.role === "follower" && this.#mayCampaign) this.#campaign("transfer");
        return;
      case "read":
        if (leadership !== undefined && this.#reads.pendingCount < this.#limits.pendingReads) {
          return this.#read(leadership, message.from, message.request);
        }
        return this.#reads.reply({ from: message.from, context: message.request }, this.term, 0, "quorum");
      case "read-reply":
        return this.#reads.answer(message.request, message.index);
      case "stale-term":
        return;
      default:
        return unreachable(message);
    }
  }

  #envelope(to: NodeId): { readonly from: NodeId; readonly to: NodeId; readonly term: number } {
    return { from: this.id, to, term: this.term };
  }

  #release(): void {
    for (const message of this.#outbox.release(this.term)) this.#handle(message);
  }

  #notLeading(): { readonly accepted: false; readonly reason: "not-leader"; readonly message: string } {
    const message = `${this.id} does not lead: ask ${this.leader ?? "again when there is a leader"}`;
    return { accepted: false, reason: "not-leader", message };
  }

  #takeRoleChange(): RoleChange | undefined {
    const { role, term, leader } = this;
    const shown = this.#shownRole;
    if (shown.role === role && shown.term === term && shown.leader === leader) return undefined;
    this.#shownRole = { role, term, leader };
    return this.#shownRole;
  }
}
