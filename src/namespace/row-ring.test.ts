import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { RowRing } from "./row-ring.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
console.log(`seed ${seed}`);

function put(ring: RowRing, id: number, text: string): number {
  const row = Buffer.from(`<${text}>`);
  return ring.put(id, row, 1, row.length - 1);
}

function textAt(ring: RowRing, position: number): string {
  ring.locate(position);
  return ring.bytes.toString("latin1", ring.start, ring.end);
}

test("a row is found by its id until newer ones needed its room, and never another one in its place", () => {
  const ring = new RowRing(4096);
  const random = new Random(seed);
  const newest = new Map<number, string>();
  let found = 0;
  for (let i = 0; i < 20_000; i++) {
    const id = random.chance(0.5) ? random.between(1, 40) : random.between(2 ** 40, 2 ** 40 + 5000);
    const text = `${id}:${i}`.padEnd(random.between(1, 60), ".");
    assert.notEqual(put(ring, id, text), 0);
    newest.set(id, text);
    if (random.chance(0.1)) {
      ring.drop(id);
      newest.delete(id);
      assert.equal(ring.find(id), 0);
    }
    const asked = random.chance(0.5) ? random.between(1, 40) : random.between(2 ** 40, 2 ** 40 + 5000);
    const position = ring.find(asked);
    if (position === 0) continue;
    found++;
    assert.equal(textAt(ring, position), newest.get(asked));
  }
  assert.ok(found > 1000, `only ${found} were found`);
});

test("rows that must stay are not overwritten: there is no room then, and again once they may go", () => {
  const ring = new RowRing(1024);
  const first = put(ring, 1, "kept");
  ring.keepFrom(first);
  let id = 2;
  while (put(ring, id, "x".repeat(50)) !== 0) id++;
  assert.ok(id > 10, `${id} rows only`);
  assert.equal(textAt(ring, first), "kept");
  ring.keepFrom(Number.POSITIVE_INFINITY);
  for (let i = 0; i < 30; i++) assert.notEqual(put(ring, 100 + i, "y".repeat(50)), 0);
  assert.equal(ring.find(1), 0);
});

test("a row larger than a chunk finds no room, and does no harm", () => {
  const ring = new RowRing(1024);
  put(ring, 1, "one");
  assert.equal(put(ring, 2, "z".repeat(2000)), 0);
  assert.equal(textAt(ring, ring.find(1)), "one");
});

test("memory is used as rows come, within its limit", () => {
  const bytesMax = 8 * 1024 * 1024;
  const ring = new RowRing(bytesMax);
  assert.ok(ring.usedBytes < 64 * 1024, `${ring.usedBytes} bytes at first`);
  for (let id = 1; id <= 200_000; id++) put(ring, id, "r".repeat(80));
  assert.ok(ring.usedBytes <= bytesMax + bytesMax / 8, `${ring.usedBytes} bytes`);
  // The newest tens of thousands are all there.
  for (let id = 140_000; id <= 200_000; id++) assert.notEqual(ring.find(id), 0, `${id}`);
});
