/** Bytes per second over about the last five seconds of activity. */

import type { Clock } from "../io/clock.ts";

const windowMs = 5000;

export class RateMeter {
  readonly #clock: Clock;
  #total = 0;
  #windowBytes = 0;
  #windowStartMs: number;
  #rate = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#windowStartMs = clock.monotonicMs();
  }

  get totalBytes(): number {
    return this.#total;
  }

  add(bytes: number): void {
    this.#roll();
    this.#total += bytes;
    this.#windowBytes += bytes;
  }

  /** 0 when nothing moved lately. */
  rate(): number {
    this.#roll();
    const elapsedMs = this.#clock.monotonicMs() - this.#windowStartMs;
    return elapsedMs < windowMs / 5 ? this.#rate : Math.max(this.#rate, (this.#windowBytes * 1000) / elapsedMs);
  }

  #roll(): void {
    const now = this.#clock.monotonicMs();
    const elapsedMs = now - this.#windowStartMs;
    if (elapsedMs < windowMs) return;
    this.#rate = elapsedMs < 2 * windowMs ? (this.#windowBytes * 1000) / elapsedMs : 0;
    this.#windowBytes = 0;
    this.#windowStartMs = now;
  }
}
