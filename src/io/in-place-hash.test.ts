import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { alignedBuffer } from "./aligned-buffer.ts";
import { xxh64, xxh64Hex } from "./hash.ts";
import { canHashInPlace, InPlaceHash } from "./in-place-hash.ts";

const seed = Date.now() >>> 0;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const copyOf = (bytes: Uint8Array): Uint8Array => Uint8Array.from(bytes);

test("a hash in place is xxh64, for every length and in pieces of any size", () => {
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const buffer = alignedBuffer(300_000);
  buffer.set(random.bytes(buffer.length));
  for (let count = 0; count < 200; count++) {
    assert.equal(hex(new InPlaceHash(buffer).digest(count)), xxh64Hex(copyOf(buffer.subarray(0, count))), `${count}`);
  }
  for (let i = 0; i < 50; i++) {
    const begin = random.between(0, 1000);
    const bytes = buffer.subarray(begin, random.between(begin, buffer.length));
    const hash = new InPlaceHash(bytes);
    for (let at = 0; at < bytes.length; at += random.between(1, 100_000)) hash.update(at);
    assert.equal(hex(hash.digest(bytes.length)), xxh64Hex(copyOf(bytes)));
  }
});

test("known sums: nothing, and the specification's own vector", () => {
  const buffer = alignedBuffer(100);
  assert.equal(hex(new InPlaceHash(buffer).digest(0)), "ef46db3751d8e999");
  buffer.write("abc");
  assert.equal(hex(new InPlaceHash(buffer).digest(3)), "44bc2cf5ad770999");
});

test("two hashes over one memory do not disturb each other, and one begins again when told to", () => {
  const buffer = alignedBuffer(100_000);
  buffer.set(new Random(seed).bytes(buffer.length));
  const whole = new InPlaceHash(buffer);
  whole.update(64_000);
  const other = new InPlaceHash(buffer.subarray(1000));
  other.update(50_000);
  const expected = xxh64Hex(copyOf(buffer));
  assert.equal(hex(whole.digest(100_000)), expected);
  buffer.fill(7, 0, 10);
  whole.reset();
  assert.equal(hex(whole.digest(100_000)), xxh64Hex(copyOf(buffer)));
  assert.equal(hex(whole.digest(40_000)), xxh64Hex(copyOf(buffer.subarray(0, 40_000))), "a shorter one, too");
});

test("xxh64 hashes aligned buffers where they lie, to the same sum", () => {
  const buffer = alignedBuffer(200_000);
  buffer.set(new Random(seed + 1).bytes(buffer.length));
  assert.ok(canHashInPlace(buffer));
  assert.ok(!canHashInPlace(copyOf(buffer)));
  assert.equal(hex(xxh64(buffer.subarray(3))), xxh64Hex(copyOf(buffer.subarray(3))));
});
