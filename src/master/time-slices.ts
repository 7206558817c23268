/**
 * Long work on a thread that others need: it runs in slices of a few milliseconds and lets everybody else in between.
 */

import type { Clock } from "../io/clock.ts";

export class TimeSlices {
  readonly #clock: Clock;
  readonly #sliceMs: number;

  constructor({ clock, sliceMs = 5 }: { readonly clock: Clock; readonly sliceMs?: number }) {
    this.#clock = clock;
    this.#sliceMs = sliceMs;
  }

  /** Visits all items. Rejects with the signal's reason. */
  async forEach<T>(items: Iterable<T>, visit: (item: T) => void, signal?: AbortSignal): Promise<void> {
    let began = this.#clock.monotonicMs();
    let count = 0;
    for (const item of items) {
      visit(item);
      if (++count % 64 !== 0 || this.#clock.monotonicMs() - began < this.#sliceMs) continue;
      signal?.throwIfAborted();
      await this.pause(signal);
      began = this.#clock.monotonicMs();
    }
  }

  /** Lets timers and sockets have their turn. */
  pause(signal?: AbortSignal): Promise<void> {
    return this.#clock.sleep(0, signal);
  }
}
