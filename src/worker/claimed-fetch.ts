/**
 * One block of a file that several workers load: from the neighbour that gets it before us, or from the under store if the claim is ours.
 * A neighbour that fails is passed over for the one before it, and the bytes that have come stay: the next source goes on behind them.
 */

import { AttemptWatch, attemptLimits } from "../base/claim-attempt.ts";
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

const stalled = new HeadpondError("timeout", "a neighbour gave nothing for too long");
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
  let lastError: HeadpondError | undefined;
  for (let round = 0; round < roundsMax; round++) {
    if (file.isGone) throw file.goneError();
    const claimant = await session.claimant(block, signal);
    const route = session.view.route(block) ?? [];
    if (claimant === members.self) {
      if (await fromOriginOrOutside(reception, dependencies)) return;
      round--;
      continue;
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
        // Room is for bytes that come: workers whose room is taken by blocks that they wait for from each other would wait for ever.
        if (attempt.signal.reason === stalled) reception.giveUp();
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
    if (round > 0) reception.giveUp();
    await session.lost(block, claimant, signal);
  }
  if (lastError !== undefined) throw lastError;
  throw new HeadpondError("unavailable", `block ${block} of ${file.id} went from hand to hand`);
}

function watchAttempt(
  { session, clock }: ClaimedFetchDependencies,
  fill: Fill,
  worker: WorkerId,
  claimant: WorkerId,
  attempt: AbortController,
): { end(): void } {
  let attemptWatch = new AttemptWatch(fill.filledBytes, clock.monotonicMs());
  const { plan } = session.view;
  const look = (): void => {
    // It is we who are not ready, not the neighbour.
    if (fill.awaitsRoom) attemptWatch = new AttemptWatch(fill.filledBytes, clock.monotonicMs());
    const isBest = session.view.plan === plan || session.view.route(fill.block)?.[0] === worker;
    const isClaimant = worker === claimant;
    const isApart = !session.view.plan.ring.includes(worker);
    const verdict = attemptWatch.look(fill.filledBytes, clock.monotonicMs(), { isBest, isClaimant, isApart });
    if (verdict === "reroute") attempt.abort(reroute);
    if (verdict === "stalled") attempt.abort(stalled);
    if (verdict === "go-on") timer = clock.timer(attemptLimits.lookMs, look);
  };
  let timer = clock.timer(attemptLimits.lookMs, look);
  return { end: () => timer.clear() };
}

/** A worker that takes no part in the load may hold it. False: the claim has gone to somebody else, who goes on where we are. */
async function fromOriginOrOutside(
  reception: Reception,
  { session, members, sources, signal, clock }: ClaimedFetchDependencies,
): Promise<boolean> {
  const { fill } = reception;
  fill.readsOrigin = true;
  const failed = new Set<WorkerId>();
  for (const worker of await session.outsideHolders(fill.block)) {
    if (failed.has(worker) || members.isSuspected(worker)) continue;
    try {
      await sources.fromPeer(reception, { worker, skipped: [], heldOnly: true });
      session.hurry();
      return true;
    } catch (error) {
      if (signal.aborted || fill.phase !== "filling") throw error;
      failed.add(worker);
    }
  }
  const attempt = new AbortController();
  const look = (): void => {
    if (session.view.claimant(fill.block) === members.self) timer = clock.timer(attemptLimits.lookMs, look);
    else attempt.abort(reroute);
  };
  let timer = clock.timer(attemptLimits.lookMs, look);
  try {
    await sources.fromOrigin(reception, attempt.signal);
    session.hurry();
    return true;
  } catch (error) {
    if (error === reroute && fill.phase === "filling") return false;
    await session.failed(fill.block);
    throw error;
  } finally {
    timer.clear();
    fill.readsOrigin = false;
  }
}
