import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { MemorySharedStore } from "../testing/memory-shared-store.ts";
import { RunningClock } from "../testing/running-clock.ts";
import { SharedGroup, type SharedMaster, sharedDirectory } from "../testing/shared-group.ts";
import { compareLogs } from "./compare.ts";
import { SharedLogAtRest } from "./shared-inspect.ts";
import { epochName, recordName, slotName } from "./shared-names.ts";
import { discardSharedState } from "./shared-repair.ts";
import { restoreSharedJournal, sharedSource } from "./shared-restore.ts";
import type { SharedStore } from "./shared-store.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);
const { signal } = new AbortController();
const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Twelve entries in three epochs, with three checkpoints; nothing runs. */
async function withLog(run: (group: SharedGroup, clock: RunningClock) => Promise<void>): Promise<void> {
  const clock = new RunningClock();
  const group = new SharedGroup({ clock, random: new Random(seed), ids: ["m1"] });
  try {
    await group.format("m1");
    for (let round = 0; round < 3; round++) {
      const { journal } = await group.open("m1");
      await group.leader();
      for (let n = 0; n < 4; n++) await journal.propose(encode(`${round} ${n}`));
      if (round < 2) await journal.checkpoint();
      await group.close("m1");
    }
    await run(group, clock);
  } finally {
    await group.killAll();
    clock.stop();
  }
}

function logOf(group: SharedGroup, store: SharedStore = group.store.view()): Promise<SharedLogAtRest> {
  return SharedLogAtRest.open({ store, clock: group.clock, signal });
}

async function textsOf(log: SharedLogAtRest, from: number): Promise<string[]> {
  const texts: string[] = [];
  for await (const piece of log.entries(from)) {
    for (const { payload } of piece) texts.push(Buffer.from(payload).toString("utf8"));
  }
  return texts;
}

test("status, entries and dump of a shared log at rest are what was written", () =>
  withLog(async (group) => {
    const log = await logOf(group);
    const { clusterId, epoch, firstIndex, lastIndex, checkpointIndex } = await log.status();
    assert.deepEqual([clusterId, epoch, firstIndex, lastIndex, checkpointIndex], ["group", 3, 5, 12, 8]);
    assert.deepEqual(await textsOf(log, 5), ["1 0", "1 1", "1 2", "1 3", "2 0", "2 1", "2 2", "2 3"]);
    assert.deepEqual(await textsOf(log, 11), ["2 2", "2 3"]);
    await assert.rejects(textsOf(log, 1), (error) => isHeadpondError(error, "compacted"));
    const records: string[] = [];
    for await (const { type, index, term, file } of log.dump(8)) records.push(`${type} ${term}/${index} ${file}`);
    assert.deepEqual(records, [
      `entry 2/8 ${slotName({ epoch: 2, slot: 4 })}`,
      `seal 2/9 ${slotName({ epoch: 2, slot: 5 })}`,
      ...[9, 10, 11, 12].map((index) => `entry 3/${index} ${slotName({ epoch: 3, slot: index - 8 })}`),
      `seal 3/13 ${slotName({ epoch: 3, slot: 5 })}`,
    ]);
    const empty = new MemorySharedStore().view();
    await assert.rejects(logOf(group, empty), (error) => isHeadpondError(error, "not-found"));
  }));

test("verify finds each flipped byte of each object that matters, and names it", () =>
  withLog(async (group) => {
    const disk = new MemoryDisk();
    const store = group.store.view({ disk });
    const report = await (await logOf(group, store)).verify(disk, "/scratch");
    assert.deepEqual(report.findings, []);
    assert.deepEqual([report.ok, report.entries, report.segments, report.lastIndex], [true, 8, 11, 12]);
    const random = new Random(seed);
    for (const [name, object] of group.store.objects) {
      if (name === "cluster") continue;
      // Each byte of the fixed part, and some behind it.
      for (let n = 0; n < 20; n++) {
        const at = n < 16 && !name.startsWith("states/") ? n : random.between(0, object.length - 1);
        const original = object[at] ?? 0;
        object[at] = original ^ (1 << random.between(0, 7));
        const damaged = await logOf(group, store).then(
          (log) => log.verify(disk, "/scratch"),
          (error: unknown) => error,
        );
        // A damaged record of a checkpoint is met before anything else can be looked at.
        const text = isHeadpondError(damaged) ? damaged.message : (damaged as typeof report).findings.join("\n");
        assert.ok(text.includes(name), `${name} at ${at}: ${text}`);
        assert.ok(isHeadpondError(damaged) || !(damaged as typeof report).ok);
        object[at] = original;
      }
    }
  }));

test("verify notes what deposed primaries left behind seals, and misses claims", () =>
  withLog(async (group) => {
    const disk = new MemoryDisk();
    const store = group.store.view({ disk });
    const stray = group.store.objects.get(slotName({ epoch: 2, slot: 4 })) as Buffer;
    group.store.objects.set(slotName({ epoch: 2, slot: 9 }), stray);
    const noted = await (await logOf(group, store)).verify(disk, "/scratch");
    assert.equal(noted.ok, true);
    assert.match(noted.findings.join("\n"), /behind the seal .*: no part of the log/);
    group.store.objects.delete(epochName(2));
    const missing = await (await logOf(group, store)).verify(disk, "/scratch");
    assert.equal(missing.ok, false);
    assert.match(missing.findings.join("\n"), /no claim of epoch 2/);
  }));

test("a shared log is restored into a new store as of any index, and goes on from there", () =>
  withLog(async (group, clock) => {
    for (const toIndex of [8, 10, 12, undefined]) {
      const disk = new MemoryDisk();
      const log = await logOf(group);
      const source = await sharedSource(log, group.store.view({ disk }), "/state", signal);
      const restored = new SharedGroup({ clock, random: new Random(seed), ids: ["m1"] });
      const clusterId = "group" as ClusterId;
      const store = restored.store.view({ disk });
      const options = { disk, clock, source, store, clusterId, mark: "00ff", signal };
      const done = await restoreSharedJournal(toIndex === undefined ? options : { ...options, toIndex });
      assert.equal(done.index, toIndex ?? 12);
      assert.ok(done.term > 3 || toIndex === 8, `term ${done.term}`);
      await assert.rejects(restoreSharedJournal(options), (error) => isHeadpondError(error, "already-exists"));
      await restored.format("m1");
      const master: SharedMaster = await restored.open("m1");
      await restored.leader();
      const all = [0, 1, 2].flatMap((round) => [0, 1, 2, 3].map((n) => `${round} ${n}`));
      assert.deepEqual(
        master.machine.list.map(({ text }) => text),
        all.slice(0, toIndex ?? 12),
      );
      assert.equal((await master.journal.propose(encode("behind"))).index, (toIndex ?? 12) + 1);
      assert.ok(master.journal.status().term > done.term);
      const comparison = await compareLogs(await log.atRest(), await (await logOf(restored)).atRest(), (payload) =>
        Buffer.from(payload).toString("utf8"),
      );
      // Terms are the new log's own; the commands are the same.
      for (const { what } of comparison.differences) assert.equal(what, "term");
      await restored.killAll();
      assert.deepEqual((await (await logOf(restored, store)).verify(disk, "/scratch")).findings, []);
    }
    const disk = new MemoryDisk();
    const source = await sharedSource(await logOf(group), group.store.view({ disk }), "/state", signal);
    const store = new MemorySharedStore().view({ disk });
    const clusterId = "new" as ClusterId;
    await assert.rejects(
      restoreSharedJournal({ disk, clock, source, store, clusterId, mark: "00", signal, toIndex: 7 }),
      (error) => isHeadpondError(error, "invalid"),
    );
  }));

test("two shared logs that differ in a command are told apart at the entry", () =>
  withLog(async (group) => {
    const other = new MemorySharedStore();
    for (const [name, object] of group.store.objects) other.objects.set(name, Buffer.from(object));
    const describe = (payload: Uint8Array): string => Buffer.from(payload).toString("utf8");
    const left = await (await logOf(group)).atRest();
    const same = await compareLogs(left, await (await logOf(group, other.view())).atRest(), describe);
    assert.deepEqual(same.differences, []);
    assert.deepEqual(
      [same.compared, same.checkpoints, same.sameCluster],
      [{ fromIndex: 5, toIndex: 12 }, [4, 8], true],
    );
  }));

test("a master whose state is thrown away by a repair takes it from the store", () =>
  withLog(async (group) => {
    const disk = group.disk("m1");
    let isRemoved = false;
    const removeState = async (): Promise<void> => void (isRemoved = true);
    assert.equal(await discardSharedState({ disk, directory: sharedDirectory, removeState }), true);
    assert.ok(isRemoved);
    const state = [{ index: 1, term: 1, text: "wrong" }];
    const master = await group.open("m1", { state });
    assert.equal(master.machine.list.length, 12);
    assert.equal(master.machine.list[0]?.text, "0 0");
    await assert.rejects(discardSharedState({ disk, directory: sharedDirectory, removeState }), (error) =>
      isHeadpondError(error, "unavailable"),
    );
    assert.ok(group.store.objects.has(recordName(2)));
  }));
