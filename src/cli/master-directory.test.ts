import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { NodeClock } from "../io/node-clock.ts";
import { readMeta } from "../journal/journal-meta.ts";
import { mortalDisk } from "../journal/mortal-disk.ts";
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

test("a format that a crash cut short is made again, and never takes what is there for a journal", async () => {
  const clock = new NodeClock();
  const segmentBytes = 64 * KiB;
  let isFinished = false;
  for (let steps = 1; !isFinished; steps++) {
    const disk = new MemoryDisk();
    const { disk: mortal, kill } = mortalDisk(disk, steps);
    isFinished = await formatMaster({ disk: mortal, clock, directory: "/m", journal, segmentBytes }).then(
      () => true,
      () => false,
    );
    await kill();
    disk.crash({ random: new Random(steps) });
    if (await isEmpty(disk, "/m").catch(() => true))
      await formatMaster({ disk, clock, directory: "/m", journal, segmentBytes });
    assert.equal((await readMeta(disk, "/m/journal")).clusterId, "c1", `killed at step ${steps}`);
  }
});
