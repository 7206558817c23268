/**
 * `journal migrate`: moves a running cluster to another journal. With `--dir`, at rest: what one master began becomes the first of several,
 * in place, and back as long as it has not started so.
 */

import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { formatHostPort, parseHostPort } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { parseMasterId } from "../base/ids.ts";
import type { Disk, DiskLock } from "../io/disk.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { convertToLocal, convertToRaft } from "../journal/convert.ts";
import { readMeta } from "../journal/journal-meta.ts";
import { action, type Commands, leaf } from "./command.ts";
import { journalDirectory, lockMaster } from "./master-directory.ts";

export function addMigrate({ signal }: Commands, parent: Commands["program"]): void {
  leaf(
    parent,
    "migrate",
    "move a running cluster to another journal; or, with --dir, make a stopped local master the first of several",
    "headpond journal migrate --to raft --member m1=h1:7072",
  )
    .option("--to <type>", "local, raft or zookeeper")
    .option("--member <id=address...>", "for raft: host:port by which other masters will reach this one's journal")
    .option("--without <id...>", "masters that need not be ready, and stay behind")
    .option("--abort", "take back a move that is prepared and not decided")
    .option("--dir <directory>", "master.dir of a master that does not run: raft, or local to take it back")
    .option("--id <id>", "with --dir: master.id from now on", "m1")
    .option("--listen <address>", "with --dir: host:port by which other masters will reach its journal")
    .action(
      action(signal, async (context, flags) => {
        if (flags["dir"] === undefined) return (await import("./migrate-online.ts")).migrateOnline(context, flags);
        const directory = String(flags["dir"]);
        const to = String(flags["to"]);
        const disk = new NodeDisk({ isPrivate: true });
        if (to === "local") {
          const done = await locked(disk, directory, (journal) => convertToLocal({ disk, directory: journal }));
          context.output.result({ ...done, directory, journal: to }, () =>
            context.output.line(
              done.changed
                ? `${directory} is the directory of a single master again: start it with journal.type local`
                : `${directory} is the directory of a single master: nothing to do`,
            ),
          );
          return 0;
        }
        if (to !== "raft") throw new HeadpondError("invalid", `--to ${to}: write raft or local`);
        const id = parseMasterId(flags["id"]);
        const address = reachableAddress(flags["listen"]);
        const incarnation = randomUUID();
        const done = await locked(disk, directory, (journal) =>
          convertToRaft({ disk, directory: journal, id, address, incarnation }),
        );
        context.output.result({ ...done, directory, journal: to, id, address }, () => {
          context.output.line(
            done.changed
              ? `${directory} is the directory of ${id} now, so far the only voter of cluster ${done.clusterId}`
              : `${directory} is the directory of ${id} already: nothing to do`,
          );
          const { port } = parseHostPort(address);
          context.output.line("next: start it with this in its configuration, then let others join with --join:");
          context.output.line(`  master: { id: ${id} }`);
          context.output.line(`  journal: { type: raft, raft: { listen: 0.0.0.0:${port} } }`);
          context.output.line("until then `headpond journal migrate --to local` takes it back");
        });
        return 0;
      }),
    );
}

export function reachableAddress(given: unknown): string {
  if (given === undefined) throw new HeadpondError("invalid", "--to raft needs --listen HOST:PORT of its journal");
  const address = parseHostPort(given);
  if (address.host === "0.0.0.0" || address.host === "::" || address.port === 0) {
    throw new HeadpondError("invalid", `--listen ${String(given)}: write the address by which other masters reach it`);
  }
  return formatHostPort(address);
}

/** With the lock of the master's directory, if `directory` is one; it may also be that of the journal itself. */
async function locked<T>(disk: Disk, directory: string, work: (journal: string) => Promise<T>): Promise<T> {
  const inside = journalDirectory(directory);
  const isMaster = await readMeta(disk, inside).then(
    () => true,
    () => false,
  );
  if (!isMaster) await readMeta(disk, directory);
  const lock: DiskLock = await lockMaster(disk, isMaster ? directory : join(directory, ".."));
  try {
    return await work(isMaster ? inside : directory);
  } finally {
    await lock.release();
  }
}
