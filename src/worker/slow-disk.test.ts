import assert from "node:assert/strict";
import { test } from "node:test";
import type { DiskFile, OpenMode, OpenOptions } from "../io/disk.ts";
import { FaultyDisk } from "../io/faulty-disk.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { testBlockBytes, testLimits, withCluster } from "./cluster.test-support.ts";

/** A disk whose direct writes wait for `until`. */
class SlowDirectDisk extends NodeDisk {
  readonly #until: Promise<void>;

  constructor(until: Promise<void>) {
    super();
    this.#until = until;
  }

  override async open(path: string, mode: OpenMode, options?: OpenOptions): Promise<DiskFile> {
    const file = await super.open(path, mode, options);
    if (options?.direct !== true) return file;
    const write = file.write.bind(file);
    file.write = async (buffer, position) => {
      await this.#until;
      await write(buffer, position);
    };
    return file;
  }
}

test("when direct writes do not keep up, the page cache takes the rest, and readers go on", async () => {
  await withCluster(async (cluster) => {
    const gate = Promise.withResolvers<void>();
    const worker = await cluster.addWorker("w1", { disk: new SlowDirectDisk(gate.promise) });
    await cluster.until("attached", () => worker.members.version > 0);
    const blocks = 40;
    const { file, bytes } = cluster.addFile(blocks * testBlockBytes);
    assert.ok((await cluster.getBytes(worker, file.id)).equals(bytes));
    const held = (): number => (worker.cache.get(file.id)?.heldBytes ?? 0) / testBlockBytes;
    await cluster.until("all others are written", () => held() === blocks - testLimits.fetcher.directWritesMax);
    gate.resolve();
    await cluster.until("the file is complete", () => worker.cache.get(file.id)?.isComplete === true);
    assert.ok((await cluster.getBytes(worker, file.id)).equals(bytes));
    assert.equal(cluster.origin.originBytes(), file.sizeBytes);
  });
});

test("blocks that wait for the disk leave their slots to the next reads, within a limit", async () => {
  await withCluster(async (cluster) => {
    const gate = Promise.withResolvers<void>();
    const disk = new FaultyDisk({ disk: new NodeDisk(), clock: cluster.clock });
    const worker = await cluster.addWorker("w1", { disk });
    await cluster.until("attached", () => worker.members.version > 0);
    disk.inject({ operation: "write", path: /data/, effect: { kind: "hang", until: gate.promise } });
    const { file, bytes } = cluster.addFile(40 * testBlockBytes);
    const reading = cluster.getBytes(worker, file.id);
    const expected = (testLimits.fetcher.originReadsMax + testLimits.warmBlocksMax) * testBlockBytes;
    await cluster.until("slots and room are full", () => cluster.origin.originBytes() >= expected);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(cluster.origin.originBytes(), expected);
    gate.resolve();
    assert.ok((await reading).equals(bytes));
  });
});
