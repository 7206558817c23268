/** Faults strike where they are aimed, as often as they are told, and nowhere else. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { FaultyDisk } from "./faulty-disk.ts";
import { ManualClock } from "./manual-clock.ts";
import { MemoryDisk } from "./memory-disk.ts";

function make(): { disk: FaultyDisk; clock: ManualClock } {
  const clock = new ManualClock();
  return { disk: new FaultyDisk({ disk: new MemoryDisk(), clock }), clock };
}

test("the second fsync of one file fails, the others do not", async () => {
  const { disk } = make();
  disk.inject({ operation: "datasync", path: "/log", skip: 1, times: 1, effect: { kind: "error", code: "EIO" } });
  const log = await disk.open("/log", "create");
  const other = await disk.open("/other", "create");
  await log.datasync();
  await other.datasync();
  await assert.rejects(log.datasync(), { code: "EIO" });
  await log.datasync();
});

test("a full disk refuses both forms of write until it is healed", async () => {
  const { disk } = make();
  const file = await disk.open("/f", "create");
  const disarm = disk.inject({ operation: "write", effect: { kind: "error", code: "ENOSPC" } });
  await assert.rejects(file.write(Buffer.from("a"), 0), { code: "ENOSPC" });
  assert.throws(() => file.writeSync(Buffer.from("a"), 0), { code: "ENOSPC" });
  assert.equal((await file.stat()).sizeBytes, 0);
  disarm();
  await file.write(Buffer.from("a"), 0);
});

test("an error after the deed leaves the deed done", async () => {
  const { disk } = make();
  disk.inject({ operation: "rename", path: /^\/a$/, times: 1, effect: { kind: "error-after", code: "EIO" } });
  await disk.open("/a", "create");
  await assert.rejects(disk.rename("/a", "/b"), { code: "EIO" });
  assert.deepEqual(await disk.list("/"), ["b"]);
});

test("a flipped bit is in what is read, not in the file", async () => {
  const { disk } = make();
  const file = await disk.open("/f", "create");
  await file.write(Buffer.from("abcdef"), 0);
  disk.inject({ operation: "read", times: 2, effect: { kind: "flip", position: 3 } });
  const buffer = Buffer.alloc(4);
  await file.read(buffer, 2);
  assert.equal(buffer.toString(), "ceef");
  file.readSync(buffer, 2);
  assert.equal(buffer.toString(), "ceef");
  await file.read(buffer, 2);
  assert.equal(buffer.toString(), "cdef");
});

test("a slow operation waits for its time, a hanging one for its release", async () => {
  const { disk, clock } = make();
  const file = await disk.open("/f", "create");
  const release = Promise.withResolvers<void>();
  disk.inject({ operation: "datasync", effect: { kind: "slow", delayMs: 50 } });
  disk.inject({ operation: "truncate", effect: { kind: "hang", until: release.promise } });
  const done: string[] = [];
  const slow = file.datasync().then(() => done.push("slow"));
  const hanging = file.truncate(1).then(() => done.push("hanging"));
  await clock.advance(49);
  assert.deepEqual(done, []);
  await clock.advance(1);
  await slow;
  assert.deepEqual(done, ["slow"]);
  release.resolve();
  await hanging;
});
