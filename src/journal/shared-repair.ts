/**
 * Rebuilds the state of a master at rest that has a shared journal: its own state and its copies of checkpoints are thrown away, and the next start takes
 * a checkpoint and the log from the store. Nothing that the cluster needs is in them.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Disk } from "../io/disk.ts";
import { silentLogger } from "../io/logger.ts";
import { Checkpoints } from "./checkpoints.ts";
import { checkpointDirectory, lockPath } from "./journal-meta.ts";
import { readSharedIdentity } from "./shared-place.ts";
import { StateTrust } from "./state-trust.ts";

export type DiscardStateOptions = {
  readonly disk: Disk;
  /** Of the journal; no process may use it. */
  readonly directory: string;
  /** Removes the state beside the journal. */
  readonly removeState: () => Promise<void>;
};

/** False: the directory is of another kind of journal. Throws `unavailable` while it is in use. */
export async function discardSharedState(options: DiscardStateOptions): Promise<boolean> {
  const { disk, directory, removeState } = options;
  if ((await readSharedIdentity(disk, directory)) === undefined) return false;
  const lock = await disk.lock(lockPath(directory));
  if (lock === undefined) {
    throw new HeadpondError("unavailable", `${directory}: in use by another process: stop this master first`);
  }
  try {
    const trust = new StateTrust({ disk, directory, bootId: undefined, logger: silentLogger });
    // First: whatever is left after a crash in between is not trusted.
    await trust.markRebuilding();
    const checkpoints = new Checkpoints({ disk, directory: checkpointDirectory(directory) });
    await checkpoints.open(() => {});
    for (const { index } of checkpoints.known) await checkpoints.forget(index);
    await removeState();
    await trust.clearDiverged();
    return true;
  } finally {
    await lock.release();
  }
}
