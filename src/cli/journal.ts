/**
 * `journal status|checkpoint|dump|verify|diff|repair|backup|restore|migrate`: on a running cluster, or with `--dir` on files at rest. `dump` needs the files:
 * it shows what was recorded, entry by entry.
 */

import { HeadpondError } from "../base/errors.ts";
import { formatBytes } from "../base/units.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { dumpJournal, verifyJournal } from "../journal/inspect.ts";
import { action, type Commands, leaf } from "./command.ts";
import { parseCount } from "./fs-list.ts";
import { addBackup } from "./journal-backup.ts";
import { describeConfigurationPayload, describePayload } from "./journal-describe.ts";
import { addRepair } from "./journal-repair.ts";
import { addMigrate } from "./migrate.ts";

export function addJournal(commands: Commands): void {
  const { program, signal } = commands;
  const journal = program.command("journal").description("the masters' journal");
  addMigrate(commands, journal);
  addBackup(commands, journal);
  addRepair(commands, journal);
  leaf(journal, "status", "position and size of the log", "headpond journal status").action(
    action(signal, async (context) => {
      const status = await context.client().journalStatus({ signal });
      context.output.result(status, () =>
        context.output.facts([
          ["journal", `${status.type}, ${status.role}, term ${status.term}`],
          ["log", `${status.firstIndex} to ${status.lastIndex}, ${formatBytes(status.bytes)}`],
          ["committed", String(status.commitIndex)],
          ["applied", String(status.appliedIndex)],
          ["checkpoint", String(status.checkpointIndex)],
        ]),
      );
      return 0;
    }),
  );
  leaf(journal, "checkpoint", "save the state and cut the log behind it", "headpond journal checkpoint").action(
    action(signal, async (context) => {
      const made = await context.client().journalCheckpoint({ signal, timeoutMs: context.longTimeoutMs });
      context.output.result(made, () =>
        context.output.line(
          `checkpoint at ${made.index}: ${formatBytes(made.bytes)} in ${Math.round(made.durationMs)} ms`,
        ),
      );
      return 0;
    }),
  );
  leaf(
    journal,
    "verify",
    "read the whole log and check it",
    "headpond journal verify --dir /var/lib/headpond/master/journal",
  )
    .option("--dir <directory>", "files at rest, of a master that does not run")
    .action(
      action(signal, async (context, flags) => {
        const report =
          flags["dir"] === undefined
            ? await context.client().journalVerify({ signal, timeoutMs: context.longTimeoutMs })
            : await verifyJournal(new NodeDisk(), String(flags["dir"]));
        context.output.result(report, () => {
          context.output.line(
            `${report.entries} entries, ${formatBytes(report.bytes)}: ${report.ok ? "good" : "DAMAGED"}`,
          );
          for (const finding of report.findings) context.output.line(`  ${finding}`);
        });
        return report.ok ? 0 : 1;
      }),
    );
  leaf(
    journal,
    "dump",
    "the recorded commands, one a line",
    "headpond journal dump --dir /var/lib/headpond/master/journal --from 100",
  )
    .requiredOption("--dir <directory>", "files at rest, of a master that does not run")
    .option("--from <index>", "first entry", "1")
    .option("--limit <n>", "at most so many", "1000")
    .action(
      action(signal, async (context, flags) => {
        let left = parseCount(String(flags["limit"]), "--limit");
        const from = parseCount(String(flags["from"]), "--from");
        const directory = String(flags["dir"]);
        for await (const { type, index, term, payload } of dumpJournal(new NodeDisk(), directory, from)) {
          if (signal.aborted) throw new HeadpondError("cancelled", "interrupted");
          if (type !== "entry" && type !== "configuration") continue;
          if (left-- <= 0) break;
          const command = type === "configuration" ? describeConfigurationPayload(payload) : describePayload(payload);
          context.output.item({ index, term, bytes: payload.length, command }, () =>
            context.output.line(`${index} term ${term} ${payload.length} B  ${JSON.stringify(command)}`),
          );
        }
        return 0;
      }),
    );
}
