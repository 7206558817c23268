/**
 * The time that a leader stamps into commands: near the wall clock, but it never runs backwards, and a wall clock that
 * jumps against the monotonic one does not take TTLs and sessions with it. It runs by the monotonic clock and leans
 * towards the wall clock by at most a tenth of the time that passes, so a jump of an hour is made up for in ten.
 *
 * A difference below `stepMsMax` is followed at once: that is what a disciplined clock does all the time. Left out: telling
 * a jump from a suspended machine, for which the monotonic clock stood still; both are caught up slowly.
 */

import type { Clock } from "../io/clock.ts";

/** Differences up to this are followed at once. */
export const stepMsMax = 1000;
/** Part of the passing time by which a larger difference is made up for. */
export const slewRatio = 0.1;

export class LeaderClock {
  readonly #clock: Clock;
  #anchorMs: number;
  #anchorMonotonicMs: number;
  /** Highest time given out or seen in the state. */
  #last = 0;
  #heldBackMs = 0;

  constructor({ clock }: { readonly clock: Clock }) {
    this.#clock = clock;
    this.#anchorMs = clock.wallMs();
    this.#anchorMonotonicMs = clock.monotonicMs();
  }

  /** Called when this master begins to lead, with the clock of the state: time goes on from there. */
  begin(stateTimeMs: number): void {
    this.#anchorMs = Math.max(this.#clock.wallMs(), stateTimeMs);
    this.#anchorMonotonicMs = this.#clock.monotonicMs();
    this.#last = Math.max(this.#last, stateTimeMs);
  }

  /** Whole milliseconds since 1970, never less than before. */
  nowMs(): number {
    const monotonicMs = this.#clock.monotonicMs();
    const passedMs = Math.max(0, monotonicMs - this.#anchorMonotonicMs);
    const expectedMs = this.#anchorMs + passedMs;
    const difference = this.#clock.wallMs() - expectedMs;
    let now = expectedMs;
    if (difference >= -stepMsMax && difference <= stepMsMax) {
      now += difference;
    } else {
      const slewMs = passedMs * slewRatio;
      now += Math.max(-slewMs, Math.min(slewMs, difference));
    }
    this.#heldBackMs = Math.abs(difference) > stepMsMax ? difference : 0;
    this.#anchorMs = now;
    this.#anchorMonotonicMs = monotonicMs;
    const whole = Math.floor(now);
    if (whole > this.#last) this.#last = whole;
    return this.#last;
  }

  /** How far the wall clock is ahead (behind: negative) of what is stamped, when that is more than `stepMsMax`; else 0. */
  get heldBackMs(): number {
    return this.#heldBackMs;
  }
}
