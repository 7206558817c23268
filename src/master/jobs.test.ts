import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import type { JobStatus } from "../base/cluster.ts";
import type { HeadpondError } from "../base/errors.ts";
import type { JobId } from "../base/ids.ts";
import { masterService } from "../rpc/master-service.ts";
import { eventually, FakeWorker, type FakeWorkerOptions, TestMaster, type Verdict } from "./master.test-support.ts";

const { methods } = masterService;
const bytes = (n: number): Uint8Array => new Uint8Array(n);
const never = new Promise<Verdict>(() => {});

describe("load jobs", () => {
  let test: TestMaster;
  let workers: FakeWorker[] = [];
  afterEach(async () => {
    await Promise.all(workers.map((worker) => worker.close()));
    workers = [];
    await test.close();
  });

  const begin = async (jobRuns = {}): Promise<void> => {
    test = await TestMaster.start({ limits: { jobs: { tickMs: 20, markIntervalMs: 20 }, jobRuns } });
    for (const name of ["a", "b", "c.safetensors"]) test.memory.put(`model/${name}`, bytes(100));
    await test.mount();
  };
  const attach = async (options: FakeWorkerOptions): Promise<FakeWorker> => {
    const worker = await FakeWorker.attach(test, options);
    workers.push(worker);
    return worker;
  };
  const load = async (to = "all"): Promise<JobId> =>
    (await test.client.call(methods.load, { path: "/m/model", to })).job.id;
  const job = (id: JobId): Promise<JobStatus> => test.client.call(methods.job, { id });
  const ended = (id: JobId): Promise<JobStatus> =>
    eventually(`job ${id} ends`, async () => {
      const status = await job(id);
      return status.state === "running" || status.state === "planning" ? undefined : status;
    });

  it("is partial, with each failed file's reason and worker, when one worker cannot bring in one file", async () => {
    await begin();
    await attach({ id: "w1" });
    const onLoad = (file: { path: string }): Verdict =>
      file.path === "/m/model/b" ? { ok: false, code: "corrupt", message: "digest does not match" } : { ok: true };
    await attach({ id: "w2", onLoad });
    const status = await ended(await load());
    assert.equal(status.state, "partial");
    assert.deepEqual(status.failed, [
      { path: "/m/model/b", worker: "w2", code: "corrupt", message: "digest does not match" },
    ]);
    assert.deepEqual(
      status.workers.map(({ worker, filesDone, ready }) => [worker, filesDone, ready]),
      [
        ["w1", 3, true],
        ["w2", 2, false],
      ],
    );
  });

  it("is never done on a worker's word alone: the block map has to show it too", async () => {
    await begin();
    const liar = await attach({ id: "w1", onLoad: () => ({ ok: false, code: "internal", message: "no" }) });
    void liar;
    const status = await ended(await load());
    assert.equal(status.state, "failed");
    const honest = await attach({ id: "w2" });
    const id = await load("host=host");
    await ended(id);
    await honest.drop([...honest.held.keys()].slice(0, 1));
    const { models } = await test.client.call(methods.models, {});
    assert.equal(
      models[0]?.places.find(({ worker }) => worker === "w2")?.state,
      "FILLING",
      "READY is withdrawn at once",
    );
  });

  it("tries a retryable failure again, and succeeds when it passes", async () => {
    await begin({ attemptBackoffMs: 5 });
    let failures = 2;
    const onLoad = (): Verdict =>
      failures-- > 0 ? { ok: false, code: "under-store", message: "reset" } : { ok: true, originBytes: 100 };
    await attach({ id: "w1", onLoad });
    const status = await ended(await load());
    assert.equal(status.state, "succeeded");
    assert.deepEqual([status.originBytes, status.originAmplification], [300, 1]);
  });

  it("waits for a worker that is lost and comes back, and goes on where it was", async () => {
    await begin();
    const worker = await attach({ id: "w1", onLoad: ({ path }) => (path.endsWith("b") ? never : { ok: true }) });
    const id = await load();
    await eventually("one file is there", async () => ((await job(id)).bytesDone >= 100 ? true : undefined));
    // Its stream breaks in the middle of an order that never returns; it comes back within its life.
    workers = [];
    const again = await FakeWorker.attach(test, { id: "w1" });
    workers.push(again);
    void worker.close();
    const status = await ended(id);
    assert.equal(status.state, "succeeded");
    assert.equal(status.workers[0]?.filesDone, 3);
  });

  it("fails the part of a worker that does not come back in time, and names it", async () => {
    await begin({ workerReturnMs: 100 });
    await attach({ id: "w1" });
    const lost = await attach({ id: "w2", onLoad: () => never });
    const id = await load();
    workers = workers.filter((worker) => worker !== lost);
    void lost.close();
    const status = await ended(id);
    assert.equal(status.state, "partial");
    assert.deepEqual(
      new Set(status.failed.map(({ worker, code }) => `${worker} ${code}`)),
      new Set(["w2 unavailable"]),
    );
    assert.equal(status.failed.length, 3);
    const back = await attach({ id: "w2" });
    assert.equal((await test.client.call(methods.retryJob, { id })).state, "running");
    assert.equal((await ended(id)).state, "succeeded");
    assert.equal(back.orders.filter(({ kind }) => kind === "load").length, 1);
  });

  it("a retry orders only what is not whole", async () => {
    await begin();
    let isBroken = true;
    const onLoad = (file: { path: string }): Verdict =>
      isBroken && file.path.endsWith("a") ? { ok: false, code: "corrupt", message: "bad" } : { ok: true };
    const worker = await attach({ id: "w1", onLoad });
    const id = await load();
    assert.equal((await ended(id)).state, "partial");
    isBroken = false;
    worker.orders.length = 0;
    await test.client.call(methods.retryJob, { id });
    assert.equal((await ended(id)).state, "succeeded");
    const ordered = worker.orders.flatMap((order) =>
      order.kind === "load" ? order.files.map(({ path }) => path) : [],
    );
    assert.deepEqual(ordered, ["/m/model/a"]);
  });

  it("goes on after the master was restarted in the middle, and counts origin bytes once", async () => {
    await begin();
    const gate: { open: () => void } = { open: () => {} };
    const opened = new Promise<void>((resolve) => {
      gate.open = resolve;
    });
    const onLoad = async (file: { path: string }): Promise<Verdict> => {
      if (file.path.endsWith("safetensors")) await opened;
      return { ok: true, originBytes: 100 };
    };
    const worker = await attach({ id: "w1", onLoad });
    const id = await load();
    await eventually("two files are there and marked", async () =>
      (await job(id)).originBytes === 200 ? true : undefined,
    );
    await test.clock.sleep(100);
    gate.open();
    workers = [];
    const held = new Map(worker.held);
    await worker.close();
    await test.restart();
    const again = new FakeWorker(test, { id: "w1", onLoad });
    workers.push(again);
    for (const [version, holding] of held) again.held.set(version, holding);
    await again.attach();
    const status = await ended(id);
    assert.equal(status.state, "succeeded");
    assert.equal(status.workers[0]?.filesDone, 3);
    assert.deepEqual([status.originBytes, status.originAmplification], [300, 1]);
  });

  it("a file that changes while it is loaded has failed, with that reason", async () => {
    await begin();
    const onLoad = async (file: { path: string }): Promise<Verdict> => {
      if (file.path.endsWith("/c.safetensors")) {
        test.memory.put("model/a", bytes(50));
        for await (const _ of test.client.openStream(methods.sync, { path: "/m/model" }));
      }
      return { ok: true };
    };
    await attach({ id: "w1", onLoad });
    const status = await ended(await load());
    assert.equal(status.state, "partial");
    assert.deepEqual(
      status.failed.map(({ path, code }) => [path, code]),
      [["/m/model/a", "version-mismatch"]],
    );
  });

  it("is cancelled at once, and the workers are told", async () => {
    await begin();
    const worker = await attach({ id: "w1", onLoad: () => never });
    const id = await load();
    const status = await test.client.call(methods.cancelJob, { id });
    assert.equal(status.state, "cancelled");
    await eventually("the order", () => worker.orders.some(({ kind }) => kind === "cancel-load") || undefined);
    workers = [];
    void worker.close();
  });

  it("the same request twice is one job, also across a restart", async () => {
    await begin();
    await attach({ id: "w1" });
    const { sessionId } = await test.client.call(methods.openSession, { client: "test" });
    const request = { path: "/m/model", to: "all", origin: { sessionId, sequence: 1, acknowledged: 0 } };
    const first = await test.client.call(methods.load, request);
    assert.equal((await test.client.call(methods.load, request)).job.id, first.job.id);
    await ended(first.job.id);
    await workers.pop()?.close();
    await test.restart();
    const third = await test.client.call(methods.load, request);
    assert.deepEqual([third.job.id, third.job.state, third.plan.bytes], [first.job.id, "succeeded", 300]);
    assert.equal((await test.client.call(methods.jobs, {})).jobs.length, 1);
  });

  it("what cannot be done is refused with all reasons, and listed as a failed job", async () => {
    await begin();
    await assert.rejects(load(), { code: "unavailable" });
    await attach({ id: "w1", capacityBytes: 10 });
    const plan = await test.client.call(methods.planLoad, { path: "/m/model", to: "2" });
    assert.equal(plan.problems.length, 2);
    await assert.rejects(load(), (error: HeadpondError) => {
      assert.equal(error.code, "no-space");
      assert.match(error.message, /w1 has a cache of 10 B.*300 B/);
      return true;
    });
    await assert.rejects(load("zone=nowhere"), { code: "unavailable" });
    await assert.rejects(load("everything"), { code: "invalid" });
    await assert.rejects(test.client.call(methods.load, { path: "/m/absent", to: "all" }), { code: "not-found" });
    const { jobs } = await test.client.call(methods.jobs, {});
    assert.ok(jobs.length > 0 && jobs.every(({ state }) => state === "failed"));
  });

  it("free drops what is not pinned, and says what it skipped", async () => {
    await begin();
    const worker = await attach({ id: "w1" });
    await ended(await load());
    await test.client.call(methods.pin, { path: "/m/model/a", pinned: true });
    const reply = await test.client.call(methods.free, { path: "/m/model" });
    assert.deepEqual(reply, { files: 2, bytes: 200, skippedPinned: 1 });
    await eventually("one file is left", () => worker.held.size === 1 || undefined);
    assert.ok(worker.orders.some((order) => order.kind === "pin" && order.pinned));
    const { status } = await test.client.call(methods.stat, { path: "/m/model/b" });
    assert.equal(status.cachedBytes, 0);
  });

  it("a plan counts what is there, and bounds the time by what must move", async () => {
    await begin();
    const worker = await attach({ id: "w1", place: "aws/r1/a/h1" });
    await attach({ id: "w2", place: "gcp/r2/a/h1" });
    const { file } = await test.client.call(methods.open, { path: "/m/model/a" });
    await worker.have(file);
    const all = await test.client.call(methods.planLoad, { path: "/m/model", to: "all" });
    assert.deepEqual([all.bytes, all.cachedBytes, all.originBytes], [300, 100, 500], "each region reads what it lacks");
    assert.ok(all.boundSeconds > 0);
    const one = await test.client.call(methods.planLoad, { path: "/m/model", to: "cloud=aws" });
    assert.deepEqual([one.workers, one.originBytes], [["w1"], 200]);
    const nearest = await test.client.call(methods.planLoad, { path: "/m/model", to: "1" });
    assert.deepEqual(nearest.workers, ["w1"], "the one that has most already");
  });
});
