import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "./random.ts";

test("one seed gives one sequence, two seeds two", () => {
  const draw = (seed: number): number[] => {
    const random = new Random(seed);
    return Array.from({ length: 100 }, () => random.uint32());
  };
  assert.deepEqual(draw(7), draw(7));
  assert.notDeepEqual(draw(7), draw(8));
});

test("draws are uniform enough: 16 buckets within a tenth of their share", () => {
  const random = new Random(1);
  const counts = new Array<number>(16).fill(0);
  for (let i = 0; i < 160_000; i++) {
    const bucket = random.between(0, 15);
    counts[bucket] = (counts[bucket] ?? 0) + 1;
  }
  for (const count of counts) assert.ok(Math.abs(count - 10_000) < 1000, `${counts}`);
});

test("a shuffle keeps every item", () => {
  const items = Array.from({ length: 50 }, (_, i) => i);
  const shuffled = new Random(3).shuffle([...items]);
  assert.notDeepEqual(shuffled, items);
  assert.deepEqual(
    shuffled.sort((a, b) => a - b),
    items,
  );
});
