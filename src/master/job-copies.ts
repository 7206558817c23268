/**
 * What has too few whole copies on workers that stay, and where more of them shall go: for workers that are drained and for replica
 * targets. The files of a model are copied together, because a model is of use only as a whole; others one by one. Pure.
 */

import type { FileDescriptor } from "../base/file.ts";
import type { WorkerId } from "../base/ids.ts";
import { modelOf, modelRoots } from "../base/model-roots.ts";
import type { Path } from "../base/path.ts";
import { nearness, type Place } from "../base/place.ts";

export type Wanted = {
  readonly file: FileDescriptor;
  /** Whole copies that there shall be. */
  readonly copies: number;
  /** Copies go near to it, if that is possible. */
  readonly near?: Place;
};

export type CopyWorker = {
  readonly id: WorkerId;
  readonly place: Place;
  /** Of its cache, what could be given to something new. */
  readonly roomBytes: number;
};

/** One load: a model or a file onto these workers. */
export type CopyTask = {
  readonly path: Path;
  readonly bytes: number;
  readonly workers: readonly WorkerId[];
  /** Copies for which no worker was found. */
  readonly lacking: number;
};

export type CopyInput = {
  readonly wanted: readonly Wanted[];
  /** Workers that may be chosen; copies elsewhere do not count. */
  readonly workers: readonly CopyWorker[];
  readonly isWhole: (worker: WorkerId, file: FileDescriptor) => boolean;
  /** Workers that a running job brings this path to. */
  readonly underWay: (path: Path) => ReadonlySet<WorkerId>;
};

type Group = { readonly path: Path; readonly files: FileDescriptor[]; copies: number; near: Place | undefined };

export function planCopies({ wanted, workers, isWhole, underWay }: CopyInput): CopyTask[] {
  const tasks: CopyTask[] = [];
  const roomBytes = new Map(workers.map((worker) => [worker.id, worker.roomBytes]));
  for (const { path, files, copies, near } of groupsOf(wanted)) {
    const coming = underWay(path);
    const heldBytes = new Map(
      workers.map(({ id }) => [id, files.reduce((sum, file) => sum + (isWhole(id, file) ? file.sizeBytes : 0), 0)]),
    );
    const bytes = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const held = (id: WorkerId): number => heldBytes.get(id) ?? 0;
    const counts = ({ id }: CopyWorker): boolean => coming.has(id) || files.every((file) => isWhole(id, file));
    const missing = copies - workers.filter(counts).length;
    if (missing <= 0) continue;
    const nearTo = (worker: CopyWorker): number => (near === undefined ? 0 : Math.min(2, nearness(worker.place, near)));
    const fit = workers
      .filter((worker) => !counts(worker) && bytes - held(worker.id) <= (roomBytes.get(worker.id) ?? 0))
      .sort(
        (a, b) =>
          nearTo(b) - nearTo(a) ||
          held(b.id) - held(a.id) ||
          (roomBytes.get(b.id) ?? 0) - (roomBytes.get(a.id) ?? 0) ||
          (a.id < b.id ? -1 : 1),
      )
      .slice(0, missing);
    for (const { id } of fit) roomBytes.set(id, (roomBytes.get(id) ?? 0) - (bytes - held(id)));
    tasks.push({ path, bytes, workers: fit.map(({ id }) => id), lacking: missing - fit.length });
  }
  return tasks;
}

function groupsOf(wanted: readonly Wanted[]): Iterable<Group> {
  const roots = modelRoots(wanted.map(({ file }) => file.path));
  const groups = new Map<Path, Group>();
  for (const { file, copies, near } of wanted) {
    const path = modelOf(file.path, roots) ?? file.path;
    const group = groups.get(path);
    if (group === undefined) {
      groups.set(path, { path, files: [file], copies, near });
      continue;
    }
    group.files.push(file);
    group.copies = Math.max(group.copies, copies);
    group.near ??= near;
  }
  return groups.values();
}

/** Copies beyond `max`, one list a worker; what is pinned is kept. Those of the fullest workers go. */
export function surplusCopies(
  files: readonly { readonly file: FileDescriptor; readonly max: number; readonly holders: readonly WorkerId[] }[],
  roomBytes: (worker: WorkerId) => number,
): Map<WorkerId, FileDescriptor["id"][]> {
  const surplus = new Map<WorkerId, FileDescriptor["id"][]>();
  for (const { file, max, holders } of files) {
    if (file.pinned || max <= 0 || holders.length <= max) continue;
    const going = holders.toSorted((a, b) => roomBytes(a) - roomBytes(b) || (a < b ? -1 : 1)).slice(0, -max);
    for (const worker of going) surplus.set(worker, [...(surplus.get(worker) ?? []), file.id]);
  }
  return surplus;
}
