import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { openSharedStore, redactSharedStoreOptions, type SharedStoreOptions } from "./open-shared-store.ts";
import type { SharedStore } from "./shared-store.ts";

async function open(uri: string, options: SharedStoreOptions = {}): Promise<SharedStore> {
  const disk = new MemoryDisk();
  await disk.makeDirectory("/mnt/shared journal");
  const clock = new ManualClock();
  return openSharedStore(uri, options, { disk, clock, logger: silentLogger, metrics: new Metrics(), environment: {} });
}

async function refusal(uri: string, options: SharedStoreOptions = {}): Promise<string> {
  try {
    await open(uri, options);
  } catch (error) {
    assert.ok(isHeadpondError(error), String(error));
    return `${error.code}: ${error.message}`;
  }
  return assert.fail(`${uri} was opened`);
}

test("shared stores: a directory is opened by its URI, and works", async () => {
  const store = await open("file:///mnt/shared%20journal/", { requestTimeout: "3s" });
  assert.equal(store.uri, "file:///mnt/shared journal");
  assert.equal(await store.create("epochs/1", new Uint8Array(3)), "created");
  assert.deepEqual(await store.read("epochs/1"), new Uint8Array(3));
  await store.close();
});

test("shared stores: what is no URI of one is refused with what to write", async () => {
  assert.match(await refusal("/mnt/shared"), /^invalid: .*write one of file:\/\//);
  assert.match(await refusal("flie:///mnt/x"), /^unsupported: .*do you mean file:\/\/\?/);
  assert.match(await refusal("ftp://user:secret@host/x"), /^unsupported: (?!.*secret)/);
  assert.match(await refusal("file://mnt/x"), /^invalid: .*three slashes/);
  assert.match(await refusal("file:///mnt/none"), /^not-found: .*make the directory/);
});

test("shared stores: an option that is not known, or makes no sense, is refused by name", async () => {
  assert.match(await refusal("file:///mnt/shared%20journal", { mounts: "trusted" }), /^invalid: .*do you mean mount\?/);
  assert.match(await refusal("file:///mnt/shared%20journal", { mount: "yes" }), /^invalid: .*checked or trusted/);
});

test("shared stores: a bucket is opened without asking anything of it, and bad settings are refused", async () => {
  const store = await open("s3://bucket/some/prefix", { accessKeyId: "a", secretAccessKey: "b" });
  assert.equal(store.uri, "s3://bucket/some/prefix");
  await store.close();
  assert.match(await refusal("s3://key:secret@bucket"), /^invalid: (?!.*secret@)/);
  assert.match(await refusal("s3://bucket", { accessKeyId: "a" }), /^invalid: .*go together/);
  assert.match(await refusal("s3://bucket", { secretAccessKey: "env:NONE" }), /^invalid: .*has no NONE/);
  assert.match(await refusal("s3://bucket", { partSize: "5MiB" }), /^invalid: .*no option "partSize"/);
});

test("shared stores: options that are shown have no secrets", () => {
  assert.deepEqual(redactSharedStoreOptions("file:///x", { mount: "trusted", password: "hidden" }), {
    mount: "trusted",
    password: "***",
  });
  assert.deepEqual(redactSharedStoreOptions("s3://x", { secretAccessKey: "plain", sessionToken: "env:TOKEN" }), {
    secretAccessKey: "***",
    sessionToken: "env:TOKEN",
  });
});
