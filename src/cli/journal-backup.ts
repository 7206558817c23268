/**
 * `journal backup`: the journal of a running cluster into a directory, from a standby if there is one. `journal restore`: the first master of a
 * new cluster out of that, as of any index it holds; or, when most masters are lost for good, out of the directory of one that is left.
 */

import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import { type ClusterId, parseMasterId } from "../base/ids.ts";
import { formatBytes } from "../base/units.ts";
import { silentLogger } from "../io/logger.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { type BackupAbout, BackupWriter } from "../journal/backup.ts";
import { journalStatusAtRest } from "../journal/inspect.ts";
import { backupSource, type RestoreSource, restoreJournal, survivorSource } from "../journal/restore.ts";
import { restoreSharedJournal } from "../journal/shared-restore.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";
import { parseCount } from "./fs-list.ts";
import { journalDirectory, lockMaster } from "./master-directory.ts";
import { reachableAddress } from "./migrate.ts";
import { ProgressBar } from "./progress.ts";
import { openStore } from "./shared-log.ts";

export function addBackup({ signal }: Commands, parent: Commands["program"]): void {
  leaf(
    parent,
    "backup <directory>",
    "copy the journal of a running cluster; nothing is stopped",
    "headpond journal backup /backups/2026-11-24",
  )
    .option("--from <id>", "this master; by default a standby, or the leader if it is alone")
    .option("--history", "from the oldest checkpoint there is, so that earlier moments can be restored, too")
    .option("--local", "what that master has, even if there is no leader")
    .action(
      action(signal, async (context, flags, directory: string) => {
        const from = flags["from"] === undefined ? await standby(context) : parseMasterId(flags["from"]);
        const request = { history: flags["history"] === true, local: flags["local"] === true };
        const { about, bytes } = await fetchBackup(context, resolve(directory), request, from);
        const { checkpoint, toIndex, clusterId, master } = about;
        const result = { directory, clusterId, master, fromIndex: checkpoint?.index ?? 0, toIndex, bytes };
        context.output.result(result, () => {
          context.output.facts([
            ["backup", `${directory}, ${formatBytes(bytes)}`],
            ["cluster", `${clusterId}, from master ${master}`],
            ["can be restored", `as of any index from ${result.fromIndex} to ${toIndex}`],
          ]);
          context.output.line("it holds what the journal holds, secrets of mounts among it: keep it safe");
        });
        return 0;
      }),
    );
  leaf(
    parent,
    "restore <source>",
    "make the first master of a new cluster out of a backup",
    "headpond journal restore /backups/2026-11-24 --dir /var/lib/headpond/master",
  )
    .option("--dir <directory>", "master.dir of the new master; empty")
    .option("--store <uri>", "instead: an empty shared store, in which masters of a journal with ZooKeeper begin")
    .option("--store-option <key=value...>", "as journal.zookeeper.storeOptions")
    .option("--index <n>", "as of this entry; by default the last one")
    .option("--id <id>", "master.id of the new master, for a Raft journal", "m1")
    .option(
      "--listen <address>",
      "host:port by which other masters will reach its journal; without it the journal is local",
    )
    .option(
      "--force-new-cluster",
      "the source is master.dir of a master that is left, when a majority of its cluster is lost for good",
    )
    .action(
      action(signal, async (context, flags, source: string) => {
        const disk = new NodeDisk({ isPrivate: true });
        const forced = flags["forceNewCluster"] === true;
        const from = await sourceOf(resolve(source), forced);
        if (flags["store"] !== undefined) return restoreToStore(context, flags, from, forced);
        if (flags["dir"] === undefined) throw new HeadpondError("invalid", "say where: --dir DIRECTORY or --store URI");
        const directory = resolve(String(flags["dir"]));
        const lock = await lockMaster(disk, directory);
        try {
          const bar = new ProgressBar(context.output, () => context.clock.monotonicMs());
          const done = await restoreJournal({
            disk,
            clock: new NodeClock(),
            logger: silentLogger,
            source: from,
            directory: journalDirectory(directory),
            clusterId: randomUUID() as ClusterId,
            ...(flags["listen"] === undefined
              ? {}
              : {
                  raft: {
                    id: parseMasterId(flags["id"]),
                    incarnation: randomUUID(),
                    address: reachableAddress(flags["listen"]),
                  },
                }),
            ...(flags["index"] === undefined ? {} : { toIndex: parseCount(String(flags["index"]), "--index") }),
            onProgress: ({ index }) => {
              const first = from.checkpoint?.index ?? 0;
              const label = "restoring entries";
              bar.update({ label, bytesDone: index - first, bytesTotal: from.lastIndex - first, rate: 0 });
            },
          });
          bar.clear();
          const result = { ...done, directory, formerClusterId: from.clusterId, forced };
          context.output.result(result, () => explain(context, result, from));
          return 0;
        } finally {
          await lock.release();
        }
      }),
    );
}

async function restoreToStore(
  context: Context,
  flags: Readonly<Record<string, unknown>>,
  source: RestoreSource,
  forced: boolean,
): Promise<number> {
  const uri = String(flags["store"]);
  const store = await openStore(uri, (flags["storeOption"] as readonly string[] | undefined) ?? []);
  try {
    const done = await restoreSharedJournal({
      disk: new NodeDisk({ isPrivate: true }),
      clock: new NodeClock(),
      source,
      store,
      clusterId: randomUUID() as ClusterId,
      mark: randomUUID().replaceAll("-", "").slice(0, 16),
      signal: context.signal,
      ...(flags["index"] === undefined ? {} : { toIndex: parseCount(String(flags["index"]), "--index") }),
    });
    const result = { ...done, directory: store.uri, formerClusterId: source.clusterId, forced };
    context.output.result(result, () => explain(context, result, source));
    return 0;
  } finally {
    await store.close();
  }
}

async function sourceOf(directory: string, forced: boolean): Promise<RestoreSource> {
  const disk = new NodeDisk({ isPrivate: true });
  if (!forced) {
    try {
      return await backupSource(disk, directory);
    } catch (error) {
      if (!isHeadpondError(error, "not-found")) throw error;
      const isMaster = await journalStatusAtRest(disk, journalDirectory(directory)).then(
        () => true,
        () => false,
      );
      if (!isMaster) throw error;
      throw new HeadpondError(
        "invalid",
        `${directory} is the directory of a master, not a backup. If a majority of its cluster is lost for good, add --force-new-cluster: ` +
          "what that majority had acknowledged and this master never got is lost then",
      );
    }
  }
  return survivorSource(disk, journalDirectory(directory));
}

function explain(
  { output }: Context,
  done: {
    readonly clusterId: string;
    readonly index: number;
    readonly formerClusterId: string;
    readonly directory: string;
    readonly forced: boolean;
  },
  source: RestoreSource,
): void {
  output.facts([
    ["new cluster", done.clusterId],
    ["was", done.formerClusterId],
    ["as of entry", `${done.index} of ${source.lastIndex} in the source`],
    ["directory", done.directory],
  ]);
  if (done.forced) {
    output.line("what may be lost: entries that the lost masters acknowledged and this one never received.");
    output.line("what may appear: entries that this one received and nobody had acknowledged yet.");
    output.line("never start a master of the old cluster again: clients that reach it would be told of another past");
  }
  output.line(
    "next: start a master on the directory, and others with --join; workers begin with empty caches, as in any new cluster",
  );
}

/** A master that does not lead, so that the leader has nothing to do with it. */
async function standby(context: Context): Promise<string | undefined> {
  const { members } = await context.client().membership.members({ signal: context.signal });
  return members.find(({ role, reachable }) => role !== "leader" && reachable !== false)?.id;
}

/** Writes what a master sends into a directory of its own. */
export async function fetchBackup(
  context: Context,
  directory: string,
  request: { readonly history?: boolean; readonly local?: boolean; readonly stateOnly?: boolean },
  from: string | undefined,
): Promise<{ readonly about: BackupAbout; readonly configuration: string | undefined; readonly bytes: number }> {
  const writer = new BackupWriter({ disk: new NodeDisk({ isPrivate: true }), directory });
  const bar = new ProgressBar(context.output, () => context.clock.monotonicMs());
  const source = from === undefined ? {} : { from: { master: from } };
  const startedMs = context.clock.monotonicMs();
  let about: BackupAbout | undefined;
  let configuration: string | undefined;
  let total = 0;
  try {
    for await (const item of context.client().journalBackup(request, { signal: context.signal, ...source })) {
      if (item.about !== undefined) {
        const { checkpoint, clusterId, master, createdMs, toIndex } = item.about;
        configuration = checkpoint?.configuration;
        total = checkpoint?.bytes ?? 0;
        about = {
          clusterId,
          master,
          createdMs,
          toIndex,
          checkpoint: checkpoint === undefined ? undefined : plain(checkpoint),
        };
        await writer.begin(about);
      }
      if (item.state !== undefined) await writer.state(item.state);
      if (item.entries !== undefined) await writer.entries(item.entries);
      const seconds = Math.max(0.001, (context.clock.monotonicMs() - startedMs) / 1000);
      const { bytes } = writer;
      bar.update({
        label: "copying the journal",
        bytesDone: bytes,
        bytesTotal: Math.max(total, bytes),
        rate: bytes / seconds,
      });
    }
    bar.clear();
    if (about === undefined) throw new HeadpondError("unavailable", "the master sent nothing: try again");
    await writer.finish();
    return { about, configuration, bytes: writer.bytes };
  } finally {
    await writer.close();
  }
}

function plain(checkpoint: NonNullable<BackupAbout["checkpoint"]>): NonNullable<BackupAbout["checkpoint"]> {
  const { index, term, digest, bytes, xxh64 } = checkpoint;
  return { index, term, digest, bytes, xxh64 };
}
