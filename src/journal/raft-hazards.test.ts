import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { FaultyDisk } from "../io/faulty-disk.ts";
import { quickRaft, RaftGroup, type RaftGroupOptions } from "../testing/raft-group.ts";
import { RunningClock } from "../testing/running-clock.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);
const random = new Random(seed);
const payload = (text: string): Uint8Array => new TextEncoder().encode(text);

async function withGroup(
  run: (group: RaftGroup, clock: RunningClock) => Promise<void>,
  options: Partial<RaftGroupOptions> & { readonly start?: boolean } = {},
): Promise<void> {
  const clock = new RunningClock();
  const { start = true, ...rest } = options;
  const made = { clock, random, ...rest };
  const group = start ? await RaftGroup.start(made) : new RaftGroup(made);
  try {
    await run(group, clock);
  } catch (error) {
    // What hangs in a failed test must not hide why it failed.
    console.log(error);
    throw error;
  } finally {
    await group.closeAll();
    clock.stop();
  }
}

/** What became of a promise by now. */
function watch(promise: Promise<unknown>): { outcome: string } {
  const watched = { outcome: "waits" };
  promise.then(
    () => (watched.outcome = "resolved"),
    (error: unknown) => (watched.outcome = isHeadpondError(error) ? error.code : String(error)),
  );
  return watched;
}

test("hazard 17: a learner that was never reached is not made a voter, however short the log is", async () => {
  await withGroup(
    async (group, clock) => {
      const leader = await group.described();
      await leader.journal.cluster.changeMembers({ kind: "add", id: "m2", address: "m2:1" });
      const giveUp = new AbortController();
      const promoting = watch(leader.journal.cluster.changeMembers({ kind: "promote", id: "m2" }, giveUp.signal));
      await clock.sleep(1000);
      assert.equal(promoting.outcome, "waits");
      assert.deepEqual(leader.journal.configuration.voters, ["m1"]);
      await leader.journal.propose(payload("goes on"));
      giveUp.abort(new Error("given up"));
      await clock.sleep(50);
      assert.equal(promoting.outcome, "Error: given up");
      await leader.journal.propose(payload("still goes on"));
    },
    { ids: ["m1"] },
  );
});

test("hazard 27: the first failed flush ends a standby, which acknowledges nothing any more; the others go on", async () => {
  await withGroup(async (group, clock) => {
    const leader = await group.leader();
    const standby = group.masters.find(({ id }) => id !== leader.id);
    assert.ok(standby !== undefined);
    await group.kill(standby.id);
    let faulty: FaultyDisk | undefined;
    const again = await group.open(standby.id, { wrap: (disk) => (faulty = new FaultyDisk({ disk, clock })) });
    await leader.journal.propose(payload("before"));
    await group.settled();
    faulty?.inject({ operation: "datasync", path: ".wal", times: 1, effect: { kind: "error", code: "EIO" } });
    await leader.journal.propose(payload("meets the fault"));
    await group.until("the standby is at its end", 5000, () => again.fatal.length > 0);
    const applied = again.machine.list.length;
    for (let i = 0; i < 20; i++) await leader.journal.propose(payload(`after ${i}`));
    await clock.sleep(500);
    assert.deepEqual([again.fatal.length, again.machine.list.length], [1, applied]);
    assert.equal(leader.journal.cluster.members().find(({ id }) => id === leader.id)?.leader, true);
    await group.kill(standby.id, true);
    await group.open(standby.id);
    await group.settled();
  });
});

test("hazard 27: a leader whose flush fails answers unknown, and what it had acknowledged lives on at the next one", async () => {
  await withGroup(
    async (group, clock) => {
      for (const id of group.ids) await group.format(id);
      const disks = new Map<string, FaultyDisk>();
      const wrap = (id: string) => ({
        wrap: (disk: ConstructorParameters<typeof FaultyDisk>[0]["disk"]) => {
          const faulty = new FaultyDisk({ disk, clock });
          disks.set(id, faulty);
          return faulty;
        },
      });
      await Promise.all(group.ids.map((id) => group.open(id, wrap(id))));
      const leader = await group.leader();
      await leader.journal.propose(payload("acknowledged"));
      disks
        .get(leader.id)
        ?.inject({ operation: "datasync", path: ".wal", times: 1, effect: { kind: "error", code: "EIO" } });
      const inDoubt = watch(leader.journal.propose(payload("in doubt")));
      await group.until("the leader is at its end", 5000, () => leader.fatal.length > 0);
      await clock.sleep(1);
      assert.ok(["unknown-outcome", "resolved"].includes(inDoubt.outcome), inDoubt.outcome);
      assert.equal(leader.journal.role, "standby");
      await assert.rejects(leader.journal.propose(payload("later")), { code: "unavailable" });
      await group.kill(leader.id, true);
      const next = await group.leader();
      await next.journal.propose(payload("next"));
      await group.open(leader.id);
      await group.settled();
      assert.ok(next.machine.list.some(({ text }) => text === "acknowledged"));
    },
    { start: false },
  );
});

test("hazard 11: a leader whose disk hangs is replaced within a few election timeouts, and follows when it is back", async () => {
  await withGroup(
    async (group, clock) => {
      for (const id of group.ids) await group.format(id);
      const disks = new Map<string, FaultyDisk>();
      await Promise.all(
        group.ids.map((id) =>
          group.open(id, {
            wrap: (disk) => {
              const faulty = new FaultyDisk({ disk, clock });
              disks.set(id, faulty);
              return faulty;
            },
          }),
        ),
      );
      const leader = await group.leader();
      let unhang = (): void => {};
      const hung = new Promise<void>((resolve) => (unhang = resolve));
      disks.get(leader.id)?.inject({ operation: "datasync", path: ".wal", effect: { kind: "hang", until: hung } });
      const beganMs = clock.monotonicMs();
      const inDoubt = watch(leader.journal.propose(payload("in doubt")));
      const next = await group.until("another one leads", 5000, () =>
        group.masters.find((master) => master !== leader && master.journal.role === "leader"),
      );
      assert.ok(
        clock.monotonicMs() - beganMs <= 5 * quickRaft.electionTimeoutMs,
        `${clock.monotonicMs() - beganMs} ms`,
      );
      // A majority has it without its disk, or nobody will say so: never a refusal.
      await group.until("it is answered", 1000, () => inDoubt.outcome !== "waits");
      assert.ok(["unknown-outcome", "resolved"].includes(inDoubt.outcome), inDoubt.outcome);
      assert.equal(leader.journal.mayRead, false);
      await next.journal.propose(payload("next"));
      unhang();
      disks.get(leader.id)?.heal();
      await group.settled();
      for (const { fatal } of group.masters) assert.deepEqual(fatal, []);
    },
    { start: false },
  );
});

test("a voter whose disk was wiped neither votes nor stands: with one other it makes no majority", async () => {
  await withGroup(async (group, clock) => {
    const leader = await group.described();
    await leader.journal.propose(payload("acknowledged"));
    await group.settled();
    const [wiped, witness] = group.masters.filter(({ id }) => id !== leader.id).map(({ id }) => id) as [string, string];
    // The witness misses an entry that the wiped one had acknowledged.
    await group.kill(witness);
    await leader.journal.propose(payload("on two disks"));
    await group.kill(wiped);
    await group.format(wiped);
    await group.kill(leader.id);
    await group.open(witness);
    await group.open(wiped);
    await clock.sleep(20 * quickRaft.electionTimeoutMs);
    assert.deepEqual(
      group.masters.map(({ journal }) => journal.role),
      ["standby", "standby"],
      group.describe(),
    );
    await group.open(leader.id);
    const again = await group.leader();
    assert.ok(again.machine.list.some(({ text }) => text === "on two disks"));
  });
});

test("hazard 10: a leader that is cut off serves no read beyond its lease, and its proposals are answered when it is back", async () => {
  await withGroup(async (group, clock) => {
    const old = await group.leader();
    await old.journal.propose(payload("x=1"));
    group.network.isolate(old.id);
    const next = await group.until("another one leads", 5000, () =>
      group.masters.find((master) => master !== old && master.journal.role === "leader"),
    );
    await next.journal.propose(payload("x=2"));
    assert.equal(old.journal.mayRead, false);
    const barrier = watch(old.journal.readBarrier());
    await clock.sleep(300);
    assert.notEqual(barrier.outcome, "resolved");
    assert.equal(old.journal.role, "standby");
    group.network.heal();
    await group.settled();
    for (const { fatal } of group.masters) assert.deepEqual(fatal, []);
  });
});
