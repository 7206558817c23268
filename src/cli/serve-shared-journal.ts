/** A master's journal over shared storage with ZooKeeper, by its configuration: the store, the election, and what a directory must be for it. */

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Config } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { type ClusterId, type MasterId, parseClusterId } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import type { Network } from "../io/network.ts";
import { TlsNetwork } from "../io/tls-network.ts";
import type { VerifyReport } from "../journal/inspect.ts";
import type { Journal, StateMachine } from "../journal/journal.ts";
import { readCheckedJson, writeCheckedJson } from "../journal/journal-meta.ts";
import { openSharedStore } from "../journal/open-shared-store.ts";
import { readSharedCluster } from "../journal/shared-format.ts";
import { SharedLogAtRest } from "../journal/shared-inspect.ts";
import { SharedJournal } from "../journal/shared-journal.ts";
import { readSharedIdentity } from "../journal/shared-place.ts";
import type { SharedStore } from "../journal/shared-store.ts";
import { ZooKeeperElection } from "../journal/zookeeper-election.ts";
import { featureLevelMax } from "../namespace/feature-level.ts";
import { DigestMd5 } from "../zookeeper/digest-md5.ts";
import { creatorAcl, openAcl } from "../zookeeper/protocol.ts";
import { ZooKeeper } from "../zookeeper/zookeeper.ts";
import type { NewJournal } from "./master-directory.ts";
import type { Doors } from "./serve.ts";
import { version } from "./version.ts";

/** The next in line takes so much of a session's time of silence for a hint. */
const silenceShare = 2 / 3;
const pingsPerSession = 10;
const incarnationFile = "incarnation.json";

/** Whoever opens it closes it. */
export function openConfiguredStore(
  config: Config,
  { clock, privateDisk, logger }: Pick<Doors, "clock" | "privateDisk" | "logger">,
  metrics: Metrics,
): Promise<SharedStore> {
  const uri = config["journal.zookeeper.store"];
  if (uri === undefined) throw new HeadpondError("invalid", "journal.zookeeper.store: say where the log is");
  const environment = process.env;
  const dependencies = { disk: privateDisk, clock, logger, metrics, environment };
  return openSharedStore(uri, config["journal.zookeeper.storeOptions"], dependencies);
}

/**
 * What a master's directory is formatted as: for the cluster whose log is in the store, or, if `founds`, for a new one. An empty store may
 * be one that is not mounted, so a start founds nothing.
 */
export async function sharedJournalToFormat(
  config: Config,
  store: SharedStore,
  options: { readonly clusterId?: string | undefined; readonly founds: boolean },
): Promise<NewJournal> {
  const wanted = options.clusterId ?? config["cluster.id"];
  const given = wanted === undefined ? undefined : parseClusterId(wanted);
  const present = await readSharedCluster(store);
  if (present === undefined && !options.founds) {
    throw new HeadpondError(
      "not-found",
      `${store.uri} holds no journal, and a start founds none: is it mounted, is it the right place? To found a cluster, once: \`headpond format\` for ` +
        "its first master; the others need no format",
    );
  }
  if (present !== undefined && given !== undefined && present !== given) {
    throw new HeadpondError("invalid", `${store.uri} holds the journal of cluster ${present}, not of ${given}`);
  }
  const clusterId = present ?? given ?? (randomUUID() as string as ClusterId);
  return { type: "zookeeper", id: config["master.id"] as MasterId, clusterId, store };
}

/** Reads the whole log in the store, and what its checkpoints name. `scratch`: a directory for that, which is removed again. */
export async function verifyConfiguredStore(
  config: Config,
  doors: Doors,
  scratch: string,
): Promise<Pick<VerifyReport, "ok" | "entries" | "bytes" | "findings">> {
  const { clock, privateDisk } = doors;
  const store = await openConfiguredStore(config, doors, new Metrics());
  try {
    const log = await SharedLogAtRest.open({ store, clock, signal: new AbortController().signal });
    return await log.verify(privateDisk, scratch);
  } finally {
    await store.close();
  }
}

export type SharedJournalParts<Result> = {
  readonly config: Config;
  readonly doors: Doors;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly random: Random;
  readonly clusterId: ClusterId;
  /** Of the journal's local part. */
  readonly directory: string;
  readonly machine: StateMachine<Result>;
  readonly addresses: () => { readonly rpc: string; readonly http: string } | undefined;
};

export type MadeSharedJournal<Result> = {
  readonly journal: Journal<Result>;
  readonly alarm: () => string | undefined;
  /** After the journal. */
  readonly closeStore: () => Promise<void>;
};

/** Not started. Throws `invalid` when the directory was made for another type of journal or another master. */
export async function makeSharedJournal<Result>(parts: SharedJournalParts<Result>): Promise<MadeSharedJournal<Result>> {
  const { config, doors, logger, metrics, random, clusterId, directory, machine, addresses } = parts;
  const { clock, disk, network, onFatal } = doors;
  const id = config["master.id"];
  if ((await readSharedIdentity(disk, directory)) === undefined) {
    throw new HeadpondError(
      "invalid",
      `${directory} holds another type of journal: \`headpond journal migrate\` moves it, or give this master an empty directory`,
    );
  }
  const store = await openConfiguredStore(config, doors, metrics);
  const sessionTimeoutMs = config["journal.zookeeper.sessionTimeout"];
  const election = new ZooKeeperElection({
    connect: zookeeperBy(config, doors, logger, random),
    network,
    clock,
    logger,
    random,
    metrics,
    root: config["journal.zookeeper.root"],
    acl: config["journal.zookeeper.auth"] === "none" ? openAcl : creatorAcl,
    clusterId,
    software: version,
    candidate: () => ({ id, ...(addresses() ?? { rpc: "", http: "" }), featureLevel: featureLevelMax }),
    incarnation: await incarnationOf(disk, directory),
    newMark: () => randomUUID().replaceAll("-", ""),
    limits: {
      probe: {
        pingEveryMs: sessionTimeoutMs / pingsPerSession,
        silenceMs: sessionTimeoutMs * silenceShare,
      },
    },
  });
  let diverged: string | undefined;
  const journal = new SharedJournal<Result>({
    disk,
    clock,
    logger,
    metrics,
    directory,
    clusterId,
    id,
    machine,
    store,
    election,
    random,
    limits: { checkpointEveryBytes: config["journal.checkpointEvery"] },
    onFatal,
    onDiverged: (details) => (diverged = details),
  });
  return { journal, alarm: () => diverged ?? election.view.problem, closeStore: () => store.close() };
}

/** Begins sessions with the ensemble as the configuration says. Throws `invalid` when the password cannot be read. */
export function zookeeperBy(
  config: Config,
  { network, clock }: Pick<Doors, "network" | "clock">,
  logger: Logger,
  random: Random,
): () => ZooKeeper {
  const servers = config["journal.zookeeper.servers"];
  const sessionTimeoutMs = config["journal.zookeeper.sessionTimeout"];
  const auth = config["journal.zookeeper.auth"];
  const user = config["journal.zookeeper.user"] ?? "";
  const password = readSetting(config, "journal.zookeeper.passwordFile")?.split("\n", 1)[0]?.trimEnd() ?? "";
  const common = { network: zookeeperNetwork(config, network), clock, logger, random, servers, sessionTimeoutMs };
  switch (auth) {
    case "none":
      return () => new ZooKeeper(common);
    case "digest":
      return () => new ZooKeeper({ ...common, auth: [{ scheme: "digest", auth: `${user}:${password}` }] });
    case "sasl": {
      const sasl = new DigestMd5({ user, password, nonce: randomUUID });
      return () => new ZooKeeper({ ...common, sasl });
    }
    default:
      return auth satisfies never;
  }
}

function zookeeperNetwork(config: Config, plain: Network): Network {
  if (config["journal.zookeeper.tls"] === "off") return plain;
  return new TlsNetwork({
    ca: readSetting(config, "journal.zookeeper.tlsCa"),
    certificate: readSetting(config, "journal.zookeeper.tlsCertificate"),
    key: readSetting(config, "journal.zookeeper.tlsKey"),
    serverName: config["journal.zookeeper.tlsServerName"],
  });
}

type FileSetting = `journal.zookeeper.${"passwordFile" | "tlsCa" | "tlsCertificate" | "tlsKey"}`;

function readSetting(config: Config, key: FileSetting): string | undefined {
  const path = config[key];
  if (path === undefined) return undefined;
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new HeadpondError("invalid", `${key}: ${(error as Error).message}`, { cause: error });
  }
}

/** Drawn once for a directory: tells a process that works on it now from one that did before. */
async function incarnationOf(disk: Disk, directory: string): Promise<string> {
  const value = await readCheckedJson(disk, `${directory}/${incarnationFile}`);
  if (typeof value?.["incarnation"] === "string") return value["incarnation"];
  const incarnation = randomUUID();
  await writeCheckedJson(disk, directory, incarnationFile, { incarnation });
  return incarnation;
}
