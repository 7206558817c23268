/** The client against our server, and against raw servers that lie, stall, leave and babble. */

import assert from "node:assert/strict";
import net from "node:net";
import { type TestContext, test } from "node:test";
import { type ErrorCode, isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { BufferPool } from "./aligned-buffer.ts";
import { HttpClient, type HttpClientLimits } from "./http-client.ts";
import { type HttpHandler, HttpServer } from "./http-server.ts";
import { silentLogger } from "./logger.ts";
import { NodeClock } from "./node-clock.ts";

const clock = new NodeClock();

function makeClient(context: TestContext, limits: Partial<HttpClientLimits> = {}): HttpClient {
  const client = new HttpClient({ clock, limits });
  context.after(() => client.close());
  return client;
}

async function serve(context: TestContext, handler: HttpHandler): Promise<string> {
  const server = new HttpServer({ handler, clock, logger: silentLogger });
  const { port } = await server.listen({ host: "127.0.0.1", port: 0 });
  context.after(() => server.close(0));
  return `http://127.0.0.1:${port}`;
}

/** A server that is handed sockets and the number of the connection. */
async function serveRaw(context: TestContext, onSocket: (socket: net.Socket, count: number) => void): Promise<string> {
  let count = 0;
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    onSocket(socket, count++);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`;
}

const coded =
  (...codes: ErrorCode[]) =>
  (error: unknown): boolean =>
    isHeadpondError(error, ...codes);

test("a body arrives byte for byte through every way of reading, at any pace", async (context) => {
  const seed = Date.now() >>> 0;
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const content = Buffer.from(random.bytes(2_500_000));
  const pool = new BufferPool({ bufferBytes: 256 * 1024, countMax: 8 });
  const source = {
    read: async (buffer: Uint8Array, position: number) => {
      const piece = content.subarray(position, position + buffer.length);
      buffer.set(piece);
      return piece.length;
    },
  };
  const url = await serve(context, async ({ path }, response) => {
    response.head(200, path === "/length" ? { "content-length": content.length } : { trailer: "x-sum" });
    await response.pump(source, 0, content.length, pool);
    response.end(path === "/length" ? undefined : { "x-sum": "42" });
  });
  const client = makeClient(context, { readBufferBytes: 16 * 1024 });
  for (const path of ["/length", "/chunks"]) {
    const get = () => client.request({ method: "GET", url: `${url}${path}` });
    assert.ok((await (await get()).bytes(content.length)).equals(content));

    const slow = await get();
    const pieces: Buffer[] = [];
    await slow.consume(async (bytes) => {
      // The piece must stay what it is until the promise is fulfilled.
      if (random.chance(0.2)) await clock.sleep(1);
      else await Promise.resolve();
      pieces.push(Buffer.from(bytes));
    });
    assert.ok(Buffer.concat(pieces).equals(content));
    if (path === "/chunks") assert.equal(slow.trailers["x-sum"], "42");

    const pulled = await get();
    const target = Buffer.alloc(content.length + 10);
    let filled = 0;
    for (;;) {
      const wanted = random.between(1, 100_000);
      const count = await pulled.readInto(target.subarray(filled, filled + wanted));
      filled += count;
      if (count < Math.min(wanted, target.length - filled + count)) break;
    }
    assert.ok(target.subarray(0, filled).equals(content));
  }
  assert.equal(client.connectionCount, 1, "one connection served them all, one after the other");
});

test("method, target, headers and body reach the server", async (context) => {
  const url = await serve(context, async (request, response) => {
    const { method, target, headers } = request;
    response.json(200, { method, target, x: headers["x-test"], host: headers["host"], body: await request.text() });
  });
  const client = makeClient(context);
  const post = async (body: Uint8Array | AsyncIterable<Uint8Array> | undefined, headers = {}): Promise<unknown> => {
    const request = { method: "PUT", url: `${url}/a?b=c%20d`, headers: { "X-Test": "1", ...headers } };
    const response = await client.request(body === undefined ? request : { ...request, body });
    return JSON.parse(await response.text(2e6)) as unknown;
  };
  const expected = { method: "PUT", target: "/a?b=c%20d", x: "1", host: new URL(url).host };
  const stream = async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.from("one ");
    yield Buffer.from("two");
  };
  assert.deepEqual(await post(Buffer.from("whole")), { ...expected, body: "whole" });
  assert.deepEqual(await post(stream()), { ...expected, body: "one two" });
  assert.deepEqual(await post(stream(), { "content-length": "7" }), { ...expected, body: "one two" });
  assert.deepEqual(await post(undefined), { ...expected, body: "" });
  assert.equal(client.connectionCount, 1);
  await assert.rejects(post(stream(), { "content-length": "8" }), coded("invalid"));
  await assert.rejects(post(stream(), { "content-length": "6" }), coded("invalid"));
  const large = Buffer.alloc(1_000_000, "z");
  assert.deepEqual(await post(large), { ...expected, body: large.toString() });
  const raw = await client.request({ method: "GET", url, target: "/x/../y//z" });
  assert.equal((JSON.parse(await raw.text(1e6)) as { target: string }).target, "/x/../y//z");
});

test("what would smuggle another header or request is refused", async (context) => {
  const client = makeClient(context);
  const url = "http://127.0.0.1:1/";
  await assert.rejects(client.request({ method: "GET", url, headers: { a: "b\r\nc: d" } }), coded("invalid"));
  await assert.rejects(client.request({ method: "GET", url, headers: { "a b": "c" } }), coded("invalid"));
  await assert.rejects(client.request({ method: "GET", url, target: "/a b" }), coded("invalid"));
  await assert.rejects(client.request({ method: "GET /x", url }), coded("invalid"));
  await assert.rejects(client.request({ method: "GET", url: "ftp://127.0.0.1/" }), coded("invalid"));
  await assert.rejects(client.request({ method: "GET", url: "not a url" }), coded("invalid"));
});

test("HEAD has no body, and its connection is used again", async (context) => {
  const url = await serve(context, async (_request, response) => response.bytes(200, Buffer.alloc(1000)));
  const client = makeClient(context);
  const head = await client.request({ method: "HEAD", url });
  assert.equal(head.lengthBytes, 1000);
  assert.equal((await head.bytes(0)).length, 0);
  assert.equal((await (await client.request({ method: "GET", url })).bytes(1000)).length, 1000);
  assert.equal(client.connectionCount, 1);
});

test("a body shorter than its length is unavailable, one longer spoils only its connection", async (context) => {
  const url = await serveRaw(context, (socket) => {
    socket.on("data", (chunk) => {
      const short = chunk.toString().includes("/short");
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${short ? 10 : 3}\r\n\r\nabcdef`);
      if (short) socket.end();
    });
  });
  const client = makeClient(context);
  const short = await client.request({ method: "GET", url: `${url}/short` });
  await assert.rejects(short.bytes(100), coded("unavailable"));
  for (let i = 0; i < 3; i++) {
    const long = await client.request({ method: "GET", url: `${url}/long` });
    assert.equal(await long.text(100), "abc");
  }
  assert.equal(client.connectionCount, 0);
});

test("a body until the close is whole when the peer ends, broken when it resets", async (context) => {
  const url = await serveRaw(context, (socket) => {
    socket.on("data", (chunk) => {
      socket.write("HTTP/1.1 200 OK\r\n\r\nabc");
      if (chunk.toString().includes("/ends")) socket.end();
      else setTimeout(() => socket.resetAndDestroy(), 20);
    });
  });
  const client = makeClient(context);
  assert.equal(await (await client.request({ method: "GET", url: `${url}/ends` })).text(100), "abc");
  await assert.rejects(async () => (await client.request({ method: "GET", url })).text(100), coded("unavailable"));
});

test("garbage, endless heads and silence are told apart", async (context) => {
  const url = await serveRaw(context, (socket) => {
    socket.once("data", (chunk) => {
      const request = chunk.toString();
      if (request.includes("/garbage")) socket.write("\x00\x01 not HTTP at all\r\n\r\n");
      else if (request.includes("/endless")) socket.write(`HTTP/1.1 200 OK\r\nx: ${"y".repeat(100_000)}`);
      else if (request.includes("/stall")) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc");
    });
  });
  const client = makeClient(context);
  const get = (path: string) => client.request({ method: "GET", url: `${url}${path}`, idleTimeoutMs: 60 });
  await assert.rejects(get("/garbage"), coded("corrupt"));
  await assert.rejects(get("/endless"), coded("corrupt"));
  await assert.rejects(get("/silence"), coded("timeout"));
  const stalled = await get("/stall");
  await assert.rejects(stalled.bytes(10), coded("timeout"));
  assert.equal(client.connectionCount, 0);
});

test("a reader that takes its time is not a peer that stalls", async (context) => {
  const url = await serve(context, async (_request, response) => response.bytes(200, Buffer.alloc(3_000_000)));
  const client = makeClient(context);
  const response = await client.request({ method: "GET", url, idleTimeoutMs: 30 });
  const target = Buffer.alloc(1_000_000);
  for (let i = 0; i < 3; i++) {
    await clock.sleep(80);
    assert.equal(await response.readInto(target), 1_000_000);
  }
  assert.equal(await response.readInto(target), 0);
});

test("a GET that met a stale kept connection is repeated on a fresh one, a PUT is not", async (context) => {
  const requests: string[] = [];
  const url = await serveRaw(context, (socket, count) => {
    let served = 0;
    socket.on("data", (chunk) => {
      requests.push(`${chunk.toString().slice(0, 3)} on ${count}`);
      if (served++ > 0) socket.resetAndDestroy();
      else socket.write("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n!");
    });
  });
  const client = makeClient(context);
  const request = async (method: string): Promise<string> => (await client.request({ method, url })).text(1);
  assert.equal(await request("GET"), "!");
  assert.equal(await request("GET"), "!");
  await assert.rejects(request("PUT"), coded("unavailable"));
  assert.deepEqual(requests, ["GET on 0", "GET on 0", "GET on 1", "PUT on 1"]);
});

test("a fresh connection that breaks is not tried again, nor one that had begun to answer", async (context) => {
  let connections = 0;
  const url = await serveRaw(context, (socket) => {
    connections++;
    let served = 0;
    socket.on("data", (chunk) => {
      if (chunk.toString().includes("/break")) socket.destroy();
      else if (served++ === 0) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n!");
      else socket.end("HTTP/1.1 200");
    });
  });
  const client = makeClient(context);
  await assert.rejects(client.request({ method: "GET", url: `${url}/break` }), coded("unavailable"));
  assert.equal(connections, 1);
  assert.equal(await (await client.request({ method: "GET", url })).text(1), "!");
  await assert.rejects(client.request({ method: "GET", url }), coded("unavailable"));
  assert.equal(connections, 2);
});

test("no more connections than the limit; the rest wait in order, and leave when aborted", async (context) => {
  let active = 0;
  let most = 0;
  const url = await serve(context, async (_request, response) => {
    most = Math.max(most, ++active);
    await clock.sleep(5);
    active--;
    response.text(200, "x");
  });
  const client = makeClient(context, { connectionsPerOriginMax: 2, waitersPerOriginMax: 20 });
  const get = async (signal?: AbortSignal): Promise<string> => {
    const request = { method: "GET", url };
    return (await client.request(signal === undefined ? request : { ...request, signal })).text(1);
  };
  const abort = new AbortController();
  const all = Array.from({ length: 20 }, () => get());
  const leaving = get(abort.signal);
  const last = get();
  abort.abort(new Error("left"));
  await assert.rejects(leaving, /left/);
  await Promise.all([...all, last]);
  assert.equal(most, 2);

  const few = makeClient(context, { connectionsPerOriginMax: 1, waitersPerOriginMax: 0 });
  const held = await few.request({ method: "GET", url });
  await assert.rejects(few.request({ method: "GET", url }), coded("overloaded"));
  held.destroy();
  assert.equal(await (await few.request({ method: "GET", url })).text(1), "x");
});

test("an abort ends the wait for the head and the reading of the body with its reason", async (context) => {
  const url = await serveRaw(context, (socket) => {
    socket.once("data", (chunk) => {
      if (chunk.toString().includes("/body")) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc");
    });
  });
  const client = makeClient(context);
  for (const path of ["/head", "/body"]) {
    const abort = new AbortController();
    const reading = (async () => {
      const response = await client.request({ method: "GET", url: `${url}${path}`, signal: abort.signal });
      await response.bytes(10);
    })();
    setTimeout(() => abort.abort(new Error("enough")), 20);
    await assert.rejects(reading, /enough/);
  }
  assert.equal(client.connectionCount, 0);
});

test("a refused connection is unavailable and names the peer; closing ends what is under way", async (context) => {
  const client = makeClient(context);
  await assert.rejects(client.request({ method: "GET", url: "http://127.0.0.1:1/" }), (error) => {
    return isHeadpondError(error, "unavailable") && /127\.0\.0\.1:1/.test(error.message);
  });
  const url = await serveRaw(context, () => {});
  const pending = client.request({ method: "GET", url });
  setTimeout(() => void client.close(), 10);
  await assert.rejects(pending, coded("cancelled"));
  await assert.rejects(client.request({ method: "GET", url }), coded("cancelled"));
  assert.equal(client.connectionCount, 0);
});

test("the last piece stays what it is while its consumer works, though others use the client meanwhile", async (context) => {
  const url = await serve(context, async ({ path }, response) => response.text(200, path.repeat(1000)));
  const client = makeClient(context);
  const get = (path: string) => client.request({ method: "GET", url: `${url}${path}` });
  const release = Promise.withResolvers<void>();
  let seen = "";
  const slow = (await get("/aaaa")).consume(async (bytes) => {
    await release.promise;
    seen += Buffer.from(bytes).toString();
  });
  await clock.sleep(20);
  assert.equal(await (await get("/bbbb")).text(1e6), "/bbbb".repeat(1000));
  release.resolve();
  await slow;
  assert.equal(seen, "/aaaa".repeat(1000));
  assert.equal(client.connectionCount, 2);
});

test("a consumer that throws ends the connection and gets its own error", async (context) => {
  const url = await serve(context, async (_request, response) => response.bytes(200, Buffer.alloc(1_000_000)));
  const client = makeClient(context);
  for (const consumer of [() => assert.fail("mine"), async () => assert.fail("mine")]) {
    const response = await client.request({ method: "GET", url });
    await assert.rejects(response.consume(consumer), /mine/);
  }
  const response = await client.request({ method: "GET", url });
  await assert.rejects(response.bytes(1000), coded("invalid"));
  assert.equal(client.connectionCount, 0);
});

test("a body arrives in the reader's own memory, with a length, in chunks, and from a server that sends more", async (context) => {
  const seed = Date.now() >>> 0;
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const content = Buffer.from(random.bytes(3_000_000));
  const url = await serve(context, async (request, response) => {
    response.head(200, request.path === "/chunks" ? {} : { "content-length": content.length });
    for (let at = 0; at < content.length; ) {
      const piece = content.subarray(at, at + random.between(1, 400_000));
      await response.write(piece);
      at += piece.length;
    }
    response.end();
  });
  const client = makeClient(context, { connectionsPerOriginMax: 1 });
  for (const path of ["length", "chunks", "length", "chunks"]) {
    for (const room of [content.length, content.length + 5, 1_234_567]) {
      const response = await client.request({ method: "GET", url: `${url}/${path}` });
      const into = Buffer.alloc(room);
      let at = 0;
      await response.consume(
        (piece) => {
          const isInPlace = piece.buffer === into.buffer && piece.byteOffset === into.byteOffset + at;
          assert.equal(isInPlace, at < room, `${at} of ${room}`);
          assert.ok(content.subarray(at, at + piece.length).equals(piece));
          at += piece.length;
        },
        { into },
      );
      assert.equal(at, content.length);
      const expected = Buffer.alloc(room);
      content.copy(expected);
      assert.ok(into.equals(expected), "what is behind the body is untouched");
    }
  }
});

test("after an abort nothing is written into the reader's memory any more", async (context) => {
  const release = Promise.withResolvers<void>();
  const url = await serve(context, async (_request, response) => {
    response.head(200, { "content-length": 2_000_000 });
    await response.write(Buffer.alloc(1_000_000, 1));
    await release.promise;
    await response.write(Buffer.alloc(1_000_000, 2)).catch(() => {});
    response.end();
  });
  const abort = new AbortController();
  const response = await makeClient(context).request({ method: "GET", url, signal: abort.signal });
  const into = Buffer.alloc(2_000_000);
  let count = 0;
  const consumed = response.consume(
    (piece) => {
      count += piece.length;
      if (count === 1_000_000) abort.abort(new Error("enough"));
    },
    { into },
  );
  await assert.rejects(consumed, /enough/);
  into.fill(9);
  release.resolve();
  await clock.sleep(50);
  assert.ok(into.every((byte) => byte === 9));
});
