/**
 * `journal diff`: whether masters hold the same: by their digests if they run, entry by entry if two directories are given.
 * `journal repair`: a master whose state differs gets another one's.
 */

import { join, resolve } from "node:path";
import type { MasterStatus } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { compareLogs, directoryAtRest, type JournalComparison, type LogAtRest } from "../journal/compare.ts";
import { readMeta } from "../journal/journal-meta.ts";
import { replaceState } from "../journal/repair.ts";
import { discardSharedState } from "../journal/shared-repair.ts";
import { askMasters } from "./ask-masters.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";
import { fetchBackup } from "./journal-backup.ts";
import { describePayload } from "./journal-describe.ts";
import { journalDirectory, lockMaster, stateDirectory } from "./master-directory.ts";
import { isStoreUri, withSharedLog } from "./shared-log.ts";

export function addRepair({ signal }: Commands, parent: Commands["program"]): void {
  leaf(
    parent,
    "diff [left] [right]",
    "whether masters hold the same: of a running cluster, or of two directories",
    "headpond journal diff /var/lib/headpond/m1/journal /var/lib/headpond/m2/journal",
  ).action(
    action(signal, async (context, _flags, left: string | undefined, right: string | undefined) => {
      if (left === undefined) return diffRunning(context);
      if (right === undefined)
        throw new HeadpondError("invalid", "give two directories of journals, or URIs of shared stores, or nothing");
      const disk = new NodeDisk({ isPrivate: true });
      const describe = (payload: Uint8Array): string => JSON.stringify(describePayload(payload));
      const found = await compareNamed(disk, left, right, signal, describe);
      const same = found.sameCluster && found.differences.length === 0;
      context.output.result({ ...found, same }, () => {
        const { output } = context;
        if (!found.sameCluster) output.line("DIFFERENT: these are journals of two clusters");
        output.line(
          found.compared === undefined
            ? "the logs have no entry in common"
            : `entries ${found.compared.fromIndex} to ${found.compared.toIndex} were compared`,
        );
        if (found.checkpoints.length > 0) output.line(`checkpoints at ${found.checkpoints.join(", ")} were compared`);
        for (const { index, what, left: a, right: b } of found.differences) {
          output.line(`DIFFERENT: ${what} at ${index}`);
          output.line(`  left   ${a}`);
          output.line(`  right  ${b}`);
        }
        if (same) output.line("same");
      });
      return same ? 0 : 1;
    }),
  );
  leaf(
    parent,
    "repair",
    "give a stopped master whose state differs the state of another one",
    "headpond journal repair --dir /var/lib/headpond/master --masters h1:7070,h3:7070",
  )
    .requiredOption("--dir <directory>", "master.dir of the master to be repaired; it must not run")
    .option("--from <id>", "the master whose state is taken; by default the leader")
    .action(
      action(signal, async (context, flags) => {
        const disk = new NodeDisk({ isPrivate: true });
        const directory = resolve(String(flags["dir"]));
        const journal = journalDirectory(directory);
        await readMeta(disk, journal);
        const lock = await lockMaster(disk, directory);
        const removeState = (): Promise<void> => disk.removeTree(stateDirectory(directory));
        const arriving = join(directory, "arriving");
        try {
          if (await discardSharedState({ disk, directory: journal, removeState })) {
            context.output.result({ directory }, () => {
              context.output.line(`${directory}: its state and its copies of checkpoints are thrown away`);
              context.output.line("next: start this master; it takes the state from the store of the journal");
            });
            return 0;
          }
          await disk.removeTree(arriving);
          const from = flags["from"] === undefined ? undefined : String(flags["from"]);
          // A fresh one, so that this master's log reaches up to it or is behind it, never cut beyond it.
          if (from === undefined)
            await context.client().journalCheckpoint({ signal, timeoutMs: context.longTimeoutMs });
          const { about, configuration } = await fetchBackup(context, arriving, { stateOnly: true }, from);
          const { checkpoint, clusterId, master } = about;
          if (checkpoint === undefined || configuration === undefined) {
            throw new HeadpondError("invalid", `master ${master} is a single one: there is nothing to be rebuilt from`);
          }
          const { index } = await replaceState({
            disk,
            directory: journal,
            checkpoint: { ...checkpoint, path: join(arriving, "state") },
            clusterId,
            configuration,
            removeState,
          });
          const result = { directory, index, from: master };
          context.output.result(result, () => {
            context.output.line(`${directory} has the state of ${master} as of entry ${index}, and its own log`);
            context.output.line("next: start this master; it applies the rest and compares its digest with the others");
          });
          return 0;
        } finally {
          await disk.removeTree(arriving);
          await lock.release();
        }
      }),
    );
}

/** Two logs at rest: directories, or URIs of shared stores (with the environment's credentials). */
async function compareNamed(
  disk: NodeDisk,
  left: string,
  right: string,
  signal: AbortSignal,
  describe: (payload: Uint8Array) => string,
): Promise<JournalComparison> {
  const open = async (
    name: string,
    use: (log: LogAtRest) => Promise<JournalComparison>,
  ): Promise<JournalComparison> => {
    if (!isStoreUri(name)) return use(await directoryAtRest(disk, resolve(name)));
    return withSharedLog(name, [], signal, async (log) => use(await log.atRest()));
  };
  return open(left, (one) => open(right, (other) => compareLogs(one, other, describe)));
}

/** Compares what masters say of themselves: digests at the same entry, from each master's own mouth where it answers. */
async function diffRunning(context: Context): Promise<number> {
  let { masters } = await askMasters(context);
  let found = compareDigests(masters);
  // Entries go on coming: what cannot be compared at one moment can at another.
  for (let round = 1; found.verdict === "unknown" && round < comparisonsMax; round++) {
    await context.clock.sleep(comparisonIntervalMs, context.signal);
    ({ masters } = await askMasters(context));
    found = compareDigests(masters);
  }
  context.output.result({ ...found, members: masters }, () => {
    context.output.table(masters, [
      { title: "MASTER", value: (row) => row.id },
      { title: "AT ENTRY", value: (row) => String(digestIndexOf(row)), align: "right" },
      { title: "DIGEST", value: (row) => (row.digest === "" ? "none known" : row.digest) },
    ]);
    context.output.line(verdicts[found.verdict]);
  });
  return exitCodes[found.verdict];
}

const comparisonsMax = 20;
const comparisonIntervalMs = 300;
/** 5: done in part. */
const exitCodes = { same: 0, different: 1, unknown: 5 } as const;

const verdicts = {
  same: "same",
  different: "DIFFERENT: equal entries gave different states: headpond journal repair",
  unknown: "not all masters have a digest at the same entry now: ask again when nothing changes",
} as const;

/** `unknown`: nothing differs, but not all could be compared. */
export function compareDigests(masters: readonly MasterStatus[]): { readonly verdict: keyof typeof verdicts } {
  const byIndex = new Map<number, Set<string>>();
  for (const master of masters) {
    if (master.digest === "") continue;
    const index = digestIndexOf(master);
    byIndex.set(index, (byIndex.get(index) ?? new Set()).add(master.digest));
  }
  if ([...byIndex.values()].some((digests) => digests.size > 1)) return { verdict: "different" };
  const all = masters.every(({ digest }) => digest !== "") && byIndex.size === 1;
  return { verdict: all ? "same" : "unknown" };
}

function digestIndexOf({ digestIndex, appliedIndex }: MasterStatus): number {
  return digestIndex ?? appliedIndex;
}
