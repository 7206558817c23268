import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { ErrorDocument } from "../base/errors.ts";
import { masterService } from "../rpc/master-service.ts";
import { FakeWorker, TestMaster } from "./master.test-support.ts";

const json = { "content-type": "application/json" };

describe("a master over HTTP", () => {
  let test: TestMaster;
  let worker: FakeWorker;
  before(async () => {
    test = await TestMaster.start();
    test.memory.put("org/model/x.safetensors", new Uint8Array(12));
    worker = await FakeWorker.attach(test, { id: "w1" });
  });
  after(async () => {
    await worker.close();
    await test.close();
  });

  const post = (method: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
    fetch(`${test.http}/api/v1/rpc/${method}`, {
      method: "POST",
      headers: { ...json, ...headers },
      body: JSON.stringify(body),
    });
  const get = (path: string): Promise<Response> => fetch(`${test.http}${path}`);

  it("is live, ready, and measured", async () => {
    assert.equal((await get("/healthz")).status, 200);
    const ready = await get("/readyz");
    assert.deepEqual([ready.status, await ready.text()], [200, "ready\n"]);
    assert.match(await (await get("/metrics")).text(), /headpond_master_workers\{state="live"\} 1/);
  });

  it("answers each method of the service by POST, with one behaviour", async () => {
    const mounted = await post("mount", { path: "/m", uri: "memory://test" });
    assert.deepEqual([mounted.status, ((await mounted.json()) as { path: string }).path], [200, "/m"]);
    const made = await post("create", { path: "/file" });
    assert.equal(((await made.json()) as { created: boolean }).created, true);
    const again = await post("create", { path: "/file", exclusive: true });
    const error = (await again.json()) as ErrorDocument;
    assert.deepEqual(
      [again.status, error.code, error.retryable, error.outcome],
      [409, "already-exists", false, "none"],
    );
  });

  it("answers streams as one document a line", async () => {
    const response = await post("sync", { path: "/m", recursive: true });
    assert.equal(response.headers.get("content-type"), "application/x-ndjson");
    const lines = (await response.text()).trim().split("\n");
    const last = JSON.parse(lines.at(-1) ?? "") as { done: boolean; files: number };
    assert.deepEqual([last.done, last.files], [true, 1]);
    const failed = await post("sync", { path: "/file" });
    assert.deepEqual([failed.status, ((await failed.json()) as ErrorDocument).code], [409, "no-mount"]);
  });

  it("reads by GET", async () => {
    const stat = (await (await get("/api/v1/fs/stat?path=/m/org/model/x.safetensors")).json()) as object;
    assert.equal((stat as { status: { sizeBytes: number } }).status.sizeBytes, 12);
    const list = (await (await get("/api/v1/fs/list?path=/m/org")).json()) as { entries: { path: string }[] };
    assert.deepEqual(
      list.entries.map(({ path }) => path),
      ["/m/org/model"],
    );
    assert.equal((await get("/api/v1/fs/stat?path=/nothing")).status, 404);
    assert.equal((await get("/api/v1/fs/stat")).status, 400);
    assert.equal((await get("/api/v1/nothing")).status, 404);
    for (const path of ["cluster", "workers", "mounts", "models", "jobs", "journal"]) {
      assert.equal((await get(`/api/v1/${path}`)).status, 200, path);
    }
  });

  it("refuses what a page of another site could send, what does not fit, and what only workers may say", async () => {
    const foreign = await post("create", { path: "/evil" }, { origin: "http://evil.example" });
    assert.equal(foreign.status, 403);
    const form = await fetch(`${test.http}/api/v1/rpc/create`, { method: "POST", body: '{"path":"/evil"}' });
    assert.equal(form.status, 400);
    assert.equal((await post("create", { path: 7 })).status, 400);
    assert.equal((await post("heartbeat", {})).status, 404);
    assert.equal((await post("create", { path: "/x/../y" })).status, 400);
    assert.equal((await get("/api/v1/rpc/create")).status, 501);
    assert.equal((await get("/api/v1/fs/stat?path=/evil")).status, 404);
  });

  it("describes itself: every method is in the OpenAPI document", async () => {
    const document = (await (await get("/api/v1/openapi.json")).json()) as { paths: Record<string, unknown> };
    for (const name of Object.keys(masterService.methods)) {
      const isWorkers = ["attachWorker", "reportHoldings", "heartbeat", "reportLoad"].includes(name);
      assert.equal(Object.hasOwn(document.paths, `/api/v1/rpc/${name}`), !isWorkers, name);
    }
  });

  it("shows a page that escapes what it shows and needs nothing from elsewhere", async () => {
    test.memory.put("<script>alert(1)/w.gguf", new Uint8Array(1));
    await (await post("sync", { path: "/m", recursive: true })).text();
    const page = await get("/");
    const text = await page.text();
    assert.match(page.headers.get("content-security-policy") ?? "", /default-src 'none'/);
    assert.match(text, /&lt;script&gt;/);
    assert.doesNotMatch(text, /<script|https?:\/\//);
    assert.match(text, /w1/);
  });

  it("tells changes as server-sent events, from an index on", async () => {
    const stop = new AbortController();
    const response = await fetch(`${test.http}/api/v1/events?path=/seen`, { signal: stop.signal });
    await post("mkdir", { path: "/seen" });
    await post("create", { path: "/unseen" });
    await post("create", { path: "/seen/file" });
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    let text = "";
    while (!text.includes("/seen/file")) text += Buffer.from((await reader.read()).value ?? []).toString();
    stop.abort();
    assert.match(text, /event: created\ndata: .*"path":"\/seen"/);
    assert.doesNotMatch(text, /unseen/);
    const first = /id: ([0-9]+)/.exec(text)?.[1];
    const later = new AbortController();
    const replay = await fetch(`${test.http}/api/v1/events?path=/seen&from=${first}`, { signal: later.signal });
    const replayed = Buffer.from((await (replay.body as ReadableStream<Uint8Array>).getReader().read()).value ?? []);
    later.abort();
    assert.match(replayed.toString(), /"path":"\/seen"/);
  });
});
