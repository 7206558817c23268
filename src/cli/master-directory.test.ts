import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { PacedCopier } from "../io/paced-copy.ts";
import { readMeta } from "../journal/journal-meta.ts";
import { LocalJournal } from "../journal/local-journal.ts";
import { mortalDisk } from "../journal/mortal-disk.ts";
import { encodeCommand } from "../namespace/command-codec.ts";
import { LmdbStore } from "../namespace/lmdb-store.ts";
import { Namespace } from "../namespace/namespace.ts";
import { formatMaster, isEmpty, journalDirectory, stateDirectory } from "./master-directory.ts";

const journal = { type: "local", clusterId: "c1" as ClusterId } as const;

test("the root of a new file system is an empty directory, one with somebody's files is not", async () => {
  const disk = new MemoryDisk();
  const clock = new NodeClock();
  await disk.makeDirectory("/new/lost+found");
  assert.ok(await isEmpty(disk, "/new"));
  await formatMaster({ disk, clock, directory: "/new", journal });
  await disk.makeDirectory("/used/photos");
  assert.ok(!(await isEmpty(disk, "/used")));
  await assert.rejects(formatMaster({ disk, clock, directory: "/used", journal }), {
    code: "already-exists",
    message: /\/used is not empty \(photos\)/,
  });
});

test("a format that a crash cut short is made again, and never takes what is there for a journal", async () => {
  const clock = new NodeClock();
  const segmentBytes = 64 * KiB;
  let isFinished = false;
  for (let steps = 1; !isFinished; steps++) {
    const disk = new MemoryDisk();
    const { disk: mortal, kill } = mortalDisk(disk, steps);
    isFinished = await formatMaster({ disk: mortal, clock, directory: "/m", journal, segmentBytes }).then(
      () => true,
      () => false,
    );
    await kill();
    disk.crash({ random: new Random(steps) });
    if (await isEmpty(disk, "/m").catch(() => true))
      await formatMaster({ disk, clock, directory: "/m", journal, segmentBytes });
    assert.equal((await readMeta(disk, "/m/journal")).clusterId, "c1", `killed at step ${steps}`);
  }
});

test("all that a master keeps, its log, checkpoints, state and locks, can be read by its owner only", async () => {
  const root = await mkdtemp(join(tmpdir(), "headpond-master-"));
  const clock = new NodeClock();
  try {
    const disk = new NodeDisk({ isPrivate: true });
    const directory = `${root}/master`;
    await formatMaster({ disk, clock, directory, journal, segmentBytes: 64 * KiB });
    const copier = new PacedCopier({ disk, clock });
    const namespace = new Namespace({
      store: await LmdbStore.open({ directory: stateDirectory(directory), disk, copier }),
    });
    const local = new LocalJournal({
      disk,
      clock,
      logger: silentLogger,
      metrics: new Metrics(),
      directory: journalDirectory(directory),
      machine: namespace,
      onFatal: () => {},
    });
    await local.start();
    await local.propose(encodeCommand({ kind: "set-feature-level", level: 1, timeMs: 1 }));
    await local.checkpoint();
    let seen = 0;
    for (const name of [".", ...(await readdir(directory, { recursive: true }))]) {
      const about = await stat(join(directory, name));
      assert.equal(about.mode & 0o777, about.isDirectory() ? 0o700 : 0o600, name);
      seen++;
    }
    assert.ok(seen >= 10, `${seen} files`);
    await local.close();
    await namespace.close();
  } finally {
    await rm(root, { recursive: true });
  }
});
