import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClusterId } from "../base/ids.ts";
import { KiB } from "../base/units.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { NodeClock } from "../io/node-clock.ts";
import { type Finding, readWal, type WalState } from "./read-wal.ts";
import { recordType, type WalRecord } from "./record.ts";
import { Wal } from "./wal.ts";

const directory = "/wal";
const clusterId = "damage" as ClusterId;
const segmentBytes = 8 * KiB;
const limits = {
  segmentBytes,
  batchBytes: 64 * KiB,
  maxSpares: 2,
  reserveBytes: 0,
  walkBytes: Number.POSITIVE_INFINITY,
};

function entry(index: number, payloadBytes = 100): WalRecord {
  return { type: recordType.entry, index, term: 3, payload: Buffer.alloc(payloadBytes, `entry ${index} `) };
}

async function openWal(disk: MemoryDisk): Promise<Wal> {
  return Wal.open({
    disk,
    clock: new NodeClock(),
    logger: silentLogger,
    directory,
    clusterId,
    limits,
    onFatal: () => {},
  });
}

/** Three segments of batches of one to four entries; witnessed at the end unless asked otherwise. */
async function makeWal(options: {
  witness: boolean;
  lastBatch?: number;
}): Promise<{ disk: MemoryDisk; names: string[]; count: number }> {
  const disk = new MemoryDisk();
  await disk.makeDirectory(directory);
  await Wal.create({ disk, directory, clusterId, segmentBytes });
  const wal = await openWal(disk);
  let next = 1;
  const append = async (records: readonly WalRecord[]): Promise<void> => {
    for (let done = 0; done < records.length; ) done += await wal.append(records.slice(done));
    next += records.length;
  };
  await append([{ type: recordType.hardState, index: 1, term: 3, payload: Buffer.from("m1") }]);
  next = 1;
  while (next <= 70) await append(Array.from({ length: 1 + (next % 4) }, (_, n) => entry(next + n)));
  await append(Array.from({ length: options.lastBatch ?? 2 }, (_, n) => entry(next + n)));
  const count = next - 1;
  if (options.witness) await wal.close();
  const names = (await disk.list(directory)).filter((name) => name.startsWith("segment-")).sort();
  assert.equal(names.length, 3);
  return { disk, names, count };
}

type Look = {
  readonly damage: readonly Finding[];
  readonly notes: readonly Finding[];
  readonly intact: number;
  readonly state: WalState;
};

/** Reads everything. `intact`: how many entries from the first on are there with the content they were written with. */
async function look(disk: MemoryDisk): Promise<Look> {
  const findings: Finding[] = [];
  let intact = 0;
  const state = await readWal({
    disk,
    directory,
    clusterId,
    walkBytes: Number.POSITIVE_INFINITY,
    onFinding: (finding) => findings.push(finding),
    onRecord: ({ type, index, term, payload }) => {
      if (
        type === recordType.entry &&
        index === intact + 1 &&
        term === 3 &&
        entry(index).payload.every((byte, at) => byte === payload[at])
      ) {
        intact = index;
      }
    },
  });
  const of = (severity: string): Finding[] => findings.filter((finding) => finding.severity === severity);
  return { damage: of("damage"), notes: of("note"), intact, state };
}

async function flip(disk: MemoryDisk, path: string, offset: number, mask: number): Promise<void> {
  const file = await disk.open(path, "write");
  const byte = new Uint8Array(1);
  file.readSync(byte, offset);
  byte[0] = (byte[0] as number) ^ mask;
  file.writeSync(byte, offset);
  await file.datasync();
  await file.close();
}

test("an undamaged log has no findings, and gives back what was appended", async () => {
  const { disk, count } = await makeWal({ witness: true });
  const { damage, notes, intact, state } = await look(disk);
  assert.deepEqual([damage, notes, intact], [[], [], count]);
  assert.deepEqual(state.index.hardState, { term: 3, vote: new Uint8Array(Buffer.from("m1")) });
});

test("a flip of any byte of any segment is found and named, unless it is in dead space", async () => {
  const { disk, names, count } = await makeWal({ witness: true });
  const sound = await look(disk);
  // In dead space: behind the seal, and from the mark at the very end on.
  const deadFrom = names.map(
    (_, at) => sound.state.segments[at + 1]?.header.previousEnd ?? sound.state.tail.offset - 32,
  );
  let found = 0;
  for (const [at, name] of names.entries()) {
    const path = `${directory}/${name}`;
    for (let offset = 0; offset < segmentBytes; offset++) {
      // Every byte of the header's fields and of the records; of the zeros in between a sample.
      const filler = (offset >= 256 && offset < 4088) || offset >= (deadFrom[at] as number) + 64;
      if (filler && offset % 61 !== 0) continue;
      const mask = 1 << (offset % 8);
      await flip(disk, path, offset, mask);
      const { damage, intact } = await look(disk);
      await flip(disk, path, offset, mask);
      const where = `${name} offset ${offset}`;
      if (offset >= (deadFrom[at] as number)) {
        assert.deepEqual([damage, intact], [[], count], where);
        continue;
      }
      found++;
      assert.ok(damage.length > 0, `${where}: not found`);
      assert.ok(
        damage.some((finding) => finding.file === path && finding.offset <= offset),
        `${where}: named ${JSON.stringify(damage)}`,
      );
    }
  }
  assert.ok(found > 10_000, `${found} flips were found`);
  assert.deepEqual((await look(disk)).damage, []);
});

test("without a witness, damage can take the last batch and never more", async () => {
  const { disk, names, count } = await makeWal({ witness: false, lastBatch: 3 });
  const path = `${directory}/${names.at(-1)}`;
  const end = (await look(disk)).state.tail.offset;
  let torn = 0;
  for (let offset = 4096; offset < end; offset++) {
    await flip(disk, path, offset, 0x40);
    const { damage, intact } = await look(disk);
    await flip(disk, path, offset, 0x40);
    if (damage.length === 0) {
      torn++;
      assert.ok(
        intact >= count - 3,
        `offset ${offset}: ${intact} of ${count} entries are left and nothing is reported`,
      );
    }
  }
  assert.ok(torn > 0 && torn <= 3 * 136, `${torn} flips looked like a torn tail`);
});

test("a file cut short or extended at any length is found", async () => {
  for (const length of [0, 1, 4095, 4096, 5000, segmentBytes - 1, segmentBytes + 1]) {
    for (const at of [0, 1, 2]) {
      const { disk, names } = await makeWal({ witness: true });
      const path = `${directory}/${names[at]}`;
      const file = await disk.open(path, "write");
      await file.truncate(length);
      await file.close();
      const { damage } = await look(disk);
      assert.ok(
        damage.some((finding) => finding.file === path),
        `${path} with ${length} bytes: ${JSON.stringify(damage)}`,
      );
    }
  }
});

test("swapped segments are found", async () => {
  for (const [a, b] of [
    [0, 1],
    [0, 2],
    [1, 2],
  ] as const) {
    const { disk, names } = await makeWal({ witness: true });
    const [first, second] = [`${directory}/${names[a]}`, `${directory}/${names[b]}`];
    await disk.rename(first, "/other");
    await disk.rename(second, first);
    await disk.rename("/other", second);
    const { damage } = await look(disk);
    for (const path of [first, second]) {
      assert.ok(
        damage.some(({ file, message }) => file === path && message.startsWith("misplaced segment")),
        path,
      );
    }
  }
});

test("a missing segment is found: in the middle and at the end", async () => {
  for (const gone of [1, 2]) {
    const { disk, names } = await makeWal({ witness: true });
    await disk.unlink(`${directory}/${names[gone]}`);
    const { damage } = await look(disk);
    assert.ok(
      damage.some(({ message }) => message.startsWith("missing segment")),
      `segment ${gone}: ${JSON.stringify(damage)}`,
    );
  }
  const { disk, names } = await makeWal({ witness: true });
  for (const name of names) await disk.unlink(`${directory}/${name}`);
  assert.match((await look(disk)).damage[0]?.message ?? "", /the log is missing/);
});

test("a segment of another cluster or of another log is found", async () => {
  const { disk, names } = await makeWal({ witness: true });
  await assert.rejects(
    readWal({
      disk,
      directory,
      clusterId: "another" as ClusterId,
      walkBytes: 0,
      onFinding: ({ message }) => {
        throw new Error(message);
      },
    }),
    /foreign segment: it belongs to cluster damage, not another/,
  );
  const other = await makeWal({ witness: true, lastBatch: 1 });
  const path = `${directory}/${names[1]}`;
  const bytes = Buffer.alloc(segmentBytes);
  const source = await other.disk.open(`${directory}/${other.names[2]}`, "read");
  await source.read(bytes, 0);
  const target = await disk.open(path, "write");
  await target.write(bytes, 0);
  assert.ok((await look(disk)).damage.some(({ file }) => file === path));
});

test("two records of the same size that change places are found", async () => {
  const { disk, names } = await makeWal({ witness: true });
  const path = `${directory}/${names[1]}`;
  const file = await disk.open(path, "write");
  const [a, b] = [Buffer.alloc(136), Buffer.alloc(136)];
  await file.read(a, 4096);
  await file.read(b, 4096 + 136);
  await file.write(b, 4096);
  await file.write(a, 4096 + 136);
  const { damage } = await look(disk);
  assert.equal(damage[0]?.file, path);
  assert.equal(damage[0]?.offset, 4096);
});

test("a recycled segment's former records are never taken for new ones", async () => {
  const { disk, count } = await makeWal({ witness: true });
  const wal = await openWal(disk);
  await wal.cut(count);
  assert.ok(wal.firstIndex > 1);
  let next = count + 1;
  // Goes through both recycled segments and stops in the middle of one that is full of old records.
  while (next < count + 80) next += await wal.append([entry(next)]);
  const findings: Finding[] = [];
  const state = await readWal({
    disk,
    directory,
    clusterId,
    walkBytes: Number.POSITIVE_INFINITY,
    onFinding: (found) => findings.push(found),
  });
  assert.deepEqual(findings, []);
  assert.equal(state.index.lastIndex, next - 1);
  for (let index = wal.firstIndex; index < next; index++) {
    assert.deepEqual(Buffer.from((await wal.read(index, 1))[0]?.payload ?? []), entry(index).payload);
  }
  await wal.close();
});

test("a batch torn with holes ends the log at its first hole, and what survived behind it does not come back", async () => {
  const { disk, names, count } = await makeWal({ witness: false, lastBatch: 4 });
  const path = `${directory}/${names.at(-1)}`;
  const end = (await look(disk)).state.tail.offset;
  // The second of the last four records never reached the disk; the others did.
  const file = await disk.open(path, "write");
  await file.write(new Uint8Array(136), end - 3 * 136);
  await file.datasync();
  await file.close();
  const torn = await look(disk);
  assert.deepEqual([torn.damage, torn.notes.length, torn.intact], [[], 1, count - 3]);
  const wal = await openWal(disk);
  assert.equal(wal.lastIndex, count - 3);
  await wal.append([entry(count - 2)]);
  const after = await look(disk);
  assert.deepEqual([after.damage, after.notes, after.intact], [[], [], count - 2]);
  await wal.close();
});
