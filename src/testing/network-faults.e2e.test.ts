/** What strangers, broken clients and slow ones do to the ports of running processes. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import net from "node:net";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { connect } from "../client/client.ts";
import { type TestCluster, withCluster, writeModel } from "./cluster.ts";
import { descriptorsOf, residentBytesOf } from "./process-facts.ts";

/** Sends bytes and waits until the other side closes; what it answered. */
async function provoke(port: number, bytes: Uint8Array): Promise<string> {
  const socket = net.connect(port, "127.0.0.1");
  const parts: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => parts.push(chunk));
  socket.on("error", () => {});
  socket.write(bytes);
  const timer = setTimeout(() => socket.destroy(new Error("it was never closed")), 60_000);
  const hadError = await new Promise<boolean>((done) => socket.once("close", done));
  clearTimeout(timer);
  const answer = Buffer.concat(parts).toString("latin1");
  return hadError && answer === "" ? "reset" : answer;
}

type Ports = {
  readonly rpc: number;
  readonly data: number;
  readonly files: number;
  readonly hf: number;
  readonly admin: number;
};

function portsOf(cluster: TestCluster): Ports {
  const { data = "", files = "", hf = "" } = cluster.workers[0]?.ready.endpoints ?? {};
  return {
    rpc: Number(cluster.masterAddress.split(":")[1]),
    data: Number(data.split(":")[1]),
    files: Number(new URL(files).port),
    hf: Number(new URL(hf).port),
    admin: Number(new URL(cluster.master.ready.endpoints["http"] ?? "").port),
  };
}

/** What a client of this release sends first: preface and hello (docs/formats/rpc.md), taken from a real one. */
async function honestHello(): Promise<Buffer> {
  const listener = net.createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address() as net.AddressInfo;
  const client = connect({ masters: [`127.0.0.1:${port}`] });
  const asked = client.serverInfo({ timeoutMs: 1000 }).catch(() => {});
  const [socket] = (await once(listener, "connection")) as [net.Socket];
  socket.on("error", () => {});
  const [first] = (await once(socket, "data")) as [Buffer];
  socket.destroy();
  listener.close();
  await asked;
  await client.close();
  return first;
}

/** The same from a client that speaks another version of the protocol only. */
function ofVersion(hello: Buffer, version: number): Buffer {
  const changed = Buffer.from(hello);
  for (const field of ["protocolMin", "protocolMax"]) {
    const value = hello.indexOf(field) + field.length;
    assert.equal(hello[value], 1, "the value of a field follows its name");
    changed[value] = version;
  }
  return changed;
}

test("garbage, frames too large, half-open and greedy connections cost themselves, and nobody else", {
  timeout: 180_000,
}, async (t) => {
  const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  await withCluster(1, async (cluster) => {
    const weights = random.bytes(24 * MiB);
    await writeModel(`${cluster.directory}/store`, { "m/model.safetensors": weights });
    await using client = connect({ masters: [cluster.masterAddress] });
    await client.mount("/models", `file://${cluster.directory}/store`);
    const end = await (await client.load("/models/m")).done();
    assert.equal(end.state, "succeeded");
    const ports = portsOf(cluster);
    const serves = async (): Promise<void> => {
      assert.equal((await client.stat("/models/m/model.safetensors")).sizeBytes, weights.length);
      const response = await fetch(`http://127.0.0.1:${ports.files}/models/m/model.safetensors`);
      assert.ok(Buffer.from(await response.arrayBuffer()).equals(Buffer.from(weights)));
    };

    await t.test("garbage on every port is closed, and the processes go on", async () => {
      for (const [name, port] of Object.entries(ports)) {
        for (const bytes of [
          Buffer.alloc(100),
          Buffer.alloc(100, 0xff),
          random.bytes(5000),
          // A client of TLS.
          Buffer.from("16030100c8010000c40303", "hex"),
        ]) {
          const answer = await provoke(port, bytes);
          assert.match(answer, /^(reset|)$|^HTTP\/1\.1 4\d\d /, `${name} answered ${JSON.stringify(answer)}`);
        }
      }
      const master = await provoke(ports.rpc, Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\n"));
      assert.match(master, /^(reset|)$/);
      await serves();
    });

    await t.test("a frame that is too large, and headers without end, are refused before they are read", async () => {
      const hello = await honestHello();
      // A frame begins with its length; the greatest there can be follows an honest hello.
      const greedy = Buffer.concat([hello, Buffer.alloc(4, 0xff), Buffer.alloc(1000)]);
      for (const port of [ports.rpc, ports.data]) await provoke(port, greedy);
      const headers = Buffer.concat([Buffer.from("GET / HTTP/1.1\r\nx: "), Buffer.alloc(200_000, 0x61)]);
      for (const port of [ports.data, ports.files, ports.hf, ports.admin]) {
        assert.match(await provoke(port, headers), /^(HTTP\/1\.1 431 |reset)/);
      }
      await serves();
    });

    await t.test("an old client is told both versions, in words that it can read", async () => {
      const hello = await honestHello();
      for (const version of [0, 99]) {
        const answer = await provoke(ports.rpc, ofVersion(hello, version));
        assert.match(answer, /unsupported/, JSON.stringify(answer));
        assert.match(answer, new RegExp(`protocol.*${version}`), JSON.stringify(answer));
      }
      await serves();
    });

    await t.test(
      "a client that stops reading a body, and one that stops reading a listing, hold nobody up",
      async () => {
        await client.mkdir("/many");
        await Promise.all(Array.from({ length: 3000 }, (_, n) => client.create(`/many/${"n".repeat(100)}-${n}`)));
        const stuck: net.Socket[] = [];
        for (let n = 0; n < 40; n++) {
          for (const request of ["/models/m/model.safetensors", "/many"]) {
            const socket = net.connect(ports.files, "127.0.0.1");
            socket.on("error", () => {});
            socket.pause();
            socket.write(`GET ${request} HTTP/1.1\r\nhost: x\r\n\r\n`);
            stuck.push(socket);
          }
        }
        const listing = client.list("/many")[Symbol.asyncIterator]();
        await listing.next();
        await sleep(500);
        for (let round = 0; round < 3; round++) await serves();
        for (const { process: running } of [cluster.master, ...cluster.workers]) {
          const bytes = await residentBytesOf(running.pid);
          assert.ok(bytes < 900 * MiB, `${running.name} takes ${bytes} bytes for clients that do not read`);
        }
        for (const socket of stuck) socket.destroy();
        await listing.return?.();
      },
    );

    await t.test("ten thousand idle connections leave a master responsive, and go without a trace", async () => {
      const before = await descriptorsOf(cluster.master.process.pid);
      const wanted = Math.min(10_000, (await openFilesLimit()) - 500);
      console.log(`${wanted} idle connections`);
      const idle: net.Socket[] = [];
      while (idle.length < wanted) {
        const batch = Array.from({ length: Math.min(250, wanted - idle.length) }, () => {
          const socket = net.connect(ports.rpc, "127.0.0.1");
          socket.on("error", () => {});
          return socket;
        });
        await Promise.all(batch.map((socket) => once(socket, "connect")));
        idle.push(...batch);
      }
      await Promise.all(Array.from({ length: 500 }, (_, n) => client.create(`/idle-${n}`)));
      assert.equal((await cluster.run("fs", "stat", "/idle-499")).code, 0, "a new client gets in");
      const bytes = await residentBytesOf(cluster.master.process.pid);
      assert.ok(bytes < 900 * MiB, `the master takes ${bytes} bytes`);
      for (const socket of idle) socket.destroy();
      for (let round = 0; (await descriptorsOf(cluster.master.process.pid)) > before + 50; round++) {
        assert.ok(round < 300, "the master keeps connections that are gone");
        await sleep(100);
      }
      await serves();
    });
  });
});

async function openFilesLimit(): Promise<number> {
  const limits = await readFile("/proc/self/limits", "utf8");
  return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? 1024);
}
