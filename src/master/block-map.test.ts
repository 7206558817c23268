import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BlockBitmap } from "../base/blocks.ts";
import type { Holding } from "../base/cluster.ts";
import { type BlockIndex, type FileVersionId, type InodeId, parseFileVersionId, type WorkerId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { BlockMap, coverageBytes } from "./block-map.ts";

const w = (n: number): WorkerId => `w${n}` as WorkerId;
const block = (n: number): BlockIndex => n as BlockIndex;

function holding(id: string, blockCount: number, blocks: readonly number[], more: Partial<Holding> = {}): Holding {
  const bitmap = new BlockBitmap(blockCount);
  for (const index of blocks) bitmap.add(block(index));
  return {
    id: id as FileVersionId,
    blockCount,
    bitmap: bitmap.toBytes(),
    complete: blocks.length === blockCount,
    originBytes: 0,
    ...more,
  };
}

function mapOf(workers: number, limits = {}): BlockMap {
  const map = new BlockMap({ isKnown: (inodeId) => inodeId < 1000, limits });
  for (let n = 1; n <= workers; n++) map.addWorker(w(n));
  return map;
}

const five = 5 as InodeId;

describe("block map", () => {
  it("knows the holders of a version and the bytes that all of them have together", () => {
    const map = mapOf(3);
    map.report(w(1), holding("5-1", 4, [0, 1]));
    map.report(w(2), holding("5-1", 4, [1, 3]));
    assert.deepEqual(map.holders(five, 1), [w(1), w(2)]);
    assert.equal(map.cachedBytes(five, 1, 35, 10), 25, "blocks 0, 1 and the short last one");
    map.report(w(3), holding("5-1", 4, [0, 1, 2, 3]));
    assert.equal(map.cachedBytes(five, 1, 35, 10), 35);
    assert.equal(map.isComplete(w(3), five, 1), true);
    assert.equal(map.cachedBytes(five, 2, 35, 10), 0, "another content is another thing");
  });

  it("a block that leaves a complete version withdraws its completeness at once", () => {
    const map = mapOf(1);
    map.report(w(1), holding("5-1", 3, [0, 1, 2]));
    map.report(w(1), {
      id: "5-1" as FileVersionId,
      blockCount: 3,
      removed: [block(1)],
      complete: false,
      originBytes: 0,
    });
    assert.equal(map.isComplete(w(1), five, 1), false);
    assert.deepEqual(map.coverage(w(1), five, 1), { blocks: 2, last: true, complete: false });
  });

  it("a full set of blocks without the worker's word for it is not complete", () => {
    const map = mapOf(1);
    map.report(w(1), holding("5-1", 2, [0, 1], { complete: false }));
    assert.equal(map.isComplete(w(1), five, 1), false);
    assert.equal(map.cachedBytes(five, 1, 15, 10), 15);
  });

  it("what a full report does not mention is gone when it ends, and not before", () => {
    const map = mapOf(1);
    map.report(w(1), holding("5-1", 2, [0, 1]));
    map.report(w(1), holding("6-1", 2, [0]));
    map.beginFull(w(1));
    map.report(w(1), holding("6-1", 2, [0, 1]));
    assert.equal(map.isComplete(w(1), five, 1), true, "still during the report");
    map.endFull(w(1));
    assert.deepEqual(map.holders(five, 1), []);
    assert.equal(map.versionCount, 1);
    assert.equal(map.heldCount(w(1)), 1);
  });

  it("a removed worker leaves nothing behind, and its place can be used again", () => {
    const map = mapOf(2);
    for (let inode = 1; inode <= 50; inode++) map.report(w(1), holding(`${inode}-1`, 2, [0]));
    map.report(w(2), holding("7-1", 2, [0, 1]));
    map.removeWorker(w(1));
    assert.equal(map.versionCount, 1);
    map.addWorker(w(3));
    assert.deepEqual(map.holders(7 as InodeId, 1), [w(2)]);
    assert.equal(map.isComplete(w(3), 7 as InodeId, 1), false);
  });

  it("versions of inodes that nobody knows yet are parked up to a limit, then refused and counted", () => {
    const map = mapOf(1, { parkedMax: 2 });
    assert.equal(map.report(w(1), holding("5000-1", 1, [0])), true);
    assert.equal(map.report(w(1), holding("5001-1", 1, [0])), true);
    assert.equal(map.report(w(1), holding("5002-1", 1, [0])), false);
    assert.equal(map.report(w(1), holding("5-1", 1, [0])), true, "known ones have room");
    assert.deepEqual([map.parkedCount, map.refusedCount], [2, 1]);
  });

  it("a report that contradicts itself or others is refused and leaves no trace", () => {
    const map = mapOf(2);
    assert.throws(() => map.report(w(1), { ...holding("5-1", 9, [0]), bitmap: new Uint8Array(1) }), {
      code: "corrupt",
    });
    assert.throws(() => map.report(w(1), holding("x", 1, [0])), { code: "invalid" });
    assert.throws(() => map.report(w(1), { ...holding("5-1", 1, [0]), blockCount: 2 ** 40, complete: true }), {
      code: "invalid",
    });
    assert.equal(map.versionCount, 0);
    map.report(w(1), holding("5-1", 2, [0]));
    assert.throws(() => map.report(w(2), holding("5-1", 3, [0])), { code: "invalid" });
  });

  it("origin bytes grow by what a worker read since its last report, also across its restart", () => {
    const map = mapOf(1);
    const read: number[] = [];
    map.onChange((change) => read.push(change.originBytes));
    map.report(w(1), holding("5-1", 2, [0], { originBytes: 10 }));
    map.report(w(1), holding("5-1", 2, [0, 1], { originBytes: 25 }));
    map.report(w(1), holding("5-1", 2, [0, 1], { originBytes: 4 }));
    assert.deepEqual(read, [10, 15, 4]);
  });

  it("agrees with a plain model under random reports", () => {
    const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
    console.log(`seed ${seed}`);
    const random = new Random(seed);
    const map = mapOf(0);
    const model = new Map<WorkerId, Map<string, Set<number>>>();
    const changed = new Map<string, number>();
    map.onChange(({ worker, version, before, after }) => {
      const key = `${worker} ${version.id}`;
      assert.equal(changed.get(key) ?? 0, before.blocks);
      changed.set(key, after.blocks);
    });
    for (let step = 0; step < 4000; step++) {
      const worker = w(random.between(1, 5));
      if (random.chance(0.02)) {
        map.removeWorker(worker);
        model.delete(worker);
        continue;
      }
      map.addWorker(worker);
      const held = model.get(worker) ?? new Map<string, Set<number>>();
      model.set(worker, held);
      const id = `${random.between(1, 8)}-${random.between(1, 2)}`;
      const count = 11;
      const blocks = held.get(id) ?? new Set<number>();
      if (random.chance(0.1)) {
        held.delete(id);
        map.report(worker, { id: id as FileVersionId, blockCount: count, complete: false, gone: true, originBytes: 0 });
        continue;
      }
      const index = random.between(0, count - 1);
      const remove = random.chance(0.2);
      if (remove) blocks.delete(index);
      else blocks.add(index);
      held.set(id, blocks);
      const delta = remove ? { removed: [block(index)] } : { added: [block(index)] };
      map.report(worker, {
        id: id as FileVersionId,
        blockCount: count,
        ...delta,
        complete: blocks.size === count,
        originBytes: 0,
      });
    }
    for (let inode = 1; inode <= 8; inode++) {
      for (let content = 1; content <= 2; content++) {
        const id = `${inode}-${content}`;
        const union = new Set<number>();
        for (const [worker, held] of model) {
          for (const index of held.get(id) ?? []) union.add(index);
          const coverage = map.coverage(worker, inode as InodeId, content);
          assert.equal(coverage.blocks, held.get(id)?.size ?? 0);
          assert.equal(coverage.complete, held.get(id)?.size === 11);
        }
        assert.equal(map.union(inode as InodeId, content).blocks, union.size);
        const bytes = [...union].reduce((sum, index) => sum + (index === 10 ? 3 : 10), 0);
        assert.equal(map.cachedBytes(inode as InodeId, content, 103, 10), bytes);
      }
    }
  });

  it("a thousand workers with ten thousand complete versions each take tens of megabytes", () => {
    const map = new BlockMap({ isKnown: () => true });
    const ids = Array.from({ length: 10_000 }, (_, i) => `${i + 1}-1` as FileVersionId);
    const workers = 1000;
    for (let n = 0; n < workers; n++) map.addWorker(w(n));
    // Every hundredth worker reports everything: the cost of a holding is what is measured, not patience.
    for (let n = 0; n < workers; n += 100) {
      for (const id of ids) map.report(w(n), { id, blockCount: 250, complete: true, originBytes: 0 });
    }
    assert.ok(map.memoryBytes < 64 * 1024 * 1024, `${map.memoryBytes} bytes`);
    assert.equal(map.holders(parseFileVersionId("77-1").inodeId, 1).length, 10);
    for (let n = 0; n < workers; n += 100) map.removeWorker(w(n));
    assert.equal(map.versionCount, 0);
  });

  it("coverage in bytes never exceeds the file", () => {
    assert.equal(coverageBytes({ blocks: 3, last: true, complete: false }, 25, 10), 25);
    assert.equal(coverageBytes({ blocks: 1, last: true, complete: false }, 25, 10), 5);
    assert.equal(coverageBytes({ blocks: 0, last: false, complete: true }, 0, 10), 0);
  });
});
