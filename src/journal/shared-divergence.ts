/**
 * What a master does that has found out that its state differs from the others': it serves nothing and does not try to lead, and neither does
 * its next life, until a checkpoint of another master has taken the place of its state. The log is right: it is the same for all.
 */

import { toHeadpondError } from "../base/errors.ts";
import type { Logger } from "../io/logger.ts";
import type { StateTrust } from "./state-trust.ts";

export class SharedDivergence {
  readonly #trust: StateTrust;
  readonly #logger: Logger;
  readonly #onRaised: (details: string) => void;
  #details: string | undefined;
  /** Marks are written one after the other. */
  #written: Promise<void> = Promise.resolve();

  constructor(options: {
    readonly trust: StateTrust;
    readonly logger: Logger;
    readonly onRaised: (details: string) => void;
  }) {
    this.#trust = options.trust;
    this.#logger = options.logger;
    this.#onRaised = options.onRaised;
  }

  /** Why nothing may be answered; `undefined`: all is well as far as known. */
  get details(): string | undefined {
    return this.#details;
  }

  /** `isOld`: an earlier life has found it and written it down. */
  raise(details: string, isOld = false): void {
    if (this.#details !== undefined) return;
    this.#details = `${details}: it serves nothing until it is repaired`;
    this.#logger.error("the state differs from the other masters'", { details });
    if (!isOld) this.#write(() => this.#trust.markDiverged(details));
    this.#onRaised(this.#details);
  }

  /** The state is another master's now. */
  heal(): void {
    if (this.#details === undefined) return;
    this.#details = undefined;
    this.#write(() => this.#trust.clearDiverged());
  }

  async drained(): Promise<void> {
    await this.#written;
  }

  #write(mark: () => Promise<void>): void {
    this.#written = this.#written.then(mark).catch((error: unknown) => {
      // It is found again at the next comparison.
      this.#logger.error("the mark of a state that differs", { error: toHeadpondError(error).message });
    });
  }
}
