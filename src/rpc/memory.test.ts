/** The same machinery on simulated time and network: hours pass at once, and every run is the same. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { MemoryNetwork } from "../io/memory-network.ts";
import { RpcClient } from "./client.ts";
import { RpcServer } from "./server.ts";
import { clientSelf, plainHandlers, serverSelf, type TestHandlers, testService } from "./test-service.ts";

const { echo, wait } = testService.methods;
const address = { host: "m1", port: 7070 };

async function world(handlers: Partial<TestHandlers> = {}) {
  const clock = new ManualClock();
  const network = new MemoryNetwork({ clock, latencyMs: 5 });
  const options = { service: testService, clock, logger: silentLogger };
  const server = new RpcServer({ ...options, self: serverSelf, handlers: { ...plainHandlers, ...handlers } });
  await server.listen(network.at("m1"), address);
  const client = new RpcClient({ ...options, network: network.at("c1"), address, self: clientSelf });
  /** Lets time pass in small steps, with everything that it causes. */
  const pass = async (durationMs: number, stepMs = 5): Promise<void> => {
    for (let passedMs = 0; passedMs < durationMs; passedMs += stepMs) {
      await clock.advance(stepMs);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { clock, network, server, client, pass };
}

function record(promise: Promise<unknown>): { result: unknown } {
  const record: { result: unknown } = { result: "pending" };
  promise.then(
    (value: unknown) => (record.result = value),
    (error: unknown) => (record.result = error),
  );
  return record;
}

test("a call costs one round trip for the connection, one for the hello and one for itself", async () => {
  const { client, pass } = await world();
  const first = record(client.call(echo, { text: "a" }));
  await pass(20);
  assert.equal(first.result, "pending");
  await pass(10);
  assert.deepEqual(first.result, { text: "a" });
  const second = record(client.call(echo, { text: "b" }));
  await pass(10);
  assert.deepEqual(second.result, { text: "b" });
});

test("a server that vanished is noticed within the ping's limits, and found again when it is back", async () => {
  const { client, network, pass, server } = await world({ wait: () => new Promise(() => {}) });
  await Promise.all([client.call(echo, { text: "a" }), pass(50)]);
  const call = record(client.call(wait, { text: "" }));
  await pass(20);
  assert.equal(server.requestsUnderWay, 1);
  network.vanish("m1");
  await pass(2_500, 50);
  assert.equal(call.result, "pending");
  await pass(2_000, 50);
  assert(isHeadpondError(call.result, "unavailable"));
  assert.equal(call.result.outcome, "unknown");
  network.appear("m1");
  await server.listen(network.at("m1"), address);
  const again = record(client.call(echo, { text: "again" }));
  await pass(50);
  assert.deepEqual(again.result, { text: "again" });
});

test("a client that vanished is forgotten by the server, and its handlers are told", async () => {
  const reasons: unknown[] = [];
  const { client, network, pass, server } = await world({
    wait: (_, { signal }) =>
      new Promise((resolve) =>
        signal.addEventListener("abort", () => (reasons.push(signal.reason), resolve({ text: "" }))),
      ),
  });
  void record(client.call(wait, { text: "" }, { timeoutMs: Number.POSITIVE_INFINITY }));
  await pass(50);
  assert.equal(server.requestsUnderWay, 1);
  network.vanish("c1");
  await pass(58_000, 500);
  assert.equal(server.connectionCount, 1);
  await pass(4_000, 500);
  assert.equal(server.connectionCount, 0);
  assert.equal(reasons.length, 1);
});

test("a short partition delays calls and breaks nothing", async () => {
  const { client, network, pass } = await world();
  await Promise.all([client.call(echo, { text: "a" }), pass(50)]);
  network.partition("c1", "m1");
  const call = record(client.call(echo, { text: "late" }));
  await pass(1_500, 50);
  assert.equal(call.result, "pending");
  network.heal();
  await pass(100);
  assert.deepEqual(call.result, { text: "late" });
  assert.equal(client.connected, true);
});

test("an idle connection lives for hours on pings alone", async () => {
  const { client, pass, server } = await world();
  await Promise.all([client.call(echo, { text: "a" }), pass(50)]);
  await pass(6 * 3600 * 1000, 2000);
  assert.equal(client.connected, true);
  assert.equal(server.connectionCount, 1);
});
