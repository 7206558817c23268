import assert from "node:assert/strict";
import { test } from "node:test";
import type { Path } from "../base/path.ts";
import { ChangeRing } from "./change-ring.ts";

const a = "/a" as Path;
const b = "/b" as Path;

test("changes come back as they were, without the fields that they do not have", () => {
  const ring = new ChangeRing(4);
  ring.push(7, 1000, "created", a, undefined, 3);
  ring.push(8, 1001, "renamed", a, b, 3);
  ring.push(9, 1002, "removed", b, undefined, 0);
  assert.deepEqual(ring.since(8), [
    { index: 8, timeMs: 1001, kind: "renamed", path: a, to: b, inodeId: 3 },
    { index: 9, timeMs: 1002, kind: "removed", path: b },
  ]);
});

test("a full ring says which change had to go, and keeps the order", () => {
  const ring = new ChangeRing(3);
  for (let index = 1; index <= 3; index++) assert.equal(ring.push(index, 0, "created", a, undefined, index), 0);
  assert.equal(ring.push(4, 0, "created", a, undefined, 4), 1);
  assert.equal(ring.push(5, 0, "created", a, undefined, 5), 2);
  assert.deepEqual(
    ring.since(1).map(({ index }) => index),
    [3, 4, 5],
  );
});
