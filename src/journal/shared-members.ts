/** The masters of a shared journal, as the election knows them: they come and go by themselves. */

import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Candidate, Election } from "./election.ts";
import type { JournalMember, JournalStatus, MemberChange } from "./journal.ts";

export type SharedMembersOptions = {
  readonly id: string;
  readonly election: Election;
  readonly clock: Clock;
  /** A successor takes at most so long to lead. */
  readonly timeoutMs: number;
  readonly isLeading: () => boolean;
  readonly own: () => { readonly appliedIndex: number; readonly digestIndex?: number; readonly digest?: string };
};

export class SharedMembers {
  readonly #options: SharedMembersOptions;
  readonly #listeners: (() => void)[] = [];
  #waiting: (() => void)[] = [];

  constructor(options: SharedMembersOptions) {
    this.#options = options;
  }

  get candidates(): readonly Candidate[] {
    return this.#options.election.view.candidates;
  }

  get election(): NonNullable<JournalStatus["election"]> {
    const { connected, candidates, problem } = this.#options.election.view;
    return { connected, candidates: candidates.length, ...(problem === undefined ? {} : { problem }) };
  }

  /** `host:port` of the RPC of who leads. */
  get leaderAddress(): string | undefined {
    const { leaderId } = this;
    const rpc = this.candidates.find(({ id }) => id === leaderId)?.rpc;
    return rpc === "" ? undefined : rpc;
  }

  /** As far as known. */
  get leaderId(): string | undefined {
    const { id, election, isLeading } = this.#options;
    if (isLeading()) return id;
    const { leaderId } = election.view;
    // It should lead itself, and does not yet.
    return leaderId === id ? undefined : leaderId;
  }

  members(): readonly JournalMember[] {
    const { id: ownId, own, election } = this.#options;
    const { leaderId } = this;
    const { connected, candidates, absent = [] } = election.view;
    const describe = ({ id, rpc, http, featureLevel }: Candidate, isThere: boolean): JournalMember => {
      const self = id === ownId ? own() : undefined;
      return {
        id,
        address: "",
        rpc: rpc === "" ? undefined : rpc,
        http: http === "" ? undefined : http,
        voter: true,
        leader: id === leaderId,
        appliedIndex: self?.appliedIndex,
        digestIndex: self?.digestIndex,
        digest: self?.digest,
        featureLevel,
        reachable: id === ownId || (connected && isThere),
      };
    };
    return [
      ...candidates.map((candidate) => describe(candidate, true)),
      ...absent.map((candidate) => describe(candidate, false)),
    ];
  }

  /** How many masters make the next checkpoint rather than this one: standbys in the order of their candidacy, then who leads. */
  get checkpointRank(): number {
    const { leaderId } = this;
    const order = this.candidates.map(({ id }) => id).filter((id) => id !== leaderId);
    const at = order.indexOf(this.#options.id);
    return at < 0 ? order.length : at;
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
    for (const wake of this.#waiting.splice(0)) wake();
  }

  notLeader(): HeadpondError {
    const leader = this.leaderAddress;
    const where = leader === undefined ? "no master leads at the moment: ask again" : `ask ${leader}`;
    return new HeadpondError(
      "not-leader",
      `this master does not lead: ${where}`,
      leader === undefined ? {} : { details: { leader } },
    );
  }

  /** Only one that is absent can be taken out. */
  async change(change: MemberChange): Promise<void> {
    const { election } = this.#options;
    if (change.kind === "remove" && election.forget !== undefined) return election.forget(change.id);
    throw new HeadpondError(
      "unsupported",
      "masters of a shared journal come and go by themselves: start one with this store and cluster id, or stop one",
    );
  }

  /** Throws `not-found` for one that does not take part, `unavailable` if there is nobody else. */
  checkSuccessor(wanted: string | undefined): void {
    if (!this.#options.election.view.connected) {
      throw new HeadpondError("unavailable", "ZooKeeper does not answer: no other master could take over now", {
        retryable: false,
      });
    }
    const others = this.candidates.filter(({ id }) => id !== this.#options.id).map(({ id }) => id);
    if (others.length === 0) throw new HeadpondError("unavailable", "there is no other master to lead: start one");
    if (wanted === undefined || others.includes(wanted)) return;
    throw new HeadpondError("not-found", `${wanted} is no master of this cluster; the others are ${others.join(", ")}`);
  }

  /** Resolves when another master says that it leads. Throws `timeout`, `cancelled`. */
  async otherLeads(signal: AbortSignal | undefined): Promise<void> {
    const { clock, timeoutMs } = this.#options;
    const endMs = clock.monotonicMs() + timeoutMs;
    while (this.leaderId === undefined || this.leaderId === this.#options.id) {
      signal?.throwIfAborted();
      const leftMs = endMs - clock.monotonicMs();
      if (leftMs <= 0) {
        throw new HeadpondError(
          "timeout",
          `leadership is given up, and no other master has taken it within ${timeoutMs} ms`,
        );
      }
      await new Promise<void>((resolve) => {
        const timer = clock.timer(Math.min(leftMs, pollMs), resolve);
        this.#waiting.push(() => {
          timer.clear();
          resolve();
        });
      });
    }
  }
}

/** The signal is looked at so often. */
const pollMs = 50;
