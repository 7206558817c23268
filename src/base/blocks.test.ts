import assert from "node:assert/strict";
import { test } from "node:test";
import { BlockBitmap, blockCount, blockRange } from "./blocks.ts";
import type { BlockIndex } from "./ids.ts";
import { Random } from "./random.ts";

test("blocks cover a file exactly", () => {
  assert.equal(blockCount(0, 4), 0);
  assert.equal(blockCount(9, 4), 3);
  assert.deepEqual(blockRange(2 as BlockIndex, 9, 4), { position: 8, length: 1 });
  assert.throws(() => blockRange(3 as BlockIndex, 9, 4), /behind the end/);
});

test("a bitmap agrees with a set, also over its bytes", () => {
  const seed = Date.now() >>> 0;
  const random = new Random(seed);
  for (let round = 0; round < 50; round++) {
    const length = random.between(1, 300);
    const bitmap = new BlockBitmap(length);
    const model = new Set<number>();
    for (let step = 0; step < 400; step++) {
      const index = random.between(0, length - 1);
      const add = random.chance(0.6);
      const changed = add ? bitmap.add(index as BlockIndex) : bitmap.delete(index as BlockIndex);
      assert.equal(changed, add ? !model.has(index) : model.has(index), `seed ${seed}`);
      if (add) model.add(index);
      else model.delete(index);
    }
    const copy = BlockBitmap.fromBytes(bitmap.toBytes(), length);
    assert.equal(copy.count, model.size, `seed ${seed}`);
    assert.equal(copy.isFull, model.size === length);
    for (let index = 0; index < length; index++) assert.equal(copy.has(index as BlockIndex), model.has(index));
    const sizeBytes = (length - 1) * 10 + 3;
    const covered = [...model].reduce((sum, index) => sum + (index === length - 1 ? 3 : 10), 0);
    assert.equal(copy.coveredBytes(sizeBytes, 10), covered, `seed ${seed}`);
  }
});

test("bitmap bytes of the wrong length or with stray bits are corrupt", () => {
  assert.throws(() => BlockBitmap.fromBytes(new Uint8Array(2), 3), /2 bytes, not 1/);
  assert.throws(() => BlockBitmap.fromBytes(Uint8Array.of(0b1000), 3), /bits behind block 2/);
  assert.equal(BlockBitmap.full(11).isFull, true);
});
