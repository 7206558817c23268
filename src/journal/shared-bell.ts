/** Wakes a loop that waits: at once when it is rung, also if that was before the wait, else after a time. */

import type { Clock } from "../io/clock.ts";

export class SharedBell {
  readonly #clock: Clock;
  #isRung = false;
  #wake: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  ring(): void {
    this.#isRung = true;
    this.#wake?.();
  }

  async wait(durationMs: number): Promise<void> {
    if (!this.#isRung) {
      await new Promise<void>((resolve) => {
        const timer = this.#clock.timer(durationMs, resolve);
        this.#wake = () => {
          timer.clear();
          resolve();
        };
      });
      this.#wake = undefined;
    }
    this.#isRung = false;
  }
}
