import assert from "node:assert/strict";
import net from "node:net";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { BlockIndex, JobId } from "../base/ids.ts";
import { FaultyDisk } from "../io/faulty-disk.ts";
import { digestHex } from "../io/hash.ts";
import { silentLogger } from "../io/logger.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { RpcClient } from "../rpc/client.ts";
import { workerService } from "../rpc/worker-service.ts";
import { RecordingLogger, type TestCluster, testBlockBytes, withCluster } from "./cluster.test-support.ts";
import type { Worker } from "./worker.ts";

const jobId = 5 as JobId;

async function oneWorker(cluster: TestCluster): Promise<Worker> {
  const [worker] = await cluster.addWorkers(1);
  return worker ?? assert.fail();
}

test("a load is reported file by file, only when it is complete, durable and digest-verified", async () => {
  await withCluster(async (cluster) => {
    const workers = await cluster.addWorkers(3);
    const files = [
      cluster.addFile(20 * testBlockBytes + 5, { digest: true }),
      cluster.addFile(0),
      cluster.addFile(3, { digest: true, pinned: true }),
    ];
    cluster.master.push({ kind: "load", jobId, priority: 5, files: files.map(({ file }) => file) });
    cluster.master.push({ kind: "load", jobId, priority: 5, files: files.map(({ file }) => file) });
    const outcomes = () => cluster.master.loadReports.flatMap((report) => report.files);
    await cluster.until("all have answered", () => outcomes().length >= 9);
    assert.ok(
      outcomes().every(({ ok }) => ok),
      JSON.stringify(outcomes()),
    );
    for (const worker of workers) {
      for (const { file } of files) {
        const held = worker.cache.get(file.id) ?? assert.fail();
        assert.ok(held.isComplete);
        if (file.digest !== undefined) assert.ok(held.digestVerified);
        assert.equal(held.isPinned, file.pinned);
      }
    }
    assert.equal(cluster.origin.originBytes(), 20 * testBlockBytes + 5 + 3);
    await cluster.until("the master knows", () =>
      workers.every((worker) =>
        files.every(({ file }) => cluster.master.holdings.get(worker.id)?.get(file.id)?.complete),
      ),
    );
  });
});

test("a file without its digest is fetched once more, then called corrupt, and its last block leaves nobody's hands", async () => {
  await withCluster(async (cluster) => {
    const worker = await oneWorker(cluster);
    const { file, bytes } = cluster.addFile(5 * testBlockBytes, { digest: true });
    cluster.origin.inject({ operation: "read", skip: 2, times: 1, fault: { kind: "flip", atByte: 9 } });
    const response = await cluster.get(worker, file.id);
    let received = 0;
    await assert.rejects(
      response.consume((chunk) => {
        received += chunk.length;
      }),
    );
    assert.ok(received <= 4 * testBlockBytes, `${received} bytes were given away`);
    assert.ok((await cluster.getBytes(worker, file.id)).equals(bytes), "the second fetch was right");
    assert.ok(worker.status().damaged > 0);

    const bad = cluster.addFile(3 * testBlockBytes, { digest: true });
    cluster.origin.inject({ operation: "read", fault: { kind: "flip", atByte: 0 } });
    cluster.master.push({ kind: "load", jobId, priority: 5, files: [bad.file] });
    await cluster.until("it has failed", () => cluster.master.loadReports.length > 0);
    const [outcome] = cluster.master.loadReports[0]?.files ?? [];
    assert.equal(outcome?.ok, false);
    assert.equal(outcome?.code, "corrupt");
    assert.equal(cluster.origin.originBytes(bad.file.key), 2 * bad.file.sizeBytes);
    assert.equal(worker.cache.get(bad.file.id)?.heldBytes, 0);
  });
});

test("a cancelled load stops, and what came in stays", async () => {
  await withCluster(async (cluster) => {
    const worker = await oneWorker(cluster);
    const { file } = cluster.addFile(200 * testBlockBytes);
    cluster.origin.inject({ operation: "read", fault: { kind: "delay", durationMs: 10 } });
    cluster.master.push({ kind: "load", jobId, priority: 5, files: [file] });
    await cluster.until("it runs", () => cluster.origin.originBytes() > 10 * testBlockBytes);
    cluster.master.push({ kind: "cancel-load", jobId });
    await cluster.until("it is over", () => worker.status().loading === 0 && worker.status().activeFills === 0);
    const held = worker.cache.get(file.id) ?? assert.fail();
    assert.ok(held.heldBytes > 0 && held.heldBytes < file.sizeBytes);
    assert.ok(!held.isProtected);
  });
});

test("blocks that rot on disk between two lives are refetched, counted and named, never served", async () => {
  await withCluster(async (cluster) => {
    const first = await cluster.startWorker("w1");
    const { file, bytes } = cluster.addFile(12 * testBlockBytes + 9);
    await cluster.until("attached", () => first.members.version > 0);
    await cluster.getBytes(first, file.id);
    await first.close();
    const data = await new NodeDisk().open(`${cluster.directory}/w1/versions/${file.id}.data`, "write");
    for (const block of [0, 7, 12]) await data.write(Uint8Array.of(1, 2, 3), block * testBlockBytes + 3);
    await data.close();
    const logger = new RecordingLogger();
    const second = await cluster.addWorker("w1", { logger });
    await cluster.until("attached", () => second.members.version > 0);
    cluster.origin.resetCounts();
    assert.ok((await cluster.getBytes(second, file.id)).equals(bytes));
    assert.equal(cluster.origin.originBytes(), 2 * testBlockBytes + 9);
    assert.equal(second.status().damaged, 3);
    assert.equal(logger.lines.filter((line) => line.includes("damaged")).length, 3);
  });
});

/** So that memory says what is held, not what nobody has collected yet. */
function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
}

test("readers that stop reading hold little, and starve nobody", async () => {
  await withCluster(async (cluster) => {
    const worker = await cluster.addWorker("w1", { limits: { piecesMax: 6, pieceBytes: 256 * 1024 } });
    await cluster.until("attached", () => worker.members.version > 0);
    const { file, bytes } = cluster.addFile(16 * 1024 * 1024);
    const expected = digestHex("sha256", bytes);
    assert.equal(digestHex("sha256", await cluster.getBytes(worker, file.id)), expected);
    const { host, port } = worker.dataAddress;
    collectGarbage();
    const before = process.memoryUsage();
    const stuck = Array.from({ length: 60 }, () => {
      const socket = net.connect({ host, port });
      socket.on("error", () => {});
      socket.pause();
      socket.write(`GET /v1/files/${file.id} HTTP/1.1\r\nhost: x\r\n\r\n`);
      return socket;
    });
    await cluster.until("all are served", () => worker.status().openStreams >= 60);
    await cluster.clock.sleep(200);
    const bodies = await Promise.all(Array.from({ length: 4 }, () => cluster.getBytes(worker, file.id)));
    for (const body of bodies) assert.equal(digestHex("sha256", body), expected);
    collectGarbage();
    const after = process.memoryUsage();
    const grownBytes = after.arrayBuffers - before.arrayBuffers - bodies.reduce((sum, body) => sum + body.length, 0);
    assert.ok(grownBytes < 60 * 3 * 256 * 1024, `60 stuck readers hold ${grownBytes} bytes`);
    for (const socket of stuck) socket.destroy();
    await cluster.until("all are gone", () => worker.status().openStreams === 0);
    assert.equal(worker.cache.get(file.id)?.isOpen, false);
  });
});

test("a full cache reads a file through without keeping it, goes on serving, and takes the file once there is room", async () => {
  await withCluster(async (cluster) => {
    const worker = await cluster.addWorker("w1", { capacityBytes: 10 * testBlockBytes });
    await cluster.until("attached", () => worker.members.version > 0);
    const pinned = cluster.addFile(8 * testBlockBytes);
    const next = cluster.addFile(6 * testBlockBytes);
    await cluster.getBytes(worker, pinned.file.id);
    cluster.master.push({ kind: "pin", versions: [pinned.file.id], pinned: true });
    await cluster.until("it is pinned", () => worker.cache.get(pinned.file.id)?.isPinned === true);
    assert.ok((await cluster.getBytes(worker, next.file.id)).equals(next.bytes));
    assert.equal(worker.cache.get(next.file.id), undefined, "nothing of it is held");
    assert.ok((await cluster.getBytes(worker, pinned.file.id)).equals(pinned.bytes));
    cluster.master.push({ kind: "pin", versions: [pinned.file.id], pinned: false });
    const file = worker.cache.get(pinned.file.id) ?? assert.fail();
    await cluster.until("it is free", () => !file.isPinned && !file.isOpen && !file.isProtected);
    assert.ok((await cluster.getBytes(worker, next.file.id)).equals(next.bytes));
    assert.equal(worker.cache.get(pinned.file.id), undefined);
    // Its reader has everything before the fill that brought it has ended; until then it stays.
    const arrived = worker.cache.get(next.file.id) ?? assert.fail();
    await cluster.until("its fill has ended", () => !arrived.isProtected);
    cluster.master.push({ kind: "free", versions: [next.file.id] });
    await cluster.until("it is gone at the master, too", () => cluster.master.holdings.get(worker.id)?.size === 0);
  });
});

test("a directory that fails in the middle of a fill costs its files, not the read", async () => {
  await withCluster(async (cluster) => {
    const disk = new FaultyDisk({ disk: new NodeDisk(), clock: cluster.clock });
    const directories = ["a", "b"].map((name) => ({ path: `${cluster.directory}/${name}`, capacityBytes: 2 ** 30 }));
    const worker = await cluster.addWorker("w1", { disk, directories });
    await cluster.until("attached", () => worker.members.version > 0);
    const { file, bytes } = cluster.addFile(40 * testBlockBytes);
    cluster.origin.inject({ operation: "read", fault: { kind: "delay", durationMs: 5 } });
    const reading = cluster.getBytes(worker, file.id);
    await cluster.until("it fills", () => (worker.cache.get(file.id)?.heldBytes ?? 0) > 5 * testBlockBytes);
    const path = worker.cache.get(file.id)?.directory.path ?? assert.fail();
    disk.inject({ operation: "write", path, effect: { kind: "error", code: "EIO" } });
    assert.ok((await reading).equals(bytes));
    assert.notEqual(worker.cache.get(file.id)?.directory.path, path);
    assert.match(worker.status().problems.join(), /failed \(EIO\)/);
    disk.heal();
  });
});

test("masters hear of a new address when it is announced", async () => {
  await withCluster(async (cluster) => {
    const worker = await oneWorker(cluster);
    const before = cluster.master.list.version;
    worker.announce();
    await cluster.until("it attached again", () => cluster.master.list.version > before);
    await cluster.until("it is attached", () => worker.status().masters[0]?.attached === true);
  });
});

test("small reads, verify and free over RPC share the port with HTTP", async () => {
  await withCluster(async (cluster) => {
    const worker = await oneWorker(cluster);
    const { file, bytes } = cluster.addFile(3 * testBlockBytes + 10);
    const client = new RpcClient({
      network: new TcpNetwork(),
      address: worker.dataAddress,
      service: workerService,
      self: { software: "test", role: "client", name: "test" },
      clock: cluster.clock,
      logger: silentLogger,
    });
    const { read, verify, free } = workerService.methods;
    const at = testBlockBytes - 4;
    const middle = await client.call(read, { id: file.id, position: at, length: 100 });
    assert.deepEqual(Buffer.from(middle.bytes), Buffer.from(bytes.subarray(at, at + 100)));
    const end = await client.call(read, { id: file.id, position: file.sizeBytes - 3, length: 100 });
    assert.equal(end.bytes.length, 3);
    await assert.rejects(client.call(read, { id: file.id, position: file.sizeBytes + 1, length: 1 }), /behind its end/);
    await cluster.getBytes(worker, file.id);
    // Readers get a block when it is checked, which may be before it is written.
    await cluster.until("every block is stored", () => worker.cache.get(file.id)?.isComplete === true);
    const data = await new NodeDisk().open(`${cluster.directory}/w1/versions/${file.id}.data`, "write");
    await data.write(Uint8Array.of(0xff, 0xfe), testBlockBytes + 1);
    await data.close();
    assert.deepEqual(await client.call(verify, {}), { blocks: 4, bytes: file.sizeBytes, damaged: 1 });
    assert.ok(worker.cache.get(file.id)?.has(1 as BlockIndex), "the damaged block came back");
    assert.ok((await cluster.getBytes(worker, file.id)).equals(bytes));
    assert.deepEqual(await client.call(free, { ids: [file.id] }), { bytes: file.sizeBytes });
    await client.close();
  });
});

test("an object is written through whole or not at all", async () => {
  await withCluster(async (cluster) => {
    const worker = await oneWorker(cluster);
    const body = Buffer.from("some new weights");
    const put = (query: string, headers: Record<string, string> = {}) =>
      cluster.request(worker, "PUT", `/v1/objects/${query}`, headers, body);
    const done = await put("1?key=dir/new");
    assert.equal(done.status, 200);
    const answer = JSON.parse(await done.text(10_000)) as { sizeBytes: number; digest: { value: string } };
    assert.equal(answer.sizeBytes, body.length);
    assert.equal(answer.digest.value, digestHex("sha256", body));
    assert.deepEqual(Buffer.from(cluster.memory.peek("dir/new") ?? []), body);
    for (const [query, status, headers] of [
      ["1?key=dir/new&ifAbsent=true", 409, {}],
      ["1?key=bad&ifAbsent=true", 400, { "x-headpond-sha256": "00".repeat(32) }],
      ["1?key=../etc", 400, {}],
      ["1", 400, {}],
      ["77?key=x", 409, {}],
      ["x?key=x", 400, {}],
    ] as const) {
      const refused = await put(query, headers);
      assert.equal(refused.status, status, `${query}: ${await refused.text(10_000)}`);
    }
    assert.equal(cluster.memory.peek("bad"), undefined);
  });
});

test("health, readiness, metrics and status are answered on the http port", async () => {
  await withCluster(async (cluster) => {
    const worker = await oneWorker(cluster);
    const { file } = cluster.addFile(testBlockBytes);
    await cluster.getBytes(worker, file.id);
    await cluster.until("it is stored", () => worker.cache.get(file.id)?.isComplete === true);
    const { host, port } = worker.httpAddress;
    const ask = async (path: string) => {
      const response = await cluster.http.request({ method: "GET", url: `http://${host}:${port}${path}` });
      return { status: response.status, text: await response.text(1_000_000) };
    };
    assert.equal((await ask("/healthz")).status, 200);
    assert.equal((await ask("/readyz")).status, 200);
    const metrics = (await ask("/metrics")).text;
    assert.match(metrics, /headpond_worker_origin_bytes_total\{mount="\/m"\} 65536/);
    assert.match(metrics, /headpond_worker_used_bytes 65536/);
    const status = JSON.parse((await ask("/v1/status")).text) as {
      usedBytes: number;
      masters: { attached: boolean }[];
    };
    assert.equal(status.usedBytes, testBlockBytes);
    assert.equal(status.masters[0]?.attached, true);
    assert.equal((await ask("/nothing")).status, 404);
  });
});
