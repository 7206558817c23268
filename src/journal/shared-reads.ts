/**
 * Reads that wait for the right to be answered from the state of a master with a shared journal. A primary asks storage whether it is still the newest, and
 * waits until what it has sent before is applied: a standby may have read, and shown, what is written and not known here to be committed. A
 * standby reads the log until nothing more is there.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import { RaftBarriers } from "./raft-barriers.ts";
import type { SharedReign } from "./shared-reign.ts";

export type SharedReadsOptions = {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Of a store that does not answer. */
  readonly patienceMs: number;
  readonly appliedIndex: () => number;
  readonly notLeader: () => HeadpondError;
};

export class SharedReads {
  readonly #options: SharedReadsOptions;
  readonly #barriers = new RaftBarriers();
  /** Since then the state is known to hold all that was acknowledged. */
  #freshAtMs: number | undefined;
  /** Since when calls to the store fail. */
  #troubledAtMs: number | undefined;

  constructor(options: SharedReadsOptions) {
    this.#options = options;
  }

  /** Waiting. */
  get count(): number {
    return this.#barriers.count;
  }

  get freshnessMs(): number | undefined {
    return this.#freshAtMs === undefined ? undefined : this.#options.clock.monotonicMs() - this.#freshAtMs;
  }

  add(): Promise<void> {
    return this.#barriers.add(this.#options.clock.monotonicMs());
  }

  /** Of a primary: all that were asked for in one turn share one read of the epoch. */
  answer({ fence, writer }: SharedReign): void {
    const { clock, appliedIndex, notLeader } = this.#options;
    const context = this.#barriers.takeQuestion();
    if (context === undefined) return;
    const askedAtMs = clock.monotonicMs();
    const { lastIndex } = writer;
    const refuse = (): void => this.#barriers.refused(context, notLeader());
    fence.check().then((isStill) => {
      if (!isStill) return refuse();
      this.#freshAtMs = askedAtMs;
      // What a full store refused meanwhile nobody has seen.
      this.#barriers.granted(context, Math.min(lastIndex, writer.lastIndex), appliedIndex());
    }, refuse);
  }

  /** Of a standby: `step` reads and applies some of the log, and says whether that was all that was there at its call. */
  async during(step: () => Promise<boolean>): Promise<boolean> {
    const askedAtMs = this.#options.clock.monotonicMs();
    const context = this.#barriers.takeQuestion();
    let isAll = false;
    try {
      isAll = await step();
    } finally {
      if (context !== undefined && !isAll) this.#barriers.again(context);
    }
    if (!isAll) return false;
    this.#freshAtMs = askedAtMs;
    if (context !== undefined) this.#barriers.granted(context, 0, 0);
    return true;
  }

  applied(index: number): void {
    this.#barriers.applied(index);
  }

  /** What they wait for may never be written, or is another's to write now. */
  askAgain(): void {
    this.#barriers.askAgain();
  }

  /** The state is another one now. */
  forgetFreshness(): void {
    this.#freshAtMs = undefined;
  }

  /** Calls to the store are repeated for as long as it takes; who waits for a read is not to wait as long. */
  onTrouble(error: HeadpondError | undefined): void {
    const { clock, logger, patienceMs } = this.#options;
    if (error === undefined) {
      if (this.#troubledAtMs !== undefined) logger.info("the store answers again");
      this.#troubledAtMs = undefined;
      return;
    }
    if (this.#troubledAtMs === undefined) logger.warn("the store does not answer", { error: error.message });
    this.#troubledAtMs ??= clock.monotonicMs();
    if (clock.monotonicMs() - this.#troubledAtMs < patienceMs) return;
    this.end(new HeadpondError("unavailable", `the store of the journal does not answer: ${error.message}`));
  }

  end(error: HeadpondError): void {
    this.#barriers.endAll(error);
  }
}
