/**
 * A master wired to the real world: its directory holds `journal/` (the log and its checkpoints) and `state/` (LMDB).
 *
 * An empty directory is formatted as a new cluster of its own, and says so loudly: with the local journal there is nobody
 * whose data a new cluster could be confused with. Workers that know another cluster refuse to register.
 */

import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { type Config, formatHostPort } from "../base/config.ts";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ClusterId, MasterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk, DiskLock } from "../io/disk.ts";
import { Metrics } from "../io/metrics.ts";
import { formatJournal } from "../journal/format.ts";
import { verifyJournal } from "../journal/inspect.ts";
import { readBootId, readMeta } from "../journal/journal-meta.ts";
import { LocalJournal } from "../journal/local-journal.ts";
import { Master } from "../master/master.ts";
import type { CommandResult } from "../namespace/command.ts";
import { LmdbStore } from "../namespace/lmdb-store.ts";
import { Namespace } from "../namespace/namespace.ts";
import { advertisedHost, type Doors, type Served } from "./serve.ts";
import { openUnderStoreWith } from "./serve-under-store.ts";
import { version } from "./version.ts";

/** Held by the process that works on the directory. */
const lockName = "lock";

export function journalDirectory(masterDirectory: string): string {
  return join(masterDirectory, "journal");
}

export async function serveMaster(config: Config, doors: Doors): Promise<Served> {
  const { clock, disk, network, onFatal } = doors;
  if (config["journal.type"] !== "local") {
    throw new HeadpondError(
      "unsupported",
      `journal.type ${config["journal.type"]}: this version has the local journal only`,
    );
  }
  const logger = doors.logger.child({ master: config["master.id"] });
  const metrics = new Metrics();
  const directory = config["master.dir"];
  const closers: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (const end of closers.splice(0).toReversed()) await end();
  };
  try {
    const lock = await lockMaster(disk, directory);
    closers.push(() => lock.release());
    const clusterId = await openOrFormat(directory, doors);
    const bootId = await readBootId(disk);
    const store = await LmdbStore.open({
      directory: join(directory, "state"),
      disk,
      ...(bootId === undefined ? {} : { bootId }),
    });
    const namespace = new Namespace({ store });
    closers.push(() => namespace.close());
    const journal = new LocalJournal<CommandResult>({
      disk,
      clock,
      logger,
      metrics,
      directory: journalDirectory(directory),
      clusterId,
      machine: namespace,
      limits: { checkpointEveryBytes: config["journal.checkpointEvery"] },
      onFatal,
    });
    closers.push(() => journal.close());
    const master = new Master({
      id: config["master.id"] as MasterId,
      clusterId,
      clusterName: config["cluster.name"],
      version,
      nodeVersion: process.version,
      directory,
      disk,
      network,
      clock,
      logger,
      metrics,
      rpcAddress: config["master.rpc"],
      httpAddress: config["master.http"],
      journal,
      namespace,
      verifyJournal: () => verifyJournal(disk, journalDirectory(directory)),
      openUnderStore: openUnderStoreWith(doors, metrics),
      workerTimeoutMs: config["master.workerTimeout"],
      rates: definedRates(config),
    });
    closers.push(() => master.close());
    await master.start();
    const rpc = formatHostPort({ ...master.rpcAddress, host: advertisedHost(master.rpcAddress.host, undefined) });
    const http = formatHostPort({ ...master.httpAddress, host: advertisedHost(master.httpAddress.host, undefined) });
    return { masters: [rpc], endpoints: { rpc, http: `http://${http}` }, workers: [], directory, close };
  } catch (error) {
    // What stays open keeps the process alive, and nobody would start it again.
    await close().catch((second: unknown) =>
      logger.warn("a master that failed to start was not closed", { error: second }),
    );
    throw withAdvice(error, directory);
  }
}

/** Damage in the journal is named by the journal; what to do about it depends on what there is beside it. */
function withAdvice(error: unknown, directory: string): unknown {
  const journal = journalDirectory(directory);
  if (!isHeadpondError(error, "corrupt") || !String(error.details?.["file"] ?? "").startsWith(journal)) return error;
  const message =
    `${error.message}. Nothing was changed: "headpond journal verify --dir ${journal}" lists all damage; ` +
    `put a good copy of ${directory} in its place, or begin anew in an empty directory`;
  return new HeadpondError("corrupt", message, { cause: error, details: error.details ?? {} });
}

/**
 * Before anything in the directory is opened or made: a second process would write into the state of the first one, and
 * two that find it empty would both format it.
 */
async function lockMaster(disk: Disk, directory: string): Promise<DiskLock> {
  await disk.makeDirectory(directory);
  const lock = await disk.lock(join(directory, lockName));
  if (lock !== undefined) return lock;
  throw new HeadpondError(
    "unavailable",
    `${directory}: already in use by another process: stop it, or choose another directory`,
  );
}

function definedRates(config: Config): { linkBytesPerSecond?: number; originBytesPerSecond?: number } {
  const link = config["cluster.linkRate"];
  const origin = config["cluster.originRate"];
  return {
    ...(link === undefined ? {} : { linkBytesPerSecond: link }),
    ...(origin === undefined ? {} : { originBytesPerSecond: origin }),
  };
}

async function openOrFormat(directory: string, { disk, clock, logger }: Doors): Promise<ClusterId> {
  const journal = journalDirectory(directory);
  if ((await namesIn(disk, directory)).length === 0) {
    const clusterId = randomUUID() as ClusterId;
    await formatLocked({ disk, clock, directory, clusterId, erase: undefined });
    logger.warn("formatted a new, empty cluster", { clusterId, directory });
    return clusterId;
  }
  return (await readMeta(disk, journal)).clusterId;
}

type FormatOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly directory: string;
  readonly clusterId: ClusterId;
  readonly erase: string | undefined;
};

/**
 * Throws `already-exists` unless the directory is empty, or `erase` is the id of the cluster in it; `unavailable` while a
 * master runs on it.
 */
export async function formatMaster(options: FormatOptions): Promise<void> {
  const lock = await lockMaster(options.disk, options.directory);
  try {
    await formatLocked(options);
  } finally {
    await lock.release();
  }
}

async function formatLocked(options: FormatOptions): Promise<void> {
  const { disk, clock, directory, clusterId, erase } = options;
  const journal = journalDirectory(directory);
  if (erase !== undefined) {
    const present = await readMeta(disk, journal);
    if (present.clusterId !== erase) {
      throw new HeadpondError(
        "denied",
        `${directory} belongs to cluster ${present.clusterId}, not ${erase}: nothing was erased`,
      );
    }
    await disk.removeTree(join(directory, "state"));
    await disk.removeTree(journal);
  }
  const names = await namesIn(disk, directory);
  if (names.length > 0) {
    throw new HeadpondError(
      "already-exists",
      `${directory} is not empty (${names.slice(0, 3).join(", ")}): choose another, or erase it with --erase CLUSTER-ID`,
    );
  }
  await formatJournal({ disk, clock, directory: journal, clusterId });
}

async function namesIn(disk: Disk, directory: string): Promise<readonly string[]> {
  return (await disk.list(directory)).filter((name) => name !== lockName);
}
