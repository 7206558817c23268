/** Three masters go through all journals that can have several, by a real ZooKeeper ensemble, with clients at work (docs/migration.md). */

import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { withMasters } from "./cluster.ts";
import { HistoryClients } from "./history-clients.ts";
import { move, pausesText, requireLinearizable } from "./journal-move.ts";
import { withZooKeeper } from "./zookeeper-ensemble.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

test("three masters go from Raft to ZooKeeper and back, to one local journal, and from there to ZooKeeper", {
  timeout: 400_000,
}, async () => {
  const directory = await mkdtemp(join(tmpdir(), "headpond-move-"));
  await withZooKeeper(directory, async (zookeeper) => {
    await withMasters(3, async ({ masters }) => {
      const settingsFor = async (name: string): Promise<readonly string[]> => {
        const store = join(directory, name);
        await mkdir(store);
        const file = join(directory, `${name}.json`);
        const journal = {
          zookeeper: {
            servers: zookeeper.servers.map(({ host, port }) => `${host}:${port}`),
            root: `/${name}`,
            store: `file://${store}`,
          },
        };
        await writeFile(file, JSON.stringify({ journal }));
        return ["--config", file];
      };
      const members = masters.nodes.map(({ id, journal }) => [id, journal] as const);
      const ids = masters.nodes.map(({ id }) => id);
      const clients = await HistoryClients.start({ masters: masters.addresses, ids, random: new Random(seed) });
      const pauses: string[] = [];
      const step = async (to: string, more: readonly string[] = []): Promise<void> => {
        await clients.untilAcknowledged(performance.now(), 60_000);
        const sinceMs = performance.now();
        const moved = await move(masters.addresses, to, to === "raft" ? members : [], more);
        assert.equal(moved.to, to);
        await clients.untilAcknowledged(performance.now(), 60_000);
        pauses.push(pausesText(moved, clients.longestGapMs(sinceMs)));
        console.log(pauses.at(-1));
      };
      try {
        await step("zookeeper", await settingsFor("one"));
        await step("raft");
        await step("zookeeper", await settingsFor("two"));
        await masters.restart(await masters.leader());
        await step("raft");
        await step("local");
        await step("zookeeper", await settingsFor("three"));
        await requireLinearizable(clients, pauses);
      } finally {
        await clients.stop();
        if (process.env["SHOW"] !== undefined) for (const node of masters.nodes) console.log(node.id, node.log);
      }
    });
  });
  await rm(directory, { recursive: true, force: true });
});
