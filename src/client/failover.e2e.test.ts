/** Writers, readers, watchers and workers of a real cluster of three masters whose leader is killed, stopped, or hands over. */

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type TestMasters, withMasters } from "../testing/cluster.ts";
import type { MasterNode } from "../testing/master-group.ts";
import { connect, type HeadpondClient } from "./client.ts";

const lanes = 8;

/** Lanes that make files and raise the version of one file each, without a pause. */
class Writers {
  readonly made = new Set<string>();
  readonly raised: number[] = [];
  readonly failures: unknown[] = [];
  longestGapMs = 0;
  #lastMs = performance.now();
  #stopped = false;
  readonly #client: HeadpondClient;
  readonly #first: number[] = [];
  #lanes: Promise<void>[] = [];

  constructor(client: HeadpondClient) {
    this.#client = client;
  }

  async start(): Promise<void> {
    await this.#client.mkdir("/made");
    for (let lane = 0; lane < lanes; lane++) {
      this.#first.push((await this.#client.create(`/lane-${lane}`)).version);
      this.raised.push(0);
    }
    this.#lastMs = performance.now();
    this.#lanes = this.raised.map((_, lane) => this.#run(lane));
  }

  /** The longest time without an acknowledgement since the last call. */
  takeGapMs(): number {
    const gapMs = this.longestGapMs;
    this.longestGapMs = 0;
    return Math.round(gapMs);
  }

  async untilAcknowledged(count: number): Promise<void> {
    const goal = this.made.size + count;
    while (this.made.size < goal && this.failures.length === 0) await sleep(5);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#lanes);
  }

  /** What was acknowledged is there, once, and nothing else is. */
  async check(): Promise<void> {
    assert.deepEqual(this.failures, []);
    const there = new Set<string>();
    for await (const { path } of this.#client.list("/made")) there.add(path);
    assert.deepEqual(there, this.made);
    for (const [lane, raised] of this.raised.entries()) {
      const { attributes } = await this.#client.stat(`/lane-${lane}`);
      assert.equal(attributes["n"], String(raised));
    }
  }

  async #run(lane: number): Promise<void> {
    for (let n = 1; !this.#stopped; n++) {
      const path = `/made/${lane}-${n}`;
      try {
        await this.#client.create(path, { exclusive: true });
        this.made.add(path);
        // Applied twice, its version would be one too high, and the next change refused.
        const before = await this.#client.stat(`/lane-${lane}`);
        await this.#client.setAttributes(`/lane-${lane}`, { set: { n: String(n) } }, { ifVersion: before.version });
        this.raised[lane] = n;
      } catch (error) {
        this.failures.push(error);
        return;
      }
      const nowMs = performance.now();
      this.longestGapMs = Math.max(this.longestGapMs, nowMs - this.#lastMs);
      this.#lastMs = nowMs;
    }
  }
}

async function withWriters(use: (cluster: TestMasters, writers: Writers) => Promise<void>): Promise<void> {
  await withMasters(3, async (cluster) => {
    await using client = connect({ masters: cluster.masters.addresses.slice(0, 1) });
    const writers = new Writers(client);
    await writers.start();
    try {
      await writers.untilAcknowledged(100);
      await use(cluster, writers);
    } finally {
      await writers.stop();
    }
    await writers.check();
  });
}

async function fail(
  cluster: TestMasters,
  writers: Writers,
  how: (node: MasterNode) => Promise<void> | void,
): Promise<MasterNode> {
  const leader = await cluster.masters.leader();
  writers.takeGapMs();
  await how(leader);
  await writers.untilAcknowledged(100);
  return leader;
}

test("writers lose and repeat nothing while leaders are killed", { timeout: 300_000 }, async (t) => {
  await withWriters(async (cluster, writers) => {
    for (let round = 0; round < 4; round++) {
      const killed = await fail(cluster, writers, (node) => node.kill());
      t.diagnostic(`no acknowledgement for ${writers.takeGapMs()} ms after kill -9 of ${killed.id}`);
      await cluster.masters.start(killed);
      await writers.untilAcknowledged(100);
    }
  });
});

test("writers lose and repeat nothing while leaders are stopped and thawed", { timeout: 300_000 }, async (t) => {
  await withWriters(async (cluster, writers) => {
    for (let round = 0; round < 4; round++) {
      const stopped = await fail(cluster, writers, (node) => node.pause());
      t.diagnostic(`no acknowledgement for ${writers.takeGapMs()} ms after SIGSTOP of ${stopped.id}`);
      stopped.resume();
      await writers.untilAcknowledged(100);
    }
  });
});

test("no request fails and nothing is lost or repeated while leaders hand over", { timeout: 300_000 }, async (t) => {
  await withWriters(async (cluster, writers) => {
    await using operator = connect({ masters: cluster.masters.addresses });
    for (let round = 0; round < 6; round++) {
      const startMs = performance.now();
      writers.takeGapMs();
      const leader = await operator.membership.transfer(undefined);
      const tookMs = Math.round(performance.now() - startMs);
      await writers.untilAcknowledged(100);
      t.diagnostic(`handed over to ${leader} in ${tookMs} ms, no acknowledgement for ${writers.takeGapMs()} ms`);
    }
  });
});

test("a watch sees every change once, in order, while leaders are killed", { timeout: 300_000 }, async () => {
  await withWriters(async (cluster, writers) => {
    await using watcher = connect({ masters: cluster.masters.addresses.slice(1) });
    const ending = new AbortController();
    const indexes: number[] = [];
    const created: string[] = [];
    const watching = (async () => {
      for await (const { index, kind, path } of watcher.watch("/made", { fromIndex: 1, signal: ending.signal })) {
        indexes.push(index);
        if (kind === "created" && path !== "/made") created.push(path);
      }
    })().catch((error: unknown) => {
      if (!ending.signal.aborted) throw error;
    });
    for (let round = 0; round < 3; round++) {
      const killed = await fail(cluster, writers, (node) => node.kill());
      await cluster.masters.start(killed);
    }
    await writers.stop();
    for (let round = 0; round < 400 && created.length < writers.made.size; round++) await sleep(25);
    ending.abort();
    await watching;
    assert.deepEqual(created.toSorted(), [...writers.made].sort());
    assert.deepEqual(
      indexes,
      indexes.toSorted((a, b) => a - b),
    );
  });
});

test("reads go to all masters, each says how new it is, and none is older than what was acknowledged", {
  timeout: 300_000,
}, async () => {
  await withMasters(3, async (cluster) => {
    await using client = connect({ masters: cluster.masters.addresses.slice(0, 1) });
    await client.create("/a");
    const ids = cluster.masters.nodes.map(({ id }) => id);
    for (let n = 0; n < 60; n++) {
      const { version } = await client.setAttributes("/a", { set: { n: String(n) } });
      const seen = await client.stat("/a", { from: "any" });
      assert.equal(seen.version, version);
      const named = await client.stat("/a", { from: { master: ids[n % 3] as string } });
      assert.equal(named.version, version);
    }
    let staleMs: number | undefined;
    const onReadInfo = (info: { readonly staleMs?: number }): void => {
      staleMs = info.staleMs;
    };
    for (const master of ids) {
      await client.stat("/a", { from: { master }, consistency: "stale", maxStaleMs: 200, onReadInfo });
      assert.ok(staleMs !== undefined && staleMs <= 200, `${master} answered ${staleMs} ms old`);
    }
    // Alone, a standby answers what it has, and nothing that has to be new.
    const leader = await cluster.masters.leader();
    const [alone, other] = cluster.masters.nodes.filter((node) => node !== leader) as [MasterNode, MasterNode];
    await Promise.all([leader.kill(), other.kill()]);
    await using near = connect({ masters: [alone.rpc], follow: false, timeoutMs: 2000 });
    assert.equal((await near.stat("/a", { consistency: "local" })).attributes["n"], "59");
    await assert.rejects(near.stat("/a"));
    await assert.rejects(near.stat("/a", { consistency: "stale", maxStaleMs: 1 }));
    assert.equal((await near.stat("/a", { consistency: "stale", maxStaleMs: 60_000 })).attributes["n"], "59");
  });
});

test("a new leader knows all workers and what they hold in its first answer; a new master does soon", {
  timeout: 300_000,
}, async () => {
  await withMasters(
    3,
    async (cluster) => {
      await writeFile(join(cluster.directory, "model.bin"), Buffer.alloc(9 * 1024 * 1024, 7));
      await using client = connect({ masters: cluster.masters.addresses });
      await client.mount("/m", `file://${cluster.directory}`);
      const job = await client.load("/m/model.bin", { to: "all" });
      for await (const progress of job.progress()) if (progress.finishedMs !== undefined) break;
      const holdersOf = async (): Promise<string[]> =>
        (await client.location("/m/model.bin")).holders
          .filter(({ complete }) => complete)
          .map(({ worker }) => worker.id)
          .sort();
      // Workers gather what changed for a moment before they report it, to each master by itself.
      for (const { id } of cluster.masters.nodes) {
        const from = { master: id };
        const known = async (): Promise<number> =>
          (await client.location("/m/model.bin", { consistency: "local", from })).holders.filter(
            ({ complete }) => complete,
          ).length;
        for (let round = 0; round < 400 && (await known()) < 2; round++) await sleep(25);
      }
      const killed = await cluster.masters.leader();
      await killed.kill();
      const { workers } = await client.workers();
      assert.deepEqual(workers.map(({ id }) => id).sort(), ["w0", "w1"]);
      assert.deepEqual(await holdersOf(), ["w0", "w1"]);
      const joined = await cluster.masters.join();
      const live = async (): Promise<number> =>
        (await joined.status())?.workers.filter(({ state }) => state === "live").length ?? 0;
      for (let round = 0; round < 400 && (await live()) < 2; round++) await sleep(25);
      assert.equal(await live(), 2, "the workers were never told of it but by the masters");
    },
    { workers: 2 },
  );
});
