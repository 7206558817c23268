import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { masterService } from "../rpc/master-service.ts";
import { eventually, FakeWorker, TestMaster } from "./master.test-support.ts";

const { methods } = masterService;
const bytes = (n: number): Uint8Array => new Uint8Array(n);

describe("a master in one process", () => {
  let test: TestMaster;
  before(async () => {
    test = await TestMaster.start();
  });
  after(() => test.close());

  it("mounts, syncs, stats, lists and opens what the under store has", async () => {
    test.memory.put("org/model/config.json", bytes(10));
    test.memory.put("org/model/model.safetensors", bytes(100));
    await test.mount();
    const { status } = await test.client.call(methods.stat, { path: "/m/org/model/config.json" });
    assert.equal(status.sizeBytes, 10);
    assert.equal(status.mount, "/m");
    assert.equal(test.store.requests("head"), 1, "a name that nobody asked for costs one head");
    const names: string[] = [];
    for await (const { entries } of test.client.openStream(methods.list, { path: "/m", recursive: true })) {
      names.push(...entries.map(({ path }) => path));
    }
    assert.deepEqual(names, ["/m/org", "/m/org/model", "/m/org/model/config.json", "/m/org/model/model.safetensors"]);
    const { file, holders } = await test.client.call(methods.open, { path: "/m/org/model/model.safetensors" });
    assert.equal(file.key, "org/model/model.safetensors");
    assert.equal(file.sizeBytes, 100);
    assert.deepEqual(holders, []);
  });

  it("loads a model onto all workers, and says succeeded when all of them hold all of it", async () => {
    const workers = [await FakeWorker.attach(test, { id: "w1" }), await FakeWorker.attach(test, { id: "w2" })];
    const plan = await test.client.call(methods.planLoad, { path: "/m/org", to: "all" });
    assert.deepEqual([plan.files, plan.bytes, plan.originBytes, plan.cachedBytes], [2, 110, 110, 0]);
    assert.deepEqual(plan.workers, ["w1", "w2"]);
    assert.deepEqual(plan.problems, []);
    const { job } = await test.client.call(methods.load, { path: "/m/org", to: "all" });
    let last = job;
    for await (const status of test.client.openStream(methods.watchJob, { id: job.id, intervalMs: 100 })) last = status;
    assert.equal(last.state, "succeeded");
    assert.deepEqual([last.bytesDone, last.bytesTotal, last.originBytes], [220, 220, 220]);
    assert.equal(last.originAmplification, 2, "both fake workers say that they read everything");
    const { models } = await test.client.call(methods.models, {});
    assert.deepEqual(
      models.map(({ path, files, places }) => [path, files, places.map(({ state }) => state)]),
      [["/m/org/model", 2, ["READY", "READY"]]],
    );
    await Promise.all(workers.map((worker) => worker.close()));
    await eventually("both are lost", async () => {
      const status = await test.client.call(methods.clusterStatus, {});
      return status.workers.every(({ state }) => state === "lost") || undefined;
    });
  });

  it("a change is answered with its own version, also when others change the same file in the same moment", async () => {
    await test.client.call(methods.create, { path: "/versions" });
    const changes = Array.from({ length: 5 }, (_, n) =>
      test.client.call(methods.setAttributes, { path: "/versions", set: { n: `${n}` } }),
    );
    const versions = (await Promise.all(changes)).map(({ version }) => version);
    assert.equal(new Set(versions).size, 5, `${versions}`);
    const { status } = await test.client.call(methods.stat, { path: "/versions" });
    assert.equal(status.version, Math.max(...versions));
    // Whoever was told an older version must not undo what came after it.
    const ifVersion = Math.min(...versions);
    await assert.rejects(test.client.call(methods.setAttributes, { path: "/versions", set: { n: "x" }, ifVersion }), {
      code: "version-mismatch",
    });
  });

  it("everything acknowledged is there after a restart", async () => {
    await test.client.call(methods.mkdir, { path: "/a/b", recursive: true });
    await test.client.call(methods.create, { path: "/a/b/c", attributes: { key: "value" } });
    await test.restart();
    const { status } = await test.client.call(methods.stat, { path: "/a/b/c" });
    assert.deepEqual(status.attributes, { key: "value" });
    const { jobs } = await test.client.call(methods.jobs, {});
    assert.deepEqual(
      jobs.map(({ state, bytesDone }) => [state, bytesDone]),
      [["succeeded", 220]],
    );
  });
});
