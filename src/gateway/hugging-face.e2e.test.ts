/** The real clients against a real cluster: a master and two workers in processes of their own, over a directory. */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import * as hub from "@huggingface/hub";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { withCluster, writeModel } from "../testing/cluster.ts";
import { clientEnvironment, digestsBelow, pythonClient, run, sha256 } from "../testing/hf-clients.ts";

const seed = Date.now() % 2 ** 31;
const random = new Random(seed);
console.log(`seed ${seed}`);

const model: Record<string, Uint8Array> = {
  "config.json": Buffer.from('{"model_type":"bert"}'),
  "model.safetensors": random.bytes(13 * MiB + 5),
  "onnx/a model.bin": random.bytes(70_000),
  "empty.txt": new Uint8Array(0),
};
const digests = Object.fromEntries(
  Object.keys(model)
    .sort()
    .map((name) => [name, sha256(model[name] as Uint8Array)]),
);

test("stock clients work against a real cluster, through changes and without a master", {
  timeout: 280_000,
}, async (t) => {
  const clients = {
    "2.4.0": await pythonClient("hf-2.4.0", ["huggingface_hub==2.4.0"]),
    "0.36.2": await pythonClient("hf-0.36.2", ["huggingface_hub[hf_xet]==0.36.2"]),
  };
  const homes: string[] = [];
  const newHome = (): string => {
    const home = mkdtempSync(path.join(tmpdir(), "headpond-hf-"));
    homes.push(home);
    return home;
  };
  try {
    await withCluster(2, async (cluster) => {
      const store = path.join(cluster.directory, "store");
      await writeModel(path.join(store, "acme/falls"), model);
      assert.equal((await cluster.run("mount", "/models", `file://${store}`)).code, 0);
      const endpointOf = (worker: number, gateway: "hf" | "files"): string =>
        cluster.workers[worker]?.ready.endpoints[gateway] ?? assert.fail(`worker ${worker} has no ${gateway}`);
      const endpoint = endpointOf(0, "hf");
      const files = endpointOf(0, "files");

      const info = async (revision: string): Promise<{ sha: string }> => {
        const response = await fetch(`${endpoint}/api/models/acme/falls/revision/${revision}`);
        assert.equal(response.status, 200);
        return (await response.json()) as { sha: string };
      };
      const download = async (
        context: TestContext,
        version: keyof typeof clients,
        repository: string,
        ...args: readonly string[]
      ): Promise<{ home: string; snapshots: string; bin: string } | undefined> => {
        const client = clients[version];
        if ("missing" in client) {
          context.skip(client.missing);
          return undefined;
        }
        const home = newHome();
        const env = clientEnvironment(endpoint, home);
        const result = await run(path.join(client.bin, "hf"), ["download", repository, ...args], { env });
        assert.equal(result.exitCode, 0, `${result.stdout}\n${result.stderr}`);
        const snapshots = path.join(home, "hub", `models--${repository.replace("/", "--")}`, "snapshots");
        return { home, snapshots, bin: client.bin };
      };

      for (const version of ["2.4.0", "0.36.2"] as const) {
        await t.test(`huggingface_hub ${version} downloads a cold repository byte for byte`, async (context) => {
          const done = await download(context, version, "acme/falls");
          if (done === undefined) return;
          assert.deepEqual(digestsBelow(path.join(done.snapshots, (await info("main")).sha)), digests);
        });
      }

      await t.test("@huggingface/hub makes a snapshot byte for byte, through the other worker", async () => {
        const hubUrl = endpointOf(1, "hf");
        const target = await hub.snapshotDownload({ repo: "acme/falls", hubUrl, cacheDir: newHome() });
        assert.deepEqual(digestsBelow(target), digests);
      });

      await t.test("a repository that was written through the gateway passes hf cache verify", async (context) => {
        for (const [name, bytes] of Object.entries(model)) {
          const target = `${files}/models/acme/put/${name.split("/").map(encodeURIComponent).join("/")}`;
          const response = await fetch(target, { method: "PUT", body: Uint8Array.from(bytes) });
          assert.equal(response.status, 201, await response.text());
        }
        assert.deepEqual(await readFile(path.join(store, "acme/put/config.json")), model["config.json"]);
        const done = await download(context, "2.4.0", "acme/put");
        if (done === undefined) return;
        const env = clientEnvironment(endpoint, done.home);
        const verified = await run(path.join(done.bin, "hf"), ["cache", "verify", "acme/put"], { env });
        assert.equal(verified.exitCode, 0, `${verified.stdout}\n${verified.stderr}`);
      });

      await t.test("after a change an older commit still answers its own bytes, and main the new ones", async () => {
        const before = (await info("main")).sha;
        await writeFile(path.join(store, "acme/falls/config.json"), '{"model_type":"new and longer"}');
        assert.equal((await cluster.run("fs", "sync", "/models/acme/falls")).code, 0);
        const now = (await info("main")).sha;
        assert.notEqual(now, before);
        const text = async (revision: string): Promise<string> => {
          const response = await fetch(`${endpoint}/acme/falls/resolve/${revision}/config.json`);
          assert.equal(response.status, 200, await response.clone().text());
          return response.text();
        };
        assert.equal(await text(now), '{"model_type":"new and longer"}');
        assert.equal(await text("main"), '{"model_type":"new and longer"}');
        assert.equal(await text(before), String(model["config.json"]));
      });

      await t.test("an older commit whose bytes nobody holds is gone, and never answered with others", async () => {
        await writeFile(path.join(store, "acme/falls/onnx/a model.bin"), random.bytes(80_000));
        await cluster.run("fs", "sync", "/models/acme/falls", "--recursive");
        const before = (await info("main")).sha;
        await writeFile(path.join(store, "acme/falls/onnx/a model.bin"), random.bytes(90_000));
        await cluster.run("fs", "sync", "/models/acme/falls", "--recursive");
        assert.notEqual((await info("main")).sha, before);
        for (const method of ["HEAD", "GET"]) {
          const target = `${endpoint}/acme/falls/resolve/${before}/onnx/a%20model.bin`;
          const response = await fetch(target, { method });
          await response.arrayBuffer();
          assert.equal(response.status, 404, method);
          assert.equal(response.headers.get("x-error-code"), "RevisionNotFound");
        }
      });

      await t.test(
        "with the master killed, a repository that was asked for before still arrives whole",
        async (context) => {
          const wanted = await download(context, "2.4.0", "acme/put");
          if (wanted === undefined) return;
          await cluster.master.process.stop("SIGKILL");
          const done = await download(context, "2.4.0", "acme/put");
          const [commit] = Object.keys(digestsBelow((done as NonNullable<typeof done>).snapshots)).map(
            (name) => name.split(path.sep)[0] as string,
          );
          assert.deepEqual(
            digestsBelow(path.join((done as NonNullable<typeof done>).snapshots, commit as string)),
            digests,
          );
        },
      );
    });
  } finally {
    for (const home of homes) rmSync(home, { recursive: true, force: true });
  }
});
