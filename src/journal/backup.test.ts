/** Backups and what is begun from them, over a disk in memory. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { KiB } from "../base/units.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { BackupWriter, openBackup } from "./backup.ts";
import { compareJournals } from "./compare.ts";
import { formatJournal } from "./format.ts";
import type { Entry } from "./journal.ts";
import { ListMachine } from "./list-machine.ts";
import { LocalJournal } from "./local-journal.ts";
import { backupSource, restoreJournal, survivorSource } from "./restore.ts";
import { defaultWalLimits } from "./wal.ts";

const clock = new NodeClock();
const logger = silentLogger;
const oldCluster = "old" as ClusterId;
const newCluster = "new" as ClusterId;
const from = "/data/old/journal";
const to = "/data/new/journal";
const place = "/backup";
const segmentBytes = 16 * KiB;

async function opened(disk: MemoryDisk, directory: string, clusterId: ClusterId) {
  const machine = new ListMachine(disk);
  const journal = new LocalJournal({
    disk,
    clock,
    logger,
    metrics: new Metrics(),
    directory,
    machine,
    clusterId,
    bootId: "boot",
    limits: { wal: { ...defaultWalLimits, segmentBytes, reserveBytes: 0 } },
    onFatal: (error) => assert.fail(error),
  });
  await journal.start();
  return { journal, machine };
}

/** A journal with a checkpoint after 40 entries and 60 more behind it, closed. */
async function recorded(): Promise<{ readonly disk: MemoryDisk; readonly texts: readonly string[] }> {
  const disk = new MemoryDisk();
  await formatJournal({ disk, clock, directory: from, clusterId: oldCluster, segmentBytes });
  const { journal, machine } = await opened(disk, from, oldCluster);
  const propose = async (first: number, last: number): Promise<void> => {
    for (let n = first; n <= last; n++) await journal.propose(Buffer.from(`${n} ${"x".repeat(300)}`));
  };
  await propose(1, 40);
  await journal.checkpoint();
  await propose(41, 100);
  await backUp(disk, journal, machine);
  await journal.close();
  return { disk, texts: machine.list.map(({ text }) => text) };
}

async function backUp(disk: MemoryDisk, journal: LocalJournal<string>, machine: ListMachine): Promise<void> {
  const checkpoint = journal.checkpoints.at(-1);
  assert.ok(checkpoint);
  const { index, term, digest, bytes, xxh64 } = checkpoint;
  const toIndex = machine.applied.index;
  const writer = new BackupWriter({ disk, directory: place });
  const about = { index, term, digest, bytes, xxh64 };
  await writer.begin({ clusterId: oldCluster, master: "m1", createdMs: 1, checkpoint: about, toIndex });
  const state = new Uint8Array(bytes);
  const file = await disk.open(checkpoint.path, "read");
  await file.read(state, 0);
  await file.close();
  await writer.state(state.subarray(0, 100));
  await writer.state(state.subarray(100));
  const stop = new AbortController();
  const entries: Entry[] = [];
  for await (const entry of journal.committed(index + 1, stop.signal)) {
    entries.push(entry);
    if (entry.index === toIndex) break;
  }
  stop.abort();
  await writer.entries(entries.slice(0, 7));
  await writer.entries(entries.slice(7));
  await writer.finish();
  await writer.close();
}

test("what is restored from a backup goes on where that ended, in a new cluster", async () => {
  const { disk, texts } = await recorded();
  const source = await backupSource(disk, place);
  const done = await restoreJournal({
    disk,
    clock,
    logger,
    source,
    segmentBytes,
    directory: to,
    clusterId: newCluster,
  });
  assert.equal(done.index, 100);
  const { journal, machine } = await opened(disk, to, newCluster);
  assert.deepEqual(
    machine.list.map(({ text }) => text),
    texts,
  );
  assert.equal((await journal.propose(Buffer.from("next"))).index, 101);
  assert.ok(journal.status().term > done.term);
  await journal.close();
  await assert.rejects(opened(disk, to, oldCluster), { code: "invalid" });
});

test("a moment between the checkpoint and the end can be restored, no other", async () => {
  const { disk, texts } = await recorded();
  const source = await backupSource(disk, place);
  const restore = (toIndex: number) =>
    restoreJournal({ disk, clock, logger, source, segmentBytes, directory: to, clusterId: newCluster, toIndex });
  await assert.rejects(restore(39), { code: "invalid" });
  await assert.rejects(restore(101), { code: "invalid" });
  for (const toIndex of [40, 63]) {
    await restore(toIndex);
    const { journal, machine } = await opened(disk, to, newCluster);
    assert.deepEqual(
      machine.list.map(({ text }) => text),
      texts.slice(0, toIndex),
    );
    await journal.close();
    await disk.removeTree(to);
  }
});

test("the directory of a survivor gives all that is in its log", async () => {
  const { disk, texts } = await recorded();
  const before = await survivorSource(disk, from);
  assert.equal(before.lastIndex, 100);
  await restoreJournal({ disk, clock, logger, source: before, segmentBytes, directory: to, clusterId: newCluster });
  const { journal, machine } = await opened(disk, to, newCluster);
  assert.deepEqual(
    machine.list.map(({ text }) => text),
    texts,
  );
  await assert.rejects(survivorSource(disk, to), { code: "unavailable" }, "a journal in use is left alone");
  await journal.close();
});

test("an unfinished backup is none, and a directory in use is not overwritten", async () => {
  const { disk } = await recorded();
  await disk.unlink(`${place}/backup.json`);
  await assert.rejects(openBackup(disk, place), { code: "not-found" });
  const writer = new BackupWriter({ disk, directory: place });
  const about = { clusterId: oldCluster, master: "m1", createdMs: 1, checkpoint: undefined, toIndex: 0 };
  await assert.rejects(writer.begin(about), { code: "already-exists" });
  const source = await survivorSource(disk, from);
  await assert.rejects(restoreJournal({ disk, clock, logger, source, directory: from, clusterId: newCluster }), {
    code: "already-exists",
  });
});

test("a backup that arrives cut or changed is refused when it is finished", async () => {
  const disk = new MemoryDisk();
  const checkpoint = { index: 5, term: 1, digest: "d", bytes: 10, xxh64: "0".repeat(16) };
  const about = { clusterId: oldCluster, master: "m1", createdMs: 1, toIndex: 6 };
  const short = new BackupWriter({ disk, directory: "/short" });
  await short.begin({ ...about, checkpoint });
  await short.state(new Uint8Array(9));
  await assert.rejects(short.finish(), { code: "corrupt" });
  const wrong = new BackupWriter({ disk, directory: "/wrong" });
  await wrong.begin({ ...about, checkpoint });
  await wrong.state(new Uint8Array(10));
  await assert.rejects(wrong.finish(), { code: "corrupt" });
  const missing = new BackupWriter({ disk, directory: "/missing" });
  await missing.begin({ ...about, checkpoint: undefined, toIndex: 2 });
  await missing.entries([{ index: 1, term: 1, payload: Buffer.from("a") }]);
  await assert.rejects(missing.finish(), { code: "corrupt" });
  await assert.rejects(missing.entries([{ index: 3, term: 1, payload: Buffer.from("c") }]), { code: "internal" });
});

test("every flipped byte of a backup is found, and nothing is left where it was to be restored", async () => {
  const { disk } = await recorded();
  await disk.makeDirectory("/data/new");
  for (const name of ["backup.json", "state", "log"]) {
    const path = `${place}/${name}`;
    const { sizeBytes } = await disk.stat(path);
    const step = Math.max(1, Math.floor(sizeBytes / 97));
    for (let offset = 0; offset < sizeBytes; offset += step) {
      await flip(disk, path, offset);
      const restored = backupSource(disk, place).then((source) =>
        restoreJournal({ disk, clock, logger, source, segmentBytes, directory: to, clusterId: newCluster }),
      );
      const outcome = await restored.catch((error: unknown) => error);
      await flip(disk, path, offset);
      assert.ok(isHeadpondError(outcome, "corrupt"), `${name}, offset ${offset}: ${String(outcome)}`);
      assert.deepEqual(await disk.list("/data/new"), []);
    }
  }
});

test("two journals are compared entry by entry, and the first difference is shown", async () => {
  const { disk } = await recorded();
  const source = await backupSource(disk, place);
  await restoreJournal({ disk, clock, logger, source, segmentBytes, directory: to, clusterId: oldCluster });
  const describe = (payload: Uint8Array): string => Buffer.from(payload).toString().slice(0, 8);
  const same = await compareJournals(disk, from, to, describe);
  assert.deepEqual(same.differences, []);
  assert.deepEqual(same.compared, { fromIndex: 41, toIndex: 100 });
  assert.deepEqual(same.checkpoints, [40]);
  const { journal: left } = await opened(disk, from, oldCluster);
  const { journal: right } = await opened(disk, to, oldCluster);
  for (let n = 0; n < 3; n++) {
    await left.propose(Buffer.from(`both ${n}`));
    await right.propose(Buffer.from(n === 1 ? "other" : `both ${n}`));
  }
  await left.close();
  await right.close();
  const { differences } = await compareJournals(disk, from, to, describe);
  assert.deepEqual(differences, [{ index: 102, what: "command", left: "both 1", right: "other" }]);
});

async function flip(disk: MemoryDisk, path: string, offset: number): Promise<void> {
  const file = await disk.open(path, "write");
  const byte = new Uint8Array(1);
  await file.read(byte, offset);
  await file.write(Uint8Array.of((byte[0] as number) ^ 0x20), offset);
  await file.close();
}
