import assert from "node:assert/strict";
import { test } from "node:test";
import type { BlockIndex } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { alignedBuffer } from "../io/aligned-buffer.ts";
import { xxh64Hex } from "../io/hash.ts";
import type { CachedFile } from "./cached-file.ts";
import { Fill } from "./fill.ts";
import { FillBuffers } from "./fill-buffers.ts";

const bufferBytes = 4096;
const file = { id: "1-1", blockLength: () => bufferBytes } as unknown as CachedFile;

/** A block that is stored, and warm. */
async function warmFill(buffers: FillBuffers, block: number): Promise<Fill> {
  const fill = new Fill({ file, block: block as BlockIndex, urgency: 0 });
  const buffer = await buffers.take();
  fill.begin(buffer);
  fill.append(new Uint8Array(bufferBytes).fill(block));
  fill.setVerified(fill.digest());
  fill.setStored();
  buffers.keepWarm(fill, buffer);
  return fill;
}

test("a lent buffer is not given to anybody else before its last loan is given back", async () => {
  const buffers = new FillBuffers({ bufferBytes, countMax: 2, lentMax: 1 });
  const lent = await warmFill(buffers, 1);
  const first = buffers.lend(lent, 100, 1000) ?? assert.fail();
  const second = buffers.lend(lent, 0, 1_000_000) ?? assert.fail();
  assert.equal(first.bytes.length, 1000);
  assert.equal(second.bytes.length, bufferBytes);
  const other = await warmFill(buffers, 2);
  const taken = await buffers.take();
  assert.equal(other.bytes(), undefined, "the one that nobody borrowed was retired, though it is younger");
  const waiting = buffers.take();
  let isTaken = false;
  void waiting.then(() => (isTaken = true));
  first.giveBack();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isTaken, false);
  assert.ok(second.bytes.every((byte) => byte === 1));
  second.giveBack();
  buffers.give(await waiting);
  buffers.give(taken);
  assert.equal(buffers.lentCount, 0);
});

test("a fill that ends while it is lent gives its buffer up, and the borrower keeps the bytes", async () => {
  const buffers = new FillBuffers({ bufferBytes, countMax: 2, lentMax: 1 });
  const fill = await warmFill(buffers, 7);
  const loan = buffers.lend(fill, 0, bufferBytes) ?? assert.fail();
  buffers.forget("1-1", 7);
  assert.equal(fill.bytes(), undefined);
  assert.equal(buffers.lend(fill, 0, 1), undefined, "no longer in memory");
  const [one] = [await buffers.take()];
  const waiting = buffers.take();
  one.fill(0);
  assert.ok(loan.bytes.every((byte) => byte === 7));
  loan.giveBack();
  buffers.give(await waiting);
  buffers.give(one);
  assert.equal(buffers.takenCount, 0);
});

test("no more than lentMax buffers are lent; others are copied from", async () => {
  const buffers = new FillBuffers({ bufferBytes, countMax: 4, lentMax: 2 });
  const fills = [await warmFill(buffers, 1), await warmFill(buffers, 2), await warmFill(buffers, 3)];
  const loans = fills.map((fill) => buffers.lend(fill, 0, 10));
  assert.deepEqual(
    loans.map((loan) => loan !== undefined),
    [true, true, false],
  );
  assert.ok(buffers.lend(fills[0] ?? assert.fail(), 10, 10), "one that is lent already may be lent again");
  assert.equal(fills[2]?.copyTo(new Uint8Array(10), 0), 10);
});

test("a fill takes bytes that lie in their place without a copy, and its digest follows every attempt", () => {
  const bytes = new Random(5).bytes(bufferBytes);
  const buffer = alignedBuffer(64 * 1024);
  const fill = new Fill({ file, block: 0 as BlockIndex, urgency: 0 });
  fill.begin(buffer);
  const room = fill.room() ?? assert.fail();
  assert.equal(room.length, bufferBytes);
  room.set(bytes.subarray(0, 1000));
  assert.ok(fill.append(room.subarray(0, 1000)));
  assert.ok(fill.append(Uint8Array.from(bytes.subarray(1000, 3000))), "from elsewhere");
  // What came from 2000 on is taken back, and comes otherwise.
  fill.rewind(2000);
  assert.equal(fill.room()?.byteOffset, buffer.byteOffset + 2000);
  fill.append(new Uint8Array(2096).fill(9));
  const expected = Buffer.from(bytes);
  expected.fill(9, 2000);
  assert.equal(Buffer.from(fill.digest()).toString("hex"), xxh64Hex(expected));
  assert.ok(expected.equals(fill.bytes() ?? assert.fail()));
  assert.equal(fill.append(new Uint8Array(1)), false, "more than the block has");
});
