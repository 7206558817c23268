/**
 * The journal of a master that can move to another one while it runs (docs/migration.md): which one is in force, by what the directory
 * remembers and the configuration says, and how each is opened and prepared on this machine.
 */

import { randomBytes, randomUUID } from "node:crypto";
import { type Config, parseHostPort, withSettings } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { StateMachine } from "../journal/journal.ts";
import { type JournalType, type MovedFile, type PreparedFile, readMoved } from "../journal/migration.ts";
import { DirectoryTarget, type MoveTarget } from "../journal/move-target.ts";
import { SharedMoveTarget } from "../journal/shared-move-target.ts";
import { SwitchingJournal } from "../journal/switching-journal.ts";
import type { InnerJournal, JournalPlace } from "../journal/switching-options.ts";
import { JournalMarks, voidByMove } from "../master/journal-marks.ts";
import type { CommandResult } from "../namespace/command.ts";
import { journalDirectory } from "./master-directory.ts";
import { reachedHost } from "./serve.ts";
import { type JournalParts, makeJournal } from "./serve-journal.ts";
import { openConfiguredStore } from "./serve-shared-journal.ts";

/** Of the directory of a locked master. Not started. Throws `invalid` when directory and configuration do not go together. */
export async function makeSwitchingJournal(parts: JournalParts): Promise<SwitchingJournal<CommandResult>> {
  const { config, doors, logger, namespace } = parts;
  const { disk, clock, onFatal } = doors;
  const directory = journalDirectory(config["master.dir"]);
  const moved = await readMoved(disk, directory);
  const current = placeOf(config, directory, moved);
  if (moved !== undefined && config["journal.type"] !== moved.to) {
    logger.warn(
      "the configuration is older than the last move of the journal: this master goes on with what it moved to",
      {
        configured: config["journal.type"],
        journal: moved.to,
        advice: `set journal.type to ${moved.to} and fill in ${sectionOf(moved.to)}`,
      },
    );
  }
  const journal: SwitchingJournal<CommandResult> = new SwitchingJournal<CommandResult>({
    disk,
    clock,
    logger,
    onFatal,
    id: config["master.id"],
    master: config["master.dir"],
    machine: namespace,
    marks: new JournalMarks(namespace),
    voidResult: voidByMove,
    current,
    open: (place, machine) => openPlace(parts, place, machine),
    openTarget: (plan, target) => openTarget(parts, plan, target, () => journal.role === "leader"),
    newIncarnation: randomUUID,
  });
  return journal;
}

function placeOf(config: Config, directory: string, moved: MovedFile | undefined): JournalPlace {
  const configured = config["journal.type"];
  const common = { directory, succession: undefined };
  if (moved === undefined) return { ...common, type: configured, generation: 0, settings: {} };
  const { to: type, from, generation } = moved;
  if (configured === type) return { ...common, type, generation, settings: {} };
  if (configured === from) return { ...common, type, generation, settings: moved.settings };
  throw new HeadpondError(
    "invalid",
    `journal.type is ${configured}, but the journal of this master was moved from ${from} to ${type}: set journal.type to ${type} and fill in ${sectionOf(type)}`,
  );
}

function sectionOf(type: JournalType): string {
  return type === "local" ? "nothing else" : `journal.${type}`;
}

async function openPlace(
  parts: JournalParts,
  place: JournalPlace,
  machine: StateMachine<CommandResult>,
): Promise<InnerJournal<CommandResult>> {
  const { type, directory, settings, succession } = place;
  const config = withSettings(parts.config, { ...settings, "journal.type": type });
  const metrics = parts.metrics.replacing();
  const { journal, alarm, closeStore } = await makeJournal({
    ...parts,
    config,
    metrics,
    directory,
    machine,
    succession,
  });
  return { journal, alarm, ...(closeStore === undefined ? {} : { release: closeStore }) };
}

async function openTarget(
  parts: JournalParts,
  plan: PreparedFile,
  directory: string,
  leads: () => boolean,
): Promise<MoveTarget> {
  const { config, doors, logger, clusterId } = parts;
  const { disk, clock } = doors;
  // What is wrong with the settings shows before anything is decided.
  const wanted = withSettings(config, { ...plan.settings, "journal.type": plan.to });
  const id = config["master.id"];
  if (plan.to !== "local") reachedHost(wanted["master.rpc"].host, wanted, "master.rpc");
  if (plan.to === "raft") parseHostPort(plan.address);
  const common = { disk, clock, logger, directory, clusterId, id, plan };
  if (plan.to !== "zookeeper") return new DirectoryTarget(common);
  const random = new Random(randomBytes(4).readUInt32LE());
  const store = await openConfiguredStore(wanted, doors, parts.metrics.replacing());
  return new SharedMoveTarget({ ...common, store, random, leads });
}
