/** Makes a new, empty journal in a directory. */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { checkpointDirectory, walDirectory, writeMeta } from "./journal-meta.ts";
import { defaultWalLimits, Wal } from "./wal.ts";

export type FormatJournalOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  /** Made if absent; must be empty. */
  readonly directory: string;
  readonly clusterId: ClusterId;
  readonly segmentBytes?: number;
};

/** Throws `already-exists` if the directory is not empty: a journal is never overwritten. */
export async function formatJournal(options: FormatJournalOptions): Promise<void> {
  const { disk, clock, directory, clusterId, segmentBytes = defaultWalLimits.segmentBytes } = options;
  if (Buffer.byteLength(clusterId, "utf8") === 0) throw new HeadpondError("invalid", "the cluster id is empty");
  await disk.makeDirectory(directory);
  const names = await disk.list(directory);
  if (names.length > 0) {
    throw new HeadpondError(
      "already-exists",
      `${directory}: not empty (${names.slice(0, 3).join(", ")}${names.length > 3 ? ", ..." : ""}): a journal is made only in an empty directory`,
    );
  }
  await disk.makeDirectory(checkpointDirectory(directory));
  await disk.makeDirectory(walDirectory(directory));
  await Wal.create({ disk, directory: walDirectory(directory), clusterId, segmentBytes });
  // Last: a directory without it was never formatted, whatever else a crash left there.
  await writeMeta(disk, directory, clusterId, clock.wallMs());
  await syncParents(disk, directory);
}

/** Makes the directory's own name durable, and those above it, which may be new too. */
async function syncParents(disk: Disk, directory: string): Promise<void> {
  for (let end = directory.lastIndexOf("/"); end >= 0; end = directory.lastIndexOf("/", end - 1)) {
    try {
      await disk.syncDirectory(end === 0 ? "/" : directory.slice(0, end));
    } catch (error) {
      // What we may not open we did not make.
      if ((error as { code?: unknown }).code !== "EACCES") throw error;
    }
    if (end === 0) return;
  }
}
