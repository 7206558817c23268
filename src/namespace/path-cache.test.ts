import assert from "node:assert/strict";
import { test } from "node:test";
import type { InodeId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { Inode } from "./inode.ts";
import { PathCache } from "./path-cache.ts";

const directory = (id: number): Inode => new Inode(id as InodeId, true);

test("a directory is found by the front of a longer path, and not by another one's", () => {
  const cache = new PathCache(1000);
  const [a, ab] = [directory(2), directory(3)];
  cache.set("/a" as Path, a);
  cache.set("/a/b" as Path, ab);
  assert.equal(cache.get("/a/b/c", 2), a);
  assert.equal(cache.get("/a/b/c", 4), ab);
  assert.equal(cache.get("/a/b/c", 6), undefined);
  assert.equal(cache.get("/b/b/c", 2), undefined);
});

test("all are found again as long as they fit, also after it has grown to hold them", () => {
  const cache = new PathCache(8192);
  const made = Array.from({ length: 4000 }, (_, i) => directory(i + 2));
  for (const [i, inode] of made.entries()) cache.set(`/models/m${i}` as Path, inode);
  let found = 0;
  for (const [i, inode] of made.entries()) {
    const got = cache.get(`/models/m${i}/x`, `/models/m${i}`.length);
    if (got === inode) found++;
    else assert.equal(got, undefined, `m${i}`);
  }
  assert.ok(found > 3600, `${found} of ${made.length}`);
});

test("an object that was let go or removed is not given again, a new one in its place is", () => {
  const cache = new PathCache(4);
  const [gone, removed, back] = [directory(2), directory(3), directory(4)];
  cache.set("/gone" as Path, gone);
  cache.set("/removed" as Path, removed);
  gone.live = false;
  removed.removed = true;
  assert.equal(cache.get("/gone", 5), undefined);
  assert.equal(cache.get("/removed", 8), undefined);
  cache.set("/gone" as Path, back);
  assert.equal(cache.get("/gone", 5), back);
  cache.clear();
  assert.equal(cache.get("/gone", 5), undefined);
});
