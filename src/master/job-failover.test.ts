/** A master that is gone at every step of a load: whatever the step, the next one goes on, and the job is one job. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { JobStatus } from "../base/cluster.ts";
import { isHeadpondError } from "../base/errors.ts";
import { masterService } from "../rpc/master-service.ts";
import { eventually, FakeWorker, TestMaster, type Verdict } from "./master.test-support.ts";

const { methods } = masterService;
const fileBytes = 100;
const names = ["a", "b", "c.safetensors"];

/** What a worker and the journal do in a load, in the order in which they do it. */
type Step = { readonly what: string; readonly count: number };

type Run = {
  readonly status: JobStatus;
  readonly steps: readonly Step[];
  readonly jobs: number;
  readonly held: number;
};

/** One load; at step `stopAt` the master is gone, and another one starts on the same disk. */
async function run(stopAt: number | undefined): Promise<Run> {
  // A new master waits for the workers before it plans: here they come at once, but in the same process.
  const settleMs = stopAt === undefined ? 10 : 3000;
  const limits = { settleMs, jobs: { tickMs: 5, markIntervalMs: 5 }, jobRuns: { originSettleMs: 20 } };
  const master = await TestMaster.start({ limits });
  for (const name of names) master.memory.put(`model/${name}`, new Uint8Array(fileBytes));
  await master.mount();
  const steps: Step[] = [];
  const reached = Promise.withResolvers<void>();
  const step = async (what: string): Promise<void> => {
    steps.push({ what, count: steps.length });
    if (steps.length - 1 !== stopAt) return;
    reached.resolve();
    // The master that is about to go sees nothing more of it.
    await restarted.promise;
  };
  const restarted = Promise.withResolvers<void>();
  const observe = (): void => {
    master.namespace.observe({
      applied: (_index, { kind }) => {
        // Marks of progress come by time, and any number of them.
        if (kind === "put-job") void step(kind);
      },
      reset: () => {},
    });
  };
  observe();
  const onLoad = async ({ path }: { readonly path: string }): Promise<Verdict> => {
    await step(`ordered ${path}`);
    return { ok: true, originBytes: fileBytes };
  };
  const workers = [
    await FakeWorker.attach(master, { id: "w1", onLoad }),
    await FakeWorker.attach(master, { id: "w2", onLoad }),
  ];
  const request = { path: "/m/model", to: "all", requestId: "the-load" };
  const asked = master.client.call(methods.load, request).catch((error: unknown) => error as Error);
  if (stopAt !== undefined) {
    await reached.promise;
    await master.restart();
    observe();
    restarted.resolve();
    // A process that lives through it attaches again; its counts go on.
    await Promise.all(workers.map((worker) => worker.reattach()));
  }
  const first = await asked;
  if (first instanceof Error) assert.ok(isHeadpondError(first), String(first));
  // The client asks again, as it does when its answer was lost.
  const { job } = await master.client.call(methods.load, request);
  const status = await eventually("the job ends", async () => {
    const now = await master.client.call(methods.job, { id: job.id });
    return now.state === "running" || now.state === "planning" ? undefined : now;
  });
  const jobs = (await master.client.call(methods.jobs, {})).jobs.length;
  const held = workers.reduce((sum, worker) => sum + worker.held.size, 0);
  await Promise.all(workers.map((worker) => worker.close()));
  await master.close();
  return { status, steps, jobs, held };
}

test("a load whose master is gone at any of its steps is one job, and ends with every file on every worker", async () => {
  const whole = await run(undefined);
  assert.equal(whole.status.state, "succeeded");
  const kinds = whole.steps.map(({ what }) => what);
  assert.equal(kinds[0], "put-job", "it is asked for");
  assert.equal(kinds[1], "put-job", "it is planned");
  assert.equal(kinds.filter((what) => what.startsWith("ordered")).length, names.length * 2);
  assert.equal(kinds.at(-1), "put-job", "it has ended");
  const stopped = async (stopAt: number): Promise<void> => {
    const what = `step ${stopAt} of ${whole.steps.length}, ${whole.steps[stopAt]?.what}`;
    const { status, jobs, held } = await run(stopAt);
    assert.equal(status.state, "succeeded", `${what}: ${JSON.stringify(status.failed)}`);
    assert.deepEqual([jobs, held], [1, names.length * 2], what);
    assert.ok(
      status.workers.every(({ ready }) => ready),
      what,
    );
  };
  await Promise.all(whole.steps.map((_, stopAt) => stopped(stopAt)));
});
