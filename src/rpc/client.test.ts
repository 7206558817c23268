import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { Connection } from "../io/network.ts";
import { preface } from "./hello.ts";
import {
  clock,
  loopback,
  network,
  SilentableNetwork,
  startClient,
  startServer,
  testService,
  until,
} from "./test-service.ts";

const { echo, wait, blob, count } = testService.methods;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
console.log(`seed ${seed}`);

test("a request is answered, and the two ends know each other", async () => {
  const seen: string[] = [];
  await using server = await startServer({
    echo: ({ text }, { peer, remote }) => {
      seen.push(`${peer.role} ${peer.name} at ${remote.split(":")[0]}`);
      return { text: `${text} back` };
    },
  });
  await using client = startClient(server.address);
  assert.deepEqual(await client.call(echo, { text: "hello" }), { text: "hello back" });
  assert.deepEqual(seen, ["client c1 at 127.0.0.1"]);
  assert.equal(client.server?.name, "m1");
});

test("many requests on one connection are each given their own answer, in whatever order they finish", async () => {
  const random = new Random(seed);
  const network = new SilentableNetwork();
  await using server = await startServer({
    wait: async ({ text }) => {
      for (let turns = random.between(0, 5); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
      return { text };
    },
  });
  await using client = startClient(server.address, { network });
  const finished: number[] = [];
  await Promise.all(
    Array.from({ length: 5000 }, async (_, i) => {
      const { text } = await client.call(i % 3 === 0 ? echo : wait, { text: `${i}` });
      assert.equal(text, `${i}`);
      finished.push(i);
    }),
  );
  assert.notDeepEqual(
    finished,
    finished.toSorted((a, b) => a - b),
  );
  assert.equal(network.connects, 1);
});

test("an error arrives with its code, outcome and details", async () => {
  await using server = await startServer({
    echo: () => {
      throw new HeadpondError("not-leader", "m1 does not lead", { details: { leader: "h2:7070" } });
    },
    wait: () => Promise.reject(new HeadpondError("unknown-outcome", "lost the lead meanwhile")),
  });
  await using client = startClient(server.address);
  await assert.rejects(client.call(echo, { text: "" }), {
    code: "not-leader",
    outcome: "none",
    retryable: true,
    details: { leader: "h2:7070" },
  });
  await assert.rejects(client.call(wait, { text: "" }), { code: "unknown-outcome", outcome: "unknown" });
});

test("a request that does not fit its schema is refused before the handler, with the field named", async () => {
  let calls = 0;
  await using server = await startServer({
    echo: ({ text }) => {
      calls++;
      return { text };
    },
  });
  await using client = startClient(server.address);
  const tooLong = client.call(echo, { text: "x".repeat(100_001) });
  await assert.rejects(tooLong, { code: "invalid", message: /^echo: text must not have more than 100000/ });
  await assert.rejects(client.call(blob, { count: -1 }), { code: "invalid", details: { field: "count" } });
  assert.equal(calls, 0);
  assert.deepEqual(await client.call(echo, { text: "still there" }), { text: "still there" });
});

test("an answer that does not fit its schema is not handed to the caller", async () => {
  await using server = await startServer({
    blob: () => ({ data: "text" as unknown as Uint8Array }),
    add: () => ({ count: -1 }),
  });
  await using client = startClient(server.address);
  await assert.rejects(client.call(testService.methods.add, { to: "x", amount: 1 }), {
    code: "internal",
    outcome: "unknown",
  });
  await assert.rejects(client.call(blob, { count: 1 }), { code: "internal" });
});

test("a request above the server's frame limit is refused here and costs no connection", async () => {
  await using server = await startServer({}, { limits: { requestFrameBytesMax: 4096 } });
  await using client = startClient(server.address);
  await client.call(echo, { text: "" });
  await assert.rejects(client.call(echo, { text: "x".repeat(5000) }), {
    code: "invalid",
    outcome: "none",
    message: /larger than the limit of 4096 bytes/,
  });
  assert.equal(client.connected, true);
  await client.call(echo, { text: "x".repeat(4000) });
});

test("an answer above the client's frame limit is an error, and costs no connection", async () => {
  await using server = await startServer();
  await using client = startClient(server.address, { limits: { replyFrameBytesMax: 10_000 } });
  await assert.rejects(client.call(blob, { count: 20_000 }), {
    code: "internal",
    message: /larger than the client's limit/,
  });
  assert.equal((await client.call(blob, { count: 9_000 })).data.length, 9_000);
});

test("messages of many megabytes pass", async () => {
  await using server = await startServer();
  await using client = startClient(server.address);
  assert.equal((await client.call(blob, { count: 15_000_000 })).data.length, 15_000_000);
});

test("cancelling reaches the handler, and the caller does not wait for it", async () => {
  const reasons: unknown[] = [];
  await using server = await startServer({
    wait: (_, { signal }) =>
      new Promise((resolve) =>
        signal.addEventListener("abort", () => (reasons.push(signal.reason), resolve({ text: "" }))),
      ),
  });
  await using client = startClient(server.address);
  await client.call(echo, { text: "connect" });
  const controller = new AbortController();
  const call = client.call(wait, { text: "" }, { signal: controller.signal });
  await until(() => server.server.requestsUnderWay === 1, "the handler runs");
  controller.abort();
  await assert.rejects(call, { code: "cancelled", outcome: "unknown" });
  await until(() => reasons.length === 1, "the handler heard of it");
  assert.equal((reasons[0] as HeadpondError).code, "cancelled");
  await until(() => server.server.requestsUnderWay === 0, "it no longer counts");
  await assert.rejects(client.call(wait, { text: "" }, { signal: controller.signal }), {
    code: "cancelled",
    outcome: "none",
  });
});

test("the deadline ends the call at the client and fires the handler's signal at the server", async () => {
  const heard: { code: string; remainingMs: number }[] = [];
  await using server = await startServer({
    wait: (_, context) =>
      new Promise((resolve) => {
        assert(context.remainingMs() <= 60);
        context.signal.addEventListener("abort", () => {
          const { code } = context.signal.reason as HeadpondError;
          heard.push({ code, remainingMs: context.remainingMs() });
          resolve({ text: "late" });
        });
      }),
  });
  // The second client never says that it cancelled: the server must find the deadline by itself.
  const silentable = new SilentableNetwork();
  await using client = startClient(server.address, { network: silentable });
  await client.call(echo, { text: "connect" });
  const call = client.call(wait, { text: "" }, { timeoutMs: 60 });
  await until(() => server.server.requestsUnderWay === 1, "the handler runs");
  silentable.silent = true;
  await assert.rejects(call, { code: "timeout", outcome: "unknown" });
  await until(() => heard.length === 1, "the handler heard of it");
  assert.deepEqual(heard, [{ code: "timeout", remainingMs: 0 }]);
});

test("a call waiting for a connection ends at its deadline, with nothing sent", async () => {
  const listener = await network.listen(loopback, () => {});
  await using client = startClient(listener.address);
  await assert.rejects(client.call(echo, { text: "" }, { timeoutMs: 50 }), { code: "timeout", outcome: "none" });
  await listener.close();
});

test("when the connection breaks, requests that were sent are unknown and those that were not are none", async () => {
  let sockets: Connection[] = [];
  await using server = await startServer(
    { wait: () => new Promise(() => {}) },
    { limits: { requestsPerConnectionMax: 2 } },
  );
  const proxy = await network.listen(loopback, (near) => {
    void network.connect(server.address).then((far) => {
      far.onClose = () => near.destroy();
      near.onClose = () => far.destroy();
      far.onData = (chunk) => near.write(Buffer.from(chunk));
      near.onData = (chunk) => far.write(Buffer.from(chunk));
      sockets.push(near, far);
    });
  });
  await using client = startClient(proxy.address);
  const calls = Array.from({ length: 4 }, () => client.call(wait, { text: "" }));
  const results = Promise.allSettled(calls);
  await until(() => server.server.requestsUnderWay === 2, "two are with the server, two wait for room");
  for (const socket of sockets) socket.destroy();
  sockets = [];
  const outcomes = (await results).map((result) => {
    assert(result.status === "rejected");
    const { code, outcome } = result.reason as HeadpondError;
    return `${code} ${outcome}`;
  });
  assert.deepEqual(outcomes, ["unavailable unknown", "unavailable unknown", "unavailable none", "unavailable none"]);
  await proxy.close();
});

test("a half-open connection is found by its silence, idle or with a call under way", async () => {
  await using server = await startServer({ wait: () => new Promise(() => {}) });
  const network = new SilentableNetwork();
  const limits = { pingIntervalMs: 60, busyPingIntervalMs: 20, pingTimeoutMs: 40 };
  await using client = startClient(server.address, { network, limits });
  await client.call(echo, { text: "first" });
  const call = client.call(wait, { text: "" });
  await until(() => server.server.requestsUnderWay === 1, "the handler runs");
  // As long as the server answers pings, a slow handler is no reason to give up.
  await clock.sleep(200);
  assert.equal(client.connected, true);
  network.silent = true;
  await assert.rejects(call, { code: "unavailable", outcome: "unknown", message: /no sign of life/ });
  network.silent = false;
  await client.call(echo, { text: "again" });
  network.silent = true;
  await until(() => !client.connected, "the idle connection is given up");
});

test("the client connects again after the server was restarted, on the first call", async () => {
  const first = await startServer();
  await using client = startClient(first.address, { limits: { backoffMaxMs: 20 } });
  await client.call(echo, { text: "1" });
  await first.server.close();
  await until(() => !client.connected, "the loss is noticed");
  await assert.rejects(client.call(echo, { text: "2" }), { code: "unavailable", outcome: "none", retryable: true });
  await using _second = await startServer({}, { address: first.address });
  for (let attempt = 0; ; attempt++) {
    try {
      assert.deepEqual(await client.call(echo, { text: "3" }), { text: "3" });
      break;
    } catch (error) {
      assert.equal((error as HeadpondError).code, "unavailable");
      assert(attempt < 100);
      await clock.sleep(10);
    }
  }
});

test("calls beyond the limit of outstanding ones are refused as overloaded", async () => {
  await using server = await startServer({ wait: () => new Promise(() => {}) });
  await using client = startClient(server.address, { limits: { outstandingMax: 3 } });
  const calls = Promise.allSettled([1, 2, 3].map(() => client.call(wait, { text: "" })));
  await assert.rejects(client.call(echo, { text: "" }), { code: "overloaded", outcome: "none" });
  await client.close();
  for (const { status } of await calls) assert.equal(status, "rejected");
  await assert.rejects(client.call(echo, { text: "" }), { code: "unavailable", message: /client is closed/ });
});

test("a server that answers nonsense costs the connection, not the client", async () => {
  const random = new Random(seed);
  const listener = await network.listen(loopback, (connection) => {
    connection.onData = () => connection.write(random.bytes(200));
  });
  await using client = startClient(listener.address);
  for (let i = 0; i < 20; i++) await assert.rejects(client.call(echo, { text: "" }, { timeoutMs: 500 }), HeadpondError);
  await listener.close();
  assert.equal(preface.length, 4);
});

test("a stream gives its items in order and ends", async () => {
  await using server = await startServer();
  await using client = startClient(server.address, { limits: { streamWindowItems: 16, streamWindowBytes: 1000 } });
  const items: number[] = [];
  for await (const item of client.openStream(count, { until: 20_000 })) items.push(item.count);
  assert.equal(items.length, 20_000);
  assert(items.every((item, i) => item === i));
});

test("an unread stream makes the server produce no more than the window", async () => {
  let produced = 0;
  await using server = await startServer({
    count: async function* ({ until }) {
      for (let count = 0; count < until; count++) {
        produced++;
        yield { count };
      }
    },
  });
  await using client = startClient(server.address, { limits: { streamWindowItems: 10 } });
  const items = client.openStream(count, { until: 1_000_000 })[Symbol.asyncIterator]();
  assert.deepEqual(await items.next(), { done: false, value: { count: 0 } });
  await client.call(echo, { text: "others are not held up" });
  await clock.sleep(50);
  assert(produced <= 11, `${produced} items were produced`);
  for (let i = 1; i < 100; i++) assert.deepEqual(await items.next(), { done: false, value: { count: i } });
  await items.return?.();
});

test("leaving a stream early ends the handler, and an error ends the loop after the items before it", async () => {
  let ended = 0;
  await using server = await startServer({
    count: async function* ({ until }, { signal }) {
      try {
        for (let count = 0; ; count++) {
          if (count === until) throw new HeadpondError("compacted", "cut at 5");
          if (count > 100) await new Promise((resolve) => signal.addEventListener("abort", resolve));
          yield { count };
        }
      } finally {
        ended++;
      }
    },
  });
  await using client = startClient(server.address);
  for await (const { count: n } of client.openStream(count, { until: -1 })) if (n === 50) break;
  await until(() => ended === 1 && server.server.requestsUnderWay === 0, "the handler has ended");
  const items: number[] = [];
  const loop = async (): Promise<void> => {
    for await (const item of client.openStream(count, { until: 5 })) items.push(item.count);
  };
  await assert.rejects(loop(), { code: "compacted" });
  assert.deepEqual(items, [0, 1, 2, 3, 4]);
  assert.equal(ended, 2);
});

test("a stream's signal, and the loss of its connection, end it with an error", async () => {
  let aborted = 0;
  const first = await startServer({
    count: async function* (_, { signal }) {
      yield { count: 0 };
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      aborted++;
    },
  });
  await using client = startClient(first.address);
  const controller = new AbortController();
  const cancelled = client.openStream(count, { until: 1 }, { signal: controller.signal })[Symbol.asyncIterator]();
  await cancelled.next();
  const next = cancelled.next();
  controller.abort();
  await assert.rejects(next, { code: "cancelled" });
  await until(() => aborted === 1, "the handler heard of it");
  const broken = client.openStream(count, { until: 1 })[Symbol.asyncIterator]();
  await broken.next();
  await first.server.close();
  await assert.rejects(broken.next(), { code: "unavailable" });
  assert.deepEqual(await broken.next(), { done: true, value: undefined });
});
