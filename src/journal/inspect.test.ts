import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { KiB } from "../base/units.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { formatJournal } from "./format.ts";
import { dumpJournal, inspectJournal, journalStatusAtRest, verifyJournal } from "./inspect.ts";
import { ListMachine } from "./list-machine.ts";
import { LocalJournal } from "./local-journal.ts";
import { defaultWalLimits } from "./wal.ts";

const directory = "/journal";
const clock = new NodeClock();
const segmentBytes = 16 * KiB;

async function filled(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await formatJournal({ disk, clock, directory, clusterId: "inspect" as ClusterId, segmentBytes });
  const journal = new LocalJournal({
    disk,
    clock,
    logger: silentLogger,
    metrics: new Metrics(),
    directory,
    machine: new ListMachine(disk),
    limits: { wal: { ...defaultWalLimits, segmentBytes, reserveBytes: 0 } },
    onFatal: () => {},
  });
  await journal.start();
  for (let n = 1; n <= 150; n++) await journal.propose(Buffer.from(`command ${n} ${"i".repeat(150)}`, "utf8"));
  await journal.checkpoint();
  await journal.close();
  return disk;
}

async function damage(disk: MemoryDisk, path: string, offset: number): Promise<void> {
  const file = await disk.open(path, "write");
  const bytes = new Uint8Array(1);
  await file.read(bytes, offset);
  bytes[0] = (bytes[0] as number) ^ 1;
  await file.write(bytes, offset);
  await file.close();
}

test("status, verify and inspect agree on a sound journal at rest", async () => {
  const disk = await filled();
  const status = await journalStatusAtRest(disk, directory);
  assert.deepEqual(
    [status.meta.clusterId, status.term, status.firstIndex, status.lastIndex, status.checkpointIndex],
    ["inspect", 1, 1, 150, 150],
  );
  const report = await verifyJournal(disk, directory);
  assert.deepEqual([report.ok, report.entries, report.findings, report.checkpoints.length], [true, 150, [], 1]);
  assert.equal(report.bytes, status.bytes);
  let next = 1;
  for await (const { index, term, bytes, offset, payload } of inspectJournal(disk, directory)) {
    assert.equal(index, next);
    assert.deepEqual([term, bytes], [1, payload.length]);
    assert.ok(offset >= 4096 && offset < segmentBytes);
    assert.ok(Buffer.from(payload).toString("utf8").startsWith(`command ${next++} `));
  }
  assert.equal(next, 151);
});

test("inspect begins where it is asked to, and dump shows what is not an entry too", async () => {
  const disk = await filled();
  const indexes: number[] = [];
  for await (const { index } of inspectJournal(disk, directory, 120)) indexes.push(index);
  assert.deepEqual([indexes[0], indexes.length], [120, 31]);
  const types = new Set<string>();
  for await (const { type } of dumpJournal(disk, directory)) types.add(type);
  assert.deepEqual([...types].sort(), ["entry", "hard-state", "mark", "seal"]);
});

test("verify lists every damage with file and offset, and inspect stops at the first", async () => {
  const disk = await filled();
  const names = (await disk.list(`${directory}/wal`)).filter((name) => name.startsWith("segment-")).sort();
  const paths = [`${directory}/wal/${names[0]}`, `${directory}/wal/${names[1]}`];
  for (const path of paths) await damage(disk, path, 9000);
  const [name = ""] = (await disk.list(`${directory}/checkpoints`)).filter((file) => !file.endsWith(".json"));
  await damage(disk, `${directory}/checkpoints/${name}`, 17);
  const report = await verifyJournal(disk, directory);
  assert.equal(report.ok, false);
  assert.deepEqual(
    new Set(report.details.map(({ file }) => file)),
    new Set([...paths, `${directory}/checkpoints/${name}`]),
  );
  for (const text of report.findings) assert.match(text, /^\/journal\/.*: offset \d+/);
  let seen = 0;
  await assert.rejects(
    async () => {
      for await (const _ of inspectJournal(disk, directory)) seen++;
    },
    (error) => isHeadpondError(error, "corrupt") && error.message.startsWith(`${paths[0]}: offset`),
  );
  assert.ok(seen > 10 && seen < 50, `${seen} entries before the damage`);
});

test("a flip of any byte of the small files beside the log is found", async () => {
  const disk = await filled();
  const manifest = (await disk.list(`${directory}/checkpoints`)).find((name) => name.endsWith(".json"));
  for (const path of [`${directory}/journal.json`, `${directory}/checkpoints/${manifest}`]) {
    const { sizeBytes } = await disk.stat(path);
    for (let offset = 0; offset < sizeBytes; offset++) {
      await damage(disk, path, offset);
      const report = await verifyJournal(disk, directory);
      await damage(disk, path, offset);
      assert.ok(
        report.details.some(({ file }) => file === path),
        `${path} offset ${offset}`,
      );
    }
  }
});

test("a directory without a journal is not found", async () => {
  const disk = new MemoryDisk();
  await disk.makeDirectory(directory);
  await assert.rejects(verifyJournal(disk, directory), (error) => isHeadpondError(error, "not-found"));
});
