/** Files past this process, through the HTTP server as workers use it. */

import assert from "node:assert/strict";
import fs from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type ErrorCode, isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { alignedBuffer } from "./aligned-buffer.ts";
import { FileSender } from "./file-sender.ts";
import { HttpClient } from "./http-client.ts";
import { type HttpHandler, type HttpLimits, HttpServer } from "./http-server.ts";
import { silentLogger } from "./logger.ts";
import { NodeClock } from "./node-clock.ts";
import { NodeDisk } from "./node-disk.ts";

const clock = new NodeClock();
const probe = await FileSender.open({ threads: 0, logger: silentLogger });
const skip = probe === undefined && "this machine has no koffi, or is no Linux";

type File = { readonly descriptor: number; readonly content: Buffer };

/** A file of random bytes; `cold`: none of it in the page cache. */
async function makeFile(context: TestContext, bytes: number, cold = false): Promise<File> {
  const directory = fs.mkdtempSync(join(tmpdir(), "headpond-sender-"));
  context.after(() => fs.rmSync(directory, { recursive: true }));
  const content = alignedBuffer(bytes);
  content.set(new Random(bytes).bytes(bytes));
  const disk = new NodeDisk();
  const written = await disk.open(`${directory}/f`, "create", { direct: cold });
  await written.write(content, 0);
  await written.close();
  const file = await disk.open(`${directory}/f`, "read");
  context.after(() => file.close());
  return { descriptor: file.descriptor ?? assert.fail(), content };
}

async function openSender(context: TestContext, threads = 1): Promise<FileSender> {
  const sender = (await FileSender.open({ threads, logger: silentLogger })) ?? assert.fail();
  context.after(() => sender.close());
  return sender;
}

async function serve(context: TestContext, handler: HttpHandler, limits: Partial<HttpLimits> = {}): Promise<number> {
  const server = new HttpServer({ handler, clock, logger: silentLogger, limits });
  const { port } = await server.listen({ host: "127.0.0.1", port: 0 });
  context.after(() => server.close(0));
  return port;
}

/** Answers `/FROM-TO` with that part of the file. */
function partsOf({ descriptor }: File, sender: FileSender, onOutcome: (sent: Promise<number>) => void): HttpHandler {
  return async (request, response) => {
    const [from = 0, to = 0] = request.path.slice(1).split("-").map(Number);
    response.head(200, { "content-length": to - from });
    assert.ok(response.canSendFile);
    const sent = response.sendFile(sender, { descriptor, position: from, lengthBytes: to - from }, () => {});
    onOutcome(sent);
    if ((await sent) !== to - from) throw new Error("the file is too short");
    response.end();
  };
}

function makeClient(context: TestContext, connectionsPerOriginMax = 64): HttpClient {
  const client = new HttpClient({ clock, limits: { connectionsPerOriginMax } });
  context.after(() => client.close());
  return client;
}

async function get(client: HttpClient, port: number, path: string): Promise<Buffer> {
  const response = await client.request({ method: "GET", url: `http://127.0.0.1:${port}/${path}` });
  return response.bytes(64 * MiB);
}

const coded =
  (...codes: ErrorCode[]) =>
  (error: unknown): boolean =>
    isHeadpondError(error, ...codes);

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadlineMs = clock.monotonicMs() + 30_000;
  while (!condition()) {
    if (clock.monotonicMs() > deadlineMs) throw new Error(`waited in vain until ${what}`);
    await clock.sleep(5);
  }
}

/** A client that sends a request and reads nothing of the answer. */
function deafClient(context: TestContext, port: number, path: string): net.Socket {
  const socket = net.connect(port, "127.0.0.1");
  context.after(() => socket.destroy());
  socket.on("error", () => {});
  socket.pause();
  socket.write(`GET /${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
  return socket;
}

const openDescriptors = (): number => fs.readdirSync("/proc/self/fd").length;

test("parts of a file arrive byte for byte, one after another on one kept connection", { skip }, async (context) => {
  const seed = Date.now() >>> 0;
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const file = await makeFile(context, 5 * MiB);
  const sender = await openSender(context);
  const port = await serve(
    context,
    partsOf(file, sender, () => {}),
  );
  const client = makeClient(context, 1);
  for (let i = 0; i < 30; i++) {
    const from = random.between(0, 5 * MiB - 1);
    const to = random.between(from + 1, 5 * MiB);
    assert.ok((await get(client, port, `${from}-${to}`)).equals(file.content.subarray(from, to)), `${from}-${to}`);
  }
  await until("the last send has ended", () => sender.activeSends === 0);
});

test("many readers at once on two threads each get their own part, also of a file that is only on the disk", {
  skip,
}, async (context) => {
  for (const cold of [true, false]) {
    const file = await makeFile(context, 8 * MiB, cold);
    const sender = await openSender(context, 2);
    const port = await serve(
      context,
      partsOf(file, sender, () => {}),
    );
    const client = makeClient(context);
    const parts = Array.from({ length: 48 }, (_, i) => [i * 100_000, 3 * MiB + i * 100_000] as const);
    await Promise.all(
      parts.map(async ([from, to]) => {
        assert.ok((await get(client, port, `${from}-${to}`)).equals(file.content.subarray(from, to)));
      }),
    );
  }
});

test("a reader that leaves ends its send, and no descriptor stays open", { skip }, async (context) => {
  const file = await makeFile(context, 16 * MiB);
  const sender = await openSender(context);
  const outcomes: Promise<number>[] = [];
  const port = await serve(
    context,
    partsOf(file, sender, (sent) => outcomes.push(sent)),
  );
  let before = 0;
  for (let i = 0; i < 8; i++) {
    // The first round is the thread's start, which opens some of its own.
    if (i === 1) before = openDescriptors();
    const socket = deafClient(context, port, `0-${16 * MiB}`);
    await until("it is being sent", () => sender.activeSends === 1);
    socket.destroy();
    await assert.rejects(outcomes[i] ?? assert.fail(), coded("cancelled"));
  }
  await until("all descriptors are closed", () => openDescriptors() <= before);
});

test("a reader that takes nothing is cut after the time that it has, and others are served meanwhile", {
  skip,
}, async (context) => {
  const file = await makeFile(context, 16 * MiB);
  const sender = await openSender(context);
  const outcomes: Promise<number>[] = [];
  const handler = partsOf(file, sender, (sent) => outcomes.push(sent));
  const port = await serve(context, handler, { stallTimeoutMs: 700 });
  const socket = deafClient(context, port, `0-${16 * MiB}`);
  const closed = new Promise((resolve) => socket.once("close", resolve));
  await until("it is being sent", () => sender.activeSends === 1);
  const client = makeClient(context);
  assert.ok((await get(client, port, "7-1000007")).equals(file.content.subarray(7, 1_000_007)));
  await assert.rejects(outcomes[0] ?? assert.fail(), coded("timeout"));
  socket.resume();
  await closed;
});

test("a file that is shorter than was promised cuts the connection, and the sender says how much there was", {
  skip,
}, async (context) => {
  const file = await makeFile(context, 3 * MiB);
  const sender = await openSender(context);
  const outcomes: Promise<number>[] = [];
  const port = await serve(
    context,
    partsOf(file, sender, (sent) => outcomes.push(sent)),
  );
  await assert.rejects(get(makeClient(context), port, `${MiB}-${4 * MiB}`), coded("unavailable"));
  assert.equal(await outcomes[0], 2 * MiB);
});

test("an abort ends a send with its reason; after close, nothing is sent", { skip }, async (context) => {
  const file = await makeFile(context, 16 * MiB);
  const sender = (await FileSender.open({ threads: 1, logger: silentLogger })) ?? assert.fail();
  const sockets: net.Socket[] = [];
  const server = net.createServer((socket) => void sockets.push(socket.on("error", () => {})));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => server.close());
  const reader = net.connect((server.address() as net.AddressInfo).port, "127.0.0.1").pause();
  context.after(() => reader.destroy());
  await until("it is accepted", () => sockets.length === 1);
  const [socket] = sockets;
  const descriptor = (socket as unknown as { _handle: { fd: number } })._handle.fd;
  const common = {
    socket: descriptor,
    file: file.descriptor,
    position: 0,
    lengthBytes: 16 * MiB,
    stallTimeoutMs: 60_000,
  };
  let sentBytes = 0;
  const onSent = (bytes: number): void => void (sentBytes += bytes);
  const abort = new AbortController();
  const aborted = sender.send({ ...common, signal: abort.signal, onSent });
  const reason = new Error("changed my mind");
  abort.abort(reason);
  await assert.rejects(aborted, (error) => error === reason);
  assert.ok(sentBytes < 16 * MiB);
  const cut = sender.send({ ...common, onSent });
  await Promise.all([assert.rejects(cut, coded("cancelled")), sender.close()]);
  await assert.rejects(sender.send({ ...common, onSent }), coded("cancelled"));
  socket?.destroy();
});

test("requests that come before the answer to the one before wait for their turn; a body in chunks is not sent past the stream", async (context) => {
  const seen: string[] = [];
  const release = Promise.withResolvers<void>();
  const port = await serve(context, async (request, response) => {
    response.head(200, request.path === "/chunks" ? {} : { "content-length": 3 });
    seen.push(`${request.path} ${response.canSendFile}`);
    if (request.path === "/first") await release.promise;
    await response.write(Buffer.from("abc"));
    response.end();
  });
  const socket = net.connect(port, "127.0.0.1");
  context.after(() => socket.destroy());
  let text = "";
  socket.on("data", (chunk) => (text += chunk.toString()));
  for (const path of ["first", "second", "chunks"]) socket.write(`GET /${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await until("the first request was seen", () => seen.length === 1);
  await clock.sleep(20);
  assert.equal(seen.length, 1);
  release.resolve();
  await until("all are answered", () => text.split("HTTP/1.1 200").length === 4 && text.endsWith("0\r\n\r\n"));
  assert.equal(seen[0], "/first true");
  assert.equal(seen[1], "/second true");
  assert.equal(seen[2], "/chunks false");
});
