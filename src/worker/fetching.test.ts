import assert from "node:assert/strict";
import net from "node:net";
import { test } from "node:test";
import type { WorkerAddress } from "../base/cluster.ts";
import type { BlockIndex, WorkerId } from "../base/ids.ts";
import { localPlace } from "../base/place.ts";
import { xxh64Hex } from "../io/hash.ts";
import { HttpServer } from "../io/http-server.ts";
import { silentLogger } from "../io/logger.ts";
import { type TestCluster, testBlockBytes, withCluster } from "./cluster.test-support.ts";
import { checksumHeader } from "./peer-client.ts";
import type { Worker } from "./worker.ts";

/** Stops at once, as a killed process does: connections break, nothing more is answered. */
async function kill(worker: Worker): Promise<void> {
  await Promise.all([worker.fetcher.close(), worker.close()]);
}

function slowOrigin(cluster: TestCluster, durationMs: number): void {
  cluster.origin.inject({ operation: "read", fault: { kind: "delay", durationMs } });
}

async function outcome(reading: Promise<Buffer>): Promise<Buffer | undefined> {
  return reading.catch(() => undefined);
}

for (const told of [true, false]) {
  test(`a killed owner costs no more than its blocks under way (the list ${told ? "tells" : "does not tell"})`, async () => {
    await withCluster(async (cluster) => {
      const workers = await cluster.addWorkers(4, { limits: { closeGraceMs: 0 } });
      const { file, bytes } = cluster.addFile(24 * 1024 * 1024 + 77);
      slowOrigin(cluster, 10);
      const victim = workers[3] ?? assert.fail();
      const survivors = workers.slice(0, 3);
      const readings = survivors.map((worker) => outcome(cluster.getBytes(worker, file.id)));
      const doomed = outcome(cluster.getBytes(victim, file.id));
      await cluster.until("a third is there", () => cluster.origin.originBytes() > file.sizeBytes / 3);
      await kill(victim);
      if (told) cluster.master.lose(victim.id);
      for (const body of await Promise.all(readings))
        assert.ok(body?.equals(bytes), "a survivor did not get the bytes");
      await doomed;
      const amplification = cluster.origin.originBytes() / file.sizeBytes;
      assert.ok(
        cluster.origin.originBytes() <= file.sizeBytes * 1.05 + testBlockBytes,
        `origin bytes / unique bytes = ${amplification}`,
      );
    });
  });
}

test("a peer that sends wrong bytes is caught by the checksum, and the block comes from elsewhere", async () => {
  await withCluster(async (cluster) => {
    const { file, bytes } = cluster.addFile(40 * testBlockBytes);
    const liars = ["wrong bytes", "too short", "too long", "no checksum", "never ends"] as const;
    const servers: HttpServer[] = [];
    const worker = await cluster.addWorker("honest");
    const list: WorkerAddress[] = [worker.address()];
    let asked = 0;
    for (const kind of liars) {
      const server = new HttpServer({
        clock: cluster.clock,
        logger: silentLogger,
        handler: async (request, response) => {
          const match = /^\/v1\/blocks\/[^/]+\/([0-9]+)$/.exec(request.path);
          if (match === null) return response.empty(404);
          asked++;
          const block = Number(match[1]);
          const right = bytes.subarray(block * testBlockBytes, (block + 1) * testBlockBytes);
          const sent = Uint8Array.from(right);
          if (kind === "wrong bytes") sent[7] = (sent[7] as number) ^ 1;
          response.head(200, { trailer: checksumHeader });
          if (kind === "too short") await response.write(sent.subarray(0, 100));
          else await response.write(sent);
          if (kind === "too long" || kind === "never ends") await response.write(sent);
          for (let i = 0; kind === "never ends" && i < 1e9; i++) await response.write(sent);
          response.end(kind === "no checksum" ? {} : { [checksumHeader]: xxh64Hex(right) });
        },
      });
      servers.push(server);
      const { host, port } = await server.listen({ host: "127.0.0.1", port: 0 });
      const id = `liar ${kind}` as WorkerId;
      list.push({ id, place: worker.address().place, data: `${host}:${port}`, http: "", gateways: {} });
    }
    worker.members.setList({ version: 1000, workers: list });
    const body = await cluster.getBytes(worker, file.id);
    assert.ok(body.equals(bytes));
    assert.ok(asked > 0, "no liar was asked");
    assert.ok(worker.status().damaged > 0);
    await Promise.all(servers.map((server) => server.close(0)));
  });
});

test("a content that changes in the middle is never mixed: what is held is served, the rest is gone", async () => {
  await withCluster(async (cluster) => {
    const [worker] = await cluster.addWorkers(1);
    assert.ok(worker);
    const { file, bytes } = cluster.addFile(64 * testBlockBytes);
    slowOrigin(cluster, 5);
    const response = await cluster.get(worker, file.id);
    const received: Buffer[] = [];
    const reading = response.consume((chunk) => void received.push(Buffer.from(chunk)));
    await cluster.until("some of it is there", () => cluster.origin.originBytes() > file.sizeBytes / 4);
    cluster.memory.put(file.key, new Uint8Array(file.sizeBytes).fill(255));
    await assert.rejects(reading);
    const got = Buffer.concat(received);
    assert.ok(got.length < file.sizeBytes);
    assert.ok(got.equals(bytes.subarray(0, got.length)), "bytes of two contents were mixed");
    const held = worker.cache.get(file.id) ?? assert.fail();
    assert.ok(held.isStale && held.has(0 as BlockIndex));
    const part = await cluster.getBytes(worker, file.id, { range: "bytes=5-99" });
    assert.ok(part.equals(bytes.subarray(5, 100)));
    const requests = cluster.origin.requests("read");
    const missing = await cluster.get(worker, file.id, { range: `bytes=-${testBlockBytes}` });
    assert.equal(missing.status, 410);
    missing.destroy();
    assert.equal(cluster.origin.requests("read"), requests, "a version known to be gone is not asked for again");
  });
});

test("an origin that breaks off goes on where it stopped; one that throttles is waited for, within bounds", async () => {
  await withCluster(async (cluster) => {
    const [worker] = await cluster.addWorkers(1);
    assert.ok(worker);
    const { file, bytes } = cluster.addFile(8 * testBlockBytes);
    cluster.origin.inject({ operation: "read", times: 3, fault: { kind: "truncate", afterBytes: testBlockBytes / 2 } });
    cluster.origin.inject({ operation: "read", times: 2, fault: { kind: "throttle", retryAfterMs: 20 } });
    cluster.origin.inject({ operation: "read", times: 1, fault: { kind: "short", afterBytes: 10 } });
    assert.ok((await cluster.getBytes(worker, file.id)).equals(bytes));
    assert.equal(cluster.origin.originBytes(), file.sizeBytes);
    const other = cluster.addFile(testBlockBytes);
    cluster.origin.inject({ operation: "read", fault: { kind: "throttle", retryAfterMs: 3_600_000 } });
    const refused = await cluster.get(worker, other.file.id);
    assert.equal(refused.status, 429);
    assert.ok(Number(refused.headers["retry-after"]) > 0);
    refused.destroy();
  });
});

test("without a master a worker serves what it holds, finishes what runs, and says that it cannot know the rest", async () => {
  await withCluster(async (cluster) => {
    const workers = await cluster.addWorkers(2);
    const [first, second] = workers as [Worker, Worker];
    const held = cluster.addFile(6 * testBlockBytes);
    const running = cluster.addFile(24 * testBlockBytes);
    const unknown = cluster.addFile(testBlockBytes);
    await cluster.getBytes(first, held.file.id);
    slowOrigin(cluster, 10);
    const reading = cluster.getBytes(first, running.file.id);
    await cluster.until("it runs", () => cluster.origin.originBytes() > held.file.sizeBytes + 2 * testBlockBytes);
    cluster.master.goAway();
    assert.ok((await reading).equals(running.bytes));
    assert.ok((await cluster.getBytes(first, held.file.id)).equals(held.bytes));
    assert.ok((await cluster.getBytes(second, running.file.id)).equals(running.bytes));
    assert.equal(cluster.origin.originBytes(), held.file.sizeBytes + running.file.sizeBytes);
    const refused = await cluster.get(first, unknown.file.id);
    assert.equal(refused.status, 503);
    refused.destroy();
  });
});

test("each egress domain has its own owner", async () => {
  await withCluster(async (cluster) => {
    const here = await cluster.addWorker("here");
    const there = await cluster.addWorker("there", { place: localPlace });
    await cluster.until("they know each other", () => here.members.list.workers.length === 2);
    const { file, bytes } = cluster.addFile(10 * testBlockBytes);
    assert.ok((await cluster.getBytes(here, file.id)).equals(bytes));
    assert.ok((await cluster.getBytes(there, file.id)).equals(bytes));
    assert.equal(cluster.origin.originBytes(), 2 * file.sizeBytes);
  });
});

test("a worker that is not the owner refuses, and serves what it holds whatever the list says", async () => {
  await withCluster(async (cluster) => {
    const workers = await cluster.addWorkers(3);
    const { file, bytes } = cluster.addFile(testBlockBytes);
    const block = 0 as BlockIndex;
    const order = workers[0]?.members.order(file.id, block) ?? assert.fail();
    const byId = (id: WorkerId | undefined): Worker => workers.find((worker) => worker.id === id) ?? assert.fail();
    const loser = byId(order[2]);
    const version = loser.members.version;
    const target = `/v1/blocks/${file.id}/0?by=someone&workers=${version}`;
    const refused = await cluster.request(loser, "GET", target);
    assert.equal(refused.status, 409);
    assert.equal(refused.headers["x-headpond-workers"], String(version));
    refused.destroy();
    const standIn = await cluster.request(loser, "GET", `${target}&after=${order[0]},${order[1]}`);
    assert.equal(standIn.status, 200);
    assert.ok((await standIn.bytes(testBlockBytes)).equals(bytes));
    assert.equal(cluster.origin.originBytes(), file.sizeBytes);
    const held = await cluster.request(loser, "GET", target);
    assert.equal(held.headers[checksumHeader], xxh64Hex(bytes));
    assert.ok((await held.bytes(testBlockBytes)).equals(bytes));
    for (const hostile of ["1", "99999999", "-1", "0x1", "%2e"]) {
      const answer = await cluster.request(loser, "GET", `/v1/blocks/${file.id}/${hostile}?workers=${version}`);
      assert.ok(answer.status === 400 || answer.status === 404, `${hostile}: ${answer.status}`);
      answer.destroy();
    }
  });
});

test("a new owner takes what others hold before it asks the origin", async () => {
  await withCluster(async (cluster) => {
    const [first] = await cluster.addWorkers(1);
    assert.ok(first);
    const { file, bytes } = cluster.addFile(40 * testBlockBytes);
    await cluster.getBytes(first, file.id);
    await cluster.until(
      "the master knows",
      () => cluster.master.holdings.get(first.id)?.get(file.id)?.complete === true,
    );
    const second = await cluster.addWorker("w2");
    assert.ok((await cluster.getBytes(second, file.id)).equals(bytes));
    assert.equal(cluster.origin.originBytes(), file.sizeBytes);
  });
});

test("an owner that takes connections and says nothing is passed over", async () => {
  await withCluster(async (cluster) => {
    const { file, bytes } = cluster.addFile(12 * testBlockBytes);
    const worker = await cluster.addWorker("w1");
    const sockets = new Set<net.Socket>();
    const silent = net.createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => {});
    });
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const { port } = silent.address() as net.AddressInfo;
    const { place } = worker.address();
    const mute = { id: "mute" as WorkerId, place, data: `127.0.0.1:${port}`, http: "", gateways: {} };
    worker.members.setList({ version: 1000, workers: [worker.address(), mute] });
    assert.ok((await cluster.getBytes(worker, file.id)).equals(bytes));
    assert.ok(sockets.size > 0, "the silent worker was never asked");
    assert.equal(cluster.origin.originBytes(), file.sizeBytes);
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
});

test("an owner that waits for a slow origin is waited for: the slower the origin, the fewer must ask it", async () => {
  await withCluster(async (cluster) => {
    const workers = await cluster.addWorkers(3);
    const { file, bytes } = cluster.addFile(6 * testBlockBytes);
    // Longer than the silence after which a sign of life is asked for.
    slowOrigin(cluster, 1300);
    const bodies = await Promise.all(workers.map((worker) => cluster.getBytes(worker, file.id)));
    for (const body of bodies) assert.ok(body.equals(bytes));
    assert.equal(cluster.origin.originBytes(), file.sizeBytes);
    assert.equal(cluster.origin.requests("read"), 6);
  });
});

test("an asked worker with an older list waits for the newer one, and tells its version when it refuses", async () => {
  await withCluster(async (cluster) => {
    const [worker] = await cluster.addWorkers(1);
    assert.ok(worker);
    const { file, bytes } = cluster.addFile(testBlockBytes);
    const other = { ...worker.address(), id: "other" as WorkerId };
    const names = Array.from({ length: 50 }, (_, i) => `x${i}` as WorkerId);
    const winner = names.find((id) => {
      worker.members.setList({ version: 50, workers: [{ ...other, id }, worker.address()] });
      return worker.members.order(file.id, 0 as BlockIndex)[0] === id;
    });
    assert.ok(winner !== undefined, "somebody ranks before the worker");
    const target = `/v1/blocks/${file.id}/0?by=asker&workers=51`;
    const refused = await cluster.request(worker, "GET", target);
    assert.equal(refused.status, 409);
    assert.equal(refused.headers["x-headpond-workers"], "50");
    refused.destroy();
    const waiting = cluster.request(worker, "GET", target);
    await cluster.clock.sleep(50);
    worker.members.setList({ version: 51, workers: [worker.address()] });
    const answer = await waiting;
    assert.equal(answer.status, 200);
    assert.ok((await answer.bytes(testBlockBytes)).equals(bytes));
  });
});
