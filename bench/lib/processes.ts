/** What benchmarks need of processes: temporary directories, a master and a worker on loopback, and the kernel's figures. */

import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { freePorts, type ServerProcess, type StartedRole, startConfiguredRole } from "../../src/cli/role-process.ts";

const clockTicksPerSecond = 100;

export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  return port as number;
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

/** User and system CPU seconds of a process so far, all threads. */
export function cpuSeconds({ pid }: ServerProcess): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / clockTicksPerSecond;
}

/** Anonymous resident memory: what the process itself costs, mapped files left out. */
export function anonymousBytes({ pid }: ServerProcess): number {
  const match = /RssAnon:\s+([0-9]+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(match?.[1]) * 1024;
}

/** All resident memory. */
export function residentBytes({ pid }: ServerProcess): number {
  const match = /VmRSS:\s+([0-9]+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(match?.[1]) * 1024;
}

/** The first line that a process prints; rejects with the end of its log if it ends before. */
export function firstLine(process: ServerProcess): Promise<string> {
  return new Promise((done, fail) => {
    createInterface({ input: process.stdout }).once("line", done);
    process.child.once("exit", () => fail(new Error(`${process.name} ended:\n${process.log}`)));
  });
}

/** A master with its files in `directory`; started again it finds them. */
export async function startMaster(directory: string): Promise<StartedRole & { readonly address: string }> {
  const [rpc, http] = await freePorts(2);
  const started = await startConfiguredRole("master", "master", directory, {
    master: { dir: join(directory, "master"), rpc: `127.0.0.1:${rpc}`, http: `127.0.0.1:${http}` },
    log: { level: "warn" },
  });
  return { ...started, address: `127.0.0.1:${rpc}` };
}

export async function startWorker(directory: string, master: string): Promise<StartedRole> {
  const [data, http] = await freePorts(2);
  return startConfiguredRole("worker", "worker", directory, {
    worker: {
      id: "w1",
      masters: [master],
      advertise: "127.0.0.1",
      dirs: [{ path: join(directory, "cache"), capacity: "100GiB" }],
      data: `127.0.0.1:${data}`,
      http: `127.0.0.1:${http}`,
    },
    log: { level: "warn" },
  });
}

/** Resolves when something listens on the port. */
export async function untilListening(port: number, timeoutMs = 10_000): Promise<void> {
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
