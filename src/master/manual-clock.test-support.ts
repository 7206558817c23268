/** A clock that moves only when a test says so. */

import type { Clock, Timer } from "../io/clock.ts";

export class ManualClock implements Clock {
  #wallMs: number;
  #monotonicMs = 1000;
  readonly #timers = new Set<{ readonly dueMs: number; readonly callback: () => void }>();

  constructor({ wallMs = 1_700_000_000_000 }: { readonly wallMs?: number } = {}) {
    this.#wallMs = wallMs;
  }

  wallMs(): number {
    return this.#wallMs;
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  /** Moves both clocks and fires the timers that come due, in order. */
  advance(durationMs: number): void {
    const end = this.#monotonicMs + durationMs;
    for (;;) {
      let next: { readonly dueMs: number; readonly callback: () => void } | undefined;
      for (const timer of this.#timers) {
        if (timer.dueMs <= end && (next === undefined || timer.dueMs < next.dueMs)) next = timer;
      }
      if (next === undefined) break;
      this.#timers.delete(next);
      const step = Math.max(0, next.dueMs - this.#monotonicMs);
      this.#monotonicMs += step;
      this.#wallMs += step;
      next.callback();
    }
    this.#wallMs += end - this.#monotonicMs;
    this.#monotonicMs = end;
  }

  jumpWall(byMs: number): void {
    this.#wallMs += byMs;
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason as Error);
        return;
      }
      const timer = this.timer(durationMs, resolve);
      signal?.addEventListener(
        "abort",
        () => {
          timer.clear();
          reject(signal.reason as Error);
        },
        { once: true },
      );
    });
  }

  timer(durationMs: number, callback: () => void): Timer {
    const timer = { dueMs: this.#monotonicMs + durationMs, callback };
    this.#timers.add(timer);
    return { clear: () => this.#timers.delete(timer) };
  }
}
