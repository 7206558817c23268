/**
 * Proposals between `propose` and their answer: those that wait for the next turn, then those in the log, by index. Each
 * is answered exactly once: with its result when it is applied, refused when it was never appended, or unknown.
 */

import { assert } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import type { Raft } from "../raft/raft.ts";
import type { RefusalReason } from "../raft/types.ts";
import type { Entry, Proposed } from "./journal.ts";

type Pending<Result> = {
  readonly payload: Uint8Array;
  readonly resolve: (proposed: Proposed<Result>) => void;
  readonly reject: (error: HeadpondError) => void;
};

/** Appended together: at indexes without gaps, in one term. */
type Batch<Result> = {
  readonly term: number;
  readonly firstIndex: number;
  readonly pending: readonly Pending<Result>[];
  /** So many at its beginning are answered, and of those from `end` on the fate is told. */
  answered: number;
  end: number;
};

export class RaftProposals<Result> {
  #queue: Pending<Result>[] = [];
  #batches: Batch<Result>[] = [];
  /** Since when this master does not lead and still owes answers. */
  #followsSinceMs: number | undefined;
  #count = 0;
  #bytes = 0;

  /** Not answered yet. */
  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(payload: Uint8Array): Promise<Proposed<Result>> {
    this.#count++;
    this.#bytes += payload.length;
    return new Promise((resolve, reject) => this.#queue.push({ payload, resolve, reject }));
  }

  /** Gives the core what waits, in portions, so that it is refused in portions. */
  offer(core: Raft, nowMs: number, portionBytes: number, errorFor: (reason: RefusalReason) => HeadpondError): void {
    const all = this.#takeQueued();
    for (let from = 0; from < all.length; ) {
      let to = from;
      for (let bytes = 0; to < all.length && (to === from || bytes < portionBytes); to++) {
        bytes += (all[to] as Pending<Result>).payload.length;
      }
      const portion = from === 0 && to === all.length ? all : all.slice(from, to);
      const proposal = core.propose(
        portion.map(({ payload }) => payload),
        nowMs,
      );
      if (!proposal.accepted) return this.#refuse(all.slice(from), errorFor(proposal.reason));
      const { term, firstIndex } = proposal;
      this.#batches.push({ pending: portion, term, firstIndex, answered: 0, end: portion.length });
      from = to;
    }
  }

  /** Answers those among these entries. */
  applied(entries: readonly Entry[], results: readonly Result[]): void {
    let at = 0;
    for (;;) {
      const batch = this.#batches[0];
      if (batch === undefined) return;
      for (; batch.answered < batch.end; at++) {
        const entry = entries[at];
        if (entry === undefined) return;
        const expected = batch.firstIndex + batch.answered;
        if (entry.index < expected) continue;
        assert(
          entry.index === expected && entry.term === batch.term,
          `the proposal ${batch.term}/${expected} was lost without a word: ${entry.term}/${entry.index} is applied`,
        );
        const one = batch.pending[batch.answered++] as Pending<Result>;
        this.#left(one);
        one.resolve({ index: entry.index, result: results[at] as Result });
      }
      this.#batches.shift();
    }
  }

  /**
   * With every tick. What is committed is answered when it is applied, and applied when it is on the own disk, too: for a
   * disk that hangs, those who asked a leader that leads no more do not wait longer than `patienceMs`.
   */
  tick(isLeading: boolean, patienceMs: number, nowMs: number): void {
    if (isLeading || this.#batches.length === 0) this.#followsSinceMs = undefined;
    else if (nowMs - (this.#followsSinceMs ??= nowMs) >= patienceMs) this.lost(0, Number.MAX_SAFE_INTEGER);
  }

  /** Those at these indexes were not decided when leadership was lost, or are not seen to be. */
  lost(firstIndex: number, lastIndex: number): void {
    const message = "leadership was lost before the command was decided: it may be applied or not";
    this.#unknown(firstIndex, lastIndex, new HeadpondError("unknown-outcome", message));
  }

  /** Nothing is answered any more by what happens to the log. */
  endAll(refusal: HeadpondError, unknown: HeadpondError): void {
    this.#refuse(this.#takeQueued(), refusal);
    this.#unknown(0, Number.MAX_SAFE_INTEGER, unknown);
  }

  #takeQueued(): readonly Pending<Result>[] {
    const queue = this.#queue;
    this.#queue = [];
    return queue;
  }

  #refuse(pending: readonly Pending<Result>[], error: HeadpondError): void {
    for (const one of pending) {
      this.#left(one);
      one.reject(error);
    }
  }

  #unknown(firstIndex: number, lastIndex: number, error: HeadpondError): void {
    for (const batch of this.#batches) {
      const from = Math.max(batch.answered, firstIndex - batch.firstIndex);
      const to = Math.min(batch.end, lastIndex + 1 - batch.firstIndex);
      if (from >= to) continue;
      this.#refuse(batch.pending.slice(from, to), error);
      if (from === batch.answered) batch.answered = to;
      else {
        assert(to === batch.end, "what is lost is at the end of the log");
        batch.end = from;
      }
    }
    this.#batches = this.#batches.filter(({ answered, end }) => answered < end);
  }

  #left({ payload }: Pending<Result>): void {
    this.#count--;
    this.#bytes -= payload.length;
  }
}
