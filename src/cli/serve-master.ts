/**
 * A master wired to the real world (`master-directory.ts` says what is in its directory).
 *
 * An empty directory is formatted as a new cluster of its own, and says so loudly, when that cannot tear a cluster in two: with the local
 * journal, as the only founder, or when all founders were given one cluster id. Workers that know another cluster refuse to register.
 */

import { join } from "node:path";
import { type Config, formatHostPort, parseHostPort, withSettings } from "../base/config.ts";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ClusterId, MasterId } from "../base/ids.ts";
import { Metrics } from "../io/metrics.ts";
import { PacedCopier } from "../io/paced-copy.ts";
import { verifyJournal } from "../journal/inspect.ts";
import { readBootId, readMeta } from "../journal/journal-meta.ts";
import { Master } from "../master/master.ts";
import { LmdbStore } from "../namespace/lmdb-store.ts";
import { Namespace } from "../namespace/namespace.ts";
import { journalOfFirstStart } from "./founding.ts";
import { Joining, type JoinOptions } from "./joining.ts";
import { formatLocked, isEmpty, journalDirectory, lockMaster, stateDirectory } from "./master-directory.ts";
import { advertisedHost, type Doors, reachedHost, type Served } from "./serve.ts";
import { openConfiguredStore, sharedJournalToFormat, verifyConfiguredStore } from "./serve-shared-journal.ts";
import { makeSwitchingJournal } from "./serve-switching-journal.ts";
import { openUnderStoreWith } from "./serve-under-store.ts";
import { version } from "./version.ts";

export type ServeMasterOptions = {
  readonly join?: JoinOptions | undefined;
  /** False: when it stops, the others stop too, and a leader looks for no successor. */
  readonly handsOver?: boolean;
};

export async function serveMaster(config: Config, given: Doors, options: ServeMasterOptions = {}): Promise<Served> {
  const { join: joins, handsOver = true } = options;
  const doors = { ...given, disk: given.privateDisk };
  const { clock, disk, network } = doors;
  const joining = joins === undefined ? undefined : new Joining(config, doors, joins);
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
    const clusterId = await openOrFormat(config, doors, joining, metrics);
    const bootId = await readBootId(disk);
    const store = await LmdbStore.open({
      directory: stateDirectory(directory),
      disk,
      copier: new PacedCopier({ disk, clock }),
      ...(bootId === undefined ? {} : { bootId }),
    });
    const namespace = new Namespace({ store, limits: { cachedRowsBytesMax: config["master.inodeCache"] } });
    closers.push(() => namespace.close());
    // The journal tells the others where this master's doors are, as soon as there are any.
    const made: { master?: Master } = {};
    const journal = await makeSwitchingJournal({
      config,
      doors,
      logger,
      metrics,
      clusterId,
      namespace,
      addresses: () => made.master?.addresses,
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
      ...advertised(config),
      journal,
      namespace,
      alarm: () => journal.alarm,
      verifyJournal: () => {
        const { type, directory: place, settings } = journal.place;
        if (type !== "zookeeper") return verifyJournal(disk, place);
        return verifyConfiguredStore(
          withSettings(config, { ...settings, "journal.type": type }),
          doors,
          join(place, "verified"),
        );
      },
      openUnderStore: openUnderStoreWith(given, metrics),
      workerTimeoutMs: config["master.workerTimeout"],
      rates: definedRates(config),
    });
    made.master = master;
    closers.push(async () => {
      if (handsOver) await master.handOver();
      await master.close();
    });
    await master.start();
    await joining?.join();
    const { rpc, http } = reached(master);
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

/** A single master may be reached by whatever its clients have found; it may have company later. */
function advertised(config: Config): { readonly advertisedHost?: string } {
  const { host } = config["master.rpc"];
  const isAlone = config["journal.type"] === "local" && config["master.advertise"] === undefined;
  if (isAlone && (host === "0.0.0.0" || host === "::")) return {};
  return { advertisedHost: reachedHost(host, config, "master.rpc") };
}

/** A wildcard says nothing to those who read the ready line. */
function reached(master: Master): { readonly rpc: string; readonly http: string } {
  const at = (address: string): string => {
    const { host, port } = parseHostPort(address);
    return formatHostPort({ host: advertisedHost(host, undefined), port });
  };
  const { rpc, http } = master.addresses;
  return { rpc: at(rpc), http: at(http) };
}

function definedRates(config: Config): { linkBytesPerSecond?: number; originBytesPerSecond?: number } {
  const link = config["cluster.linkRate"];
  const origin = config["cluster.originRate"];
  return {
    ...(link === undefined ? {} : { linkBytesPerSecond: link }),
    ...(origin === undefined ? {} : { originBytesPerSecond: origin }),
  };
}

/** The cluster that the directory belongs to, which is locked; an empty one is formatted if that can do no harm. */
async function openOrFormat(
  config: Config,
  doors: Doors,
  joining: Joining | undefined,
  metrics: Metrics,
): Promise<ClusterId> {
  const { disk, clock, logger } = doors;
  const directory = config["master.dir"];
  const isNew = await isEmpty(disk, directory);
  if (isNew && config["journal.type"] === "zookeeper") {
    const store = await openConfiguredStore(config, doors, metrics);
    try {
      const journal = await sharedJournalToFormat(config, store, { founds: false });
      await formatLocked({ disk, clock, directory, journal });
      logger.info("formatted for the cluster whose journal is in the store", {
        clusterId: journal.clusterId,
        directory,
      });
      return journal.clusterId;
    } finally {
      await store.close();
    }
  }
  if (isNew) {
    const journal = joining === undefined ? journalOfFirstStart(config) : await joining.prepare();
    await formatLocked({ disk, clock, directory, journal });
    const { clusterId, type } = journal;
    if (joining !== undefined) logger.info("formatted to join a cluster", { clusterId, directory });
    else logger.warn("formatted a new, empty cluster", { clusterId, directory, journal: type });
    return clusterId;
  }
  const { clusterId } = await readMeta(disk, journalDirectory(directory));
  const wanted = config["cluster.id"];
  if (wanted !== undefined && wanted !== clusterId) {
    throw new HeadpondError(
      "invalid",
      `${directory} belongs to cluster ${clusterId}, not to ${wanted} (cluster.id): give this master its own directory`,
    );
  }
  await joining?.check(clusterId);
  return clusterId;
}
