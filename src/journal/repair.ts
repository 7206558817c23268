/**
 * Rebuilds the state of a master at rest whose state differs from the others' (docs/raft-journal.md, failure modes): its own state and
 * checkpoints are put aside for a checkpoint of another master; its log, which holds what it has promised, stays as it is. The next start takes the
 * state from the checkpoint and applies the log behind it.
 *
 * A log that is damaged cannot be repaired so: what it had acknowledged is gone from this disk, which must come back as a new member.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Disk } from "../io/disk.ts";
import { silentLogger } from "../io/logger.ts";
import { configurationFromJson } from "../raft/membership.ts";
import type { BackupCheckpoint } from "./backup.ts";
import { Checkpoints } from "./checkpoints.ts";
import { verifyJournal } from "./inspect.ts";
import { checkpointDirectory, lockPath, readMeta } from "./journal-meta.ts";
import { readIdentity } from "./raft-identity.ts";
import { StateTrust } from "./state-trust.ts";

export type ReplaceStateOptions = {
  readonly disk: Disk;
  /** Of the journal; no process may use it. */
  readonly directory: string;
  /** Of another master of the same cluster; the file is moved away. */
  readonly checkpoint: BackupCheckpoint & { readonly path: string };
  readonly clusterId: string;
  /** Members as of the checkpoint, as JSON. */
  readonly configuration: string;
  /** Removes the state beside the journal. Called when the new checkpoint has its place. */
  readonly removeState: () => Promise<void>;
};

/** Throws `corrupt` if the log is damaged, `invalid` if the checkpoint is of another cluster or does not fit. */
export async function replaceState(options: ReplaceStateOptions): Promise<{ readonly index: number }> {
  const { disk, directory, checkpoint, clusterId, configuration } = options;
  const meta = await readMeta(disk, directory);
  if (meta.clusterId !== clusterId) {
    throw new HeadpondError("invalid", `${directory} is of cluster ${meta.clusterId}, the checkpoint of ${clusterId}`);
  }
  if ((await readIdentity(disk, directory)) === undefined) {
    throw new HeadpondError(
      "invalid",
      `${directory}: a single master has no peers to be rebuilt from: restore a backup`,
    );
  }
  const lock = await disk.lock(lockPath(directory));
  if (lock === undefined) {
    throw new HeadpondError("unavailable", `${directory}: in use by another process: stop this master first`);
  }
  try {
    const { details } = await verifyJournal(disk, directory);
    const damage = details.find(({ severity, file }) => severity === "damage" && file.includes("/wal"));
    if (damage !== undefined) {
      throw new HeadpondError(
        "corrupt",
        `${damage.file}: offset ${damage.offset}: ${damage.message}: the log itself is damaged. Let a new master take this one's place: ` +
          "headpond master --join HOST:PORT --replace ID, with an empty directory",
        { details: { file: damage.file, offset: damage.offset } },
      );
    }
    const folder = checkpointDirectory(directory);
    const checkpoints = new Checkpoints({ disk, directory: folder });
    await checkpoints.open(() => {});
    const { index, term, digest, bytes, xxh64 } = checkpoint;
    // Where they are equal in index the other's is wanted, not the own.
    await checkpoints.forget(index);
    await checkpoints.adopt(checkpoint.path, {
      index,
      term,
      digest,
      bytes,
      xxh64,
      configuration: configurationFromJson(JSON.parse(configuration)),
    });
    for (const own of checkpoints.known) if (own.index !== index) await checkpoints.forget(own.index);
    await options.removeState();
    await new StateTrust({ disk, directory, bootId: undefined, logger: silentLogger }).clearDiverged();
    return { index };
  } finally {
    await lock.release();
  }
}
