/**
 * `journal status|checkpoint|dump|verify|diff|repair|backup|restore|migrate`: on a running cluster, or with `--dir` on files at rest. `dump` needs the files:
 * it shows what was recorded, entry by entry.
 */

import { randomUUID } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HeadpondError } from "../base/errors.ts";
import { formatBytes } from "../base/units.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { type DumpedRecord, dumpJournal, type VerifyReport, verifyJournal } from "../journal/inspect.ts";
import type { JournalStatus } from "../journal/journal.ts";
import { readSharedIdentity } from "../journal/shared-place.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";
import { parseCount } from "./fs-list.ts";
import { addBackup } from "./journal-backup.ts";
import { describeConfigurationPayload, describePayload } from "./journal-describe.ts";
import { addRepair } from "./journal-repair.ts";
import { addMigrate } from "./migrate.ts";
import { withSharedLog } from "./shared-log.ts";

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
          ...electionFact(status.election),
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
    .option("--store <uri>", "the log in a shared store, whoever runs")
    .option("--store-option <key=value...>", "as journal.zookeeper.storeOptions")
    .action(
      action(signal, async (context, flags) => {
        const report = await verifyNamed(context, flags);
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
    .option("--dir <directory>", "files at rest, of a master that does not run")
    .option("--store <uri>", "the log in a shared store, whoever runs")
    .option("--store-option <key=value...>", "as journal.zookeeper.storeOptions")
    .option("--from <index>", "first entry", "1")
    .option("--limit <n>", "at most so many", "1000")
    .action(
      action(signal, async (context, flags) => {
        let left = parseCount(String(flags["limit"]), "--limit");
        const from = parseCount(String(flags["from"]), "--from");
        const show = async (records: AsyncIterable<DumpedRecord>): Promise<void> => {
          for await (const { type, index, term, payload } of records) {
            if (signal.aborted) throw new HeadpondError("cancelled", "interrupted");
            if (type !== "entry" && type !== "configuration") continue;
            if (left-- <= 0) break;
            const command = type === "configuration" ? describeConfigurationPayload(payload) : describePayload(payload);
            context.output.item({ index, term, bytes: payload.length, command }, () =>
              context.output.line(`${index} term ${term} ${payload.length} B  ${JSON.stringify(command)}`),
            );
          }
        };
        const { dir, store } = flags as { readonly dir?: string; readonly store?: string };
        if (store !== undefined) await withSharedLog(store, storeOptions(flags), signal, (log) => show(log.dump(from)));
        else if (dir !== undefined) await show(dumpJournal(new NodeDisk(), await logAt(dir), from));
        else throw new HeadpondError("invalid", "say which journal: --dir DIRECTORY of a master, or --store URI");
        return 0;
      }),
    );
}

/** The directory, if there is a log in it. */
async function logAt(directory: string): Promise<string> {
  const shared = await readSharedIdentity(new NodeDisk(), directory);
  if (shared === undefined) return directory;
  throw new HeadpondError(
    "unsupported",
    `${directory} is of master ${shared.id} of a journal in shared storage, and holds no log: name the store with --store URI`,
  );
}

function electionFact(election: JournalStatus["election"]): readonly (readonly [string, string])[] {
  if (election === undefined) return [];
  const { connected, candidates, problem } = election;
  const says = connected ? `${candidates} masters take part` : "ZooKeeper does not answer: nobody else can lead now";
  return [["election", problem ?? says]];
}

function storeOptions(flags: Readonly<Record<string, unknown>>): readonly string[] {
  return (flags["storeOption"] as readonly string[] | undefined) ?? [];
}

/** Of the running cluster, unless files or a store are named. */
async function verifyNamed(
  context: Context,
  flags: Readonly<Record<string, unknown>>,
): Promise<Pick<VerifyReport, "entries" | "bytes" | "ok" | "findings">> {
  const { dir, store } = flags as { readonly dir?: string; readonly store?: string };
  const { signal } = context;
  if (store !== undefined) {
    const scratch = join(tmpdir(), `headpond-verify-${randomUUID()}`);
    const disk = new NodeDisk({ isPrivate: true });
    return withSharedLog(store, storeOptions(flags), signal, (log) => log.verify(disk, scratch));
  }
  if (dir !== undefined) return verifyJournal(new NodeDisk(), await logAt(dir));
  return context.client().journalVerify({ signal, timeoutMs: context.longTimeoutMs });
}
