/**
 * Which workers a reader asks, and in which order: the one on its own host first (it serves what it holds, or fetches and
 * then keeps it), then live holders by nearness, then others by nearness. Ties are broken by a hash of file and worker, so
 * that readers without a worker of their own spread, and the same file goes to the same worker.
 */

import type { WorkerAddress } from "../base/cluster.ts";
import type { BlockIndex, FileVersionId, WorkerId } from "../base/ids.ts";
import { nearness, type Place } from "../base/place.ts";
import { ownerOrder } from "../base/rendezvous.ts";

/** Workers tried for one read, however many there are. */
export const candidatesMax = 8;

export type WorkerChoiceRequest = {
  readonly file: FileVersionId;
  readonly holders: readonly WorkerId[];
  readonly workers: readonly WorkerAddress[];
  readonly place: Place | undefined;
  /** This worker before all others: a gateway's own. */
  readonly preferred?: WorkerId | undefined;
  /** Failed a moment ago: after all others. */
  readonly isAvoided?: (worker: WorkerId) => boolean;
};

/** From the first to ask to the last; empty when there is no live worker. */
export function chooseWorkers(request: WorkerChoiceRequest): readonly WorkerAddress[] {
  const holders = new Set(request.holders);
  const spread = ownerOrder(
    request.file,
    0 as BlockIndex,
    request.workers.map((worker) => worker.id),
  );
  const spreadRank = new Map(spread.map((id, rank) => [id, rank]));
  const rank = (worker: WorkerAddress): readonly number[] => {
    const near = request.place === undefined ? 0 : nearness(request.place, worker.place);
    return [
      request.isAvoided?.(worker.id) === true ? 1 : 0,
      worker.id === request.preferred ? 0 : 1,
      near === 4 ? 0 : 1,
      holders.has(worker.id) ? 0 : 1,
      -near,
      spreadRank.get(worker.id) ?? 0,
    ];
  };
  return request.workers
    .map((worker) => ({ worker, rank: rank(worker) }))
    .sort((a, b) => compareRanks(a.rank, b.rank))
    .slice(0, candidatesMax)
    .map(({ worker }) => worker);
}

function compareRanks(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference;
  }
  return 0;
}
