import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { findS3Server, type S3Server, startS3Server } from "../testing/s3-server.ts";
import { openSharedStore, type SharedStoreOptions } from "./open-shared-store.ts";
import type { SharedStore } from "./shared-store.ts";
import { rejectsWith, sharedStoreContract } from "./shared-store-contract.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));

const found = await findS3Server();
if ("missing" in found) test(`shared bucket on a real server (${found.missing})`, { skip: found.missing }, () => {});
else holdsOn(await startS3Server(found));

function holdsOn(server: S3Server): void {
  after(() => server.close());
  const disk = new NodeDisk();
  let buckets = 0;

  const newBucket = (): string => {
    server.makeBucket(`journal-${++buckets}`);
    return `journal-${buckets}`;
  };
  const open = (uri: string, options: SharedStoreOptions = {}): Promise<SharedStore> =>
    openSharedStore(
      uri,
      { endpoint: server.endpoint, accessKeyId: server.accessKeyId, secretAccessKey: "env:SECRET", ...options },
      {
        disk,
        clock: new NodeClock(),
        logger: silentLogger,
        metrics: new Metrics(),
        environment: { SECRET: server.secretAccessKey },
      },
    );

  for (const prefix of ["", "/deep/prefix"]) {
    const makeHarness = async () => {
      const uri = `s3://${newBucket()}${prefix}`;
      const localDirectory = fs.mkdtempSync(path.join(os.tmpdir(), "headpond-shared-"));
      return {
        open: () => open(uri, { requestTimeout: "60s" }),
        localDisk: disk,
        localDirectory,
        dispose: async () => fs.rmSync(localDirectory, { recursive: true, force: true }),
      };
    };
    const name = `shared bucket on a real server${prefix === "" ? "" : ", below a prefix"}`;
    for (const { name: claim, run } of sharedStoreContract(name, makeHarness, seed)) test(claim, run);
  }

  test("shared bucket on a real server: a bucket that does not exist is told by name, wrong keys are denied", async () => {
    const nowhere = await open("s3://no-such-bucket");
    for (const call of [() => nowhere.read("epochs/1"), () => nowhere.create("epochs/1", new Uint8Array(1))]) {
      await assert.rejects(
        call,
        (error) => isHeadpondError(error, "unavailable") && /does not exist/.test(error.message),
      );
    }
    await nowhere.close();
    const wrong = await open(`s3://${newBucket()}`, { secretAccessKey: "wrong" });
    await rejectsWith("denied", () => wrong.read("epochs/1"), "a read with wrong keys");
    await rejectsWith("denied", () => wrong.create("epochs/1", new Uint8Array(1)), "a create with wrong keys");
    await wrong.close();
  });
}
