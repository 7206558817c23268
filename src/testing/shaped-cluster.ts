/**
 * A cluster of real processes on a `ShapedNetwork`: an origin with files of random bytes, masters, and workers `n1`, `n2`, ... on
 * hosts with links of a given rate; the origin is mounted at `/models`. Whoever measures or tests asks here for what can be told
 * from outside: bytes at the links, what the origin counted, CPU of processes, and the SHA-256 of every copy as its own worker
 * serves it. Inside `runInNamespaces` only.
 */

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { FileDescriptor } from "../base/file.ts";
import { type StartedRole, startConfiguredRole } from "../cli/role-process.ts";
import { connect, type HeadpondClient } from "../client/client.ts";
import { MasterGroup } from "./master-group.ts";
import { type ShapedHost, ShapedNetwork } from "./shaped-network.ts";
import { type OriginFile, ShapedOrigin } from "./shaped-origin.ts";

export type ShapedWorker = {
  readonly bytesPerSecond?: number;
  readonly region?: number;
  /** Of its cache; as much as is needed if absent. */
  readonly capacity?: string;
};

export type ShapedClusterOptions = {
  /** A directory of a file system that vanishes with the namespaces. */
  readonly directory: string;
  readonly workers: readonly ShapedWorker[];
  readonly origin: { readonly bytesPerSecond?: number; readonly files?: number; readonly fileBytes: number };
  readonly masters?: number;
  readonly regionLinkBytesPerSecond?: number;
  /** What the masters are told of the rates, for the bound. */
  readonly linkBytesPerSecond?: number;
  readonly originBytesPerSecond?: number;
  /** Workers that have a host and are not started. */
  readonly leaveOut?: readonly string[];
  /** Sections of the workers' configuration, beside what every worker here has. */
  readonly worker?: Readonly<Record<string, unknown>>;
};

export type Copy = { readonly worker: string; readonly path: string; readonly sha256: string };

/** `group`: where there are several, on Raft; a single one has a local journal. */
export type ShapedMasters = {
  readonly addresses: readonly string[];
  readonly group: MasterGroup | undefined;
  readonly close: () => Promise<void>;
};

const rpcPort = 7070;
const dataPort = 7080;
const liveTimeoutMs = 60_000;
export const mountPath = "/models";

export class ShapedCluster {
  readonly network: ShapedNetwork;
  readonly origin: ShapedOrigin;
  readonly masters: ShapedMasters;
  readonly client: HeadpondClient;
  readonly #options: ShapedClusterOptions;
  readonly #workers = new Map<string, StartedRole>();

  private constructor(
    parts: Pick<ShapedCluster, "network" | "origin" | "masters" | "client">,
    options: ShapedClusterOptions,
  ) {
    this.network = parts.network;
    this.origin = parts.origin;
    this.masters = parts.masters;
    this.client = parts.client;
    this.#options = options;
  }

  /** Resolves when all workers are live and the origin is mounted; nothing has been read from it. */
  static async start(options: ShapedClusterOptions): Promise<ShapedCluster> {
    const {
      directory,
      workers,
      origin: sizes,
      masters: masterCount = 1,
      linkBytesPerSecond,
      originBytesPerSecond,
    } = options;
    mkdirSync(directory, { recursive: true });
    const masterHosts = Array.from({ length: masterCount }, (_, index): ShapedHost => ({ name: `m${index + 1}` }));
    const workerHosts = workers.map(
      ({ bytesPerSecond, region = 0 }, index): ShapedHost => ({
        name: `n${index + 1}`,
        region,
        ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
      }),
    );
    const { bytesPerSecond, files = 1, fileBytes } = sizes;
    const network = ShapedNetwork.create({
      hosts: [
        { name: "origin", ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }) },
        ...masterHosts,
        ...workerHosts,
      ],
      ...(options.regionLinkBytesPerSecond === undefined
        ? {}
        : { regionLinkBytesPerSecond: options.regionLinkBytesPerSecond }),
    });
    const origin = await ShapedOrigin.start({
      address: network.address("origin"),
      prefix: network.prefix("origin"),
      files,
      fileBytes,
    });
    const rates = {
      HEADPOND_CLUSTER_LINK_RATE: linkBytesPerSecond,
      HEADPOND_CLUSTER_ORIGIN_RATE: originBytesPerSecond,
    };
    const environment = {
      ...process.env,
      ...Object.fromEntries(
        Object.entries(rates).flatMap(([key, rate]) => (rate === undefined ? [] : [[key, `${rate}B`]])),
      ),
    };
    const masters = await startMasters(network, directory, masterCount, environment);
    const client = connect({ masters: [...masters.addresses] });
    const cluster = new ShapedCluster({ network, origin, masters, client }, options);
    const started = workerHosts.map(({ name }) => name).filter((name) => options.leaveOut?.includes(name) !== true);
    await Promise.all(started.map((name) => cluster.startWorker(name)));
    await cluster.untilLive(started);
    await client.mount(mountPath, origin.url, { readOnly: true });
    return cluster;
  }

  get workerNames(): readonly string[] {
    return this.#options.workers.map((_, index) => `n${index + 1}`);
  }

  /** Starts a worker that does not run, with what it has on its disk. */
  async startWorker(name: string): Promise<void> {
    const { directory, workers, worker } = this.#options;
    const { region = 0, capacity = "1TiB" } = workers[Number(name.slice(1)) - 1] ?? {};
    const address = this.network.address(name);
    const config = {
      worker: {
        id: name,
        masters: [...this.masters.addresses],
        place: `shaped/region-${region}/zone/${name}`,
        advertise: address,
        dirs: [{ path: join(directory, name), capacity }],
        data: `${address}:${dataPort}`,
        http: `${address}:${dataPort + 1}`,
        ...worker,
      },
      log: { level: "warn" },
    };
    const prefix = this.network.prefix(name);
    const options = { prefix, onSpawn: (process: StartedRole["process"]) => this.#keep(name, process) };
    this.#workers.set(name, await startConfiguredRole(name, "worker", directory, config, options));
  }

  worker(name: string): StartedRole {
    const role = this.#workers.get(name);
    if (role === undefined) throw new Error(`worker ${name} was not started`);
    return role;
  }

  /** The end of what a worker has logged in this life. */
  logOf(name: string): string {
    return this.#workers.get(name)?.process.log ?? "";
  }

  async killWorker(name: string): Promise<void> {
    await this.worker(name).process.stop("SIGKILL");
  }

  async untilLive(names: readonly string[], timeoutMs = liveTimeoutMs): Promise<void> {
    await until(`${names.length} live workers`, timeoutMs, async () => {
      const { workers } = await this.client.cluster();
      return names.every((name) => workers.some(({ id, state }) => id === name && state === "live"));
    });
  }

  async files(): Promise<readonly { readonly path: string; readonly file: OriginFile }[]> {
    return (await this.origin.files()).map((file) => ({ path: `${mountPath}/${file.name}`, file }));
  }

  /** The files that workers know by version, as the namespace has them now. */
  async descriptors(): Promise<readonly FileDescriptor[]> {
    const descriptors: FileDescriptor[] = [];
    for (const { path } of await this.files()) {
      descriptors.push((await this.client.open(path)).descriptor as FileDescriptor);
    }
    return descriptors;
  }

  /** The SHA-256 of a worker's copy, as it serves it to a reader on its own host: shaped links are not used. */
  async digestOf(worker: string, { id }: Pick<FileDescriptor, "id">): Promise<string> {
    const url = `http://${this.network.address(worker)}:${dataPort}/v1/files/${id}`;
    const script = `set -o pipefail; curl --silent --show-error --fail ${url} | sha256sum`;
    const [command, ...words] = [...this.network.prefix(worker), "bash", "-c", script];
    const child = spawn(command, words, { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    const code = await new Promise<number | null>((done) => child.once("close", done));
    if (code !== 0) throw new Error(`${worker} does not give ${id}: ${errors.trim()}`);
    return output.slice(0, 64);
  }

  /** Copies that differ from what the origin has; none: all is well. */
  async wrongCopies(workers: readonly string[]): Promise<string[]> {
    const wrong: string[] = [];
    for (const { path, file } of await this.files()) {
      const { descriptor } = await this.client.open(path);
      for (const worker of workers) {
        const sha256 = await this.digestOf(worker, descriptor as FileDescriptor);
        if (sha256 !== file.sha256) wrong.push(`${path} on ${worker}: ${sha256}, not ${file.sha256}`);
      }
    }
    return wrong;
  }

  async close(): Promise<void> {
    await this.client.close();
    await Promise.all([...this.#workers.values()].map(({ process }) => process.stop("SIGKILL")));
    await this.masters.close();
    await this.origin.stop();
  }

  /** Also one that does not get ready is stopped in the end. */
  #keep(name: string, process: StartedRole["process"]): void {
    this.#workers.set(name, { process, ready: { event: "ready", endpoints: {} } });
  }
}

async function startMasters(
  network: ShapedNetwork,
  directory: string,
  count: number,
  environment: NodeJS.ProcessEnv,
): Promise<ShapedMasters> {
  const host = (index: number): string => network.address(`m${index + 1}`);
  const prefix = (index: number): readonly string[] => network.prefix(`m${index + 1}`);
  if (count > 1) {
    const group = new MasterGroup({ directory, host, prefix, environment });
    await group.found(count);
    return { addresses: group.addresses, group, close: () => group.close() };
  }
  const config = {
    master: {
      dir: join(directory, "m1"),
      rpc: `${host(0)}:${rpcPort}`,
      http: `${host(0)}:${rpcPort + 1}`,
      workerTimeout: "2s",
    },
    log: { level: "warn" },
  };
  const options = { prefix: prefix(0), environment };
  const { process: running } = await startConfiguredRole("m1", "master", directory, config, options);
  return { addresses: [config.master.rpc], group: undefined, close: () => running.stop("SIGKILL") };
}

/** A file system in memory, which is gone with the mount namespace that this program has for itself. */
export function mountMemory(directory: string, size: string): void {
  if (!existsSync(directory)) mkdirSync(directory, { recursive: true });
  const done = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", directory], { encoding: "utf8" });
  if (done.status !== 0) throw new Error(`mount ${directory}: ${done.stderr.trim()}`);
}

/** Waits for a condition; throws with its name after so long. */
export async function until(what: string, timeoutMs: number, holds: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`no ${what} after ${timeoutMs / 1000} s`);
    await sleep(50);
  }
}
