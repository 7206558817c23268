/**
 * Which file versions go when space is needed: the least recently read ones, always whole, never one that is pinned,
 * open, or being brought in by a running job. The files of a model that are all complete here may be what makes it READY on this
 * worker: they go together or stay together, so that nothing is left behind that is of no use. Pure; the cache unlinks what is chosen.
 */

import type { FileVersionId } from "../base/ids.ts";

export type EvictionCandidate = {
  readonly id: FileVersionId;
  /** The model that it is part of; undefined: none. */
  readonly model: string | undefined;
  /** Space that comes back where it is needed: the reservation, i.e. the file's size; 0 in another cache directory. */
  readonly reservedBytes: number;
  readonly lastAccessMs: number;
  readonly complete: boolean;
  readonly pinned: boolean;
  readonly open: boolean;
  /** A running load job or fill wants it. */
  readonly protected: boolean;
};

export function isEvictable(candidate: Pick<EvictionCandidate, "pinned" | "open" | "protected">): boolean {
  return !candidate.pinned && !candidate.open && !candidate.protected;
}

/** What goes in one step. */
type Unit = {
  readonly files: readonly EvictionCandidate[];
  readonly bytes: number;
  readonly lastAccessMs: number;
  readonly id: FileVersionId;
};

/** The least recently read versions that free `bytesNeeded`; undefined when all that may go would not be enough. */
export function chooseEvictions(
  candidates: readonly EvictionCandidate[],
  bytesNeeded: number,
): readonly FileVersionId[] | undefined {
  if (bytesNeeded <= 0) return [];
  const chosen: FileVersionId[] = [];
  let freed = 0;
  const order = unitsOf(candidates).sort((a, b) => a.lastAccessMs - b.lastAccessMs || (a.id < b.id ? -1 : 1));
  for (const { files, bytes } of order) {
    if (bytes === 0) continue;
    for (const { id } of files) chosen.push(id);
    freed += bytes;
    if (freed >= bytesNeeded) return chosen;
  }
  return undefined;
}

/** What can never be freed by evictions as things are: others must not count on it. */
export function unevictableBytes(candidates: readonly EvictionCandidate[]): number {
  const all = candidates.reduce((sum, { reservedBytes }) => sum + reservedBytes, 0);
  return all - unitsOf(candidates).reduce((sum, { bytes }) => sum + bytes, 0);
}

function unitsOf(candidates: readonly EvictionCandidate[]): Unit[] {
  const models = new Map<string, EvictionCandidate[]>();
  const units: Unit[] = [];
  for (const candidate of candidates) {
    if (candidate.model === undefined) {
      if (isEvictable(candidate)) units.push(unitOf([candidate]));
      continue;
    }
    const files = models.get(candidate.model);
    if (files === undefined) models.set(candidate.model, [candidate]);
    else files.push(candidate);
  }
  for (const files of models.values()) {
    if (files.every(({ complete }) => complete)) {
      if (files.every(isEvictable)) units.push(unitOf(files));
      continue;
    }
    // It is not READY: each of its files is as good or bad as any other.
    for (const file of files) if (isEvictable(file)) units.push(unitOf([file]));
  }
  return units;
}

function unitOf(files: readonly EvictionCandidate[]): Unit {
  let bytes = 0;
  let lastAccessMs = 0;
  let id: FileVersionId | undefined;
  for (const file of files) {
    bytes += file.reservedBytes;
    lastAccessMs = Math.max(lastAccessMs, file.lastAccessMs);
    if (id === undefined || file.id < id) id = file.id;
  }
  return { files, bytes, lastAccessMs, id: id as FileVersionId };
}
