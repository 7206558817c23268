import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import type { Disk } from "../io/disk.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { NodeClock } from "../io/node-clock.ts";
import { mortalDisk } from "./mortal-disk.ts";
import { recordType, type WalRecord } from "./record.ts";
import { Wal, type WalLimits } from "./wal.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

const directory = "/wal";
const clusterId = "wal" as ClusterId;
const limits: WalLimits = {
  segmentBytes: 8 * KiB,
  batchBytes: 64 * KiB,
  maxSpares: 2,
  reserveBytes: 0,
  walkBytes: Number.POSITIVE_INFINITY,
};

function entry(index: number, term: number, payloadBytes = 200): WalRecord {
  return { type: recordType.entry, index, term, payload: Buffer.alloc(payloadBytes, `${term}/${index} `) };
}

function truncate(index: number, termBefore: number): WalRecord {
  return { type: recordType.truncate, index, term: termBefore, payload: new Uint8Array(0) };
}

async function create(disk: Disk): Promise<void> {
  await disk.makeDirectory(directory);
  await disk.syncDirectory("/");
  await Wal.create({ disk, directory, clusterId, segmentBytes: limits.segmentBytes });
}

function open(disk: Disk, change: Partial<WalLimits> = {}, needsTerms = false): Promise<Wal> {
  const clock = new NodeClock();
  return Wal.open({
    disk,
    clock,
    logger: silentLogger,
    directory,
    clusterId,
    limits: { ...limits, ...change },
    needsTerms,
    onFatal: () => {},
  });
}

async function appendAll(wal: Wal, records: readonly WalRecord[]): Promise<void> {
  for (let done = 0; done < records.length; ) done += await wal.append(records.slice(done));
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, n) => from + n);
}

async function readAll(wal: Wal): Promise<string[]> {
  const found: string[] = [];
  for (let next = wal.firstIndex; next <= wal.lastIndex; ) {
    const entries = await wal.read(next);
    assert.ok(entries.length > 0, `nothing at ${next}`);
    for (const { index, term, payload } of entries) {
      assert.equal(index, next++);
      assert.deepEqual(Buffer.from(payload), entry(index, term, payload.length).payload);
      found.push(`${term}/${index}`);
    }
  }
  return found;
}

test("a tail that was truncated and written anew is read in its new form, also after a restart", async () => {
  const disk = new MemoryDisk();
  await create(disk);
  const wal = await open(disk);
  await appendAll(
    wal,
    range(1, 60).map((index) => entry(index, 1)),
  );
  await appendAll(wal, [truncate(20, 1), ...range(20, 40).map((index) => entry(index, 2))]);
  await appendAll(wal, [truncate(38, 2), ...range(38, 90).map((index) => entry(index, 3))]);
  const expected = [
    ...range(1, 19).map((n) => `1/${n}`),
    ...range(20, 37).map((n) => `2/${n}`),
    ...range(38, 90).map((n) => `3/${n}`),
  ];
  assert.deepEqual(await readAll(wal), expected);
  assert.equal(await wal.termAt(37), 2);
  await wal.close();
  for (const walkBytes of [Number.POSITIVE_INFINITY, 0]) {
    const again = await open(disk, { walkBytes });
    assert.deepEqual([again.lastIndex, again.lastTerm], [90, 3]);
    assert.deepEqual(await readAll(again), expected);
    await again.close();
  }
});

test("a whole log can be truncated and begun again", async () => {
  const disk = new MemoryDisk();
  await create(disk);
  const wal = await open(disk);
  await appendAll(
    wal,
    range(1, 5).map((index) => entry(index, 1)),
  );
  await appendAll(wal, [truncate(1, 0), entry(1, 2)]);
  assert.deepEqual(await readAll(wal), ["2/1"]);
  await wal.close();
  assert.deepEqual(await readAll(await open(disk)), ["2/1"]);
});

test("the hard state survives restarts, and the loss of the segment in which it was written", async () => {
  const disk = new MemoryDisk();
  await create(disk);
  const wal = await open(disk);
  await wal.append([{ type: recordType.hardState, index: 1, term: 7, payload: Buffer.from("m2") }]);
  await appendAll(
    wal,
    range(1, 100).map((index) => entry(index, 7)),
  );
  await wal.cut(90);
  assert.ok(wal.firstIndex > 30);
  await wal.close();
  const again = await open(disk);
  assert.deepEqual(again.hardState, { term: 7, vote: new Uint8Array(Buffer.from("m2")) });
});

test("a truncation that reaches back behind a later cut is no damage", async () => {
  const disk = new MemoryDisk();
  await create(disk);
  const wal = await open(disk);
  await appendAll(
    wal,
    range(1, 20).map((index) => entry(index, 1)),
  );
  // The second segment begins at about 17; it makes 15 void, and the cut behind 18 leaves it as the first.
  await appendAll(wal, [truncate(15, 1), ...range(15, 24).map((index) => entry(index, 2))]);
  await wal.cut(18);
  const { firstIndex } = wal;
  assert.ok(firstIndex > 15 && firstIndex < 20, `first index ${firstIndex}`);
  await wal.close();
  const again = await open(disk);
  assert.deepEqual([again.firstIndex, await again.termAt(14), await again.termAt(15), again.lastIndex], [15, 1, 2, 24]);
  assert.equal((await readAll(again)).length, 10);
});

test("a log that begins anew behind a checkpoint forgets its entries, not its hard state, also when the crash is right after", async () => {
  const disk = new MemoryDisk();
  await create(disk);
  const wal = await open(disk);
  await wal.append([{ type: recordType.hardState, index: 1, term: 4, payload: Buffer.from("m3") }]);
  await appendAll(
    wal,
    range(1, 80).map((index) => entry(index, 4)),
  );
  await wal.restart(500, 5);
  assert.deepEqual([wal.firstIndex, wal.lastIndex, await wal.termAt(500), await wal.read(501)], [501, 500, 5, []]);
  await assert.rejects(wal.read(80), (error) => isHeadpondError(error, "compacted"));
  disk.crash({ random: new Random(seed) });
  const again = await open(disk);
  assert.deepEqual([again.firstIndex, again.lastIndex, again.lastTerm, again.hardState.term], [501, 500, 5, 4]);
  await appendAll(
    again,
    range(501, 560).map((index) => entry(index, 5)),
  );
  await again.close();
  assert.equal((await readAll(await open(disk))).length, 60);
});

test("segments that the start did not look into are read all the same, and their damage is found then", async () => {
  const disk = new MemoryDisk();
  await create(disk);
  const wal = await open(disk);
  await appendAll(
    wal,
    range(1, 150).map((index) => entry(index, 1)),
  );
  await wal.close();
  const lazy = await open(disk, { walkBytes: 0 });
  assert.equal((await readAll(lazy)).length, 150);
  await lazy.close();
  const name = (await disk.list(directory)).filter((file) => file.startsWith("segment-")).sort()[0];
  const file = await disk.open(`${directory}/${name}`, "write");
  await file.write(Buffer.from("x"), 5000);
  await file.close();
  const damaged = await open(disk, { walkBytes: 0 });
  await assert.rejects(
    damaged.read(3),
    (error) => isHeadpondError(error, "corrupt") && error.message.includes(`${name}: offset`),
  );
  await assert.rejects(open(disk), (error) => isHeadpondError(error, "corrupt"));
});

test("a log that is opened for its terms looks into the segments in which something changes, and into no others", async () => {
  const random = new Random(seed);
  const memory = new MemoryDisk();
  await create(memory);
  const wal = await open(memory);
  const configuration = (index: number, term: number): WalRecord => ({
    ...entry(index, term),
    type: recordType.configuration,
  });
  const expected = new Map<number, number>();
  const members: number[] = [];
  let term = 1;
  const grow = async (from: number, to: number): Promise<void> => {
    for (let index = from; index <= to; index++) {
      if (random.chance(1 / 150)) term++;
      const isMembership = random.chance(1 / 200);
      await appendAll(wal, [isMembership ? configuration(index, term) : entry(index, term)]);
      expected.set(index, term);
      if (isMembership) members.push(index);
    }
  };
  await grow(1, 1200);
  // A tail that a leader of before left: its terms and memberships are void.
  await appendAll(wal, [truncate(1100, expected.get(1099) ?? 0)]);
  while ((members.at(-1) ?? 0) >= 1100) members.pop();
  term++;
  await grow(1100, 2500);
  await wal.close();

  const opened: string[] = [];
  const disk = new Proxy(memory, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target);
      if (name !== "open") return typeof value === "function" ? (value.bind(target) as unknown) : value;
      return async (...given: Parameters<Disk["open"]>) => {
        const file = await target.open(...given);
        const read = file.read.bind(file);
        file.read = (buffer, position) => {
          if (buffer.length > 4096) opened.push(given[0]);
          return read(buffer, position);
        };
        return file;
      };
    },
  });
  const again = await open(disk, { walkBytes: 0 }, true);
  for (const [index, expectedTerm] of expected) assert.equal(again.term(index), expectedTerm, `term of ${index}`);
  assert.deepEqual(
    again.configurations.map(({ index }) => index),
    members,
  );
  const walked = new Set(opened).size;
  const segments = (await memory.list(directory)).filter((name) => name.startsWith("segment-")).length;
  assert.ok(segments > 60, `${segments} segments`);
  assert.ok(walked < segments * 0.6, `${walked} of ${segments} segments were read as a whole`);
  assert.equal((await readTerms(again)).length, 2500);
  await again.close();
});

async function readTerms(wal: Wal): Promise<number[]> {
  const terms: number[] = [];
  for (let next = 1; next <= wal.lastIndex; next = terms.length + 1) {
    for (const { term, index } of await wal.read(next)) {
      assert.equal(wal.term(index), term);
      terms.push(term);
    }
  }
  return terms;
}

test("a cut gives up whole segments only, recycles them, and reads of them are refused as compacted", async () => {
  const disk = new MemoryDisk();
  await create(disk);
  const wal = await open(disk);
  await appendAll(
    wal,
    range(1, 150).map((index) => entry(index, 1)),
  );
  await wal.cut(80);
  assert.ok(wal.firstIndex > 1 && wal.firstIndex <= 81);
  await assert.rejects(wal.read(1), (error) => isHeadpondError(error, "compacted"));
  assert.ok((await disk.list(directory)).some((name) => name.startsWith("spare-")));
  await appendAll(
    wal,
    range(151, 300).map((index) => entry(index, 1)),
  );
  assert.equal((await readAll(wal)).length, 300 - wal.firstIndex + 1);
  await wal.close();
  const again = await open(disk);
  assert.equal(await again.termAt(again.firstIndex - 1), 1);
  assert.equal((await readAll(again)).length, 300 - again.firstIndex + 1);
});

test("a failed flush is never tried again: the log is dead and says that the outcome is unknown", async () => {
  const real = new MemoryDisk();
  await create(real);
  let flushes = 0;
  let failing = false;
  const disk = new Proxy(real, {
    get(target, key) {
      if (key !== "open") {
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === "function"
          ? (...args: readonly unknown[]): unknown => Reflect.apply(value, target, args)
          : value;
      }
      return async (...args: Parameters<Disk["open"]>) => {
        const file = await target.open(...args);
        const datasync = file.datasync.bind(file);
        file.datasync = async () => {
          if (!failing) return datasync();
          if (file.path.includes("segment-")) flushes++;
          throw Object.assign(new Error("EIO: i/o error, fdatasync"), { code: "EIO" });
        };
        return file;
      };
    },
  });
  const fatal: Error[] = [];
  const wal = await Wal.open({
    disk,
    clock: new NodeClock(),
    logger: silentLogger,
    directory,
    clusterId,
    limits,
    onFatal: (error) => fatal.push(error),
  });
  await wal.append([entry(1, 1)]);
  failing = true;
  await assert.rejects(wal.append([entry(2, 1)]), (error) => isHeadpondError(error, "unknown-outcome"));
  failing = false;
  await assert.rejects(
    wal.append([entry(2, 1)]),
    (error) => isHeadpondError(error, "unavailable") && error.outcome === "none",
  );
  assert.deepEqual([flushes, fatal.length, wal.lastIndex], [1, 1, 1]);
});

test("what a killed process left unflushed and a start has recovered survives the crash of the computer after it", async () => {
  let recovered = 0;
  for (let operations = 5; operations < 40; operations++) {
    const real = new MemoryDisk();
    await create(real);
    const mortal = mortalDisk(real, operations);
    let durable = 0;
    try {
      const wal = await open(mortal.disk);
      while (durable < 20) durable += await wal.append([entry(durable + 1, 1)]);
    } catch {
      // Killed between a write and its flush, or somewhere else.
    }
    await mortal.kill();
    const wal = await open(real);
    const { lastIndex } = wal;
    if (lastIndex > durable) recovered++;
    real.crash({ random: new Random(seed + operations) });
    assert.equal((await open(real)).lastIndex, lastIndex, `seed ${seed}, ${operations} operations`);
  }
  assert.ok(recovered > 5, `${recovered} entries were recovered without their flush`);
});

test("a crash at any operation of the disk keeps what was appended, in order, and opens again", async () => {
  const random = new Random(seed);
  let operations = 3;
  let crashes = 0;
  for (let finished = false; !finished; operations += random.between(1, 3)) {
    const real = new MemoryDisk();
    await create(real);
    let durable: string[] = [];
    let cutTo = 0;
    const mortal = mortalDisk(real, operations);
    try {
      const wal = await open(mortal.disk);
      let term = 1;
      for (let round = 0; round < 30; round++) {
        const last = wal.lastIndex;
        const batch: WalRecord[] = [];
        let from = last + 1;
        if (round % 5 === 4 && last > cutTo + 3) {
          from = last - 2;
          batch.push(truncate(from, (await wal.termAt(from - 1)) ?? 0));
          term++;
        }
        for (let n = 0; n < 6; n++) batch.push(entry(from + n, term, 150 + random.between(0, 100)));
        // What the truncation voids is not acknowledged any more, whether or not it takes effect.
        durable = durable.slice(0, from - 1);
        for (let done = 0; done < batch.length; ) {
          const count = await wal.append(batch.slice(done));
          for (const record of batch.slice(done, done + count)) {
            if (record.type === recordType.entry) durable[record.index - 1] = `${record.term}/${record.index}`;
          }
          done += count;
        }
        if (round % 7 === 6) {
          await wal.cut(wal.lastIndex - 10);
          cutTo = wal.lastIndex - 10;
        }
      }
      await wal.close();
      finished = true;
    } catch (error) {
      const dead = String((error as Error).message).includes("the process is dead");
      assert.ok(dead, String((error as Error).stack));
      crashes++;
    }
    const killed = mortal.kill();
    real.crash({ random });
    await killed;
    const wal = await open(real);
    const found = await readAll(wal);
    const expected = durable.slice(wal.firstIndex - 1);
    assert.ok(wal.firstIndex <= cutTo + 1 || wal.firstIndex <= durable.length + 1, `first index ${wal.firstIndex}`);
    assert.deepEqual(found.slice(0, expected.length), expected, `crash after ${operations} operations, seed ${seed}`);
    await wal.append([entry(wal.lastIndex + 1, 99)]);
    await wal.close();
  }
  assert.ok(crashes > 50, `${crashes} crashes`);
});

test("a witness that a crash lost is no damage: it was never durable, whatever came behind it", async () => {
  const random = new Random(seed);
  for (let round = 0; round < 300; round++) {
    const disk = new MemoryDisk();
    await create(disk);
    const wal = await open(disk);
    const count = random.between(1, 30);
    for (const index of range(1, count)) await appendAll(wal, [entry(index, 1, random.between(8, 300))]);
    wal.witness();
    // The power fails while the next batch, for which the log may go on in a new segment, is being flushed.
    const rest = wal.append([entry(count + 1, 1, random.between(8, 600))]).catch(() => {});
    for (let turn = random.between(0, 12); turn > 0; turn--) await Promise.resolve();
    disk.crash({ random });
    await rest;
    const again = await open(disk);
    assert.ok(again.lastIndex >= count, `round ${round}: ${again.lastIndex} of ${count} entries`);
    assert.equal((await readAll(again)).length, again.lastIndex);
    await again.close();
  }
});

test("power that fails after a process was killed loses nothing that the next process had read", async () => {
  const random = new Random(seed);
  let rolls = 0;
  for (let round = 0; round < 200; round++) {
    const real = new MemoryDisk();
    await create(real);
    const first = mortalDisk(real, random.between(150, 400));
    try {
      const wal = await open(first.disk);
      for (let index = 1; ; index++) await appendAll(wal, [entry(index, 1, random.between(100, 1500))]);
    } catch {
      // Killed: what it had written is in the page cache.
    }
    await first.kill();
    const second = mortalDisk(real);
    const wal = await open(second.disk);
    const { lastIndex } = wal;
    for (let n = random.between(0, 8); n > 0; n--) {
      await appendAll(wal, [entry(wal.lastIndex + 1, 1, random.between(100, 1500))]);
      rolls++;
    }
    const killed = second.kill();
    real.crash({ random });
    await killed;
    const again = await open(real);
    assert.ok(again.lastIndex >= lastIndex, `round ${round}: ${again.lastIndex} of ${lastIndex} entries`);
    await again.close();
  }
  assert.ok(rolls > 100);
});
