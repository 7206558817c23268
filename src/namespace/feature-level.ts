/**
 * Feature levels let masters of two versions run together while a cluster is updated. The state has a level, which all masters
 * understand; what only newer software knows needs a higher one, and is not proposed before the state's level is that high. The leader
 * raises it when all masters say that they understand the next one. It never goes down: from then on older software cannot join.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Command, CommandKind } from "./command.ts";

/** The level of a new state. */
export const featureLevelMin = 1;
/** Highest level that this software understands. */
export const featureLevelMax = 1;
/** Beyond, it is a mistake and no level. */
export const featureLevelLimit = 65_535;

/** Kinds that came after the first release, with the level that brought them. A new field of an old kind needs a look at the command. */
const levelsOfKinds: Partial<Record<CommandKind, number>> = {};

/** The level that the state must have before `command` may be proposed. */
export function featureLevelOf(command: Command): number {
  return levelsOfKinds[command.kind] ?? featureLevelMin;
}

/** Throws `unsupported`: a state or a log of this level needs other software. To go on would make masters differ. */
export function requireUnderstood(level: number, understood: number, what: string): void {
  if (level <= understood) return;
  throw new HeadpondError(
    "unsupported",
    `${what} has feature level ${level}, this software understands ${understood}: update it before it joins the cluster`,
  );
}
