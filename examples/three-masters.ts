/**
 * Three masters on one machine: a cluster that survives the death of its leader. While a model is loaded onto two workers and a
 * writer makes files one after the other, the leader is killed (SIGKILL); the two others elect a new one, the writer waits for a
 * moment, the load goes on, and nothing that was acknowledged is lost. Everything is stopped at the end.
 *
 *   node scripts/run.mjs examples/three-masters.ts
 */

import { spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePortBlock, headpondBin, type StartedRole, startConfiguredRole } from "../src/cli/role-process.ts";
import { connect, type HeadpondClient, type LoadJob } from "../src/client/client.ts";

const masterIds = ["m1", "m2", "m3"];
const workerCount = 2;
const modelFiles = 4;
const modelFileBytes = 48 * 1024 * 1024;
/** How long the writer writes after the leader has died. */
const afterMs = 3000;

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "headpond-three-masters-"));
  const port = await freePortBlock(40);
  const roles = new Map<string, StartedRole>();
  try {
    step(`Three masters and ${workerCount} workers, each a process of its own, below ${directory}`);
    const masters = masterIds.map((_, index) => `127.0.0.1:${port + index * 3}`);
    const clusterId = randomUUID();
    const startMaster = async (id: string): Promise<void> => {
      roles.set(id, await startConfiguredRole(id, "master", directory, masterConfig(id, clusterId, directory, port)));
    };
    for (const id of masterIds) await format(id, directory, masterConfig(id, clusterId, directory, port));
    await Promise.all(masterIds.map(startMaster));
    for (let index = 0; index < workerCount; index++) {
      const id = `worker-${index + 1}`;
      const config = workerConfig(id, masters, directory, port + 10 + index * 5);
      roles.set(id, await startConfiguredRole(id, "worker", directory, config));
    }
    await show(masters, "cluster", "status");

    await writeModel(join(directory, "models", "acme", "large"));
    const client = connect({ masters, clientName: "example" });
    try {
      await client.mount("/models", `file://${join(directory, "models")}`);
      await client.mkdir("/log");

      step("A load and a writer run, and the leader is killed");
      const job = await client.load("/models/acme/large", { to: "all" });
      const writer = new Writer(client);
      const leader = await leaderOf(client);
      const share = await underWay(client, job.id);
      const killedMs = performance.now();
      roles.get(leader)?.process.child.kill("SIGKILL");
      say(`  ${leader} led (pid ${roles.get(leader)?.process.pid}), the load is at ${share} %: kill -9`);
      await writer.acknowledgedAfter(killedMs);
      say(`  ${await leaderOf(client)} leads now`);
      await sleep(afterMs);
      const written = await writer.stop();
      const done = await job.done();
      say(`  writer  ${written.acknowledged.length} files acknowledged, ${written.failed} failed`);
      say(`          longest pause ${Math.round(written.longestPauseMs)} ms`);
      say(`  load    ${done.state}, origin / unique bytes ${done.originAmplification.toFixed(2)}`);
      if (done.state !== "succeeded" || written.failed > 0) throw new Error("the death of the leader was noticed");

      step("The killed master comes back and catches up");
      await startMaster(leader);
      await sleep(500);
      await show(masters, "cluster", "status");

      step("Everything that was acknowledged is there");
      const found = new Set<string>();
      for await (const { path } of client.list("/log")) found.add(path);
      const missing = written.acknowledged.filter((path) => !found.has(path));
      say(`  ${written.acknowledged.length - missing.length} of ${written.acknowledged.length} files`);
      if (missing.length > 0) throw new Error(`${missing.length} acknowledged files are lost: ${missing[0]} ...`);
    } finally {
      await client.close();
    }
  } finally {
    // By pid, the masters last.
    for (const id of [...roles.keys()].reverse()) await roles.get(id)?.process.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

/** Makes one file after the other, and notes what was acknowledged and how long the longest wait was. */
class Writer {
  readonly #client: HeadpondClient;
  readonly #acknowledged: string[] = [];
  readonly #running: Promise<void>;
  #failed = 0;
  #longestPauseMs = 0;
  #lastMs = performance.now();
  #stopped = false;

  constructor(client: HeadpondClient) {
    this.#client = client;
    this.#running = this.#run();
  }

  /** Resolves when something that was asked for after `atMs` is acknowledged. */
  async acknowledgedAfter(atMs: number): Promise<void> {
    while (this.#lastMs <= atMs) await sleep(5);
    const seen = this.#acknowledged.length;
    while (this.#acknowledged.length === seen) await sleep(5);
  }

  async stop(): Promise<{ acknowledged: readonly string[]; failed: number; longestPauseMs: number }> {
    this.#stopped = true;
    await this.#running;
    return { acknowledged: this.#acknowledged, failed: this.#failed, longestPauseMs: this.#longestPauseMs };
  }

  async #run(): Promise<void> {
    for (let number = 0; !this.#stopped; number++) {
      const path = `/log/${String(number).padStart(8, "0")}`;
      try {
        await this.#client.create(path, { exclusive: true });
        this.#acknowledged.push(path);
      } catch (error) {
        this.#failed++;
        say(`  ${path}: ${(error as Error).message}`);
      }
      const nowMs = performance.now();
      this.#longestPauseMs = Math.max(this.#longestPauseMs, nowMs - this.#lastMs);
      this.#lastMs = nowMs;
    }
  }
}

function masterConfig(id: string, clusterId: string, directory: string, port: number): object {
  const own = port + masterIds.indexOf(id) * 3;
  return {
    cluster: { name: "three-masters", id: clusterId },
    master: { id, dir: join(directory, id), rpc: `127.0.0.1:${own}`, http: `127.0.0.1:${own + 1}` },
    journal: {
      type: "raft",
      raft: {
        listen: `127.0.0.1:${own + 2}`,
        members: Object.fromEntries(masterIds.map((name, index) => [name, `127.0.0.1:${port + index * 3 + 2}`])),
      },
    },
  };
}

function workerConfig(id: string, masters: readonly string[], directory: string, port: number): object {
  return {
    worker: {
      id,
      masters,
      place: `local/local/local/${id}`,
      advertise: "127.0.0.1",
      dirs: [{ path: join(directory, id), capacity: "1GiB" }],
      data: `127.0.0.1:${port}`,
      http: `127.0.0.1:${port + 1}`,
    },
    gateways: { files: `127.0.0.1:${port + 2}` },
  };
}

async function writeModel(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (let index = 1; index <= modelFiles; index++) {
    const name = `model-0000${index}-of-0000${modelFiles}.safetensors`;
    await writeFile(join(directory, name), randomBytes(modelFileBytes));
  }
}

/** Waits until some of the bytes have arrived. Returns how many, in per cent. */
async function underWay(client: HeadpondClient, id: LoadJob["id"]): Promise<number> {
  for (;;) {
    const { bytesDone, bytesTotal, state } = await client.job(id);
    if (bytesDone > 0 || (state !== "planning" && state !== "running"))
      return Math.floor((bytesDone / bytesTotal) * 100);
    await sleep(10);
  }
}

async function leaderOf(client: HeadpondClient): Promise<string> {
  for (;;) {
    const { masters } = await client.cluster();
    const leader = masters.find(({ role, reachable }) => role === "leader" && reachable !== false);
    if (leader !== undefined) return leader.id;
    await sleep(20);
  }
}

/** Runs a command as a person would, and shows it. */
/** A founder is formatted once; a start with `cluster.id` never does that, for the disk of a master that was there may be gone. */
async function format(id: string, directory: string, config: object): Promise<void> {
  const file = join(directory, `${id}-format.json`);
  await writeFile(file, JSON.stringify(config));
  await run("format", "--config", file);
}

async function show(masters: readonly string[], ...args: readonly string[]): Promise<void> {
  say(`  $ headpond ${args.join(" ")}`);
  const output = await run(...args, "--masters", masters.join(","));
  for (const line of output.trimEnd().split("\n")) say(`  ${line}`.trimEnd());
}

async function run(...args: readonly string[]): Promise<string> {
  const child = spawn(process.execPath, [headpondBin, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const code = await new Promise<number | null>((done) => child.once("close", done));
  if (code !== 0) throw new Error(`headpond ${args.join(" ")} ended with ${code}`);
  return output;
}

function step(text: string): void {
  say(`\n== ${text}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

await main();
