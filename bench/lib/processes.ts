/** Processes that benchmarks start on free loopback ports and stop by pid, and what the kernel says of them. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const bin = fileURLToPath(new URL("../../bin/headpond", import.meta.url));
const clockTicksPerSecond = 100;

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

/** A directory that is gone afterwards. */
export async function withDirectory<T>(use: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "headpond-bench-"));
  try {
    return await use(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

export class RunningProcess {
  readonly child: ChildProcess;
  readonly name: string;
  #stderr = "";

  constructor(name: string, command: string, args: readonly string[]) {
    this.name = name;
    this.child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.child.stderr?.on("data", (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-8000);
    });
    this.child.on("error", () => {});
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.name} did not start`);
    return this.child.pid;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** User and system CPU seconds so far, all threads. */
  cpuSeconds(): number {
    const fields = readFileSync(`/proc/${this.pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
    return (Number(fields[11]) + Number(fields[12])) / clockTicksPerSecond;
  }

  /** Anonymous resident memory: what the process itself costs, mapped files left out. */
  anonymousBytes(): number {
    const match = /RssAnon:\s+([0-9]+) kB/.exec(readFileSync(`/proc/${this.pid}/status`, "utf8"));
    return Number(match?.[1]) * 1024;
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, "exit");
    this.child.kill(signal);
    await exited;
  }
}

export type Ready = {
  readonly masters?: readonly string[];
  readonly endpoints: Readonly<Record<string, string>>;
  readonly workers?: readonly { readonly id: string; readonly http: string; readonly data?: string }[];
};

/** Starts one role of Headpond with `config` and waits for its ready line. */
export async function startHeadpond(
  role: "master" | "worker",
  directory: string,
  config: object,
): Promise<{ readonly process: RunningProcess; readonly ready: Ready }> {
  const file = join(directory, `${role}.json`);
  await writeFile(file, JSON.stringify(config));
  const running = new RunningProcess(role, process.execPath, [bin, role, "--config", file, "--json"]);
  const lines = createInterface({ input: running.child.stdout as NonNullable<typeof running.child.stdout> });
  const ready = await Promise.race([
    once(lines, "line").then(([line]) => JSON.parse(String(line)) as Ready),
    once(running.child, "exit").then(([code]) => {
      throw new Error(`${role} ended with ${code}: ${running.stderr}`);
    }),
  ]);
  return { process: running, ready };
}

export async function masterConfig(directory: string): Promise<object> {
  return {
    master: {
      dir: join(directory, "master"),
      rpc: `127.0.0.1:${await freePort()}`,
      http: `127.0.0.1:${await freePort()}`,
    },
    log: { level: "warn" },
  };
}

export async function workerConfig(directory: string, master: string): Promise<object> {
  return {
    worker: {
      id: "w1",
      masters: [master],
      advertise: "127.0.0.1",
      dirs: [{ path: join(directory, "cache"), capacity: "100GiB" }],
      data: `127.0.0.1:${await freePort()}`,
      http: `127.0.0.1:${await freePort()}`,
    },
    log: { level: "warn" },
  };
}

/** Resolves when something listens on the port. */
export async function untilListening(port: number, timeoutMs = 10_000): Promise<void> {
  const { connect } = await import("node:net");
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const socket = connect(port, "127.0.0.1");
    const listening = await new Promise<boolean>((done) => {
      socket.once("connect", () => done(true));
      socket.once("error", () => done(false));
    });
    socket.destroy();
    if (listening) return;
    if (performance.now() > deadline) throw new Error(`nothing listens on port ${port} after ${timeoutMs} ms`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
