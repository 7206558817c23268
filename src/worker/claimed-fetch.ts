/**
 * One block of a file that several workers load: from the neighbour that gets it before us, or from the under store if the claim is ours.
 * A neighbour that fails is passed over for the one before it, and the bytes that have come stay: the next source goes on behind them.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { WorkerId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { BlockSources } from "./block-sources.ts";
import type { ClaimSession } from "./claim-session.ts";
import type { Fill } from "./fill.ts";
import type { Members } from "./members.ts";
import type { Reception } from "./reception.ts";

/** Times that a block changes hands before it counts as not to be had now. */
const roundsMax = 12;

/** How often an attempt is looked at. */
const lookMs = 100;
/** So long without a byte, and the next neighbour is asked. */
const stallMs = 1000;
const reroute = new HeadpondError("cancelled", "the order of the workers has changed");

export type ClaimedFetchDependencies = {
  readonly clock: Clock;
  readonly session: ClaimSession;
  readonly members: Members;
  readonly sources: BlockSources;
  readonly logger: Logger;
  readonly signal: AbortSignal;
};

export async function fetchClaimed(reception: Reception, dependencies: ClaimedFetchDependencies): Promise<void> {
  const { session, members, sources, signal } = dependencies;
  const { fill } = reception;
  const { file, block } = fill;
  let lastError: unknown;
  for (let round = 0; round < roundsMax; round++) {
    if (file.isGone) throw file.goneError();
    const claimant = await session.claimant(block, signal);
    const route = session.view.route(block) ?? [];
    if (claimant === members.self) {
      await fromOriginOrOutside(reception, dependencies);
      session.hurry();
      return;
    }
    let rerouted = false;
    for (const worker of route) {
      if (members.isSuspected(worker)) continue;
      const attempt = new AbortController();
      const watch = watchAttempt(dependencies, fill, worker, claimant, attempt);
      try {
        await sources.fromPeer(reception, {
          worker,
          skipped: [],
          heldOnly: false,
          claimant,
          signal: attempt.signal,
        });
        return;
      } catch (thrown) {
        rerouted = attempt.signal.reason === reroute;
        if (rerouted) break;
        const error = toHeadpondError(thrown);
        if (signal.aborted || fill.phase !== "filling") throw error;
        if (error.details?.["gone"] === true) throw error;
        lastError = error;
        dependencies.logger.debug("a neighbour did not give a block", {
          id: file.id,
          block,
          worker,
          claimant,
          error: error.message,
        });
      } finally {
        watch.end();
      }
    }
    if (rerouted) {
      round--;
      continue;
    }
    await session.lost(block, claimant, signal);
  }
  throw lastError ?? new HeadpondError("unavailable", `block ${block} of ${file.id} went from hand to hand`);
}

/**
 * Ends an attempt when there is a better neighbour by now and no bytes have come, or when a neighbour that is not the claimant gives nothing for
 * a while: it may wait for somebody who waits for us, because all learn of a new order at different times.
 */
function watchAttempt(
  { session, clock }: ClaimedFetchDependencies,
  fill: Fill,
  worker: WorkerId,
  claimant: WorkerId,
  attempt: AbortController,
): { end(): void } {
  let bytes = fill.filledBytes;
  let changedMs = clock.monotonicMs();
  let lookedMs = changedMs;
  const { plan } = session.view;
  const look = (): void => {
    const now = clock.monotonicMs();
    // A look that comes late tells of this process: the bytes may lie in the socket.
    if (now - lookedMs > 2 * lookMs) changedMs = now;
    lookedMs = now;
    if (fill.filledBytes !== bytes) {
      bytes = fill.filledBytes;
      changedMs = now;
    } else if (now - changedMs > stallMs && worker !== claimant) {
      attempt.abort(new HeadpondError("timeout", `${worker} gave nothing for ${stallMs} ms`));
      return;
    } else if (
      session.view.plan !== plan &&
      now - changedMs > lookMs &&
      session.view.route(fill.block)?.[0] !== worker
    ) {
      attempt.abort(reroute);
      return;
    }
    timer = clock.timer(lookMs, look);
  };
  let timer = clock.timer(lookMs, look);
  return { end: () => timer.clear() };
}

/** A worker that takes no part in the load may hold it. */
async function fromOriginOrOutside(
  reception: Reception,
  { session, members, sources, signal }: ClaimedFetchDependencies,
): Promise<void> {
  const { fill } = reception;
  fill.readsOrigin = true;
  const failed = new Set<WorkerId>();
  for (const worker of await session.outsideHolders(fill.block)) {
    if (failed.has(worker) || members.isSuspected(worker)) continue;
    try {
      await sources.fromPeer(reception, { worker, skipped: [], heldOnly: true });
      return;
    } catch (error) {
      if (signal.aborted || fill.phase !== "filling") throw error;
      failed.add(worker);
    }
  }
  try {
    await sources.fromOrigin(reception);
  } catch (error) {
    await session.failed(fill.block);
    throw error;
  }
}
