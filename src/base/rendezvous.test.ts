import assert from "node:assert/strict";
import { test } from "node:test";
import { type BlockIndex, type FileVersionId, parseFileVersionId, type WorkerId } from "./ids.ts";
import { ownerOrder } from "./rendezvous.ts";

const file = "42-1" as FileVersionId;
const workers = Array.from({ length: 8 }, (_, i) => `w${i}` as WorkerId);

test("the order does not depend on the order of the list", () => {
  for (let block = 0; block < 50; block++) {
    const order = ownerOrder(file, block as BlockIndex, workers);
    assert.deepEqual(ownerOrder(file, block as BlockIndex, workers.toReversed()), order);
  }
});

test("a worker that leaves moves only its own blocks", () => {
  const gone = workers[3] as WorkerId;
  const rest = workers.filter((worker) => worker !== gone);
  for (let block = 0; block < 500; block++) {
    const before = ownerOrder(file, block as BlockIndex, workers);
    const after = ownerOrder(file, block as BlockIndex, rest);
    assert.deepEqual(
      after,
      before.filter((worker) => worker !== gone),
    );
  }
});

test("blocks spread evenly: no owner has more than 1.3 of its share", () => {
  const counts = new Map<WorkerId, number>();
  const blocks = 8000;
  for (let block = 0; block < blocks; block++) {
    const [owner] = ownerOrder(file, block as BlockIndex, workers);
    counts.set(owner as WorkerId, (counts.get(owner as WorkerId) ?? 0) + 1);
  }
  for (const count of counts.values()) assert.ok(count < (1.3 * blocks) / workers.length, `${[...counts.values()]}`);
  assert.equal(counts.size, workers.length);
});

test("file version ids from outside are checked", () => {
  assert.deepEqual(parseFileVersionId("42-3"), { id: "42-3", inodeId: 42, contentVersion: 3 });
  for (const wrong of ["", "42", "0-1", "42-0", "42-3/..", "-1-2", "1-2-3", "9".repeat(30)]) {
    assert.throws(() => parseFileVersionId(wrong), /not a file version id/);
  }
});
