/** Test vectors are those of the algorithms' own publications. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import {
  crc32,
  crc32Of,
  Digest,
  digestHex,
  equalSecrets,
  hmacSha256,
  Xxh64,
  xxh64,
  xxh64BigInt,
  xxh64Hex,
} from "./hash.ts";

test("xxh64 agrees with its published vectors in all three forms", () => {
  assert.equal(xxh64Hex(Buffer.from("")), "ef46db3751d8e999");
  assert.equal(xxh64Hex(Buffer.from("abc")), "44bc2cf5ad770999");
  assert.equal(Buffer.from(xxh64(Buffer.from("abc"))).toString("hex"), "44bc2cf5ad770999");
  assert.equal(xxh64BigInt(Buffer.from("abc")), 0x44bc2cf5ad770999n);
});

test("streams of xxh64 that take turns do not disturb one another, nor whole hashes between them", () => {
  const seed = Date.now() >>> 0;
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const streams = Array.from({ length: 5 }, () => ({ hash: new Xxh64(), parts: [] as Uint8Array[] }));
  for (let step = 0; step < 300; step++) {
    const { hash, parts } = random.pick(streams);
    const part = random.bytes(random.between(0, 3000));
    hash.update(part);
    parts.push(part);
    if (random.chance(0.2)) xxh64(part);
    if (random.chance(0.2)) assert.equal(hash.hex(), xxh64Hex(Buffer.concat(parts)));
  }
  for (const { hash, parts } of streams) {
    assert.equal(hash.hex(), xxh64Hex(Buffer.concat(parts)));
    assert.deepEqual(Buffer.from(hash.bytes()), Buffer.from(xxh64(Buffer.concat(parts))));
  }
  assert.equal(new Xxh64().hex(), xxh64Hex(Buffer.from("")));
});

test("digests, hmac and crc32 agree with their published vectors", () => {
  const sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  assert.equal(new Digest("sha256").update("a").update(Buffer.from("bc")).hex(), sha256);
  assert.equal(digestHex("sha1", "abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
  assert.equal(digestHex("md5", "abc"), "900150983cd24fb0d6963f7d28e17f72");
  const hmac = hmacSha256("Jefe", "what do ya want for nothing?");
  assert.equal(Buffer.from(hmac).toString("hex"), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  assert.equal(crc32("123456789"), 0xcbf43926);
  assert.equal(crc32("6789", crc32("12345")), crc32("123456789"));
});

test("secrets are equal only if they are the same", () => {
  assert.equal(equalSecrets("abc", "abc"), true);
  assert.equal(equalSecrets("abc", "abcd"), false);
});

test("the CRC of a piece is the same whether it is short or long, wherever it begins", () => {
  const seed = Date.now() >>> 0;
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const bytes = random.bytes(4096);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let round = 0; round < 2000; round++) {
    const start = random.between(0, 3000);
    const end = start + random.between(0, round % 10 === 0 ? 1000 : 220);
    const previous = random.uint32();
    assert.equal(crc32Of(bytes, view, start, end, previous), crc32(bytes.subarray(start, end), previous));
  }
});
