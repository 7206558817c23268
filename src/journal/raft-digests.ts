/**
 * Compares the states of the masters: each tells the digest of its state at every so many entries, and equal logs must
 * give equal states. A master finds out by itself that it is the one that differs: when most voters agree on another
 * digest, or, where there is no such majority, when it is a standby and its leader has another.
 *
 * It tells once, and decides nothing beyond that.
 */

import type { Clock } from "../io/clock.ts";
import type { Configuration, NodeId } from "../raft/types.ts";

/** Of each master, the newest that are kept. */
const keptDigests = 8;

export type RaftDigestsOptions = {
  readonly id: NodeId;
  readonly clock: Clock;
  /** So long a difference waits for the word of those that have not reached that entry. */
  readonly waitMs: number;
  readonly configuration: () => Configuration;
  readonly leader: () => NodeId | undefined;
  readonly onDiverged: (details: string) => void;
};

export class RaftDigests {
  readonly #options: RaftDigestsOptions;
  /** By master, then by index, oldest first. */
  readonly #digests = new Map<NodeId, Map<number, string>>();
  /** When a difference was seen first, by index. */
  readonly #sinceMs = new Map<number, number>();
  #newest: { readonly digestIndex: number; readonly digest: string } = { digestIndex: 0, digest: "" };
  #isTold = false;

  constructor(options: RaftDigestsOptions) {
    this.#options = options;
  }

  /** Of the own state, for the others. */
  get newest(): { readonly digestIndex: number; readonly digest: string } {
    return this.#newest;
  }

  own(digestIndex: number, digest: string): void {
    this.#newest = { digestIndex, digest };
    this.#note(this.#options.id, digestIndex, digest);
  }

  reported(id: NodeId, digestIndex: number, digest: string): void {
    if (digestIndex > 0) this.#note(id, digestIndex, digest);
  }

  /** The state was replaced: what was said of the one before means nothing. */
  reset(): void {
    this.#digests.delete(this.#options.id);
    this.#sinceMs.clear();
    this.#newest = { digestIndex: 0, digest: "" };
  }

  /** Looks at the differences that are there; called whenever something was noted, and now and then. */
  judge(): void {
    const { id, clock, waitMs, leader } = this.#options;
    if (this.#isTold || this.#sinceMs.size === 0) return;
    const own = this.#digests.get(id);
    for (const [index, sinceMs] of this.#sinceMs) {
      const mine = own?.get(index);
      if (mine === undefined) {
        this.#sinceMs.delete(index);
        continue;
      }
      const { voters } = this.#options.configuration();
      const told = voters.flatMap((voter) => this.#digests.get(voter)?.get(index) ?? []);
      const against = majorityOf(told, voters.length);
      if (against === mine) {
        this.#sinceMs.delete(index);
        continue;
      }
      const head = leader();
      const leaders = head === undefined || head === id ? undefined : this.#digests.get(head)?.get(index);
      const isDecided = told.length === voters.length || clock.monotonicMs() - sinceMs >= waitMs;
      const better = against ?? (isDecided && leaders !== mine ? leaders : undefined);
      if (better === undefined) continue;
      this.#isTold = true;
      const who = against === undefined ? `the leader ${head}` : "most masters";
      this.#options.onDiverged(
        `the state of ${id} differs from the others': its digest at entry ${index} is ${mine}, ${who} say ${better}`,
      );
      return;
    }
  }

  #note(id: NodeId, index: number, digest: string): void {
    let digests = this.#digests.get(id);
    if (digests === undefined) this.#digests.set(id, (digests = new Map()));
    digests.set(index, digest);
    for (const oldest of digests.keys()) {
      if (digests.size <= keptDigests) break;
      digests.delete(oldest);
    }
    const mine = this.#digests.get(this.#options.id)?.get(index);
    if (mine === undefined || this.#sinceMs.has(index)) return;
    const differs = [...this.#digests.values()].some((other) => (other.get(index) ?? mine) !== mine);
    if (differs) this.#sinceMs.set(index, this.#options.clock.monotonicMs());
  }
}

/** What more than half of `count` say. */
function majorityOf(digests: readonly string[], count: number): string | undefined {
  return digests.find((digest) => digests.filter((other) => other === digest).length * 2 > count);
}
