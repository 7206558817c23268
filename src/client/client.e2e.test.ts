/** The SDK against a real cluster, through kills. */

import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { type ErrorCode, HeadpondError, isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { sha256, withCluster, writeModel } from "../testing/cluster.ts";
import { connect } from "./client.ts";

const seed = Date.now() % 2 ** 31;
const random = new Random(seed);
console.log(`seed ${seed}`);

function failsWith(...codes: readonly ErrorCode[]) {
  return (error: unknown): boolean => isHeadpondError(error, ...codes) || assert.fail(String(error));
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts);
}

test("the SDK keeps its promises against a real cluster, through kills", { timeout: 200_000 }, async (t) => {
  await withCluster(2, async (cluster) => {
    const store = path.join(cluster.directory, "store");
    const weights = random.bytes(33 * MiB + 7);
    await writeModel(path.join(store, "acme/falls"), { "model.safetensors": weights, "config.json": "{}" });
    const options = { masters: [cluster.masterAddress], place: "local/local/local/host-0" };
    await using client = connect(options);
    await client.mount("/models", `file://${store}`);

    await t.test("changes, conditions and listings behave as documented", async () => {
      await client.mkdir("/a/b", { recursive: true });
      const made = await client.create("/a/b/lock", { exclusive: true, attributes: { owner: "me" } });
      assert.equal(made.created, true);
      await assert.rejects(client.create("/a/b/lock", { exclusive: true }), failsWith("already-exists"));
      const { version, attributes } = await client.stat("/a/b/lock");
      assert.equal(attributes["owner"], "me");
      await client.setAttributes("/a/b/lock", { set: { owner: "you" } }, { ifVersion: version });
      const stale = client.setAttributes("/a/b/lock", { set: { owner: "they" } }, { ifVersion: version });
      await assert.rejects(stale, failsWith("version-mismatch"));
      await client.create("/a/b/other");
      await assert.rejects(client.rename("/a/b/lock", "/a/b/other", { replace: false }), failsWith("already-exists"));
      await client.rename("/a/b/lock", "/a/b/moved");
      const names: string[] = [];
      for await (const status of client.list("/a", { recursive: true })) names.push(status.path);
      assert.deepEqual(names, ["/a/b", "/a/b/moved", "/a/b/other"]);
      await assert.rejects(client.remove("/a"), failsWith("not-empty"));
      await client.remove("/a", { recursive: true });
      await assert.rejects(client.stat("/a/b"), failsWith("not-found"));
      await assert.rejects(client.write("/outside", Buffer.from("x")), failsWith("no-mount"));
    });

    await t.test("a retry under one request id gets the first result, also from another client", async () => {
      await using other = connect(options);
      const first = await client.create("/once", { exclusive: true, requestId: "r-1" });
      assert.deepEqual(await other.create("/once", { exclusive: true, requestId: "r-1" }), first);
      await assert.rejects(other.create("/twice", { exclusive: true, requestId: "r-1" }), failsWith("invalid"));
    });

    await t.test("what is written is in the store, and is read back whole", async () => {
      const bytes = random.bytes(5 * MiB + 3);
      await client.write("/models/acme/new/model.bin", bytes, { exclusive: true });
      await assert.rejects(
        client.write("/models/acme/new/model.bin", bytes, { exclusive: true }),
        failsWith("already-exists"),
      );
      const file = await client.open("/models/acme/new/model.bin");
      assert.equal(file.descriptor.digest?.value, sha256(bytes));
      assert.equal(sha256(await collect(file.stream())), sha256(bytes));
      assert.deepEqual(
        Buffer.from(await file.read({ position: 4 * MiB - 5, length: 10 })),
        Buffer.from(bytes.subarray(4 * MiB - 5, 4 * MiB + 5)),
      );
    });

    await t.test("a write that failed leaves what was there, and the path free", async () => {
      async function* broken(): AsyncGenerator<Uint8Array> {
        yield Buffer.from("abc");
        throw new HeadpondError("cancelled", "the source broke");
      }
      const write = (name: string): Promise<unknown> => client.write(name, broken(), { sizeBytes: 10 });
      await assert.rejects(write("/models/acme/half.bin"), failsWith("cancelled"));
      await assert.rejects(client.stat("/models/acme/half.bin"), failsWith("not-found"));
      await client.write("/models/acme/half.bin", Buffer.from("whole"), { exclusive: true });
      await assert.rejects(write("/models/acme/half.bin"), failsWith("cancelled"));
      const file = await client.open("/models/acme/half.bin");
      assert.equal(String(await collect(file.stream())), "whole");
      await client.remove("/models/acme/half.bin");
    });

    await t.test("a load tells its progress until every worker is ready", async () => {
      const job = await client.load("/models/acme/falls");
      assert.equal(job.plan.bytes, weights.length + 2);
      const end = await job.done();
      assert.equal(end.state, "succeeded", JSON.stringify(end.failed));
      assert.equal(end.originAmplification, 1);
      assert.equal((await client.location("/models/acme/falls/model.safetensors")).holders.length, 2);
    });

    await t.test("changes that a killed master was working on are made once, and no failed one was made", async () => {
      const results = new Map<number, "made" | "unknown">();
      const failures: unknown[] = [];
      let next = 0;
      let stopping = false;
      await client.mkdir("/many");
      const create = async (number: number): Promise<void> => {
        try {
          const { created } = await client.create(`/many/${number}`, { exclusive: true, timeoutMs: 60_000 });
          assert.equal(created, true);
          results.set(number, "made");
        } catch (error) {
          if (error instanceof HeadpondError && error.outcome === "unknown") results.set(number, "unknown");
          else failures.push(error);
        }
      };
      const loops = Array.from({ length: 64 }, async () => {
        while (!stopping) await create(next++);
      });
      // Three kills in the middle of it: some changes are always on their way.
      for (let kill = 0; kill < 3; kill++) {
        const enough = results.size + 300;
        while (results.size < enough) await client.stat("/many");
        await cluster.restartMaster("SIGKILL");
      }
      stopping = true;
      await Promise.all(loops);
      // An exclusive create that was applied twice would have failed as `already-exists`.
      assert.deepEqual(failures, []);
      const present = new Set<string>();
      for await (const status of client.list("/many")) present.add(status.path);
      for (const [number, result] of results) {
        if (result === "made") assert.ok(present.has(`/many/${number}`), `seed ${seed}: ${number} is lost`);
      }
      assert.equal(results.size, next);
    });

    await t.test("a stream goes on byte for byte when its worker is killed in the middle", async () => {
      const file = await client.open("/models/acme/falls/model.safetensors");
      const parts: Buffer[] = [];
      let received = 0;
      for await (const chunk of file.stream()) {
        parts.push(Buffer.from(chunk));
        const before = received;
        received += chunk.length;
        if (before < 2 * MiB && received >= 2 * MiB) await cluster.workers[0]?.process.stop("SIGKILL");
      }
      assert.equal(sha256(Buffer.concat(parts)), sha256(weights));
    });
  });
});
