/** Who can move the bytes in a shaped network: Headpond's workers, a curl for each node, BitTorrent. */

import { createHash, randomFillSync } from "node:crypto";
import { createReadStream, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { ServerProcess } from "../../src/cli/role-process.ts";
import { ShapedCluster, until } from "../../src/testing/shaped-cluster.ts";
import { ShapedNetwork } from "../../src/testing/shaped-network.ts";
import { ShapedOrigin } from "../../src/testing/shaped-origin.ts";
import { cpuSeconds } from "./processes.ts";
import type { ShapedCase, ShapedResult } from "./shaped-case.ts";

const loadTimeoutMs = 300_000;
const backAfterMs = 2000;
const torrentPort = 6881;
const python = process.env["SHAPED_PYTHON"] ?? "python3";

/** What is common to all: rates of hosts, the part that is timed, what the kernel counted in it. */
class Timed {
  readonly #network: ShapedNetwork;
  readonly #given: ShapedCase;
  readonly #began = { ms: Date.now(), stat: machineTicks(), origin: 0, cross: 0 };

  constructor(network: ShapedNetwork, given: ShapedCase) {
    this.#network = network;
    this.#given = given;
    this.#began.origin = network.sentBytes("origin");
    this.#began.cross = this.#crossBytes();
  }

  get beganMs(): number {
    return this.#began.ms;
  }

  get links(): Pick<ShapedResult, "originLinkBytes" | "crossRegionBytes" | "busy"> {
    const now = machineTicks();
    const busy = (now.busy - this.#began.stat.busy) / (now.all - this.#began.stat.all);
    return {
      originLinkBytes: this.#network.sentBytes("origin") - this.#began.origin,
      crossRegionBytes: this.#crossBytes() - this.#began.cross,
      busy,
    };
  }

  #crossBytes(): number {
    let bytes = 0;
    for (let region = 1; region < (this.#given.regions ?? 1); region++) bytes += this.#network.regionBytes(region).in;
    return bytes;
  }
}

function nodesOf(given: ShapedCase): { readonly bytesPerSecond: number; readonly region: number }[] {
  const { nodes, nodeBytesPerSecond, slowBytesPerSecond, regions = 1 } = given;
  return Array.from({ length: nodes }, (_, index) => ({
    bytesPerSecond: index === nodes - 1 ? (slowBytesPerSecond ?? nodeBytesPerSecond) : nodeBytesPerSecond,
    region: Math.floor((index * regions) / nodes),
  }));
}

export async function runHeadpond(given: ShapedCase, directory: string): Promise<ShapedResult> {
  const { nodeBytesPerSecond, originBytesPerSecond, fileBytes, regionLinkBytesPerSecond } = given;
  const cluster = await ShapedCluster.start({
    directory,
    workers: nodesOf(given),
    origin: { bytesPerSecond: originBytesPerSecond, fileBytes },
    ...(regionLinkBytesPerSecond === undefined ? {} : { regionLinkBytesPerSecond }),
    linkBytesPerSecond: nodeBytesPerSecond,
    originBytesPerSecond,
  });
  try {
    return given.readers === undefined ? await load(cluster, given) : await readAtOnce(cluster, given, given.readers);
  } finally {
    await cluster.close();
  }
}

async function load(cluster: ShapedCluster, given: ShapedCase): Promise<ShapedResult> {
  const [file] = await cluster.files();
  if (file === undefined) throw new Error("the origin has no file");
  await cluster.client.stat(file.path);
  const names = cluster.workerNames;
  const killed = given.kill === true ? names[Math.floor(names.length / 2)] : undefined;
  const slow = given.slowBytesPerSecond === undefined ? undefined : names.at(-1);
  const counted = names.filter((name) => name !== killed && name !== slow);
  const cpuOf = (): number[] => counted.map((name) => cpuSeconds(cluster.worker(name).process));
  const cpuBegan = cpuOf();
  const timed = new Timed(cluster.network, given);
  const job = await cluster.client.load(file.path, { to: "all" });
  if (killed !== undefined) {
    await until("half of the bytes", loadTimeoutMs, async () => {
      return (await cluster.origin.count()).payloadBytes >= given.fileBytes / 2;
    });
    await cluster.killWorker(killed);
    await sleep(backAfterMs);
    await cluster.startWorker(killed);
  }
  await until("complete copies", loadTimeoutMs, async () => {
    const { workers, state, failed } = await cluster.client.job(job.id);
    if (failed.length > 0 || state === "failed") throw new Error(`the load failed: ${JSON.stringify(failed)}`);
    return counted.every((name) => workers.find(({ worker }) => worker === name)?.ready === true);
  });
  const links = timed.links;
  const cpuEnded = cpuOf();
  const { payloadBytes } = await cluster.origin.count();
  const { workers } = await cluster.client.job(job.id);
  const seconds = names.map((name) => {
    const readyMs = workers.find(({ worker }) => worker === name)?.readyMs;
    return readyMs === undefined || !counted.includes(name) ? null : (readyMs - timed.beganMs) / 1000;
  });
  for (const name of names) cluster.network.unshape(name);
  const done = await job.done();
  if (done.state !== "succeeded") throw new Error(`the load ended as ${done.state}: ${JSON.stringify(done.failed)}`);
  return {
    seconds,
    originBytes: given.slowBytesPerSecond === undefined ? (await cluster.origin.count()).payloadBytes : payloadBytes,
    ...links,
    cpuSeconds: cpuEnded.map((cpu, index) => cpu - (cpuBegan[index] ?? 0)),
    wrong: await cluster.wrongCopies(names),
  };
}

/** Readers on the worker's own host: only the origin's link is a limit. */
async function readAtOnce(cluster: ShapedCluster, given: ShapedCase, readers: number): Promise<ShapedResult> {
  const [descriptor] = await cluster.descriptors();
  const [file] = await cluster.files();
  const name = cluster.workerNames[0] as string;
  if (descriptor === undefined || file === undefined) throw new Error("the origin has no file");
  const script = fileURLToPath(new URL("shaped-readers.ts", import.meta.url));
  const words = [...cluster.network.prefix(name), process.execPath, script];
  const url = `http://${cluster.worker(name).ready.endpoints["data"] ?? `${cluster.network.address(name)}:7080`}/v1/files/${descriptor.id}`;
  const cpuBegan = cpuSeconds(cluster.worker(name).process);
  const timed = new Timed(cluster.network, given);
  const reading = new ServerProcess("readers", words[0] as string, [
    ...words.slice(1),
    url,
    String(readers),
    file.file.sha256,
  ]);
  const [line] = await linesUntilEnd(reading);
  const links = timed.links;
  const { seconds, wrong } = JSON.parse(line ?? "{}") as { seconds: number[]; wrong: number };
  return {
    seconds,
    originBytes: (await cluster.origin.count()).payloadBytes,
    ...links,
    cpuSeconds: [cpuSeconds(cluster.worker(name).process) - cpuBegan],
    wrong: Array.from({ length: wrong }, () => "a reader"),
  };
}

/** Each node fetches for itself with curl. */
export async function runDirect(given: ShapedCase, directory: string): Promise<ShapedResult> {
  const { network, names } = layOut(given);
  mkdirSync(directory, { recursive: true });
  const origin = await ShapedOrigin.start({
    address: network.address("origin"),
    prefix: network.prefix("origin"),
    files: 1,
    fileBytes: given.fileBytes,
  });
  try {
    const [file] = await origin.files();
    const timed = new Timed(network, given);
    const seconds = await Promise.all(
      names.map(async (name) => {
        const words = [
          ...network.prefix(name),
          "curl",
          "-sSf",
          "-o",
          join(directory, name),
          `${origin.url}${file?.name}`,
        ];
        await linesUntilEnd(new ServerProcess(name, words[0] as string, words.slice(1)));
        return (Date.now() - timed.beganMs) / 1000;
      }),
    );
    const links = timed.links;
    const wrong: string[] = [];
    for (const name of names) if ((await digestOf(join(directory, name))) !== file?.sha256) wrong.push(name);
    return { seconds, originBytes: (await origin.count()).payloadBytes, ...links, cpuSeconds: [], wrong };
  } finally {
    await origin.stop();
  }
}

/** One seed at the origin, everybody else fetches and feeds the others. */
export async function runBitTorrent(given: ShapedCase, directory: string): Promise<ShapedResult> {
  const { network, names } = layOut(given);
  const seeded = join(directory, "origin");
  mkdirSync(seeded, { recursive: true });
  const bytes = Buffer.alloc(given.fileBytes);
  randomFillSync(bytes);
  writeFileSync(join(seeded, "model"), bytes);
  const torrent = join(directory, "model.torrent");
  const script = fileURLToPath(new URL("torrent-node.py", import.meta.url));
  await linesUntilEnd(new ServerProcess("torrent", python, [script, "make", join(seeded, "model"), torrent]));
  const addresses = ["origin", ...names].map((name) => network.address(name));
  const nodes = ["origin", ...names].map((name, index) => {
    const own = join(directory, name);
    mkdirSync(own, { recursive: true });
    const role = index === 0 ? "seed" : "fetch";
    // Of each pair one calls the other.
    const peers = addresses.slice(0, index);
    const words = [
      ...network.prefix(name),
      python,
      script,
      role,
      torrent,
      own,
      network.address(name),
      torrentPort,
      ...peers,
    ];
    return new TorrentNode(name, words.map(String));
  });
  try {
    await Promise.all(nodes.map((node) => node.event("listening")));
    const cpuBegan = nodes.slice(1).map(({ process }) => cpuSeconds(process));
    const timed = new Timed(network, given);
    for (const node of nodes) node.go();
    const ends = await Promise.all(nodes.slice(1).map((node) => node.event("done")));
    const links = timed.links;
    const cpu = nodes.slice(1).map(({ process }, index) => cpuSeconds(process) - (cpuBegan[index] ?? 0));
    const sent = await (nodes[0] as TorrentNode).end();
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const wrong: string[] = [];
    for (const name of names) if ((await digestOf(join(directory, name, "model"))) !== sha256) wrong.push(name);
    return {
      seconds: ends.map(({ atMs = 0 }) => (atMs - timed.beganMs) / 1000),
      originBytes: sent.sentPayloadBytes ?? 0,
      ...links,
      cpuSeconds: cpu,
      wrong,
    };
  } finally {
    for (const { process } of nodes) await process.stop("SIGKILL");
  }
}

type TorrentEvent = { readonly event: string; readonly atMs?: number; readonly sentPayloadBytes?: number };

class TorrentNode {
  readonly process: ServerProcess;
  readonly #events: TorrentEvent[] = [];
  #wake = Promise.withResolvers<void>();

  constructor(name: string, [command = "", ...words]: readonly string[]) {
    this.process = new ServerProcess(name, command, words, process.env, { standardInput: true });
    createInterface({ input: this.process.stdout })
      .on("line", (line) => {
        this.#events.push(JSON.parse(line) as TorrentEvent);
        this.#tell();
      })
      .on("close", () => this.#tell());
  }

  go(): void {
    this.process.child.stdin?.write("go\n");
  }

  end(): Promise<TorrentEvent> {
    this.process.child.stdin?.end();
    return this.event("end");
  }

  async event(name: string): Promise<TorrentEvent> {
    for (;;) {
      const found = this.#events.find(({ event }) => event === name);
      if (found !== undefined) return found;
      if (this.process.hasExited) throw new Error(`${this.process.name} ended:\n${this.process.log}`);
      await this.#wake.promise;
    }
  }

  #tell(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
}

function layOut(given: ShapedCase): { readonly network: ShapedNetwork; readonly names: readonly string[] } {
  const { originBytesPerSecond, regionLinkBytesPerSecond } = given;
  const nodes = nodesOf(given).map((node, index) => ({ name: `n${index + 1}`, ...node }));
  const network = ShapedNetwork.create({
    hosts: [{ name: "origin", bytesPerSecond: originBytesPerSecond }, ...nodes],
    ...(regionLinkBytesPerSecond === undefined ? {} : { regionLinkBytesPerSecond }),
  });
  return { network, names: nodes.map(({ name }) => name) };
}

/** What a program prints; throws when it does not end with 0. */
async function linesUntilEnd(running: ServerProcess): Promise<string[]> {
  const lines: string[] = [];
  createInterface({ input: running.stdout }).on("line", (line) => lines.push(line));
  const code = await new Promise<number | null>((done) => running.child.once("close", done));
  if (code !== 0) throw new Error(`${running.name} ended with ${code}: ${running.log.trim()}`);
  return lines;
}

async function digestOf(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** Of all CPUs since the machine started; waiting for a disk is not work. */
function machineTicks(): { readonly busy: number; readonly all: number } {
  const [first = ""] = readFileSync("/proc/stat", "utf8").split("\n");
  const ticks = first.trim().split(/\s+/).slice(1, 9).map(Number);
  const all = ticks.reduce((sum, value) => sum + value, 0);
  return { busy: all - (ticks[3] ?? 0) - (ticks[4] ?? 0), all };
}
