import assert from "node:assert/strict";
import fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Path } from "../base/path.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { PacedCopier } from "../io/paced-copy.ts";
import { encodeCommand } from "./command-codec.ts";
import { PageSet, readFreePages, readMeta } from "./lmdb-pages.ts";
import { LmdbStore } from "./lmdb-store.ts";
import { Namespace } from "./namespace.ts";
import { Batch, inodesTable, namesTable, type Store, type Table } from "./store.ts";
import { verifyStore } from "./verify.ts";

const disk = new NodeDisk();

async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await fs.mkdtemp(join(tmpdir(), "headpond-backup-"));
  t.after(() => fs.rm(directory, { recursive: true, force: true }));
  return directory;
}

function copier(bytesPerSecond: number): PacedCopier {
  return new PacedCopier({ disk, clock: new NodeClock(), limits: { pieceBytes: 64 * KiB, bytesPerSecond } });
}

function summary(value: Buffer): string {
  return `${value.length} times ${value.every((byte) => byte === value[0]) ? value[0] : "several"}`;
}

/** All rows of a table, in short. */
function rowsOf(store: Store, table: Table): Map<string, string> {
  const rows = new Map<string, string>();
  store.scan(table, Buffer.alloc(0), (key, value) => {
    rows.set(key.toString(), summary(value));
    return true;
  });
  return rows;
}

async function backedUp(path: string, t: TestContext): Promise<LmdbStore> {
  const directory = await temporaryDirectory(t);
  await fs.copyFile(path, join(directory, "state.mdb"));
  return LmdbStore.open({ directory, disk });
}

test("a backup holds every row of one commit, whatever is written meanwhile, and leaves out what is free", async (t) => {
  const seed = Date.now() & 0xffff;
  t.diagnostic(`seed ${seed}`);
  const random = new Random(seed);
  const directory = await temporaryDirectory(t);
  const store = await LmdbStore.open({ directory, disk, copier: copier(48 * 1024 * KiB) });
  const tables = [new Map<string, string>(), new Map<string, string>()] as const;
  /** What the tables held after each commit of a round. */
  const seen: Map<string, string>[][] = [];
  const write = async (rows: number, removeShare: number): Promise<void> => {
    const batch = new Batch();
    for (let i = 0; i < rows; i++) {
      const key = Buffer.from(`key-${random.between(0, 8000)}`);
      const table = random.chance(0.5) ? inodesTable : namesTable;
      if (random.chance(removeShare)) {
        batch.put(table, key, undefined);
        tables[table].delete(key.toString());
      } else {
        // Some values are longer than a page: they have pages of their own, several in a row.
        const value = Buffer.alloc(random.chance(0.01) ? 20_000 : 100, random.uint32());
        batch.put(table, key, value);
        tables[table].set(key.toString(), summary(value));
      }
    }
    const after = tables.map((table) => new Map(table));
    await store.commit(batch);
    seen.push(after);
  };
  for (let i = 0; i < 10; i++) await write(2000, 0.3);
  let sawHoles = false;
  for (let round = 0; round < 3; round++) {
    const path = join(directory, `copy-${round}`);
    // Commits go on before, in the turn of, and after the beginning: the copy is of one of them.
    seen.splice(0, seen.length - 1);
    const writing = write(1000, round < 2 ? 0.3 : 0.9);
    let done = false;
    const copied = store.backup(path).finally(() => {
      done = true;
    });
    await writing;
    for (let i = 0; !done && i < 20; i++) await write(500, 0.7);
    const sum = await copied;
    const { size, blocks } = await fs.stat(path);
    assert.equal(sum?.bytes, size);
    sawHoles ||= blocks * 512 < size - 64 * KiB;
    const copy = await backedUp(path, t);
    const inodes = rowsOf(copy, inodesTable);
    const names = rowsOf(copy, namesTable);
    const match = seen.find((rows) => rows[0]?.size === inodes.size && rows[1]?.size === names.size);
    assert.ok(match, `round ${round}: ${inodes.size} and ${names.size} rows`);
    assert.deepEqual([inodes, names], match);
    // What is free in it is free to be used: a page that was in use after all would be overwritten now.
    const batch = new Batch();
    for (let i = 0; i < 3000; i++) batch.put(inodesTable, Buffer.from(`new-${i}`), Buffer.alloc(300, i));
    await copy.commit(batch);
    assert.deepEqual(rowsOf(copy, namesTable), match[1]);
    await copy.close();
  }
  assert.ok(sawHoles, "no backup left anything out");
  await store.close();
});

test("a checkpoint made by the copier is of one index, although applies go on, and can be continued", async (t) => {
  const directory = await temporaryDirectory(t);
  const store = await LmdbStore.open({ directory, disk, copier: copier(4 * 1024 * KiB) });
  const limits = { flush: { rowsTarget: 50, delayMs: 1, sliceRows: 10, rowsMax: 100_000, retryMs: 1 } };
  const namespace = new Namespace({ store, limits });
  const digests = new Map<number, string>();
  let index = 0;
  const fields = { recursive: true, exclusive: false, mode: 0o755, owner: "o", group: "g", attributes: {} };
  const apply = (to: Namespace, at: number): void => {
    const path = (at % 5 === 0 ? `/d${(at * 7) % 40}` : `/d${at % 40}/e${at}`) as Path;
    const payload = encodeCommand(
      at % 5 === 0
        ? { kind: "remove", timeMs: at, path, recursive: true }
        : { kind: "mkdir", timeMs: at, path, ...fields },
    );
    to.apply([{ index: at, term: 3, payload }]);
  };
  const next = (): void => {
    apply(namespace, ++index);
    digests.set(index, namespace.digest());
  };
  for (let i = 0; i < 2000; i++) next();
  for (let round = 0; round < 3; round++) {
    const path = join(directory, `checkpoint-${round}`);
    let written: Awaited<ReturnType<Namespace["writeCheckpoint"]>> | undefined;
    const done = namespace.writeCheckpoint(path).then((copy) => {
      written = copy;
    });
    while (written === undefined) {
      for (let i = 0; i < 5; i++) next();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await done;
    assert.equal(written.digest, digests.get(written.index), `checkpoint of ${written.index}`);
    assert.notEqual(written.sum, undefined);
    const other = await temporaryDirectory(t);
    const restored = await LmdbStore.open({ directory: other, disk });
    const again = new Namespace({ store: restored });
    await again.reset(path);
    assert.deepEqual(verifyStore(restored), [], `round ${round}`);
    for (let at = written.index + 1; at <= index; at++) apply(again, at);
    assert.equal(again.digest(), namespace.digest());
    await again.close();
  }
  await namespace.close();
});

test("a tree of free pages that is not understood is not used", async (t) => {
  const directory = await temporaryDirectory(t);
  const store = await LmdbStore.open({ directory, disk });
  for (let round = 0; round < 10; round++) {
    const batch = new Batch();
    for (let i = 0; i < 2000; i++) batch.put(inodesTable, Buffer.from(`k${i}`), Buffer.alloc(100, round));
    await store.commit(batch);
  }
  await store.close();
  const file = await fs.readFile(join(directory, "state.mdb"));
  const metas = [readMeta(file), readMeta(file.subarray(4096))];
  const meta = metas.reduce((a, b) => (a && b && b.transaction > a.transaction ? b : a));
  assert.ok(meta?.freeRoot !== undefined);
  const root = meta.freeRoot;
  const free = await readFreePages(reader(file), meta);
  assert.ok(free !== undefined && free.size > 10, `${free?.size} free pages`);
  const node = root * 4096 + 24 + file.readUInt16LE(root * 4096 + 24);
  const data = node + 8 + file.readUInt16LE(node + 6);
  const damages: [string, (copy: Buffer) => void][] = [
    ["another kind of page", (copy) => copy.writeUInt16LE(0x08, root * 4096 + 18)],
    ["more numbers than there is room for", (copy) => copy.writeUInt32LE(100_000, data)],
    ["a number behind the end", (copy) => copy.writeUInt32LE(meta.pageCount, data + 8)],
    ["a meta page", (copy) => copy.writeUInt32LE(1, data + 8)],
    ["a page twice", (copy) => copy.copy(copy, data + 16, data + 8, data + 16)],
    ["a negative count", (copy) => copy.fill(0xff, data, data + 8)],
  ];
  for (const [what, damage] of damages) {
    const copy = Buffer.from(file);
    damage(copy);
    assert.equal(await readFreePages(reader(copy), meta), undefined, what);
  }
  assert.equal(await readFreePages(reader(file), { ...meta, freeRoot: meta.pageCount + 5 }), undefined);
});

test("short gaps are bridged, long ones are left out, also at the end", () => {
  const free = new PageSet(100);
  for (const page of [5, 6, 20, 21, 22, 23, 40, 97, 98, 99]) free.add(page);
  assert.deepEqual(
    [...free.complementRuns(4)],
    [
      [0, 20],
      [24, 73],
    ],
  );
  assert.deepEqual([...free.complementRuns(5)], [[0, 97]]);
  assert.deepEqual([...free.complementRuns(1)].length, 4);
  assert.deepEqual([...new PageSet(7).complementRuns(16)], [[0, 7]]);
});

function reader(file: Buffer): (buffer: Uint8Array, position: number) => Promise<number> {
  return (buffer, position) => {
    const piece = file.subarray(position, position + buffer.length);
    buffer.set(piece);
    return Promise.resolve(piece.length);
  };
}
