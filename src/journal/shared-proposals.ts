/**
 * Proposals between `propose` and their answer: those that wait for a slot, then those in slots, in order. Each is answered exactly once:
 * with its result when it is applied, refused when it was never sent, or unknown.
 */

import { assert } from "../base/assert.ts";
import type { HeadpondError } from "../base/errors.ts";
import type { Entry, Proposed } from "./journal.ts";

export type Pending<Result> = {
  readonly payload: Uint8Array;
  readonly resolve: (proposed: Proposed<Result>) => void;
  readonly reject: (error: HeadpondError) => void;
};

export class SharedProposals<Result> {
  #queue: Pending<Result>[] = [];
  #queuedBytes = 0;
  /** In slots, not answered: a ring would do, a list with a beginning is as quick. */
  #sent: { readonly firstIndex: number; readonly pending: readonly Pending<Result>[]; answered: number }[] = [];
  #count = 0;
  #bytes = 0;

  /** Not answered yet. */
  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Waiting for a slot. */
  get queued(): number {
    return this.#queue.length;
  }

  add(payload: Uint8Array): Promise<Proposed<Result>> {
    this.#count++;
    this.#bytes += payload.length;
    this.#queuedBytes += payload.length;
    return new Promise((resolve, reject) => this.#queue.push({ payload, resolve, reject }));
  }

  /** The next slot's, at indexes from `firstIndex` on; at least one, if any waits. */
  take(firstIndex: number, entriesMax: number, bytesMax: number): readonly Pending<Result>[] {
    const all = this.#queue;
    let count = all.length;
    let bytes = this.#queuedBytes;
    if (count > entriesMax || bytes > bytesMax) {
      bytes = 0;
      for (count = 0; count < Math.min(all.length, entriesMax); count++) {
        const { length } = (all[count] as Pending<Result>).payload;
        if (count > 0 && bytes + length > bytesMax) break;
        bytes += length;
      }
    }
    this.#queue = count === all.length ? [] : all.slice(count);
    this.#queuedBytes -= bytes;
    const pending = count === all.length ? all : all.slice(0, count);
    this.#sent.push({ firstIndex, pending, answered: 0 });
    return pending;
  }

  /** Answers those among these entries. */
  applied(entries: readonly Entry[], results: readonly Result[]): void {
    let at = 0;
    for (;;) {
      const batch = this.#sent[0];
      if (batch === undefined) return;
      for (; batch.answered < batch.pending.length; at++) {
        const entry = entries[at];
        if (entry === undefined) return;
        const { index } = entry;
        const expected = batch.firstIndex + batch.answered;
        if (index < expected) continue;
        assert(index === expected, () => `the proposal at ${expected} was lost without a word: ${index} is applied`);
        const one = batch.pending[batch.answered++] as Pending<Result>;
        this.#left(one);
        one.resolve({ index, result: results[at] as Result });
      }
      this.#sent.shift();
    }
  }

  /** What was sent last, from `firstIndex` on, was never written. */
  unsent(firstIndex: number, error: HeadpondError): void {
    const batches = this.#sent.filter((batch) => batch.firstIndex >= firstIndex);
    this.#sent = this.#sent.filter((batch) => batch.firstIndex < firstIndex);
    for (const { pending } of batches) this.#reject(pending, error);
  }

  refuseQueued(error: HeadpondError): void {
    const queue = this.#queue;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#reject(queue, error);
  }

  /** Nobody knows any more by this master what becomes of what was sent. */
  endSent(error: HeadpondError): void {
    const batches = this.#sent;
    this.#sent = [];
    for (const { pending, answered } of batches) this.#reject(pending.slice(answered), error);
  }

  #reject(pending: readonly Pending<Result>[], error: HeadpondError): void {
    for (const one of pending) {
      this.#left(one);
      one.reject(error);
    }
  }

  #left({ payload }: Pending<Result>): void {
    this.#count--;
    this.#bytes -= payload.length;
  }
}
