import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import type { Disk } from "../io/disk.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { type JournalHarness, journalContract } from "./contract.ts";
import { formatJournal } from "./format.ts";
import { ListMachine } from "./list-machine.ts";
import { LocalJournal } from "./local-journal.ts";
import { mortalDisk } from "./mortal-disk.ts";
import { defaultWalLimits } from "./wal.ts";

const clock = new NodeClock();
const clusterId = "contract" as ClusterId;
const segmentBytes = 16 * KiB;

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);
const random = new Random(seed);

async function harnessOn(
  real: Disk,
  directory: string,
  crash: () => void,
  dispose: () => Promise<void>,
): Promise<JournalHarness> {
  await formatJournal({ disk: real, clock, directory, clusterId, segmentBytes });
  let opened: LocalJournal<string> | undefined;
  let kill = async (): Promise<void> => {};
  return {
    async open(onRole) {
      const mortal = mortalDisk(real);
      kill = mortal.kill;
      const { disk } = mortal;
      const machine = new ListMachine(disk);
      const journal = new LocalJournal({
        disk,
        clock,
        logger: silentLogger,
        metrics: new Metrics(),
        directory,
        machine,
        limits: {
          wal: { ...defaultWalLimits, segmentBytes, reserveBytes: 0 },
          restMs: 1,
          feed: { maxEntries: 64, maxBytes: 8 * KiB },
        },
        onFatal: () => {},
      });
      if (onRole !== undefined) journal.onRoleChange(onRole);
      await journal.start();
      opened = journal;
      return { journal, machine };
    },
    async crash() {
      const killed = kill();
      crash();
      await killed;
      // The dead journal meets EIO and ends; what it does to its promises no longer counts.
      await opened?.close().catch(() => {});
    },
    dispose,
  };
}

for (const { name, run } of journalContract(
  "local journal on a disk that crashes",
  async () => {
    const disk = new MemoryDisk();
    return harnessOn(
      disk,
      "/journal",
      () => disk.crash({ random }),
      async () => {},
    );
  },
  random,
)) {
  test(name, run);
}

for (const { name, run } of journalContract(
  "local journal on real files",
  async () => {
    const root = await mkdtemp(join(tmpdir(), "headpond-journal-"));
    return harnessOn(
      new NodeDisk(),
      join(root, "journal"),
      () => {},
      () => rm(root, { recursive: true }),
    );
  },
  random,
)) {
  test(name, run);
}
