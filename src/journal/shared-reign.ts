/**
 * One epoch of one primary: claims it, walks to the end of what the primaries before wrote and ends their epochs, then writes. It is over when
 * storage says so, when the store cannot be reached for too long, or when it is ended cleanly, with a seal, so that the next one need not
 * look for the tail.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock, Timer } from "../io/clock.ts";
import { claimEpoch, SharedFence } from "./shared-fence.ts";
import type { SharedFollower } from "./shared-follower.ts";
import type { SharedJournalLimits } from "./shared-limits.ts";
import type { SharedObjects } from "./shared-objects.ts";
import type { SharedProposals } from "./shared-proposals.ts";
import { type CommittedSlot, SharedWriter } from "./shared-writer.ts";

export type ReignEnd =
  /** Another master claimed a later epoch. */
  | { readonly why: "deposed"; readonly by: string }
  /** The store did not answer for too long: another master may reach it. */
  | { readonly why: "unreachable"; readonly message: string }
  /** The epoch is sealed. */
  | { readonly why: "handed-over" }
  | { readonly why: "closed" };

export type SharedReignOptions = {
  readonly objects: SharedObjects;
  readonly follower: SharedFollower;
  readonly proposals: SharedProposals<unknown>;
  readonly clock: Clock;
  readonly limits: SharedJournalLimits;
  readonly mark: string;
  /** Who claims, for people. */
  readonly about: Readonly<Record<string, string | number>>;
  readonly signal: AbortSignal;
  readonly onCommitted: (slots: readonly CommittedSlot[]) => void;
  readonly onDurable: (entries: number, durationMs: number) => void;
  readonly onNoSpace: (error: HeadpondError) => void;
  readonly onFatal: (error: HeadpondError) => void;
};

export class SharedReign {
  readonly epoch: number;
  readonly fence: SharedFence;
  readonly writer: SharedWriter;
  /** Resolves when it is over. */
  readonly ended: Promise<ReignEnd>;
  readonly #options: SharedReignOptions;
  readonly #abort = new AbortController();
  readonly #resolveEnd: (end: ReignEnd) => void;
  #timer: Timer | undefined;
  /** Since when an answer of the store to a question of the patrol is waited for. */
  #askedAtMs: number | undefined;
  #isOver = false;
  /** Takes no proposals any more: it is being ended cleanly. */
  isHandingOver = false;

  private constructor(options: SharedReignOptions, epoch: number) {
    this.#options = options;
    this.epoch = epoch;
    const { objects, clock, limits, mark, follower, proposals } = options;
    const { signal } = this.#abort;
    const { promise, resolve } = Promise.withResolvers<ReignEnd>();
    this.ended = promise;
    this.#resolveEnd = resolve;
    const onDeposed = (by: string): void => this.end({ why: "deposed", by });
    this.fence = new SharedFence({ objects, epoch, readsMax: limits.epochReadsMax, signal, onDeposed });
    this.writer = new SharedWriter({
      objects,
      proposals,
      fence: this.fence,
      clock,
      limits: { ...limits, slotsUnderWayMax: Math.min(limits.slotsUnderWayMax, objects.store.parallelCalls) },
      epoch,
      mark,
      lastIndex: follower.cursor.index,
      signal,
      onCommitted: options.onCommitted,
      onDurable: options.onDurable,
      onDeposed,
      onNoSpace: options.onNoSpace,
      onFatal: options.onFatal,
    });
    if (options.signal.aborted) this.end({ why: "closed" });
    options.signal.addEventListener("abort", () => this.end({ why: "closed" }), { once: true, signal });
  }

  /**
   * Claims the next epoch and walks to its beginning. The state then holds all that was acknowledged before. `isWanted` is asked in
   * between; `undefined`: it was not any more, or a later epoch is claimed already.
   */
  static async begin(options: SharedReignOptions, isWanted: () => boolean): Promise<SharedReign | undefined> {
    const { objects, follower, mark, about, signal } = options;
    const { cursor } = follower;
    // An epoch that has a slot is claimed; of one that has none nothing is known.
    const known = cursor.slot > 1 ? cursor.epoch : cursor.epoch - 1;
    const epoch = await claimEpoch(objects, known, { mark, about }, signal);
    while (follower.cursor.epoch < epoch) {
      if (!isWanted()) return undefined;
      const atEnd = await follower.step(signal);
      if (atEnd && follower.cursor.epoch < epoch) await follower.seal(mark, signal);
    }
    if (follower.cursor.epoch > epoch) return undefined;
    const reign = new SharedReign(options, epoch);
    const isStill = await reign.fence.check();
    if (isStill && isWanted()) {
      reign.#patrol();
      return reign;
    }
    reign.end({ why: "closed" });
    return undefined;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  end(end: ReignEnd): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#timer?.clear();
    this.writer.close();
    this.#abort.abort(new HeadpondError("cancelled", `the epoch ${this.epoch} is over: ${end.why}`));
    this.#resolveEnd(end);
  }

  /** Writes what was proposed, then ends the epoch. Throws `timeout` when the store takes too long; then it goes on. */
  async handOver(signal?: AbortSignal): Promise<void> {
    const { clock, limits } = this.#options;
    this.isHandingOver = true;
    const late = Promise.withResolvers<"late">();
    const timer = clock.timer(limits.storePatienceMs, () => late.resolve("late"));
    const onAbort = (): void => late.resolve("late");
    signal?.addEventListener("abort", onAbort);
    try {
      if ((await Promise.race([this.writer.drained(), late.promise])) === "late") {
        this.isHandingOver = false;
        throw new HeadpondError("timeout", "what was proposed is not written yet: the store is slow, try again");
      }
    } finally {
      timer.clear();
      signal?.removeEventListener("abort", onAbort);
    }
    if (this.#isOver) return;
    await this.writer.seal();
  }

  /** Who has nothing to write would never learn that another one leads. */
  #patrol(): void {
    const { clock, limits } = this.#options;
    this.#timer = clock.timer(limits.idleCheckMs, () => {
      if (this.#isOver) return;
      const nowMs = clock.monotonicMs();
      const sinceMs = Math.min(this.#askedAtMs ?? nowMs, this.writer.oldestSentAtMs ?? nowMs);
      if (nowMs - sinceMs >= limits.storePatienceMs) {
        const seconds = Math.round((nowMs - sinceMs) / 100) / 10;
        this.end({ why: "unreachable", message: `the store has not answered for ${seconds} s` });
        return;
      }
      if (this.#askedAtMs === undefined) {
        this.#askedAtMs = nowMs;
        this.fence.check().then(
          () => {
            this.#askedAtMs = undefined;
          },
          (error: unknown) => {
            if (!this.#isOver) this.#options.onFatal(toHeadpondError(error));
          },
        );
      }
      this.#patrol();
    });
  }
}
