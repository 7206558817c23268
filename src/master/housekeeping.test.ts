import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import type { FileDescriptor } from "../base/file.ts";
import { masterService } from "../rpc/master-service.ts";
import { eventually, FakeWorker, TestMaster } from "./master.test-support.ts";

const { methods } = masterService;
const bytes = (n: number): Uint8Array => new Uint8Array(n);

describe("what a master does beside requests, and what it keeps", () => {
  let test: TestMaster;
  let worker: FakeWorker | undefined;
  afterEach(async () => {
    await worker?.close();
    worker = undefined;
    await test.close();
  });

  const begin = async (limits: ConstructorParameters<typeof TestMaster>[0] = {}): Promise<void> => {
    test = await TestMaster.start({
      ...limits,
      limits: {
        housekeeping: { intervalMs: 10, sweepIntervalMs: 20 },
        deadVersions: { graceMs: 30 },
        ...limits.limits,
      },
    });
  };
  const open = async (path: string): Promise<FileDescriptor> => (await test.client.call(methods.open, { path })).file;
  const syncAll = async (): Promise<void> => {
    for await (const _ of test.client.openStream(methods.sync, { path: "/m", recursive: true }));
  };

  it("a replaced content that no revision keeps is freed on its workers after the grace time, the new one is not", async () => {
    await begin();
    test.memory.put("d/file", bytes(10));
    await test.mount({ sync: "never" });
    worker = await FakeWorker.attach(test, { id: "w1" });
    const old = await open("/m/d/file");
    await worker.have(old);
    test.memory.put("d/file", bytes(20));
    await syncAll();
    const current = await open("/m/d/file");
    await worker.have(current);
    await eventually("the old content is freed", () => !worker?.held.has(old.id) || undefined);
    await test.clock.sleep(100);
    assert.deepEqual([...worker.held.keys()], [current.id]);
  });

  it("a content that a kept revision names is not freed, and its commit still opens", async () => {
    await begin();
    test.memory.put("repo/config.json", bytes(10));
    await test.mount({ sync: "never" });
    worker = await FakeWorker.attach(test, { id: "w1" });
    const first = await test.client.call(methods.revision, { path: "/m/repo", revision: "main" });
    assert.match(first.commit, /^[0-9a-f]{40}$/);
    assert.deepEqual(
      first.files.map(({ path }) => path),
      ["config.json"],
    );
    const [held] = first.files;
    assert.ok(held);
    await worker.have(held.file);
    test.memory.put("repo/config.json", bytes(11));
    await syncAll();
    const second = await test.client.call(methods.revision, { path: "/m/repo", revision: "HEAD" });
    assert.notEqual(second.commit, first.commit);
    await test.clock.sleep(150);
    assert.equal(worker.held.has(held.file.id), true);
    const kept = await test.client.call(methods.revision, { path: "/m/repo", revision: first.commit });
    assert.deepEqual([kept.current, kept.files[0]?.file.etag], [false, held.file.etag]);
    const unknown = { path: "/m/repo", revision: "0".repeat(40) };
    await assert.rejects(test.client.call(methods.revision, unknown), { code: "not-found" });
    const again = await test.client.call(methods.revision, { path: "/m/repo", revision: second.commit });
    assert.equal(again.current, true);
  });

  it("the same content has the same commit wherever and whenever", async () => {
    await begin();
    const info = test.memory.put("a/x/file", bytes(3));
    await test.mount({ sync: "never" });
    const before = await test.client.call(methods.revision, { path: "/m/a", revision: "main" });
    await test.restart();
    const after = await test.client.call(methods.revision, { path: "/m/a", revision: "main" });
    assert.equal(after.commit, before.commit);
    assert.equal(after.files[0]?.file.etag, info.etag);
  });

  it("a TTL that is over frees or deletes, under a mount also in the store", async () => {
    await begin();
    for (const name of ["free", "delete"]) test.memory.put(`d/${name}`, bytes(5));
    await test.mount({ sync: "never" });
    worker = await FakeWorker.attach(test, { id: "w1" });
    for (const action of ["free", "delete"] as const) {
      await worker.have(await open(`/m/d/${action}`));
      await test.client.call(methods.ttl, { path: `/m/d/${action}`, ttlMs: 50, action });
    }
    await test.client.call(methods.create, { path: "/outside" });
    await test.client.call(methods.ttl, { path: "/outside", ttlMs: 50, action: "delete" });
    await eventually(
      "both are over",
      () => (worker?.held.size === 0 && test.memory.peek("d/delete") === undefined) || undefined,
    );
    assert.equal(test.memory.peek("d/free")?.length, 5);
    await assert.rejects(test.client.call(methods.stat, { path: "/m/d/delete" }), { code: "not-found" });
    await assert.rejects(test.client.call(methods.stat, { path: "/outside" }), { code: "not-found" });
    assert.equal((await test.client.call(methods.stat, { path: "/m/d/free" })).status.kind, "file");
  });

  it("rows of removed trees are reclaimed", async () => {
    await begin();
    for (let n = 0; n < 50; n++) {
      await test.client.call(methods.create, { path: `/tree/${n % 5}/${n}`, recursive: true });
    }
    await test.client.call(methods.remove, { path: "/tree", recursive: true });
    await eventually("all files are gone", () => test.namespace.counters.files === 0 || undefined);
    assert.equal(test.namespace.counters.directories, 1);
  });

  it("sessions expire, but only when their leader has led for as long as they last", async () => {
    await begin({ limits: { housekeeping: { intervalMs: 10, sweepIntervalMs: 20, sessionTimeoutMs: 1000 } } });
    const { sessionId } = await test.client.call(methods.openSession, { client: "test" });
    await test.clock.sleep(700);
    await test.restart();
    const origin = { sessionId, sequence: 1, acknowledged: 0 };
    await test.client.call(methods.mkdir, { path: "/made", origin });
    await eventually("it has expired", () => test.namespace.counters.sessions === 0 || undefined);
    await assert.rejects(test.client.call(methods.keepSession, { sessionId, acknowledged: 0 }), { code: "not-found" });
    const late = { path: "/late", origin: { ...origin, sequence: 2 } };
    await assert.rejects(test.client.call(methods.mkdir, late), { code: "unknown-outcome" });
  });

  it("what a dead writer had begun blocks nothing once its session has ended, and the store's bytes are taken in", async () => {
    const housekeeping = { intervalMs: 10, sweepIntervalMs: 20, sessionTimeoutMs: 1000 };
    await begin({ limits: { housekeeping } });
    for (const name of ["over", "put"]) test.memory.put(`d/${name}`, bytes(3));
    await test.mount({ sync: "never" });
    await open("/m/d/over");
    await open("/m/d/put");
    const { sessionId } = await test.client.call(methods.openSession, { client: "dead" });
    const begun = ["over", "put", "new"];
    for (const [at, name] of begun.entries()) {
      const origin = { sessionId, sequence: at + 1, acknowledged: at };
      await test.client.call(methods.create, { path: `/m/d/${name}`, forWriting: true, origin });
    }
    // Its bytes reached the store, its word that they did not reach the master.
    test.memory.put("d/put", bytes(7));
    await assert.rejects(test.client.call(methods.rename, { from: "/m/d", to: "/m/e" }), { code: "unavailable" });
    // A sync need not wait for that: the content that the store shows is what can be read.
    for await (const _ of test.client.openStream(methods.sync, { path: "/m/d/put" }));
    assert.equal((await open("/m/d/put")).sizeBytes, 7);
    await eventually("its files are given up", () => test.namespace.counters.openIntents === 0 || undefined);
    assert.equal((await open("/m/d/over")).sizeBytes, 3);
    assert.equal((await open("/m/d/put")).sizeBytes, 7);
    await assert.rejects(open("/m/d/new"), { code: "not-found" });
    await test.client.call(methods.rename, { from: "/m/d", to: "/m/e" });
    assert.equal(test.memory.peek("e/put")?.length, 7);
  });

  it("a writer whose bytes were seen by a sync before it said so completes all the same", async () => {
    await begin();
    test.memory.put("d/file", bytes(3));
    await test.mount({ sync: "never" });
    await open("/m/d/file");
    const made = await test.client.call(methods.create, { path: "/m/d/file", forWriting: true });
    const { etag, sizeBytes, modifiedMs } = test.memory.put("d/file", bytes(7));
    for await (const _ of test.client.openStream(methods.sync, { path: "/m/d/file" }));
    const { inodeId, contentVersion } = made;
    await test.client.call(methods.complete, { inodeId, contentVersion, sizeBytes, etag, modifiedMs });
    assert.deepEqual([(await open("/m/d/file")).etag, (await open("/m/d/file")).sizeBytes], [etag, 7]);
    assert.equal(test.namespace.counters.openIntents, 0);
  });

  it("a request that comes again, over another connection or to the next leader, is applied once", async () => {
    await begin();
    const { sessionId } = await test.client.call(methods.openSession, { client: "test" });
    const request = { path: "/once", exclusive: true, origin: { sessionId, sequence: 1, acknowledged: 0 } };
    const first = await test.client.call(methods.create, request);
    const other = test.connect();
    assert.deepEqual(await other.call(methods.create, request), first);
    await other.close();
    await test.restart();
    assert.deepEqual(await test.client.call(methods.create, request), first);
    const removal = { path: "/once", origin: { sessionId, sequence: 2, acknowledged: 1 } };
    await test.client.call(methods.remove, removal);
    await test.client.call(methods.remove, removal);
    const changed = { ...request, path: "/other", origin: { sessionId, sequence: 2, acknowledged: 1 } };
    await assert.rejects(test.client.call(methods.create, changed), { code: "invalid" });
  });

  it("a watcher sees each change once and in order, and is told when it comes too late", async () => {
    await begin({ limits: { housekeeping: { intervalMs: 60_000 }, events: { keptMax: 5 } } });
    for (let n = 0; n < 20; n++) await test.client.call(methods.create, { path: `/f${n}` });
    const last = test.namespace.applied.index;
    const seen: string[] = [];
    for await (const { events } of test.client.openStream(methods.watch, { path: "/", fromIndex: last - 2 })) {
      seen.push(...events.map(({ kind, path }) => `${kind} ${path}`));
      if (seen.length === 3) {
        await test.client.call(methods.rename, { from: "/f19", to: "/g" });
        await assert.rejects(test.client.call(methods.create, { path: "/g/x" }));
        await test.client.call(methods.remove, { path: "/g" });
      }
      if (seen.length === 5) break;
    }
    assert.deepEqual(seen, ["created /f17", "created /f18", "created /f19", "renamed /f19", "removed /g"]);
    const early = test.client.openStream(methods.watch, { path: "/", fromIndex: 2 })[Symbol.asyncIterator]();
    await assert.rejects(early.next(), { code: "compacted" });
  });
});
