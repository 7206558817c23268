import assert from "node:assert/strict";
import { test } from "node:test";
import { NameCache } from "./name-cache.ts";
import { hashName } from "./name-filter.ts";

test("names are guessed again, also after the cache has grown to hold them", () => {
  const cache = new NameCache(2 ** 16);
  const count = 10_000;
  for (let i = 1; i <= count; i++) cache.set(hashName(i % 100, `file-${i}`), i);
  let found = 0;
  for (let i = 1; i <= count; i++) {
    const guess = cache.get(hashName(i % 100, `file-${i}`));
    if (guess === i) found++;
  }
  // Two names may share a slot, and then the newer one has it.
  assert.ok(found > count * 0.6, `${found} of ${count}`);
});

test("of two names in one slot the newer one is guessed, the other not at all", () => {
  const cache = new NameCache(4);
  cache.set(8, 1);
  cache.set(12, 2);
  assert.equal(cache.get(12), 2);
  assert.equal(cache.get(8), 0);
});

test("a name that was never set is not guessed", () => {
  assert.equal(new NameCache(4).get(hashName(1, "a")), 0);
});

test("the cache does not grow beyond its limit, and ids above 2^32 survive in it", () => {
  const cache = new NameCache(8);
  for (let hash = 0; hash < 1000; hash++) cache.set(hash, 2 ** 40 + hash);
  let held = 0;
  for (let hash = 0; hash < 1000; hash++) if (cache.get(hash) === 2 ** 40 + hash) held++;
  assert.equal(held, 8);
});
