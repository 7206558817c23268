/**
 * Makes a local journal at rest the journal of the first of several masters, and back. The log is the same; what is added is
 * `raft.json`, written in one step, so that a crash leaves the one or the other. It can be taken back until the master has
 * started once with it: from then on it may have promised something to others.
 */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Disk } from "../io/disk.ts";
import { configurationOf } from "../raft/membership.ts";
import { lockPath, readMeta } from "./journal-meta.ts";
import { readIdentity, removeIdentity, writeIdentity } from "./raft-identity.ts";
import { checkNodeId } from "./raft-writer.ts";

export type ConvertOptions = {
  readonly disk: Disk;
  /** Of the journal. No process may use it. */
  readonly directory: string;
};

export type FirstOfSeveral = {
  readonly id: string;
  /** `host:port` by which the others will reach its journal. */
  readonly address: string;
  /** Random: names this disk. */
  readonly incarnation: string;
};

/** False: it is that already. Throws `invalid` when it is another member's, `unavailable` while it is in use. */
export async function convertToRaft(
  options: ConvertOptions & FirstOfSeveral,
): Promise<{ readonly changed: boolean; readonly clusterId: ClusterId }> {
  const { disk, directory, id, address, incarnation } = options;
  checkNodeId(id);
  return atRest(options, async (clusterId) => {
    const present = await readIdentity(disk, directory);
    if (present !== undefined) {
      const at = present.founders?.members[id]?.address;
      if (present.id === id && (present.met !== undefined || at === address)) return { changed: false, clusterId };
      throw new HeadpondError(
        "invalid",
        `${directory} is of member ${present.id}${at === undefined ? "" : ` at ${at}`} already, not of ${id} at ${address}`,
      );
    }
    const founders = { ...configurationOf([id]), members: { [id]: { address, incarnation: "" } } };
    await writeIdentity(disk, directory, { id, incarnation, founders, met: undefined });
    return { changed: true, clusterId };
  });
}

/** False: it is local already. Throws `invalid` when the master has started as one of several. */
export async function convertToLocal(
  options: ConvertOptions,
): Promise<{ readonly changed: boolean; readonly clusterId: ClusterId }> {
  const { disk, directory } = options;
  return atRest(options, async (clusterId) => {
    const present = await readIdentity(disk, directory);
    if (present === undefined) return { changed: false, clusterId };
    if (present.met !== undefined || present.founders?.voters.length !== 1) {
      throw new HeadpondError(
        "invalid",
        `${directory} is of member ${present.id} of a Raft cluster, and has started as such: it cannot be made local again`,
      );
    }
    await removeIdentity(disk, directory);
    return { changed: true, clusterId };
  });
}

async function atRest<T>({ disk, directory }: ConvertOptions, work: (clusterId: ClusterId) => Promise<T>): Promise<T> {
  const { clusterId } = await readMeta(disk, directory);
  const lock = await disk.lock(lockPath(directory));
  if (lock === undefined)
    throw new HeadpondError("unavailable", `${directory}: in use by another process: stop it first`);
  try {
    return await work(clusterId);
  } finally {
    await lock.release();
  }
}
