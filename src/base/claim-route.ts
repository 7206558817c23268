/**
 * Where a worker takes a claimed block from; pure. The workers of a load stand in one or several rings. A block enters each ring at
 * one worker, its entry, and goes from neighbour to neighbour while it arrives: every uplink carries each block at most once (the
 * claimant's once more for every other ring), so that all of them are busy all the time and none is asked for more than it receives.
 *
 * Rings of equal length stand side by side: the claimant is the entry of its own ring, those at the same position enter the others.
 */

import type { WorkerId } from "./ids.ts";

export type RingPlan = {
  /** All workers of the load that feed others, in ring order; ring r is every `rings`-th of them, from r on. */
  readonly ring: readonly WorkerId[];
  /** How many rings stand side by side; 1 or more. */
  readonly rings: number;
};

/** Up to so many neighbours are named; the claimant is always the last one. */
const sourcesMax = 4;

/**
 * Whom `self` asks for a block that `claimant` has or brings in, the best one first. Empty: `self` is the claimant. Asking in this
 * order can make no circle: each answer comes from a worker that is nearer to the claimant.
 */
export function claimRoute(plan: RingPlan, self: WorkerId, claimant: WorkerId, block: number): readonly WorkerId[] {
  if (self === claimant) return [];
  const { ring, rings } = plan;
  const place = placeOf(plan, self);
  // Who feeds nobody takes blocks from all who do, in turn.
  if (place === -1) return outsideRoute(ring, claimant, block);
  const at = placeOf(plan, claimant);
  // A claimant outside of the rings gives its block to one of them, in turn, who is its entry.
  const entry = at === -1 ? block % ring.length : at;
  const chain: WorkerId[] = [];
  for (let next = place; next !== entry && chain.length < sourcesMax; ) {
    next = before(ring.length, rings, next, entry);
    chain.push(ring[next] as WorkerId);
  }
  if (chain.at(-1) === claimant) return chain;
  if (chain.length === sourcesMax) chain.pop();
  chain.push(claimant);
  return chain;
}

const places = new WeakMap<RingPlan, ReadonlyMap<WorkerId, number>>();

/** -1: outside of the rings. A plan never changes, so its places are kept. */
function placeOf(plan: RingPlan, worker: WorkerId): number {
  let known = places.get(plan);
  if (known === undefined) {
    known = new Map(plan.ring.map((member, at) => [member, at]));
    places.set(plan, known);
  }
  return known.get(worker) ?? -1;
}

/** The position that feeds position `at`, for blocks that come from position `from`. */
function before(length: number, rings: number, at: number, from: number): number {
  if (rings <= 1) return (at - 1 + length) % length;
  const row = Math.floor(at / rings);
  const entryRow = Math.floor(from / rings);
  if (row === entryRow) return from;
  const rows = Math.ceil(length / rings);
  const column = at % rings;
  for (let up = (row - 1 + rows) % rows; ; up = (up - 1 + rows) % rows) {
    const candidate = up * rings + column;
    // The last row may be short: those who lack a neighbour there have the one before.
    if (candidate < length) return candidate;
    if (up === entryRow) return from;
  }
}

function outsideRoute(ring: readonly WorkerId[], claimant: WorkerId, block: number): readonly WorkerId[] {
  const chain: WorkerId[] = [];
  for (let i = 0; i < Math.min(sourcesMax - 1, ring.length); i++) {
    const worker = ring[(block + i) % ring.length] as WorkerId;
    if (worker !== claimant) chain.push(worker);
  }
  chain.push(claimant);
  return chain;
}
