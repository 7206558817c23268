/**
 * A clock that runs as fast as the machine works: a millisecond passes whenever nothing else has a turn to take. Waits
 * cost nothing and time never runs ahead of the work, so a test with timeouts depends neither on the speed nor on the load of the machine.
 */

import { ManualClock } from "../io/manual-clock.ts";

export class RunningClock extends ManualClock {
  #running = true;

  constructor() {
    super();
    this.#run();
  }

  /** The time stands still from now on. */
  stop(): void {
    this.#running = false;
  }

  override nextTurn(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  #run(): void {
    setImmediate(() => {
      if (!this.#running) return;
      this.advance(1).then(
        () => this.#run(),
        (error: unknown) => {
          // Nobody waits for it; a clock that stood still in silence would hang whoever waits for the time.
          setImmediate(() => {
            throw error;
          });
        },
      );
    });
  }
}
