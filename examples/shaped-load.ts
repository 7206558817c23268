/**
 * A load where the network is what limits: six workers and an origin on hosts of their own, each with a link of 10 MB/s. `load` shows
 * its plan and its progress against the bound, `jobs watch` follows it from elsewhere; the origin itself says how much it sent. Then
 * a worker is drained, and nothing is lost with it. Needs Linux and root (network namespaces); everything is gone at the end.
 *
 *   node scripts/run.mjs examples/shaped-load.ts
 */

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { headpondBin } from "../src/cli/role-process.ts";
import { runInNamespaces, whyNoNamespaces } from "../src/testing/network-namespaces.ts";
import { mountMemory, mountPath, ShapedCluster } from "../src/testing/shaped-cluster.ts";

const workers = 6;
const bytesPerSecond = 10e6;
const fileBytes = 64 * 1024 * 1024;

/** Outside: makes the room in which it happens. */
async function main(): Promise<number> {
  const why = whyNoNamespaces();
  if (why !== false) throw new Error(`${why}: this example makes hosts of its own`);
  const directory = await mkdtemp(join(tmpdir(), "headpond-shaped-load-"));
  try {
    const script = new URL(import.meta.url);
    const { code, log } = await runInNamespaces(script, [directory], { onLine: say });
    if (code !== 0) say(log);
    return code === 0 ? 0 : 1;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function inside(directory: string): Promise<void> {
  mountMemory(directory, "3G");
  step(`${workers} workers, a master and an origin, each on a host of its own; links of ${bytesPerSecond / 1e6} MB/s`);
  const cluster = await ShapedCluster.start({
    directory,
    workers: Array.from({ length: workers }, () => ({ bytesPerSecond })),
    origin: { bytesPerSecond, fileBytes },
    linkBytesPerSecond: bytesPerSecond,
    originBytesPerSecond: bytesPerSecond,
  });
  try {
    const [model] = await cluster.files();
    if (model === undefined) throw new Error("the origin has no file");
    const masters = cluster.masters.addresses;
    await show(masters, "load", mountPath, "--to", "all", "--plan");
    step("The load, and somebody who watches");
    await show(masters, "load", mountPath, "--to", "all", "--detach");
    await show(masters, "jobs", "watch", "1");
    const { payloadBytes } = await cluster.origin.count();
    const wrong = await cluster.wrongCopies(cluster.workerNames);
    if (wrong.length > 0) throw new Error(`wrong copies: ${wrong.join("; ")}`);
    say(
      `  the origin sent ${(payloadBytes / fileBytes).toFixed(2)} times the model; ${workers} copies, all with its SHA-256`,
    );
    step("A worker is drained");
    await show(masters, "cluster", "drain", "n6");
    await show(masters, "models", "ls");
  } finally {
    await cluster.close();
  }
}

/** Runs a command as a person would, and shows it. */
async function show(masters: readonly string[], ...args: readonly string[]): Promise<void> {
  say(`  $ headpond ${args.join(" ")}`);
  const child = spawn(process.execPath, [headpondBin, ...args, "--masters", masters.join(",")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const code = await new Promise<number | null>((done) => child.once("close", done));
  for (const line of output.trimEnd().split("\n")) say(`  ${line}`.trimEnd());
  if (code !== 0) throw new Error(`headpond ${args.join(" ")} ended with ${code}`);
}

function step(text: string): void {
  say(`\n== ${text}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const [directory] = process.argv.slice(2);
if (directory === undefined) {
  process.exitCode = await main();
} else {
  await inside(directory);
  process.exit();
}
