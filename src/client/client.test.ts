import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { type ErrorCode, HeadpondError, isHeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import { FakeCluster } from "../testing/fake-cluster.ts";
import { type ConnectOptions, connect, type HeadpondClient } from "./client.ts";

type World = { readonly cluster: FakeCluster; readonly client: HeadpondClient };

async function withWorld(
  options: {
    readonly workers?: number;
    readonly connect?: Partial<ConnectOptions>;
    readonly places?: readonly string[];
  },
  body: (world: World) => Promise<void>,
): Promise<void> {
  const cluster = await FakeCluster.start({ blockSizeBytes: MiB, ...options });
  const client = connect({ masters: cluster.masters, ...options.connect });
  try {
    await body({ cluster, client });
  } finally {
    await client.close();
    await cluster.close();
  }
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts);
}

function failsWith(...codes: readonly ErrorCode[]) {
  return (error: unknown): boolean => isHeadpondError(error, ...codes) || assert.fail(String(error));
}

test("a file is streamed whole, in ranges, and read at random, byte for byte", async () => {
  await withWorld({ workers: 2 }, async ({ cluster, client }) => {
    const bytes = randomBytes(3 * MiB + 17);
    cluster.put("/models/a/x.bin", bytes);
    const file = await client.open("/models/a/x.bin");
    assert.deepEqual(await collect(file.stream()), bytes);
    assert.deepEqual(await collect(file.stream({ position: 5, length: 2 * MiB })), bytes.subarray(5, 5 + 2 * MiB));
    assert.deepEqual(Buffer.from(await file.read({ position: 77, length: 100 })), bytes.subarray(77, 177));
    assert.deepEqual(Buffer.from(await file.read({ position: bytes.length - 3, length: 100 })), bytes.subarray(-3));
    assert.equal((await file.read({ position: bytes.length + 5, length: 1 })).length, 0);
    await file.close();
    await assert.rejects(file.read({ position: 0, length: 1 }), failsWith("invalid"));
  });
});

test("an empty file has no bytes and asks no worker for them", async () => {
  await withWorld({}, async ({ cluster, client }) => {
    cluster.put("/models/empty", "");
    const file = await client.open("/models/empty");
    assert.equal((await collect(file.stream())).length, 0);
    assert.deepEqual(cluster.workers[0]?.ranges, []);
  });
});

test("a stream that one worker cuts goes on at another at the exact offset", async () => {
  await withWorld({ workers: 3 }, async ({ cluster, client }) => {
    const bytes = randomBytes(8 * MiB);
    const { descriptor } = cluster.put("/models/x", bytes);
    for (const worker of cluster.workers) worker.faults.cut = { afterBytes: 1_500_000, times: 2 };
    const file = await client.open("/models/x");
    assert.deepEqual(await collect(file.stream()), bytes);
    const ranges = cluster.workers.flatMap((worker) => worker.ranges);
    assert.equal(ranges.filter((range) => range.endsWith("whole")).length, 1);
    assert.ok(ranges.includes(`${descriptor.id} 1500000-${bytes.length - 1}`));
  });
});

test("a cut in the held-back last block of a file with a digest is passed on", async () => {
  await withWorld({ workers: 2 }, async ({ cluster, client }) => {
    const bytes = randomBytes(4 * MiB);
    cluster.put("/models/x", bytes, { sha256: true });
    for (const worker of cluster.workers) worker.faults.cut = { afterBytes: 3 * MiB, times: 100 };
    const file = await client.open("/models/x");
    let count = 0;
    await assert.rejects(async () => {
      for await (const chunk of file.stream()) count += chunk.length;
    }, /did not release the last block/);
    assert.equal(count, 3 * MiB);
    // Without the end of the file nothing is held back, and a part is repaired as ever.
    cluster.workers.forEach((worker) => (worker.faults.cut = { afterBytes: MiB, times: 1 }));
    const part = await collect(file.stream({ position: 1, length: 3 * MiB }));
    assert.deepEqual(part, bytes.subarray(1, 3 * MiB + 1));
  });
});

test("an opened file keeps its content when the path gets another one", async () => {
  await withWorld({ workers: 1 }, async ({ cluster, client }) => {
    const before = randomBytes(2 * MiB);
    cluster.put("/models/x", before);
    const file = await client.open("/models/x");
    cluster.put("/models/x", randomBytes(2 * MiB));
    assert.deepEqual(await collect(file.stream()), before);
  });
});

test("a content that no worker can get any more is reported as gone, soon", async () => {
  await withWorld({ workers: 2 }, async ({ cluster, client }) => {
    const { descriptor } = cluster.put("/models/x", "abc");
    for (const worker of cluster.workers) worker.gone.add(descriptor.id);
    const file = await client.open("/models/x");
    await assert.rejects(collect(file.stream()), failsWith("compacted"));
    await assert.rejects(file.read({ position: 0, length: 1 }), failsWith("compacted"));
  });
});

test("a busy worker is passed over, and a busy cluster says so with a time to come back", async () => {
  await withWorld({ workers: 2 }, async ({ cluster, client }) => {
    cluster.put("/models/x", "abc");
    const [first, second] = cluster.workers;
    const busy = new HeadpondError("overloaded", "busy", { details: { retryAfterMs: 1000 } });
    (first as NonNullable<typeof first>).faults.refuse = busy;
    const file = await client.open("/models/x");
    assert.equal(String(await collect(file.stream())), "abc");
    (second as NonNullable<typeof second>).faults.refuse = busy;
    await assert.rejects(collect(file.stream({ patienceMs: 100 })), (error: unknown) => {
      assert.ok(isHeadpondError(error, "overloaded"));
      assert.equal(error.details?.["retryAfterMs"], 1000);
      return true;
    });
  });
});

test("the worker of the reader's own host is asked first", async () => {
  const places = ["c/r/z/far", "c/r/z/mine", "c/r2/z/other"];
  await withWorld({ workers: 3, places, connect: { place: "c/r/z/mine" } }, async ({ cluster, client }) => {
    for (let number = 0; number < 5; number++) {
      cluster.put(`/models/${number}`, "abc");
      await collect((await client.open(`/models/${number}`)).stream());
    }
    assert.deepEqual(
      cluster.workers.map((worker) => worker.ranges.length),
      [0, 5, 0],
    );
  });
});

test("sequential small reads are served from windows that were read ahead", async () => {
  await withWorld({ workers: 1 }, async ({ cluster, client }) => {
    const bytes = randomBytes(9 * MiB + 5);
    cluster.put("/models/x", bytes);
    const file = await client.open("/models/x");
    const step = 64 * 1024;
    const parts: Uint8Array[] = [];
    for (let position = 0; position < bytes.length; position += step) {
      parts.push(await file.read({ position, length: step }));
    }
    assert.deepEqual(Buffer.concat(parts), bytes);
    const [worker] = cluster.workers;
    assert.ok((worker?.smallReads ?? 0) < 5, `${worker?.smallReads} small reads`);
    assert.equal(worker?.ranges.length, 3);
    await file.close();
  });
});

test("what is written can be read, and a second exclusive write is refused", async () => {
  await withWorld({ workers: 2 }, async ({ cluster, client }) => {
    const bytes = randomBytes(3 * MiB);
    async function* pieces(): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
    }
    await client.write("/models/new", pieces(), { sizeBytes: bytes.length, exclusive: true });
    assert.deepEqual(await collect((await client.open("/models/new")).stream()), bytes);
    await assert.rejects(client.write("/models/new", bytes, { exclusive: true }), failsWith("already-exists"));
    await assert.rejects(client.write("/elsewhere", bytes), failsWith("no-mount"));
    await assert.rejects(client.write("/models/short", pieces(), { sizeBytes: 10 }), failsWith("invalid"));
    assert.equal(cluster.workers.flatMap((worker) => worker.written).length, 1);
  });
});

test("a body that can be sent again is written by another worker when the first is busy", async () => {
  await withWorld({ workers: 2 }, async ({ cluster, client }) => {
    const [first, second] = cluster.workers;
    for (const worker of cluster.workers) worker.faults.refuse = new HeadpondError("overloaded", "busy");
    await assert.rejects(client.write("/models/a", Buffer.from("abc")), failsWith("overloaded"));
    (second as NonNullable<typeof second>).faults.refuse = undefined;
    await client.write("/models/a", Buffer.from("abc"));
    assert.equal(second?.written.length, 1);
    assert.equal(first?.written.length, 0);
  });
});

test("listings, statuses and revisions come back as the masters tell them", async () => {
  await withWorld({}, async ({ cluster, client }) => {
    for (let number = 0; number < 250; number++) cluster.put(`/models/m/f${number}`, String(number));
    const names: string[] = [];
    for await (const status of client.list("/models/m")) names.push(status.path);
    assert.equal(names.length, 250);
    assert.equal((await client.stat("/models/m")).kind, "directory");
    await assert.rejects(client.stat("/nowhere"), failsWith("not-found"));
    const revision = await client.revision("/models/m");
    assert.equal(revision.files.length, 250);
    assert.deepEqual(await client.revision("/models/m", revision.commit), revision);
  });
});

test("without a master the last answers serve, if the client wants that, and bytes still flow", async () => {
  await withWorld({ workers: 1, connect: { staleOnUnavailable: true } }, async ({ cluster, client }) => {
    cluster.put("/models/x", "abc");
    await client.open("/models/x");
    await client.stat("/models/x");
    await cluster.stopMaster();
    assert.equal((await client.stat("/models/x", { timeoutMs: 500 })).sizeBytes, 3);
    const file = await client.open("/models/x", { timeoutMs: 500 });
    assert.equal(String(await collect(file.stream())), "abc");
    await assert.rejects(client.stat("/models/y", { timeoutMs: 500 }), failsWith("unavailable", "timeout"));
  });
});

test("options that are not served are refused", () => {
  assert.throws(() => connect({ masters: [] }), failsWith("invalid"));
  assert.throws(() => connect({ masters: ["nonsense"] }), failsWith("invalid"));
  assert.throws(() => connect({ masters: "localhost:1", tls: true }), failsWith("unsupported"));
  assert.throws(() => connect({ masters: "localhost:1", token: "t" }), failsWith("unsupported"));
  assert.throws(() => connect({ masters: "localhost:1", place: "here" }), failsWith("invalid"));
});
