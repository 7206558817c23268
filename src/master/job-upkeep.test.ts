import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import type { DrainStatus } from "../base/cluster.ts";
import type { HeadpondError } from "../base/errors.ts";
import type { WorkerId } from "../base/ids.ts";
import { masterService } from "../rpc/master-service.ts";
import { eventually, FakeWorker, type FakeWorkerOptions, TestMaster } from "./master.test-support.ts";

const { methods } = masterService;

describe("upkeep", () => {
  let test: TestMaster;
  let workers: FakeWorker[] = [];
  afterEach(async () => {
    await Promise.all(workers.map((worker) => worker.close()));
    workers = [];
    await test.close();
  });

  const begin = async (): Promise<void> => {
    const upkeep = { intervalMs: 10, healAfterMs: 150, retryAfterMs: 200 };
    test = await TestMaster.start({ limits: { jobs: { tickMs: 10 }, jobRuns: { workerReturnMs: 100 }, upkeep } });
    for (const name of ["a.safetensors", "b"]) test.memory.put(`model/${name}`, new Uint8Array(100));
    await test.mount();
  };
  const attach = async (options: FakeWorkerOptions): Promise<FakeWorker> => {
    const worker = await FakeWorker.attach(test, options);
    workers.push(worker);
    return worker;
  };
  const load = async (to: string): Promise<void> => {
    const { job } = await test.client.call(methods.load, { path: "/m/model", to });
    await eventually("the load ends", async () => {
      const { state } = await test.client.call(methods.job, { id: job.id });
      return state === "succeeded" ? true : undefined;
    });
  };
  const drain = (worker: string, cancel = false): Promise<DrainStatus> =>
    test.client.call(methods.drain, { worker: worker as WorkerId, cancel });
  const drained = (): Promise<DrainStatus> =>
    eventually("the worker is drained", async () => {
      const { drains } = await test.client.call(methods.drains, {});
      return drains.find(({ state }) => state === "drained");
    });
  const states = async (): Promise<string[]> =>
    (await test.client.call(methods.clusterStatus, {})).workers.map(({ id, state }) => `${id} ${state}`);

  it("drains a worker: what is whole on it only is copied first, and it is given nothing more", async () => {
    await begin();
    const going = await attach({ id: "w1" });
    await load("worker=w1");
    const staying = await attach({ id: "w2" });
    const begun = await drain("w1");
    assert.deepEqual([begun.state, begun.files, begun.bytes], ["draining", 2, 200]);
    assert.deepEqual(await states(), ["w1 draining", "w2 live"]);
    assert.equal((await drained()).files, 0);
    assert.equal(staying.held.size, 2);
    assert.equal(going.held.size, 2, "it still serves what it holds");
    const { models } = await test.client.call(methods.models, {});
    assert.deepEqual(
      models[0]?.places.map(({ worker, state }) => `${worker} ${state}`),
      ["w1 READY", "w2 READY"],
    );
    const list = staying.orders.findLast((order) => order.kind === "workers");
    assert.deepEqual(
      list?.list.workers.map(({ id, draining }) => [id, draining]),
      [
        ["w1", true],
        ["w2", undefined],
      ],
    );
    const plan = await test.client.call(methods.planLoad, { path: "/m/model", to: "all" });
    assert.deepEqual(plan.workers, ["w2"]);
  });

  it("goes on with a drain after a restart, also of the worker, until it is taken back", async () => {
    await begin();
    const going = await attach({ id: "w1" });
    await load("worker=w1");
    assert.equal((await drain("w1")).state, "draining", "there is nobody to copy to");
    assert.match((await drain("w1")).problems.join(), /no worker has room for a copy/);
    await going.detach();
    await test.restart();
    await going.restart();
    await eventually("it is known again", async () => ((await states()).includes("w1 draining") ? true : undefined));
    const staying = await attach({ id: "w2" });
    await drained();
    assert.equal(staying.held.size, 2);
    await going.restart();
    await eventually("another life is drained, too", async () =>
      (await states()).includes("w1 draining") ? true : undefined,
    );
    assert.equal((await drain("w1", true)).state, "live");
    assert.deepEqual(await states(), ["w1 live", "w2 live"]);
    const plan = await test.client.call(methods.planLoad, { path: "/m/model", to: "all" });
    assert.deepEqual(plan.workers, ["w1", "w2"]);
  });

  it("never calls a worker drained that went before it was, and refuses one that nobody knows", async () => {
    await begin();
    const going = await attach({ id: "w1" });
    await load("worker=w1");
    await drain("w1");
    await going.detach();
    const away = await eventually("it is away", async () => {
      const { drains } = await test.client.call(methods.drains, {});
      return drains.find(({ state }) => state === "away");
    });
    assert.equal(away.worker, "w1");
    await assert.rejects(drain("w9"), (error: HeadpondError) => error.code === "not-found" && /w1/.test(error.message));
  });

  it("brings copies back to the least number after a loss, once the lost worker had time to come back", async () => {
    await begin();
    const first = await attach({ id: "w1" });
    const second = await attach({ id: "w2" });
    await load("2");
    await test.client.call(methods.replicas, { path: "/m/model", min: 2, max: 2 });
    const third = await attach({ id: "w3" });
    assert.equal(third.held.size, 0);
    workers = workers.filter((worker) => worker !== first);
    await first.close();
    await eventually("the copies are there again", () => (third.held.size === 2 ? true : undefined));
    assert.equal(second.held.size, 2);
    const { jobs } = await test.client.call(methods.jobs, {});
    assert.deepEqual([jobs[0]?.to, jobs[0]?.priority, jobs[0]?.path], ["worker=w3", 3, "/m/model"]);
  });

  it("takes copies away beyond the greatest number, and never pinned ones", async () => {
    await begin();
    const all = [await attach({ id: "w1" }), await attach({ id: "w2" }), await attach({ id: "w3" })];
    await load("all");
    await test.client.call(methods.pin, { path: "/m/model/b", pinned: true });
    await test.client.call(methods.replicas, { path: "/m/model", min: 1, max: 2 });
    const counts = (): number[] => all.map(({ held }) => held.size).toSorted((a, b) => a - b);
    await eventually("one copy is gone", () => (counts().join() === "1,2,2" ? true : undefined));
    for (const worker of all) assert.ok([...worker.held.values()].some(({ file }) => file.path === "/m/model/b"));
  });

  it("tells a worker that was away what was pinned meanwhile", async () => {
    await begin();
    const worker = await attach({ id: "w1" });
    await load("all");
    await worker.detach();
    await test.client.call(methods.pin, { path: "/m/model/b", pinned: true });
    const told = worker.orders.length;
    await worker.attach();
    const order = await eventually("it is told", () =>
      worker.orders.slice(told).find((candidate) => candidate.kind === "pin" && candidate.pinned),
    );
    const pinned = order.kind === "pin" ? order.versions.map((id) => worker.held.get(id)?.file.path) : [];
    assert.deepEqual(pinned, ["/m/model/b"]);
  });
});
