import assert from "node:assert/strict";
import fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Random } from "../base/random.ts";
import { KiB, MiB } from "../base/units.ts";
import type { Disk, DiskFile, OpenMode } from "./disk.ts";
import { FaultyDisk } from "./faulty-disk.ts";
import { xxh64Hex } from "./hash.ts";
import { ManualClock } from "./manual-clock.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { NodeClock } from "./node-clock.ts";
import { NodeDisk } from "./node-disk.ts";
import { PacedCopier } from "./paced-copy.ts";

const fast = { pieceBytes: 64 * KiB, bytesPerSecond: 1e12 };

async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await fs.mkdtemp(join(tmpdir(), "headpond-copy-"));
  t.after(() => fs.rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Stands for a file that is as long as `bytes`. */
function source(bytes: Uint8Array): { read(buffer: Uint8Array, position: number): Promise<number> } {
  return {
    read: (buffer, position) => {
      // Half of what was asked for, as a file may do.
      const piece = bytes.subarray(position, position + Math.ceil(buffer.length / 2));
      buffer.set(piece);
      return Promise.resolve(piece.length);
    },
  };
}

test("a copy has the head, the runs and zeros between them, and its sum is that of the file", async (t) => {
  const seed = Date.now() & 0xffff;
  t.diagnostic(`seed ${seed}`);
  const random = new Random(seed);
  const directory = await temporaryDirectory(t);
  const copier = new PacedCopier({ disk: new NodeDisk(), clock: new NodeClock(), limits: fast });
  for (let round = 0; round < 20; round++) {
    const sizeBytes = random.between(0, 3 * MiB);
    // Shorter than it should be at times: what is missing is zeros.
    const bytes = random.bytes(random.between(sizeBytes >> 1, sizeBytes));
    const head = random.bytes(sizeBytes === 0 ? 0 : Math.min(sizeBytes, 8192));
    const expected = Buffer.alloc(sizeBytes);
    const runs: [number, number][] = [];
    for (let at = 0; at < sizeBytes; ) {
      const length = Math.min(sizeBytes - at, 4096 * random.between(2, 60));
      runs.push([at, length]);
      expected.set(bytes.subarray(at, at + length), at);
      at += length + 4096 * random.between(0, 60);
    }
    expected.set(head);
    const to = join(directory, `copy-${round}`);
    const sum = await copier.copy({ from: source(bytes), to, sizeBytes, head, runs });
    const written = await fs.readFile(to);
    assert.ok(written.equals(expected), `round ${round}, ${sizeBytes} bytes`);
    assert.deepEqual(sum, { bytes: sizeBytes, xxh64: xxh64Hex(expected) });
  }
});

test("what is not copied takes no room on the disk", async (t) => {
  const directory = await temporaryDirectory(t);
  const copier = new PacedCopier({ disk: new NodeDisk(), clock: new NodeClock(), limits: fast });
  const sizeBytes = 64 * MiB;
  const to = join(directory, "copy");
  const runs: [number, number][] = [
    [0, 64 * KiB],
    [32 * MiB, 64 * KiB],
  ];
  await copier.copy({ from: source(new Random(1).bytes(MiB)), to, sizeBytes, head: new Uint8Array(0), runs });
  const { size, blocks } = await fs.stat(to);
  assert.equal(size, sizeBytes);
  assert.ok(blocks * 512 <= MiB, `${blocks * 512} bytes are allocated`);
});

test("a copy is never ahead of its rate by more than a piece and the burst", async () => {
  const clock = new ManualClock();
  const disk = new MemoryDisk();
  let writtenBytes = 0;
  const from = {
    read: (buffer: Uint8Array) => {
      writtenBytes += buffer.length;
      return Promise.resolve(buffer.length);
    },
  };
  const limits = { pieceBytes: 64 * KiB, bytesPerSecond: MiB };
  const copier = new PacedCopier({ disk, clock, limits });
  const runs: [number, number][] = [[0, 2 * MiB]];
  let done = false;
  const copied = copier.copy({ from, to: "/copy", sizeBytes: 2 * MiB, head: new Uint8Array(0), runs }).then(() => {
    done = true;
  });
  for (let elapsedMs = 0; elapsedMs < 1900; elapsedMs += 100) {
    const allowedBytes = (elapsedMs / 1000) * MiB;
    // One piece more may be read ahead, one be under way.
    assert.ok(writtenBytes <= allowedBytes + 3 * 64 * KiB, `${writtenBytes} bytes after ${elapsedMs} ms`);
    assert.ok(writtenBytes >= allowedBytes - 64 * KiB, `only ${writtenBytes} bytes after ${elapsedMs} ms`);
    assert.equal(done, false, `done after ${elapsedMs} ms`);
    await clock.advance(100);
  }
  await clock.advance(200);
  await copied;
});

test("no more than the allowed bytes are unsynced, and a crash behind the copy loses none", async () => {
  const disk = new MemoryDisk();
  let unsyncedBytes = 0;
  let unsyncedBytesMost = 0;
  const watched = Object.create(disk, {
    open: {
      value: async (path: string, mode: OpenMode) => {
        const file = await disk.open(path, mode);
        const write = async (buffer: Uint8Array, position: number): Promise<void> => {
          unsyncedBytes += buffer.length;
          unsyncedBytesMost = Math.max(unsyncedBytesMost, unsyncedBytes);
          await file.write(buffer, position);
        };
        const datasync = async (): Promise<void> => {
          await file.datasync();
          unsyncedBytes = 0;
        };
        return Object.assign(Object.create(file) as DiskFile, {
          write,
          datasync,
          truncate: file.truncate.bind(file),
          close: file.close.bind(file),
        });
      },
    },
  }) as Disk;
  const limits = { ...fast, unsyncedBytesMax: 256 * KiB };
  const bytes = new Random(2).bytes(MiB);
  const request = { from: source(bytes), to: "/copy", sizeBytes: MiB, head: new Uint8Array(0) };
  await new PacedCopier({ disk: watched, clock: new NodeClock(), limits }).copy({ ...request, runs: [[0, MiB]] });
  assert.equal(unsyncedBytesMost, 256 * KiB);
  await disk.syncDirectory("/");
  disk.crash({ random: new Random(3) });
  const file = await disk.open("/copy", "read");
  const back = Buffer.alloc(MiB);
  assert.equal(await file.read(back, 0), MiB);
  assert.ok(back.equals(bytes));
  await file.close();
});

test("a copy that fails or is ended leaves no file", async () => {
  const memory = new MemoryDisk();
  const clock = new NodeClock();
  const disk = new FaultyDisk({ disk: memory, clock });
  const copier = new PacedCopier({ disk, clock, limits: fast });
  const request = { to: "/copy", sizeBytes: MiB, head: new Uint8Array(0), runs: [[0, MiB]] as [number, number][] };
  const from = source(new Uint8Array(MiB));
  for (const operation of ["write", "datasync", "truncate"] as const) {
    disk.inject({ operation, times: 1, effect: { kind: "error", code: "ENOSPC" } });
    await assert.rejects(copier.copy({ from, ...request }), { code: "ENOSPC" }, operation);
    assert.deepEqual(await memory.list("/"), [], operation);
  }
  const broken = { read: () => Promise.reject(new Error("unreadable")) };
  await assert.rejects(copier.copy({ from: broken, ...request }), /unreadable/);
  const ended = AbortSignal.abort(new Error("ended"));
  await assert.rejects(copier.copy({ from, signal: ended, ...request }), /ended/);
  assert.deepEqual(await memory.list("/"), []);
});
