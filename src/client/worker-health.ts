/** Workers that failed a moment ago, so that the next reader asks others first. A memory, not a verdict: it fades. */

import type { WorkerId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";

const avoidedForMs = 2000;
/** Failures remembered; the oldest go first. */
const failuresMax = 1000;

export class WorkerHealth {
  readonly #clock: Clock;
  /** Until when a worker is asked last. */
  readonly #avoidedUntilMs = new Map<WorkerId, number>();

  constructor(parts: { readonly clock: Clock }) {
    this.#clock = parts.clock;
  }

  failed(worker: WorkerId): void {
    this.#avoidedUntilMs.delete(worker);
    this.#avoidedUntilMs.set(worker, this.#clock.monotonicMs() + avoidedForMs);
    for (const oldest of this.#avoidedUntilMs.keys()) {
      if (this.#avoidedUntilMs.size <= failuresMax) break;
      this.#avoidedUntilMs.delete(oldest);
    }
  }

  succeeded(worker: WorkerId): void {
    this.#avoidedUntilMs.delete(worker);
  }

  isAvoided(worker: WorkerId): boolean {
    const untilMs = this.#avoidedUntilMs.get(worker);
    return untilMs !== undefined && this.#clock.monotonicMs() < untilMs;
  }
}
