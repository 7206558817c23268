/** What leaves by descriptor, past the worker's own thread: the same bytes, the same care. */

import assert from "node:assert/strict";
import fs from "node:fs";
import { type TestContext, test } from "node:test";
import type { BlockIndex } from "../base/ids.ts";
import { FileSender } from "../io/file-sender.ts";
import { silentLogger } from "../io/logger.ts";
import { type TestCluster, testBlockBytes, testLimits, withCluster } from "./cluster.test-support.ts";
import type { Worker } from "./worker.ts";

const probe = await FileSender.open({ threads: 0, logger: silentLogger });
const skip = probe === undefined && "this machine has no koffi, or is no Linux";

/** Files leave by descriptor from the first byte on, as soon as they are checked and out of memory. */
const limits = {
  ...testLimits,
  warmBlocksMax: 0,
  reader: { ...testLimits.reader, sendFileBytesMin: 1, sendFileBytesMax: 5 * testBlockBytes },
};

/** Counts what goes that way. */
async function countingSender(context: TestContext): Promise<{ sender: FileSender; sentBytes: () => number }> {
  const sender = (await FileSender.open({ threads: 1, logger: silentLogger })) ?? assert.fail();
  context.after(() => sender.close());
  const send = sender.send.bind(sender);
  let total = 0;
  sender.send = async (request) => {
    const sent = await send(request);
    total += sent;
    return sent;
  };
  return { sender, sentBytes: () => total };
}

/** Loads the file and reads it until every block was compared with its checksum, and left memory. */
async function settle(cluster: TestCluster, worker: Worker, id: string): Promise<void> {
  const other = cluster.addFile(64 * testBlockBytes);
  // First it is fetched, then read back and compared; each time the other file's blocks take its place in memory.
  for (const wanted of [id, other.file.id, id, other.file.id]) await cluster.getBytes(worker, wanted);
  const file = [...worker.cache.list()].find((held) => held.id === id) ?? assert.fail();
  await cluster.until("it is complete", () => file.isComplete);
  for (let block = 0 as BlockIndex; block < file.blockCount; block++) assert.ok(file.isChecked(block));
}

test("a held file leaves by descriptor, whole and in parts, byte for byte; a pending digest keeps its last block", {
  skip,
}, async (context) => {
  await withCluster(async (cluster) => {
    const { sender, sentBytes } = await countingSender(context);
    const worker = await cluster.addWorker("w1", { sender, limits });
    const { file, bytes } = cluster.addFile(30 * testBlockBytes + 77, { digest: true });
    await settle(cluster, worker, file.id);
    const before = sentBytes();
    assert.ok((await cluster.getBytes(worker, file.id)).equals(bytes));
    await cluster.until("all of it went that way", () => sentBytes() - before === bytes.length);
    for (const [from, to] of [
      [0, 0],
      [5, 3 * testBlockBytes],
      [testBlockBytes - 1, testBlockBytes],
      [29 * testBlockBytes + 1, 30 * testBlockBytes + 76],
    ] as const) {
      const part = await cluster.getBytes(worker, file.id, { range: `bytes=${from}-${to}` });
      assert.ok(part.equals(bytes.subarray(from, to + 1)), `${from}-${to}`);
    }
    await cluster.until("all streams have ended", () => worker.status().openStreams === 0);
    assert.equal(cluster.origin.originBytes(file.key), bytes.length);
  });
});

test("peers take held blocks by descriptor, with their checksums", { skip }, async (context) => {
  await withCluster(async (cluster) => {
    const { sender, sentBytes } = await countingSender(context);
    const first = await cluster.addWorker("w1", { sender, limits });
    const { file, bytes } = cluster.addFile(12 * testBlockBytes + 1);
    await settle(cluster, first, file.id);
    const before = sentBytes();
    const second = await cluster.addWorker("w2", { limits });
    await cluster.until("both know each other", () => first.members.version === cluster.master.list.version);
    assert.ok((await cluster.getBytes(second, file.id)).equals(bytes));
    await cluster.until("all of it went that way", () => sentBytes() - before === bytes.length);
    assert.equal(cluster.origin.originBytes(file.key), bytes.length);
  });
});

test("a data file that was cut short under us: what is missing is fetched again, and the reader gets the right bytes", {
  skip,
}, async (context) => {
  await withCluster(async (cluster) => {
    const { sender } = await countingSender(context);
    const worker = await cluster.addWorker("w1", { sender, limits });
    const { file, bytes } = cluster.addFile(20 * testBlockBytes);
    await settle(cluster, worker, file.id);
    fs.truncateSync(`${cluster.directory}/w1/versions/${file.id}.data`, 7 * testBlockBytes + 1000);
    assert.ok((await cluster.getBytes(worker, file.id)).equals(bytes));
    assert.ok(cluster.origin.originBytes(file.key) > bytes.length, "the origin was asked again");
  });
});
