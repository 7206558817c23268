import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { HttpClient } from "../io/http-client.ts";
import { silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { findS3Server, type S3Server, startS3Server } from "../testing/s3-server.ts";
import {
  bodyOf,
  fileAt,
  holdsUnderStoreContract,
  listAll,
  readBytes,
  rejectsWith,
} from "../testing/under-store-contract.ts";
import { openUnderStore, type UnderStoreOptions } from "./open.ts";
import { RequestGate } from "./request-gate.ts";
import { S3UnderStore } from "./s3.ts";
import { entryOrderKey, type UnderStore } from "./under-store.ts";
import { underStoreMetrics } from "./under-store-metrics.ts";

const found = await findS3Server();
if ("missing" in found) test(`s3 against a real server (${found.missing})`, { skip: found.missing }, () => {});
else await holdsAgainst(await startS3Server(found));

async function holdsAgainst(server: S3Server): Promise<void> {
  const clock = new NodeClock();
  after(() => server.close());
  const dependencies = { disk: new NodeDisk(), clock, logger: silentLogger, metrics: new Metrics() };
  const secret: UnderStoreOptions = { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey };
  let buckets = 0;

  const newBucket = (): string => {
    buckets++;
    server.makeBucket(`bucket-${buckets}`);
    return `bucket-${buckets}`;
  };
  const open = (uri: string, options: UnderStoreOptions = {}): Promise<UnderStore> =>
    openUnderStore(
      uri,
      { endpoint: server.endpoint, region: server.region, partSize: "5MiB", ...secret, ...options },
      { ...dependencies, environment: {} },
    );

  for (const prefix of ["", "/deep/prefix"]) {
    holdsUnderStoreContract({
      name: prefix === "" ? "s3" : "s3 below a prefix",
      writable: true,
      // One request, just two parts, several parts at once.
      writeSizes: prefix === "" ? [5 * MiB, 5 * MiB + 1, 23 * MiB] : [],
      open: async () => {
        const store = await open(`s3://${newBucket()}${prefix}`);
        const seed = async (key: string, bytes: Uint8Array): Promise<void> =>
          void (await store.write(key, { body: bodyOf(bytes, 1 << 20) }));
        return { store, seed, close: () => store.close() };
      },
    });
  }

  test("s3: pages of more than 1000 objects are whole and in order", async () => {
    const bucket = newBucket();
    fs.mkdirSync(path.join(server.directory, bucket, "d"));
    const store = await open(`s3://${bucket}`);
    // Through the server: it keeps etags beside the files.
    const keys = Array.from({ length: 1203 }, (_, i) => `d/n-${i}`);
    for (let at = 0; at < keys.length; at += 32) {
      await Promise.all(keys.slice(at, at + 32).map((key) => store.write(key, { body: bodyOf(key) })));
    }
    const listed = (await listAll(store, "d", 1000)).map(entryOrderKey);
    assert.deepEqual(listed, [...keys].sort());
    await store.close();
  });

  test("s3: a digest of the whole content is told where the store vouches for one", async () => {
    const store = await open(`s3://${newBucket()}`);
    await store.write("x", { body: bodyOf("123456789") });
    assert.deepEqual((await fileAt(store, "x")).digest, { algorithm: "crc32", value: "cbf43926" });
    await store.close();
  });

  test("s3: parts of a failed upload are deleted", async () => {
    const bucket = newBucket();
    const store = await open(`s3://${bucket}`);
    const broken = async function* (): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(12 * MiB);
      throw new Error("the source broke");
    };
    await assert.rejects(store.write("big", { body: broken() }), /the source broke/);
    const left = fs.globSync("**/*", { cwd: server.directory }).filter((name) => {
      return name.includes("multipart") && fs.statSync(path.join(server.directory, name)).isFile();
    });
    assert.deepEqual(left, []);
    await store.close();
  });

  test("s3: an object that is too large to be copied at once is renamed in parts", async () => {
    const settings = {
      bucket: newBucket(),
      prefix: "",
      region: server.region,
      endpoint: server.endpoint,
      pathStyle: true,
      credentials: { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey },
      anonymous: false,
      checksums: true,
      requestTimeoutMs: 10_000,
      requestsMax: 8,
    };
    const metrics = underStoreMetrics(new Metrics());
    const gate = new RequestGate({ clock, random: new Random(1), metrics, store: "test" });
    const limits = { partSizeBytes: 5 * MiB, copySizeBytesMax: 5 * MiB };
    const store = new S3UnderStore({
      settings,
      ...limits,
      gate,
      http: new HttpClient({ clock }),
      clock,
      logger: silentLogger,
      metrics,
    });
    const seed = Math.floor(Math.random() * 2 ** 32);
    const bytes = new Random(seed).bytes(12 * MiB);
    await store.write("large", { body: bodyOf(bytes, MiB) });
    await store.rename("large", "moved");
    assert.equal(await store.head("large"), undefined);
    const { etag } = await fileAt(store, "moved");
    const got = await readBytes(store, "moved", { position: 0, length: bytes.length, etag });
    assert.equal(Buffer.compare(got, bytes), 0, `seed ${seed}`);
    await store.close();
  });

  test("s3: what is wrong with bucket or credentials is said by name, and never the secret", async () => {
    const cases: readonly [uri: string, options: UnderStoreOptions, code: "denied" | "not-found"][] = [
      ["s3://no-such-bucket", {}, "not-found"],
      [`s3://${newBucket()}`, { secretAccessKey: "wrong-secret" }, "denied"],
      [`s3://${newBucket()}`, { accessKeyId: "unknown-key" }, "denied"],
      [`s3://${newBucket()}`, { anonymous: "true" }, "denied"],
    ];
    for (const [uri, options, code] of cases) {
      const store = await open(uri, options);
      for (const call of [() => store.head(""), () => store.list("")]) {
        const error = await rejectsWith(code, call());
        assert.match(error.message, /bucket/);
        assert.doesNotMatch(`${error.message} ${JSON.stringify(error)} ${store.uri}`, /secret-?(test)|wrong-secret/);
      }
      if (code === "denied") {
        const read = readBytes(store, "x", { position: 0, length: 1, etag: '"x"' });
        await rejectsWith("denied", read);
      }
      await store.close();
    }
  });

  test("s3: many readers at once get their own ranges", async () => {
    const store = await open(`s3://${newBucket()}`);
    const seed = Math.floor(Math.random() * 2 ** 32);
    const bytes = new Random(seed).bytes(8 * MiB);
    const { etag } = await store.write("data", { body: bodyOf(bytes, MiB), sizeBytes: bytes.length });
    const reads = Array.from({ length: 100 }, async (_, i) => {
      const [position, length] = [i * 80_000, 79_999];
      const got = await readBytes(store, "data", { position, length, etag });
      assert.equal(Buffer.compare(got, bytes.subarray(position, position + length)), 0, `seed ${seed}, range ${i}`);
    });
    await Promise.all(reads);
    await store.close();
  });

  test("s3: a mount below a prefix sees nothing beside it", async () => {
    const bucket = newBucket();
    const whole = await open(`s3://${bucket}`);
    for (const key of ["a/x", "a-b/x", "ab/x"]) await whole.write(key, { body: bodyOf(key) });
    const below = await open(`s3://${bucket}/a/`);
    assert.deepEqual((await listAll(below, "", 10)).map(entryOrderKey), ["x"]);
    assert.equal(below.uri, `s3://${bucket}/a`);
    await below.remove("x");
    assert.deepEqual((await listAll(whole, "", 10)).map(entryOrderKey), ["a-b/", "ab/"]);
    await whole.close();
    await below.close();
  });

  test("s3: a file in the way of a directory is refused", async () => {
    const store = await open(`s3://${newBucket()}`);
    await store.write("x", { body: bodyOf("x") });
    await rejectsWith("not-a-directory", store.makeDirectory("x"));
    await rejectsWith("not-a-directory", store.write("x/y", { body: bodyOf("y") }));
    await store.close();
  });
}
