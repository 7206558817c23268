/**
 * What a master does that has found out that its state differs from the others': it serves nothing and does not stand for
 * election, and neither does its next life, until another master's state has taken the place of its own. It votes all the
 * same, for its log is right.
 */

import { toHeadpondError } from "../base/errors.ts";
import type { Logger } from "../io/logger.ts";
import type { Raft } from "../raft/raft.ts";
import type { StateTrust } from "./state-trust.ts";

export type RaftDivergenceOptions = {
  readonly trust: StateTrust;
  readonly core: Raft;
  readonly logger: Logger;
  readonly onRaised: (details: string) => void;
};

export class RaftDivergence {
  readonly #options: RaftDivergenceOptions;
  #details: string | undefined;
  /** Marks are written one after the other. */
  #written: Promise<void> = Promise.resolve();

  constructor(options: RaftDivergenceOptions) {
    this.#options = options;
  }

  /** Why nothing may be answered; `undefined`: all is well as far as known. */
  get details(): string | undefined {
    return this.#details;
  }

  /** `isOld`: an earlier life has found it and written it down. */
  raise(details: string, isOld = false): void {
    if (this.#details !== undefined) return;
    const { trust, core, logger, onRaised } = this.#options;
    this.#details = `${details}: it serves nothing until it is repaired`;
    core.mayStand = false;
    logger.error("the state differs from the other masters'", { details });
    if (!isOld) this.#write(() => trust.markDiverged(details));
    onRaised(this.#details);
  }

  /** The state is another master's now. */
  heal(): void {
    if (this.#details === undefined) return;
    this.#details = undefined;
    this.#options.core.mayStand = true;
    this.#write(() => this.#options.trust.clearDiverged());
  }

  async drained(): Promise<void> {
    await this.#written;
  }

  #write(mark: () => Promise<void>): void {
    this.#written = this.#written.then(mark).catch((error: unknown) => {
      // It is found again at the next comparison.
      this.#options.logger.error("the mark of a state that differs", { error: toHeadpondError(error).message });
    });
  }
}
