import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { RunningClock } from "../testing/running-clock.ts";
import { SharedGroup, type SharedGroupOptions, type SharedMaster } from "../testing/shared-group.ts";
import { claimSharedStore, formatSharedJournal } from "./shared-format.ts";
import { SharedHistory } from "./shared-history.ts";
import { checkpointsPrefix, slotName } from "./shared-names.ts";
import { SharedObjects } from "./shared-objects.ts";
import { SharedRecords } from "./shared-records.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

async function withGroup(
  options: Partial<SharedGroupOptions>,
  run: (group: SharedGroup, clock: RunningClock) => Promise<void>,
  startAll = true,
): Promise<void> {
  const clock = new RunningClock();
  const given = { clock, random: new Random(seed), ...options };
  const group = startAll ? await SharedGroup.start(given) : new SharedGroup(given);
  try {
    await run(group, clock);
  } finally {
    await group.killAll();
    clock.stop();
  }
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

async function write({ journal }: SharedMaster, ...texts: readonly string[]): Promise<void> {
  for (const text of texts) await journal.propose(encode(text));
}

function textsOf({ machine }: SharedMaster): string[] {
  return machine.list.map(({ text }) => text);
}

test("a master that is killed at any call to the store loses nothing acknowledged and hinders nobody", async () => {
  for (let calls = 1; calls <= 60; calls++) {
    await withGroup(
      { ids: ["m1", "m2"], limits: { checkpointEveryEntries: 4 } },
      async (group, clock) => {
        await group.format("m1");
        await group.format("m2");
        const acknowledged: string[] = [];
        const opened = group.open("m1", { calls });
        opened.catch(() => {});
        const mortal = group.master("m1");
        for (let n = 0; n < 12; n++) {
          const text = `n${n}`;
          mortal.journal.propose(encode(text)).then(
            () => acknowledged.push(text),
            () => {},
          );
          await clock.sleep(4);
        }
        await group.kill("m1");
        const next = await group.open("m2");
        await group.leader();
        await write(next, "behind");
        const texts = textsOf(next);
        for (const text of acknowledged)
          assert.equal(texts.filter((one) => one === text).length, 1, `${calls}: ${text}`);
        const again = await group.open("m1");
        await group.settled();
        assert.deepEqual(again.machine.list, next.machine.list, `after ${calls} calls`);
      },
      false,
    );
  }
});

test("a primary that stands still at any call to the store, and goes on when another one leads, loses nothing", async () => {
  for (let at = 1; at <= 30; at++) {
    let calls = 0;
    const hold = { isArmed: false, isOver: false, wasHeld: false };
    await withGroup(
      { ids: ["m1", "m2"] },
      async (group, clock) => {
        await group.format("m1");
        await group.format("m2");
        const wait = async (): Promise<void> => {
          if (!hold.isArmed || ++calls !== at) return;
          hold.wasHeld = true;
          while (!hold.isOver) await clock.sleep(1);
        };
        // Between the effect and the answer, or before the effect.
        const first = await group.open("m1", at % 2 === 0 ? { before: wait } : { after: wait });
        hold.isArmed = true;
        const acknowledged: string[] = [];
        const propose = (master: SharedMaster, text: string): Promise<void> =>
          master.journal.propose(encode(text)).then(
            () => void acknowledged.push(text),
            () => {},
          );
        const ends: Promise<void>[] = [];
        const second = await group.open("m2");
        for (let n = 0; n < 10; n++) {
          ends.push(propose(first, `first ${n}`));
          await clock.sleep(5);
        }
        group.elections.expire("m1");
        await group.until("the second leads", 5000, () => second.journal.role === "leader");
        for (let n = 0; n < 5; n++) ends.push(propose(second, `second ${n}`));
        await clock.sleep(20);
        hold.isOver = true;
        await Promise.all(ends);
        await write(second, "last");
        await group.settled();
        const texts = textsOf(second);
        for (const text of acknowledged) assert.equal(texts.filter((one) => one === text).length, 1, `${at}: ${text}`);
        assert.deepEqual(first.machine.list, second.machine.list, `held at call ${at}`);
      },
      false,
    ).finally(() => {
      hold.isOver = true;
    });
    assert.ok(hold.wasHeld, `call ${at} was made`);
  }
});

test("a full store refuses what was not written, without a trace, and goes on when there is room", () =>
  withGroup(
    { ids: ["m1"] },
    async (group) => {
      await group.format("m1");
      let isFull = false;
      const master = await group.open("m1", { fate: (call) => (isFull && call === "create" ? "no-space" : "works") });
      await group.leader();
      await write(master, "a");
      isFull = true;
      for (let n = 0; n < 3; n++) {
        const error: unknown = await master.journal.propose(encode(`full ${n}`)).catch((thrown: unknown) => thrown);
        assert.ok(isHeadpondError(error, "no-space") && error.outcome === "none", String(error));
      }
      await master.journal.readBarrier();
      isFull = false;
      await group.until("room is found", 5000, async () => {
        await group.clock.sleep(5);
        return master.journal.propose(encode("b")).then(
          () => true,
          () => false,
        );
      });
      assert.deepEqual(
        textsOf(master).filter((text) => text.startsWith("full")),
        [],
      );
      assert.equal(master.journal.role, "leader");
    },
    false,
  ));

test("a primary that cannot reach the store lets another one lead, and answers what is under way as unknown", () =>
  withGroup(
    { ids: ["m1", "m2"] },
    async (group) => {
      await group.format("m1");
      await group.format("m2");
      let isCutOff = false;
      const first = await group.open("m1", { fate: () => (isCutOff ? "fails" : "works") });
      const second = await group.open("m2");
      await group.leader();
      await write(first, "a");
      isCutOff = true;
      const fate: unknown = await first.journal.propose(encode("b")).catch((thrown: unknown) => thrown);
      assert.ok(isHeadpondError(fate, "unknown-outcome"), String(fate));
      await group.until("the second leads", 10_000, () => second.journal.role === "leader");
      await write(second, "c");
      const read: unknown = await first.journal.readBarrier().catch((thrown: unknown) => thrown);
      assert.ok(isHeadpondError(read, "unavailable"), String(read));
      isCutOff = false;
      await group.settled();
      assert.deepEqual(textsOf(first), ["a", "c"]);
    },
    false,
  ));

test("leadership is handed over behind a seal, and nothing that was proposed before is lost", () =>
  withGroup({}, async (group) => {
    const first = await group.leader();
    const before = Array.from({ length: 30 }, (_, n) => first.journal.propose(encode(`n${n}`)));
    await first.journal.cluster.transferLeadership("m3");
    await Promise.all(before);
    const third = group.master("m3");
    await group.until("m3 leads", 5000, () => third.journal.role === "leader");
    assert.equal(first.journal.role, "standby");
    assert.equal(third.machine.list.length, 30);
    // The seal is the first primary's own.
    await write(third, "behind");
    await group.settled();
    await assert.rejects(first.journal.cluster.transferLeadership("m2"), (error) =>
      isHeadpondError(error, "not-leader"),
    );
    await assert.rejects(third.journal.cluster.transferLeadership("m9"), (error) =>
      isHeadpondError(error, "not-found"),
    );
    await assert.rejects(
      third.journal.cluster.changeMembers({ kind: "remove", id: "m1" }),
      (error) => isHeadpondError(error, "unsupported") && /come and go by themselves/.test(error.message),
    );
    assert.deepEqual(
      third.journal.cluster.members().map(({ id, leader }) => [id, leader]),
      group.elections.line.map((id) => [id, id === "m3"]),
    );
  }));

test("a primary that closes ends its epoch: the next one needs to seal nothing", () =>
  withGroup({ ids: ["m1", "m2"] }, async (group) => {
    const first = await group.leader();
    await write(first, "a", "b");
    await group.close("m1");
    const seals = group.store.history.filter((name) => name.startsWith("log/")).length;
    await group.leader();
    assert.equal(group.store.history.filter((name) => name.startsWith("log/")).length, seals);
    await write(group.master("m2"), "c");
    assert.deepEqual(textsOf(group.master("m2")), ["a", "b", "c"]);
  }));

test("a standby serves linearizable reads without a primary, and knows how fresh it is", () =>
  withGroup({}, async (group) => {
    const first = await group.leader();
    await write(first, "a");
    await group.settled();
    for (const { id, election } of group.masters) if (id !== first.id) election.isDeaf = true;
    const second = group.master("m2");
    for (let n = 0; n < 10; n++) {
      const { index } = await first.journal.propose(encode(`n${n}`));
      await second.journal.readBarrier();
      assert.ok(second.machine.applied.index >= index);
    }
    await group.kill(first.id);
    await second.journal.readBarrier();
    const fresh = second.journal.cluster.freshnessMs();
    assert.ok(fresh !== undefined && fresh < 1000, `fresh since ${fresh} ms`);
    assert.equal(second.journal.role, "standby");
  }));

test("what a standby reads may be removed between its look at the checkpoints and its read: it looks again", () =>
  withGroup(
    { ids: ["m1", "m2"] },
    async (group, clock) => {
      await group.format("m1");
      await group.format("m2");
      const first = await group.open("m1");
      await group.leader();
      await write(first, "a");
      const hold = { name: "", isHeld: false };
      const second = await group.open("m2", {
        before: async (call, name) => {
          if (call !== "read" || name !== hold.name) return;
          hold.isHeld = true;
          while (hold.isHeld) await clock.sleep(1);
        },
      });
      await group.settled();
      const { resets } = second.machine;
      // Its next read stands still while the log goes on, is saved twice, and is cut.
      hold.name = slotName({ epoch: 1, slot: 2 });
      const read = second.journal.readBarrier();
      await group.until("it reads", 1000, () => hold.isHeld);
      hold.name = "";
      await write(first, "b");
      await first.journal.checkpoint();
      await write(first, "c");
      await first.journal.checkpoint();
      assert.ok(!group.store.objects.has(slotName({ epoch: 1, slot: 2 })));
      hold.isHeld = false;
      await read;
      assert.ok(second.machine.applied.index >= 1);
      await second.journal.readBarrier();
      assert.deepEqual(textsOf(second), ["a", "b", "c"]);
      assert.equal(second.machine.resets, resets + 1);
    },
    false,
  ));

test("two looks at the checkpoints at once count each record once", () =>
  withGroup({ ids: ["m1"] }, async (group) => {
    const master = await group.leader();
    const objects = new SharedObjects({
      store: group.store.view(),
      clusterId: "group" as ClusterId,
      clock: group.clock,
      random: new Random(seed),
      limits: { retryMinMs: 1, retryMaxMs: 10 },
      onTrouble: () => {},
    });
    const records = new SharedRecords(objects);
    const { signal } = new AbortController();
    for (let n = 0; n < 6; n++) {
      await write(master, `n${n}`);
      await master.journal.checkpoint();
      await Promise.all([records.look(signal), records.look(signal), records.look(signal)]);
      assert.equal(records.newest?.index, n + 1);
      assert.equal(records.before?.index, n === 0 ? undefined : n);
    }
  }));

test("a checkpoint that ends within a slot covers the slot before it", () => {
  const history = new SharedHistory({
    objects: undefined as never,
    records: undefined as never,
    rememberedSlots: 10,
    signal: new AbortController().signal,
  });
  const entry = (index: number) => ({ index, term: 1, payload: new Uint8Array(1) });
  history.add({ epoch: 1, slot: 1, index: 0, entries: [1, 2, 3].map(entry) }, 1);
  history.add({ epoch: 1, slot: 2, index: 3, entries: [4, 5, 6].map(entry) }, 1);
  assert.deepEqual(history.placeOf(3), { epoch: 1, slot: 1 });
  assert.deepEqual(history.placeOf(4), { epoch: 1, slot: 1 });
  assert.deepEqual(history.placeOf(6), { epoch: 1, slot: 2 });
  history.restart({ epoch: 3, slot: 1, index: 6 });
  assert.deepEqual(history.placeOf(6), { epoch: 3, slot: 0 });
});

test("a master whose disk is lost comes back from checkpoint and log, under its own name", () =>
  withGroup({}, async (group) => {
    const first = await group.leader();
    await write(first, "a", "b");
    await group.settled();
    await group.master("m2").journal.checkpoint();
    await write(first, "c");
    await group.kill("m3");
    await group.format("m3");
    const third = await group.open("m3");
    assert.deepEqual(textsOf(third), ["a", "b", "c"]);
    assert.equal(third.journal.checkpoints.at(-1)?.index, 2);
  }));

test("a checkpoint in the store that is damaged is left for the one before", () =>
  withGroup({ ids: ["m1", "m2"] }, async (group) => {
    const first = await group.leader();
    for (let n = 0; n < 3; n++) {
      await write(first, `n${n}`);
      await first.journal.checkpoint();
    }
    await write(first, "behind");
    const states = group.store.names("states/");
    assert.equal(states.length, 2);
    const damaged = group.store.objects.get(states.at(-1) ?? "") as Buffer;
    damaged[3] = (damaged[3] ?? 0) ^ 1;
    await group.kill("m2");
    await group.format("m2");
    const second = await group.open("m2");
    assert.deepEqual(textsOf(second), ["n0", "n1", "n2", "behind"]);
  }));

test("a state that the log does not know is replaced by the log's", () =>
  withGroup(
    { ids: ["m1"] },
    async (group) => {
      await group.format("m1");
      for (const strange of [
        [
          { index: 1, term: 1, text: "other" },
          { index: 2, term: 7, text: "than the log's" },
        ],
        Array.from({ length: 9 }, (_, n) => ({ index: n + 1, term: 1, text: `ahead ${n}` })),
      ]) {
        const master = await group.open("m1");
        await group.leader();
        await write(master, "a");
        const { list } = master.machine;
        const log = [...list];
        await group.close("m1");
        const again = await group.open("m1", { state: strange });
        assert.deepEqual(again.machine.list, log);
        await group.close("m1");
      }
    },
    false,
  ));

test("a state that is part of the log is gone on with, and nothing is applied twice", () =>
  withGroup(
    { ids: ["m1", "m2"] },
    async (group, clock) => {
      await group.format("m1");
      await group.format("m2");
      const first = await group.open("m1");
      await group.leader();
      await write(first, "a", "b", "c");
      // Its place in the log is written down now and then.
      await clock.sleep(300);
      await write(first, "d");
      const state = [...first.machine.list];
      await group.kill("m1");
      const second = await group.open("m2");
      await group.leader();
      await write(second, "e");
      for (const kept of [state, state.slice(0, 3), state.slice(0, 1)]) {
        const again = await group.open("m1", { state: kept });
        assert.deepEqual(textsOf(again), ["a", "b", "c", "d", "e"]);
        assert.equal(again.machine.resets, 0);
        await group.kill("m1");
      }
      // After a restart of the computer it is trusted no more.
      const rebooted = await group.open("m1", { state, bootId: "another boot" });
      assert.deepEqual(textsOf(rebooted), ["a", "b", "c", "d", "e"]);
      assert.equal(rebooted.machine.resets, 1);
    },
    false,
  ));

test("the store of another cluster is refused, by a master and by a format", () =>
  withGroup({ ids: ["m1"] }, async (group) => {
    const { clock } = group;
    const store = group.store.view();
    const other = "other" as ClusterId;
    await assert.rejects(claimSharedStore(store, other, 0), (error) => isHeadpondError(error, "already-exists"));
    await assert.rejects(
      formatSharedJournal({ disk: group.disk("m1"), clock, store, directory: "/other", id: "m9", clusterId: other }),
      (error) => isHeadpondError(error, "already-exists") && /cluster group/.test(error.message),
    );
    assert.equal(await claimSharedStore(store, "group" as ClusterId, 0), false);
    await group.kill("m1");
    group.store.objects.delete("cluster");
    await claimSharedStore(store, other, 0);
    await assert.rejects(
      group.open("m1"),
      (error) => isHeadpondError(error, "invalid") && /cluster other/.test(error.message),
    );
  }));

test("a master whose state differs from the others' finds out, and serves and leads no more", () =>
  withGroup({ limits: { digestEveryEntries: 10 } }, async (group) => {
    const first = await group.leader();
    await write(first, "a", "b");
    await group.settled();
    const third = group.master("m3");
    // A defect: what is in the state is not what was applied.
    third.machine.list[0] = { index: 1, term: 1, text: "not a" };
    await Promise.all(Array.from({ length: 30 }, (_, n) => first.journal.propose(encode(`n${n}`))));
    await group.until("the alarm", 10_000, () => third.diverged.length > 0);
    assert.match(third.diverged[0] ?? "", /m3 differs from the others/);
    await assert.rejects(third.journal.readBarrier(), (error) => isHeadpondError(error, "unavailable"));
    await assert.rejects(third.journal.checkpoint(), (error) => isHeadpondError(error, "unavailable"));
    await group.kill("m1");
    await group.kill("m2");
    await group.clock.sleep(200);
    assert.equal(third.journal.role, "standby");
    assert.deepEqual(group.store.names(checkpointsPrefix), []);
    // Its next life remembers.
    await group.kill("m3");
    const again = await group.open("m3");
    assert.equal(again.diverged.length, 1);
  }));
