/** Backup, restore, repair and diff on real processes: what an operator does on a bad day. */

import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { runCli, withCluster, withMasters } from "../testing/cluster.ts";
import { freePorts, startConfiguredRole } from "./role-process.ts";

const timeout = 180_000;

/** Starts a master on a restored directory, and lists `/` there. */
async function namesIn(directory: string, masterDirectory: string, journal: object): Promise<string[]> {
  const [rpc, http] = await freePorts(2);
  const master = await startConfiguredRole("restored", "master", directory, {
    cluster: { name: "restored" },
    master: { id: "m1", dir: masterDirectory, rpc: `127.0.0.1:${rpc}`, http: `127.0.0.1:${http}` },
    journal,
  });
  try {
    const { code, stdout, stderr } = await runCli(
      ["fs", "ls", "/", "--json", "--masters", `127.0.0.1:${rpc}`],
      directory,
    );
    assert.equal(code, 0, stderr);
    const rows = stdout.split("\n").filter((line) => line !== "");
    return rows.map((line) => (JSON.parse(line) as { path: string }).path);
  } finally {
    await master.process.stop();
  }
}

test("a backup of a running master is restored, whole and as of an earlier entry", { timeout }, async () => {
  await withCluster(0, async ({ directory, run, json }) => {
    await json("fs", "mkdir", "/first");
    const { appliedIndex } = await json<{ appliedIndex: number }>("journal", "status");
    await json("fs", "mkdir", "/second");
    const backup = join(directory, "backup");
    const taken = await json<{ fromIndex: number; toIndex: number }>("journal", "backup", backup);
    assert.equal(taken.fromIndex, 0);
    assert.ok(taken.toIndex > appliedIndex);
    assert.equal((await run("journal", "backup", backup)).code, 1, "a backup does not overwrite another");

    const whole = join(directory, "whole");
    const restored = await json<{ clusterId: string; formerClusterId: string }>(
      "journal",
      "restore",
      backup,
      "--dir",
      whole,
    );
    assert.notEqual(restored.clusterId, restored.formerClusterId);
    assert.deepEqual(await namesIn(directory, whole, { type: "local" }), ["/first", "/second"]);

    const earlier = join(directory, "earlier");
    const [port] = await freePorts(1);
    const listen = `127.0.0.1:${port}`;
    await json("journal", "restore", backup, "--dir", earlier, "--index", String(appliedIndex), "--listen", listen);
    assert.deepEqual(await namesIn(directory, earlier, { type: "raft", raft: { listen } }), ["/first"]);
  });
});

test("the last of three masters begins a new cluster, and is told what may be lost", { timeout }, async () => {
  await withMasters(3, async ({ directory, masters, run, json }) => {
    await json("fs", "mkdir", "/kept");
    const taken = await json<{ master: string }>("journal", "backup", join(directory, "backup"));
    assert.notEqual(taken.master, (await masters.leader()).id, "a standby was asked");
    for (const node of masters.nodes) await node.kill();
    const survivor = masters.nodes[2]?.directory as string;
    const plain = await run("journal", "restore", survivor, "--dir", join(directory, "plain"));
    assert.notEqual(plain.code, 0);
    assert.match(plain.stderr, /--force-new-cluster/);
    const next = join(directory, "next");
    const forced = await run("journal", "restore", survivor, "--force-new-cluster", "--dir", next);
    assert.equal(forced.code, 0, forced.stderr);
    assert.match(forced.stdout, /may be lost/);
    assert.deepEqual(await namesIn(directory, next, { type: "local" }), ["/kept"]);
  });
});

test("a stopped master gets the state of its peers, keeps its log, and agrees with them then", {
  timeout,
}, async () => {
  await withMasters(3, async ({ masters, run, json }) => {
    for (const name of ["/a", "/b", "/c"]) await json("fs", "mkdir", name);
    const leader = await masters.leader();
    const sick = masters.nodes.find(({ id }) => id !== leader.id);
    assert.ok(sick);
    assert.match((await run("journal", "repair", "--dir", sick.directory)).stderr, /in use/);
    await sick.kill();
    await json("fs", "mkdir", "/d");
    // As a rotten disk would leave it.
    await rm(join(sick.directory, "state"), { recursive: true });
    const repaired = await run("journal", "repair", "--dir", sick.directory);
    assert.equal(repaired.code, 0, repaired.stderr);
    await masters.start(sick);
    await masters.settled();
    const compared = await run("journal", "diff", "--json");
    assert.equal(compared.code, 0, compared.stdout);
    for (const node of masters.nodes) await node.kill();
    const [left, right] = [leader, sick].map((node) => join(node.directory, "journal"));
    const offline = await run("journal", "diff", left as string, right as string);
    assert.equal(offline.code, 0, offline.stdout);
    assert.match(offline.stdout, /same/);
  });
});
