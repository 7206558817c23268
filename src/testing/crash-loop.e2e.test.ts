/** Every process of a cluster is killed, again and again, in the middle of its work. */

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClusterStatus, JobStatus } from "../base/cluster.ts";
import { isHeadpondError, toHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { connect, type HeadpondClient } from "../client/client.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { inspectJournal } from "../journal/inspect.ts";
import { LmdbStore } from "../namespace/lmdb-store.ts";
import { MemoryStore } from "../namespace/memory-store.ts";
import { Namespace } from "../namespace/namespace.ts";
import { verifyStore } from "../namespace/verify.ts";
import { runCli, sha256, type TestCluster, withCluster, writeModel } from "./cluster.ts";
import { contentOf } from "./crash-client.ts";
import { CrashOracle } from "./crash-oracle.ts";
import { descriptorsOf, residentBytesOf } from "./process-facts.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
const kills = Number(process.env["KILLS"] ?? 20);
const workerCount = 3;

test(`master, workers and clients are killed ${kills} times, and nothing acknowledged is lost, mixed or left behind (seed ${seed})`, {
  timeout: 290_000,
}, async () => {
  const random = new Random(seed);
  await withCluster(workerCount, async (cluster) => {
    const store = join(cluster.directory, "store");
    const weights = random.bytes(13 * MiB + 5);
    const small = random.bytes(300_000);
    await writeModel(store, { "acme/falls/model.safetensors": weights, "acme/falls/vocab.bin": small });
    await using client = connect({ masters: [cluster.masterAddress], place: "local/local/local/host-0" });
    await client.mount("/models", `file://${store}`);
    await client.mkdir("/models/out", { recursive: true });

    const oracle = new CrashOracle();
    const over = new AbortController();
    const work = Promise.all([
      readModel(client, { weights: sha256(weights), small: sha256(small) }, over.signal),
      readChanging(client, over.signal),
      loadAgainAndAgain(client, over.signal),
    ]);
    work.catch(() => {});

    let life = 0;
    let writer = oracle.startClient(cluster.masterAddress, ++life, seed + life);
    for (let kill = 0; kill < kills; kill++) {
      await sleep(random.between(200, 1200));
      const dice = random.float();
      if (dice < 0.4) {
        await cluster.restartMaster("SIGKILL");
      } else if (dice < 0.75) {
        await cluster.restartWorker(random.between(0, workerCount - 1), "SIGKILL");
      } else {
        await writer.kill();
        writer = oracle.startClient(cluster.masterAddress, ++life, seed + life);
      }
    }
    await sleep(1000);
    await writer.kill();
    over.abort();
    const [reads, changingReads, loads] = await work;
    console.log(
      `${oracle.done} changes acknowledged, ${oracle.failed} refused, ${oracle.unknown.length} unknown; ` +
        `${reads} reads of the model, ${changingReads} of a changing file, ${loads} loads; ${life} clients`,
    );
    assert.ok(oracle.done > 200 && reads > 5 && changingReads > 5, "the loop did next to nothing");

    await quiet(cluster);
    // What a dead writer's bytes did in the store is taken in as any change by others.
    for await (const _ of client.sync("/models/out", { recursive: true }));
    assert.deepEqual(oracle.check(await whatIsThere(client, oracle.values)), []);
    await assertStoreAgrees(oracle, store);

    const job = await cluster.json<JobStatus>("load", "/models/acme/falls", "--to", "all");
    assert.equal(job.state, "succeeded", JSON.stringify(job.failed));
    await assertNothingLeaks(cluster, store);
    await assertStateIsRight(cluster);
  });
});

/** The file that never changes reads byte for byte, whole and in ranges, whoever dies meanwhile. */
async function readModel(
  client: HeadpondClient,
  digests: { readonly weights: string; readonly small: string },
  signal: AbortSignal,
): Promise<number> {
  let reads = 0;
  while (!signal.aborted) {
    for (const [name, digest] of [
      ["model.safetensors", digests.weights],
      ["vocab.bin", digests.small],
    ] as const) {
      const bytes = await readWhole(client, `/models/acme/falls/${name}`);
      if (bytes === undefined) continue;
      assert.equal(sha256(bytes), digest, `${name} came back with other bytes`);
      reads++;
    }
  }
  return reads;
}

/** A file that is written again and again: whoever reads it gets one of its contents, whole. */
async function readChanging(client: HeadpondClient, signal: AbortSignal): Promise<number> {
  const path = "/models/acme/changing.bin";
  const contents = new Set<string>();
  let reads = 0;
  const write = async (): Promise<void> => {
    for (let n = 1; !signal.aborted; n++) {
      const bytes = contentOf(`w:${n}:${5 * MiB + n}`);
      contents.add(sha256(bytes));
      await client.write(path, bytes).catch(mayFail);
      await sleep(200);
    }
  };
  const read = async (): Promise<void> => {
    while (!signal.aborted) {
      const bytes = await readWhole(client, path);
      if (bytes === undefined) {
        await sleep(50);
        continue;
      }
      assert.ok(contents.has(sha256(bytes)), `${bytes.length} bytes that nobody ever wrote`);
      reads++;
    }
  };
  await Promise.all([write(), read()]);
  return reads;
}

async function loadAgainAndAgain(client: HeadpondClient, signal: AbortSignal): Promise<number> {
  let loads = 0;
  while (!signal.aborted) {
    try {
      const job = await client.load("/models/acme/falls", { to: "all" });
      await job.done({ signal: AbortSignal.any([signal, AbortSignal.timeout(20_000)]) });
      loads++;
      await client.free("/models/acme/falls");
    } catch (error) {
      if (!signal.aborted && toHeadpondError(error).code !== "timeout") mayFail(error);
    }
  }
  return loads;
}

async function readWhole(client: HeadpondClient, path: string): Promise<Buffer | undefined> {
  try {
    await using file = await client.open(path);
    const parts: Buffer[] = [];
    for await (const chunk of file.stream()) parts.push(Buffer.from(chunk));
    return Buffer.concat(parts);
  } catch (error) {
    mayFail(error);
    return undefined;
  }
}

/** While processes die an operation may fail so, and in no other way. */
function mayFail(error: unknown): void {
  const codes = [
    "unavailable",
    "overloaded",
    "timeout",
    "under-store",
    "not-found",
    "compacted",
    "unknown-outcome",
  ] as const;
  if (!isHeadpondError(error, ...codes)) throw error as Error;
}

/** Waits until no change is on its way any more and every worker is back. */
async function quiet(cluster: TestCluster): Promise<void> {
  const http = cluster.master.ready.endpoints["http"] ?? "";
  for (let round = 0; round < 300; round++) {
    const metrics = await (await fetch(`${http}/metrics`)).text();
    const driven = /^headpond_master_driven_intents (\d+)/m.exec(metrics)?.[1];
    const { workers } = await cluster.json<ClusterStatus>("cluster", "status");
    if (driven === "0" && workers.filter(({ state }) => state === "live").length === workerCount) return;
    await sleep(200);
  }
  assert.fail("the cluster did not come to rest");
}

/** Values by path, as `CrashOracle.check` compares them; the bytes of every file are read. */
async function whatIsThere(client: HeadpondClient, values: ReadonlySet<string>): Promise<Map<string, string>> {
  const present = new Map<string, string>();
  for await (const { path, kind, attributes } of client.list("/work", { recursive: true })) {
    if (kind === "file") present.set(path, attributes["v"] ?? "no value");
  }
  for await (const status of client.list("/models/out", { recursive: true })) {
    // Not complete: begun by a writer that was killed, and given up when its session ends.
    if (status.kind !== "file" || !status.complete) continue;
    await using file = await client.open(status.path);
    const parts: Buffer[] = [];
    for await (const chunk of file.stream()) parts.push(Buffer.from(chunk));
    const bytes = Buffer.concat(parts);
    present.set(status.path, valueOf(bytes, values));
  }
  return present;
}

/** The value that these bytes stand for, among those that clients ever began to write. */
function valueOf(bytes: Buffer, values: ReadonlySet<string>): string {
  for (const value of values) {
    if (value.endsWith(`:${bytes.length}`) && bytes.equals(contentOf(value))) return value;
  }
  return `${bytes.length} bytes that nobody ever wrote`;
}

async function assertStoreAgrees(oracle: CrashOracle, store: string): Promise<void> {
  const loose = new Set(oracle.unknown.flat().map(([path]) => path));
  for (const [path, value] of oracle.sure) {
    if (loose.has(path) || !path.startsWith("/models/")) continue;
    const file = join(store, path.slice("/models/".length));
    const bytes = await readFile(file).catch(() => undefined);
    if (value === null) assert.equal(bytes, undefined, `${file} was removed`);
    else assert.equal(bytes && sha256(bytes), sha256(contentOf(value)), `${file} is not what was acknowledged`);
  }
}

async function assertNothingLeaks(cluster: TestCluster, store: string): Promise<void> {
  const names = async (...parts: string[]): Promise<string[]> =>
    (await readdir(join(cluster.directory, ...parts), { recursive: true })).sort();
  for (const name of await names("master")) {
    assert.match(
      name,
      /^(lock|state|journal|state\/state\.mdb(-lock)?|journal\/(wal|checkpoints|lock|journal\.json|state\.json|wal\/[^/]+\.wal|checkpoints\/[^/]+))$/,
    );
    assert.doesNotMatch(name, /tmp|new$/);
  }
  for (let index = 0; index < workerCount; index++) {
    const held = await names(`worker-${index}`, "versions");
    const data = held.filter((name) => name.endsWith(".data")).map((name) => name.slice(0, -5));
    const indexes = held.filter((name) => name.endsWith(".index")).map((name) => name.slice(0, -6));
    assert.deepEqual(data, indexes);
    assert.equal(held.length, data.length * 2, held.join(" "));
  }
  // A killed writer may leave its temporary file (docs/under-stores.md): one for each write on its way at most.
  const left = (await readdir(store, { recursive: true })).filter((name) => name.includes(".headpond-"));
  console.log(`${left.length} temporary files of killed workers in the store`);
  assert.ok(left.length <= kills * 4, `${left.length} temporary files`);
  for (const { process: running } of [cluster.master, ...cluster.workers]) {
    assert.ok(!running.hasExited, `${running.name} ended by itself: ${running.log}`);
    const facts = { descriptors: await descriptorsOf(running.pid), bytes: await residentBytesOf(running.pid) };
    // A worker keeps the last 256 files open (two descriptors, sometimes one more for the index).
    assert.ok(facts.descriptors < 900, `${running.name} holds ${facts.descriptors} descriptors`);
    assert.ok(facts.bytes < 700 * MiB, `${running.name} takes ${facts.bytes} bytes`);
  }
}

/** The state on disk is what the log says: its rows agree with each other, and the whole log applied anew gives the same digest. */
async function assertStateIsRight(cluster: TestCluster): Promise<void> {
  await cluster.master.process.stop();
  const directory = join(cluster.directory, "master");
  const journal = join(directory, "journal");
  const verified = await runCli(["journal", "verify", "--dir", journal], cluster.directory);
  assert.equal(verified.code, 0, verified.stdout + verified.stderr);
  const disk = new NodeDisk();
  const store = await LmdbStore.open({ directory: join(directory, "state"), disk });
  assert.deepEqual(verifyStore(store), []);
  const kept = new Namespace({ store });
  const again = new Namespace({ store: new MemoryStore() });
  for await (const entry of inspectJournal(disk, journal)) again.apply([entry]);
  assert.deepEqual([again.applied.index, again.digest()], [kept.applied.index, kept.digest()]);
  await Promise.all([kept.close(), again.close()]);
}
