/** The server against clients that behave, and against those that do not. */

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { type TestContext, test } from "node:test";
import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { BufferPool } from "./aligned-buffer.ts";
import type { HttpLimits } from "./http-limits.ts";
import { type HttpHandler, HttpServer } from "./http-server.ts";
import { silentLogger } from "./logger.ts";
import { Metrics } from "./metrics.ts";
import { NodeClock } from "./node-clock.ts";
import { processPages } from "./process-pages.ts";

type Started = { readonly server: HttpServer; readonly url: string; readonly port: number };

async function start(context: TestContext, handler: HttpHandler, limits: Partial<HttpLimits> = {}): Promise<Started> {
  const server = new HttpServer({ handler, clock: new NodeClock(), logger: silentLogger, limits });
  const { port } = await server.listen({ host: "127.0.0.1", port: 0 });
  context.after(() => server.close(0));
  return { server, port, url: `http://127.0.0.1:${port}` };
}

/** Sends raw bytes and collects everything until the server closes. */
async function raw(port: number, bytes: string): Promise<string> {
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => {});
  socket.write(bytes);
  let answer = "";
  socket.on("data", (chunk) => (answer += chunk.toString("latin1")));
  await new Promise((resolve) => socket.on("close", resolve));
  return answer;
}

test("a handler sees method, path, query, headers and body as they were sent", async (context) => {
  const { url } = await start(context, async (request, response) => {
    const body = (await request.json()) as unknown;
    const { method, path, headers, query } = request;
    response.json(201, { method, path, x: headers["x-test"], q: query.getAll("q"), body }, { "x-answer": "yes" });
  });
  const response = await fetch(`${url}/a%2Fb/c?q=1&q=%20`, {
    method: "PUT",
    body: '{"a":1}',
    headers: { "X-Test": "t" },
  });
  assert.equal(response.status, 201);
  assert.equal(response.headers.get("x-answer"), "yes");
  const expected = { method: "PUT", path: "/a%2Fb/c", x: "t", q: ["1", " "], body: { a: 1 } };
  assert.deepEqual(await response.json(), expected);
});

test("a thrown error becomes its status and its document, with Retry-After where it says when", async (context) => {
  const { url } = await start(context, async (request) => {
    if (request.path === "/busy") throw new HeadpondError("overloaded", "busy", { details: { retryAfterMs: 2500 } });
    throw new TypeError("a defect");
  });
  const busy = await fetch(`${url}/busy`);
  assert.equal(busy.status, 429);
  assert.equal(busy.headers.get("retry-after"), "3");
  assert.equal(((await busy.json()) as { code: string }).code, "overloaded");
  assert.equal((await fetch(`${url}/defect`)).status, 500);
});

test("an error after the head cuts the connection, so that a short body is never taken for a whole one", async (context) => {
  const { url } = await start(context, async (_request, response) => {
    response.head(200, { "content-length": 100 });
    await response.write(Buffer.from("half"));
    throw new HeadpondError("corrupt", "the rest is damaged");
  });
  const response = await fetch(url);
  await assert.rejects(response.arrayBuffer());
});

test("a body beyond the limit is refused, whether its length was announced or not", async (context) => {
  const { url } = await start(context, async (request, response) => response.text(200, await request.text(10)));
  const announced = await fetch(url, { method: "POST", body: "x".repeat(11) });
  assert.equal(announced.status, 400);
  assert.match(await announced.text(), /larger than 10 bytes/);
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.from("123456");
    yield Buffer.from("789012");
  };
  const unannounced = await fetch(url, { method: "POST", body: chunks(), duplex: "half" } as RequestInit);
  assert.equal(unannounced.status, 400);
});

test("headers beyond the limit, headers that never end and garbage end the connection, not the server", async (context) => {
  const limits = { headerBytesMax: 4096, headersTimeoutMs: 100 };
  const { url, port } = await start(context, async (_request, response) => response.text(200, "fine"), limits);
  assert.match(await raw(port, `GET / HTTP/1.1\r\nx: ${"y".repeat(5000)}\r\n\r\n`), /^HTTP\/1\.1 431 /);
  assert.match(await raw(port, "GET / HTTP/1.1\r\nx: never-ending"), /^HTTP\/1\.1 408 /);
  assert.match(await raw(port, "\x00\x01\x02garbage\r\n\r\n"), /^HTTP\/1\.1 400 /);
  assert.equal(await (await fetch(url)).text(), "fine");
});

test("connections beyond connectionsMax are closed at once", async (context) => {
  const { port } = await start(context, async (_request, response) => response.text(200, "fine"), {
    connectionsMax: 1,
  });
  const first = net.connect(port, "127.0.0.1");
  await once(first, "connect");
  first.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
  await once(first, "data");
  assert.equal(await raw(port, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"), "");
  first.destroy();
});

test("a pumped body is byte for byte the source's range, for one reader and for many that share few buffers", async (context) => {
  const seed = Date.now() >>> 0;
  console.log(`seed ${seed}`);
  const content = new Random(seed).bytes(3_000_001);
  const pool = new BufferPool({ bufferBytes: 64 * 1024, countMax: 4 });
  const source = {
    // Short reads now and then: the pump may not assume full ones.
    read: async (buffer: Uint8Array, position: number) => {
      const count = Math.min(buffer.length, content.length - position, position % 7 === 0 ? 50_001 : buffer.length);
      buffer.set(content.subarray(position, position + count));
      return count;
    },
  };
  const { url } = await start(context, async ({ query }, response) => {
    const from = Number(query.get("from"));
    const length = content.length - from;
    response.head(200, { "content-length": length });
    await response.pump(source, from, length, pool);
    response.end();
  });
  const read = async (from: number): Promise<void> => {
    const body = Buffer.from(await (await fetch(`${url}/?from=${from}`)).arrayBuffer());
    assert.ok(body.equals(content.subarray(from)), `from ${from}`);
  };
  await Promise.all([0, 1, 4095, 4096, 1_000_000, 2_999_999, 3_000_001, 77].map(read));
  assert.equal(pool.takenCount, 0);
});

test("a source that ends early, and a client that leaves, give all buffers back", async (context) => {
  const pool = new BufferPool({ bufferBytes: 1024 * 1024, countMax: 3 });
  const failures: unknown[] = [];
  const { url, port } = await start(context, async ({ path }, response) => {
    response.head(200, { "content-length": 2 ** 40 });
    const source = { read: async (buffer: Uint8Array) => (path === "/short" ? 0 : buffer.length) };
    try {
      await response.pump(source, 0, 2 ** 40, pool);
    } catch (error) {
      failures.push(error);
      throw error;
    }
  });
  await assert.rejects(async () => (await fetch(`${url}/short`)).arrayBuffer());
  const socket = net.connect(port, "127.0.0.1");
  socket.write("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n");
  await once(socket, "data");
  socket.destroy();
  while (failures.length < 2) await new NodeClock().sleep(5);
  assert.deepEqual(
    failures.map((error) => (error as HeadpondError).code),
    ["corrupt", "cancelled"],
  );
  assert.equal(pool.takenCount, 0);
});

test("a client that stops reading is cut off after stallTimeoutMs and its buffers are free again", async (context) => {
  const pool = new BufferPool({ bufferBytes: 1024 * 1024, countMax: 3 });
  const failed = Promise.withResolvers<unknown>();
  const handler: HttpHandler = async (_request, response) => {
    response.head(200, { "content-length": 2 ** 40 });
    const pumping = response.pump({ read: async (buffer) => buffer.length }, 0, 2 ** 40, pool);
    await pumping.catch(failed.resolve);
    response.destroy();
  };
  const { port } = await start(context, handler, { stallTimeoutMs: 100 });
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => {});
  socket.pause();
  socket.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
  assert.equal(((await failed.promise) as HeadpondError).code, "timeout");
  assert.equal(pool.takenCount, 0);
  socket.destroy();
});

test("HEAD gets the head of GET and no body", async (context) => {
  const pool = new BufferPool({ bufferBytes: 4096, countMax: 1 });
  const { url } = await start(context, async (_request, response) => {
    response.head(200, { "content-length": 5 });
    await response.pump({ read: () => assert.fail("nobody reads for HEAD") }, 0, 5, pool);
    response.end();
  });
  const response = await fetch(url, { method: "HEAD" });
  assert.equal(response.headers.get("content-length"), "5");
  assert.equal(await response.text(), "");
});

test("trailers follow a body in chunks", async (context) => {
  const { port } = await start(context, async (_request, response) => {
    response.head(200, { trailer: "x-checksum" });
    await response.write(Buffer.from("abc"));
    response.end({ "x-checksum": "77" });
  });
  const answer = await raw(port, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
  assert.match(answer, /3\r\nabc\r\n0\r\nx-checksum: 77\r\n\r\n$/i);
});

test("close lets a running request finish, refuses new connections and cuts what outlives the grace", async (context) => {
  const started = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  const { server, url, port } = await start(context, async ({ path }, response) => {
    if (path === "/slow") {
      started.resolve();
      await finish.promise;
    }
    response.text(200, "done");
  });
  await (await fetch(`${url}/fast`)).text();
  const slow = fetch(`${url}/slow`);
  await started.promise;
  const closing = server.close(60_000);
  assert.equal(await raw(port, "GET / HTTP/1.1\r\n\r\n"), "");
  finish.resolve();
  assert.equal(await (await slow).text(), "done");
  await closing;
  assert.equal(server.connectionCount, 0);

  const stuck = await start(context, () => new Promise(() => {}));
  const hanging = assert.rejects(fetch(stuck.url));
  while (stuck.server.connectionCount === 0) await new NodeClock().sleep(2);
  await stuck.server.close(10);
  await hanging;
});

test("every process says whether it lives, whether it can serve and why not, and its metrics", async (context) => {
  const metrics = new Metrics();
  metrics.counter("headpond_test_requests_total", "requests")(3);
  let reason: string | undefined = "no leader yet";
  const pages = processPages({ metrics, unready: () => reason });
  const { url } = await start(context, async (request, response) => {
    if (!(await pages(request, response))) response.empty(404);
  });
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  const unready = await fetch(`${url}/readyz`);
  assert.equal(unready.status, 503);
  assert.equal(await unready.text(), "no leader yet\n");
  reason = undefined;
  assert.equal((await fetch(`${url}/readyz`)).status, 200);
  assert.match(await (await fetch(`${url}/metrics`)).text(), /^headpond_test_requests_total 3$/m);
  assert.equal((await fetch(`${url}/other`)).status, 404);
});

test("what a client has asked for ahead is not begun when it has left", async (context) => {
  const clock = new NodeClock();
  const seen: string[] = [];
  const { server, port } = await start(context, async (request, response) => {
    seen.push(request.path);
    await new Promise<void>((resolve) => request.signal.addEventListener("abort", () => resolve()));
    response.destroy();
  });
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => {});
  socket.write("GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n");
  while (seen.length === 0) await clock.sleep(5);
  socket.destroy();
  while (server.connectionCount > 0) await clock.sleep(5);
  // Nothing is left that its end would wait for.
  await server.close(60_000);
  assert.deepEqual(seen, ["/first"]);
});
