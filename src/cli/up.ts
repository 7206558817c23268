/** `up`: all roles in one process, local journal, loopback only: the way to try Headpond, and to develop against it. */

import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { type Config, loadConfig, type SettingKey } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { parsePath } from "../base/path.ts";
import { connect } from "../client/client.ts";
import { action, type Commands, leaf } from "./command.ts";
import { parsePairs } from "./fs-change.ts";
import { parseCount } from "./fs-list.ts";
import { announce, loadRoles, startError, untilAborted } from "./roles.ts";
import type { Doors, Served } from "./serve.ts";

const portBaseDefault = 7070;
/** Ports of worker i begin at base + 10 + 10 i, in the order of the defaults in surface.md. */
const workerPorts = { data: 0, http: 1, hf: 3, files: 4 };
const workersMax = 16;

type UpOptions = {
  readonly directory: string;
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
  )
    .option("--dir <directory>", "where to keep everything (default: ~/.local/share/headpond)")
    .option("--mount <path=uri...>", "mount this at the start")
    .option("--workers <n>", "how many workers", "1")
    .option("--port-base <port>", "first port", String(portBaseDefault))
    .action(
      action(signal, async (context, flags) => {
        const options: UpOptions = {
          directory: resolve(String(flags["dir"] ?? join(homedir(), ".local/share/headpond"))),
          workers: parseCount(String(flags["workers"]), "--workers"),
          portBase: parseCount(String(flags["portBase"]), "--port-base"),
          mounts: parsePairs((flags["mount"] as readonly string[] | undefined) ?? []),
        };
        if (options.workers > workersMax) {
          throw new HeadpondError("invalid", `--workers ${options.workers}: at most ${workersMax} in one process`);
        }
        const served = await serveAll(options).catch((error: unknown) => {
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

async function serveAll(options: UpOptions): Promise<Served> {
  const { directory, portBase } = options;
  const { makeDoors, serveMaster, serveWorker } = await loadRoles();
  const running: Served[] = [];
  const close = async (): Promise<void> => {
    for (const served of running.toReversed()) await served.close();
  };
  try {
    const masterConfig = configOf({
      "master.dir": join(directory, "master"),
      "master.rpc": `127.0.0.1:${portBase}`,
      "master.http": `127.0.0.1:${portBase + 1}`,
    });
    const doors: Doors = makeDoors(masterConfig);
    running.push(await serveMaster(masterConfig, doors));
    for (let index = 0; index < options.workers; index++) {
      const at = (port: number): string => `127.0.0.1:${portBase + 10 + index * 10 + port}`;
      const workerConfig = configOf({
        "worker.id": `worker-${index + 1}`,
        "worker.masters": [`127.0.0.1:${portBase}`],
        "worker.place": `local/local/local/worker-${index + 1}`,
        "worker.advertise": "127.0.0.1",
        "worker.dirs": [{ path: join(directory, `worker-${index + 1}`) }],
        "worker.data": at(workerPorts.data),
        "worker.http": at(workerPorts.http),
        "gateways.hf": at(workerPorts.hf),
        "gateways.files": at(workerPorts.files),
      });
      running.push(await serveWorker(workerConfig, { ...doors, logger: doors.logger }));
    }
  } catch (error) {
    await close();
    throw error;
  }
  const [master, firstWorker] = running;
  return {
    masters: master?.masters ?? [],
    endpoints: { ...firstWorker?.endpoints, ...master?.endpoints },
    workers: running.flatMap((served) => served.workers),
    directory,
    close,
  };
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
