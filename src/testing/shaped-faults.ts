/**
 * Loads over links of a given rate while something goes wrong, as a program inside `runInNamespaces`: one cluster of four
 * workers, one fault after the other, each with a file of its own. Whatever happens, every copy has the SHA-256 of the origin,
 * what is not done is not called done, and the origin's bytes are counted by the origin and at its link, not by us. Prints what it
 * does; ends with 1 and the reason when a promise was broken.
 *
 *   shaped-faults.ts SCENARIO SEED DIRECTORY
 */

import assert from "node:assert/strict";
import { existsSync, mkdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { JobStatus } from "../base/cluster.ts";
import type { FileDescriptor } from "../base/file.ts";
import { MiB } from "../base/units.ts";
import type { LoadJob } from "../client/client.ts";
import { silentLogger } from "../io/logger.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { RpcClient } from "../rpc/client.ts";
import { workerService } from "../rpc/worker-service.ts";
import { mountMemory, ShapedCluster, until } from "./shaped-cluster.ts";
import type { OriginFile } from "./shaped-origin.ts";

const rate = 16e6;
/** By which a file would take minutes. */
const slowRate = 64e3;
const fileBytes = 16 * MiB;
const blockBytes = 4 * MiB;
/** A machine that runs much else stops processes for longer than a dead owner is waited for: so many blocks may get another one. */
const startledBlocksMax = 2;
/** What a worker that is gone, or cannot be heard, alone had. */
const orphanedBlocksMax = 3;
const diskBytes = 400 * MiB;
const timeoutMs = 120_000;
/** Headers, acknowledgements and what TCP sends again, beside payload. */
const linkOverhead = 1.06;

/** Of each worker, when something failed. */
const logShownBytes = 3000;

const clock = new NodeClock();

class Stage {
  readonly cluster: ShapedCluster;
  readonly directory: string;
  readonly #files: { readonly path: string; file: OriginFile }[];
  #next = 0;

  constructor(cluster: ShapedCluster, directory: string, files: readonly { path: string; file: OriginFile }[]) {
    this.cluster = cluster;
    this.directory = directory;
    this.#files = [...files];
  }

  /** A file that nobody has touched yet. */
  nextFile(): { readonly path: string; readonly file: OriginFile } {
    const file = this.#files[this.#next++];
    assert.ok(file !== undefined, "the origin has a file for each fault");
    return file;
  }

  /** Runs one load with its fault, and judges what came of it. */
  async fault(
    name: string,
    run: (path: string, file: OriginFile) => Promise<JobStatus>,
    expected: {
      readonly state?: JobStatus["state"];
      readonly workers: readonly string[];
      /** Blocks that may leave the origin twice. */
      readonly againMax?: number;
    },
  ): Promise<void> {
    const { origin, network } = this.cluster;
    const { path, file } = this.nextFile();
    const before = { ...(await origin.count()), link: network.sentBytes("origin"), ms: performance.now() };
    const job = await run(path, file);
    assert.equal(
      job.state,
      expected.state ?? "succeeded",
      `${name}: ${job.reason ?? ""} ${JSON.stringify(job.failed)}`,
    );
    const after = await origin.count();
    const payload = after.payloadBytes - before.payloadBytes;
    const link = network.sentBytes("origin") - before.link;
    const mostBytes = fileBytes + (expected.againMax ?? startledBlocksMax) * blockBytes;
    const seconds = ((performance.now() - before.ms) / 1000).toFixed(1);
    say(
      `${name}: ${job.state} after ${seconds} s, origin ${(payload / fileBytes).toFixed(2)}, at its link ` +
        `${(link / fileBytes).toFixed(2)}, ${after.requests - before.requests} requests`,
    );
    assert.ok(payload >= fileBytes && payload <= mostBytes, `${name}: the origin sent ${payload} B of ${fileBytes}`);
    assert.ok(link <= mostBytes * linkOverhead + MiB, `${name}: ${link} B left the origin's link`);
    await this.copiesAreRight(name, path, expected.workers);
  }

  async copiesAreRight(name: string, path: string, workers: readonly string[]): Promise<void> {
    const file = (await this.cluster.files()).find((candidate) => candidate.path === path)?.file;
    const descriptor = await this.descriptor(path);
    for (const worker of workers) {
      assert.equal(await this.cluster.digestOf(worker, descriptor), file?.sha256, `${name}: ${path} on ${worker}`);
    }
  }

  async descriptor(path: string): Promise<FileDescriptor> {
    return (await this.cluster.client.open(path)).descriptor;
  }

  load(path: string, to = "all"): Promise<LoadJob> {
    return this.cluster.client.load(path, { to });
  }

  /** So much of the file has left the origin. */
  async underWay(beforeBytes: number, share = 0.4): Promise<void> {
    await until("bytes on their way", timeoutMs, async () => {
      return (await this.cluster.origin.count()).payloadBytes >= beforeBytes + share * fileBytes;
    });
  }

  async sent(): Promise<number> {
    return (await this.cluster.origin.count()).payloadBytes;
  }
}

const three = ["n1", "n2", "n3"];
const four = [...three, "n4"];

const scenarios: Readonly<Record<string, { readonly masters: number; readonly run: (stage: Stage) => Promise<void> }>> =
  {
    machines: {
      masters: 3,
      run: async (stage) => {
        const [first] = await stage.cluster.files();
        await stage.fault("cold", async (path) => (await stage.load(path)).done(), { workers: three });
        await lateJoiner(stage, first?.path ?? "");
        const lost = { workers: four, againMax: orphanedBlocksMax };
        await stage.fault("killed owner", (path) => killedOwner(stage, path), lost);
        await stage.fault("slow node", (path) => slowNode(stage, path), { workers: four });
        await stage.fault("lossy link", (path) => lossyLink(stage, path), lost);
        await stage.fault("partitioned master", (path) => partitionedMaster(stage, path), lost);
      },
    },
    contents: {
      masters: 1,
      run: async (stage) => {
        const [first] = await stage.cluster.files();
        await stage.fault("cold", async (path) => (await stage.load(path)).done(), { workers: three });
        await lateJoiner(stage, first?.path ?? "");
        await fullDisk(stage);
        await changedObject(stage, four);
        await corruptedBlock(stage, first?.path ?? "");
        await stage.fault("origin that throttles", (path) => throttled(stage, path), { workers: four });
      },
    },
  };

async function main(name: string, directory: string): Promise<void> {
  const scenario = scenarios[name];
  assert.ok(scenario !== undefined, `no scenario ${name}: there are ${Object.keys(scenarios).join(", ")}`);
  mountMemory(directory, "3G");
  mkdirSync(join(directory, "n4"), { recursive: true });
  mountMemory(join(directory, "n4"), `${diskBytes / MiB}M`);
  const cluster = await ShapedCluster.start({
    directory,
    workers: Array.from({ length: four.length }, () => ({ bytesPerSecond: rate })),
    origin: { bytesPerSecond: rate, files: 8, fileBytes },
    masters: scenario.masters,
    linkBytesPerSecond: rate,
    originBytesPerSecond: rate,
    leaveOut: ["n4"],
  });
  try {
    await scenario.run(new Stage(cluster, directory, await cluster.files()));
  } catch (error) {
    for (const worker of cluster.workerNames) {
      process.stderr.write(`== ${worker}\n${cluster.logOf(worker).slice(-logShownBytes)}\n`);
    }
    throw error;
  } finally {
    await cluster.close();
  }
}

/** Comes when all others have the file: not one byte leaves the origin for it. */
async function lateJoiner(stage: Stage, path: string): Promise<void> {
  const { cluster } = stage;
  const sentBefore = await stage.sent();
  await cluster.startWorker("n4");
  await cluster.untilLive(["n4"]);
  const job = await (await stage.load(path)).done();
  assert.equal(job.state, "succeeded");
  assert.equal(await stage.sent(), sentBefore, "the others have the file");
  await stage.copiesAreRight("late joiner", path, ["n4"]);
  say("late joiner: 0 bytes of the origin");
}

/** Killed half-way, it comes back with what was durable; the job ends with it. */
async function killedOwner(stage: Stage, path: string): Promise<JobStatus> {
  const sentBefore = await stage.sent();
  const job = await stage.load(path);
  await stage.underWay(sentBefore);
  await stage.cluster.killWorker("n2");
  const others = ["n1", "n3", "n4"];
  await until("copies on the survivors", timeoutMs, async () => {
    const { workers } = await job.status();
    return others.every((name) => workers.find(({ worker }) => worker === name)?.ready === true);
  });
  assert.equal((await job.status()).state, "running", "it waits for the one that was killed");
  await stage.cluster.startWorker("n2");
  return job.done();
}

/** One node's link is slow: the others are not held up by it. */
async function slowNode(stage: Stage, path: string): Promise<JobStatus> {
  stage.cluster.network.shape("n3", slowRate);
  const job = await stage.load(path);
  const ready = async (): Promise<string[]> =>
    (await job.status()).workers.filter((worker) => worker.ready).map(({ worker }) => worker);
  await until("copies on the fast nodes", timeoutMs, async () => (await ready()).length === 3);
  assert.deepEqual((await ready()).sort(), ["n1", "n2", "n4"]);
  stage.cluster.network.shape("n3", rate);
  return job.done();
}

async function lossyLink(stage: Stage, path: string): Promise<JobStatus> {
  stage.cluster.network.lose("n2", 1);
  try {
    return await (await stage.load(path)).done();
  } finally {
    stage.cluster.network.heal();
  }
}

/** The leader is cut off from the other masters and from all workers; the job goes on under its successor. */
async function partitionedMaster(stage: Stage, path: string): Promise<JobStatus> {
  const { network, masters, workerNames } = stage.cluster;
  const { group } = masters;
  assert.ok(group !== undefined, "there are several masters");
  const sentBefore = await stage.sent();
  const job = await stage.load(path);
  const old = await group.leader();
  const leader = old.id;
  await stage.underWay(sentBefore, 0.2);
  const others = group.nodes.map(({ id }) => id).filter((id) => id !== leader);
  network.cut(...[...others, ...workerNames].map((name) => [leader, name] as const));
  const successor = await group.leader({ except: old });
  const done = await job.done();
  network.heal();
  say(`  ${leader} was cut off, ${successor.id} went on`);
  return done;
}

/** A worker without room fails its part with a reason, and nobody else's; with room again a retry ends it. */
async function fullDisk(stage: Stage): Promise<void> {
  const { path } = stage.nextFile();
  const ballast = join(stage.directory, "n4", "ballast");
  const { bavail, bsize } = statfsSync(join(stage.directory, "n4"));
  writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - blockBytes)));
  const job = await stage.load(path);
  const failed = await job.done();
  assert.equal(failed.state, "partial");
  assert.deepEqual(
    failed.failed.map(({ worker, code }) => `${worker} ${code}`),
    ["n4 no-space"],
  );
  await stage.copiesAreRight("full disk", path, ["n1", "n2", "n3"]);
  const { workers } = await stage.cluster.client.cluster();
  assert.match(workers.find(({ id }) => id === "n4")?.problems.join() ?? "", /no space/);
  rmSync(ballast);
  const again = await ended(stage, (await stage.cluster.client.retryJob(failed.id)).id);
  assert.equal(again.state, "succeeded", JSON.stringify(again.failed));
  await stage.copiesAreRight("full disk", path, ["n4"]);
  say("full disk: partial with n4 no-space, succeeded after a retry with room");
}

/** Other bytes under the same name, half-way: nobody ends up with a mixture, nothing is called done, and a retry brings the new ones. */
async function changedObject(stage: Stage, all: readonly string[]): Promise<void> {
  const { path, file } = stage.nextFile();
  const { client, origin } = stage.cluster;
  await client.stat(path);
  const sentBefore = await stage.sent();
  // Whoever reads already gets the old bytes to their end: some requests must come later.
  await origin.throttle({ status: 503, perSecond: 0.5 });
  const job = await stage.load(path);
  await stage.underWay(sentBefore, 0.1);
  await origin.replace(file.name);
  await origin.throttle(undefined);
  const failed = await job.done();
  assert.ok(failed.state === "failed" || failed.state === "partial", failed.state);
  assert.ok(
    failed.failed.every(({ code }) => code === "version-mismatch"),
    JSON.stringify(failed.failed),
  );
  await until("the new version in the namespace", timeoutMs, async () => {
    for await (const _ of client.sync("/models")) void _;
    return (await client.stat(path)).etag?.includes((await newest(stage, file.name)).sha256.slice(0, 32)) === true;
  });
  const again = await ended(stage, (await client.retryJob(failed.id)).id);
  assert.equal(again.state, "succeeded", JSON.stringify(again.failed));
  await stage.copiesAreRight("changed object", path, all);
  say(`changed object: ${failed.state} by version-mismatch, the new one after a retry`);
}

/** A byte changes on the disk of one worker: it is found when it is looked for, fetched again from a peer, told, never given away. */
async function corruptedBlock(stage: Stage, path: string): Promise<void> {
  const { cluster, directory } = stage;
  const descriptor = await stage.descriptor(path);
  const data = join(directory, "n1", "versions", `${descriptor.id}.data`);
  assert.ok(existsSync(data), `${data} is there`);
  await cluster.worker("n1").process.stop();
  const handle = await open(data, "r+");
  const byte = Buffer.alloc(1);
  const position = 2 * blockBytes + 4711;
  await handle.read(byte, 0, 1, position);
  await handle.write(Buffer.from([(byte[0] ?? 0) ^ 0x40]), 0, 1, position);
  await handle.close();
  await cluster.startWorker("n1");
  await cluster.untilLive(["n1"]);
  const sentBefore = await stage.sent();
  const worker = new RpcClient({
    network: new TcpNetwork(),
    address: { host: cluster.network.address("n1"), port: 7080 },
    service: workerService,
    self: { software: "test", role: "client", name: "test" },
    clock,
    logger: silentLogger,
  });
  const { damaged } = await worker.call(workerService.methods.verify, { ids: [descriptor.id] });
  await worker.close();
  assert.equal(damaged, 1);
  await stage.copiesAreRight("corrupted block", path, ["n1", "n4"]);
  assert.equal(await stage.sent(), sentBefore, "a peer has it");
  await until("the damage in the cluster's status", timeoutMs, async () => {
    const { workers } = await cluster.client.cluster();
    return /1 damaged block since the start/.test(workers.find(({ id }) => id === "n1")?.problems.join() ?? "");
  });
  say("corrupted block: found, fetched again from a peer, told");
}

/** The origin answers most requests with 503: the load gets slower, not wrong, and nothing is asked for twice. */
async function throttled(stage: Stage, path: string): Promise<JobStatus> {
  const { origin } = stage.cluster;
  await stage.cluster.client.stat(path);
  const { refused } = await origin.count();
  await origin.throttle({ status: 503, perSecond: 4, retryAfterSeconds: 1 });
  const done = await (await stage.load(path)).done();
  await origin.throttle(undefined);
  say(`  ${(await origin.count()).refused - refused} requests were refused`);
  return done;
}

async function newest(stage: Stage, name: string): Promise<OriginFile> {
  const file = (await stage.cluster.origin.files()).find((candidate) => candidate.name === name);
  assert.ok(file !== undefined);
  return file;
}

async function ended(stage: Stage, id: JobStatus["id"]): Promise<JobStatus> {
  let status = await stage.cluster.client.job(id);
  await until(`the end of job ${id}`, timeoutMs, async () => {
    status = await stage.cluster.client.job(id);
    return status.state !== "running" && status.state !== "planning";
  });
  return status;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const [name = "", , directory = ""] = process.argv.slice(2);
await main(name, directory);
process.exit();
