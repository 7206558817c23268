/**
 * Configuration: one table of settings, each with its kind, default and meaning. From it come the checks, `config show`,
 * `config docs` and the environment's names. Precedence: flag, then `HEADPOND_SECTION_KEY`, then file, then default.
 *
 * An unknown key and a value of the wrong unit are errors that name the nearest right key. Pure: the CLI reads the
 * file and the environment.
 */

import {
  choice,
  directories,
  duration,
  integer,
  integerOrAuto,
  list,
  masterId,
  optionalSize,
  optionalText,
  place,
  type Setting,
  size,
  text,
  texts,
  wrong,
} from "./config-kinds.ts";
import { HeadpondError } from "./errors.ts";
import { parseMasterId } from "./ids.ts";

export type HostPort = { readonly host: string; readonly port: number };
/** Every setting by its full key. Values in `Config` have these types. */
export const settings = {
  "cluster.name": text("headpond", "Name of the cluster, for people."),
  "cluster.id": optionalText(
    "Id of the cluster, drawn anew for each (`uuidgen`). With it a master whose directory is empty formats it by itself, and one whose directory belongs to another cluster refuses to start.",
  ),
  "cluster.linkRate": optionalSize(
    "What one worker's network card moves in a second, for the bound of a load; 1250MB is assumed.",
  ),
  "cluster.originRate": optionalSize(
    "What an under store gives one region in a second, for the bound of a load; 1250MB is assumed.",
  ),
  "master.id": masterId("m1", "Name of this master, unique in the cluster and never used again for another disk."),
  "master.dir": text("/var/lib/headpond/master", "Directory of the journal and the state."),
  "master.rpc": address("0.0.0.0:7070", "Where clients and workers reach this master."),
  "master.http": address("0.0.0.0:7071", "Status page, JSON API, health and metrics."),
  "master.advertise": optionalText(
    "Host name or address that clients, workers and other masters reach this master by; default: the host that it listens on, or that `journal.raft.members` names.",
  ),
  "master.inodeCache": size(
    "256MiB",
    "Memory for inodes that were made or read last, 80 to 150 bytes each; what is not in it is read from the state's file. Used as inodes come.",
  ),
  "master.workerTimeout": duration("10s", "A worker whose connection is gone for this long is lost."),
  "journal.type": choice("local", ["local", "raft", "zookeeper"], "Which journal keeps the masters' commands."),
  "journal.checkpointEvery": size("1GiB", "Bytes of log after which a checkpoint is made and the log is cut."),
  "journal.raft.listen": address("0.0.0.0:7072", "Where the other masters reach this master's journal."),
  "journal.raft.members": members(
    "The founders, as the others reach them: `{ m1: h1:7072, m2: h2:7072, m3: h3:7072 }`. Counts only when a cluster is formatted; afterwards the journal knows the members.",
  ),
  "journal.raft.electionTimeout": duration(
    "300ms",
    "T: a master that has not heard of the leader for [T, 2T), drawn at random each time, stands for election.",
  ),
  "journal.raft.heartbeat": duration("30ms", "How often the leader shows that it is there; at most a third of T."),
  "journal.raft.logKeep": size(
    "256MiB",
    "Log that is kept behind a checkpoint for masters that are a little behind; who lacks more gets the checkpoint.",
  ),
  "journal.raft.logMax": size("4GiB", "The log never grows beyond, however far behind a master is."),
  "journal.raft.snapshotRate": size("256MiB", "Bytes a second of a checkpoint that is sent to another master."),
  "journal.zookeeper.servers": addresses(
    "The servers of the ensemble that elects the primary: `[zk1:2181, zk2:2181, zk3:2181]`.",
  ),
  "journal.zookeeper.root": text("/headpond", "Node below which the masters meet: of this cluster alone."),
  "journal.zookeeper.sessionTimeout": duration(
    "1s",
    "A master that ZooKeeper has not heard for so long takes part no more. The servers may ask for more: their least is two of their ticks.",
  ),
  "journal.zookeeper.store": optionalText(
    "Where the log is, for all masters: `file:///mnt/shared/journal` or `s3://bucket/prefix`.",
  ),
  "journal.zookeeper.storeOptions": texts(
    'Options of the store, as those of a mount: `{ endpoint: "https://s3.example" }`.',
  ),
  "journal.zookeeper.auth": choice(
    "none",
    ["none", "digest", "sasl"],
    "How masters prove to ZooKeeper who they are; its nodes are then theirs alone. sasl: DIGEST-MD5.",
  ),
  "journal.zookeeper.user": optionalText("Name for `auth`."),
  "journal.zookeeper.passwordFile": optionalText("File whose first line is the password for `auth`."),
  "journal.zookeeper.tls": choice("off", ["off", "on"], "Whether connections to ZooKeeper are encrypted."),
  "journal.zookeeper.tlsCa": optionalText(
    "File with the certificates (PEM) that the servers' are checked by; the system's, if absent.",
  ),
  "journal.zookeeper.tlsCertificate": optionalText(
    "File with this master's own certificate (PEM), for servers that ask for one.",
  ),
  "journal.zookeeper.tlsKey": optionalText("File with the key (PEM) of that certificate."),
  "journal.zookeeper.tlsServerName": optionalText(
    "Name that the servers' certificates are for, where it is not the one that they are reached by.",
  ),
  "worker.id": optionalText("Name of this worker; drawn once and kept in its first cache directory if not given."),
  "worker.masters": list(["localhost:7070"], "RPC addresses of all masters."),
  "worker.place": place("local/local/local/localhost", "Where this worker is: cloud/region/zone/host."),
  "worker.dirs": directories(
    [{ path: "/var/lib/headpond/cache" }],
    "Cache directories, one NVMe each: path and capacity.",
  ),
  "worker.data": address("0.0.0.0:7080", "HTTP ranges and framed RPC."),
  "worker.http": address("0.0.0.0:7081", "Health and metrics."),
  "worker.advertise": optionalText(
    "Host name or address that others reach this worker by; default: the host of its place.",
  ),
  "worker.originConcurrency": integer(8, 1, 1024, "Blocks read from each under store at once."),
  "worker.peerConcurrency": integer(12, 1, 1024, "Blocks taken from other workers at once."),
  "worker.loads": choice(
    "owners",
    ["owners", "claims"],
    "How the blocks of a load come: from the owner of each, or by claims, which move to whoever is ahead (docs/distribution.md says why it is not the default).",
  ),
  "worker.threads": integerOrAuto(
    1,
    256,
    "Threads that send files, where the system allows it (Linux, with the package koffi); auto: half of the processors, at least one.",
  ),
  "worker.fillBuffers": size(
    "96MiB",
    "Memory for blocks that are arriving or have just arrived: at least 4 MiB for each read at once, and two more.",
  ),
  "gateways.hf": optionalAddress("Hugging Face Hub mirror."),
  "gateways.files": optionalAddress("Plain files over HTTP."),
  "gateways.hubRoot": text("/models", "Directory whose org/name children are the Hub's models."),
  "log.level": choice("info", ["debug", "info", "warn", "error"], "Least severe messages that are logged."),
} as const satisfies Record<string, Setting<unknown>>;

export type SettingKey = keyof typeof settings;
export type Config = { readonly [K in SettingKey]: (typeof settings)[K] extends Setting<infer T> ? T : never };

/** Sections of the surface whose parts this version does not have: a clear error instead of `unknown key`. */
const partsNotBuilt: Readonly<Record<string, string>> = {
  "gateways.s3": "the S3 gateway",
};

export type ConfigSource = "flag" | "environment" | "file" | "default";
export type LoadedConfig = {
  readonly config: Config;
  readonly sources: Readonly<Record<SettingKey, ConfigSource>>;
  /** As written, for `config show`. */
  readonly raw: Readonly<Record<SettingKey, unknown>>;
};

export type ConfigInput = {
  /** The parsed YAML document; undefined or null: no file. */
  readonly file?: unknown;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** By full key. */
  readonly flags?: Readonly<Partial<Record<SettingKey, unknown>>>;
};

/** Throws `invalid` that lists every problem at once. */
export function loadConfig(input: ConfigInput): LoadedConfig {
  const problems: string[] = [];
  const fromFile = flatten(input.file, problems);
  const fromEnvironment = readEnvironment(input.environment ?? {}, problems);
  const config: Record<string, unknown> = {};
  const sources: Record<string, ConfigSource> = {};
  const raw: Record<string, unknown> = {};
  for (const key of Object.keys(settings) as SettingKey[]) {
    const setting: Setting<unknown> = settings[key];
    const [source, value] = firstGiven([
      ["flag", input.flags?.[key]],
      ["environment", fromEnvironment.get(key)],
      ["file", fromFile.get(key)],
      ["default", setting.initial],
    ]);
    sources[key] = source;
    raw[key] = value;
    try {
      config[key] = setting.parse(value);
    } catch (error) {
      problems.push(`${key} (from ${describeSource(source, key)}): ${(error as Error).message}`);
    }
  }
  if (problems.length === 0) problems.push(...contradictions(config as Config));
  if (problems.length > 0) {
    throw new HeadpondError("invalid", `configuration: ${problems.join("; ")}`);
  }
  return {
    config: config as Config,
    sources: sources as LoadedConfig["sources"],
    raw: raw as LoadedConfig["raw"],
  };
}

/** `config` with other values, as written in a file, for some settings. Throws `invalid` that lists every problem. */
export function withSettings(config: Config, raw: Readonly<Record<string, unknown>>): Config {
  const problems: string[] = [];
  const changed: Record<string, unknown> = { ...config };
  for (const [key, value] of Object.entries(raw)) {
    const setting = (settings as Readonly<Record<string, Setting<unknown>>>)[key];
    if (setting === undefined) problems.push(unknownKey(key));
    else {
      try {
        changed[key] = setting.parse(value);
      } catch (error) {
        problems.push(`${key}: ${(error as Error).message}`);
      }
    }
  }
  if (problems.length === 0) problems.push(...contradictions(changed as Config));
  if (problems.length > 0) throw new HeadpondError("invalid", `configuration: ${problems.join("; ")}`);
  return changed as Config;
}

/** `journal.checkpointEvery` → `HEADPOND_JOURNAL_CHECKPOINT_EVERY`. */
export function environmentName(key: string): string {
  return `HEADPOND_${key
    .replaceAll(".", "_")
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .toUpperCase()}`;
}

/** The reference of all settings in Markdown: docs/configuration.md is this text. */
export function configurationReference(): string {
  const lines = [
    "# Configuration",
    "",
    "Made by `headpond config docs`; a test holds the two together. Precedence: flag, environment, file (`--config`, else",
    "`headpond.yaml` in the current directory, else `/etc/headpond/headpond.yaml`), default. `headpond config show` tells each",
    "value and where it came from. Sizes are written `512MiB`, durations `300ms`, addresses `host:port`.",
    "",
  ];
  let section = "";
  for (const [key, setting] of Object.entries(settings)) {
    const [name = ""] = key.split(".");
    if (name !== section) {
      section = name;
      lines.push(`## ${section}`, "", "| key | kind | default | meaning |", "|---|---|---|---|");
    }
    lines.push(`| \`${key}\` | ${setting.kind} | ${showRaw(setting.initial)} | ${setting.help} |`);
    if (nextSection(key) !== section) lines.push("");
  }
  return `${lines.join("\n").trimEnd()}\n`;
}

/** Splits `host:port`, `[v6]:port` or `:port`. Throws `invalid`. */
export function parseHostPort(text: unknown): HostPort {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:/\s]*)):([0-9]{1,5})$/.exec(String(text));
  const port = Number(match?.[3]);
  if (match === null || port > 65535) throw new HeadpondError("invalid", `${JSON.stringify(text)} is not host:port`);
  return { host: match[1] ?? (match[2] === "" ? "0.0.0.0" : (match[2] as string)), port };
}

export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The candidate with the fewest edits from `wrong`, if it is near enough to be meant. */
export function nearestName(wrong: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestEdits = Math.max(2, Math.floor(wrong.length / 3)) + 1;
  for (const candidate of candidates) {
    const edits = editDistance(wrong.toLowerCase(), candidate.toLowerCase());
    if (edits < bestEdits) [best, bestEdits] = [candidate, edits];
  }
  return best;
}

/** What is wrong with values that are right one by one. */
function contradictions(config: Config): string[] {
  const problems = config["journal.type"] === "zookeeper" ? zookeeperProblems(config) : [];
  const heartbeatMs = config["journal.raft.heartbeat"];
  const electionTimeoutMs = config["journal.raft.electionTimeout"];
  if (heartbeatMs >= 1 && heartbeatMs * 3 <= electionTimeoutMs) return problems;
  return [
    ...problems,
    `journal.raft.heartbeat: ${heartbeatMs}ms does not fit an electionTimeout of ${electionTimeoutMs}ms: ` +
      "take at least 1ms and at most a third of it",
  ];
}

const sessionTimeoutMsMin = 100;

function zookeeperProblems(config: Config): string[] {
  const problem = (key: string, isOne: boolean, what: string): string[] =>
    isOne ? [`journal.zookeeper.${key}: ${what}`] : [];
  const root = config["journal.zookeeper.root"];
  const sessionTimeoutMs = config["journal.zookeeper.sessionTimeout"];
  const auth = config["journal.zookeeper.auth"];
  const user = config["journal.zookeeper.user"];
  const hasCertificate = config["journal.zookeeper.tlsCertificate"] !== undefined;
  const isAnonymous = user === undefined || config["journal.zookeeper.passwordFile"] === undefined;
  return [
    ...problem("servers", config["journal.zookeeper.servers"].length === 0, "name the servers of the ensemble"),
    ...problem(
      "store",
      config["journal.zookeeper.store"] === undefined,
      "say where the log is, e.g. file:///mnt/shared/journal",
    ),
    ...problem("root", !/^(\/[^/\s]+)+$/.test(root), `"${root}" is no node's path, e.g. /headpond/prod-eu`),
    ...problem(
      "sessionTimeout",
      sessionTimeoutMs < sessionTimeoutMsMin,
      `${sessionTimeoutMs}ms is less than ${sessionTimeoutMsMin}ms`,
    ),
    ...problem("auth", auth !== "none" && isAnonymous, `${auth} needs user and passwordFile`),
    ...problem("user", auth === "digest" && user?.includes(":") === true, "a name for digest has no colon"),
    ...problem(
      "tlsKey",
      hasCertificate !== (config["journal.zookeeper.tlsKey"] !== undefined),
      "goes with tlsCertificate",
    ),
  ];
}

function flatten(file: unknown, problems: string[]): Map<string, unknown> {
  const found = new Map<string, unknown>();
  const visit = (value: unknown, prefix: string): void => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      problems.push(prefix === "" ? "the file is not a map of sections" : unknownKey(prefix));
      return;
    }
    for (const [name, child] of Object.entries(value)) {
      const key = prefix === "" ? name : `${prefix}.${name}`;
      if (Object.hasOwn(settings, key)) found.set(key, child);
      else if (partsNotBuilt[key] !== undefined)
        problems.push(`${key}: this version does not have ${partsNotBuilt[key]}`);
      else if (child !== null && typeof child === "object" && !Array.isArray(child)) visit(child, key);
      else problems.push(unknownKey(key));
    }
  };
  if (file !== undefined && file !== null) visit(file, "");
  return found;
}

function readEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  problems: string[],
): Map<string, string> {
  const keys = new Map(Object.keys(settings).map((key) => [environmentName(key), key]));
  const sections = new Set(Object.keys(settings).map((key) => environmentName(key.split(".")[0] as string)));
  const found = new Map<string, string>();
  for (const [name, value] of Object.entries(environment)) {
    if (!name.startsWith("HEADPOND_") || value === undefined) continue;
    const key = keys.get(name);
    if (key !== undefined) found.set(key, value);
    else if ([...sections].some((section) => name.startsWith(`${section}_`))) {
      const nearest = nearestName(name, [...keys.keys()]);
      problems.push(`unknown variable ${name}${nearest === undefined ? "" : `: did you mean ${nearest}?`}`);
    }
  }
  return found;
}

function unknownKey(key: string): string {
  const nearest = nearestName(key, Object.keys(settings));
  return `unknown key ${key}${nearest === undefined ? "; `headpond config docs` lists all" : `: did you mean ${nearest}?`}`;
}

function firstGiven(candidates: readonly (readonly [ConfigSource, unknown])[]): readonly [ConfigSource, unknown] {
  return candidates.find(([, value]) => value !== undefined) ?? ["default", undefined];
}

function describeSource(source: ConfigSource, key: string): string {
  return source === "environment" ? environmentName(key) : source === "file" ? "the file" : `the ${source}`;
}

function nextSection(key: string): string | undefined {
  const keys = Object.keys(settings);
  return keys[keys.indexOf(key) + 1]?.split(".")[0];
}

function showRaw(raw: unknown): string {
  if (raw === undefined) return "–";
  return `\`${typeof raw === "string" || typeof raw === "number" ? raw : JSON.stringify(raw)}\``;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      current[j] = Math.min(
        (previous[j] as number) + 1,
        (current[j - 1] as number) + 1,
        (previous[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1),
      );
    }
    previous = current;
  }
  return previous[b.length] as number;
}

function address(initial: string, help: string): Setting<HostPort> {
  return { kind: "address", initial, help, parse: parseHostPort };
}

function optionalAddress(help: string): Setting<HostPort | undefined> {
  const parse = (raw: unknown): HostPort | undefined =>
    raw === undefined || raw === null ? undefined : parseHostPort(raw);
  return { kind: "address", initial: undefined, help: `${help} Not served if absent.`, parse };
}

function addresses(help: string): Setting<readonly HostPort[]> {
  const parse = (raw: unknown): readonly HostPort[] => {
    const items: unknown = typeof raw === "string" ? raw.split(",").map((item) => item.trim()) : raw;
    if (!Array.isArray(items)) throw wrong(raw, "a list of host:port");
    return items.map(parseHostPort);
  };
  return { kind: "list of addresses", initial: [], help, parse };
}

/** Ids and addresses; as text `m1=h1:7072,m2=h2:7072`. */
function members(help: string): Setting<Readonly<Record<string, HostPort>>> {
  const parse = (raw: unknown): Readonly<Record<string, HostPort>> => {
    const given: unknown =
      typeof raw === "string" ? Object.fromEntries(raw.split(",").map((item) => item.trim().split("=", 2))) : raw;
    if (typeof given !== "object" || given === null || Array.isArray(given)) throw wrong(raw, "{ m1: h1:7072, ... }");
    const found = Object.entries(given).map(([id, at]) => [parseMasterId(id), parseHostPort(at)] as const);
    const twice = found.map(([, at]) => formatHostPort(at)).find((at, i, all) => all.indexOf(at) !== i);
    if (twice !== undefined) throw new HeadpondError("invalid", `two members have the address ${twice}`);
    return Object.fromEntries(found);
  };
  return { kind: "map of id to address", initial: {}, help, parse };
}
