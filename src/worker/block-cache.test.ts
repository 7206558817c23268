import assert from "node:assert/strict";
import { test } from "node:test";
import { blockRange } from "../base/blocks.ts";
import { isHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { BlockIndex, FileVersionId, InodeId, MountId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { Random } from "../base/random.ts";
import { alignedBuffer } from "../io/aligned-buffer.ts";
import type { Disk } from "../io/disk.ts";
import { FaultyDisk } from "../io/faulty-disk.ts";
import { xxh64 } from "../io/hash.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { NodeClock } from "../io/node-clock.ts";
import { BlockCache } from "./block-cache.ts";
import type { CachedFile } from "./cached-file.ts";
import { RecordingLogger } from "./cluster.test-support.ts";

const seed = Number(process.env["SEED"] ?? 11);
const clock = new NodeClock();
const blockBytes = 8192;

function describe(inode: number, blocks: number): FileDescriptor {
  return {
    id: `${inode}-1` as FileVersionId,
    inodeId: inode as InodeId,
    contentVersion: 1,
    path: `/m/${inode}` as Path,
    sizeBytes: blocks * blockBytes - 100,
    blockSizeBytes: blockBytes,
    mountId: 1 as MountId,
    key: String(inode),
    etag: '"e"',
    modifiedMs: 5,
    pinned: false,
  };
}

function content(file: FileDescriptor, block: BlockIndex): Uint8Array {
  const { length } = blockRange(block, file.sizeBytes, file.blockSizeBytes);
  return new Random(file.inodeId * 1000 + block).bytes(length);
}

async function commit(file: CachedFile, block: BlockIndex): Promise<void> {
  const buffer = alignedBuffer(blockBytes);
  const bytes = content(file.descriptor, block);
  buffer.set(bytes);
  await file.commit(block, buffer, xxh64(bytes));
}

async function commitAll(file: CachedFile): Promise<void> {
  for (let block = 0 as BlockIndex; block < file.blockCount; block++) await commit(file, block);
  await file.flush();
}

/** Every block that the cache would serve is right. Returns how many there are. */
async function assertAllRight(cache: BlockCache): Promise<number> {
  let count = 0;
  for (const file of cache.list()) {
    for (let block = 0 as BlockIndex; block < file.blockCount; block++) {
      if (!file.has(block)) continue;
      const bytes = await file.readBlock(block, Buffer.alloc(blockBytes));
      assert.deepEqual(Buffer.from(bytes), Buffer.from(content(file.descriptor, block)));
      count++;
    }
  }
  return count;
}

function open(
  disk: Disk,
  options: {
    readonly capacityBytes?: number;
    readonly paths?: readonly string[];
    readonly logger?: RecordingLogger;
  } = {},
): Promise<BlockCache> {
  return BlockCache.open({
    disk,
    clock,
    logger: options.logger ?? new RecordingLogger(),
    directories: (options.paths ?? ["/c"]).map((path) => ({ path, capacityBytes: options.capacityBytes ?? 2 ** 40 })),
    limits: { blockSizeBytesMax: blockBytes, markDelayMs: 5, markBlocks: 4 },
  });
}

async function newDisk(paths: readonly string[] = ["/c"]): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  for (const path of paths) await disk.makeDirectory(path);
  await disk.syncDirectory("/");
  return disk;
}

async function flip(disk: Disk, path: string, position: number): Promise<void> {
  const file = await disk.open(path, "write");
  const byte = Buffer.alloc(1);
  await file.read(byte, position);
  byte[0] = (byte[0] as number) ^ 4;
  await file.write(byte, position);
  await file.datasync();
  await file.close();
}

test("what was complete is complete after a restart, pinned and digest-verified as it was", async () => {
  const disk = await newDisk();
  const first = await open(disk);
  const file = await first.open(describe(3, 9));
  await commitAll(file);
  assert.ok(file.isComplete);
  await file.setDigestVerified();
  file.setPinned(true);
  await first.close();
  const second = await open(disk);
  const again = second.get(file.id) ?? assert.fail("it is gone");
  assert.ok(again.isComplete && again.digestVerified && again.isPinned);
  assert.equal(await assertAllRight(second), 9);
  await second.close();
});

test(`after a power failure only durable blocks count, and every one of them is right (seed ${seed})`, async () => {
  const random = new Random(seed);
  let trusted = 0;
  for (let round = 0; round < 150; round++) {
    const disk = await newDisk();
    const cache = await open(disk);
    const files = [await cache.open(describe(1, 12)), await cache.open(describe(2, 5))];
    const durable: [FileVersionId, BlockIndex][] = [];
    for (const file of files) {
      const order = random.shuffle(Array.from({ length: file.blockCount }, (_, i) => i as BlockIndex));
      const count = random.between(0, file.blockCount);
      const written: BlockIndex[] = [];
      for (const block of order.slice(0, count)) {
        await commit(file, block);
        written.push(block);
        if (random.chance(0.2)) {
          await file.flush();
          for (const done of written.splice(0)) durable.push([file.id, done]);
        }
        if (random.chance(0.05)) await clock.sleep(1);
      }
    }
    disk.crash({ random });
    const logger = new RecordingLogger();
    const recovered = await open(disk, { logger });
    for (const [id, block] of durable) {
      assert.ok(
        recovered.get(id)?.has(block),
        `round ${round}: ${id} lost durable block ${block}: ${logger.lines.join()}`,
      );
    }
    trusted += await assertAllRight(recovered);
    await recovered.close();
    await cache.close();
  }
  assert.ok(trusted > 100);
});

test("a block whose bytes rotted on disk is found at its first read, dropped and named", async () => {
  const disk = await newDisk();
  const first = await open(disk);
  await commitAll(await first.open(describe(3, 4)));
  await first.close();
  await flip(disk, "/c/versions/3-1.data", 2 * blockBytes + 17);
  const logger = new RecordingLogger();
  const cache = await open(disk, { logger });
  const file = cache.get("3-1" as FileVersionId) ?? assert.fail();
  await file.readBlock(1 as BlockIndex, Buffer.alloc(blockBytes));
  await assert.rejects(file.readBlock(2 as BlockIndex, Buffer.alloc(blockBytes)), (error) =>
    isHeadpondError(error, "corrupt"),
  );
  assert.ok(!file.has(2 as BlockIndex) && !file.isComplete);
  assert.ok(logger.lines.some((line) => /damaged/.test(line) && line.includes('"block":2')));
  await commit(file, 2 as BlockIndex);
  await file.flush();
  assert.ok(file.isComplete);
  assert.equal(await assertAllRight(cache), 4);
  await cache.close();
});

test("swapped, missing, cut and foreign files are named, and nothing of them is served", async () => {
  const disk = await newDisk();
  const first = await open(disk);
  for (const inode of [3, 4, 5, 6, 7]) await commitAll(await first.open(describe(inode, 4)));
  await first.close();
  const at = (name: string): string => `/c/versions/${name}`;
  // 3 and 4 change their indexes, 5 loses its data, 6 its index, 7 the end of its data; a stranger moves in.
  await disk.rename(at("3-1.index"), at("x"));
  await disk.rename(at("4-1.index"), at("3-1.index"));
  await disk.rename(at("x"), at("4-1.index"));
  await disk.unlink(at("5-1.data"));
  await disk.unlink(at("6-1.index"));
  const cut = await disk.open(at("7-1.data"), "write");
  await cut.truncate(2 * blockBytes + 5);
  await cut.close();
  await (await disk.open(at("notes.txt"), "create")).close();
  const logger = new RecordingLogger();
  const cache = await open(disk, { logger });
  for (const name of ["3-1.index", "4-1.index", "5-1.index", "6-1.data", "7-1.data", "notes.txt"]) {
    assert.ok(
      logger.lines.some((line) => line.includes(name)),
      `${name} is not named in:\n${logger.lines.join("\n")}`,
    );
  }
  assert.deepEqual(
    [...cache.list()].map((file) => file.id),
    ["7-1"],
  );
  assert.equal(await assertAllRight(cache), 2);
  await cache.close();
});

test("swapped data files are found block by block", async () => {
  const disk = await newDisk();
  const first = await open(disk);
  for (const inode of [3, 4]) await commitAll(await first.open(describe(inode, 4)));
  await first.close();
  await disk.rename("/c/versions/3-1.data", "/c/x");
  await disk.rename("/c/versions/4-1.data", "/c/versions/3-1.data");
  await disk.rename("/c/x", "/c/versions/4-1.data");
  const cache = await open(disk);
  for (const file of cache.list()) {
    for (let block = 0 as BlockIndex; block < file.blockCount; block++) {
      await assert.rejects(file.readBlock(block, Buffer.alloc(blockBytes)));
    }
    assert.equal(file.heldBytes, 0);
  }
  await cache.close();
});

test("eviction takes the least recently read whole files, never pinned, open or protected ones", async () => {
  const disk = await newDisk();
  const cache = await open(disk, { capacityBytes: 5 * 4 * blockBytes });
  const files: CachedFile[] = [];
  for (const inode of [1, 2, 3, 4, 5]) {
    const file = await cache.open(describe(inode, 4));
    await commitAll(file);
    files.push(file);
    await clock.sleep(2);
  }
  const [pinned, opened, protectedOne, old, young] = files as [
    CachedFile,
    CachedFile,
    CachedFile,
    CachedFile,
    CachedFile,
  ];
  pinned.setPinned(true);
  opened.acquire();
  protectedOne.protect();
  await cache.open(describe(6, 4));
  assert.equal(cache.get(old.id), undefined);
  assert.deepEqual([...cache.list()].map((file) => file.id).sort(), ["1-1", "2-1", "3-1", "5-1", "6-1"]);
  // Only `young` and the new file may go, which is not enough: nobody is thrown out in vain.
  await assert.rejects(cache.open(describe(7, 12)), (error) => isHeadpondError(error, "no-space"));
  assert.equal(cache.get(young.id), young);
  assert.equal(await cache.free([pinned.id, opened.id, protectedOne.id]), 0);
  assert.equal(cache.get(opened.id), opened, "a file that is read stays as long as it is read");
  opened.release();
  assert.equal(cache.get(opened.id), undefined, "and goes with its last reader");
  await clock.sleep(2);
  assert.ok(!(await disk.list("/c/versions")).includes("2-1.data"));
  await cache.close();
});

test("what goes is withdrawn first, and its bytes are still there until that is heard", async () => {
  const disk = await newDisk();
  const cache = await open(disk, { capacityBytes: 4 * blockBytes });
  const file = await cache.open(describe(1, 4));
  await commitAll(file);
  const events: string[] = [];
  const heard = Promise.withResolvers<void>();
  cache.onChange = (changed, change) => void ("gone" in change && events.push(`gone ${changed.id}`));
  cache.withdraw = async (files) => {
    const there = (await disk.list("/c/versions")).includes("1-1.data");
    events.push(`withdraw ${files.map(({ id }) => id).join()}, ${there ? "there" : "away"}`);
    await heard.promise;
  };
  const freed = cache.free([file.id]);
  const again = cache.open(describe(1, 4));
  await clock.sleep(20);
  assert.deepEqual(events, ["gone 1-1", "withdraw 1-1, there"]);
  assert.ok((await disk.list("/c/versions")).includes("1-1.data"));
  heard.resolve();
  await freed;
  const anew = await again;
  assert.notEqual(anew, file);
  assert.equal(anew.heldBytes, 0, "the same version, admitted again, finds nothing of the old file");
  await commitAll(anew);
  assert.equal(await assertAllRight(cache), 4);
  await cache.close();
});

test("a full file system stops fills with a clear state, and reads go on", async () => {
  const memory = await newDisk();
  const disk = new FaultyDisk({ disk: memory, clock });
  const cache = await open(disk);
  const file = await cache.open(describe(3, 6));
  await commit(file, 0 as BlockIndex);
  await file.flush();
  disk.inject({ operation: "write", path: ".data", effect: { kind: "error", code: "ENOSPC" } });
  await assert.rejects(commit(file, 1 as BlockIndex), (error) => isHeadpondError(error, "no-space"));
  assert.match(cache.problems().join(), /no space, fills stopped/);
  await assert.rejects(cache.open(describe(4, 1)), (error) => isHeadpondError(error, "no-space"));
  assert.equal(await assertAllRight(cache), 1);
  disk.heal();
  await cache.free(["none-1" as FileVersionId]);
  await commit(file, 1 as BlockIndex);
  assert.equal(await assertAllRight(cache), 2);
  await cache.close();
});

test("a failed directory takes its files out of service, and the others go on", async () => {
  const memory = await newDisk(["/a", "/b"]);
  const disk = new FaultyDisk({ disk: memory, clock });
  const logger = new RecordingLogger();
  const cache = await open(disk, { paths: ["/a", "/b"], logger });
  const gone: FileVersionId[] = [];
  cache.onChange = (file, change) => {
    if ("gone" in change) gone.push(file.id);
  };
  const files = [await cache.open(describe(1, 4)), await cache.open(describe(2, 4))];
  for (const file of files) await commitAll(file);
  assert.deepEqual(files.map((file) => file.directory.path).sort(), ["/a", "/b"]);
  disk.inject({ operation: "datasync", path: "/a/", effect: { kind: "error", code: "EIO" } });
  const third = await cache.open(describe(3, 4));
  const fourth = await cache.open(describe(4, 4));
  const lost = [third, fourth].find((file) => file.directory.path === "/a") ?? assert.fail();
  await commit(lost, 0 as BlockIndex);
  await assert.rejects(lost.flush());
  assert.ok(gone.includes(lost.id));
  assert.match(cache.problems().join(), /\/a: failed \(EIO\)/);
  assert.equal(await assertAllRight(cache), 4);
  const reopened = await cache.open(lost.descriptor);
  assert.equal(reopened.directory.path, "/b");
  await commitAll(reopened);
  assert.ok(reopened.isComplete);
  await cache.close();
});

test("a cache that moves to another cluster forgets what its ids meant", async () => {
  const disk = await newDisk();
  const first = await open(disk);
  await first.bindCluster("one");
  await commitAll(await first.open(describe(3, 4)));
  await first.close();
  const second = await open(disk);
  await second.bindCluster("one");
  assert.equal(second.usage().files, 1);
  await second.bindCluster("two");
  assert.equal(second.usage().files, 0);
  assert.equal(second.usage().usedBytes, 0);
  await second.close();
});
