/**
 * A master's directory: `journal/` (the log and its checkpoints), `state/` (LMDB) and a lock. What makes one: `format`, the first
 * start, joining; and what must never happen: two processes on one directory, or a journal that is overwritten.
 */

import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { HeadpondError } from "../base/errors.ts";
import type { ClusterId, MasterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk, DiskLock } from "../io/disk.ts";
import { formatJournal } from "../journal/format.ts";
import { readMeta } from "../journal/journal-meta.ts";
import { settleMoves } from "../journal/migration.ts";
import { formatSharedJournal } from "../journal/shared-format.ts";
import type { SharedStore } from "../journal/shared-store.ts";

/** Held by the process that works on the directory. */
const lockName = "lock";
/** A journal that is being made; it gets its name when it is whole. */
const unfinishedName = "journal.unfinished";
/** What is not ours and in nobody's way: `mkfs.ext4` leaves it in the root of every disk. */
const ignoredNames: readonly string[] = [lockName, "lost+found", unfinishedName];

export function journalDirectory(masterDirectory: string): string {
  return join(masterDirectory, "journal");
}

export function stateDirectory(masterDirectory: string): string {
  return join(masterDirectory, "state");
}

/** What a new journal is the beginning of. */
export type NewJournal = { readonly clusterId: ClusterId } & (
  | { readonly type: "local" }
  /** `founders`: by id, `host:port` of their journals; without them it waits until a leader has it as a member. */
  | { readonly type: "raft"; readonly id: MasterId; readonly founders: Readonly<Record<string, string>> | undefined }
  /** The log is in `store`, which becomes this cluster's if it is nobody's. */
  | { readonly type: "zookeeper"; readonly id: MasterId; readonly store: SharedStore }
);

/**
 * Before anything in the directory is opened or made: a second process would write into the state of the first one, and
 * two that find it empty would both format it.
 */
export async function lockMaster(disk: Disk, directory: string): Promise<DiskLock> {
  await disk.makeDirectory(directory);
  const lock = await disk.lock(join(directory, lockName));
  if (lock !== undefined) {
    // A move that an earlier process made may have left names to put in order.
    await settleMoves(disk, directory);
    return lock;
  }
  throw new HeadpondError(
    "unavailable",
    `${directory}: already in use by another process: stop it, or choose another directory`,
  );
}

/** Of a locked directory. */
export async function isEmpty(disk: Disk, directory: string): Promise<boolean> {
  return (await namesIn(disk, directory)).length === 0;
}

type FormatOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly directory: string;
  readonly journal: NewJournal;
  readonly erase?: string | undefined;
  readonly segmentBytes?: number;
};

/**
 * Throws `already-exists` unless the directory is empty, or `erase` is the id of the cluster in it; `unavailable` while a
 * master runs on it.
 */
export async function formatMaster(options: FormatOptions): Promise<void> {
  const lock = await lockMaster(options.disk, options.directory);
  try {
    await formatLocked(options);
  } finally {
    await lock.release();
  }
}

export async function formatLocked(options: FormatOptions): Promise<void> {
  const { disk, clock, directory, journal, erase } = options;
  if (erase !== undefined) {
    const present = await readMeta(disk, journalDirectory(directory));
    if (present.clusterId !== erase) {
      throw new HeadpondError(
        "denied",
        `${directory} belongs to cluster ${present.clusterId}, not ${erase}: nothing was erased`,
      );
    }
    await disk.removeTree(stateDirectory(directory));
    await disk.removeTree(journalDirectory(directory));
  }
  const names = await namesIn(disk, directory);
  if (names.length > 0) {
    throw new HeadpondError(
      "already-exists",
      `${directory} is not empty (${names.slice(0, 3).join(", ")}): choose another, or erase it with --erase CLUSTER-ID`,
    );
  }
  const { clusterId } = journal;
  const raft =
    journal.type === "raft"
      ? { raft: { id: journal.id, incarnation: randomUUID() as string, founders: journal.founders } }
      : {};
  const size = options.segmentBytes === undefined ? {} : { segmentBytes: options.segmentBytes };
  const unfinished = join(directory, unfinishedName);
  await disk.removeTree(unfinished);
  if (journal.type === "zookeeper") {
    await formatSharedJournal({ disk, clock, store: journal.store, directory: unfinished, id: journal.id, clusterId });
  } else {
    await formatJournal({ disk, clock, directory: unfinished, clusterId, ...size, ...raft });
  }
  await disk.rename(unfinished, journalDirectory(directory));
  await disk.syncDirectory(directory);
}

async function namesIn(disk: Disk, directory: string): Promise<readonly string[]> {
  return (await disk.list(directory)).filter((name) => !ignoredNames.includes(name));
}
