/**
 * The main job on real bytes, by one command: a master and three workers as processes of their own on loopback, real
 * model weights mounted from a local directory, loaded onto every worker, read back through the Hugging Face mirror with a
 * stock client and through plain HTTP, and compared by SHA-256 with the source.
 *
 * `--model DIR` runs it on your own folder; `--keep` leaves everything running.
 */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { JobStatus } from "../base/cluster.ts";
import { formatBytes, formatDuration } from "../base/units.ts";
import { downloadWithStockClient, fetchModel } from "./quickstart-model.ts";
import { freePorts, headpondBin, type StartedRole, startConfiguredRole } from "./role-process.ts";

const workerCount = 3;
const root = fileURLToPath(new URL("../..", import.meta.url));

type Role = StartedRole & { readonly name: string };

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { keep: { type: "boolean" }, model: { type: "string" } } });
  const cache = join(root, ".cache", "quickstart");
  await mkdir(cache, { recursive: true });
  const model =
    values.model === undefined
      ? await fetchModel(cache, say)
      : { directory: resolve(values.model), name: `local/${basename(resolve(values.model))}` };
  const files = await digestTree(model.directory);
  const bytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
  say(
    `Model ${model.name}: ${files.length} files, ${formatBytes(bytes)}, in ${relative(process.cwd(), model.directory) || "."}`,
  );

  const began = performance.now();
  const directory = await mkdtemp(join(tmpdir(), "headpond-quickstart-"));
  const roles: Role[] = [];
  let failed = true;
  try {
    step(`A master and ${workerCount} workers, each a process of its own, below ${directory}`);
    roles.push(...(await startCluster(directory)));
    const [master] = roles;
    const masters = master?.ready.masters?.[0] ?? "";
    const headpond = (...args: string[]): Promise<void> => show(args, masters);

    step("Mount the directory as an under store");
    await headpond("mount", `/models/${model.name}`, `file://${model.directory}`, "--read-only");

    step("Load the model onto every worker");
    const loadBegan = performance.now();
    await headpond("load", `/models/${model.name}`, "--to", "all");
    const loadMs = performance.now() - loadBegan;
    await headpond("models", "ls");
    const job = await lastJob(masters);

    step("Read it back with a stock Hugging Face client and over plain HTTP, and compare SHA-256 with the source");
    const hub = roles[1]?.ready.endpoints["hf"] ?? "";
    const client = await downloadWithStockClient({
      cache,
      endpoint: hub,
      name: model.name,
      target: join(directory, "downloaded"),
      say,
    });
    await compare(files, await digestTree(client.directory), client.client);
    for (const role of roles.slice(1)) {
      const endpoint = role.ready.endpoints["files"] ?? "";
      await compare(files, await digestOverHttp(endpoint, `/models/${model.name}`, files), `HTTP from ${role.name}`);
    }

    const moved = job.bytesDone;
    step("Done");
    say(
      `  origin / unique bytes  ${job.originAmplification.toFixed(2)}  (${formatBytes(job.originBytes)} left the under store for ${workerCount} workers)`,
    );
    say(`  load                   ${formatDuration(loadMs)}, ${formatBytes(moved / (loadMs / 1000))}/s in all`);
    say(`  verified               ${files.length} files x ${workerCount + 1} copies, SHA-256 equal`);
    say(`  in all                 ${formatDuration(performance.now() - began)}`);
    say("");
    say(`  master    rpc ${masters}   status page ${master?.ready.endpoints["http"]}`);
    for (const role of roles.slice(1)) {
      say(`  ${role.name}  HF_ENDPOINT=${role.ready.endpoints["hf"]}   files ${role.ready.endpoints["files"]}`);
    }
    if (values.keep === true) {
      say("\nEverything is still running; Ctrl-C stops it. Try next, in another terminal:");
      say(`  export HEADPOND_MASTERS=${masters}`);
      say("  node bin/headpond fs ls -R /models");
      say(`  HF_ENDPOINT=${hub} hf download ${model.name}`);
      await untilInterrupted();
    } else {
      say("\nTry next:  npm run quickstart -- --keep      (leaves it running)");
      say("           npm run quickstart -- --model DIR  (your own model)");
    }
    failed = false;
    return 0;
  } finally {
    await stopAll(roles);
    if (failed) say(`The logs are in ${directory}`);
    else await rm(directory, { recursive: true, force: true });
  }
}

async function startCluster(directory: string): Promise<Role[]> {
  const ports = await freePorts(2 + workerCount * 4);
  const port = (): number => ports.pop() as number;
  const [rpc, http] = [port(), port()];
  const start = async (name: string, role: "master" | "worker", config: object): Promise<Role> => ({
    name,
    ...(await startConfiguredRole(name, role, directory, config)),
  });
  const master = await start("master", "master", {
    cluster: { name: "quickstart" },
    master: { dir: join(directory, "master"), rpc: `127.0.0.1:${rpc}`, http: `127.0.0.1:${http}` },
  });
  const roles = [master];
  for (let i = 1; i <= workerCount; i++) {
    roles.push(
      await start(`worker-${i}`, "worker", {
        worker: {
          id: `worker-${i}`,
          masters: [`127.0.0.1:${rpc}`],
          place: `local/local/local/host-${i}`,
          advertise: "127.0.0.1",
          dirs: [{ path: join(directory, `worker-${i}`), capacity: "100GiB" }],
          data: `127.0.0.1:${port()}`,
          http: `127.0.0.1:${port()}`,
        },
        gateways: { hf: `127.0.0.1:${port()}`, files: `127.0.0.1:${port()}` },
      }),
    );
  }
  return roles;
}

/** Runs one command of the CLI with the terminal as its own, after showing it. */
async function show(args: readonly string[], masters: string): Promise<void> {
  say(`  $ headpond ${args.join(" ")}`);
  const child = spawn(process.execPath, [headpondBin, ...args, "--masters", masters], {
    stdio: "inherit",
  });
  const code = await new Promise<number | null>((done) => child.once("exit", done));
  if (code !== 0) throw new Error(`headpond ${args[0]} ended with ${code}`);
}

async function lastJob(masters: string): Promise<JobStatus> {
  const child = spawn(process.execPath, [headpondBin, "jobs", "ls", "--json", "--masters", masters], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  for await (const chunk of child.stdout) text += String(chunk);
  const [job] = JSON.parse(text) as JobStatus[];
  if (job === undefined) throw new Error("the master knows no job");
  return job;
}

type FileDigest = { readonly path: string; readonly sizeBytes: number; readonly sha256: string };

async function digestTree(directory: string): Promise<FileDigest[]> {
  const digests: FileDigest[] = [];
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const name = relative(directory, path);
    if (!entry.isFile() || name.startsWith(".cache")) continue;
    digests.push({ path: name, ...(await digest(createReadStream(path, { highWaterMark: 1 << 20 }))) });
  }
  return digests.sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function digestOverHttp(endpoint: string, path: string, files: readonly FileDigest[]): Promise<FileDigest[]> {
  const digests: FileDigest[] = [];
  for (const file of files) {
    const url = `${endpoint}${path}/${file.path.split("/").map(encodeURIComponent).join("/")}`;
    const response = await fetch(url);
    if (!response.ok || response.body === null) throw new Error(`GET ${url}: ${response.status}`);
    digests.push({ path: file.path, ...(await digest(response.body)) });
  }
  return digests;
}

async function digest(chunks: AsyncIterable<Uint8Array>): Promise<{ sizeBytes: number; sha256: string }> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for await (const chunk of chunks) {
    hash.update(chunk);
    sizeBytes += chunk.length;
  }
  return { sizeBytes, sha256: hash.digest("hex") };
}

async function compare(source: readonly FileDigest[], copy: readonly FileDigest[], how: string): Promise<void> {
  const copies = new Map(copy.map((file) => [file.path, file]));
  for (const file of source) {
    const other = copies.get(file.path);
    if (other?.sha256 !== file.sha256) {
      throw new Error(
        `${how}: ${file.path} ${other === undefined ? "is missing" : "has other bytes"} (source ${file.sha256})`,
      );
    }
  }
  say(`  ${how}: ${source.length} files, SHA-256 equal to the source`);
}

async function stopAll(roles: readonly Role[]): Promise<void> {
  await Promise.all(roles.map(({ process: running }) => running.stop()));
}

async function untilInterrupted(): Promise<void> {
  await new Promise((done) => {
    process.once("SIGINT", done);
    process.once("SIGTERM", done);
  });
}

function step(text: string): void {
  say(`\n== ${text}`);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`quickstart: ${(error as Error).message}\n`);
  process.exitCode = 1;
}
