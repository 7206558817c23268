/**
 * Opens a Raft journal: whose it is, its log, its checkpoints, and a state that can be continued. Committed is what the
 * state holds; what the log has behind it is applied when the others say that it is committed, too.
 *
 * A state or a checkpoint that is ahead of the log proves that this disk has lost what it had acknowledged. Rebuilding the state would not
 * bring the promises back, so that is damage, and the master must come back as a new member (docs/decisions/0120).
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk, DiskLock } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { configurationOf, decodeConfiguration } from "../raft/membership.ts";
import type { LoggedConfiguration, NodeId } from "../raft/types.ts";
import { type Checkpoint, Checkpoints } from "./checkpoints.ts";
import type { StateMachine } from "./journal.ts";
import { checkpointDirectory, lockPath, readBootId, readMeta, walDirectory } from "./journal-meta.ts";
import { RaftIdentity, readIdentity } from "./raft-identity.ts";
import { rebuild } from "./recover-state.ts";
import { StateTrust } from "./state-trust.ts";
import { Wal, type WalLimits } from "./wal.ts";

export type RaftRecoveryOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly directory: string;
  readonly clusterId: ClusterId | undefined;
  readonly id: NodeId;
  readonly machine: StateMachine<unknown>;
  readonly bootId: string | undefined;
  readonly wal: WalLimits;
  readonly onFatal: (error: HeadpondError) => void;
};

export type RaftPlace = {
  readonly lock: DiskLock;
  readonly identity: RaftIdentity;
  readonly wal: Wal;
  readonly checkpoints: Checkpoints;
  readonly trust: StateTrust;
  /** An earlier life found that the state differs from the other masters'. */
  readonly diverged: string | undefined;
};

/** What is open is closed again if it throws. */
export async function openRaftPlace(options: RaftRecoveryOptions): Promise<RaftPlace> {
  const { disk, clock, logger, directory, clusterId, id, machine, onFatal } = options;
  const meta = await readMeta(disk, directory);
  if (clusterId !== undefined && meta.clusterId !== clusterId) {
    throw new HeadpondError(
      "invalid",
      `${directory}: this journal belongs to cluster ${meta.clusterId}, not ${clusterId}`,
    );
  }
  // What a killed process named may not have its name for good; promises are built on it from here on.
  await disk.syncDirectory(directory);
  const file = await readIdentity(disk, directory);
  if (file === undefined) {
    throw new HeadpondError(
      "invalid",
      `${directory}: this journal was made for a single master: convert it, or set journal.type to local`,
    );
  }
  if (file.id !== id) {
    throw new HeadpondError(
      "invalid",
      `${directory}: this disk is the master ${file.id}, not ${id}: set master.id to ${file.id}, or use an empty directory`,
    );
  }
  const lock = await disk.lock(lockPath(directory));
  if (lock === undefined) {
    throw new HeadpondError(
      "unavailable",
      `${directory}: already in use by another process: stop it, or choose another directory`,
    );
  }
  let wal: Wal | undefined;
  try {
    const identity = new RaftIdentity({ disk, directory, clusterId: meta.clusterId, file });
    const bootId = options.bootId ?? (await readBootId(disk));
    const trust = new StateTrust({ disk, directory, bootId, logger });
    const checkpoints = new Checkpoints({ disk, directory: checkpointDirectory(directory) });
    await checkpoints.open((error) => logger.error("damaged checkpoint", { error: error.message }));
    wal = await Wal.open({
      disk,
      clock,
      logger,
      directory: walDirectory(directory),
      clusterId: meta.clusterId,
      limits: options.wal,
      needsTerms: true,
      onFatal,
    });
    await finishInstall(wal, checkpoints, logger);
    await recover({ wal, checkpoints, trust, machine, logger });
    return { lock, identity, wal, checkpoints, trust, diverged: await trust.diverged() };
  } catch (error) {
    await wal?.close();
    await lock.release();
    throw error;
  }
}

/** A checkpoint from the leader has arrived, and a crash came before the log was begun anew behind it. */
async function finishInstall(wal: Wal, checkpoints: Checkpoints, logger: Logger): Promise<void> {
  const { newest } = checkpoints;
  if (newest?.received !== true || wal.term(newest.index) === newest.term || newest.index < wal.firstIndex - 1) return;
  try {
    await checkpoints.verify(newest);
  } catch (error) {
    if (!isHeadpondError(error, "corrupt")) throw error;
    logger.error("damaged checkpoint", { error: error.message });
    return;
  }
  logger.info("the log begins anew behind a checkpoint of the leader", { index: newest.index });
  await wal.restart(newest.index, newest.term);
}

type RecoverOptions = Pick<RaftPlace, "wal" | "checkpoints" | "trust"> & {
  readonly machine: StateMachine<unknown>;
  readonly logger: Logger;
};

async function recover(options: RecoverOptions): Promise<void> {
  const { wal, checkpoints, trust, machine, logger } = options;
  const ahead = checkpoints.known.find(
    (checkpoint) => checkpoint.received !== true && checkpoint.index > wal.lastIndex,
  );
  if (ahead !== undefined) throw lostTail(wal, `the checkpoint ${ahead.path} holds entries up to ${ahead.index}`);
  const reason = (await trust.doubt()) ?? misfit(wal, machine);
  if (reason !== undefined) {
    if (machine.applied.index > 0) logger.warn("the state is rebuilt from checkpoint and log", { reason });
    // A crash in the middle must not leave a mark that trusts half a state.
    await trust.markRebuilding();
    await rebuild(options);
  }
  await trust.markInUse();
}

/** Why a trusted state cannot be continued by the log, or `undefined`. */
function misfit(wal: Wal, machine: StateMachine<unknown>): string | undefined {
  const { index, term } = machine.applied;
  if (index < wal.firstIndex - 1) return `it ends at ${index}, before the log begins at ${wal.firstIndex}`;
  if (index > wal.lastIndex) throw lostTail(wal, `the state has applied entries up to ${index}`);
  if (index === 0 || wal.term(index) === term) return undefined;
  throw lostTail(
    wal,
    `the state has applied entry ${index} of term ${term}, the log has term ${wal.term(index)} there`,
  );
}

function lostTail(wal: Wal, evidence: string): HeadpondError {
  return new HeadpondError(
    "corrupt",
    `${wal.directory}: the log ends at ${wal.lastIndex}, but ${evidence}: this disk has lost entries that it acknowledged. Restore the log; or remove this master from the cluster, and add it under a new id with an empty directory`,
    { details: { file: wal.directory, index: wal.lastIndex + 1 } },
  );
}

/** All memberships that the log may still need, beginning with the one in force where it begins. Throws `corrupt`. */
export function configurationsOf(
  { wal, checkpoints, identity }: RaftPlace,
  appliedIndex: number,
): readonly LoggedConfiguration[] {
  const base = baseOf(wal, checkpoints.known, identity, appliedIndex);
  const logged = wal.configurations
    .filter(({ index }) => index > base.index)
    .map(({ index, payload }) => ({ index, configuration: decodeConfiguration(payload) }));
  return [base, ...logged];
}

function baseOf(
  wal: Wal,
  checkpoints: readonly Checkpoint[],
  identity: RaftIdentity,
  appliedIndex: number,
): LoggedConfiguration {
  const founders = identity.founders ?? configurationOf([]);
  if (wal.firstIndex === 1) return { index: 0, configuration: founders };
  for (const { index, configuration } of checkpoints) {
    if (index >= wal.firstIndex - 1 && index <= appliedIndex && configuration !== undefined) {
      return { index, configuration };
    }
  }
  // The log of a single master that became a member of several: its checkpoints name nobody.
  const isConverted = checkpoints.some(({ configuration }) => configuration === undefined);
  if (isConverted && identity.founders !== undefined) return { index: wal.firstIndex - 1, configuration: founders };
  throw new HeadpondError(
    "corrupt",
    `${wal.directory}: the log begins at ${wal.firstIndex}, and no sound checkpoint says who the members were: restore a checkpoint, or add this master under a new id with an empty directory`,
    { details: { file: wal.directory, index: wal.firstIndex } },
  );
}
