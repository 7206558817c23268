/**
 * Applies what is committed, in order, in slices between which others have their turn: the log and the network go on
 * while the state follows. A slice also ends where the state's digest is to be compared, so that all masters take it at
 * the same entry.
 */

import { assert } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Entry as LoggedEntry } from "../raft/types.ts";
import type { Entry, StateMachine } from "./journal.ts";

export type RaftApplierOptions<Result> = {
  readonly machine: StateMachine<Result>;
  readonly clock: Clock;
  /** One call of `apply` takes at most so many. */
  readonly sliceEntries: number;
  readonly digestEveryEntries: number;
  /** A leader takes in no more than its state bears; a standby is given what others committed, and has to wait by itself. */
  readonly isStandby: () => boolean;
  /** Wait between attempts when the state's disk refuses what it is given. */
  readonly retryMs: number;
  /** These are in the state now. */
  readonly onApplied: (entries: readonly Entry[], results: readonly Result[]) => void;
  /** All that was given is. */
  readonly onDone: (lastIndex: number) => void;
  /** The state at `index`, a multiple of `digestEveryEntries`. */
  readonly onDigest: (index: number, digest: string) => void;
  readonly onFatal: (error: HeadpondError) => void;
};

const noBytes = new Uint8Array(0);

export class RaftApplier<Result> {
  readonly #options: RaftApplierOptions<Result>;
  #running: Promise<void> | undefined;
  readonly #closing = new AbortController();
  readonly #closed = new Promise<void>((resolve) =>
    this.#closing.signal.addEventListener("abort", () => resolve(), { once: true }),
  );

  constructor(options: RaftApplierOptions<Result>) {
    this.#options = options;
  }

  get isIdle(): boolean {
    return this.#running === undefined;
  }

  /** One batch at a time. The first slice is applied before this returns. */
  apply(entries: readonly LoggedEntry[]): void {
    assert(this.#running === undefined, "the entries given before are applied first");
    if (this.#closing.signal.aborted) return;
    this.#running = this.#run(entries);
  }

  async drained(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  /** Ends after the slice that is being applied. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.drained();
  }

  async #run(entries: readonly LoggedEntry[]): Promise<void> {
    let from = 0;
    for (;;) {
      const to = this.#sliceEnd(entries, from);
      if (!this.#applySlice(from === 0 && to === entries.length ? entries : entries.slice(from, to))) break;
      from = to;
      if (from === entries.length) break;
      await this.#level();
      await this.#options.clock.nextTurn();
      if (this.#closing.signal.aborted) break;
    }
    await this.#level();
    // Also after a single slice: only then `apply` has taken down that this runs.
    await Promise.resolve();
    this.#running = undefined;
    if (from === entries.length) this.#done(entries);
  }

  /** What is applied and not yet on the state's own disk is in memory: that must not grow without end. */
  async #level(): Promise<void> {
    const { machine, clock, isStandby, retryMs } = this.#options;
    const { signal } = this.#closing;
    while (isStandby() && !signal.aborted) {
      const pressure = machine.backPressure?.();
      if (pressure === undefined) return;
      // A disk that refuses is asked again: the master says meanwhile that it cannot write its state.
      await Promise.race([pressure, this.#closed]).catch(() => clock.sleep(retryMs, signal).catch(() => {}));
    }
  }

  /** Up to the next multiple at most. */
  #sliceEnd(entries: readonly LoggedEntry[], from: number): number {
    const { sliceEntries, digestEveryEntries } = this.#options;
    const first = (entries[from] as LoggedEntry).index;
    const untilDigest = digestEveryEntries - ((first - 1) % digestEveryEntries);
    return Math.min(entries.length, from + Math.min(sliceEntries, untilDigest));
  }

  /** Whether it went well. */
  #applySlice(slice: readonly LoggedEntry[]): boolean {
    const { machine, digestEveryEntries, onApplied, onDigest, onFatal } = this.#options;
    const entries = slice.some(isConfiguration) ? slice.map(withoutConfiguration) : slice;
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

  #done(entries: readonly LoggedEntry[]): void {
    this.#options.onDone((entries.at(-1) as LoggedEntry).index);
  }
}

function isConfiguration({ kind }: LoggedEntry): boolean {
  return kind === "configuration";
}

/** Memberships mean nothing to the state; their indexes do. */
export function withoutConfiguration({ kind, index, term, payload }: LoggedEntry): Entry {
  return { index, term, payload: kind === "configuration" ? noBytes : payload };
}
