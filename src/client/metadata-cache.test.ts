import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import { NodeClock } from "../io/node-clock.ts";
import { MetadataCache } from "./metadata-cache.ts";

const down = (): Promise<never> => Promise.reject(new HeadpondError("unavailable", "no master answers"));

function newCache(limits: ConstructorParameters<typeof MetadataCache>[0]["limits"] = {}): MetadataCache {
  return new MetadataCache({ clock: new NodeClock(), limits: { retryAfterMs: 0, ...limits } });
}

test("as long as a master answers, it is asked", async () => {
  const cache = newCache();
  for (let answer = 0; answer < 3; answer++) assert.equal(await cache.answer("k", async () => answer), answer);
});

test("when none answers the last answer serves, and what was never asked fails", async () => {
  const cache = newCache();
  await cache.answer("k", async () => 1);
  assert.equal(await cache.answer("k", down), 1);
  await assert.rejects(cache.answer("other", down), (error: unknown) => isHeadpondError(error, "unavailable"));
});

test("while masters are down nobody waits for them twice in a row", async () => {
  const cache = newCache({ retryAfterMs: 60_000 });
  await cache.answer("k", async () => 1);
  await cache.answer("k", down);
  let asked = 0;
  assert.equal(
    await cache.answer("k", async () => {
      asked++;
      return 2;
    }),
    1,
  );
  assert.equal(asked, 0);
});

test("while masters are down, what was never asked fails at once with the last reason", async () => {
  const cache = newCache({ retryAfterMs: 60_000 });
  await assert.rejects(cache.answer("k", down));
  let asked = 0;
  const other = cache.answer("other", async () => asked++);
  await assert.rejects(other, (error: unknown) => isHeadpondError(error, "unavailable"));
  assert.equal(asked, 0);
});

test("a question to masters that were down is not waited for, and its late answer counts", async () => {
  const cache = newCache({ retryAfterMs: 0, probeMs: 0 });
  await cache.answer("k", async () => 1);
  await cache.answer("k", down);
  const late = Promise.withResolvers<number>();
  assert.equal(await cache.answer("k", () => late.promise), 1);
  late.resolve(2);
  await late.promise;
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(await cache.answer("k", down), 2);
});

test("a master that is back answers the next question itself", async () => {
  const cache = newCache({ retryAfterMs: 0, probeMs: 60_000 });
  await cache.answer("k", async () => 1);
  await cache.answer("k", down);
  assert.equal(await cache.answer("k", async () => 2), 2);
});

test("what a master says is gone is forgotten, and other errors are the caller's", async () => {
  const cache = newCache();
  await cache.answer("k", async () => 1);
  const gone = (): Promise<never> => Promise.reject(new HeadpondError("not-found", "gone"));
  await assert.rejects(cache.answer("k", gone), (error: unknown) => isHeadpondError(error, "not-found"));
  await assert.rejects(cache.answer("k", down), (error: unknown) => isHeadpondError(error, "unavailable"));
});

test("it keeps no more answers and no more weight than its limits", async () => {
  const cache = newCache({ entriesMax: 3, weightMax: 10 });
  for (const key of ["a", "b", "c", "d"]) await cache.answer(key, async () => key);
  assert.equal(cache.size, 3);
  await assert.rejects(cache.answer("a", down));
  await cache.answer(
    "heavy",
    async () => "x",
    () => 9,
  );
  assert.equal(cache.size, 2);
  await cache.answer(
    "too heavy",
    async () => "x",
    () => 11,
  );
  await assert.rejects(cache.answer("too heavy", down));
  assert.equal(await cache.answer("heavy", down), "x");
});
