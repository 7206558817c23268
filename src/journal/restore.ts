/**
 * Begins the journal of a new cluster from what another one left: a backup, or the directory of a master that survived. The new one has an id of
 * its own, so that nobody takes what the old one's members, workers and clients still believe for true.
 *
 * It is built beside its place and moved there as a whole: what a crash leaves is removed by the next try.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { Xxh64 } from "../io/hash.ts";
import type { Logger } from "../io/logger.ts";
import { openBackup } from "./backup.ts";
import { type Checkpoint, Checkpoints, verifyCheckpoint } from "./checkpoints.ts";
import { formatJournal, type RaftFormat } from "./format.ts";
import { checkpointsAtRest, effectiveEntries, journalStatusAtRest } from "./inspect.ts";
import type { Entry } from "./journal.ts";
import { checkpointDirectory, lockPath, walDirectory } from "./journal-meta.ts";
import { recordType, type WalRecord } from "./record.ts";
import { defaultWalLimits, Wal } from "./wal.ts";

const copyBytes = 1024 * 1024;

/** A checkpoint and what was recorded behind it. */
export type RestoreSource = {
  readonly clusterId: ClusterId;
  readonly checkpoint: Pick<Checkpoint, "index" | "term" | "digest" | "bytes" | "xxh64" | "path"> | undefined;
  readonly lastIndex: number;
  readonly entries: () => AsyncIterable<readonly Entry[]>;
};

/** Throws `not-found`, `corrupt`. */
export async function backupSource(disk: Disk, directory: string): Promise<RestoreSource> {
  const { about, statePath, entries } = await openBackup(disk, directory);
  const { clusterId, checkpoint, toIndex } = about;
  return {
    clusterId,
    checkpoint: checkpoint === undefined ? undefined : { ...checkpoint, path: statePath },
    lastIndex: toIndex,
    entries,
  };
}

/**
 * Everything in the log of a master that does not run, committed or not: nobody is left to ask. Only read. Throws `corrupt` for damage,
 * `unavailable` while it is in use.
 */
export async function survivorSource(disk: Disk, journalDirectory: string): Promise<RestoreSource> {
  const lock = await disk.lock(lockPath(journalDirectory));
  if (lock === undefined) {
    throw new HeadpondError("unavailable", `${journalDirectory}: in use by another process: stop that master first`);
  }
  await lock.release();
  const { meta, firstIndex, lastIndex } = await journalStatusAtRest(disk, journalDirectory);
  const known = await checkpointsAtRest(disk, journalDirectory);
  const checkpoint = await newestSound(
    disk,
    known.filter(({ index }) => index >= firstIndex - 1),
  );
  if (checkpoint === undefined && firstIndex > 1) {
    const message = `${journalDirectory}: the log begins at ${firstIndex}, and there is no sound checkpoint before that`;
    throw new HeadpondError("corrupt", message);
  }
  const from = (checkpoint?.index ?? 0) + 1;
  return {
    clusterId: meta.clusterId,
    checkpoint,
    lastIndex: Math.max(lastIndex, checkpoint?.index ?? 0),
    entries: () => effectiveEntries(disk, journalDirectory, from),
  };
}

async function newestSound(disk: Disk, known: readonly Checkpoint[]): Promise<Checkpoint | undefined> {
  for (const checkpoint of [...known].reverse()) {
    try {
      await verifyCheckpoint(disk, checkpoint);
      return checkpoint;
    } catch (error) {
      // An older one and more of the log give the same state.
      if (!isHeadpondError(error, "corrupt")) throw error;
    }
  }
  return undefined;
}

export type RestoreOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly source: RestoreSource;
  /** Of the new journal; must not exist. */
  readonly directory: string;
  readonly clusterId: ClusterId;
  /** For the first of several masters; absent: a local journal. */
  readonly raft?: Omit<RaftFormat, "founders"> & { readonly address: string };
  readonly segmentBytes?: number;
  /** Last entry to restore; by default all. */
  readonly toIndex?: number;
  readonly onProgress?: (done: { readonly bytes: number; readonly index: number }) => void;
};

export type Restored = { readonly clusterId: ClusterId; readonly index: number; readonly term: number };

/** Throws `already-exists`, `invalid` for an index that the source does not reach, `corrupt`, `no-space`. */
export async function restoreJournal(options: RestoreOptions): Promise<Restored> {
  const { disk, source, directory, clusterId } = options;
  const { checkpoint, lastIndex } = source;
  const toIndex = options.toIndex ?? lastIndex;
  const firstIndex = checkpoint?.index ?? 0;
  if (toIndex < firstIndex || toIndex > lastIndex) {
    throw new HeadpondError(
      "invalid",
      `index ${toIndex} cannot be restored: this source reaches from ${firstIndex} to ${lastIndex}`,
    );
  }
  const slash = directory.lastIndexOf("/");
  const parent = directory.slice(0, slash);
  await disk.makeDirectory(parent);
  if ((await disk.list(parent)).includes(directory.slice(slash + 1))) {
    throw new HeadpondError("already-exists", `${directory} exists: a journal is restored into a new directory`);
  }
  const unfinished = `${directory}.restoring`;
  await disk.removeTree(unfinished);
  try {
    const restored = await build({ ...options, directory: unfinished }, toIndex);
    await disk.rename(unfinished, directory);
    await disk.syncDirectory(parent);
    return { clusterId, ...restored };
  } catch (error) {
    await disk.removeTree(unfinished);
    throw error;
  }
}

async function build(options: RestoreOptions, toIndex: number): Promise<{ index: number; term: number }> {
  const { disk, clock, logger, source, directory, clusterId, raft } = options;
  const founder =
    raft === undefined
      ? undefined
      : { id: raft.id, incarnation: raft.incarnation, founders: { [raft.id]: raft.address } };
  const { segmentBytes = defaultWalLimits.segmentBytes } = options;
  await formatJournal({
    disk,
    clock,
    directory,
    clusterId,
    segmentBytes,
    ...(founder === undefined ? {} : { raft: founder }),
  });
  const { checkpoint } = source;
  if (checkpoint !== undefined) await bringCheckpoint(options, checkpoint);
  const wal = await Wal.open({
    disk,
    clock,
    logger,
    directory: walDirectory(directory),
    clusterId,
    limits: { ...defaultWalLimits, segmentBytes },
    onFatal: (error) => logger.error("the new log failed", { error }),
  });
  try {
    if (checkpoint !== undefined) await wal.restart(checkpoint.index, checkpoint.term);
    for await (const entries of source.entries()) {
      const records = entries.filter(({ index }) => index <= toIndex).map(toRecord);
      for (let done = 0; done < records.length; ) done += await wal.append(records.slice(done));
      options.onProgress?.({ bytes: wal.bytes, index: wal.lastIndex });
      if (records.length < entries.length) break;
    }
    if (wal.lastIndex !== toIndex) {
      throw new HeadpondError("corrupt", `the source ends at entry ${wal.lastIndex}, ${toIndex} was promised`);
    }
    // The new cluster's first term comes behind all that were.
    const { lastIndex, lastTerm } = wal;
    await wal.append([
      { type: recordType.hardState, index: lastIndex + 1, term: lastTerm, payload: new Uint8Array(0) },
    ]);
    return { index: lastIndex, term: lastTerm };
  } finally {
    await wal.close();
  }
}

/** Memberships mean nothing in the new cluster. */
function toRecord({ index, term, payload }: Entry): WalRecord {
  return { type: recordType.entry, index, term, payload };
}

async function bringCheckpoint(
  { disk, directory }: RestoreOptions,
  checkpoint: NonNullable<RestoreSource["checkpoint"]>,
): Promise<void> {
  const copy = `${checkpointDirectory(directory)}/arriving`;
  const from = await disk.open(checkpoint.path, "read");
  const to = await disk.open(copy, "create");
  const sum = new Xxh64();
  let bytes = 0;
  try {
    const buffer = new Uint8Array(copyBytes);
    for (;;) {
      const count = await from.read(buffer, bytes);
      if (count === 0) break;
      const piece = buffer.subarray(0, count);
      sum.update(piece);
      await to.write(piece, bytes);
      bytes += count;
    }
    await to.datasync();
  } finally {
    await from.close();
    await to.close();
  }
  if (bytes !== checkpoint.bytes || sum.hex() !== checkpoint.xxh64) {
    throw new HeadpondError("corrupt", `${checkpoint.path}: offset 0: it is not the checkpoint that was saved`, {
      details: { file: checkpoint.path, offset: 0 },
    });
  }
  const { index, term, digest, xxh64 } = checkpoint;
  const checkpoints = new Checkpoints({ disk, directory: checkpointDirectory(directory) });
  await checkpoints.adopt(copy, { index, term, digest, bytes, xxh64, configuration: undefined });
}
