/**
 * Applies what is committed, in order, in slices between which others have their turn. A slice also ends where the state's digest is to be
 * compared, so that all masters take it at the same entry.
 */

import { assert } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Entry, StateMachine } from "./journal.ts";

export type SharedApplierOptions<Result> = {
  readonly machine: StateMachine<Result>;
  readonly clock: Clock;
  /** One call of `apply` takes at most so many. */
  readonly sliceEntries: number;
  readonly digestEveryEntries: number;
  /** These are in the state now. */
  readonly onApplied: (entries: readonly Entry[], results: readonly Result[]) => void;
  /** The state at `index`, a multiple of `digestEveryEntries`. */
  readonly onDigest: (index: number, digest: string) => void;
  readonly onFatal: (error: HeadpondError) => void;
};

export class SharedApplier<Result> {
  readonly #options: SharedApplierOptions<Result>;
  #waiting: (readonly Entry[])[] = [];
  #running: Promise<void> | undefined;
  #closed = false;

  constructor(options: SharedApplierOptions<Result>) {
    this.#options = options;
  }

  /** Behind what was given before. If nothing waits, the first slice is applied before this returns. */
  add(entries: readonly Entry[]): void {
    if (this.#closed || entries.length === 0) return;
    this.#waiting.push(entries);
    this.#running ??= this.#run();
  }

  async drained(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  /** Ends after the slice that is being applied. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.drained();
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0 && !this.#closed) {
      // Small slots that came together share a slice.
      const entries = this.#waiting.length === 1 ? (this.#waiting[0] as readonly Entry[]) : this.#waiting.flat();
      const to = this.#sliceEnd(entries);
      this.#waiting = to === entries.length ? [] : [entries.slice(to)];
      if (!this.#applySlice(to === entries.length ? entries : entries.slice(0, to))) this.#closed = true;
      if (this.#waiting.length > 0) await this.#options.clock.nextTurn();
    }
    // Also after a single slice: only then `add` has taken down that this runs.
    await Promise.resolve();
    this.#running = undefined;
    if (this.#waiting.length > 0 && !this.#closed) this.#running = this.#run();
  }

  /** Up to the next multiple at most. */
  #sliceEnd(entries: readonly Entry[]): number {
    const { sliceEntries, digestEveryEntries } = this.#options;
    const first = (entries[0] as Entry).index;
    const untilDigest = digestEveryEntries - ((first - 1) % digestEveryEntries);
    return Math.min(entries.length, sliceEntries, untilDigest);
  }

  /** Whether it went well. */
  #applySlice(entries: readonly Entry[]): boolean {
    const { machine, digestEveryEntries, onApplied, onDigest, onFatal } = this.#options;
    let results: Result[];
    try {
      results = machine.apply(entries);
      assert(
        results.length === entries.length,
        `the state machine gave ${results.length} results for ${entries.length} entries`,
      );
    } catch (cause) {
      const first = entries[0]?.index;
      onFatal(new HeadpondError("internal", `the state machine failed at entries from ${first} on`, { cause }));
      return false;
    }
    onApplied(entries, results);
    const last = (entries.at(-1) as Entry).index;
    if (last % digestEveryEntries === 0) onDigest(last, machine.digest());
    return true;
  }
}
