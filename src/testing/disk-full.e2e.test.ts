/** Full disks under real processes: small file systems in memory, mounted by the test, which needs root for it. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, rm, statfs, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClusterStatus, JobStatus } from "../base/cluster.ts";
import { isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { connect } from "../client/client.ts";
import { sha256, withCluster, writeModel } from "./cluster.ts";

/** Why no file system can be mounted here; false: one can. */
function whyNoMounts(): string | false {
  if (process.platform !== "linux") return "file systems in memory are mounted on Linux only";
  if (process.getuid?.() !== 0) return "mounting needs root";
  // Containers often have root without the right to mount.
  const tried = spawnSync("unshare", ["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
  return tried.status === 0 ? false : "this root may not mount";
}

async function withSmallDisk(sizeMiB: number, use: (path: string) => Promise<void>): Promise<void> {
  const path = await mkdtemp(join(tmpdir(), "headpond-disk-"));
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${sizeMiB}m`, "tmpfs", path]);
  assert.equal(mounted.status, 0, String(mounted.stderr));
  try {
    await use(path);
  } finally {
    const unmounted = spawnSync("umount", [path]);
    if (unmounted.status !== 0) spawnSync("umount", ["-l", path]);
    await rm(path, { recursive: true, force: true });
  }
}

async function eventually(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (let round = 0; round < 120; round++) {
    if (await isSo()) return;
    await sleep(500);
  }
  assert.fail(`it never came: ${what}`);
}

const skip = whyNoMounts();

/** The master makes its spare segments in the background: the space that is left once it has. */
async function settledSpace(disk: string): Promise<{ readonly bavail: number; readonly bsize: number }> {
  let last = await statfs(disk);
  for (let quietRounds = 0; quietRounds < 10; ) {
    await new Promise((done) => setTimeout(done, 200));
    const now = await statfs(disk);
    quietRounds = now.bavail === last.bavail ? quietRounds + 1 : 0;
    last = now;
  }
  return last;
}

test("a master whose disk is full answers no-space, goes on being read, and takes changes again when there is room", {
  timeout: 120_000,
  skip,
}, async () => {
  // Room for three segments of the log, of 64 MiB; the ballast takes that of the third.
  await withSmallDisk(288, async (disk) => {
    await withCluster(
      0,
      async (cluster) => {
        await using client = connect({ masters: [cluster.masterAddress] });
        const attributes = Object.fromEntries(Array.from({ length: 15 }, (_, n) => [`k${n}`, "x".repeat(4000)]));
        await client.create("/before", { attributes });
        const ballast = join(disk, "ballast");
        const { bavail, bsize } = await settledSpace(disk);
        await writeFile(ballast, Buffer.alloc(Math.max(0, bavail * bsize - MiB)));
        const acknowledged: string[] = [];
        const refused: unknown[] = [];
        // The present segment takes some more; then there is nowhere to go on.
        for (let n = 0; refused.length === 0 && n < 4000; n++) {
          const path = `/f${n}`;
          await client.create(path, { attributes, timeoutMs: 5000 }).then(
            () => acknowledged.push(path),
            (error: unknown) => refused.push(error),
          );
        }
        const [error] = refused;
        assert.ok(isHeadpondError(error, "no-space"), String(error));
        assert.equal(error.outcome, "none");
        assert.match(error.message, /free some space, the journal then goes on by itself/);
        assert.deepEqual((await client.stat("/before")).attributes, attributes);
        assert.equal((await client.stat(acknowledged.at(-1) ?? "")).kind, "file");
        const doctor = await cluster.run("doctor");
        assert.match(doctor.stdout, /master: disk +problem .*free in .*make room/);
        const http = cluster.master.ready.endpoints["http"] ?? "";
        await eventually("the state cannot be flushed", async () => (await fetch(`${http}/readyz`)).status === 503);
        assert.match(await (await fetch(`${http}/readyz`)).text(), /no space for .*state\.mdb.*make room/);

        await rm(ballast);
        await eventually("changes are taken again", () =>
          client.create("/after", { attributes, timeoutMs: 5000 }).then(
            () => true,
            (again: unknown) => !isHeadpondError(again, "no-space"),
          ),
        );
        await eventually("it is ready again", async () => (await fetch(`${http}/readyz`)).status === 200);
        await cluster.restartMaster("SIGKILL");
        for (const path of ["/before", "/after", ...acknowledged]) {
          assert.equal(Object.keys((await client.stat(path)).attributes).length, 15, `${path} is not whole`);
        }
        assert.equal((await cluster.run("journal", "verify")).code, 0);
      },
      { master: { dir: join(disk, "master") } },
    );
  });
});

test("a worker whose disk is full says so, serves what it holds, and takes files again when there is room", {
  timeout: 180_000,
  skip,
}, async () => {
  const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  await withSmallDisk(24, async (disk) => {
    await withCluster(
      1,
      async (cluster) => {
        const held = random.bytes(12 * MiB + 7);
        const other = random.bytes(30 * MiB);
        const store = join(cluster.directory, "store");
        await mkdir(store);
        await writeModel(store, { "held.bin": held, "other.bin": other });
        assert.equal((await cluster.run("mount", "/m", `file://${store}`)).code, 0);
        assert.equal((await cluster.run("load", "/m/held.bin")).code, 0);
        const job = await cluster.json<JobStatus>("load", "/m/other.bin");
        assert.equal(job.state, "failed");
        assert.equal(job.failed[0]?.code, "no-space");
        assert.match(job.failed[0]?.message ?? "", /the file system is full: free cached files or disk space/);
        const problems = async (): Promise<string> => {
          const { workers } = await cluster.json<ClusterStatus>("cluster", "status");
          return workers[0]?.problems.join("; ") ?? "";
        };
        assert.match(await problems(), /no space, fills stopped/);
        assert.equal(sha256((await cluster.run("fs", "cat", "/m/held.bin")).bytes), sha256(held));
        // What does not fit is read whole all the same, or refused by name; never cut short without a word.
        const read = await cluster.run("fs", "cat", "/m/other.bin");
        if (read.code === 0) assert.equal(sha256(read.bytes), sha256(other));
        else assert.match(read.stderr, /no space, fills stopped \(no-space\)|the file system is full/);

        const grown = spawnSync("mount", ["-o", "remount,size=96m", disk]);
        assert.equal(grown.status, 0, String(grown.stderr));
        await eventually("the file is taken", async () => (await cluster.run("load", "/m/other.bin")).code === 0);
        await eventually("the problem is over", async () => (await problems()) === "");
        for (const [name, bytes] of [
          ["held.bin", held],
          ["other.bin", other],
        ] as const) {
          assert.equal(sha256((await cluster.run("fs", "cat", `/m/${name}`)).bytes), sha256(bytes));
        }
      },
      { worker: () => ({ dirs: [{ path: join(disk, "cache"), capacity: "1GiB" }] }) },
    );
  });
});
