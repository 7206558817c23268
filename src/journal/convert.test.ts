import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import type { Disk } from "../io/disk.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { MemoryPeerNetwork } from "../testing/memory-peers.ts";
import { convertToLocal, convertToRaft } from "./convert.ts";
import { formatJournal } from "./format.ts";
import { ListMachine } from "./list-machine.ts";
import { LocalJournal } from "./local-journal.ts";
import { mortalDisk } from "./mortal-disk.ts";
import { readIdentity } from "./raft-identity.ts";
import { RaftJournal } from "./raft-journal.ts";
import { defaultWalLimits } from "./wal.ts";

const clock = new NodeClock();
const clusterId = "grown" as ClusterId;
const directory = "/journal";
const segmentBytes = 16 * KiB;
const wal = { ...defaultWalLimits, segmentBytes, reserveBytes: 0 };
const first = { id: "m1", address: "m1:7072", incarnation: "disk-1" };

function failAt(error: Error): never {
  throw error;
}

const common = { clock, logger: silentLogger, directory, clusterId, bootId: "boot", onFatal: failAt };

function localAt(disk: Disk): { journal: LocalJournal<string>; machine: ListMachine } {
  const machine = new ListMachine(disk);
  const limits = { wal, checkpointEveryEntries: 100 };
  return { journal: new LocalJournal({ ...common, disk, machine, metrics: new Metrics(), limits }), machine };
}

function raftAt(
  disk: Disk,
  network: MemoryPeerNetwork,
  id: string,
): { journal: RaftJournal<string>; machine: ListMachine } {
  const machine = new ListMachine(disk);
  const journal = new RaftJournal({
    ...common,
    disk,
    machine,
    metrics: new Metrics(),
    id,
    peers: network.peers({ disk, directory: "/incoming" }),
    random: new Random(7),
    addresses: () => ({ rpc: `${id}:7070`, http: `${id}:7071` }),
    limits: {
      wal,
      raft: { tickMs: 5, heartbeatMs: 15, electionTimeoutMs: 100, leaseMs: 90 },
    },
  });
  return { journal, machine };
}

/** A stopped local journal whose log was cut several times: its checkpoints name no members. */
async function grown(entries: number): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await formatJournal({ disk, clock, directory, clusterId, segmentBytes });
  const { journal } = localAt(disk);
  await journal.start();
  for (let i = 0; i < entries; i += 50) {
    await Promise.all(Array.from({ length: 50 }, (_, k) => journal.propose(Buffer.from(`entry ${i + k}`.padEnd(120)))));
  }
  if (entries >= 1000) assert.ok(journal.status().firstIndex > 1, "the log was cut");
  await journal.close();
  return disk;
}

async function leads(journal: RaftJournal<string>): Promise<void> {
  while (journal.role !== "leader") await clock.sleep(5);
  await journal.readBarrier();
}

for (const entries of [0, 1000]) {
  test(`a local journal of ${entries} entries becomes a Raft cluster of one, which others join`, async () => {
    const disk = await grown(entries);
    assert.deepEqual(await convertToRaft({ disk, directory, ...first }), { changed: true, clusterId });
    const network = new MemoryPeerNetwork({ clock });
    const m1 = raftAt(disk, network, "m1");
    await m1.journal.start();
    await leads(m1.journal);
    const texts = (machine: ListMachine): string[] => machine.list.map(({ text }) => text.trim()).filter(Boolean);
    assert.equal(texts(m1.machine).length, entries);
    await m1.journal.propose(Buffer.from("after"));

    const other = new MemoryDisk();
    await formatJournal({
      disk: other,
      clock,
      directory,
      clusterId,
      segmentBytes,
      raft: { id: "m2", incarnation: "disk-2", founders: undefined },
    });
    const m2 = raftAt(other, network, "m2");
    await m2.journal.start();
    await m1.journal.cluster.changeMembers({ kind: "add", id: "m2", address: "m2:7072" });
    await m1.journal.cluster.changeMembers({ kind: "promote", id: "m2" });
    await m1.journal.propose(Buffer.from("together"));
    await m2.journal.readBarrier();
    assert.deepEqual(texts(m2.machine), texts(m1.machine));
    assert.equal(texts(m2.machine).length, entries + 2);
    assert.equal(m2.machine.digest(), m1.machine.digest());
    await m2.journal.close();
    await m1.journal.close();
  });
}

test("what was converted can be made local again until it has started as a member, and not after", async () => {
  const disk = await grown(150);
  await convertToRaft({ disk, directory, ...first });
  assert.equal((await convertToRaft({ disk, directory, ...first, incarnation: "disk-9" })).changed, false);
  assert.equal((await convertToLocal({ disk, directory })).changed, true);
  assert.equal((await convertToLocal({ disk, directory })).changed, false);
  const local = localAt(disk);
  await local.journal.start();
  assert.equal(local.machine.list.length, 150);
  await local.journal.propose(Buffer.from("still alone"));
  await local.journal.close();

  await convertToRaft({ disk, directory, ...first });
  const raft = raftAt(disk, new MemoryPeerNetwork({ clock }), "m1");
  await raft.journal.start();
  await leads(raft.journal);
  await raft.journal.close();
  await assert.rejects(convertToLocal({ disk, directory }), /m1.*has started as such/);
  assert.equal((await convertToRaft({ disk, directory, ...first })).changed, false);
  await assert.rejects(convertToRaft({ disk, directory, ...first, id: "m2" }), /is of member m1/);
});

test("a journal in use is not converted", async () => {
  const disk = await grown(50);
  const { journal } = localAt(disk);
  await journal.start();
  const inUse = (error: unknown): boolean => isHeadpondError(error, "unavailable");
  await assert.rejects(convertToRaft({ disk, directory, ...first }), inUse);
  await assert.rejects(convertToLocal({ disk, directory }), inUse);
  await journal.close();
});

test("a crash at any step of a conversion, either way, leaves the one or the other, whole", async () => {
  const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const seen = new Set<boolean>();
  let done = false;
  for (let operations = 1; !done; operations++) {
    const disk = await grown(50);
    const mortal = mortalDisk(disk, operations);
    done = await convertToRaft({ disk: mortal.disk, directory, ...first }).then(
      () => true,
      () => false,
    );
    await mortal.kill();
    disk.crash({ random });
    const identity = await readIdentity(disk, directory);
    seen.add(identity !== undefined);
    if (done) assert.equal(identity?.incarnation, first.incarnation);
    await convertToLocal({ disk, directory });
    const { journal, machine } = localAt(disk);
    await journal.start();
    assert.equal(machine.list.length, 50, `after ${operations} operations`);
    await journal.close();
  }
  assert.deepEqual(seen, new Set([true, false]));
});
