import assert from "node:assert/strict";
import { test } from "node:test";
import type { InodeId } from "../base/ids.ts";
import { Inode } from "./inode.ts";
import { hashName, NameFilter } from "./name-filter.ts";

test("names that were added are never absent, and nearly all others are", () => {
  const filter = new NameFilter();
  const directories = Array.from({ length: 100 }, (_, i) => new Inode((i + 2) as InodeId, true));
  for (const directory of directories) filter.begin(directory);
  const count = 1_000_000;
  const at = (i: number): Inode => directories[i % directories.length] as Inode;
  for (let i = 0; i < count; i++) filter.add(at(i), hashName(at(i).id, `file-${i}`));
  let present = 0;
  for (let i = 0; i < count; i += 7) {
    assert.equal(filter.isAbsent(at(i), hashName(at(i).id, `file-${i}`)), false, `file-${i}`);
    if (!filter.isAbsent(at(i), hashName(at(i).id, `other-${i}`))) present++;
  }
  const share = present / (count / 7);
  assert.ok(share < 0.06, `${share} of the names that were never added may be there`);
});

test("nothing is said of directories that were there before", () => {
  const filter = new NameFilter();
  const old = new Inode(2 as InodeId, true);
  filter.add(old, hashName(2, "a"));
  assert.equal(filter.isAbsent(old, hashName(2, "b")), false);
});
