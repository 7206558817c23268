import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import { FakeCluster } from "../testing/fake-cluster.ts";
import { connect } from "./client.ts";
import type { LocalReader } from "./local-data-port.ts";

/** Reads a file as a worker does: three pieces on the way at once, in buffers that are used again. */
function pieceReader(cluster: FakeCluster, log: string[] = []): LocalReader {
  return {
    read: async (file, { position, length, signal }, sink) => {
      const { bytes } = cluster.versions.get(file.id) ?? assert.fail(file.id);
      const free: Buffer[] = [Buffer.alloc(100_000), Buffer.alloc(100_000), Buffer.alloc(100_000)];
      const writes = new Set<Promise<void>>();
      log.push(`${position} + ${length}`);
      for (let at = position; at < position + length; ) {
        signal?.throwIfAborted();
        while (free.length === 0) await Promise.race(writes);
        const buffer = free.pop() as Buffer;
        const count = Math.min(buffer.length, position + length - at);
        buffer.set(bytes.subarray(at, at + count));
        at += count;
        const write: Promise<void> = sink.write(buffer.subarray(0, count)).then(() => {
          writes.delete(write);
          buffer.fill(0xee);
          free.push(buffer);
        });
        writes.add(write);
      }
      await Promise.all(writes);
      log.push("done");
    },
  };
}

test("a local worker's bytes come without a socket, whole and in ranges, and no buffer is used too early", async () => {
  const cluster = await FakeCluster.start({ workers: 2 });
  const log: string[] = [];
  const [own] = cluster.addresses;
  const client = connect({
    masters: cluster.masters,
    preferredWorker: own as NonNullable<typeof own>,
    localReader: pieceReader(cluster, log),
  });
  try {
    const bytes = randomBytes(2 * MiB + 5);
    cluster.put("/models/x", bytes);
    const file = await client.open("/models/x");
    const chunks: Buffer[] = [];
    for await (const chunk of file.borrowedStream()) {
      await new Promise((resolve) => setImmediate(resolve));
      chunks.push(Buffer.from(chunk));
    }
    assert.deepEqual(Buffer.concat(chunks), bytes);
    assert.deepEqual(Buffer.from(await file.read({ position: 9, length: 200_000 })), bytes.subarray(9, 200_009));
    assert.deepEqual(log, [`0 + ${bytes.length}`, "done", "9 + 200000", "done"]);
    assert.deepEqual(
      cluster.workers.flatMap((worker) => worker.ranges),
      [],
    );
  } finally {
    await client.close();
    await cluster.close();
  }
});

test("a reader that leaves a local stream lets the worker go", async () => {
  const cluster = await FakeCluster.start({ workers: 1 });
  const [own] = cluster.addresses;
  const stopped = Promise.withResolvers<unknown>();
  const inner = pieceReader(cluster);
  const localReader: LocalReader = {
    read: (...args) => {
      const reading = inner.read(...args);
      reading.then(stopped.resolve, stopped.resolve);
      return reading;
    },
  };
  const client = connect({ masters: cluster.masters, preferredWorker: own as NonNullable<typeof own>, localReader });
  try {
    cluster.put("/models/x", randomBytes(2 * MiB));
    const file = await client.open("/models/x");
    for await (const chunk of file.borrowedStream()) {
      assert.equal(chunk.length, 100_000);
      break;
    }
    await stopped.promise;
  } finally {
    await client.close();
    await cluster.close();
  }
});

test("when the local worker fails midway another one goes on", async () => {
  const cluster = await FakeCluster.start({ workers: 2 });
  const [own] = cluster.addresses;
  const localReader: LocalReader = {
    read: async (_file, _request, sink) => {
      await sink.write(bytes.subarray(0, 1000));
      throw new HeadpondError("no-space", "the disk is full");
    },
  };
  const client = connect({ masters: cluster.masters, preferredWorker: own as NonNullable<typeof own>, localReader });
  const bytes = randomBytes(MiB);
  try {
    cluster.put("/models/x", bytes);
    const chunks: Uint8Array[] = [];
    for await (const chunk of (await client.open("/models/x")).stream()) chunks.push(chunk);
    assert.deepEqual(Buffer.concat(chunks), bytes);
    assert.match(cluster.workers[1]?.ranges[0] ?? "", / 1000-/);
  } finally {
    await client.close();
    await cluster.close();
  }
});

test("a local reader without its worker is refused", () => {
  const localReader: LocalReader = { read: async () => {} };
  assert.throws(
    () => connect({ masters: "localhost:1", localReader }),
    (error: unknown) => isHeadpondError(error, "invalid"),
  );
});
