import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { Disk } from "../io/disk.ts";
import { FaultyDisk } from "../io/faulty-disk.ts";
import { groupSegmentBytes, type Master, quickRaft, RaftGroup, type RaftGroupOptions } from "../testing/raft-group.ts";
import { RunningClock } from "../testing/running-clock.ts";
import type { Entry } from "./journal.ts";
import { ListMachine } from "./list-machine.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

const three = ["m1", "m2", "m3"];

type Faulty = { readonly group: RaftGroup; readonly disks: ReadonlyMap<string, FaultyDisk>; readonly random: Random };

/** A group whose masters see their disks through faults that can be armed. */
async function withFaults(
  run: (faulty: Faulty) => Promise<void>,
  options: Pick<RaftGroupOptions, "ids" | "limits" | "makeMachine"> & { readonly mayFail?: boolean } = {},
): Promise<void> {
  const random = new Random(seed);
  const clock = new RunningClock();
  const { mayFail = false, ids = three, ...rest } = options;
  const group = new RaftGroup({ clock, random, ids, ...rest });
  const disks = new Map<string, FaultyDisk>();
  try {
    for (const id of ids) await group.format(id);
    const wrap = (id: string) => (disk: Disk) => {
      const faulty = new FaultyDisk({ disk, clock });
      disks.set(id, faulty);
      return faulty;
    };
    await Promise.all(ids.map((id) => group.open(id, { wrap: wrap(id) })));
    await run({ group, disks, random });
    for (const { id, fatal } of group.masters) if (!mayFail) assert.deepEqual(fatal, [], `${id} failed`);
    await group.closeAll();
  } finally {
    await group.killAll();
    clock.stop();
  }
}

function diskOf({ disks }: Faulty, { id }: Master): FaultyDisk {
  return disks.get(id) as FaultyDisk;
}

function others(group: RaftGroup, master: Master): Master[] {
  return group.masters.filter(({ id }) => id !== master.id);
}

async function propose({ journal }: Master, text: string): Promise<void> {
  await journal.propose(new TextEncoder().encode(text));
}

async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  return promise.then(
    () => undefined,
    (error: unknown) => (isHeadpondError(error) ? error.code : String(error)),
  );
}

async function nextLeader(group: RaftGroup, before: Master): Promise<Master> {
  return group.until("another leader", 5000, () =>
    others(group, before).find(({ journal }) => journal.role === "leader"),
  );
}

function texts({ machine }: Master): string[] {
  return machine.list.map(({ text }) => text).filter((text) => text !== "");
}

test("hazard 11: a leader whose disk hangs gives way within two election timeouts, and follows when it is back", async () => {
  await withFaults(async (faulty) => {
    const { group } = faulty;
    const leader = await group.described();
    await propose(leader, "before");
    let unhang = (): void => {};
    const until = new Promise<void>((resolve) => (unhang = resolve));
    diskOf(faulty, leader).inject({ operation: "datasync", path: "/wal/", effect: { kind: "hang", until } });
    const startMs = group.clock.monotonicMs();
    const hanging = codeOf(leader.journal.propose(new TextEncoder().encode("hanging")));
    const next = await nextLeader(group, leader);
    const tookMs = group.clock.monotonicMs() - startMs;
    assert.ok(tookMs <= 2 * quickRaft.electionTimeoutMs + 50, `it took ${tookMs} ms`);
    assert.equal(leader.journal.role, "standby");
    // The others had it on their disks: that may have been acknowledged, or not.
    assert.ok([undefined, "unknown-outcome"].includes(await hanging));
    await propose(next, "after");
    diskOf(faulty, leader).heal();
    unhang();
    await group.settled();
    assert.deepEqual(texts(leader), texts(next));
    assert.ok(texts(next).includes("after"));
  });
});

test("a full disk: the master refuses with no-space, and goes on by itself when there is room", async () => {
  await withFaults(
    async ({ group }) => {
      const leader = await group.described();
      const disk = group.disk(leader.id);
      disk.capacityBytes = disk.usedBytes;
      const codes = new Set<string | undefined>();
      for (let n = 0; n < 2000 && !codes.has("no-space"); n++) {
        codeOf(propose(leader, `${n} ${"x".repeat(1000)}`)).then(
          (code) => codes.add(code),
          () => {},
        );
        await group.clock.sleep(1);
      }
      assert.ok(codes.has("no-space"), [...codes].join());
      disk.capacityBytes = Number.MAX_SAFE_INTEGER;
      const again = await group.leader();
      await group.until("room", 5000, () => again.journal.role === "leader");
      await retry(group, () => propose(again, "room again"));
      await group.settled();
      assert.ok(texts(again).includes("room again"));
    },
    { ids: ["m1"] },
  );
});

async function retry(group: RaftGroup, run: () => Promise<void>): Promise<void> {
  for (let n = 0; n < 100; n++) {
    if ((await codeOf(run())) === undefined) return;
    await group.clock.sleep(20);
  }
  throw new Error("it never went well");
}

test("a leader whose disk is full hands over to one that has room", async () => {
  await withFaults(async ({ group }) => {
    const leader = await group.described();
    const disk = group.disk(leader.id);
    disk.capacityBytes = disk.usedBytes;
    for (let n = 0; n < 400 && leader.journal.role === "leader"; n++) {
      await codeOf(propose(leader, `${n} ${"x".repeat(1000)}`));
      if (n % 20 === 0) await group.clock.sleep(20);
    }
    const next = await nextLeader(group, leader);
    await propose(next, "there is room here");
    disk.capacityBytes = Number.MAX_SAFE_INTEGER;
    await group.settled();
    assert.deepEqual(texts(leader), texts(next));
  });
});

test("a leader refuses with no-space when most disks are full, and goes on when they are not", async () => {
  await withFaults(async ({ group }) => {
    const leader = await group.described();
    const full = others(group, leader).map(({ id }) => group.disk(id));
    for (const disk of full) disk.capacityBytes = disk.usedBytes;
    const codes = new Set<string | undefined>();
    for (let n = 0; n < 2000 && !codes.has("no-space"); n++) {
      codeOf(propose(leader, `${n} ${"x".repeat(1000)}`)).then(
        (code) => codes.add(code),
        () => {},
      );
      await group.clock.sleep(1);
    }
    assert.ok(codes.has("no-space"), [...codes].join());
    for (const disk of full) disk.capacityBytes = Number.MAX_SAFE_INTEGER;
    await retry(group, async () => propose(await group.leader(), "room again"));
    await group.settled();
    for (const master of group.masters) assert.ok(texts(master).includes("room again"));
  });
});

test("hazard 27: the first failed flush ends a master; nothing that it had not on the disk was acknowledged", async () => {
  await withFaults(
    async (faulty) => {
      const { group } = faulty;
      const leader = await group.described();
      await propose(leader, "before");
      // A second flush would succeed, and lie.
      const effect = { kind: "error", code: "EIO" } as const;
      diskOf(faulty, leader).inject({ operation: "datasync", path: "/wal/segment", times: 1, effect });
      const failed = codeOf(propose(leader, "failed"));
      await group.until("the end", 1000, () => leader.fatal.length > 0);
      assert.ok(["unknown-outcome", undefined].includes(await failed));
      assert.equal(await codeOf(propose(leader, "more")), "unavailable");
      assert.equal(leader.journal.mayRead, false);
      await group.kill(leader.id, true);
      const next = await nextLeader(group, leader);
      await propose(next, "after");
      await group.open(leader.id);
      await group.settled();
      const all = texts(next);
      assert.deepEqual(texts(group.master(leader.id)), all);
      assert.deepEqual([all[0], all.at(-1)], ["before", "after"]);
    },
    { mayFail: true },
  );
});

test("hazard 26: a damaged record in the middle of the log is told as damage, never cut off as a torn tail", async () => {
  await withFaults(async (faulty) => {
    const { group, random } = faulty;
    const leader = await group.described();
    for (let n = 0; n < 60; n++) await propose(leader, `command ${n}`);
    await group.settled();
    const victim = others(group, leader)[0] as Master;
    const disk = group.disk(victim.id);
    await group.close(victim.id);
    const names = (await disk.list("/journal/wal")).filter((name) => name.startsWith("segment"));
    const path = `/journal/wal/${names.sort()[0]}`;
    const file = await disk.open(path, "write");
    const bytes = Buffer.alloc(groupSegmentBytes);
    await file.read(bytes, 0);
    const end = bytes.findLastIndex((byte) => byte !== 0);
    for (let n = 0; n < 20; n++) {
      // Anything but the last record, which is the witness of those before.
      const at = random.between(4096, end - 40);
      const right = bytes[at] as number;
      await file.write(Uint8Array.of(right ^ (1 << random.between(0, 7))), at);
      await assert.rejects(group.open(victim.id), { code: "corrupt" }, `byte ${at} of ${end}, seed ${seed}`);
      await group.kill(victim.id);
      await file.write(Uint8Array.of(right), at);
    }
    await file.close();
    await group.open(victim.id);
    await group.settled();
    assert.deepEqual(texts(group.master(victim.id)), texts(leader));
  });
});

test("a state that holds more than its log proves that the disk lost what it acknowledged: the master does not start", async () => {
  const more: { list: ListMachine["list"] } = { list: [] };
  await withFaults(
    async ({ group }) => {
      const leader = await group.described();
      await propose(leader, "one");
      await group.settled();
      const victim = others(group, leader)[0] as Master;
      const { index, term } = victim.machine.applied;
      more.list = [...victim.machine.list, { index: index + 1, term, text: "lost" }];
      await group.kill(victim.id);
      await assert.rejects(group.open(victim.id), { code: "corrupt", message: /lost entries that it acknowledged/ });
      await group.kill(victim.id);
      more.list = [];
      // As after a restart of the computer: what is not trusted is rebuilt, whatever it holds.
      await group.open(victim.id);
      await group.settled();
      assert.deepEqual(texts(group.master(victim.id)), texts(leader));
    },
    {
      makeMachine: (disk) => {
        const machine = new ListMachine(disk);
        machine.list.push(...more.list);
        return machine;
      },
    },
  );
});

/** Applies entries that say so wrongly. */
class WrongMachine extends ListMachine {
  isWrong = false;

  override apply(entries: readonly Entry[]): string[] {
    const results = super.apply(entries);
    if (!this.isWrong) return results;
    for (const { index } of entries) {
      const entry = this.list[index - 1] as { text: string };
      if (entry.text.startsWith("odd")) (this.list[index - 1] as unknown as { text: string }).text = "wrong";
    }
    return results;
  }
}

const divergent = { limits: { digestEveryEntries: 10 }, makeMachine: (disk: Disk) => new WrongMachine(disk) };

test("hazard 29: a standby whose state differs finds out, says so and serves nothing; the others go on", async () => {
  await withFaults(async ({ group }) => {
    const leader = await group.described();
    const [victim, sound] = others(group, leader) as [Master, Master];
    (victim.machine as WrongMachine).isWrong = true;
    for (let n = 0; n < 40; n++) await propose(leader, `odd ${n}`);
    await group.until("the alarm", 10_000, () => victim.diverged.length > 0);
    assert.match(victim.diverged[0] as string, new RegExp(`${victim.id} differs`));
    assert.equal(await codeOf(victim.journal.readBarrier()), "unavailable");
    await sound.journal.readBarrier();
    assert.deepEqual([leader.diverged, sound.diverged], [[], []]);
    // It votes, and does not lead.
    await group.kill(leader.id);
    const next = await nextLeader(group, leader);
    assert.equal(next.id, sound.id);
    await propose(next, "with its vote");
    // Its next life knows it, too.
    await group.close(victim.id);
    const again = await group.open(victim.id);
    assert.equal(again.diverged.length, 1);
    assert.equal(await codeOf(again.journal.readBarrier()), "unavailable");
    assert.equal(await codeOf(again.journal.checkpoint()), "unavailable");
  }, divergent);
});

test("hazard 29: a state that differed is sound again when another master's has taken its place", async () => {
  const limits = { digestEveryEntries: 10, logKeepBytes: 0 };
  await withFaults(
    async ({ group }) => {
      const leader = await group.described();
      const victim = others(group, leader)[0] as Master;
      (victim.machine as WrongMachine).isWrong = true;
      for (let n = 0; n < 40; n++) await propose(leader, `odd ${n}`);
      await group.until("the alarm", 10_000, () => victim.diverged.length > 0);
      await group.kill(victim.id);
      for (let round = 0; round < 3; round++) {
        for (let n = 0; n < 200; n++) await propose(leader, `round ${round} ${n} ${"x".repeat(300)}`);
        await leader.journal.checkpoint();
      }
      const again = await group.open(victim.id);
      assert.equal(again.diverged.length, 1);
      await group.settled();
      await again.journal.readBarrier();
      assert.deepEqual(texts(again), texts(leader));
    },
    { ...divergent, limits },
  );
});

test("hazard 29: a leader whose state differs from most others' hands over and serves nothing", async () => {
  await withFaults(async ({ group }) => {
    const leader = await group.described();
    (leader.machine as WrongMachine).isWrong = true;
    for (let n = 0; n < 40; n++) await codeOf(propose(leader, `odd ${n}`));
    const next = await nextLeader(group, leader);
    assert.equal(leader.diverged.length, 1);
    assert.equal(leader.journal.mayRead, false);
    assert.equal(await codeOf(leader.journal.readBarrier()), "unavailable");
    assert.equal(await codeOf(propose(leader, "no")), "unavailable");
    await propose(next, "under a sound one");
  }, divergent);
});

test("hazard 29: of two masters the standby that differs from its leader stops serving", async () => {
  await withFaults(
    async ({ group }) => {
      const leader = await group.described();
      const victim = others(group, leader)[0] as Master;
      (victim.machine as WrongMachine).isWrong = true;
      for (let n = 0; n < 40; n++) await propose(leader, `odd ${n}`);
      await group.until("the alarm", 10_000, () => victim.diverged.length > 0);
      assert.deepEqual(leader.diverged, []);
      await propose(leader, "goes on");
    },
    { ...divergent, ids: ["m1", "m2"] },
  );
});

test("hazard 31: proposals of a leader that is cut off are answered unknown within two election timeouts", async () => {
  await withFaults(async ({ group }) => {
    const leader = await group.described();
    group.network.isolate(leader.id);
    const startMs = group.clock.monotonicMs();
    const codes = await Promise.all([1, 2, 3].map((n) => codeOf(propose(leader, `cut off ${n}`))));
    assert.deepEqual(codes, ["unknown-outcome", "unknown-outcome", "unknown-outcome"]);
    assert.ok(group.clock.monotonicMs() - startMs <= 2 * quickRaft.electionTimeoutMs);
    // What comes now was never appended.
    assert.equal(await codeOf(propose(leader, "later")), "not-leader");
    const next = await nextLeader(group, leader);
    await propose(next, "meanwhile");
    group.network.heal();
    await group.settled();
    assert.deepEqual(texts(leader), texts(next));
    assert.ok(!texts(next).some((text) => text === "later"));
  });
});

test("hazard 14: a leader that is cut off serves no read after its lease, neither at once nor behind a barrier", async () => {
  await withFaults(async ({ group }) => {
    const leader = await group.described();
    await propose(leader, "before");
    assert.equal(leader.journal.mayRead, true);
    group.network.isolate(leader.id);
    const next = await nextLeader(group, leader);
    assert.equal(leader.journal.mayRead, false, "its lease was over before another could be elected");
    await propose(next, "after");
    assert.equal(await codeOf(leader.journal.readBarrier()), "not-leader");
    group.network.heal();
    await retry(group, () => leader.journal.readBarrier());
    assert.ok(texts(leader).includes("after"));
  });
});

test("a read at a standby sees all that was acknowledged before it, and says how fresh the state is", async () => {
  await withFaults(async ({ group }) => {
    const leader = await group.described();
    const standby = others(group, leader)[0] as Master;
    for (let n = 0; n < 20; n++) {
      await propose(leader, `command ${n}`);
      await standby.journal.readBarrier();
      assert.equal(texts(standby).at(-1), `command ${n}`);
    }
    assert.ok((standby.journal.cluster.freshnessMs() ?? Number.POSITIVE_INFINITY) < 20);
    await group.clock.sleep(100);
    assert.ok((standby.journal.cluster.freshnessMs() ?? 0) >= 100);
    assert.equal(leader.journal.cluster.freshnessMs(), 0);
  });
});

test("hazard 15: a pause of all timers is one tick, and changes no leader", async () => {
  await withFaults(async ({ group }) => {
    const leader = await group.described();
    const { term } = leader.journal.status();
    for (let n = 0; n < 5; n++) {
      (group.clock as RunningClock).advanceSync(2000);
      await group.clock.sleep(150);
    }
    assert.deepEqual([leader.journal.role, leader.journal.status().term], ["leader", term]);
    await propose(leader, "as before");
  });
});

test("a leader whose disk is full hands over before anybody could take it for a disk that hangs, and owes no answers", async () => {
  const electionTimeoutMs = 5000;
  await withFaults(
    async ({ group }) => {
      const leader = await group.described(60_000);
      const startMs = group.clock.monotonicMs();
      const disk = group.disk(leader.id);
      disk.capacityBytes = disk.usedBytes;
      const answers: Promise<string | undefined>[] = [];
      for (let n = 0; n < 4000 && leader.journal.role === "leader"; n++) {
        answers.push(codeOf(propose(leader, `${n} ${"x".repeat(1000)}`)));
        if (n % 20 === 0) await group.clock.sleep(1);
      }
      const next = await nextLeader(group, leader);
      const codes = new Set(await Promise.all(answers));
      assert.ok(group.clock.monotonicMs() - startMs < electionTimeoutMs, "no timeout has helped");
      assert.ok(codes.has("unknown-outcome") || codes.has("no-space"), [...codes].join());
      assert.equal(await codeOf(propose(leader, "more")), "no-space");
      await propose(next, "there is room here");
      disk.capacityBytes = Number.MAX_SAFE_INTEGER;
      await group.settled();
      assert.deepEqual(texts(leader), texts(next));
    },
    { limits: { raft: { ...quickRaft, electionTimeoutMs, leaseMs: 0.9 * electionTimeoutMs } } },
  );
});
