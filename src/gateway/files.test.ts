import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import http from "node:http";
import { after, before, test } from "node:test";
import { MiB } from "../base/units.ts";
import { type FakeGateways, startFakeGateways } from "../testing/fake-gateways.ts";

let world: FakeGateways;
const big = randomBytes(9 * MiB + 3);

before(async () => {
  world = await startFakeGateways();
  world.cluster.put("/models/a/config.json", '{"a":1}', { etag: "E1" });
  world.cluster.put("/models/a/model.bin", big, { etag: 'W/"we ird"' });
  world.cluster.put("/models/a/naïve 😀 <b>.txt", "smile");
  world.cluster.put("/models/a/empty", "");
});
after(() => world.close());

type Answer = { readonly status: number; readonly headers: http.IncomingHttpHeaders; readonly body: Buffer };

/** `path` goes out exactly as written. */
function send(
  method: string,
  path: string,
  headers: http.OutgoingHttpHeaders = {},
  body?: Uint8Array | string,
): Promise<Answer> {
  const { hostname, port } = new URL(world.files);
  return new Promise((resolve, reject) => {
    const request = http.request({ hostname, port, method, path, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
      );
    });
    request.on("error", reject);
    request.end(body);
  });
}

test("GET answers the bytes with type, length, etag and date", async () => {
  const { status, headers, body } = await send("GET", "/models/a/config.json");
  assert.equal(status, 200);
  assert.equal(String(body), '{"a":1}');
  assert.equal(headers["content-type"], "application/json");
  assert.equal(headers["content-length"], "7");
  assert.equal(headers.etag, '"E1"');
  assert.equal(headers["accept-ranges"], "bytes");
  assert.equal(headers["last-modified"], new Date(1_700_000_001_000).toUTCString());
  assert.deepEqual((await send("GET", "/models/a/model.bin")).body, big);
});

test("HEAD answers what GET would, without a body", async () => {
  const { status, headers, body } = await send("HEAD", "/models/a/model.bin");
  assert.equal(status, 200);
  assert.equal(headers["content-length"], String(big.length));
  assert.equal(headers.etag, '"we%20ird"');
  assert.equal(body.length, 0);
  const part = await send("HEAD", "/models/a/model.bin", { range: "bytes=0-9" });
  assert.equal(part.status, 206);
  assert.equal(part.headers["content-length"], "10");
});

const ranges: readonly [string, number, number, number][] = [
  ["bytes=0-0", 206, 0, 1],
  ["bytes=10-19", 206, 10, 20],
  ["bytes=4194300-4194310", 206, 4194300, 4194311],
  ["bytes=9437180-", 206, 9437180, big.length],
  ["bytes=-5", 206, big.length - 5, big.length],
  ["bytes=-99999999999", 206, 0, big.length],
  ["bytes=5-99999999999", 206, 5, big.length],
  ["bytes=5-3", 200, 0, big.length],
  ["bytes=0-1,3-4", 200, 0, big.length],
  ["items=0-1", 200, 0, big.length],
  ["bytes=x-y", 200, 0, big.length],
];
for (const [range, status, start, end] of ranges) {
  test(`Range: ${range} is answered with ${status} and bytes ${start} to ${end - 1}`, async () => {
    const answer = await send("GET", "/models/a/model.bin", { range });
    assert.equal(answer.status, status);
    assert.deepEqual(answer.body, big.subarray(start, end));
    const told = status === 206 ? `bytes ${start}-${end - 1}/${big.length}` : undefined;
    assert.equal(answer.headers["content-range"], told);
  });
}

test("a range behind the end is 416 and tells the size", async () => {
  for (const range of [`bytes=${big.length}-`, "bytes=-0"]) {
    const { status, headers } = await send("GET", "/models/a/model.bin", { range });
    assert.equal(status, 416);
    assert.equal(headers["content-range"], `bytes */${big.length}`);
  }
  assert.equal((await send("GET", "/models/a/empty", { range: "bytes=0-0" })).status, 416);
  assert.equal((await send("GET", "/models/a/empty")).headers["content-length"], "0");
});

test("conditions are judged by etag first and date second", async () => {
  const path = "/models/a/config.json";
  const date = new Date(1_700_000_001_000).toUTCString();
  const earlier = new Date(1_600_000_000_000).toUTCString();
  const status = async (headers: http.OutgoingHttpHeaders): Promise<number> =>
    (await send("GET", path, headers)).status;
  assert.equal(await status({ "if-none-match": '"E1"' }), 304);
  assert.equal(await status({ "if-none-match": 'W/"E1"' }), 304);
  assert.equal(await status({ "if-none-match": '"x", "E1"' }), 304);
  assert.equal(await status({ "if-none-match": "*" }), 304);
  assert.equal(await status({ "if-none-match": '"x"' }), 200);
  assert.equal(await status({ "if-none-match": '"x"', "if-modified-since": date }), 200);
  assert.equal(await status({ "if-modified-since": date }), 304);
  assert.equal(await status({ "if-modified-since": earlier }), 200);
  assert.equal(await status({ "if-match": '"E1"' }), 200);
  assert.equal(await status({ "if-match": 'W/"E1"' }), 412);
  assert.equal(await status({ "if-match": '"x"' }), 412);
  assert.equal(await status({ "if-unmodified-since": earlier }), 412);
  assert.equal(await status({ range: "bytes=0-1", "if-range": '"E1"' }), 206);
  assert.equal(await status({ range: "bytes=0-1", "if-range": date }), 206);
  assert.equal(await status({ range: "bytes=0-1", "if-range": '"x"' }), 200);
  assert.equal(await status({ range: "bytes=0-1", "if-range": earlier }), 200);
});

test("names in any spelling that would leave the tree are refused, and bad escapes too", async () => {
  for (const path of [
    "/models/../etc/passwd",
    "/models/%2e%2e/x",
    "/models/%2E./x",
    "/models/a%2Fconfig.json",
    "/models/a%00b",
    "/models/%ff",
    "/models/%c0%af",
    "/models/%zz",
    "/models/%",
  ]) {
    const { status, body } = await send("GET", path);
    assert.equal(status, 400, path);
    assert.equal((JSON.parse(String(body)) as { code: string }).code, "invalid");
    assert.equal((await send("PUT", path, {}, "x")).status, 400, path);
  }
});

test("a name with spaces, emoji and markup is served, listed and escaped", async () => {
  const path = `/models/a/${encodeURIComponent("naïve 😀 <b>.txt")}`;
  assert.equal(String((await send("GET", path)).body), "smile");
  const page = String((await send("GET", "/models/a/", { accept: "text/html" })).body);
  assert.ok(page.includes(`href="${path}"`));
  assert.ok(page.includes("naïve 😀 &#60;b&#62;.txt"));
  assert.ok(!page.includes("<b>.txt"));
});

test("a directory is listed as JSON or HTML, by what the client takes", async () => {
  for (let number = 0; number < 1201; number++) world.cluster.put(`/models/many/f${number}`, "x");
  const answer = await send("GET", "/models/many");
  assert.equal(answer.headers["content-type"], "application/json");
  const listing = JSON.parse(String(answer.body)) as { path: string; entries: { path: string; kind: string }[] };
  assert.equal(listing.path, "/models/many");
  assert.equal(listing.entries.length, 1201);
  assert.equal(listing.entries[0]?.kind, "file");
  const html = await send("GET", "/models/many?format=html");
  assert.match(String(html.headers["content-type"]), /^text\/html/);
  assert.equal(String(html.body).split("<tr>").length - 1, 1202);
  assert.equal((await send("GET", "/", { accept: "text/html,*/*" })).status, 200);
  assert.equal((await send("HEAD", "/models/many")).body.length, 0);
  assert.equal((await send("GET", "/models/many?format=xml")).status, 400);
});

test("what does not exist is 404 with an error document", async () => {
  const { status, body } = await send("GET", "/models/nope");
  assert.equal(status, 404);
  const document = JSON.parse(String(body)) as { code: string; outcome: string; retryable: boolean };
  assert.deepEqual([document.code, document.outcome, document.retryable], ["not-found", "none", false]);
});

test("PUT writes through, and with If-None-Match: * only if there is nothing", async () => {
  const bytes = randomBytes(2 * MiB);
  const first = await send("PUT", "/models/put/x.bin", { "if-none-match": "*", expect: "100-continue" }, bytes);
  assert.equal(first.status, 201);
  assert.equal(first.headers.etag, '"written-1"');
  assert.deepEqual((await send("GET", "/models/put/x.bin")).body, bytes);
  assert.equal((await send("PUT", "/models/put/x.bin", { "if-none-match": "*" }, "other")).status, 412);
  assert.equal((await send("PUT", "/models/put/x.bin", {}, "other")).status, 201);
  assert.equal(String((await send("GET", "/models/put/x.bin")).body), "other");
});

test("a PUT that cannot be done as asked is refused whole", async () => {
  assert.equal((await send("PUT", "/models/put/y", { "if-match": '"x"' }, "a")).status, 501);
  assert.equal((await send("PUT", "/models/put/y", { "content-range": "bytes 0-0/2" }, "a")).status, 501);
  assert.equal((await send("PUT", "/models/put/y", { "content-encoding": "gzip" }, "a")).status, 501);
  assert.equal((await send("PUT", "/models/put/", {}, "a")).status, 400);
  assert.equal((await send("PUT", "/nowhere/y", {}, "a")).status, 409);
  assert.equal((await send("GET", "/models/put/y")).status, 404);
});

test("other methods are refused and the allowed ones named", async () => {
  const { status, headers } = await send("DELETE", "/models/a/config.json");
  assert.equal(status, 405);
  assert.equal(headers.allow, "GET, HEAD, PUT");
});

test("a body that breaks behind its status is cut, never ended as if it were whole", async () => {
  const { descriptor } = world.cluster.put("/models/a/breaks", randomBytes(5 * MiB), { sha256: true });
  for (const worker of world.cluster.workers) worker.faults.cut = { afterBytes: 4.5 * MiB, times: 99 };
  await assert.rejects(send("GET", "/models/a/breaks"), /aborted|ECONNRESET/);
  for (const worker of world.cluster.workers) worker.faults.cut = undefined;
  for (const worker of world.cluster.workers) worker.gone.add(descriptor.id);
  assert.equal((await send("GET", "/models/a/breaks")).status, 410);
});
