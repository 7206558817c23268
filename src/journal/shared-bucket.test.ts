import assert from "node:assert/strict";
import { test } from "node:test";
import { type HeadpondError, isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { ScriptedHttpServer } from "../testing/scripted-http-server.ts";
import { SharedBucket, type SharedBucketLimits } from "./shared-bucket.ts";

const seed = Math.floor(Math.random() * 2 ** 32);
const bytes = new TextEncoder().encode("mine");
const xml = (code: string): string => `<Error><Code>${code}</Code><Message>m</Message></Error>`;

type Opened = { readonly server: ScriptedHttpServer; readonly store: SharedBucket };

function claim(
  name: string,
  body: (opened: Opened) => Promise<void>,
  limits: Partial<SharedBucketLimits> = {},
  requestTimeoutMs = 30_000,
): void {
  test(`shared bucket: ${name}`, async () => {
    const server = await ScriptedHttpServer.start({ s3: true });
    const store = new SharedBucket({
      settings: {
        bucket: "b",
        prefix: "p",
        region: "us-east-1",
        endpoint: server.origin,
        pathStyle: true,
        credentials: { accessKeyId: "key", secretAccessKey: "hidden" },
        anonymous: false,
        checksums: true,
        requestTimeoutMs,
        requestsMax: 16,
      },
      disk: new MemoryDisk(),
      clock: new NodeClock(),
      logger: silentLogger,
      metrics: new Metrics(),
      random: new Random(seed),
      limits: { backoffMinMs: 1, backoffMaxMs: 5, callTimeoutMs: 120_000, ...limits },
    });
    try {
      // So that the probe of the store is out of the way.
      assert.equal(await store.create("log/1/1", bytes), "created");
      server.requests.length = 0;
      await body({ server, store });
    } finally {
      await store.close();
      await server.close();
    }
  });
}

async function failure(call: Promise<unknown>): Promise<HeadpondError> {
  try {
    await call;
  } catch (error) {
    assert.ok(isHeadpondError(error), String(error));
    return error;
  }
  return assert.fail("no error");
}

claim("a create is a signed PUT with the condition, of the whole body", async ({ server, store }) => {
  assert.equal(await store.create("log/1/2", bytes), "created");
  const [request] = server.requests;
  assert.deepEqual([server.requests.length, request?.method, request?.path], [1, "PUT", "/b/p/log/1/2"]);
  assert.equal(request?.headers["if-none-match"], "*");
  assert.match(String(request?.headers.authorization), /SignedHeaders=[^,]*if-none-match/);
  assert.match(String(request?.headers["x-amz-content-sha256"]), /^[0-9a-f]{64}$/);
  assert.deepEqual(server.get("/b/p/log/1/2"), bytes);
});

claim("409 is tried again, 412 means that it exists", async ({ server, store }) => {
  server.inject({ kind: "status", status: 409, body: xml("ConditionalRequestConflict") }, { method: "PUT", times: 2 });
  assert.equal(await store.create("log/1/2", bytes), "created");
  assert.equal(server.requests.length, 3);
  assert.equal(await store.create("log/1/2", bytes), "exists");
});

claim("conflicts without end are unavailable, and nothing was written", async ({ server, store }) => {
  server.inject({ kind: "status", status: 409, body: xml("OperationAborted") }, { method: "PUT", times: 100 });
  const error = await failure(store.create("log/1/2", bytes));
  assert.deepEqual([error.code, error.retryable, error.outcome], ["unavailable", true, "none"]);
});

claim("a create whose answer is lost is said to exist, and reads back as its own", async ({ server, store }) => {
  server.inject({ kind: "lost-answer" }, { method: "PUT" });
  assert.equal(await store.create("log/1/2", bytes), "exists");
  assert.deepEqual(await store.read("log/1/2"), bytes);
});

claim(
  "a create of which nobody knows has the outcome unknown, one that never left the outcome none",
  async ({ server, store }) => {
    server.inject({ kind: "lost-answer" }, { method: "PUT" });
    server.inject({ kind: "status", status: 500, body: xml("InternalError") }, { method: "PUT", times: 100 });
    const error = await failure(store.create("log/1/2", bytes));
    assert.deepEqual([error.code, error.outcome], ["unavailable", "unknown"]);
    server.clearFaults();
    assert.deepEqual(await store.read("log/1/2"), bytes);
    await server.close();
    // Connections that were kept may break first, which tells nothing.
    for (let n = 0; n < 20; n++) {
      const refused = await failure(store.create("log/1/3", bytes));
      assert.equal(refused.code, "unavailable");
      if (refused.outcome === "none") return;
    }
    assert.fail("refused connections were never told as such");
  },
);

claim("a store that throttles is asked again after its pause, a few times", async ({ server, store }) => {
  server.inject(
    { kind: "status", status: 503, body: xml("SlowDown"), headers: { "retry-after": "0" } },
    { method: "PUT", times: 2 },
  );
  assert.equal(await store.create("log/1/2", bytes), "created");
  server.inject({ kind: "status", status: 503, body: xml("SlowDown") }, { method: "PUT", times: 100 });
  const error = await failure(store.create("log/1/3", bytes));
  assert.deepEqual([error.code, error.outcome], ["unavailable", "none"]);
  assert.match(error.message, /asks for fewer requests/);
});

claim("a pause longer than the limit is not waited for", async ({ server, store }) => {
  server.inject({ kind: "status", status: 503, headers: { "retry-after": "600" } }, { times: 100 });
  assert.equal((await failure(store.read("log/1/1"))).code, "unavailable");
  assert.equal(server.requests.length, 1);
});

claim("only what the store itself calls absent is absent", async ({ server, store }) => {
  assert.equal(await store.read("log/1/2"), undefined);
  server.inject({ kind: "status", status: 404, body: "<html>not here</html>" }, { times: 100 });
  assert.match((await failure(store.read("log/1/1"))).message, /answered 404, but not by the store/);
  server.clearFaults();
  server.inject({ kind: "status", status: 404, body: xml("NoSuchBucket") });
  assert.match((await failure(store.read("log/1/1"))).message, /the bucket does not exist/);
  assert.deepEqual(await store.read("log/1/1"), bytes);
});

claim("a body that is cut short is read again", async ({ server, store }) => {
  server.inject({ kind: "cut", afterBytes: 2 }, { times: 2 });
  assert.deepEqual(await store.read("log/1/1"), bytes);
});

claim("a full store refuses with no-space", async ({ server, store }) => {
  server.inject({ kind: "status", status: 403, body: xml("QuotaExceeded") }, { method: "PUT" });
  const error = await failure(store.create("log/1/2", bytes));
  assert.deepEqual([error.code, error.outcome], ["no-space", "none"]);
});

claim(
  "a store that never answers ends in unavailable after the timeout of the call",
  async ({ server, store }) => {
    server.inject({ kind: "silence" }, { method: "PUT", times: 100 });
    const error = await failure(store.create("log/1/2", bytes));
    assert.deepEqual([error.code, error.outcome], ["unavailable", "unknown"]);
    assert.match(error.message, /no answer within 3000 ms/);
  },
  { callTimeoutMs: 3000, attemptsMax: 100 },
  500,
);

claim("neither messages nor the name of the store show the secret", async ({ server, store }) => {
  server.inject({ kind: "status", status: 403, body: xml("SignatureDoesNotMatch") }, { times: 1 });
  const error = await failure(store.read("log/1/1"));
  assert.equal(error.code, "denied");
  assert.ok(!`${store.uri} ${error.message} ${JSON.stringify(error)}`.includes("hidden"));
});

test("shared bucket: a store that ignores the condition is refused before anything is created", async () => {
  const server = await ScriptedHttpServer.start({ s3: true, conditions: false });
  const store = new SharedBucket({
    settings: {
      bucket: "b",
      prefix: "",
      region: "us-east-1",
      endpoint: server.origin,
      pathStyle: true,
      anonymous: true,
      checksums: true,
      requestTimeoutMs: 10_000,
      requestsMax: 4,
    },
    disk: new MemoryDisk(),
    clock: new NodeClock(),
    logger: silentLogger,
    metrics: new Metrics(),
    random: new Random(seed),
  });
  const error = await failure(store.create("epochs/1", bytes));
  assert.equal(error.code, "unsupported");
  assert.match(error.message, /If-None-Match.*use a store that honours/s);
  assert.equal(server.get("/b/epochs/1"), undefined);
  await store.close();
  await server.close();
});
