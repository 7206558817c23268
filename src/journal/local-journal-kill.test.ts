/** Real processes, real files, kill -9. This file is also the child: started with `child DIRECTORY LIFE`. */

import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { formatJournal } from "./format.ts";
import { verifyJournal } from "./inspect.ts";
import { ListMachine } from "./list-machine.ts";
import { LocalJournal } from "./local-journal.ts";
import { defaultWalLimits } from "./wal.ts";

const disk = new NodeDisk();
const clock = new NodeClock();
const segmentBytes = 256 * KiB;
const rounds = 10;

function journalAt(directory: string): { journal: LocalJournal<string>; machine: ListMachine } {
  const machine = new ListMachine(disk);
  const journal = new LocalJournal({
    disk,
    clock,
    logger: silentLogger,
    metrics: new Metrics(),
    directory,
    machine,
    limits: { wal: { ...defaultWalLimits, segmentBytes, reserveBytes: 0 }, checkpointEveryEntries: 3000 },
    onFatal: (error) => {
      throw error;
    },
  });
  return { journal, machine };
}

/** Proposes for ever, 32 at once, and writes each acknowledged index and text to the pipe. */
async function child(directory: string, life: string): Promise<never> {
  const { journal } = journalAt(directory);
  await journal.start();
  process.stdout.write("ready\n");
  let next = 0;
  const proposer = async (): Promise<never> => {
    for (;;) {
      const text = `life ${life} command ${next++} ${"k".repeat(next % 300)}`;
      const { index } = await journal.propose(Buffer.from(text, "utf8"));
      // Synchronously, or the kill could take acknowledgements with it that nobody has seen: that would prove less.
      process.stdout.write(`${index} ${text}\n`);
    }
  };
  await Promise.all(Array.from({ length: 32 }, proposer));
  throw new Error("never");
}

type Child = {
  readonly process: ChildProcessByStdio<null, Readable, null>;
  readonly lines: string[];
  readonly ready: Promise<void>;
};

function spawnChild(directory: string, life: number): Child {
  const arguments_ = [import.meta.filename, "child", directory, String(life)];
  const spawned = spawn(process.execPath, arguments_, { stdio: ["ignore", "pipe", "inherit"] });
  const lines: string[] = [];
  let rest = "";
  const ready = new Promise<void>((resolve, reject) => {
    spawned.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      const parts = (rest + chunk).split("\n");
      rest = parts.pop() ?? "";
      lines.push(...parts);
      if (lines.length > 0) resolve();
    });
    spawned.once("exit", (code) => reject(new Error(`the child ended with ${code} before it was ready`)));
  });
  return { process: spawned, lines, ready };
}

async function kill(spawned: Child): Promise<void> {
  const closed = new Promise((resolve) => spawned.process.once("close", resolve));
  spawned.process.kill("SIGKILL");
  await closed;
}

async function killLoop(): Promise<void> {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const root = await mkdtemp(join(tmpdir(), "headpond-kill-"));
  const directory = join(root, "journal");
  try {
    await formatJournal({ disk, clock, directory, clusterId: "kill" as ClusterId, segmentBytes });
    const acknowledged = new Map<number, string>();
    let before: readonly string[] = [];
    for (let life = 1; life <= rounds; life++) {
      const spawned = spawnChild(directory, life);
      await spawned.ready;
      if (life === 1) {
        await assert.rejects(
          journalAt(directory).journal.start(),
          (error) => isHeadpondError(error, "unavailable") && /another process/.test(error.message),
        );
      }
      await sleep(random.between(1, 250));
      await kill(spawned);
      for (const line of spawned.lines.slice(1)) {
        const [index = "", ...text] = line.split(" ");
        acknowledged.set(Number(index), text.join(" "));
      }
      assert.equal((await verifyJournal(disk, directory)).ok, true, `life ${life}`);
      const { journal, machine } = journalAt(directory);
      await journal.start();
      const list = machine.list.map(({ text }) => text);
      assert.deepEqual(list.slice(0, before.length), before, "what was there before is there, in the same order");
      for (const [index, text] of acknowledged)
        assert.equal(list[index - 1], text, `life ${life}, index ${index}, seed ${seed}`);
      assert.equal(new Set(list).size, list.length, "nothing is there twice");
      before = list;
      if (random.chance(0.3)) await journal.checkpoint();
      await journal.close();
    }
    assert.ok(acknowledged.size > 1000, `${acknowledged.size} acknowledged commands`);
  } finally {
    await rm(root, { recursive: true });
  }
}

if (process.argv[2] === "child") await child(String(process.argv[3]), String(process.argv[4]));
else test("kill -9 in a loop loses nothing acknowledged, and a second process is refused meanwhile", killLoop);
