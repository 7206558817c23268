/**
 * Which file versions go when space is needed: the least recently read ones, always whole, never one that is pinned,
 * open, or being brought in by a running job. Pure; the cache unlinks what is chosen.
 */

import type { FileVersionId } from "../base/ids.ts";

export type EvictionCandidate = {
  readonly id: FileVersionId;
  /** Space that comes back: the reservation, i.e. the file's size. */
  readonly reservedBytes: number;
  readonly lastAccessMs: number;
  readonly pinned: boolean;
  readonly open: boolean;
  /** A running load job or fill wants it. */
  readonly protected: boolean;
};

export function isEvictable(candidate: EvictionCandidate): boolean {
  return !candidate.pinned && !candidate.open && !candidate.protected;
}

/** The fewest least-recently-read versions that free `bytesNeeded`; undefined when all that may go would not be enough. */
export function chooseEvictions(
  candidates: readonly EvictionCandidate[],
  bytesNeeded: number,
): readonly FileVersionId[] | undefined {
  if (bytesNeeded <= 0) return [];
  const chosen: FileVersionId[] = [];
  let freed = 0;
  const order = candidates
    .filter(isEvictable)
    .sort((a, b) => a.lastAccessMs - b.lastAccessMs || (a.id < b.id ? -1 : 1));
  for (const candidate of order) {
    chosen.push(candidate.id);
    freed += candidate.reservedBytes;
    if (freed >= bytesNeeded) return chosen;
  }
  return undefined;
}
