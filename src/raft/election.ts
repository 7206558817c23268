/**
 * Who leads, and who may be elected when: term and vote, the election timer, the campaign under way, and the promise that
 * makes leases safe. A member that heard from a leader, or restarted and so forgot whether it had, helps nobody into
 * power for one election timeout. The timer counts ticks, so a pause does not run it out; the promise goes by the clock,
 * as the leader's lease does.
 */

import { assert } from "../base/assert.ts";
import type { Random } from "../base/random.ts";
import type { RaftLog } from "./log.ts";
import { type Membership, membersOf } from "./membership.ts";
import type { Outbox } from "./outbox.ts";
import { voteResult } from "./quorum.ts";
import type { HardState, Message, NodeId, Role } from "./types.ts";

type Of<Type extends Message["type"]> = Extract<Message, { readonly type: Type }>;

export type ElectionOptions = {
  readonly id: NodeId;
  readonly electionTimeoutMs: number;
  readonly random: Random;
  readonly log: RaftLog;
  readonly membership: Membership;
  readonly outbox: Outbox;
  readonly hardState: HardState;
  readonly restartedAtMs: number;
  readonly admitted: boolean;
};

/** Of the time by which patience exceeds the least wait: what is left of it when the connection to the leader broke. */
const patienceShareWithoutConnection = 0.4;
/** Whoever was granted a pre-vote is given this share of an election timeout to win, before this member tries itself. */
const yieldShare = 0.25;

export class Election {
  readonly #options: ElectionOptions;
  #term: number;
  #vote: NodeId | undefined;
  #role: Role = "follower";
  #leader: NodeId | undefined;
  #heardAtMs = Number.NEGATIVE_INFINITY;
  #silentMs = 0;
  /** Drawn anew for each wait, so that two members rarely campaign together. */
  #patienceMs = 0;
  /** The connection to the leader broke since it was last heard. */
  #isLeaderLost = false;
  /** The first answer of each. */
  readonly #votes = new Map<NodeId, boolean>();
  /** Until then it neither votes nor stands: its disk may have forgotten what it once promised. */
  #admitted: boolean;
  /** Whoever cannot answer for its state votes, and does not stand. */
  mayStand = true;

  constructor(options: ElectionOptions) {
    this.#options = options;
    this.#term = options.hardState.term;
    this.#vote = options.hardState.vote;
    this.#admitted = options.admitted;
    this.#wait();
  }

  get term(): number {
    return this.#term;
  }

  get role(): Role {
    return this.#role;
  }

  get leader(): NodeId | undefined {
    return this.#leader;
  }

  get hardState(): HardState {
    return { term: this.#term, vote: this.#vote };
  }

  /** Adopts a term, and its leader if that is known. */
  follow(term: number, leader: NodeId | undefined): void {
    assert(term >= this.#term, `term ${term} is over, this is ${this.#term}`);
    if (term > this.#term) this.#vote = undefined;
    this.#term = term;
    this.#role = "follower";
    this.#leader = leader;
    this.#wait();
  }

  lead(): void {
    assert(this.#role === "candidate", "only a candidate can win");
    this.#role = "leader";
    this.#leader = this.#options.id;
  }

  /** The leader of this term was heard. */
  heardLeader(nowMs: number): void {
    this.#silentMs = 0;
    this.#heardAtMs = nowMs;
    this.#isLeaderLost = false;
  }

  /**
   * The connection to the leader broke, as that of a process that died does. A sign, no proof: what others were promised holds,
   * so the wait gets shorter, but not shorter than one election timeout.
   */
  lostLeader(): void {
    this.#isLeaderLost = true;
  }

  /** Whether some leader may count on this member not to vote. */
  isPromised(nowMs: number): boolean {
    const { restartedAtMs, electionTimeoutMs } = this.#options;
    return this.#role === "leader" || nowMs - Math.max(this.#heardAtMs, restartedAtMs) < electionTimeoutMs;
  }

  elapse(elapsedMs: number): void {
    this.#silentMs += elapsedMs;
  }

  /** Whether this member should campaign: nobody was heard for longer than it is patient. */
  get isDue(): boolean {
    const { current, index } = this.#options.membership;
    // Nobody else could lead. A leader that is on its way out counts on this member until its departure is committed.
    const isAlone = membersOf(current).length === 1 && index <= this.#options.log.commit;
    return this.#silentMs >= this.#patience || (isAlone && this.#role === "follower");
  }

  admit(): void {
    this.#admitted = true;
  }

  get isEligible(): boolean {
    const { id, log, membership } = this.#options;
    return this.#admitted && this.mayStand && membership.isVoterSince(log.commit, id);
  }

  /** `pre` asks first whether an election could be won, so that a hopeless one disturbs nobody with a new term. */
  campaign(kind: "pre" | "real" | "transfer"): void {
    const { id, log, membership, outbox } = this.#options;
    this.#leader = undefined;
    this.#role = kind === "pre" ? "pre-candidate" : "candidate";
    this.#votes.clear();
    this.#wait();
    const last = { lastIndex: log.lastIndex, lastTerm: log.lastTerm };
    const others = membersOf({ ...membership.current, learners: [] }).filter((to) => to !== id);
    const term = this.#term + 1;
    if (kind === "pre") {
      for (const to of others) outbox.send({ type: "pre-vote", from: id, to, term, ...last });
      this.#count(id, true);
      return;
    }
    this.#term = term;
    this.#vote = id;
    // A candidacy that a crash would undo could be held again in the same term, with another log.
    for (const to of others) {
      outbox.hold({ type: "vote", from: id, to, term, ...last, transfer: kind === "transfer" });
    }
    outbox.hold({ type: "vote-reply", from: id, to: id, term, granted: true });
  }

  onVoteRequest(message: Of<"vote"> | Of<"pre-vote">): void {
    const { id, log, outbox } = this.#options;
    const { from, term, type } = message;
    const isFree = this.#vote === undefined && this.#leader === undefined;
    const mayVote = this.#vote === from || isFree || (type === "pre-vote" && term > this.#term);
    // Whether this member or the candidate counts as a voter is the candidate's to know: its log may be ahead of this one.
    const granted = this.#admitted && mayVote && log.isUpToDate(message.lastIndex, message.lastTerm);
    const reply = { from: id, to: from, granted };
    if (type === "pre-vote") {
      if (granted) this.#yieldTo(from);
      return outbox.send({ type: "pre-vote-reply", ...reply, term: granted ? term : this.#term });
    }
    if (!granted) return outbox.send({ type: "vote-reply", ...reply, term: this.#term });
    this.#role = "follower";
    this.#vote = from;
    this.#wait();
    outbox.hold({ type: "vote-reply", ...reply, term: this.#term });
  }

  /** Two that try at once take the votes from each other, and both lose a whole wait. */
  #yieldTo(candidate: NodeId): void {
    const { id, electionTimeoutMs } = this.#options;
    if (this.#role === "pre-candidate" && candidate < id) this.follow(this.#term, undefined);
    this.#silentMs = Math.min(this.#silentMs, this.#patience - yieldShare * electionTimeoutMs);
  }

  /** Whether the election is won. */
  onVoteReply({ type, from, term, granted }: Of<"vote-reply"> | Of<"pre-vote-reply">): boolean {
    if (this.#role !== (type === "vote-reply" ? "candidate" : "pre-candidate")) return false;
    if (type === "pre-vote-reply" && granted && term !== this.#term + 1) return false;
    return this.#count(from, granted);
  }

  #count(from: NodeId, granted: boolean): boolean {
    if (!this.#votes.has(from)) this.#votes.set(from, granted);
    const result = voteResult(this.#options.membership.current, this.#votes);
    if (result === "lost") this.follow(this.#term, undefined);
    if (result !== "won") return false;
    if (this.#role === "candidate") return true;
    this.campaign("real");
    return false;
  }

  get #patience(): number {
    const { electionTimeoutMs } = this.#options;
    const share = this.#isLeaderLost ? patienceShareWithoutConnection : 1;
    return electionTimeoutMs + share * (this.#patienceMs - electionTimeoutMs);
  }

  /** Begins a new wait for signs of a leader. */
  #wait(): void {
    this.#silentMs = 0;
    this.#isLeaderLost = false;
    this.#patienceMs = this.#options.electionTimeoutMs * (1 + this.#options.random.float());
  }
}
