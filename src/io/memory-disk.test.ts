/** What only the memory disk does: crash and fill up. The contract it shares with the real one is in `disk.test.ts`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { MemoryDisk } from "./memory-disk.ts";

async function content(disk: MemoryDisk, path: string): Promise<Buffer> {
  const file = await disk.open(path, "read");
  const buffer = Buffer.alloc((await file.stat()).sizeBytes);
  await file.read(buffer, 0);
  return buffer;
}

test("synced bytes under a synced name survive every crash; unsynced sectors survive only sometimes, each whole", async () => {
  const fates = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const disk = new MemoryDisk();
    const file = await disk.open("/f", "create");
    await file.write(Buffer.alloc(2048, "a"), 0);
    await file.datasync();
    await disk.syncDirectory("/");
    await file.write(Buffer.alloc(2048, "b"), 1024);
    disk.crash({ random: new Random(seed) });
    await assert.rejects(file.read(Buffer.alloc(1), 0), { code: "EIO" });
    const bytes = await content(disk, "/f");
    assert.equal(bytes.toString("latin1", 0, 1024), "a".repeat(1024), `seed ${seed}`);
    const sectors: string[] = [];
    for (let at = 0; at < bytes.length; at += 512) {
      const sector = new Set(bytes.subarray(at, at + 512));
      assert.equal(sector.size, 1, `seed ${seed}: a sector is torn`);
      sectors.push(String.fromCharCode([...sector][0] ?? 0));
    }
    fates.add(sectors.join("").replaceAll("\0", "0"));
  }
  assert.ok(fates.has("aaaa"), "an unsynced write is lost sometimes");
  assert.ok(fates.has("aabbbb"), "an unsynced write survives sometimes");
  assert.ok(fates.size > 4, "an unsynced write is torn sometimes");
});

test("names survive a crash as a prefix of their changes, and for certain once their directory is synced", async () => {
  const fates = new Set<string>();
  for (let seed = 0; seed < 100; seed++) {
    const disk = new MemoryDisk();
    await disk.makeDirectory("/d");
    await disk.syncDirectory("/");
    await disk.open("/d/a", "create");
    await disk.syncDirectory("/d");
    await disk.open("/d/b", "create");
    await disk.rename("/d/a", "/d/c");
    disk.crash({ random: new Random(seed) });
    fates.add([...(await disk.list("/d"))].sort().join(""));
  }
  assert.deepEqual([...fates].sort(), ["a", "ab", "bc"]);
});

test("syncing a directory brings along the changes elsewhere that a rename into it builds on, in order", async () => {
  for (let seed = 0; seed < 50; seed++) {
    const disk = new MemoryDisk();
    await disk.makeDirectory("/from");
    await disk.makeDirectory("/to");
    await disk.syncDirectory("/");
    const file = await disk.open("/from/x", "create");
    await file.write(Buffer.from("new"), 0);
    await file.datasync();
    const old = await disk.open("/to/x", "create");
    await old.write(Buffer.from("old"), 0);
    await disk.rename("/from/x", "/to/x");
    await disk.syncDirectory("/from");
    disk.crash({ random: new Random(seed) });
    assert.equal((await content(disk, "/to/x")).toString(), "new", `seed ${seed}`);
    assert.deepEqual(await disk.list("/from"), []);
  }
});

test("a crash with the same random state leaves the same disk", async () => {
  const outcome = async (): Promise<string> => {
    const disk = new MemoryDisk();
    const file = await disk.open("/f", "create");
    await disk.syncDirectory("/");
    for (let i = 0; i < 20; i++) await file.write(Buffer.alloc(1000, i), i * 700);
    disk.crash({ random: new Random(42) });
    return (await content(disk, "/f")).toString("hex");
  };
  assert.equal(await outcome(), await outcome());
});

test("a full disk keeps the beginning of a write, says ENOSPC, and takes writes again when there is room", async () => {
  const disk = new MemoryDisk({ capacityBytes: 8192 });
  const file = await disk.open("/f", "create");
  await assert.rejects(file.write(Buffer.alloc(20_000, 1), 100), { code: "ENOSPC" });
  assert.equal((await file.stat()).sizeBytes, 8192);
  assert.equal((await disk.space("/")).freeBytes, 0);
  await file.write(Buffer.alloc(8000, 2), 0);
  await assert.rejects(file.write(Buffer.alloc(1), 8192), { code: "ENOSPC" });
  disk.capacityBytes = 12_288;
  await file.write(Buffer.alloc(1), 8192);
  const other = await disk.open("/g", "create");
  await assert.rejects(other.write(Buffer.alloc(1), 0), { code: "ENOSPC" });
  await disk.unlink("/f");
  await other.write(Buffer.alloc(1), 0);
});

test("a sparse file takes room only where it was written", async () => {
  const disk = new MemoryDisk({ capacityBytes: 8192 });
  const file = await disk.open("/f", "create");
  await file.truncate(2 ** 40);
  await file.write(Buffer.from("x"), 2 ** 39);
  assert.equal(disk.usedBytes, 4096);
});

test("a lock dies with the machine", async () => {
  const disk = new MemoryDisk();
  const lock = await disk.lock("/lock");
  disk.crash({ random: new Random(1) });
  const next = await disk.lock("/lock");
  assert.notEqual(next, undefined);
  await lock?.release();
  assert.equal(await disk.lock("/lock"), undefined);
});
