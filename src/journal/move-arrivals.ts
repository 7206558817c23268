/**
 * The arrival: the first entry of a journal that a move brought. It says where the old one ended and what the state was there, as the first
 * leader of the new one has it; every master compares that with what it noted itself.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Journal } from "./journal.ts";
import type { MovedFile, MoveMarks } from "./migration.ts";

export type MoveArrivalsOptions = {
  readonly marks: Pick<MoveMarks, "newestArrival" | "encodeArrival">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly lookMs: number;
  readonly onDiffers: () => void;
};

export class MoveArrivals {
  readonly #options: MoveArrivalsOptions;
  readonly #closing = new AbortController();
  #running = new Set<Promise<void>>();
  #differs: string | undefined;

  constructor(options: MoveArrivalsOptions) {
    this.#options = options;
  }

  /** How the state of this master differed at the cut. */
  get differs(): string | undefined {
    return this.#differs;
  }

  /** Whether the arrival of this move is in the state. */
  isIn({ move }: MovedFile): boolean {
    return this.#options.marks.newestArrival()?.move === move;
  }

  /** While `journal` leads; `onDone` when the arrival is in the state. */
  propose(moved: MovedFile, journal: Journal<unknown>, onDone: () => void): void {
    this.#run(this.#propose(moved, journal, onDone));
  }

  /** When the arrival is in the state. */
  compare(moved: MovedFile): void {
    this.#run(this.#compare(moved));
  }

  async close(): Promise<void> {
    this.#closing.abort(new HeadpondError("cancelled", "the journal was closed"));
    await Promise.all(this.#running);
  }

  #run(running: Promise<void>): void {
    this.#running.add(running);
    void running.finally(() => this.#running.delete(running));
  }

  async #propose(moved: MovedFile, journal: Journal<unknown>, onDone: () => void): Promise<void> {
    const { marks, logger } = this.#options;
    const { move, index, digest } = moved;
    while (journal.role === "leader" && !this.#closing.signal.aborted) {
      try {
        if (!this.isIn(moved)) await journal.propose(marks.encodeArrival({ move, index, digest }));
        onDone();
        return;
      } catch (error) {
        logger.warn("the new journal has not begun yet", { error: toHeadpondError(error).message });
        await this.#wait();
      }
    }
  }

  async #compare(moved: MovedFile): Promise<void> {
    const { marks, logger, onDiffers } = this.#options;
    while (!this.isIn(moved)) {
      await this.#wait();
      if (this.#closing.signal.aborted) return;
    }
    const arrival = marks.newestArrival();
    if (arrival?.digest === moved.digest && arrival.index === moved.index) return;
    this.#differs =
      `the state of this master at entry ${moved.index}, where the journal was moved, has digest ${moved.digest}, the leader's at ` +
      `${arrival?.index} has ${arrival?.digest}: put a good one in its place with \`headpond journal repair\``;
    logger.error(this.#differs);
    onDiffers();
  }

  async #wait(): Promise<void> {
    const { clock, lookMs } = this.#options;
    await clock.sleep(lookMs, this.#closing.signal).catch(() => {});
  }
}
