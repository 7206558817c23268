import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { BlockIndex, FileVersionId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { BlockCache } from "./block-cache.ts";
import { RecordingLogger, testBlockBytes, testLimits, withCluster } from "./cluster.test-support.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
const childPath = fileURLToPath(new URL("./kill-child.test-support.ts", import.meta.url));
const id = "2-1" as FileVersionId;

/** Runs until `afterMs` after it began to fill, then dies as by a power switch for processes. */
async function fillAndKill(directory: string, sizeBytes: number, afterMs: number): Promise<void> {
  const child = spawn(process.execPath, [childPath, directory, String(sizeBytes), String(seed)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout.once("data", () => resolve());
    child.once("exit", (code) => reject(new Error(`the child ended with ${code}`)));
  });
  await new NodeClock().sleep(afterMs);
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await exited;
}

test(`a worker killed again and again while it fills serves only right blocks afterwards (seed ${seed})`, async () => {
  await withCluster(async (cluster) => {
    const random = new Random(seed);
    const sizeBytes = 300 * testBlockBytes + 1234;
    const { file, bytes } = cluster.addFile(sizeBytes, { seed });
    let held = 0;
    // Six lives at least; more, and longer ones, where the machine is so slow that nothing became durable in them.
    for (let round = 0; round < 6 || (held === 0 && round < 30); round++) {
      await fillAndKill(cluster.directory, sizeBytes, random.between(0, 120) + Math.max(0, round - 5) * 200);
      const logger = new RecordingLogger();
      const cache = await BlockCache.open({
        disk: new NodeDisk(),
        clock: cluster.clock,
        logger,
        directories: [{ path: `${cluster.directory}/w1`, capacityBytes: 2 ** 40 }],
        limits: testLimits.cache,
      });
      const found = cache.get(id);
      let count = 0;
      for (let block = 0 as BlockIndex; found !== undefined && block < found.blockCount; block++) {
        if (!found.has(block)) continue;
        count++;
        const got = await found.readBlock(block, Buffer.alloc(testBlockBytes));
        const at = block * testBlockBytes;
        assert.ok(
          Buffer.from(got).equals(bytes.subarray(at, at + got.length)),
          `round ${round}: block ${block} is wrong`,
        );
      }
      assert.ok(count >= held, `round ${round}: ${count} blocks are left of ${held}: ${logger.lines.join("\n")}`);
      held = count;
      await cache.close();
    }
    assert.ok(held > 0, "nothing ever became durable");
    const worker = await cluster.addWorker("w1");
    cluster.origin.resetCounts();
    assert.ok((await cluster.getBytes(worker, file.id)).equals(bytes));
    const missing = sizeBytes - held * testBlockBytes;
    assert.ok(cluster.origin.originBytes() <= missing + testBlockBytes, "what was durable was fetched again");
  });
});
