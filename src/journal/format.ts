/** Makes a new, empty journal in a directory. */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { configurationOf } from "../raft/membership.ts";
import { checkpointDirectory, walDirectory, writeMeta } from "./journal-meta.ts";
import { type RaftIdentityFile, writeIdentity } from "./raft-identity.ts";
import { checkNodeId } from "./raft-writer.ts";
import { defaultWalLimits, Wal } from "./wal.ts";

export type FormatJournalOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  /** Made if absent; must be empty. */
  readonly directory: string;
  readonly clusterId: ClusterId;
  readonly segmentBytes?: number;
  /** For a master of several: without it the journal is a local one. */
  readonly raft?: RaftFormat;
};

export type RaftFormat = {
  /** Names this master in its cluster, for ever. */
  readonly id: string;
  /** Random: names this disk. */
  readonly incarnation: string;
  /**
   * All masters that the cluster begins with, this one among them, and where their journals listen (`host:port`). The same for each of them.
   * `undefined`: this master joins a cluster that exists, when that adds it.
   */
  readonly founders: Readonly<Record<string, string>> | undefined;
};

/** Throws `already-exists` if the directory is not empty: a journal is never overwritten. */
export async function formatJournal(options: FormatJournalOptions): Promise<void> {
  const { disk, clock, directory, clusterId, segmentBytes = defaultWalLimits.segmentBytes, raft } = options;
  if (Buffer.byteLength(clusterId, "utf8") === 0) throw new HeadpondError("invalid", "the cluster id is empty");
  const identity = raft === undefined ? undefined : identityOf(raft);
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
  if (identity !== undefined) await writeIdentity(disk, directory, identity);
  // Last: a directory without it was never formatted, whatever else a crash left there.
  await writeMeta(disk, directory, clusterId, clock.wallMs());
  await syncParents(disk, directory);
}

/** Throws `invalid`. */
function identityOf({ id, incarnation, founders }: RaftFormat): RaftIdentityFile {
  checkNodeId(id);
  if (incarnation === "") throw new HeadpondError("invalid", "the incarnation is empty");
  if (founders === undefined) return { id, incarnation, founders: undefined, met: undefined };
  for (const founder of Object.keys(founders)) checkNodeId(founder);
  if (!Object.hasOwn(founders, id)) {
    const all = Object.keys(founders).join(", ");
    throw new HeadpondError(
      "invalid",
      `${id} is not among the founders ${all}: check master.id and journal.raft.members, or format it to join`,
    );
  }
  const members = Object.entries(founders).map(([name, address]) => [name, { address, incarnation: "" }] as const);
  const configuration = { ...configurationOf(Object.keys(founders)), members: Object.fromEntries(members) };
  return { id, incarnation, founders: configuration, met: undefined };
}

/** Makes the directory's own name durable, and those above it, which may be new too. */
export async function syncParents(disk: Disk, directory: string): Promise<void> {
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
