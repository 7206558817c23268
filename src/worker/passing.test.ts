/** Files for which a worker has no room. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type TestCluster, testBlockBytes, testLimits, withCluster } from "./cluster.test-support.ts";
import type { Worker } from "./worker.ts";

/** A worker whose cache is full of a pinned file. */
async function fullWorker(cluster: TestCluster, name: string, passingFilesMax = 4): Promise<Worker> {
  const limits = { cache: { ...testLimits.cache, passingFilesMax } };
  const worker = await cluster.addWorker(name, { capacityBytes: 10 * testBlockBytes, limits });
  const { file } = cluster.addFile(9 * testBlockBytes, { pinned: true });
  await cluster.getBytes(worker, file.id);
  cluster.master.push({ kind: "pin", versions: [file.id], pinned: true });
  await cluster.until("it is pinned", () => worker.cache.get(file.id)?.isPinned === true);
  return worker;
}

test("64 readers of a file without room share each fetch, and get the right bytes", async () => {
  await withCluster(async (cluster) => {
    const worker = await fullWorker(cluster, "w1");
    const { file, bytes } = cluster.addFile(6 * testBlockBytes + 11, { digest: true });
    // Some reader is there all the time, however late the others come; its few blocks have room in memory.
    const passing = await worker.cache.openOrPass(file);
    passing.acquire();
    const bodies = await Promise.all(Array.from({ length: 64 }, () => cluster.getBytes(worker, file.id)));
    for (const body of bodies) assert.ok(body.equals(bytes));
    assert.equal(cluster.origin.originBytes(file.key), bytes.length, "each byte was fetched once");
    const part = await cluster.getBytes(worker, file.id, { range: "bytes=70000-140000" });
    assert.ok(part.equals(bytes.subarray(70_000, 140_001)));
    assert.equal(cluster.origin.originBytes(file.key), bytes.length);
    passing.release();
    assert.equal(worker.cache.get(file.id), undefined);
    assert.equal(worker.cache.usage().files, 1);
  });
});

test("a file that passes with the wrong digest keeps its last block back", async () => {
  await withCluster(async (cluster) => {
    const worker = await fullWorker(cluster, "w1");
    const { file, bytes } = cluster.addFile(5 * testBlockBytes, { digest: true });
    cluster.origin.inject({ operation: "read", skip: 1, times: 1, fault: { kind: "flip", atByte: 5 } });
    const response = await cluster.get(worker, file.id);
    let received = 0;
    await assert.rejects(
      response.consume((chunk) => {
        received += chunk.length;
      }),
    );
    assert.ok(received <= 4 * testBlockBytes, `${received} bytes were given away`);
    assert.ok((await cluster.getBytes(worker, file.id)).equals(bytes), "the second time it comes anew");
  });
});

test("a full worker asks others first, who keep what it asks for", async () => {
  await withCluster(async (cluster) => {
    const full = await fullWorker(cluster, "w1");
    const roomy = await cluster.addWorker("w2");
    await cluster.until("both know each other", () => full.members.version === cluster.master.list.version);
    const { file, bytes } = cluster.addFile(30 * testBlockBytes + 1);
    assert.ok((await cluster.getBytes(full, file.id)).equals(bytes));
    await cluster.until("the other one holds it", () => roomy.cache.get(file.id)?.isComplete === true);
    assert.ok((await cluster.getBytes(full, file.id)).equals(bytes));
    assert.equal(cluster.origin.originBytes(file.key), bytes.length);
  });
});

test("too many files at once without room are refused with no-space", async () => {
  await withCluster(async (cluster) => {
    const worker = await fullWorker(cluster, "w1", 1);
    // More than the sockets on the way take up while its reader reads nothing.
    const [first, second] = [cluster.addFile(500 * testBlockBytes), cluster.addFile(3 * testBlockBytes)];
    const reading = await cluster.get(worker, first.file.id);
    const refused = await cluster.get(worker, second.file.id);
    assert.equal(refused.status, 507);
    refused.destroy();
    assert.ok((await reading.bytes(2 ** 30)).equals(first.bytes));
    await cluster.until("it has passed", () => worker.fetcher.activeFills === 0 && worker.status().openStreams === 0);
    assert.ok((await cluster.getBytes(worker, second.file.id)).equals(second.bytes));
  });
});
