/** Several masters, as an operator meets them: real processes on loopback, the command line, and nothing else. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClusterStatus, MasterStatus } from "../base/cluster.ts";
import { Random } from "../base/random.ts";
import { connect } from "../client/client.ts";
import { runCli, type TestMasters, withMasters } from "../testing/cluster.ts";
import type { MasterNode } from "../testing/master-group.ts";

type Members = { readonly leader: string | null; readonly members: readonly MasterStatus[] };

async function eventually(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (let round = 0; round < 300; round++) {
    if (await isSo()) return;
    await sleep(100);
  }
  assert.fail(`it never came: ${what}`);
}

async function ok(cluster: Pick<TestMasters, "run">, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await cluster.run(...args);
  assert.equal(code, 0, `headpond ${args.join(" ")}: ${stdout}${stderr}`);
  return stdout;
}

async function readiness(node: MasterNode): Promise<{ readonly status: number; readonly text: string }> {
  const response = await fetch(`http://${node.http}/readyz`, { signal: AbortSignal.timeout(2000) });
  return { status: response.status, text: (await response.text()).trim() };
}

const votersOf = ({ members }: Members): string[] => members.filter(({ voter }) => voter).map(({ id }) => id as string);

test("three masters form a cluster, survive the leader's kill -9, and say how they are", {
  timeout: 240_000,
}, async (t) => {
  await withMasters(3, async (cluster) => {
    const { masters } = cluster;
    await ok(cluster, "fs", "mkdir", "/a");

    await t.test("status tells who votes and leads, how far each is, and that their states are the same", async () => {
      const { appliedIndex, digest } = await masters.settled();
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
      for (const row of status.masters) {
        assert.equal(row.digest, digest);
        assert.equal(row.appliedIndex, appliedIndex);
        assert.equal(row.lagEntries, 0);
      }
    });

    await t.test("every master is ready, the standbys too", async () => {
      for (const node of masters.nodes) assert.deepEqual(await readiness(node), { status: 200, text: "ready" });
    });

    await t.test("the leader's death loses nothing and stops nobody for long", async () => {
      const leader = await masters.leader();
      await leader.kill();
      await ok(cluster, "fs", "mkdir", "/b");
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
      await ok(cluster, "cluster", "transfer");
      assert.notEqual((await masters.leader({ except: target })).id, target.id);
      assert.equal((await cluster.run("cluster", "transfer", "m9")).code, 3);
    });

    await t.test("a leader that is told to stop hands over first, and comes back as a standby", async () => {
      const leader = await masters.leader();
      await leader.role?.process.stop("SIGTERM");
      assert.match(leader.log, /handed over before stopping/);
      assert.equal(leader.role?.process.child.exitCode, 0, leader.log);
      await ok(cluster, "fs", "mkdir", "/c");
      await masters.start(leader);
      await masters.settled();
    });

    await t.test("without a majority nobody leads, and readiness says so; with it all goes on", async () => {
      const [one, two, three] = masters.nodes as [MasterNode, MasterNode, MasterNode];
      await Promise.all([one.kill(), two.kill()]);
      await eventually("the last master is not ready", async () => (await readiness(three)).status === 503);
      assert.match((await readiness(three)).text, /no leader is known/);
      const { code, stdout } = await cluster.run("fs", "mkdir", "/d", "--timeout", "1s", "--json");
      assert.ok(code === 4 || code === 7, `${code} ${stdout}`);
      await masters.start(one);
      await masters.leader();
      await ok(cluster, "fs", "mkdir", "/e");
      await masters.start(two);
      await masters.settled();
    });
  });
});

test("masters join, are replaced and removed, each by one command", { timeout: 240_000 }, async (t) => {
  await withMasters(3, async (cluster) => {
    const { masters } = cluster;
    const members = (): Promise<Members> => cluster.json<Members>("cluster", "members");
    for (let i = 0; i < 5; i++) await ok(cluster, "fs", "mkdir", `/d${i}`);

    await t.test("a founder whose disk was wiped is no member again, and is told what to do", async () => {
      const leader = await masters.leader();
      const victim = masters.nodes.find((node) => node !== leader) as MasterNode;
      await victim.kill();
      await masters.wipe(victim);
      await masters.start(victim);
      await eventually("it is told", async () => /has another disk/.test(victim.log));
      const { status, text } = await readiness(victim);
      assert.equal(status, 503);
      assert.match(text, /another disk.*--join/);
      await victim.kill();
      await masters.wipe(victim);

      const joined = await masters.join({ replace: victim.id });
      assert.deepEqual(votersOf(await members()).sort(), [
        ...masters.nodes.filter((node) => node.isRunning && node !== joined).map(({ id }) => id),
        joined.id,
      ]);
      await masters.settled();
    });

    await t.test("a master that lives is not replaced, an id is not used twice", async () => {
      const standby = (await masters.standbys())[0] as MasterNode;
      await assert.rejects(masters.join({ replace: standby.id }), /it lives/);
      const other = await runCli(
        ["cluster", "add", standby.id, "127.0.0.1:1", "--masters", masters.addresses.join(",")],
        cluster.directory,
      );
      assert.match(other.stderr, /ids are not used again/);
    });

    await t.test("a learner receives the log without a vote, and votes when it is promoted", async () => {
      const learner = await masters.join({ learner: true });
      const row = (await members()).members.find(({ id }) => id === learner.id);
      assert.equal(row?.voter, false);
      await masters.settled();
      await ok(cluster, "cluster", "promote", learner.id);
      assert.ok(votersOf(await members()).includes(learner.id));
      assert.match(await ok(cluster, "cluster", "promote", learner.id), /votes already/);
    });

    await t.test("a leader that is removed hands over, and what is removed is no member any more", async () => {
      const leader = await masters.leader();
      await ok(cluster, "cluster", "remove", leader.id);
      const successor = await masters.leader({ except: leader });
      assert.notEqual(successor.id, leader.id);
      await ok(cluster, "fs", "mkdir", "/after");
      assert.ok(!votersOf(await members()).includes(leader.id));
      assert.equal((await cluster.run("cluster", "remove", leader.id)).code, 3);
      await leader.kill();
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
      await ok({ run: cluster.run }, "cluster", "transfer");
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

test("a join that is killed at any moment goes on when the same command is given again", {
  timeout: 240_000,
}, async () => {
  const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  await withMasters(3, async (cluster) => {
    const { masters } = cluster;
    for (let i = 0; i < 3; i++) await ok(cluster, "fs", "mkdir", `/d${i}`);
    const seeds = masters.addresses.join(",");
    const node = await masters.addNode();
    let kills = 0;
    for (let round = 0; round < 5; round++) {
      const started = masters.start(node, ["--join", seeds]).then(
        () => true,
        () => false,
      );
      // From the first instant of the process to well after the join.
      const patience = sleep(500 + random.float() * 2500).then(() => false);
      if (await Promise.race([started, patience])) {
        await node.kill();
        continue;
      }
      kills++;
      await node.kill();
      await started;
    }
    console.log(`${kills} of 5 joins were killed before they had ended`);
    await masters.start(node, ["--join", seeds]);
    const { members } = await cluster.json<Members>("cluster", "members");
    assert.deepEqual(
      members.map(({ id, voter }) => ({ id, voter })),
      ["m1", "m2", "m3", "m4"].map((id) => ({ id, voter: true })),
    );
    await masters.settled();
  });
});
