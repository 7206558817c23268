import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { JobStatus, LoadPlan, ModelStatus } from "../base/cluster.ts";
import type { FileStatus } from "../base/file.ts";
import { runCli, sha256, type TestCluster, withCluster, writeModel } from "../testing/cluster.ts";

const weights = randomBytes(9 * 1024 * 1024 + 17);

test("the command line does the main job, end to end, on a cluster of processes", { timeout: 180_000 }, async (t) => {
  await withCluster(3, async (cluster) => {
    const store = join(cluster.directory, "store");
    await writeModel(store, {
      "acme/tiny/model.safetensors": weights,
      "acme/tiny/config.json": '{"a":1}',
      "acme/tiny/sub/dir/notes.txt": "hello",
      "acme/tiny/empty": "",
      "acme/zeta/model.safetensors": weights.subarray(1),
    });
    assert.equal((await cluster.run("mount", "/models", `file://${store}`)).code, 0);

    await t.test("a mounted tree lists and stats with size and version", async () => {
      const { stdout } = await cluster.run("fs", "ls", "/models/acme/tiny", "--json");
      const rows = stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as FileStatus);
      assert.deepEqual(
        rows.map((row) => row.path.split("/").at(-1)),
        ["config.json", "empty", "model.safetensors", "sub"],
      );
      const status = await cluster.json<FileStatus>("fs", "stat", "/models/acme/tiny/model.safetensors");
      assert.equal(status.sizeBytes, weights.length);
      assert.equal(status.cachedBytes, 0);
      assert.equal(status.mount, "/models");
    });

    await t.test("a plan tells bytes and origin bytes before anything moves", async () => {
      const plan = await cluster.json<LoadPlan>("load", "/models/acme/tiny", "--to", "all", "--plan");
      assert.equal(plan.bytes, weights.length + 7 + 5);
      assert.equal(plan.originBytes, plan.bytes);
      assert.equal(plan.workers.length, 3);
      assert.deepEqual(plan.problems, []);
    });

    await t.test("load brings every byte to every worker, and each byte leaves the origin once", async () => {
      const job = await cluster.json<JobStatus>("load", "/models/acme/tiny", "--to", "all");
      assert.equal(job.state, "succeeded", JSON.stringify(job.failed));
      assert.equal(job.bytesDone, job.bytesTotal);
      assert.equal(job.originAmplification, 1);
      assert.ok(job.workers.every((worker) => worker.ready));
      const [model] = await cluster.json<ModelStatus[]>("models", "ls");
      assert.equal(model?.path, "/models/acme/tiny");
      assert.match(model?.version ?? "", /^[0-9a-f]{40}$/);
      assert.deepEqual(
        model?.places.map((place) => place.state),
        ["READY", "READY", "READY"],
      );
      const human = await cluster.run("models", "ls");
      assert.match(human.stdout, /READY/);
    });

    await t.test("what other workers read for the chosen one counts as well", async () => {
      const job = await cluster.json<JobStatus>("load", "/models/acme/zeta", "--to", "1");
      assert.equal(job.state, "succeeded", JSON.stringify(job.failed));
      assert.equal(job.workers.length, 1);
      assert.equal(job.originBytes, weights.length - 1);
      assert.equal(job.originAmplification, 1);
    });

    await t.test("bytes come back the same by cat, cp, checksum and the file gateway of each worker", async () => {
      const path = "/models/acme/tiny/model.safetensors";
      assert.equal(sha256((await cluster.run("fs", "cat", path)).bytes), sha256(weights));
      assert.equal((await cluster.run("fs", "cp", "-r", "/models/acme/tiny", "./copy")).code, 0);
      assert.equal(sha256(await readFile(join(cluster.directory, "copy/model.safetensors"))), sha256(weights));
      assert.equal(await readFile(join(cluster.directory, "copy/sub/dir/notes.txt"), "utf8"), "hello");
      assert.equal((await cluster.json<{ value: string }>("fs", "checksum", path)).value, sha256(weights));
      assert.equal((await cluster.run("fs", "tail", "/models/acme/tiny/config.json", "-c", "3")).stdout, ":1}");
      for (const worker of cluster.workers) {
        const response = await fetch(`${worker.ready.endpoints["files"]}${path}`);
        assert.equal(sha256(new Uint8Array(await response.arrayBuffer())), sha256(weights));
      }
    });

    await t.test("what is written through Headpond is in the under store", async () => {
      await writeFile(join(cluster.directory, "new.bin"), weights.subarray(0, 100_000));
      const copied = await cluster.run("fs", "cp", "./new.bin", "/models/acme/tiny/new.bin");
      assert.equal(copied.code, 0, copied.stderr);
      assert.deepEqual(await readFile(join(store, "acme/tiny/new.bin")), weights.subarray(0, 100_000));
      assert.match((await cluster.run("fs", "persist", "/models/acme")).stdout, /^6 of 6 files/);
      assert.equal((await cluster.run("fs", "persist", "/")).code, 1);
      assert.equal((await cluster.run("fs", "cp", "--exclusive", "./new.bin", "/models/acme/tiny/new.bin")).code, 1);
      assert.equal((await cluster.run("fs", "rm", "/models/acme/tiny/new.bin")).code, 0);
      await assert.rejects(readFile(join(store, "acme/tiny/new.bin")));
    });

    await t.test(
      "directories, attributes and conditions work outside mounts; bytes there answer no-mount",
      async () => {
        assert.equal((await cluster.run("fs", "mkdir", "-p", "/t/u")).code, 0);
        assert.equal((await cluster.run("fs", "touch", "/t/a", "--exclusive", "--attr", "k=v")).code, 0);
        assert.equal((await cluster.run("fs", "touch", "/t/a", "--exclusive")).code, 1);
        const { version } = await cluster.json<FileStatus>("fs", "stat", "/t/a");
        assert.equal(
          (await cluster.run("fs", "attr", "set", "/t/a", "k=w", "--if-version", String(version + 7))).code,
          1,
        );
        assert.equal((await cluster.run("fs", "attr", "set", "/t/a", "k=w", "--if-version", String(version))).code, 0);
        assert.equal((await cluster.run("fs", "attr", "get", "/t/a", "k")).stdout, "w\n");
        assert.equal((await cluster.run("fs", "mv", "/t/a", "/t/b")).code, 0);
        assert.equal((await cluster.run("fs", "touch", "/t/c")).code, 0);
        assert.equal((await cluster.run("fs", "mv", "--no-replace", "/t/b", "/t/c")).code, 1);
        assert.equal((await cluster.run("fs", "rm", "/t")).code, 1);
        assert.equal((await cluster.run("fs", "rm", "-r", "/t")).code, 0);
        assert.equal((await cluster.run("fs", "stat", "/t/b")).code, 3);
        const written = await cluster.json<{ code: string }>("fs", "cp", "./new.bin", "/nowhere.bin");
        assert.equal(written.code, "no-mount");
      },
    );

    await t.test("errors have the promised exit codes and one JSON document", async () => {
      assert.equal((await cluster.run("fs", "frobnicate")).code, 2);
      assert.equal((await cluster.run("fs", "stat", "relative")).code, 2);
      const missing = await cluster.json<{ code: string; outcome: string; retryable: boolean }>(
        "fs",
        "stat",
        "/models/none",
      );
      assert.equal(missing.code, "not-found");
      assert.equal(missing.outcome, "none");
      assert.equal(missing.retryable, false);
      const unreachable = await runCli(
        ["fs", "ls", "/", "--masters", "127.0.0.1:1", "--timeout", "2s"],
        cluster.directory,
      );
      assert.equal(unreachable.code, 4);
    });

    await t.test("a job can be listed, shown and read back after the master was killed", async () => {
      await cluster.restartMaster("SIGKILL");
      const jobs = await cluster.json<JobStatus[]>("jobs", "ls");
      assert.equal(jobs[0]?.state, "succeeded");
      assert.match((await cluster.run("jobs", "show", String(jobs[0]?.id))).stdout, /succeeded/);
      await untilReady(cluster);
      assert.equal(
        sha256((await cluster.run("fs", "cat", "/models/acme/tiny/model.safetensors")).bytes),
        sha256(weights),
      );
    });

    await t.test("free lets the bytes go, and says how many", async () => {
      const freed = await cluster.json<{ files: number; bytes: number }>("free", "/models/acme/tiny");
      assert.ok(freed.bytes >= weights.length, JSON.stringify(freed));
    });

    await t.test("status, journal, config, doctor, version and completion answer", async () => {
      for (const words of ["cluster status", "journal status", "journal verify", "config show", "doctor", "version"]) {
        const result = await cluster.run(...words.split(" "));
        assert.equal(result.code, 0, `${words}: ${result.stderr}${result.stdout}`);
        assert.ok(await cluster.json(...words.split(" ")), words);
      }
      const status = await cluster.json<{ workers: { state: string }[] }>("cluster", "status");
      assert.equal(status.workers.length, 3);
      for (const shell of ["bash", "zsh", "fish"]) {
        assert.match((await cluster.run("completion", shell)).stdout, /headpond/);
      }
    });
  });
});

test("journal dump shows the commands of a master at rest, and verify names a flipped byte", {
  timeout: 60_000,
}, async () => {
  await withCluster(0, async (cluster) => {
    await cluster.run("fs", "mkdir", "/a");
    await cluster.run("fs", "touch", "/a/b");
    await cluster.master.process.stop();
    const journal = join(cluster.directory, "master", "journal");
    const dump = await runCli(["journal", "dump", "--dir", journal, "--json"], cluster.directory);
    const kinds = dump.stdout
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { command: { kind: string } }).command.kind);
    assert.ok(kinds.includes("mkdir") && kinds.includes("create"), kinds.join(" "));
    assert.equal((await runCli(["journal", "verify", "--dir", journal], cluster.directory)).code, 0);
  });
});

async function untilReady(cluster: TestCluster): Promise<void> {
  let models: ModelStatus[] = [];
  for (let attempt = 0; attempt < 20; attempt++) {
    models = await cluster.json<ModelStatus[]>("models", "ls");
    if (models[0]?.places.filter((place) => place.state === "READY").length === 3) return;
    await new Promise((done) => setTimeout(done, 200));
  }
  assert.fail(`the workers did not report to the restarted master: ${JSON.stringify(models)}`);
}
