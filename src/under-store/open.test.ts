import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { rejectsWith } from "../testing/under-store-contract.ts";
import { normaliseUnderStoreUri, openUnderStore, redactUnderStoreOptions, type UnderStoreOptions } from "./open.ts";
import type { UnderStore } from "./under-store.ts";

const dependencies = { disk: new NodeDisk(), clock: new NodeClock(), logger: silentLogger, metrics: new Metrics() };

async function open(
  uri: string,
  options: UnderStoreOptions = {},
  environment: Record<string, string> = {},
): Promise<UnderStore> {
  const store = await openUnderStore(uri, options, { ...dependencies, environment });
  await store.close();
  return store;
}

test("a URI picks its store, and is written in one way", async () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "headpond-open-"));
  assert.equal((await open(`file://${directory}/`)).uri, `file://${directory}`);
  assert.equal((await open("s3://bucket/a/b/")).uri, "s3://bucket/a/b");
  assert.equal((await open("S3://bucket")).uri, "s3://bucket");
  assert.equal((await open("https://host/models")).uri, "https://host/models/");
  assert.equal(normaliseUnderStoreUri("file:///a//b/./c%20d/"), "file:///a/b/c d");
  fs.rmdirSync(directory);
});

test("an unknown scheme is unsupported, with those that work and the nearest", async () => {
  const error = await rejectsWith("unsupported", open("s4://bucket"));
  assert.match(error.message, /file:\/\/, s3:\/\/, http:\/\/, https:\/\/; do you mean s3:\/\//);
  await rejectsWith("unsupported", open("constructor://x"));
  await rejectsWith("invalid", open("/just/a/path"));
  await rejectsWith("invalid", open("file://relative/path"));
  await rejectsWith("invalid", open("file:///a/../b"));
  await rejectsWith("invalid", open("s3:///no-bucket"));
  await rejectsWith("invalid", open("s3://bucket/a//b"));
  await rejectsWith("invalid", open("http://"));
});

test("an unknown option is refused with the nearest right one, a wrong value with what is right", async () => {
  assert.match((await rejectsWith("invalid", open("s3://b", { endpiont: "x" }))).message, /do you mean endpoint\?/);
  assert.match(
    (await rejectsWith("invalid", open("s3://b", { acces_key_id: "x" }))).message,
    /do you mean accessKeyId\?/,
  );
  assert.match((await rejectsWith("invalid", open("s3://b", { pathStyle: "yes" }))).message, /true or false/);
  assert.match((await rejectsWith("invalid", open("s3://b", { partSize: "1MiB" }))).message, /not from 5242880/);
  assert.match((await rejectsWith("invalid", open("s3://b", { requestsMax: "0" }))).message, /whole number from 1/);
  assert.match((await rejectsWith("invalid", open("s3://b", { requestTimeout: "5" }))).message, /unit of time/);
  assert.match((await rejectsWith("invalid", open("s3://b", { accessKeyId: "x" }))).message, /give both/);
  await rejectsWith("invalid", open("s3://b", { endpoint: "no url" }));
});

test("a secret may be a reference to the environment or a file, and what is missing is named", async () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "headpond-open-"));
  const file = path.join(directory, "secret");
  fs.writeFileSync(file, "from-a-file\n");
  await open("s3://b", { accessKeyId: "k", secretAccessKey: `file:${file}` });
  await open("s3://b", { accessKeyId: "k", secretAccessKey: "env:SECRET" }, { SECRET: "value" });
  const unset = await rejectsWith("invalid", open("s3://b", { accessKeyId: "k", secretAccessKey: "env:SECRET" }));
  assert.match(unset.message, /no SECRET/);
  const missing = open("s3://b", { accessKeyId: "k", secretAccessKey: `file:${directory}/none` });
  assert.match((await rejectsWith("invalid", missing)).message, /none cannot be read/);
  fs.rmSync(directory, { recursive: true });
});

test("secrets are refused in URIs, and never repeated", async () => {
  for (const uri of [
    "http://user:hidden@host/",
    "https://host/path?X-Amz-Signature=hidden",
    "s3://key:hidden@bucket/x",
    "gs://key:hidden@bucket/x",
    "key:hidden@bucket",
    "file://user:hidden@host/x",
  ]) {
    const error = await open(uri).then(
      () => assert.fail(`${uri} was opened`),
      (reason: unknown) => reason as Error,
    );
    assert.doesNotMatch(`${error.message} ${JSON.stringify(error)}`, /hidden/, uri);
  }
  const options = { accessKeyId: "k", secretAccessKey: "hidden", sessionToken: "env:TOKEN", unknown: "hidden too" };
  assert.deepEqual(redactUnderStoreOptions("s3://b", options), {
    accessKeyId: "k",
    secretAccessKey: "***",
    sessionToken: "env:TOKEN",
    unknown: "***",
  });
});
