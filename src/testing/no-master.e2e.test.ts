/** Masters that stop, die, or whose wall clock jumps, under workers and clients that go on. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClusterStatus, JobStatus } from "../base/cluster.ts";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { connect } from "../client/client.ts";
import { runCli, sha256, type TestCluster, withCluster } from "./cluster.ts";
import { FaultOrigin } from "./fault-origin.ts";

async function eventually(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (let round = 0; round < 150; round++) {
    if (await isSo()) return;
    await sleep(200);
  }
  assert.fail(`it never came: ${what}`);
}

test("without a master workers serve what they hold and finish what runs; when it is back, all is as it should be", {
  timeout: 200_000,
}, async () => {
  const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const origin = await FaultOrigin.start();
  try {
    const held = random.bytes(6 * MiB + 1);
    const running = random.bytes(48 * MiB + 1);
    origin.put("org/m/held.bin", held);
    for (const name of ["a", "b"]) origin.put(`org/m/${name}.safetensors`, running);
    await withCluster(2, async (cluster) => {
      assert.equal((await cluster.run("mount", "/models", origin.uri)).code, 0);
      assert.equal((await cluster.run("load", "/models/org/m/held.bin", "--to", "all")).code, 0);
      const readHeld = async (): Promise<void> => {
        for (const worker of cluster.workers) {
          const { files = "", hf = "" } = worker.ready.endpoints;
          for (const url of [`${files}/models/org/m/held.bin`, `${hf}/org/m/resolve/main/held.bin`]) {
            const response = await fetch(url, { signal: AbortSignal.timeout(60_000) });
            assert.equal(response.status, 200, `${url}: ${response.status}`);
            assert.equal(sha256(new Uint8Array(await response.arrayBuffer())), sha256(held), url);
          }
        }
      };
      // Each gateway answers without a master what it has answered with one.
      await readHeld();
      for (const { way, name, at } of [
        { way: "SIGSTOP", name: "a", at: 0 },
        { way: "SIGKILL", name: "b", at: 1 },
      ] as const) {
        // A read that is under way when the master goes: its bytes have yet to come from the origin.
        origin.bytesPerSecond = 3 * MiB;
        const path = `/models/org/m/${name}.safetensors`;
        const response = await fetch(`${cluster.workers[at]?.ready.endpoints["files"]}${path}`);
        assert.equal(response.status, 200);
        const { pid } = cluster.master.process;
        if (way === "SIGSTOP") process.kill(pid, "SIGSTOP");
        else await cluster.master.process.stop("SIGKILL");
        const [bytes] = await Promise.all([response.arrayBuffer(), readHeld()]);
        assert.equal(sha256(new Uint8Array(bytes)), sha256(running), `${way}: the read was not finished byte for byte`);
        const masters = ["--masters", cluster.masterAddress, "--timeout", "2s"];
        const refused = await runCli(["fs", "mkdir", "/x", ...masters], cluster.directory);
        assert.equal(refused.code, 4, refused.stderr);
        assert.match(refused.stderr, /nothing was changed|ECONNREFUSED/);

        origin.bytesPerSecond = Number.POSITIVE_INFINITY;
        if (way === "SIGSTOP") process.kill(pid, "SIGCONT");
        else await cluster.restartMaster();
        await eventually(`${way}: the workers are back`, async () => {
          const { workers } = await cluster.json<ClusterStatus>("cluster", "status");
          return workers.filter(({ state }) => state === "live").length === 2;
        });
        const before = origin.sentBytes;
        const job = await cluster.json<JobStatus>("load", path, "--to", "all");
        assert.equal(job.state, "succeeded", JSON.stringify(job.failed));
        assert.equal(origin.sentBytes, before, `${way}: what was fetched without a master was fetched again`);
      }
      await readHeld();
    });
  } finally {
    await origin.close();
  }
});

const faketime =
  spawnSync("sh", ["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]).stdout.toString().split("\n")[0] ?? "";

test("a wall clock that jumps ends no session and no TTL of a master, and its time never runs backwards", {
  timeout: 120_000,
  skip:
    faketime === "" ? "libfaketime is not installed (Debian: faketime); leader-clock.test.ts covers the rule" : false,
}, async () => {
  await withJumpingClock(async (cluster, jump) => {
    await using client = connect({ masters: [cluster.masterAddress] });
    await client.create("/short-lived");
    await client.ttl("/short-lived", 30 * 60_000, { action: "delete" });
    let lastMs = (await client.stat("/short-lived")).createdMs;
    for (const offset of ["+3h", "-5h", "+400d", "+0"]) {
      await jump(offset);
      await sleep(2000);
      const path = `/after${offset}`;
      await client.create(path, { exclusive: true });
      const { createdMs } = await client.stat(path);
      assert.ok(createdMs >= lastMs, `time ran backwards by ${lastMs - createdMs} ms after a jump of ${offset}`);
      assert.ok(createdMs - lastMs < 60_000, `time leapt by ${createdMs - lastMs} ms with a jump of ${offset}`);
      lastMs = createdMs;
      assert.equal((await client.stat("/short-lived")).kind, "file", `a jump of ${offset} ended a TTL`);
    }
    const metrics = await (await fetch(`${cluster.master.ready.endpoints["http"]}/metrics`)).text();
    assert.match(metrics, /headpond_master_clock_held_back_ms/);
    await cluster.master.process.stop();
    const journal = join(cluster.directory, "master/journal");
    const dump = await runCli(["journal", "dump", "--dir", journal, "--json"], cluster.directory);
    const sessions = dump.stdout.split("\n").filter((line) => line.includes('"open-session"'));
    assert.equal(sessions.length, 1, "the client needed a second session");
  });
});

/** A master whose wall clock is off by what a file says; its monotonic clock is left alone. */
async function withJumpingClock(
  use: (cluster: TestCluster, jump: (offset: string) => Promise<void>) => Promise<void>,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "headpond-time-"));
  const file = join(directory, "offset");
  const jump = (offset: string): Promise<void> => writeFile(file, `${offset}\n`);
  await jump("+0");
  const environment = {
    LD_PRELOAD: faketime,
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: "1",
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
    DONT_FAKE_MONOTONIC: "1",
  };
  try {
    await withCluster(0, (cluster) => use(cluster, jump), { environment });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
