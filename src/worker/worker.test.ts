import assert from "node:assert/strict";
import { test } from "node:test";
import { digestHex } from "../io/hash.ts";
import { testBlockBytes, withCluster } from "./cluster.test-support.ts";

test("16 readers on 4 workers read a cold file, and each byte leaves the origin once", async () => {
  await withCluster(async (cluster) => {
    const workers = await cluster.addWorkers(4);
    const { file, bytes } = cluster.addFile(5 * 1024 * 1024 + 12_345);
    const expected = digestHex("sha256", bytes);
    const bodies = await Promise.all(
      Array.from({ length: 16 }, (_, i) => cluster.getBytes(workers[i % 4] ?? assert.fail(), file.id)),
    );
    for (const body of bodies) assert.equal(digestHex("sha256", body), expected);
    assert.equal(cluster.origin.originBytes(), file.sizeBytes);
  });
});

test("a range, a suffix and a HEAD are answered as HTTP wants it", async () => {
  await withCluster(async (cluster) => {
    const worker = await cluster.addWorker("w1");
    const { file, bytes } = cluster.addFile(3 * testBlockBytes + 100);
    const at = 2 * testBlockBytes - 50;
    const part = await cluster.get(worker, file.id, { range: `bytes=${at}-${at + 199}` });
    assert.equal(part.status, 206);
    assert.equal(part.headers["content-range"], `bytes ${at}-${at + 199}/${file.sizeBytes}`);
    assert.deepEqual(await part.bytes(1000), Buffer.from(bytes.subarray(at, at + 200)));
    assert.deepEqual(await cluster.getBytes(worker, file.id, { range: "bytes=-10" }), Buffer.from(bytes.subarray(-10)));
    const outside = await cluster.get(worker, file.id, { range: `bytes=${file.sizeBytes}-` });
    assert.equal(outside.status, 416);
    assert.equal(outside.headers["content-range"], `bytes */${file.sizeBytes}`);
    outside.destroy();
    const head = await cluster.request(worker, "HEAD", `/v1/files/${file.id}`);
    assert.equal(head.status, 200);
    assert.equal(head.headers["content-length"], String(file.sizeBytes));
    assert.equal(head.headers["etag"], `"${file.id}"`);
    const unknown = await cluster.get(worker, "999-1");
    assert.equal(unknown.status, 404);
    unknown.destroy();
  });
});
