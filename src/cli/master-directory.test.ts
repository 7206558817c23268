import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClusterId } from "../base/ids.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { NodeClock } from "../io/node-clock.ts";
import { formatMaster, isEmpty } from "./master-directory.ts";

const journal = { type: "local", clusterId: "c1" as ClusterId } as const;

test("the root of a new file system is an empty directory, one with somebody's files is not", async () => {
  const disk = new MemoryDisk();
  const clock = new NodeClock();
  await disk.makeDirectory("/new/lost+found");
  assert.ok(await isEmpty(disk, "/new"));
  await formatMaster({ disk, clock, directory: "/new", journal });
  await disk.makeDirectory("/used/photos");
  assert.ok(!(await isEmpty(disk, "/used")));
  await assert.rejects(formatMaster({ disk, clock, directory: "/used", journal }), {
    code: "already-exists",
    message: /\/used is not empty \(photos\)/,
  });
});
