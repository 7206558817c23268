/** Makes a new, empty shared journal in a store, and the directory of one of its masters. */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { syncParents } from "./format.ts";
import { checkpointDirectory, writeMeta } from "./journal-meta.ts";
import { checkNodeId } from "./raft-writer.ts";
import { clusterName } from "./shared-names.ts";
import { decodeObject, encodeObject, objectKind } from "./shared-object.ts";
import { writeSharedIdentity } from "./shared-place.ts";
import type { SharedStore } from "./shared-store.ts";

export type FormatSharedJournalOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly store: SharedStore;
  /** Local, of this master. Made if absent; must be empty. */
  readonly directory: string;
  /** Names this master in its cluster. */
  readonly id: string;
  /** Of a new cluster, or of the one whose journal the store holds: this master then joins it. */
  readonly clusterId: ClusterId;
};

/** Whose journal is in the store; `undefined`: nobody's. Throws `corrupt`, and what the store throws. */
export async function readSharedCluster(store: SharedStore, signal?: AbortSignal): Promise<ClusterId | undefined> {
  const bytes = await store.read(clusterName, signal);
  return bytes === undefined ? undefined : decodeObject(clusterName, bytes, undefined).head.cluster;
}

/**
 * True: the store is new, and this cluster's from now on; false: it was this cluster's. Throws `already-exists` if it is another's: a journal is
 * never overwritten.
 */
export async function claimSharedStore(store: SharedStore, clusterId: ClusterId, createdMs: number): Promise<boolean> {
  if (Buffer.byteLength(clusterId, "utf8") === 0) throw new HeadpondError("invalid", "the cluster id is empty");
  const before = await readSharedCluster(store);
  const head = { cluster: clusterId, name: clusterName, mark: clusterId, createdMs };
  const isNew =
    before === undefined && (await store.create(clusterName, encodeObject(objectKind.cluster, head))) === "created";
  const found = await readSharedCluster(store);
  if (found === clusterId) return isNew;
  throw new HeadpondError(
    "already-exists",
    `${store.uri}: the journal of cluster ${found} is here: give its id to let a master join it, or choose another place for a new cluster`,
  );
}

/** Whether the store is new. Throws `already-exists` if the store is another cluster's, or the directory not empty. */
export async function formatSharedJournal(options: FormatSharedJournalOptions): Promise<{ readonly isNew: boolean }> {
  const { disk, clock, store, directory, id, clusterId } = options;
  checkNodeId(id);
  await disk.makeDirectory(directory);
  const names = await disk.list(directory);
  if (names.length > 0) {
    throw new HeadpondError(
      "already-exists",
      `${directory}: not empty (${names.slice(0, 3).join(", ")}${names.length > 3 ? ", ..." : ""}): a journal is made only in an empty directory`,
    );
  }
  const isNew = await claimSharedStore(store, clusterId, clock.wallMs());
  await formatSharedDirectory({ disk, clock, directory, id, clusterId });
  return { isNew };
}

/** The local part alone. The directory is there. */
export async function formatSharedDirectory(options: Omit<FormatSharedJournalOptions, "store">): Promise<void> {
  const { disk, clock, directory, id, clusterId } = options;
  await disk.makeDirectory(checkpointDirectory(directory));
  await writeSharedIdentity(disk, directory, id);
  // Last: a directory without it was never formatted, whatever else a crash left there.
  await writeMeta(disk, directory, clusterId, clock.wallMs());
  await syncParents(disk, directory);
}
