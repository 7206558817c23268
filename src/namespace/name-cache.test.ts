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
  // Few names share their slots with so many others that one has to go.
  assert.ok(found > count * 0.9, `${found} of ${count}`);
});

test("of more names than there are slots for the newest ones are guessed, the oldest not at all", () => {
  const cache = new NameCache(4);
  for (let i = 1; i <= 5; i++) cache.set(8 * i, i);
  assert.deepEqual(
    [1, 2, 3, 4, 5].map((i) => cache.get(8 * i)),
    [0, 2, 3, 4, 5],
  );
});

test("a name that is set again is new again, and has one slot", () => {
  const cache = new NameCache(4);
  for (let i = 1; i <= 4; i++) cache.set(8 * i, i);
  cache.set(8, 11);
  cache.set(80, 80);
  assert.equal(cache.get(8), 11);
  assert.equal(cache.get(16), 0);
  assert.equal(cache.get(24), 3);
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
