/** Who the masters are, and how that changes: joining, replacing, removing, directories of other kinds. Real processes on loopback. */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { MasterStatus } from "../base/cluster.ts";
import { Random } from "../base/random.ts";
import { runCli, withMasters } from "../testing/cluster.ts";
import type { MasterNode } from "../testing/master-group.ts";
import { freePorts, startRole } from "./role-process.ts";

type Members = { readonly leader: string | null; readonly members: readonly MasterStatus[] };

async function eventually(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (let round = 0; round < 300; round++) {
    if (await isSo()) return;
    await sleep(100);
  }
  assert.fail(`it never came: ${what}`);
}

/** What `format` must know of a master that is to join. */
const raftId = (node: MasterNode): string[] => ["--set", `master.id=${node.id}`, "--set", "journal.type=raft"];

const votersOf = ({ members }: Members): string[] => members.filter(({ voter }) => voter).map(({ id }) => id as string);

test("masters join, are replaced and removed, each by one command", { timeout: 240_000 }, async (t) => {
  await withMasters(3, async (cluster) => {
    const { masters } = cluster;
    const members = (): Promise<Members> => cluster.json<Members>("cluster", "members");
    for (let i = 0; i < 5; i++) await cluster.ok("fs", "mkdir", `/d${i}`);

    await t.test("a founder whose disk was wiped is no member again, and is told what to do", async () => {
      const leader = await masters.leader();
      const victim = masters.nodes.find((node) => node !== leader) as MasterNode;
      await victim.kill();
      await masters.wipe(victim);
      await masters.start(victim);
      await eventually("it is told", async () => /has another disk/.test(victim.log));
      const { status, text } = await victim.readiness();
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
      await cluster.ok("cluster", "promote", learner.id);
      assert.ok(votersOf(await members()).includes(learner.id));
      assert.match(await cluster.ok("cluster", "promote", learner.id), /votes already/);
    });

    await t.test("a master is added in steps of one's own: format, start, add", async () => {
      const node = await masters.addNode();
      const formatted = await runCli(
        ["format", "--join", "--dir", node.directory, "--cluster-id", masters.clusterId, ...raftId(node)],
        cluster.directory,
      );
      assert.equal(formatted.code, 0, formatted.stderr);
      assert.match(formatted.stdout, new RegExp(`headpond cluster add ${node.id} HOST:PORT`));
      await masters.start(node);
      assert.deepEqual(await node.readiness(), { status: 503, text: "no leader is known" });
      assert.match(await cluster.ok("cluster", "add", node.id, node.journal), /is a voter now/);
      assert.match(await cluster.ok("cluster", "add", node.id, node.journal), /nothing to do/);
      await eventually("it is ready", async () => (await node.readiness()).status === 200);
      await masters.settled();
      await cluster.ok("cluster", "remove", node.id);
      await node.kill();
    });

    await t.test("a directory of another cluster joins nothing, and stays as it is", async () => {
      const node = await masters.addNode();
      const { code } = await runCli(
        ["format", "--join", "--dir", node.directory, "--cluster-id", "another", ...raftId(node)],
        cluster.directory,
      );
      assert.equal(code, 0);
      const join = masters.start(node, ["--join", masters.addresses.join(",")]);
      await assert.rejects(join, /belongs to cluster another/);
      assert.ok(!votersOf(await members()).includes(node.id));
    });

    await t.test("a leader that is removed hands over, and what is removed is no member any more", async () => {
      const leader = await masters.leader();
      await cluster.ok("cluster", "remove", leader.id);
      const successor = await masters.leader({ except: leader });
      assert.notEqual(successor.id, leader.id);
      await cluster.ok("fs", "mkdir", "/after");
      assert.ok(!votersOf(await members()).includes(leader.id));
      assert.equal((await cluster.run("cluster", "remove", leader.id)).code, 3);
      await leader.kill();
      await masters.settled();
    });
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
    for (let i = 0; i < 3; i++) await cluster.ok("fs", "mkdir", `/d${i}`);
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

test("a directory is opened only as what it is, and a wildcard is not told to others", {
  timeout: 120_000,
}, async () => {
  const directory = await mkdtemp(join(tmpdir(), "headpond-types-"));
  try {
    const [rpc, http, journal] = await freePorts(3);
    const start = async (id: string, type: string, more: readonly string[] = []): Promise<string> => {
      const settings = [
        `master.id=${id}`,
        `master.dir=${join(directory, "master")}`,
        `master.rpc=127.0.0.1:${rpc}`,
        `master.http=127.0.0.1:${http}`,
        `journal.type=${type}`,
        ...more,
      ].flatMap((setting) => ["--set", setting]);
      try {
        const { process } = await startRole(id, ["master", ...settings]);
        await process.stop();
        return `ended with ${process.child.exitCode}`;
      } catch (error) {
        return (error as Error).message;
      }
    };
    const own = [`journal.raft.listen=127.0.0.1:${journal}`, `journal.raft.members=m1=127.0.0.1:${journal}`];
    assert.equal(await start("m1", "local"), "ended with 0");
    assert.match(await start("m1", "raft", own), /holds a local journal: `headpond journal migrate/);
    const migrate = ["journal", "migrate", "--dir", join(directory, "master"), "--to"];
    const done = await runCli([...migrate, "raft", "--listen", `127.0.0.1:${journal}`], directory);
    assert.equal(done.code, 0, done.stderr);
    assert.match(await start("m1", "local"), /is of member m1 of a Raft cluster: set journal\.type to raft/);
    assert.match(await start("m2", "raft", own), /is of member m1, master\.id is m2/);
    assert.match(await start("m1", "raft", [`master.rpc=0.0.0.0:${rpc}`]), /set master\.advertise/);
    assert.equal(await start("m1", "raft", own), "ended with 0");
    assert.match((await runCli([...migrate, "local"], directory)).stderr, /has started as such/);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
