/** What one worker knows of the claims on a file version that it loads; pure. May be behind its coordinator at any time. */

import { claimRoute, type RingPlan } from "./claim-route.ts";
import type { ClaimNews } from "./claim-table.ts";
import type { WorkerId } from "./ids.ts";

export class ClaimView {
  readonly self: WorkerId;
  readonly #claimants = new Map<number, WorkerId>();
  /** Claimed blocks in the order of their claims, as far as known: the order in which to bring them in. */
  readonly #order: number[] = [];
  #plan: RingPlan = { ring: [], rings: 1 };
  #claimsVersion = 0;
  #table: string | undefined;

  constructor(self: WorkerId) {
    this.self = self;
  }

  /** Claims known of `table`, to be told the later ones. */
  sinceOf(table: string): number {
    return this.#table === table ? this.#claimsVersion : 0;
  }

  get table(): string | undefined {
    return this.#table;
  }

  get claimsVersion(): number {
    return this.#claimsVersion;
  }

  /** Another object whenever it has changed. */
  get plan(): RingPlan {
    return this.#plan;
  }

  /** Blocks that somebody has claimed or holds, the oldest claims first. */
  get claimed(): readonly number[] {
    return this.#order;
  }

  claimant(block: number): WorkerId | undefined {
    return this.#claimants.get(block);
  }

  /** `table`: which one the news are of; those of another one than before take the place of all that was known. */
  learn(table: string, news: ClaimNews): void {
    if (this.#table !== table) {
      this.#table = table;
      this.#claimsVersion = 0;
      this.#claimants.clear();
    }
    // Answers may overtake each other.
    if (news.claimsVersion < this.#claimsVersion) return;
    this.#claimsVersion = news.claimsVersion;
    if (!isSame(news.plan, this.#plan)) this.#plan = news.plan;
    for (const [first, count, claimant] of news.claims) {
      for (let block = first; block < first + count; block++) this.#set(block, claimant);
    }
  }

  /** What a neighbour said who asked for the block: it may know more than we do. */
  hear(block: number, claimant: WorkerId): void {
    if (!this.#claimants.has(block) && claimant !== this.self) this.#set(block, claimant);
  }

  /** Whom to ask for a claimed block, in this order; empty: the origin, the claim is ours. Undefined: nobody has claimed it, as far as we know. */
  route(block: number): readonly WorkerId[] | undefined {
    const claimant = this.#claimants.get(block);
    return claimant === undefined ? undefined : claimRoute(this.#plan, this.self, claimant, block);
  }

  #set(block: number, claimant: WorkerId): void {
    if (!this.#claimants.has(block) && !this.#ordered.has(block)) {
      this.#ordered.add(block);
      this.#order.push(block);
    }
    this.#claimants.set(block, claimant);
  }

  readonly #ordered = new Set<number>();
}

function isSame(a: RingPlan, b: RingPlan): boolean {
  return a.rings === b.rings && a.ring.length === b.ring.length && a.ring.every((worker, i) => worker === b.ring[i]);
}
