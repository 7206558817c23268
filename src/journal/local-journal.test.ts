import assert from "node:assert/strict";
import { test } from "node:test";
import { type ErrorCode, type HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { formatJournal } from "./format.ts";
import { verifyJournal } from "./inspect.ts";
import { ListMachine } from "./list-machine.ts";
import { LocalJournal, type LocalJournalLimits } from "./local-journal.ts";
import { defaultWalLimits } from "./wal.ts";

const clock = new NodeClock();
const directory = "/data/journal";
const clusterId = "local" as ClusterId;
const segmentBytes = 16 * KiB;
const walLimits = { ...defaultWalLimits, segmentBytes, reserveBytes: 0 };

type Setup = {
  readonly disk?: MemoryDisk;
  readonly machine?: ListMachine;
  readonly bootId?: string;
  readonly limits?: Partial<LocalJournalLimits>;
  readonly clusterId?: ClusterId;
};

async function formatted(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await formatJournal({ disk, clock, directory, clusterId, segmentBytes });
  return disk;
}

type Made = { journal: LocalJournal<string>; machine: ListMachine; disk: MemoryDisk; fatal: HeadpondError[] };

async function make({ disk, machine, bootId = "boot-1", limits = {}, ...rest }: Setup = {}): Promise<Made> {
  const over = disk ?? (await formatted());
  const state = machine ?? new ListMachine(over);
  const fatal: HeadpondError[] = [];
  const journal = new LocalJournal({
    disk: over,
    clock,
    logger: silentLogger,
    metrics: new Metrics(),
    directory,
    machine: state,
    bootId,
    limits: { wal: walLimits, ...limits },
    onFatal: (error) => fatal.push(error),
    ...(rest.clusterId === undefined ? {} : { clusterId: rest.clusterId }),
  });
  return { journal, machine: state, disk: over, fatal };
}

async function started(setup: Setup = {}): Promise<Made> {
  const made = await make(setup);
  await made.journal.start();
  return made;
}

const encode = (text: string): Uint8Array => Buffer.from(text, "utf8");

function fill(journal: LocalJournal<string>, count: number, bytes = 200): Promise<unknown> {
  return Promise.all(Array.from({ length: count }, (_, n) => journal.propose(encode(`${n} ${"f".repeat(bytes)}`))));
}

const coded =
  (code: ErrorCode, pattern = /./) =>
  (error: unknown): boolean =>
    isHeadpondError(error, code) && pattern.test(error.message);

/** As if the process had been killed: the next one sees the same disk, and the lock is free. */
async function abandon({ journal, disk }: Made): Promise<void> {
  const files = new Map<string, Uint8Array>();
  for (const folder of [directory, `${directory}/wal`, `${directory}/checkpoints`]) {
    for (const name of await disk.list(folder)) {
      const path = `${folder}/${name}`;
      const { kind, sizeBytes } = await disk.stat(path);
      if (kind !== "file") continue;
      const bytes = Buffer.alloc(sizeBytes);
      const file = await disk.open(path, "read");
      await file.read(bytes, 0);
      await file.close();
      files.set(path, bytes);
    }
  }
  await journal.close();
  for (const folder of [directory, `${directory}/wal`, `${directory}/checkpoints`]) {
    for (const name of await disk.list(folder))
      if ((await disk.stat(`${folder}/${name}`)).kind === "file") await disk.unlink(`${folder}/${name}`);
  }
  for (const [path, bytes] of files) {
    const file = await disk.open(path, "create");
    await file.write(bytes, 0);
    await file.close();
  }
}

test("a journal that was never formatted, or is another cluster's, is refused", async () => {
  const empty = new MemoryDisk();
  await empty.makeDirectory(directory);
  await assert.rejects((await make({ disk: empty })).journal.start(), coded("not-found", /headpond format/));
  await assert.rejects(
    (await make({ clusterId: "other" as ClusterId })).journal.start(),
    coded("invalid", /cluster local, not other/),
  );
});

test("format refuses a directory that is not empty", async () => {
  const disk = await formatted();
  await assert.rejects(formatJournal({ disk, clock, directory, clusterId }), coded("already-exists", /not empty/));
});

test("a second journal on the same directory is refused until the first one closes", async () => {
  const first = await started();
  await assert.rejects(
    (await make({ disk: first.disk })).journal.start(),
    coded("unavailable", /already in use by another process/),
  );
  await first.journal.close();
  const second = await started({ disk: first.disk });
  await second.journal.close();
});

test("proposals before the start are refused", async () => {
  const { journal } = await make();
  await assert.rejects(journal.propose(encode("early")), coded("unavailable", /not started/));
  await assert.rejects(journal.readBarrier(), coded("unavailable"));
});

test("what is proposed in one turn is flushed and applied as one batch", async () => {
  const { journal, machine } = await started();
  let calls = 0;
  const apply = machine.apply.bind(machine);
  machine.apply = (entries) => {
    calls++;
    return apply(entries);
  };
  await fill(journal, 50, 10);
  assert.equal(calls, 1);
  await journal.close();
});

test("a full queue refuses with overloaded and says when to retry, and nothing is lost", async () => {
  const { journal, machine } = await started({ limits: { maxQueuedEntries: 10 } });
  const outcomes = await Promise.allSettled(Array.from({ length: 25 }, (_, n) => journal.propose(encode(`c${n}`))));
  const refused = outcomes
    .filter((outcome) => outcome.status === "rejected")
    .map(({ reason }) => reason as HeadpondError);
  assert.equal(refused.length, 15);
  assert.ok(
    refused.every(
      (error) => error.code === "overloaded" && error.outcome === "none" && error.details?.["retryAfterMs"] === 100,
    ),
  );
  assert.equal(machine.list.length, 10);
  await fill(journal, 10, 1);
  await journal.close();
});

test("the queue is also limited by bytes", async () => {
  const { journal, machine } = await started({ limits: { maxQueuedBytes: 1000 } });
  const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => journal.propose(new Uint8Array(300))));
  assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 3);
  assert.equal(machine.list.length, 3);
  await journal.propose(new Uint8Array(900));
  await journal.close();
});

test("a full disk refuses with no-space and without a trace, and the journal goes on by itself when there is room", async () => {
  const { journal, machine, disk, fatal } = await started();
  await fill(journal, 10);
  disk.capacityBytes = disk.usedBytes;
  let refusal: HeadpondError | undefined;
  const acknowledged = new Set<string>();
  for (let n = 0; n < 400 && refusal === undefined; n++) {
    const text = `n${n} ${"s".repeat(300)}`;
    await journal.propose(encode(text)).then(
      () => acknowledged.add(text),
      (error: HeadpondError) => {
        refusal = error;
      },
    );
  }
  assert.equal(refusal?.code, "no-space");
  assert.equal(refusal?.outcome, "none");
  assert.equal(machine.list.length, 10 + acknowledged.size);
  assert.ok(acknowledged.size > 20, "the reserve was used first");
  await assert.rejects(journal.propose(encode("s".repeat(300))), coded("no-space"));
  disk.capacityBytes = 2 ** 40;
  await clock.sleep(300);
  await journal.propose(encode("there is room again"));
  assert.deepEqual(fatal, []);
  await journal.close();
  const again = await started({ disk });
  assert.equal(again.machine.list.length, 10 + acknowledged.size + 1);
  await again.journal.close();
});

test("a failed flush makes the outcome unknown, is told once, and refuses everything after", async () => {
  const { journal, machine, disk, fatal } = await started();
  await fill(journal, 5);
  const before = machine.list.length;
  // A crash makes the open files fail.
  disk.crash({ random: new Random(1) });
  const roles: string[] = [];
  journal.onRoleChange((role) => roles.push(role));
  const first = await Promise.allSettled([journal.propose(encode("a")), journal.propose(encode("b"))]);
  for (const outcome of first)
    assert.ok(outcome.status === "rejected" && isHeadpondError(outcome.reason, "unknown-outcome"));
  await assert.rejects(
    journal.propose(encode("c")),
    (error) => isHeadpondError(error, "unavailable") && error.outcome === "none",
  );
  await assert.rejects(journal.readBarrier(), coded("unavailable"));
  assert.deepEqual([fatal.length, roles, journal.role, machine.list.length], [1, ["standby"], "standby", before]);
});

test("a state machine that throws ends the journal, and the outcome is unknown", async () => {
  const { journal, machine, fatal } = await started();
  machine.apply = () => {
    throw new Error("defect");
  };
  await assert.rejects(journal.propose(encode("a")), coded("unknown-outcome"));
  await assert.rejects(journal.propose(encode("b")), coded("unavailable"));
  assert.equal(fatal.length, 1);
});

test("after a killed process the state is trusted, after a reboot it is rebuilt", async () => {
  const first = await started();
  await fill(first.journal, 20);
  await abandon(first);
  const same = await started({ disk: first.disk, machine: first.machine });
  assert.equal(first.machine.resets, 1, "only the first start, of a state that was never marked");
  assert.equal(same.machine.list.length, 20);
  await abandon(same);
  const rebooted = await started({ disk: first.disk, machine: first.machine, bootId: "boot-2" });
  assert.equal(first.machine.resets, 2);
  assert.equal(rebooted.machine.list.length, 20);
  await rebooted.journal.close();
});

test("a state that was flushed and left cleanly is trusted after a reboot; one that cannot flush is not", async () => {
  for (const flushes of [true, false]) {
    const first = await started();
    if (flushes) (first.machine as ListMachine & { flush?: () => Promise<void> }).flush = async () => {};
    await fill(first.journal, 20);
    await first.journal.close();
    const { resets } = first.machine;
    const again = await started({ disk: first.disk, machine: first.machine, bootId: "boot-2" });
    assert.equal(first.machine.resets - resets, flushes ? 0 : 1);
    assert.equal(again.machine.list.length, 20);
    // In use it is unclean again: the next reboot does not trust it.
    await abandon(again);
    const later = await started({ disk: first.disk, machine: first.machine, bootId: "boot-3" });
    assert.equal(first.machine.resets - resets, flushes ? 1 : 2);
    await later.journal.close();
  }
});

test("a trusted state that is ahead of its log proves that the log lost something, and the start is refused", async () => {
  const first = await started();
  await fill(first.journal, 5);
  await abandon(first);
  first.machine.list.push({ index: 6, term: 1, text: "acknowledged" });
  await assert.rejects(
    (await make({ disk: first.disk, machine: first.machine })).journal.start(),
    coded("corrupt", /ends at 5, but the state has applied entries up to 6/),
  );
  const rebooted = await started({ disk: first.disk, machine: first.machine, bootId: "boot-2" });
  assert.equal(rebooted.machine.list.length, 5);
  await rebooted.journal.close();
});

test("when the newest checkpoint is damaged, the older one and its log give the same state", async () => {
  const { journal, machine, disk } = await started();
  for (let round = 0; round < 4; round++) {
    await fill(journal, 60);
    await journal.checkpoint();
  }
  await fill(journal, 7);
  assert.ok(journal.status().firstIndex > 60, "the log was cut");
  const digest = machine.digest();
  await journal.close();
  const names = (await disk.list(`${directory}/checkpoints`)).filter((name) => !name.endsWith(".json")).sort();
  assert.equal(names.length, 2);
  const path = `${directory}/checkpoints/${names[1]}`;
  const file = await disk.open(path, "write");
  await file.write(encode("?"), 100);
  await file.close();
  assert.deepEqual(
    (await verifyJournal(disk, directory)).details.map((finding) => finding.file),
    [path],
  );
  const again = await started({ disk });
  assert.equal(again.machine.digest(), digest);
  await again.journal.close();
});

test("with no sound checkpoint and a cut log the start is refused, and nothing is dropped", async () => {
  const { journal, disk } = await started();
  for (let round = 0; round < 4; round++) {
    await fill(journal, 60);
    await journal.checkpoint();
  }
  await journal.close();
  for (const name of await disk.list(`${directory}/checkpoints`)) await disk.unlink(`${directory}/checkpoints/${name}`);
  await assert.rejects((await make({ disk })).journal.start(), coded("corrupt", /no sound checkpoint/));
  const report = await verifyJournal(disk, directory);
  assert.equal(report.ok, false);
  assert.match(report.findings[0] ?? "", /the oldest checkpoint ends at 0/);
});

test("checkpoints are made by themselves after so many entries or bytes, and bound the log", async () => {
  for (const limits of [{ checkpointEveryEntries: 100 }, { checkpointEveryBytes: 20 * KiB }]) {
    const { journal } = await started({ limits });
    let longest = 0;
    for (let round = 0; round < 40; round++) {
      await fill(journal, 20);
      longest = Math.max(longest, journal.status().bytes);
    }
    await journal.checkpoint();
    assert.ok(journal.status().checkpointIndex >= 700, `checkpoint at ${journal.status().checkpointIndex}`);
    assert.ok(longest <= 14 * segmentBytes, `the log grew to ${longest} bytes`);
    await journal.close();
  }
});

test("a checkpoint that cannot be written loses nothing, and the next one works", async () => {
  const { journal, machine, disk } = await started();
  await fill(journal, 20);
  const write = machine.writeCheckpoint.bind(machine);
  machine.writeCheckpoint = async () => {
    throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
  };
  await assert.rejects(journal.checkpoint(), /ENOSPC/);
  await fill(journal, 20);
  machine.writeCheckpoint = write;
  assert.equal((await journal.checkpoint()).index, 40);
  await journal.close();
  const again = await started({ disk });
  assert.equal(again.machine.list.length, 40);
  await again.journal.close();
});

test("a journal that is closed gives up the checkpoint that is being made, and leaves nothing of it", async () => {
  const { journal, machine, disk } = await started();
  await fill(journal, 20);
  let wasAsked = false;
  machine.writeCheckpoint = (_path, signal) => {
    wasAsked = true;
    return new Promise((_resolve, reject) => signal?.addEventListener("abort", () => reject(signal.reason as Error)));
  };
  const made = journal.checkpoint();
  while (!wasAsked) await new Promise((resolve) => setImmediate(resolve));
  await Promise.all([journal.close(), assert.rejects(made, { code: "cancelled" })]);
  const again = await started({ disk });
  assert.equal(again.machine.list.length, 20);
  await again.journal.close();
});
