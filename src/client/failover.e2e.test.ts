/** Writers, readers, watchers and workers of a real cluster of three masters whose leader is killed, stopped, or hands over. */

import assert from "node:assert/strict";
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

test("writers lose and repeat nothing while leaders are killed", { timeout: 120_000 }, async (t) => {
  await withWriters(async (cluster, writers) => {
    for (let round = 0; round < 4; round++) {
      const killed = await fail(cluster, writers, (node) => node.kill());
      t.diagnostic(`no acknowledgement for ${writers.takeGapMs()} ms after kill -9 of ${killed.id}`);
      await cluster.masters.start(killed);
      await writers.untilAcknowledged(100);
    }
  });
});

test("writers lose and repeat nothing while leaders are stopped and thawed", { timeout: 120_000 }, async (t) => {
  await withWriters(async (cluster, writers) => {
    for (let round = 0; round < 4; round++) {
      const stopped = await fail(cluster, writers, (node) => node.pause());
      t.diagnostic(`no acknowledgement for ${writers.takeGapMs()} ms after SIGSTOP of ${stopped.id}`);
      stopped.resume();
      await writers.untilAcknowledged(100);
    }
  });
});
