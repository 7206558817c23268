/**
 * The command tree: `headpond GROUP VERB [ARGS] [--flags]`. One file per command or group in this folder adds its commands to
 * the program.
 */

import { Command } from "commander";
import { addCluster } from "./cluster.ts";
import type { Commands } from "./command.ts";
import { addCompletion } from "./completion.ts";
import { addConfig } from "./config.ts";
import { addDoctor } from "./doctor.ts";
import { addFormat } from "./format.ts";
import { addFsChange } from "./fs-change.ts";
import { addFsCopy } from "./fs-copy.ts";
import { addFsList } from "./fs-list.ts";
import { addFsRead } from "./fs-read.ts";
import { addJobs } from "./jobs.ts";
import { addJournal } from "./journal.ts";
import { addLoad } from "./load.ts";
import { addModels } from "./models.ts";
import { addMount } from "./mount.ts";
import { addRoles } from "./roles.ts";
import { addUp } from "./up.ts";
import { addVersion, version } from "./version.ts";

/** Builds the whole command tree. */
export function buildProgram(signal: AbortSignal): Command {
  const program = new Command("headpond")
    .description("A distributed cache and namespace for AI models.")
    .version(version, "-V, --version")
    .showHelpAfterError("(add --help for the flags and an example)")
    .configureOutput({ outputError: (text, write) => write(text) })
    .addHelpText(
      "after",
      "\nExample:\n  headpond up --mount /models=file:///srv/models\n  headpond load /models/org/name --to all\n",
    );
  const fs = program.command("fs").description("files and directories of the namespace");
  const commands: Commands = { program, fs, signal };
  for (const add of [
    addUp,
    addRoles,
    addFormat,
    addMount,
    addFsList,
    addFsRead,
    addFsChange,
    addFsCopy,
    addLoad,
    addJobs,
    addModels,
    addCluster,
    addJournal,
    addConfig,
    addDoctor,
    addVersion,
    addCompletion,
  ]) {
    add(commands);
  }
  applyExitOverride(program);
  return program;
}

function applyExitOverride(command: Command): void {
  command.exitOverride();
  for (const child of command.commands) applyExitOverride(child);
}
