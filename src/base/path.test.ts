import assert from "node:assert/strict";
import { test } from "node:test";
import { baseName, isWithin, joinPath, parentPath, parsePath, pathNames, relativePath, rootPath } from "./path.ts";

test("slashes collapse and single dots vanish", () => {
  assert.equal(parsePath("//a///b/./c/"), "/a/b/c");
  assert.equal(parsePath("/"), "/");
  assert.equal(parsePath("/./"), "/");
});

test("hostile paths are refused with a reason", () => {
  const hostile: readonly [string, RegExp][] = [
    ["", /not absolute/],
    ["a/b", /not absolute/],
    ["/a/../b", /\.\./],
    ["/a/b\0c", /NUL/],
    [`/${"x".repeat(256)}`, /longer than 255/],
    [`/${"é".repeat(128)}`, /longer than 255/],
    ["/a\ud800b", /Unicode/],
    [`/${"a/".repeat(3000)}`, /longer than 4096/],
  ];
  for (const [path, reason] of hostile) assert.throws(() => parsePath(path), reason);
});

test("names of exactly 255 bytes, emoji and odd letters pass unchanged", () => {
  for (const name of ["x".repeat(255), "é".repeat(127), "模型 🤖", "...", "a b", "%2e%2e", "\\"]) {
    assert.equal(parsePath(`/${name}`), `/${name}`);
  }
});

test("parents, names and containment agree with each other", () => {
  const path = parsePath("/models/org/name");
  assert.deepEqual(pathNames(path), ["models", "org", "name"]);
  assert.equal(parentPath(path), "/models/org");
  assert.equal(parentPath(parsePath("/a")), "/");
  assert.equal(parentPath(rootPath), undefined);
  assert.equal(baseName(path), "name");
  assert.equal(joinPath(rootPath, "a"), "/a");
  assert.ok(isWithin(path, parsePath("/models")));
  assert.ok(isWithin(path, path));
  assert.ok(isWithin(path, rootPath));
  assert.ok(!isWithin(parsePath("/models2/x"), parsePath("/models")));
  assert.equal(relativePath(path, parsePath("/models")), "org/name");
  assert.equal(relativePath(path, rootPath), "models/org/name");
});
