/** Several masters, as an operator meets them: real processes on loopback, the command line, and nothing else. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClusterStatus } from "../base/cluster.ts";
import { connect } from "../client/client.ts";
import { withMasters } from "../testing/cluster.ts";
import type { MasterNode } from "../testing/master-group.ts";

async function eventually(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (let round = 0; round < 300; round++) {
    if (await isSo()) return;
    await sleep(100);
  }
  assert.fail(`it never came: ${what}`);
}

test("three masters form a cluster, survive the leader's kill -9, and say how they are", {
  timeout: 240_000,
}, async (t) => {
  await withMasters(3, async (cluster) => {
    const { masters } = cluster;
    await cluster.ok("fs", "mkdir", "/a");

    await t.test("status tells who votes and leads, how far each is, and that their states are the same", async () => {
      await masters.settled();
      const status = await cluster.json<ClusterStatus>("cluster", "status");
      assert.equal(status.journal, "raft");
      assert.equal(status.clusterId, masters.clusterId);
      assert.ok(status.term >= 1);
      const leader = await masters.leader();
      assert.equal(status.leader, leader.rpc);
      assert.deepEqual(
        status.masters.map(({ id, address, role, voter }) => ({ id, address, role, voter })),
        masters.nodes.map((node) => ({
          id: node.id,
          address: node.rpc,
          role: node === leader ? "leader" : "standby",
          voter: true,
        })),
      );
      // A session that ends in between is one more entry for all of them.
      await eventually("the states of all are the same", async () => {
        const { masters: rows } = await cluster.json<ClusterStatus>("cluster", "status");
        const [first] = rows;
        return rows.every(
          ({ digest, appliedIndex, lagEntries }) =>
            digest === first?.digest && appliedIndex === first.appliedIndex && lagEntries === 0,
        );
      });
    });

    await t.test("every master is ready, the standbys too", async () => {
      for (const node of masters.nodes) assert.deepEqual(await node.readiness(), { status: 200, text: "ready" });
    });

    await t.test("the leader's death loses nothing and stops nobody for long", async () => {
      const leader = await masters.leader();
      await leader.kill();
      await cluster.ok("fs", "mkdir", "/b");
      const successor = await masters.leader({ except: leader });
      assert.notEqual(successor.id, leader.id);
      assert.equal((await cluster.run("fs", "stat", "/a")).code, 0);
      const { masters: rows } = await cluster.json<ClusterStatus>("cluster", "status");
      assert.equal(rows.find(({ id }) => id === leader.id)?.reachable, false);
      await masters.start(leader);
      await masters.settled();
    });

    await t.test("leadership goes to whom it is handed, or to anybody else", async () => {
      const before = await masters.leader();
      const target = masters.nodes.find((node) => node !== before) as MasterNode;
      const named = await cluster.json<{ leader: string }>("cluster", "transfer", target.id);
      assert.equal(named.leader, target.id);
      assert.equal((await masters.leader()).id, target.id);
      await cluster.ok("cluster", "transfer");
      assert.notEqual((await masters.leader({ except: target })).id, target.id);
      assert.equal((await cluster.run("cluster", "transfer", "m9")).code, 3);
    });

    await t.test("a leader that is told to stop hands over first, and comes back as a standby", async () => {
      const leader = await masters.leader();
      await leader.role?.process.stop("SIGTERM");
      assert.match(leader.log, /handed over before stopping/);
      assert.equal(leader.role?.process.child.exitCode, 0, leader.log);
      await cluster.ok("fs", "mkdir", "/c");
      await masters.start(leader);
      await masters.settled();
    });

    await t.test("without a majority nobody leads, and readiness says so; with it all goes on", async () => {
      const [one, two, three] = masters.nodes as [MasterNode, MasterNode, MasterNode];
      await Promise.all([one.kill(), two.kill()]);
      await eventually("the last master is not ready", async () => (await three.readiness()).status === 503);
      assert.match((await three.readiness()).text, /no leader is known/);
      const { code, stdout } = await cluster.run("fs", "mkdir", "/d", "--timeout", "1s", "--json");
      assert.ok(code === 4 || code === 7, `${code} ${stdout}`);
      await masters.start(one);
      await masters.leader();
      await cluster.ok("fs", "mkdir", "/e");
      await masters.start(two);
      await masters.settled();
    });
  });
});

test("all masters are restarted one after the other, and a writer notices nothing but a wait", {
  timeout: 240_000,
}, async () => {
  await withMasters(3, async ({ masters, ...cluster }) => {
    await using client = connect({ masters: masters.addresses });
    await client.mkdir("/log");
    const acknowledged: string[] = [];
    const failures: string[] = [];
    let stopped = false;
    const writer = (async () => {
      for (let number = 0; !stopped; number++) {
        const path = `/log/${number}`;
        await client.create(path, { exclusive: true }).then(
          () => acknowledged.push(path),
          (error: unknown) => failures.push(`${path}: ${String(error)}`),
        );
      }
    })();
    try {
      const leader = await masters.leader();
      for (const node of masters.nodes.filter((each) => each !== leader)) {
        await masters.restart(node, "SIGTERM");
        await masters.leader();
      }
      await cluster.ok("cluster", "transfer");
      await masters.restart(leader, "SIGTERM");
      await masters.leader();
    } finally {
      stopped = true;
      await writer;
    }
    assert.deepEqual(failures, []);
    assert.ok(acknowledged.length > 50, `${acknowledged.length} were acknowledged`);
    const found: string[] = [];
    for await (const { path } of client.list("/log")) found.push(path);
    assert.deepEqual(found.sort(), acknowledged.sort());
    await masters.settled();
  });
});
