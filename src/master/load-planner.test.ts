import assert from "node:assert/strict";
import { test } from "node:test";
import type { LoadPlan } from "../base/cluster.ts";
import { type HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { FileVersionId, InodeId, WorkerId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import type { Place } from "../base/place.ts";
import { BlockMap } from "./block-map.ts";
import { LoadPlanner, type PlannedWorker } from "./load-planner.ts";

const blockSizeBytes = 100;
const file = (inode: number, sizeBytes: number): FileDescriptor =>
  ({
    id: `${inode}-1` as FileVersionId,
    inodeId: inode as InodeId,
    contentVersion: 1,
    sizeBytes,
    blockSizeBytes,
  }) as FileDescriptor;
const worker = (id: string, more: Partial<PlannedWorker> = {}): PlannedWorker => ({
  id: id as WorkerId,
  place: "c/r/z/h" as Place,
  capacityBytes: 1000,
  ...more,
});

function planner(
  to: string,
  live: readonly PlannedWorker[],
  files: readonly FileDescriptor[],
  held: Readonly<Record<string, readonly FileDescriptor[]>> = {},
): LoadPlanner {
  const blockMap = new BlockMap({ isKnown: () => true });
  for (const [id, all] of Object.entries(held)) {
    blockMap.addWorker(id as WorkerId);
    for (const { id: version, sizeBytes } of all) {
      const blockCount = Math.ceil(sizeBytes / blockSizeBytes);
      blockMap.report(id as WorkerId, { id: version, blockCount, complete: true, originBytes: 0 });
    }
  }
  const made = new LoadPlanner({ path: "/m" as Path, to, live, blockMap });
  for (const one of files) made.add(one);
  return made;
}

function problemsOf(made: LoadPlanner): { readonly plan: LoadPlan; readonly code: string | undefined } {
  const plan = made.finish();
  try {
    made.refuseProblems(plan);
    return { plan, code: undefined };
  } catch (error) {
    assert.ok(isHeadpondError(error));
    return { plan, code: (error as HeadpondError).code };
  }
}

test("a load that does not fit beside what is pinned or in use says so in its plan, with the figures", () => {
  const files = [file(1, 300), file(2, 400)];
  const { plan, code } = problemsOf(planner("all", [worker("w1", { keptBytes: 400 }), worker("w2")], files));
  assert.equal(code, "no-space");
  assert.equal(plan.problems.length, 1);
  assert.match(plan.problems[0] ?? "", /^worker w1 .* of which 400 B are pinned or in use, the load takes 700 B/);
});

test("what is kept of the load itself is not in its way", () => {
  const files = [file(1, 300), file(2, 400)];
  const made = planner("all", [worker("w1", { keptBytes: 600 })], files, { w1: [files[0] as FileDescriptor] });
  assert.equal(problemsOf(made).code, undefined, "of 600 that are kept 300 may be of the load: 700 + 300 fit");
});

test("what is promised to running jobs is taken into account, but not twice for the same files", () => {
  const files = [file(1, 600)];
  const promised = new Map([
    ["1-1", 600],
    ["9-1", 300],
  ]);
  const promisedBytes = (except: ReadonlySet<string>): number => {
    return [...promised].reduce((sum, [id, bytes]) => sum + (except.has(id) ? 0 : bytes), 0);
  };
  assert.equal(problemsOf(planner("all", [worker("w1", { promisedBytes })], files)).code, undefined);
  promised.set("8-1", 200);
  const { plan, code } = problemsOf(planner("all", [worker("w1", { promisedBytes })], files));
  assert.equal(code, "no-space");
  assert.match(plan.problems[0] ?? "", /500 B are promised to running jobs/);
});

test("of a number of workers those are chosen that have room, then those that hold most", () => {
  const files = [file(1, 300), file(2, 300)];
  const live = [worker("w1", { keptBytes: 900 }), worker("w2"), worker("w3"), worker("w4")];
  const { plan } = problemsOf(planner("2", live, files, { w4: [files[0] as FileDescriptor] }));
  assert.deepEqual(plan.workers, ["w2", "w4"]);
  assert.deepEqual(plan.problems, []);
});

test("workers can be named, and one that is not live is said", () => {
  const files = [file(1, 300)];
  assert.deepEqual(
    problemsOf(planner("worker=w2|w1", [worker("w1"), worker("w2"), worker("w3")], files)).plan.workers,
    ["w1", "w2"],
  );
  const { plan, code } = problemsOf(planner("worker=w1|w7|w8", [worker("w1")], files));
  assert.equal(code, "unavailable");
  assert.deepEqual(plan.problems, ["w7, w8 are not live"]);
});
