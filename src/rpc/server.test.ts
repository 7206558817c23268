import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { frameKinds } from "./frame.ts";
import { firstBytesAreRpc, preface } from "./hello.ts";
import { Reader } from "./message-reader.ts";
import { RpcServer } from "./server.ts";
import {
  clock,
  loopback,
  network,
  plainHandlers,
  RawClient,
  type RawFrame,
  recordingLogger,
  serverSelf,
  startClient,
  startServer,
  testService,
  until,
} from "./test-service.ts";

const { echo, wait, count } = testService.methods;
/** Numbers on the wire, by the order of the service. */
const numbers = { echo: 0, add: 1, wait: 2, blob: 3, count: 4 };
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
console.log(`seed ${seed}`);

function errorOf(frame: RawFrame | undefined): { code: string; message: string; details?: Record<string, unknown> } {
  assert(frame !== undefined && frame.kind === frameKinds.error, `a frame of kind ${frame?.kind} is no error`);
  return new Reader().reset(frame.payload, 0, frame.payload.length).value() as ReturnType<typeof errorOf>;
}

/** Method number and no timeout, then whatever the message is. */
function sendRequest(client: RawClient, id: number, method: number, message: () => void): void {
  client.frame(frameKinds.request, id, () => {
    client.raw(0, method, 0, 0, 0, 0);
    message();
  });
}

test("a client of another protocol version is told both versions", async () => {
  await using server = await startServer();
  const client = await RawClient.connect(server.address);
  client.hello({ protocolMin: 0, protocolMax: 0, peer: { software: "0.0.1", role: "client", name: "old" } });
  await until(() => client.closed, "the connection is closed");
  const { code, message } = errorOf(client.frames[0]);
  assert.equal(code, "unsupported");
  assert.equal(
    message,
    "client old (0.0.1) speaks protocol versions 0 to 0, master m1 (1.0.0) 1 to 1: upgrade the older one",
  );
});

test("a client of a newer release that still speaks our version is served", async () => {
  await using server = await startServer();
  const client = await RawClient.connect(server.address);
  client.hello({ protocolMin: 1, protocolMax: 9, ...({ futureField: { x: 1 } } as object) });
  await until(() => client.frames.length === 1, "the hello is answered");
  assert.equal(client.frames[0]?.kind, frameKinds.hello);
  client.connection.destroy();
});

test("a wrong service and a wrong cluster are refused by name, through the client too", async () => {
  await using server = await startServer({}, { self: { clusterId: "blue" } });
  const client = await RawClient.connect(server.address);
  client.hello({ service: "other", serviceVersion: 3 });
  await until(() => client.closed, "the connection is closed");
  assert.match(
    errorOf(client.frames[0]).message,
    /wants service other version 3, master m1 \(1\.0\.0\) has test version 1/,
  );
  await using other = startClient(server.address, { self: { clusterId: "green" } });
  await assert.rejects(other.call(echo, { text: "" }), {
    code: "invalid",
    outcome: "none",
    message: /belongs to cluster green, master m1 \(1\.0\.0\) to blue/,
  });
  await using right = startClient(server.address, { self: { clusterId: "blue" } });
  await right.call(echo, { text: "" });
});

test("a method that the server does not have is unsupported, and the connection goes on", async () => {
  await using server = await startServer();
  const client = await RawClient.connect(server.address);
  client.hello();
  sendRequest(client, 1, 99, () => client.raw(0x90));
  sendRequest(client, 2, numbers.count, () => client.raw(0x90));
  sendRequest(client, 3, numbers.echo, () => client.raw(0x91, 0xa1, 0x78));
  await until(() => client.frames.length === 4, "all are answered");
  assert.equal(errorOf(client.frames[1]).code, "unsupported");
  assert.equal(errorOf(client.frames[2]).code, "unsupported");
  assert.equal(client.frames[3]?.kind, frameKinds.reply);
  await using mine = startClient(server.address);
  const newer = { ...echo, name: "notYetThere" };
  await assert.rejects(mine.call(newer, { text: "" }), {
    code: "unsupported",
    message: /has no method notYetThere: upgrade it/,
  });
  client.connection.destroy();
});

test("a malformed message in a good frame is invalid, and the connection goes on", async () => {
  await using server = await startServer();
  const client = await RawClient.connect(server.address);
  client.hello();
  sendRequest(client, 1, numbers.echo, () => client.raw(0x91, 0xd9, 0xff, 0x78));
  sendRequest(client, 2, numbers.echo, () => client.raw(0x91, 0xa1, 0x78, 0x00));
  sendRequest(client, 3, numbers.echo, () => client.raw(0x91, 0xa1, 0x78));
  await until(() => client.frames.length === 4, "all are answered");
  assert.match(errorOf(client.frames[1]).message, /ends within a value/);
  assert.match(errorOf(client.frames[2]).message, /bytes follow its end/);
  assert.equal(client.frames[3]?.kind, frameKinds.reply);
  client.connection.destroy();
});

test("what breaks the protocol costs the connection, is logged with its reason, and the server lives on", async () => {
  const { logger, lines } = recordingLogger();
  await using server = await startServer({}, { logger, limits: { requestFrameBytesMax: 1000 } });
  const breaks: [RegExp, (client: RawClient) => void][] = [
    [/does not speak this protocol/, (client) => client.write(Buffer.from("GET / HTTP/1.1\r\n\r\n"))],
    [/came before the hello/, (client) => (client.write(preface), client.frame(frameKinds.ping, 1))],
    [/came before the hello/, (client) => (client.write(preface), sendRequest(client, 1, 0, () => client.raw(0x90)))],
    [/second hello/, (client) => (client.hello(), client.frame(frameKinds.hello, 0))],
    [
      /frame of 2000000000 bytes is larger than the limit of 1000/,
      (client) => (client.hello(), client.write(Buffer.from("77359400", "hex"))),
    ],
    [
      /frame of 100000 bytes is larger/,
      (client) => (client.write(preface), client.write(Buffer.from("000186a0", "hex"))),
    ],
    [/no room for its head/, (client) => (client.hello(), client.write(Buffer.alloc(16)))],
    [/too short for its head/, (client) => (client.hello(), client.frame(frameKinds.request, 1, () => client.raw(0)))],
    [/sent a frame of kind 3/, (client) => (client.hello(), client.frame(frameKinds.reply, 1))],
    [/credit frame is too short/, (client) => (client.hello(), client.frame(frameKinds.credit, 1))],
    [
      /hello: protocolMax|hello: .*required/,
      (client) => (client.write(preface), client.frame(frameKinds.hello, 0, () => client.raw(0x80))),
    ],
    [
      /used again while it was under way/,
      (client) => {
        client.hello();
        for (let i = 0; i < 2; i++) sendRequest(client, 7, numbers.wait, () => client.raw(0x91, 0xa1, 0x78));
      },
    ],
  ];
  for (const [reason, act] of breaks) {
    lines.length = 0;
    const client = await RawClient.connect(server.address);
    act(client);
    await until(() => client.closed, `the server hangs up: ${reason}`);
    assert.match(lines.join("\n"), reason);
  }
  await using client = startClient(server.address);
  assert.deepEqual(await client.call(echo, { text: "alive" }), { text: "alive" });
  assert.equal(server.server.requestsUnderWay, 0);
});

test("random and damaged bytes never stop the server", async () => {
  const random = new Random(seed);
  await using server = await startServer();
  const recorded = await recordedConversation();
  for (let i = 0; i < 150; i++) {
    const client = await RawClient.connect(server.address);
    const bytes = Buffer.from(random.chance(0.2) ? random.bytes(random.between(1, 500)) : recorded);
    for (let flips = random.between(0, 5); flips > 0; flips--)
      bytes[random.between(0, bytes.length - 1)] = random.between(0, 255);
    const length = random.between(1, bytes.length);
    const cut = random.between(0, length);
    client.write(bytes.subarray(0, cut));
    if (random.chance(0.3)) await clock.sleep(1);
    client.write(bytes.subarray(cut, length));
    if (random.chance(0.5)) client.connection.end();
    else await clock.sleep(1);
    client.connection.destroy();
  }
  await until(() => server.server.connectionCount === 0, "all connections are gone");
  assert.equal(server.server.requestsUnderWay, 0);
  await using client = startClient(server.address);
  assert.deepEqual(await client.call(echo, { text: "alive" }), { text: "alive" });
});

/** What a well-behaved client sends: to be damaged. */
async function recordedConversation(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const listener = await network.listen(loopback, (connection) => {
    connection.onData = (chunk) => chunks.push(Buffer.from(chunk));
  });
  const client = await RawClient.connect(listener.address);
  client.hello();
  for (let id = 1; id < 10; id++) sendRequest(client, id, id % 5, () => client.raw(0x91, 0xa1, 0x78));
  client.frame(frameKinds.open, 20, () => client.raw(0, numbers.count, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 9, 9, 0x91, 0x20));
  client.frame(frameKinds.credit, 20, () => client.raw(0, 0, 0, 9, 0, 0, 9, 9));
  client.frame(frameKinds.cancel, 20);
  client.frame(frameKinds.ping, 0);
  client.outbox.flush();
  await until(
    () => chunks.reduce((sum, chunk) => sum + chunk.length, 0) >= client.outbox.handedOverBytes,
    "all has come",
  );
  client.connection.destroy();
  await listener.close();
  return Buffer.concat(chunks);
}

test("a connection that never says hello, and one that falls silent, are cut", async () => {
  const { logger, lines } = recordingLogger();
  const limits = { helloTimeoutMs: 50, idleTimeoutMs: 150, sweepIntervalMs: 10 };
  await using server = await startServer({}, { logger, limits });
  const mute = await RawClient.connect(server.address);
  const silent = await RawClient.connect(server.address);
  silent.hello();
  await using pinging = startClient(server.address, { limits: { pingIntervalMs: 40, busyPingIntervalMs: 40 } });
  await pinging.call(echo, { text: "" });
  await until(() => mute.closed && silent.closed, "both are closed");
  assert.match(lines.join("\n"), /no hello came within 50 ms/);
  assert.match(lines.join("\n"), /nothing came for 150 ms/);
  assert.equal(pinging.connected, true);
});

test("a client that does not read stops being read, then is cut, and others are served meanwhile", async () => {
  const { logger, lines } = recordingLogger();
  let served = 0;
  await using server = await startServer(
    { blob: ({ count: size }) => (served++, { data: new Uint8Array(size) }) },
    { logger, limits: { queuedBytesMax: 512 * 1024, slowClientTimeoutMs: 300, sweepIntervalMs: 10 } },
  );
  const greedy = await RawClient.connect(server.address);
  greedy.hello();
  await until(() => greedy.frames.length === 1, "the hello is answered");
  greedy.connection.pause();
  const asked = 5_000;
  for (let id = 1; id <= asked; id++) sendRequest(greedy, id, numbers.blob, () => greedy.raw(0x91, 0xcd, 0xff, 0xff));
  await using client = startClient(server.address);
  await client.call(echo, { text: "others" });
  await until(() => server.server.connectionCount === 1, "the greedy one is cut");
  assert.match(lines.join("\n"), /did not read for 300 ms while [0-9]+ bytes waited/);
  assert(served < asked / 2, `${served} of ${asked} requests were served`);
  await client.call(echo, { text: "others" });
  greedy.connection.destroy();
});

test("requests beyond a connection's limit are not read until others are done, and none is lost", async () => {
  let underWay = 0;
  let most = 0;
  const release: (() => void)[] = [];
  await using server = await startServer(
    {
      wait: async ({ text }) => {
        most = Math.max(most, ++underWay);
        await new Promise<void>((resolve) => release.push(resolve));
        underWay--;
        return { text };
      },
    },
    { limits: { requestsPerConnectionMax: 8 } },
  );
  const client = await RawClient.connect(server.address);
  client.hello();
  for (let id = 1; id <= 100; id++) sendRequest(client, id, numbers.wait, () => client.raw(0x91, 0xa1, 0x78));
  await until(() => underWay >= 8, "the limit is reached");
  const releasing = setInterval(() => release.shift()?.(), 1);
  await until(() => client.frames.length === 101, "all are answered");
  clearInterval(releasing);
  assert(most <= 9, `${most} were under way`);
  assert.deepEqual(new Set(client.frames.slice(1).map(({ id }) => id)).size, 100);
  client.connection.destroy();
});

test("a client of ours keeps to the limit that the server's hello names, so that pings are answered", async () => {
  let most = 0;
  let underWay = 0;
  await using server = await startServer(
    {
      wait: async ({ text }) => {
        most = Math.max(most, ++underWay);
        await clock.sleep(3);
        underWay--;
        return { text };
      },
    },
    { limits: { requestsPerConnectionMax: 4 } },
  );
  await using client = startClient(server.address);
  await Promise.all(Array.from({ length: 60 }, () => client.call(wait, { text: "" })));
  assert.equal(most, 4);
});

test("requests beyond the server's limit are overloaded, with the time to wait", async () => {
  const waiting: (() => void)[] = [];
  await using server = await startServer(
    { wait: () => new Promise((resolve) => waiting.push(() => resolve({ text: "done" }))) },
    { limits: { requestsMax: 2, retryAfterMs: 70 } },
  );
  await using client = startClient(server.address);
  const first = [client.call(wait, { text: "" }), client.call(wait, { text: "" })];
  await assert.rejects(client.call(wait, { text: "" }), {
    code: "overloaded",
    outcome: "none",
    retryable: true,
    details: { retryAfterMs: 70 },
  });
  for (const finish of waiting) finish();
  assert.deepEqual(await Promise.all(first), [{ text: "done" }, { text: "done" }]);
  await client.call(echo, { text: "" });
});

test("streams that stay open do not take the place of requests, and have a limit of their own", async () => {
  const never = async function* (): AsyncGenerator<{ count: number }> {
    yield { count: 0 };
    await new Promise(() => {});
  };
  await using server = await startServer({ count: never }, { limits: { requestsMax: 1, streamsMax: 2 } });
  await using client = startClient(server.address);
  const open = () => client.openStream(count, { until: 1 })[Symbol.asyncIterator]().next();
  await Promise.all([open(), open()]);
  await client.call(echo, { text: "" });
  await assert.rejects(open(), { code: "overloaded", message: /has 2 streams under way/ });
});

test("streams beyond a connection's limit are refused or wait in the client", async () => {
  await using server = await startServer({}, { limits: { streamsPerConnectionMax: 1 } });
  const client = await RawClient.connect(server.address);
  client.hello();
  const open = (id: number): void =>
    client.frame(frameKinds.open, id, () =>
      client.raw(0, numbers.count, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 9, 9, 0x92, 0x20, 0xc0),
    );
  open(1);
  open(2);
  await until(() => client.frames.some(({ id }) => id === 2), "the second is answered");
  assert.equal(errorOf(client.frames.find(({ id }) => id === 2)).code, "overloaded");
  client.connection.destroy();
  await using mine = startClient(server.address, { limits: { streamWindowItems: 1 } });
  const first = mine.openStream(count, { until: 100 })[Symbol.asyncIterator]();
  await first.next();
  const second = mine.openStream(count, { until: 100 })[Symbol.asyncIterator]();
  const waiting = second.next();
  await mine.call(echo, { text: "calls are not held up by a waiting stream" });
  await first.return?.();
  assert.deepEqual(await waiting, { done: false, value: { count: 0 } });
  await second.return?.();
});

test("closing finishes what is under way, refuses what is new, and aborts what takes too long", async () => {
  const aborted: unknown[] = [];
  let finish: (() => void) | undefined;
  await using server = await startServer(
    {
      wait: ({ text }, { signal }) =>
        new Promise((resolve) => {
          if (text === "stuck") signal.addEventListener("abort", () => aborted.push(signal.reason));
          else finish = () => resolve({ text: "finished" });
        }),
    },
    { limits: { closeGraceMs: 150 } },
  );
  await using client = startClient(server.address);
  const good = client.call(wait, { text: "good" });
  const stuck = assert.rejects(client.call(wait, { text: "stuck" }), { code: "unavailable", outcome: "unknown" });
  const raw = await RawClient.connect(server.address);
  raw.hello();
  await until(() => server.server.requestsUnderWay === 2 && raw.frames.length === 1, "both are under way");
  const closed = server.server.close();
  await until(() => raw.frames.length === 2, "farewell is said");
  assert.equal(raw.frames[1]?.kind, frameKinds.farewell);
  sendRequest(raw, 1, numbers.wait, () => raw.raw(0x91, 0xa1, 0x78));
  await until(() => raw.frames.length === 3, "the new request is answered");
  assert.equal(errorOf(raw.frames[2]).code, "unavailable");
  await assert.rejects(client.call(echo, { text: "new" }), { code: "unavailable", outcome: "none" });
  finish?.();
  assert.deepEqual(await good, { text: "finished" });
  await stuck;
  await closed;
  assert.equal(aborted.length, 1);
  await until(() => raw.closed, "the connection has ended");
});

test("the loss of a connection reaches its handlers", async () => {
  let aborted = 0;
  await using server = await startServer({
    wait: (_, { signal }) =>
      new Promise((resolve) => signal.addEventListener("abort", () => (aborted++, resolve({ text: "" })))),
  });
  const client = await RawClient.connect(server.address);
  client.hello();
  for (let id = 1; id <= 3; id++) sendRequest(client, id, numbers.wait, () => client.raw(0x91, 0xa1, 0x78));
  await until(() => server.server.requestsUnderWay === 3, "all are under way");
  client.connection.destroy();
  await until(() => aborted === 3 && server.server.requestsUnderWay === 0, "all handlers heard of it");
});

test("a handler that throws what it should not is answered as internal, and logged", async () => {
  const { logger, lines } = recordingLogger();
  await using server = await startServer(
    {
      echo: () => {
        throw new TypeError("cannot read x of undefined");
      },
      wait: () => Promise.reject(new RangeError("too much")),
    },
    { logger },
  );
  await using client = startClient(server.address);
  await assert.rejects(client.call(echo, { text: "" }), { code: "internal" });
  await assert.rejects(client.call(wait, { text: "" }), { code: "internal" });
  assert.equal(lines.length, 2);
  assert.equal(server.server.requestsUnderWay, 0);
});

test("the first byte tells this protocol from HTTP and TLS", () => {
  assert.equal(firstBytesAreRpc(preface), true);
  assert.equal(firstBytesAreRpc(preface.subarray(0, 1)), true);
  assert.equal(firstBytesAreRpc(Buffer.concat([preface, Buffer.from([0, 0, 0])])), true);
  assert.equal(firstBytesAreRpc(Buffer.from("HEAD / HTTP/1.1")), false);
  assert.equal(firstBytesAreRpc(Buffer.from([0x16, 0x03, 0x01])), false);
  assert.equal(firstBytesAreRpc(Buffer.alloc(0)), false);
});

test("requests are counted by method and result, for two servers in one registry", async () => {
  const metrics = new Metrics();
  const make = (): RpcServer<typeof testService.methods> =>
    new RpcServer({
      service: testService,
      handlers: plainHandlers,
      self: serverSelf,
      clock,
      logger: silentLogger,
      metrics,
    });
  const servers = [make(), make()];
  for (const server of servers) {
    const client = startClient(await server.listen(network, loopback));
    await client.call(echo, { text: "" });
    await assert.rejects(client.call(echo, { text: "x".repeat(100_001) }));
    await client.close();
  }
  const text = await metrics.text();
  assert.match(text, /headpond_rpc_requests_total\{service="test",method="echo",result="ok"\} 2/);
  assert.match(text, /headpond_rpc_requests_total\{service="test",method="echo",result="invalid"\} 2/);
  for (const server of servers) await server.close();
});

/** Opens as many connections as it is told to, says hello on each, and answers when all were welcomed. */
const crowd = `
  const net = require("node:net");
  const [port, wanted, hello] = process.argv.slice(1);
  const sockets = [];
  let welcomed = 0;
  const open = () => {
    if (sockets.length === Number(wanted)) return;
    const socket = net.connect(Number(port), "127.0.0.1", () => socket.write(Buffer.from(hello, "base64")));
    sockets.push(socket);
    socket.once("data", () => {
      welcomed++;
      if (welcomed === Number(wanted)) process.stdout.write("welcomed");
      open();
    });
    socket.on("error", (error) => { console.error(error.message); process.exit(1); });
  };
  for (let i = 0; i < 64; i++) open();
  process.stdin.resume().on("end", () => process.exit(0));
`;

test("ten thousand idle connections are held cheaply while others are served", async () => {
  const descriptors = Number(execFileSync("sh", ["-c", "ulimit -n"], { encoding: "utf8" }).trim());
  const wanted = Math.min(10_000, descriptors - 500);
  await using server = await startServer({}, { limits: { sweepIntervalMs: 100 } });
  const hello = await recordedHello();
  globalThis.gc?.();
  const before = process.memoryUsage();
  const args = ["-e", crowd, String(server.address.port), String(wanted), hello.toString("base64")];
  const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
  await once(child.stdout, "data");
  assert.equal(server.server.connectionCount, wanted);
  globalThis.gc?.();
  const after = process.memoryUsage();
  const perConnection = (after.heapUsed + after.external - before.heapUsed - before.external) / wanted;
  const cpuBefore = process.cpuUsage();
  await clock.sleep(500);
  const { user, system } = process.cpuUsage(cpuBefore);
  console.log(
    `${wanted} connections (${descriptors} descriptors allowed): ${Math.round(perConnection)} bytes each, ` +
      `${Math.round((user + system) / 5000)} % of a core to sweep them ten times a second`,
  );
  assert(perConnection < 40_000, `${perConnection} bytes for each connection`);
  await using client = startClient(server.address);
  for (let i = 0; i < 100; i++) await client.call(echo, { text: `${i}` });
  child.stdin.end();
  await once(child, "exit");
  await until(() => server.server.connectionCount === 1, "all have left");
});

async function recordedHello(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const listener = await network.listen(loopback, (connection) => {
    connection.onData = (chunk) => chunks.push(Buffer.from(chunk));
  });
  const client = await RawClient.connect(listener.address);
  client.hello();
  client.outbox.flush();
  const bytes = preface.length + client.outbox.handedOverBytes;
  await until(() => Buffer.concat(chunks).length >= bytes, "it has come");
  client.connection.destroy();
  await listener.close();
  return Buffer.concat(chunks);
}
