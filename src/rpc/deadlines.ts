/**
 * One timer for all deadlines of a connection. Requests are many and short, their deadlines far away and rarely reached:
 * so nothing is kept per request, and when the earliest deadline that was ever announced has passed, the owner looks
 * through what is still under way and says when to look again.
 */

import type { Clock, Timer } from "../io/clock.ts";

/** The owner is not asked more often than this: deadlines are kept with this precision. */
const precisionMs = 5;

export class Deadlines {
  readonly #clock: Clock;
  readonly #expire: (nowMs: number) => number;
  #nextMs = Number.POSITIVE_INFINITY;
  #timer: Timer | undefined;

  /** `expire` ends what is due at `nowMs` and returns the next deadline, or Infinity. */
  constructor(options: { readonly clock: Clock; readonly expire: (nowMs: number) => number }) {
    this.#clock = options.clock;
    this.#expire = options.expire;
  }

  /** Something is due at `deadlineMs` of the monotonic clock, or Infinity. */
  expect(deadlineMs: number): void {
    if (deadlineMs < this.#nextMs) this.#arm(deadlineMs);
  }

  close(): void {
    this.#timer?.clear();
    this.#nextMs = Number.NEGATIVE_INFINITY;
  }

  #arm(deadlineMs: number): void {
    this.#timer?.clear();
    this.#nextMs = deadlineMs;
    const waitMs = Math.max(precisionMs, Math.ceil(deadlineMs - this.#clock.monotonicMs()));
    this.#timer = this.#clock.timer(waitMs, () => {
      this.#nextMs = Number.POSITIVE_INFINITY;
      this.expect(this.#expire(this.#clock.monotonicMs()));
    });
  }
}
