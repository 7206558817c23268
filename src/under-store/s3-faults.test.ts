import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { digestHex } from "../io/hash.ts";
import { HttpClient } from "../io/http-client.ts";
import { silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { ScriptedHttpServer } from "../testing/scripted-http-server.ts";
import { bodyOf, readBytes, rejectsWith } from "../testing/under-store-contract.ts";
import { RequestGate, type RequestLimits } from "./request-gate.ts";
import { S3UnderStore } from "./s3.ts";
import { underStoreMetrics } from "./under-store-metrics.ts";

const seed = Math.floor(Math.random() * 2 ** 32);
const bytes = new Random(seed).bytes(1_000_000);
const etag = `"${digestHex("md5", bytes)}"`;
const whole = { position: 0, length: bytes.length, etag };

type Opened = {
  readonly server: ScriptedHttpServer;
  readonly store: S3UnderStore;
  readonly gate: RequestGate;
  /** How long the client chose to wait, each time. */
  readonly waitsMs: readonly number[];
};

class RecordingClock extends NodeClock {
  readonly waitsMs: number[] = [];

  override sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    this.waitsMs.push(durationMs);
    return super.sleep(durationMs, signal);
  }
}

function claim(name: string, body: (opened: Opened) => Promise<void>, limits: Partial<RequestLimits> = {}): void {
  test(`s3 client: ${name}`, async () => {
    const server = await ScriptedHttpServer.start();
    server.put("/b/model.bin", bytes);
    const clock = new RecordingClock();
    const metrics = underStoreMetrics(new Metrics());
    const gateLimits = { backoffMinMs: 1, backoffMaxMs: 5, pauseMaxMs: 2000, ...limits };
    const gate = new RequestGate({ clock, random: new Random(seed), metrics, store: "s3://b", limits: gateLimits });
    const store = new S3UnderStore({
      settings: {
        bucket: "b",
        prefix: "",
        region: "us-east-1",
        endpoint: server.origin,
        pathStyle: true,
        credentials: { accessKeyId: "key", secretAccessKey: "hidden" },
        anonymous: false,
        checksums: true,
        requestTimeoutMs: 300,
        requestsMax: 16,
      },
      gate,
      http: new HttpClient({ clock }),
      clock,
      logger: silentLogger,
      metrics,
    });
    try {
      await body({ server, store, gate, waitsMs: clock.waitsMs });
    } finally {
      await store.close();
      await server.close();
    }
  });
}

async function readsWhole(store: S3UnderStore): Promise<void> {
  assert.equal(Buffer.compare(await readBytes(store, "model.bin", whole), bytes), 0, `seed ${seed}`);
}

claim("a body that breaks off is taken up where it broke, byte for byte", async ({ server, store }) => {
  for (const afterBytes of [1, 300_000, 200_000]) server.inject({ kind: "cut", afterBytes });
  await readsWhole(store);
  const ranges = server.requests.map(({ headers }) => headers.range);
  assert.deepEqual([ranges.length, ranges[0], ranges.at(-1)], [4, "bytes=0-999999", "bytes=500001-999999"]);
  assert.equal(server.sentBytes, bytes.length, "no byte was sent twice");
});

claim("a body that breaks off at every try ends in an error that may be tried again", async ({ server, store }) => {
  server.inject({ kind: "cut", afterBytes: 10 }, { times: 100 });
  const error = await rejectsWith("under-store", readBytes(store, "model.bin", whole));
  assert.equal(error.retryable, true);
  assert.equal(server.requests.length, 6);
});

claim("a body that stalls is given up after the timeout and taken up again", async ({ server, store }) => {
  server.inject({ kind: "stall", afterBytes: 400_000 });
  server.inject({ kind: "silence" });
  await readsWhole(store);
  assert.equal(server.requests.length, 3);
});

claim("content that changes in the middle is never mixed", async ({ server, store }) => {
  const change = (): void => server.put("/b/model.bin", new Uint8Array(1_000_000));
  server.inject({ kind: "cut", afterBytes: 500_000 });
  let taken = 0;
  const reading = store.read("model.bin", {
    ...whole,
    onChunk: (chunk) => {
      assert.equal(Buffer.compare(chunk, bytes.subarray(taken, taken + chunk.length)), 0, "a byte of the new content");
      taken += chunk.length;
      change();
    },
  });
  await rejectsWith("version-mismatch", reading);
});

claim("an answer with another etag is refused, though the server ignored the condition", async ({ server, store }) => {
  server.inject({ kind: "headers", headers: { etag: '"another"' } });
  await rejectsWith("version-mismatch", readBytes(store, "model.bin", whole));
});

claim("an answer that is not the range asked for is refused, a shorter one completed", async ({ server, store }) => {
  server.inject({ kind: "wrong-range" }, { times: 100 });
  const error = await rejectsWith("under-store", readBytes(store, "model.bin", { position: 10, length: 20, etag }));
  assert.match(error.message, /asked for bytes from 10, got 11-29/);
  server.clearFaults();
  server.inject({ kind: "shorter-range", length: 400_000 }, { times: 3 });
  await readsWhole(store);
});

claim("a server that ignores the range gives no byte more than was asked for", async ({ server, store }) => {
  server.inject({ kind: "ignore-range" });
  const got = await readBytes(store, "model.bin", { position: 500_000, length: 1000, etag });
  assert.equal(Buffer.compare(got, bytes.subarray(500_000, 501_000)), 0);
  server.inject({ kind: "ignore-range" });
  await readsWhole(store);
});

claim(
  "throttling halves the requests, waits as long as asked, and then goes on",
  async ({ server, store, gate, waitsMs }) => {
    const before = gate.allowance;
    const slowDown = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    server.inject({ kind: "status", status: 503, headers: { "retry-after": "0.2" }, body: slowDown });
    await readsWhole(store);
    assert.ok((waitsMs[0] ?? 0) >= 200, `waited ${waitsMs} ms`);
    assert.ok(gate.allowance < before && gate.allowance >= before / 2, `${gate.allowance} of ${before}`);
  },
);

claim("one burst of throttled requests counts once, and none of them is lost", async ({ server, store, gate }) => {
  server.inject({ kind: "status", status: 503, headers: { "retry-after": "0.1" } }, { times: 12 });
  const reads = Array.from({ length: 12 }, (_, i) => readBytes(store, "model.bin", { position: i, length: 10, etag }));
  for (const [i, got] of (await Promise.all(reads)).entries())
    assert.deepEqual(got, Buffer.from(bytes.subarray(i, i + 10)));
  assert.ok(gate.allowance >= 16, `${gate.allowance}`);
});

claim("a store that goes on throttling, or asks for too long a pause, is overloaded", async ({ server, store }) => {
  server.inject({ kind: "status", status: 503, headers: { "retry-after": "600" } });
  const long = await rejectsWith("overloaded", readBytes(store, "model.bin", whole));
  assert.equal(long.details?.["retryAfterMs"], 600_000);
  server.inject({ kind: "status", status: 429, headers: { "retry-after": "0" } }, { times: 100 });
  await rejectsWith("overloaded", readBytes(store, "model.bin", whole));
});

claim("statuses become the errors they mean, and only passing ones are tried again", async ({ server, store }) => {
  const xml = (code: string): string => `<Error><Code>${code}</Code><Message>m</Message></Error>`;
  const cases = [
    [403, "AccessDenied", "denied"],
    [403, "SignatureDoesNotMatch", "denied"],
    [403, "RequestTimeTooSkewed", "denied"],
    [404, "NoSuchKey", "not-found"],
    [404, "NoSuchBucket", "not-found"],
    [412, "PreconditionFailed", "version-mismatch"],
    [416, "InvalidRange", "invalid"],
    [301, "PermanentRedirect", "invalid"],
    [400, "Whatever", "under-store"],
  ] as const;
  for (const [status, code, ours] of cases) {
    server.requests.length = 0;
    server.inject({ kind: "status", status, body: xml(code) });
    const error = await rejectsWith(ours, readBytes(store, "model.bin", whole));
    assert.equal(error.retryable, false, code);
    assert.match(error.message, /bucket b/);
    assert.equal(server.requests.length, 1, code);
  }
  server.inject({ kind: "status", status: 500, body: xml("InternalError") }, { times: 2 });
  await readsWhole(store);
});

const exclusive = (): { readonly body: AsyncIterable<Uint8Array>; readonly ifAbsent: true } => {
  return { body: bodyOf("mine"), ifAbsent: true };
};

claim("an exclusive write whose answer is lost is known to have won by its mark", async ({ server, store }) => {
  server.inject({ kind: "lost-answer" }, { method: "PUT" });
  const info = await store.write("slot", exclusive());
  assert.equal(info.etag, `"${digestHex("md5", "mine")}"`);
  assert.equal(server.requests.filter(({ method }) => method === "PUT").length, 1);
});

claim("an exclusive write that lost is told so, though the connection broke", async ({ server, store }) => {
  server.put("/b/slot", Buffer.from("theirs"), { "x-amz-meta-headpond-write": "another" });
  server.inject({ kind: "early-refusal" }, { method: "PUT", times: 2 });
  const body = bodyOf(new Uint8Array(4_000_000), 1 << 20);
  await rejectsWith("already-exists", store.write("slot", { body, ifAbsent: true }));
  server.inject({ kind: "status", status: 500 }, { method: "PUT" });
  await rejectsWith("already-exists", store.write("slot", exclusive()));
  assert.equal(Buffer.from(server.get("/b/slot") ?? []).toString(), "theirs");
});

claim("an exclusive write that failed before it took effect is tried again", async ({ server, store }) => {
  server.inject({ kind: "status", status: 500 }, { method: "PUT" });
  server.inject({ kind: "silence" }, { method: "PUT" });
  server.inject({ kind: "lost-answer" }, { method: "PUT" });
  await store.write("slot", exclusive());
  assert.equal(Buffer.from(server.get("/b/slot") ?? []).toString(), "mine");
});

claim("a write that is cancelled on its way may have happened, and says so", async ({ server, store }) => {
  server.inject({ kind: "silence" }, { method: "PUT" });
  const controller = new AbortController();
  const writing = store.write("slot", { ...exclusive(), signal: controller.signal });
  setTimeout(() => controller.abort(), 50);
  assert.equal((await rejectsWith("cancelled", writing)).outcome, "unknown");
});

claim("a write of which nobody can tell whether it happened has an unknown outcome", async ({ server, store }) => {
  for (const ifAbsent of [true, false]) {
    server.clearFaults();
    server.inject({ kind: "lost-answer" }, { method: "PUT" });
    server.inject({ kind: "status", status: 500 }, { method: "PUT", times: 100 });
    server.inject({ kind: "status", status: 500 }, { method: "HEAD", times: 100 });
    await rejectsWith("unknown-outcome", store.write(`slot-${ifAbsent}`, { body: bodyOf("mine"), ifAbsent }));
  }
});

claim("a conditional write that was only throttled is tried again", async ({ server, store }) => {
  server.inject({ kind: "status", status: 503, headers: { "retry-after": "0" } }, { method: "PUT", times: 2 });
  server.inject({ kind: "status", status: 412 }, { method: "PUT" });
  await rejectsWith("already-exists", store.write("slot", { body: bodyOf("mine"), ifAbsent: true }));
  assert.equal(server.requests.filter(({ method }) => method === "PUT").length, 3);
});

claim(
  "a server that is not there is a fault that may be tried again, and names the bucket",
  async ({ server, store }) => {
    await server.close();
    const error = await rejectsWith("under-store", store.head("model.bin"));
    assert.equal(error.retryable, true);
    assert.match(error.message, /bucket b.*ECONNREFUSED/);
    await rejectsWith("under-store", readBytes(store, "model.bin", whole));
  },
);

claim(
  "an abort ends a request that waits for its turn, for a pause, or for an answer",
  async ({ server, store }) => {
    for (const fault of [
      { kind: "silence" },
      { kind: "stall", afterBytes: 10 },
      { kind: "status", status: 503, headers: { "retry-after": "1" } },
    ] as const) {
      server.inject(fault);
      const controller = new AbortController();
      const reading = readBytes(store, "model.bin", { ...whole, signal: controller.signal });
      const waiting = readBytes(store, "model.bin", { ...whole, signal: controller.signal });
      setTimeout(() => controller.abort(), 50);
      await rejectsWith("cancelled", reading);
      await rejectsWith("cancelled", waiting);
      server.clearFaults();
    }
  },
  { requestsMax: 1 },
);

claim(
  "more requests than may wait are refused",
  async ({ server, store }) => {
    server.inject({ kind: "stall", afterBytes: 0 });
    const controller = new AbortController();
    const reads = Array.from({ length: 3 }, () =>
      readBytes(store, "model.bin", { ...whole, signal: controller.signal }),
    );
    const settled = Promise.allSettled(reads);
    await rejectsWith("overloaded", readBytes(store, "model.bin", whole));
    controller.abort();
    await settled;
  },
  { requestsMax: 1, queueMax: 2 },
);
