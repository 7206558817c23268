/** The two ends of leading: a new leader that catches up with what was acknowledged before it, and one that hands over before it stops. */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Journal } from "../journal/journal.ts";

type Parts = { readonly journal: Journal<unknown>; readonly clock: Clock; readonly logger: Logger };

const barrierRetryMs = 20;

/** Behind the first barrier the state has all that was ever acknowledged. False: this master leads no more. */
export async function catchUp({ journal, clock, logger }: Parts, signal: AbortSignal): Promise<boolean> {
  while (journal.role === "leader" && !signal.aborted) {
    try {
      await journal.readBarrier();
      return journal.role === "leader";
    } catch (error) {
      logger.warn("a new leader could not catch up yet", { error: toHeadpondError(error).message });
      await clock.sleep(barrierRetryMs, signal).catch(() => {});
    }
  }
  return false;
}

/**
 * Lets another master take over, for at most `patienceMs`, so that clients wait for a round trip and not for an election. Nothing
 * to do for a standby, or when nobody else votes. Never throws: without a successor the others elect one.
 */
export async function handOver({ journal, clock, logger }: Parts, patienceMs: number): Promise<void> {
  const { cluster } = journal;
  if (cluster === undefined || journal.role !== "leader") return;
  if (cluster.members().filter(({ voter }) => voter).length < 2) return;
  const startMs = clock.monotonicMs();
  const patience = new AbortController();
  const timer = clock.timer(patienceMs, () => {
    patience.abort(new HeadpondError("timeout", `nobody took over within ${patienceMs} ms`));
  });
  try {
    await cluster.transferLeadership(undefined, patience.signal);
    logger.info("handed over before stopping", { durationMs: Math.round(clock.monotonicMs() - startMs) });
  } catch (error) {
    logger.warn("stops without having handed over", { error: toHeadpondError(error).message });
  } finally {
    timer.clear();
  }
}
