/**
 * `up`: all roles in one process, loopback only: the way to try Headpond, and to develop against it. One master with the local journal,
 * or with `--masters` several that replicate it by Raft: the first founds the cluster, the others join it. Later starts find
 * what is there.
 */

import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { type Config, loadConfig, type SettingKey } from "../base/config.ts";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import { parsePath } from "../base/path.ts";
import { connect } from "../client/client.ts";
import type { Disk } from "../io/disk.ts";
import { readMeta } from "../journal/journal-meta.ts";
import { readIdentity } from "../journal/raft-identity.ts";
import { action, type Commands, leaf } from "./command.ts";
import { parsePairs } from "./fs-change.ts";
import { parseCount } from "./fs-list.ts";
import type { JoinOptions } from "./joining.ts";
import { journalDirectory } from "./master-directory.ts";
import { announce, loadRoles, startError, untilAborted } from "./roles.ts";
import type { Doors, Served } from "./serve.ts";

const portBaseDefault = 7070;
/** The masters' ports begin at the base: RPC, HTTP and journal of the first, then of the next. */
const portsPerMaster = 3;
const mastersMax = 3;
/** Ports of worker i begin at base + 10 + 10 i, in the order of the defaults in surface.md. */
const workerPorts = { data: 0, http: 1, hf: 3, files: 4 };
const workersMax = 16;

type UpOptions = {
  readonly directory: string;
  /** Undefined: as many as there are, else one. */
  readonly masters: number | undefined;
  readonly workers: number;
  readonly portBase: number;
  readonly mounts: Readonly<Record<string, string>>;
};

export function addUp({ program, signal }: Commands): void {
  leaf(
    program,
    "up",
    "all roles in one process, on loopback",
    "headpond up --mount /models=file:///srv/models --workers 2",
    { isCluster: true },
  )
    .option("--dir <directory>", "where to keep everything (default: ~/.local/share/headpond)")
    .option("--mount <path=uri...>", "mount this at the start")
    .option("--masters <n>", "how many masters: more than one replicate the journal (default: as there are, else 1)")
    .option("--workers <n>", "how many workers", "1")
    .option("--port-base <port>", "first port", String(portBaseDefault))
    .action(
      action(signal, async (context, flags) => {
        const options: UpOptions = {
          directory: resolve(String(flags["dir"] ?? join(homedir(), ".local/share/headpond"))),
          masters: flags["masters"] === undefined ? undefined : parseCount(String(flags["masters"]), "--masters"),
          workers: parseCount(String(flags["workers"]), "--workers"),
          portBase: parseCount(String(flags["portBase"]), "--port-base"),
          mounts: parsePairs((flags["mount"] as readonly string[] | undefined) ?? []),
        };
        if (options.workers > workersMax) {
          throw new HeadpondError("invalid", `--workers ${options.workers}: at most ${workersMax} in one process`);
        }
        if (options.masters !== undefined && (options.masters < 1 || options.masters > mastersMax)) {
          throw new HeadpondError("invalid", `--masters ${options.masters}: from 1 to ${mastersMax} in one process`);
        }
        const served = await serveAll(options, signal).catch((error: unknown) => {
          throw startError(error);
        });
        try {
          await mountAll(served.masters, options.mounts);
          announce(context, served);
          await untilAborted(signal);
        } finally {
          await served.close();
        }
        return 0;
      }),
    );
}

async function serveAll(options: UpOptions, signal: AbortSignal): Promise<Served> {
  const { directory, portBase } = options;
  const { makeDoors, serveMaster, serveWorker } = await loadRoles();
  const masters: Served[] = [];
  const workers: Served[] = [];
  const close = async (): Promise<void> => {
    for (const served of workers.toReversed()) await served.close();
    // Together: the last one would look for a successor in vain.
    await Promise.all(masters.map((served) => served.close()));
  };
  try {
    const doors: Doors = makeDoors(configOf({}));
    for (const { config, join: joins } of await masterPlans(options, doors.disk, signal)) {
      masters.push(await serveMaster(config, doors, { join: joins, handsOver: false }));
    }
    const addresses = masters.flatMap((served) => served.masters);
    for (let index = 0; index < options.workers; index++) {
      const at = (port: number): string => `127.0.0.1:${portBase + 10 + index * 10 + port}`;
      const workerConfig = configOf({
        "worker.id": `worker-${index + 1}`,
        "worker.masters": addresses,
        "worker.place": `local/local/local/worker-${index + 1}`,
        "worker.advertise": "127.0.0.1",
        "worker.dirs": [{ path: join(directory, `worker-${index + 1}`) }],
        "worker.data": at(workerPorts.data),
        "worker.http": at(workerPorts.http),
        "gateways.hf": at(workerPorts.hf),
        "gateways.files": at(workerPorts.files),
      });
      workers.push(await serveWorker(workerConfig, { ...doors, logger: doors.logger }));
    }
  } catch (error) {
    await close();
    throw error;
  }
  return {
    masters: masters.flatMap((served) => served.masters),
    endpoints: { ...workers[0]?.endpoints, ...masters[0]?.endpoints },
    workers: workers.flatMap((served) => served.workers),
    directory,
    close,
  };
}

type MasterPlan = { readonly config: Config; readonly join: JoinOptions | undefined };

/** The masters by what is in the directory and what is asked for. Throws `invalid` when the two do not go together. */
async function masterPlans(options: UpOptions, disk: Disk, signal: AbortSignal): Promise<readonly MasterPlan[]> {
  const { directory, portBase } = options;
  const at = (index: number): string => join(directory, index === 0 ? "master" : `master-${index + 1}`);
  const present: boolean[] = [];
  for (let index = 0; index < mastersMax; index++) present.push(await isMasterThere(disk, at(index)));
  const count = options.masters ?? Math.max(1, present.lastIndexOf(true) + 1);
  if (present.lastIndexOf(true) >= count) {
    throw new HeadpondError(
      "invalid",
      `--masters ${count}: ${directory} has ${present.lastIndexOf(true) + 1}; remove one first: \`headpond cluster remove\`, then its directory`,
    );
  }
  const isRaft = present[0] === true ? (await readIdentity(disk, journalDirectory(at(0)))) !== undefined : count > 1;
  if (!isRaft && count > 1) {
    throw new HeadpondError(
      "invalid",
      `${at(0)} is of a single master: \`headpond journal migrate --dir ${at(0)} --to raft --listen 127.0.0.1:${portBase + 2}\` makes it the first of several`,
    );
  }
  return Array.from({ length: count }, (_, index) => {
    const port = portBase + index * portsPerMaster;
    const id = `m${index + 1}`;
    const journal = `127.0.0.1:${port + 2}`;
    const config = configOf({
      "master.dir": at(index),
      "master.id": id,
      "master.rpc": `127.0.0.1:${port}`,
      "master.http": `127.0.0.1:${port + 1}`,
      ...(isRaft ? { "journal.type": "raft", "journal.raft.listen": journal } : {}),
      ...(isRaft && index === 0 ? { "journal.raft.members": { [id]: journal } } : {}),
    });
    // Asked for at every start: one that broke off in the middle goes on.
    const seeds = [`127.0.0.1:${portBase}`];
    return { config, join: index === 0 ? undefined : { seeds, replace: undefined, learner: false, signal } };
  });
}

async function isMasterThere(disk: Disk, directory: string): Promise<boolean> {
  try {
    await readMeta(disk, journalDirectory(directory));
    return true;
  } catch (error) {
    if (isHeadpondError(error, "not-found")) return false;
    throw error;
  }
}

function configOf(flags: Partial<Record<SettingKey, unknown>>): Config {
  return loadConfig({ environment: pickLogLevel(), flags }).config;
}

/** `up` fixes addresses and directories itself; of the environment only the log level is heard. */
function pickLogLevel(): Record<string, string | undefined> {
  return { HEADPOND_LOG_LEVEL: process.env["HEADPOND_LOG_LEVEL"] ?? "warn" };
}

async function mountAll(masters: readonly string[], mounts: Readonly<Record<string, string>>): Promise<void> {
  const client = connect({ masters });
  try {
    const present = new Map((await client.mounts()).map((mount) => [mount.path as string, mount.uri]));
    for (const [word, uri] of Object.entries(mounts)) {
      const path = parsePath(word);
      if (!present.has(path)) await client.mount(path, uri);
      else if (present.get(path) !== uri.replace(/\/$/, "") && present.get(path) !== uri) {
        throw new HeadpondError("already-exists", `${path} shows ${present.get(path)}, not ${uri}: unmount it first`);
      }
    }
  } finally {
    await client.close();
  }
}
