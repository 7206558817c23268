/** Outcomes of load orders on their way to the masters: kept, within a limit, until one that leads has taken them. */

import type { JobId } from "../base/ids.ts";
import type { Logger } from "../io/logger.ts";
import type { FileOutcome } from "./load-runner.ts";
import type { LoadReport, MasterConnection } from "./master-link.ts";

/** Beyond, the oldest are dropped: a master repeats orders that nobody has answered. */
const outcomesMax = 100_000;
const batchMax = 1000;

export class LoadReports {
  readonly #leader: () => MasterConnection | undefined;
  readonly #identity: Pick<LoadReport, "workerId" | "incarnation">;
  readonly #logger: Logger;
  readonly #outcomes: { readonly jobId: JobId; readonly outcome: FileOutcome }[] = [];
  #sending: Promise<void> | undefined;

  /** `leader`: only a master that leads; others would take outcomes and forget them. */
  constructor(options: {
    readonly leader: () => MasterConnection | undefined;
    readonly identity: Pick<LoadReport, "workerId" | "incarnation">;
    readonly logger: Logger;
  }) {
    this.#leader = options.leader;
    this.#identity = options.identity;
    this.#logger = options.logger;
  }

  add(jobId: JobId, outcome: FileOutcome): void {
    this.#outcomes.push({ jobId, outcome });
    if (this.#outcomes.length > outcomesMax) this.#outcomes.shift();
    this.flush();
  }

  /** Called when something was added, and when a master was reached again. */
  flush(): void {
    this.#sending ??= this.#send().finally(() => {
      this.#sending = undefined;
    });
  }

  async settle(): Promise<void> {
    await this.#sending;
  }

  async #send(): Promise<void> {
    // Whatever else ends in this turn goes into the same batch.
    await Promise.resolve();
    while (this.#outcomes.length > 0) {
      const leader = this.#leader();
      const first = this.#outcomes[0];
      if (leader === undefined || first === undefined) return;
      const batch = this.#outcomes.slice(0, batchMax).filter(({ jobId }) => jobId === first.jobId);
      try {
        const files = batch.map(({ outcome }) => outcome);
        await leader.reportLoad({ ...this.#identity, jobId: first.jobId, files });
      } catch (error) {
        this.#logger.warn("outcomes of a load could not be reported yet", { jobId: first.jobId, error: String(error) });
        return;
      }
      const sent = new Set(batch);
      this.#outcomes.splice(0, this.#outcomes.length, ...this.#outcomes.filter((entry) => !sent.has(entry)));
    }
  }
}
