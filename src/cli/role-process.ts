/**
 * A role of Headpond (or any server) as a process of its own on loopback: started, awaited until it says that it is ready,
 * stopped by pid. The quickstart, the tests and the benchmarks all start their clusters with it.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";

export const headpondBin = fileURLToPath(new URL("../../bin/headpond", import.meta.url));

const readyTimeoutMsDefault = 60_000;
const stopTimeoutMs = 15_000;
const keptLogBytes = 20_000;

/** The first line that a role prints with `--json` (surface.md). */
export type ReadyLine = {
  readonly event: "ready";
  readonly masters?: readonly string[];
  readonly endpoints: Readonly<Record<string, string>>;
  readonly workers?: readonly { readonly id: string; readonly place: string; readonly http: string }[];
  readonly dir?: string;
};

export class ServerProcess {
  readonly name: string;
  readonly child: ChildProcess;
  #log = "";

  constructor(
    name: string,
    command: string,
    args: readonly string[],
    environment: NodeJS.ProcessEnv = process.env,
    { standardInput = false }: { readonly standardInput?: boolean } = {},
  ) {
    this.name = name;
    this.child = spawn(command, args, { stdio: [standardInput ? "pipe" : "ignore", "pipe", "pipe"], env: environment });
    this.child.stderr?.on("data", (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-keptLogBytes);
    });
    this.child.on("error", () => {});
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.name} did not start`);
    return this.child.pid;
  }

  /** The end of what it wrote to stderr. */
  get log(): string {
    return this.#log;
  }

  get stdout(): Readable {
    return this.child.stdout as Readable;
  }

  get hasExited(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Whether the program exists and runs. */
  async spawned(): Promise<boolean> {
    if (this.child.pid !== undefined) return true;
    return new Promise((done) => {
      this.child.once("error", () => done(false));
      this.child.once("spawn", () => done(true));
    });
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    if (this.hasExited) return;
    const exited = once(this.child, "exit");
    this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill("SIGKILL"), stopTimeoutMs);
    await exited;
    clearTimeout(timer);
  }
}

export type StartedRole = { readonly process: ServerProcess; readonly ready: ReadyLine };

export type StartOptions = {
  readonly readyTimeoutMs?: number;
  readonly environment?: NodeJS.ProcessEnv;
  /** A command that replaces itself by the one behind it: `ip netns exec NAME`, `taskset -c 0`. */
  readonly prefix?: readonly string[];
  /** Is told of the process before it is ready: for those who end it before. */
  readonly onSpawn?: (process: ServerProcess) => void;
};

/** Runs `headpond ARGS --json` and waits for its ready line; rejects with the end of its log if it ends before. */
export async function startRole(
  name: string,
  args: readonly string[],
  options: StartOptions = {},
): Promise<StartedRole> {
  const { readyTimeoutMs = readyTimeoutMsDefault, environment, prefix = [] } = options;
  const [command, ...words] = [...prefix, process.execPath, headpondBin, ...args, "--json"];
  const running = new ServerProcess(name, command, words, environment);
  options.onSpawn?.(running);
  const lines = createInterface({ input: running.stdout });
  const ready = await new Promise<ReadyLine>((done, fail) => {
    const timer = setTimeout(() => {
      running.child.kill("SIGKILL");
      fail(new Error(`${name} was not ready after ${readyTimeoutMs} ms:\n${running.log}`));
    }, readyTimeoutMs);
    lines.once("line", (line) => {
      clearTimeout(timer);
      try {
        const document = JSON.parse(line) as ReadyLine;
        // Else it is the error with which the role is about to end.
        if (document.event === "ready") done(document);
        else fail(new Error(`${name} did not start: ${line}`));
      } catch (error) {
        fail(error as Error);
      }
    });
    running.child.once("exit", (code, signal) => {
      clearTimeout(timer);
      fail(new Error(`${name} ended with ${code ?? signal}:\n${running.log}`));
    });
  });
  return { process: running, ready };
}

/** Writes `config` to `<directory>/<name>.yaml` and starts the role with it. */
export async function startConfiguredRole(
  name: string,
  role: "master" | "worker",
  directory: string,
  config: object,
  options: StartOptions & { readonly args?: readonly string[] } = {},
): Promise<StartedRole> {
  const file = join(directory, `${name}.yaml`);
  // JSON is YAML.
  await writeFile(file, JSON.stringify(config, undefined, 2));
  return startRole(name, [role, "--config", file, ...(options.args ?? [])], options);
}

/** What this process got from `freePortBlock`, and may not listen on yet. */
const givenBases = new Set<number>();

/**
 * The first of `count` neighbouring ports that were all free a moment ago, a multiple of 100. They lie below those that the
 * kernel gives to outgoing connections, so that a server that is down for a moment finds its port free again.
 */
export async function freePortBlock(count: number): Promise<number> {
  for (let base = 20_000 + (process.pid % 100) * 100; base < 60_000; base += 100) {
    if (givenBases.has(base)) continue;
    const servers = Array.from({ length: count }, () => createServer());
    const free = await Promise.all(
      servers.map(
        (server, i) =>
          new Promise<boolean>((done) => {
            server.once("error", () => done(false));
            server.listen(base + i, "127.0.0.1", () => done(true));
          }),
      ),
    );
    for (const server of servers) server.close();
    if (!free.every((isFree) => isFree)) continue;
    givenBases.add(base);
    return base;
  }
  throw new Error(`no ${count} neighbouring ports are free`);
}

/** Ports that were free a moment ago, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(
    servers.map((server) => {
      server.close();
      return once(server, "close");
    }),
  );
  return ports;
}
