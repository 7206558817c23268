/**
 * Brings the state machine level with a recovered log: its own state if that can be trusted and is in the log, else the
 * best checkpoint, then the entries behind it.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { Logger } from "../io/logger.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { StateMachine } from "./journal.ts";
import type { StateTrust } from "./state-trust.ts";
import type { Wal } from "./wal.ts";

export type RecoverStateOptions = {
  readonly wal: Wal;
  readonly checkpoints: Checkpoints;
  readonly trust: StateTrust;
  readonly machine: StateMachine<unknown>;
  readonly logger: Logger;
};

export async function recoverState(options: RecoverStateOptions): Promise<void> {
  const { wal, checkpoints, trust, machine, logger } = options;
  const newest = checkpoints.newest;
  if (newest !== undefined && newest.index > wal.lastIndex) {
    throw lostTail(wal, `the checkpoint ${newest.path} holds entries up to ${newest.index}`);
  }
  const reason = (await trust.doubt()) ?? (await misfit(wal, machine));
  if (reason !== undefined) {
    if (machine.applied.index > 0) logger.warn("the state is rebuilt from checkpoint and log", { reason });
    await rebuild(options);
  }
  await trust.markInUse();
  for (let next = machine.applied.index + 1; next <= wal.lastIndex; next = machine.applied.index + 1) {
    machine.apply(await wal.read(next));
    // A state that cannot be written is told of later, by whoever serves it.
    await machine.backPressure?.()?.catch(() => {});
  }
}

/** Why a trusted state cannot be continued by the log, or `undefined`. */
async function misfit(wal: Wal, machine: StateMachine<unknown>): Promise<string | undefined> {
  const { index, term } = machine.applied;
  if (index < wal.firstIndex - 1) return `it ends at ${index}, before the log begins at ${wal.firstIndex}`;
  if (index > wal.lastIndex) throw lostTail(wal, `the state has applied entries up to ${index}`);
  if (index === 0) return undefined;
  const logTerm = await wal.termAt(index);
  if (logTerm === term) return undefined;
  throw lostTail(wal, `the state has applied entry ${index} of term ${term}, the log has one of term ${logTerm}`);
}

function lostTail(wal: Wal, evidence: string): HeadpondError {
  return new HeadpondError(
    "corrupt",
    `${wal.directory}: the log ends at ${wal.lastIndex}, but ${evidence}: durable entries are missing. Restore the log; or, to accept their loss, remove the state and that checkpoint`,
    { details: { file: wal.directory, index: wal.lastIndex + 1 } },
  );
}

/** Replaces the state by the newest sound checkpoint that the log continues; by the empty state if that is where it begins. */
export async function rebuild({
  wal,
  checkpoints,
  machine,
  logger,
}: Pick<RecoverStateOptions, "wal" | "checkpoints" | "machine" | "logger">): Promise<void> {
  for (const checkpoint of [...checkpoints.known].reverse()) {
    if (checkpoint.index < wal.firstIndex - 1 || checkpoint.index > wal.lastIndex) continue;
    try {
      await checkpoints.verify(checkpoint);
    } catch (error) {
      if (!isHeadpondError(error, "corrupt")) throw error;
      logger.error("damaged checkpoint", { error: error.message });
      continue;
    }
    const logTerm = await wal.termAt(checkpoint.index);
    if (logTerm !== checkpoint.term) {
      throw lostTail(
        wal,
        `the checkpoint ${checkpoint.path} ends with term ${checkpoint.term}, the log has term ${logTerm} there`,
      );
    }
    await machine.reset(checkpoint.path);
    const { index, term } = machine.applied;
    if (index !== checkpoint.index || term !== checkpoint.term || machine.digest() !== checkpoint.digest) {
      throw new HeadpondError(
        "corrupt",
        `${checkpoint.path}: the state in it is (${index}, ${term}) with digest ${machine.digest()}, its manifest says (${checkpoint.index}, ${checkpoint.term}) with ${checkpoint.digest}`,
        { details: { file: checkpoint.path, offset: 0 } },
      );
    }
    return;
  }
  if (wal.firstIndex !== 1) {
    throw new HeadpondError(
      "corrupt",
      `${wal.directory}: the log begins at ${wal.firstIndex}, and there is no sound checkpoint that reaches up to it: restore a checkpoint or a backup`,
      { details: { file: wal.directory, index: 1 } },
    );
  }
  await machine.reset(undefined);
}
