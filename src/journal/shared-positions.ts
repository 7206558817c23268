/**
 * Writes down now and then where the state stands in the log, so that the next start need not read the log from the last checkpoint on. What is
 * written is what was true one round before: a killed process may lose the newest of its state.
 */

import { toHeadpondError } from "../base/errors.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { StateMachine } from "./journal.ts";
import type { SharedHistory } from "./shared-history.ts";
import type { Position, SharedPlace } from "./shared-place.ts";

export class SharedPositions {
  readonly #place: SharedPlace;
  readonly #history: SharedHistory;
  readonly #machine: StateMachine<unknown>;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #everyMs: number;
  #before: Position | undefined;
  #saved = 0;
  #timer: Timer | undefined;
  #writing: Promise<void> = Promise.resolve();
  #isClosed = false;

  constructor(options: {
    readonly place: SharedPlace;
    readonly history: SharedHistory;
    readonly machine: StateMachine<unknown>;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly everyMs: number;
  }) {
    this.#place = options.place;
    this.#history = options.history;
    this.#machine = options.machine;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#everyMs = options.everyMs;
  }

  /** From now on, until it is closed. */
  begin(): void {
    this.#timer = this.#clock.timer(this.#everyMs, () => {
      if (this.#isClosed) return;
      if (this.#before !== undefined && this.#before.index > this.#saved) this.#write(this.#before);
      this.#before = this.#current;
      this.begin();
    });
  }

  /** The state was replaced: what is known of the former one's place means nothing. */
  reset(): void {
    this.#before = undefined;
    this.#saved = 0;
  }

  /** Of this moment; the state must be durable from here on, or be marked as in doubt. */
  async save(): Promise<void> {
    this.#write(this.#current);
    await this.#writing;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#timer?.clear();
    await this.#writing;
  }

  get #current(): Position {
    const { index, term } = this.#machine.applied;
    const { epoch, slot } = this.#history.placeOf(index);
    return { epoch, slot: slot + 1, index, term };
  }

  #write(position: Position): void {
    this.#saved = position.index;
    this.#writing = this.#writing
      .then(() => this.#place.savePosition(position))
      .catch((error: unknown) => {
        // The next start reads more of the log.
        this.#logger.warn("the state's place in the log was not written down", {
          error: toHeadpondError(error).message,
        });
      });
  }
}
