import assert from "node:assert/strict";
import { test } from "node:test";
import type { FileDescriptor } from "../base/file.ts";
import type { BlockIndex, FileVersionId, InodeId, MountId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { alignedBuffer } from "../io/aligned-buffer.ts";
import { xxh64 } from "../io/hash.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { NodeClock } from "../io/node-clock.ts";
import { BackgroundScrub, scrubUrgency } from "./background-scrub.ts";
import { BlockCache } from "./block-cache.ts";
import type { CachedFile } from "./cached-file.ts";
import { DamageLog } from "./damage-log.ts";
import { loadUrgency } from "./slots.ts";

const clock = new NodeClock();
const blockBytes = 8192;
const blocks = 4;

function describe(inode: number): FileDescriptor {
  return {
    id: `${inode}-1` as FileVersionId,
    inodeId: inode as InodeId,
    contentVersion: 1,
    path: `/m/${inode}` as Path,
    sizeBytes: blocks * blockBytes,
    blockSizeBytes: blockBytes,
    mountId: 1 as MountId,
    key: String(inode),
    etag: '"e"',
    modifiedMs: 5,
    pinned: false,
  };
}

function openCache(disk: MemoryDisk): Promise<BlockCache> {
  return BlockCache.open({
    disk,
    clock,
    logger: silentLogger,
    directories: [{ path: "/c", capacityBytes: 2 ** 30 }],
    limits: { blockSizeBytesMax: blockBytes, markDelayMs: 5, markBlocks: 4 },
  });
}

async function commit(file: CachedFile, block: BlockIndex): Promise<void> {
  const buffer = alignedBuffer(blockBytes);
  buffer.fill(file.descriptor.inodeId * 16 + block);
  await file.commit(block, buffer, xxh64(buffer));
}

/** A cache that was filled by an earlier life, with one byte of file 2 turned over since. */
async function damagedCache(): Promise<BlockCache> {
  const disk = new MemoryDisk();
  await disk.makeDirectory("/c");
  const before = await openCache(disk);
  for (const inode of [1, 2, 3]) {
    const file = await before.open(describe(inode));
    for (let block = 0 as BlockIndex; block < blocks; block++) await commit(file, block);
    await file.flush();
  }
  await before.close();
  const data = await disk.open("/c/versions/2-1.data", "write");
  await data.write(Buffer.from([255]), blockBytes + 77);
  await data.datasync();
  await data.close();
  return openCache(disk);
}

const limits = { bytesPerSecond: 1e9, firstAfterMs: 0, againAfterMs: 3_600_000, lookMs: 5 };
const buffers = { take: async () => alignedBuffer(blockBytes), give: () => {} };

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await clock.sleep(5);
}

test("what was damaged between two lives is found, never served, fetched again last of all, and told", async () => {
  const cache = await damagedCache();
  const damage = new DamageLog();
  const dropped: string[] = [];
  cache.onDamaged = (file, block) => damage.note(file, block);
  cache.onChange = (file, change) => {
    if (!("gone" in change) && change.removed !== undefined) dropped.push(`${file.id}/${change.removed}`);
  };
  const asked: unknown[] = [];
  const fetcher = {
    activeFills: 0,
    start: (file: CachedFile, block: BlockIndex, { urgency }: { urgency: number }) => {
      asked.push([file.id, block, urgency]);
      return { stored: commit(file, block) };
    },
  };
  const scrub = new BackgroundScrub({ cache, buffers, fetcher: fetcher as never, clock, logger: silentLogger, limits });
  await until(() => scrub.roundCount > 0);
  await scrub.close();
  assert.deepEqual(dropped, ["2-1/1"]);
  assert.deepEqual(asked, [["2-1", 1, scrubUrgency]]);
  assert.ok(scrubUrgency > loadUrgency(0));
  assert.equal(scrub.scrubbedBytes, 3 * blocks * blockBytes);
  assert.equal(cache.get("2-1" as FileVersionId)?.isFull, true);
  assert.match(damage.problems().join(), /^\/c: 1 damaged block since the start, the last of \/m\/2 \(block 1\)/);
  await cache.close();
});

test("nothing is read back while other bytes are on their way, and what was filled in this life not before its time", async () => {
  const cache = await damagedCache();
  const fetcher = { activeFills: 1, start: () => ({ stored: Promise.resolve() }) };
  const scrub = new BackgroundScrub({ cache, buffers, fetcher: fetcher as never, clock, logger: silentLogger, limits });
  const added = await cache.open(describe(4));
  for (let block = 0 as BlockIndex; block < blocks; block++) await commit(added, block);
  await clock.sleep(50);
  assert.equal(scrub.scrubbedBytes, 0);
  fetcher.activeFills = 0;
  await until(() => scrub.roundCount > 0);
  assert.equal(scrub.scrubbedBytes, 3 * blocks * blockBytes, "of the three old files");
  await scrub.close();
  await cache.close();
});
