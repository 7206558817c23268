/** The pool's budget, its order, and that its memory is fit for O_DIRECT (`disk.test.ts` writes with it). */

import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { alignedBuffer, BufferPool } from "./aligned-buffer.ts";

test("an aligned buffer has the length asked for and is zeroed", () => {
  const buffer = alignedBuffer(5000);
  assert.equal(buffer.length, 5000);
  assert.equal(buffer.byteOffset, 0);
  assert.ok(buffer.every((byte) => byte === 0));
});

test("a pool makes no more buffers than its budget and uses them again", async () => {
  const pool = new BufferPool({ bufferBytes: 4096, countMax: 2 });
  const first = await pool.take();
  const second = await pool.take();
  assert.notEqual(first, second);
  assert.equal(pool.tryTake(), undefined);
  pool.give(first);
  assert.equal(pool.tryTake(), first);
  assert.equal(pool.takenCount, 2);
});

test("waiters get buffers in the order in which they came", async () => {
  const pool = new BufferPool({ bufferBytes: 4096, countMax: 1 });
  const buffer = await pool.take();
  const order: string[] = [];
  const waits = ["a", "b", "c"].map(async (name) => {
    const given = await pool.take();
    order.push(name);
    pool.give(given);
  });
  pool.give(buffer);
  await Promise.all(waits);
  assert.deepEqual(order, ["a", "b", "c"]);
  assert.equal(pool.takenCount, 0);
});

test("an aborted waiter leaves the queue and takes no buffer with it", async () => {
  const pool = new BufferPool({ bufferBytes: 4096, countMax: 1 });
  const buffer = await pool.take();
  const abort = new AbortController();
  const aborted = pool.take(abort.signal);
  const patient = pool.take();
  abort.abort(new Error("gone"));
  await assert.rejects(aborted, /gone/);
  await assert.rejects(pool.take(abort.signal), /gone/);
  pool.give(buffer);
  assert.equal(await patient, buffer);
  assert.equal(pool.waiterCount, 0);
});

test("more waiters than waitersMax are refused as overloaded", async () => {
  const pool = new BufferPool({ bufferBytes: 4096, countMax: 1, waitersMax: 1 });
  const buffer = await pool.take();
  const waiter = pool.take();
  await assert.rejects(pool.take(), (error) => isHeadpondError(error, "overloaded"));
  pool.give(buffer);
  assert.equal(await waiter, buffer);
});

test("a buffer that comes back twice, or to the wrong pool, is a defect", async () => {
  const pool = new BufferPool({ bufferBytes: 4096, countMax: 1 });
  const buffer = await pool.take();
  pool.give(buffer);
  assert.throws(() => pool.give(buffer), /not handed out/);
  assert.throws(() => new BufferPool({ bufferBytes: 4096, countMax: 1 }).give(buffer), /not handed out/);
});
