import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { Random } from "../base/random.ts";
import { KiB, MiB } from "../base/units.ts";
import type { Disk, DiskFile } from "../io/disk.ts";
import { FaultyDisk } from "../io/faulty-disk.ts";
import { xxh64Hex } from "../io/hash.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { MemoryNetwork } from "../io/memory-network.ts";
import type { Connection, Network } from "../io/network.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { mortalDisk } from "./mortal-disk.ts";
import type { CheckpointFile, SnapshotMessage } from "./peers.ts";
import { Throttle } from "./snapshot-stream.ts";
import { TestMaster, until } from "./tcp-peers.test-support.ts";
import type { TcpPeersLimits } from "./tcp-peers.ts";

const clock = new NodeClock();
const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const incoming = "/m2/incoming";
let running: TestMaster[] = [];

afterEach(async () => {
  for (const { peers } of running) await peers.close();
  running = [];
});

class CountingDisk extends MemoryDisk {
  reads = 0;

  override async open(...args: Parameters<MemoryDisk["open"]>): Promise<DiskFile> {
    const file = await super.open(...args);
    const read = file.read.bind(file);
    file.read = (...all) => {
      this.reads++;
      return read(...all);
    };
    return file;
  }
}

/** A checkpoint on a disk of its own, as the sender has it. */
async function checkpoint(
  bytes: number,
  index = 100,
  disk = new MemoryDisk(),
): Promise<{ disk: MemoryDisk; file: CheckpointFile; content: Uint8Array }> {
  const content = new Uint8Array(bytes);
  const tile = new Random(index).bytes(4 * KiB);
  // No two tiles alike, so that a chunk in another's place would be seen.
  for (let at = 0; at < bytes; at += tile.length) {
    content.set(tile.subarray(0, bytes - at), at);
    content[at] = (at / tile.length) & 0xff;
    content[Math.min(at + 1, bytes - 1)] = (at / tile.length) >> 8;
  }
  await writeFile(disk, "/m1/checkpoint", content);
  const file = { path: "/m1/checkpoint", index, term: 3, digest: "d1", bytes, xxh64: xxh64Hex(content) };
  return { disk, file, content };
}

async function writeFile(disk: Disk, path: string, content: Uint8Array): Promise<void> {
  await disk.makeDirectory(path.slice(0, path.lastIndexOf("/")));
  const file = await disk.open(path, "open-or-create");
  await file.write(content, 0);
  await file.close();
}

async function readFile(disk: Disk, path: string): Promise<Uint8Array> {
  const file = await disk.open(path, "read");
  const content = new Uint8Array((await file.stat()).sizeBytes);
  await file.read(content, 0);
  await file.close();
  return content;
}

/** The receiver's, on which the directory of its journal has long been durable. */
async function receiverDisk(options: { readonly capacityBytes?: number } = {}): Promise<MemoryDisk> {
  const disk = new MemoryDisk(options);
  await disk.makeDirectory("/m2");
  await disk.syncDirectory("/");
  return disk;
}

function order(file: CheckpointFile, term = 3, to = "m2"): SnapshotMessage {
  const configuration = { voters: ["m1", "m2"], outgoing: [], learners: [], members: {} };
  const snapshot = { index: file.index, term: file.term, configuration };
  return { type: "snapshot", from: "m1", to, term, snapshot, sentAtMs: 17.25 };
}

async function start(
  id: string,
  network: Network,
  disk: Disk,
  limits: Partial<TcpPeersLimits> = {},
): Promise<TestMaster> {
  const listen = { host: id, port: 7072 };
  const master = await new TestMaster({
    id,
    network,
    clock,
    disk,
    listen,
    limits: { keepAliveMs: 20, ...limits },
  }).start();
  running.push(master);
  return master;
}

/** Two masters that know each other, `m1` with the checkpoint. */
async function pair(
  sender: Disk,
  receiver: Disk,
  options: {
    readonly network?: MemoryNetwork;
    readonly limits?: Partial<TcpPeersLimits>;
    readonly wrap?: (network: Network) => Network;
  } = {},
): Promise<{ network: MemoryNetwork; m1: TestMaster; m2: TestMaster }> {
  const { network = new MemoryNetwork({ clock }), limits, wrap = (plain) => plain } = options;
  const m1 = await start("m1", wrap(network.at("m1")), sender, limits);
  const m2 = await start("m2", network.at("m2"), receiver, limits);
  for (const one of [m1, m2]) one.meet([m1, m2]);
  return { network, m1, m2 };
}

/** A network whose dialled connections are shown each chunk of a checkpoint, the how-manieth it is, and may be changed. */
function meddled(
  plain: Network,
  meddle: (part: Uint8Array, chunk: number, connection: Connection) => Uint8Array | undefined,
): Network {
  let chunks = 0;
  return {
    listen: (...args) => plain.listen(...args),
    connect: async (...args) => {
      const connection = await plain.connect(...args);
      const write = connection.write.bind(connection);
      connection.write = (bytes) => {
        const changed = bytes.length < 100 * KiB ? bytes : meddle(bytes, ++chunks, connection);
        return changed !== undefined && write(changed);
      };
      return connection;
    },
  };
}

async function outcome(m1: TestMaster, count = 1): Promise<void> {
  await until("the transfer is over", () => m1.sent.length + m1.failed.length >= count);
}

describe(`checkpoints between masters (SEED=${seed})`, () => {
  it("a checkpoint arrives whole and durable, and with it the order that sent it", async () => {
    const { disk, file, content } = await checkpoint(3 * MiB + 17);
    const receiving = await receiverDisk();
    const { m1, m2 } = await pair(disk, receiving);
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    assert.deepEqual([m1.sent, m1.failed], [["m2"], []]);
    assert.ok(m1.progressed.length >= 7, `progress was told ${m1.progressed.length} times`);
    const [received] = m2.received;
    assert.deepEqual(received?.message, order(file));
    assert.deepEqual({ ...received?.file, path: "" }, { ...file, path: "" });
    receiving.crash({ random: new Random(seed) });
    assert.deepEqual(await readFile(receiving, received?.file.path ?? ""), content);
    assert.deepEqual(await receiving.list(incoming), [received?.file.path.slice(incoming.length + 1)]);
  });

  it("over TCP, too, in a few chunks of memory and no faster than allowed", async () => {
    const { disk, file, content } = await checkpoint(12 * MiB);
    const [network, receiving] = [new TcpNetwork(), await receiverDisk()];
    const limits = { snapshotBytesPerSecond: 48 * MiB };
    const m1 = await new TestMaster({ id: "m1", network, clock, disk, limits }).start();
    const m2 = await new TestMaster({ id: "m2", network, clock, disk: receiving }).start();
    running.push(m1, m2);
    for (const one of [m1, m2]) one.meet([m1, m2]);
    const startedMs = clock.monotonicMs();
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    // A lower bound holds on any machine: 12 MiB at 48 MiB/s, but for the burst and the last chunk.
    assert.ok(clock.monotonicMs() - startedMs >= 200, `${clock.monotonicMs() - startedMs} ms`);
    assert.deepEqual(await readFile(receiving, m2.received[0]?.file.path ?? ""), content);
  });

  it("an empty checkpoint is one, too", async () => {
    const { disk, file } = await checkpoint(0);
    const { m1, m2 } = await pair(disk, new MemoryDisk());
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    assert.deepEqual([m1.sent, m2.received.length], [["m2"], 1]);
  });

  it("the receiver dies in the middle of a chunk: the sender hears of it, and the next transfer goes on where it stopped", async () => {
    const { disk, file, content } = await checkpoint(4 * MiB);
    const receiving = await receiverDisk();
    const sentChunks: number[] = [];
    const network = new MemoryNetwork({ clock });
    const wrap = (plain: Network): Network =>
      meddled(plain, (bytes, chunk, connection) => {
        sentChunks.push(chunk);
        if (chunk !== 5) return bytes;
        queueMicrotask(() => connection.destroy());
        return bytes.subarray(0, bytes.length / 2);
      });
    const { m1, m2 } = await pair(disk, receiving, { network, wrap });
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    assert.equal(m1.failed.length, 1);
    const before = sentChunks.length;
    m1.peers.sendSnapshot(order(file, 4), file);
    await outcome(m1, 2);
    assert.deepEqual(m1.sent, ["m2"]);
    assert.ok(sentChunks.length - before < 8, `${sentChunks.length - before} of 8 chunks were sent again`);
    assert.equal(m2.received[0]?.message.term, 4);
    assert.deepEqual(await readFile(receiving, m2.received[0]?.file.path ?? ""), content);
  });

  it("a receiver that was restarted goes on with what it finds", async () => {
    const { disk, file, content } = await checkpoint(4 * MiB);
    const receiving = await receiverDisk();
    const network = new MemoryNetwork({ clock });
    const sentChunks: number[] = [];
    const wrap = (plain: Network): Network =>
      meddled(plain, (bytes, chunk) => {
        sentChunks.push(chunk);
        if (chunk === 5) network.cut("m1", "m2");
        return bytes;
      });
    const { m1, m2 } = await pair(disk, receiving, { network, wrap });
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    await m2.peers.close();
    const again = await start("m2", network.at("m2"), receiving);
    again.meet([m1, again]);
    const before = sentChunks.length;
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1, 2);
    assert.deepEqual(m1.sent, ["m2"]);
    assert.ok(sentChunks.length - before < 8, `${sentChunks.length - before} of 8 chunks were sent again`);
    assert.deepEqual(await readFile(receiving, again.received[0]?.file.path ?? ""), content);
  });

  it("what a crash spoilt of an unfinished file is found, and the transfer after that succeeds", async () => {
    const { disk, file, content } = await checkpoint(2 * MiB);
    const receiving = await receiverDisk();
    await writeFile(receiving, `${incoming}/received-100-3-${file.xxh64}.part`, new Uint8Array(MiB));
    const { m1, m2 } = await pair(disk, receiving);
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    assert.match(m1.failed[0]?.reason ?? "", /its xxh64 is [0-9a-f]{16}, not [0-9a-f]{16} as its sender said/);
    assert.deepEqual([m2.received, await receiving.list(incoming)], [[], []]);
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1, 2);
    assert.deepEqual(await readFile(receiving, m2.received[0]?.file.path ?? ""), content);
  });

  it("a chunk with a flipped bit ends the connection, and is not in the file that arrives later", async () => {
    const { disk, file, content } = await checkpoint(3 * MiB);
    const receiving = await receiverDisk();
    const wrap = (plain: Network): Network =>
      meddled(plain, (bytes, chunk) => {
        if (chunk !== 3) return bytes;
        const damaged = Uint8Array.from(bytes);
        damaged[1234] = (damaged[1234] as number) ^ 4;
        return damaged;
      });
    const { m1, m2 } = await pair(disk, receiving, { wrap });
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    assert.equal(m1.failed.length, 1);
    assert.ok(m2.logLines.some(({ fields }) => /body does not match its checksum/.test(String(fields?.["reason"]))));
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1, 2);
    assert.deepEqual(m1.sent, ["m2"]);
    assert.deepEqual(await readFile(receiving, m2.received[0]?.file.path ?? ""), content);
  });

  it("a checkpoint that is damaged at the sender never counts as received", async () => {
    const { disk, file } = await checkpoint(2 * MiB);
    const faulty = new FaultyDisk({ disk, clock });
    faulty.inject({ operation: "read", effect: { kind: "flip", position: MiB + 5 } });
    const receiving = await receiverDisk();
    const { m1, m2 } = await pair(faulty, receiving);
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    assert.match(m1.failed[0]?.reason ?? "", /its xxh64 is/);
    assert.deepEqual([m2.received, await receiving.list(incoming)], [[], []]);
  });

  for (const { name, code, pattern } of [
    { name: "full", code: "ENOSPC", pattern: /no space for a checkpoint of 2097152 bytes/ },
    { name: "broken", code: "EIO", pattern: /EIO/ },
  ]) {
    for (const operation of ["write", "datasync", "rename", "syncDirectory"] as const) {
      it(`the receiver's disk is ${name} at ${operation}: the sender is told why, and nothing is left behind`, async () => {
        const { disk, file, content } = await checkpoint(2 * MiB);
        const receiving = await receiverDisk();
        const faulty = new FaultyDisk({ disk: receiving, clock });
        faulty.inject({
          operation,
          path: incoming,
          skip: operation === "write" ? 2 : 0,
          times: 1,
          effect: { kind: "error", code },
        });
        const { m1, m2 } = await pair(disk, faulty);
        m1.peers.sendSnapshot(order(file), file);
        await outcome(m1);
        assert.match(m1.failed[0]?.reason ?? "", pattern);
        assert.deepEqual([m2.received, await receiving.list(incoming)], [[], []]);
        m1.peers.sendSnapshot(order(file), file);
        await outcome(m1, 2);
        assert.deepEqual(await readFile(receiving, m2.received[0]?.file.path ?? ""), content);
      });
    }
  }

  it("a checkpoint for which there is no room is refused before a byte of it is sent", async () => {
    const { disk, file } = await checkpoint(2 * MiB);
    let chunks = 0;
    const wrap = (plain: Network): Network => meddled(plain, (bytes) => (chunks++, bytes));
    const receiving = await receiverDisk({ capacityBytes: MiB });
    const { m1 } = await pair(disk, receiving, { wrap });
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    assert.match(m1.failed[0]?.reason ?? "", /m2\/incoming has 1048576 bytes free, 2097152 are needed/);
    assert.deepEqual([chunks, await receiving.list(incoming)], [0, []]);
  });

  it("the receiver crashes at every single step: what has its name is whole, and the next life receives it", async () => {
    const { disk, file, content } = await checkpoint(MiB + 5);
    let step = 0;
    for (; ; step++) {
      const receiving = await receiverDisk();
      const random = new Random(seed + step);
      const { disk: mortal, kill } = mortalDisk(receiving, step);
      const network = new MemoryNetwork({ clock });
      const m1 = await start("m1", network.at("m1"), disk);
      const first = new TestMaster({
        id: "m2",
        network: network.at("m2"),
        clock,
        disk: mortal,
        listen: { host: "m2", port: 7072 },
      });
      const hasStarted = await first.start().then(
        () => true,
        () => false,
      );
      m1.meet([m1, { id: "m2", address: { host: "m2", port: 7072 } }]);
      if (hasStarted) {
        m1.peers.sendSnapshot(order(file), file);
        await outcome(m1);
      }
      const wasReceived = first.received.length > 0;
      assert.equal(m1.sent.length === 1, wasReceived, `step ${step}`);
      await kill();
      await first.peers.close();
      receiving.crash({ random });
      const names = await receiving.list(incoming).catch(() => []);
      for (const name of names) {
        if (name.endsWith(".part")) continue;
        assert.deepEqual(await readFile(receiving, `${incoming}/${name}`), content, `step ${step}: ${name}`);
      }
      if (wasReceived) assert.equal(names.length, 1, `step ${step}: what was said to be durable is there`);
      const second = await start("m2", network.at("m2"), receiving);
      second.meet([m1, second]);
      const sentBefore = m1.sent.length;
      // A part that the crash spoilt costs one transfer.
      for (let attempt = 1; m1.sent.length === sentBefore; attempt++) {
        assert.ok(attempt <= 2, `step ${step}: ${m1.failed.map(({ reason }) => reason).join(", ")}`);
        m1.peers.sendSnapshot(order(file), file);
        await outcome(m1, m1.sent.length + m1.failed.length + 1);
      }
      assert.deepEqual(await readFile(receiving, second.received[0]?.file.path ?? ""), content, `step ${step}`);
      for (const { peers } of running.splice(0)) await peers.close();
      if (wasReceived) break;
    }
    assert.ok(step > 12, `it took ${step} steps only`);
  });

  it("a newer order takes the place of an older one, and only its checkpoint arrives", async () => {
    const [old, young] = [await checkpoint(8 * MiB, 100), await checkpoint(2 * MiB, 200)];
    await writeFile(old.disk, "/m1/younger", young.content);
    const file = { ...young.file, path: "/m1/younger" };
    const receiving = await receiverDisk();
    const { m1, m2 } = await pair(old.disk, receiving, { limits: { snapshotBytesPerSecond: 4 * MiB } });
    m1.peers.sendSnapshot(order(old.file), old.file);
    await until("the first has begun", () => m1.progressed.length > 0);
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    assert.deepEqual([m1.sent, m1.failed], [["m2"], []]);
    assert.deepEqual(
      m2.received.map((received) => received.file.index),
      [200],
    );
    assert.deepEqual(await receiving.list(incoming), [`received-200-3-${file.xxh64}`]);
  });

  it("the same order again changes nothing but the message that arrives in the end", async () => {
    const { disk, file } = await checkpoint(2 * MiB);
    const { m1, m2 } = await pair(disk, new MemoryDisk(), { limits: { snapshotBytesPerSecond: 8 * MiB } });
    m1.peers.sendSnapshot(order(file), file);
    await until("it has begun", () => m1.progressed.length > 0);
    m1.peers.sendSnapshot({ ...order(file), sentAtMs: 99 }, file);
    await outcome(m1);
    assert.deepEqual([m1.sent, m1.failed, m2.received.length], [["m2"], [], 1]);
    assert.equal(m2.received[0]?.message.sentAtMs, 99);
  });

  it("of two leaders the newer one's checkpoint is received, whichever came first", async () => {
    const [a, b] = [await checkpoint(4 * MiB, 100), await checkpoint(4 * MiB, 200)];
    const network = new MemoryNetwork({ clock });
    const limits = { snapshotBytesPerSecond: 8 * MiB };
    const m1 = await start("m1", network.at("m1"), a.disk, limits);
    const m3 = await start("m3", network.at("m3"), b.disk, limits);
    const m2 = await start("m2", network.at("m2"), new MemoryDisk(), limits);
    for (const one of [m1, m2, m3]) one.meet([m1, m2, m3]);
    m1.peers.sendSnapshot(order(a.file, 3), a.file);
    await until("the older leader's has begun", () => m1.progressed.length > 0);
    m3.peers.sendSnapshot({ ...order(b.file, 4), from: "m3" }, b.file);
    await until("both are over", () => m1.failed.length === 1 && m3.sent.length === 1);
    assert.match(m1.failed[0]?.reason ?? "", /another transfer takes its place/);
    m3.peers.sendSnapshot({ ...order(b.file, 4), from: "m3" }, b.file);
    await until("the newer leader's has begun", () => m3.progressed.length > 8);
    m1.peers.sendSnapshot(order(a.file, 3), a.file);
    await until("the older leader is refused", () => m1.failed.length === 2);
    assert.match(m1.failed[1]?.reason ?? "", /from the leader of term 4/);
    await until("the newer leader's arrives", () => m3.sent.length === 2);
    assert.deepEqual(
      m2.received.map(({ file }) => file.index),
      [200, 200],
    );
  });

  it("a receiver whose disk stands still is given up by the sender, and a peer without an address at once", async () => {
    const { disk, file } = await checkpoint(2 * MiB);
    const faulty = new FaultyDisk({ disk: new MemoryDisk(), clock });
    let unhang = (): void => {};
    const until_ = new Promise<void>((resolve) => (unhang = resolve));
    faulty.inject({ operation: "datasync", effect: { kind: "hang", until: until_ } });
    const { m1 } = await pair(disk, faulty, { limits: { stalledTicksMax: 10 } });
    m1.peers.sendSnapshot(order(file), file);
    await outcome(m1);
    assert.match(m1.failed[0]?.reason ?? "", /no progress/);
    unhang();
    m1.peers.sendSnapshot(order(file, 3, "m9"), file);
    await outcome(m1, 2);
    assert.match(m1.failed[1]?.reason ?? "", /m9 is no member/);
  });

  it("a receiver that writes nothing holds the sender back: a few chunks are read, and no more", async () => {
    const counted = new CountingDisk();
    const { file } = await checkpoint(32 * MiB, 100, counted);
    const slow = new FaultyDisk({ disk: await receiverDisk(), clock });
    const stuck = Promise.withResolvers<void>();
    slow.inject({ operation: "write", path: incoming, effect: { kind: "hang", until: stuck.promise } });
    const { m1 } = await pair(counted, slow);
    m1.peers.sendSnapshot(order(file), file);
    await until("the sender has begun", () => counted.reads > 0);
    await clock.sleep(100);
    assert.ok(counted.reads <= 8, `${counted.reads} of 64 chunks were read`);
    stuck.resolve();
    await outcome(m1);
    assert.deepEqual([m1.sent, counted.reads], [["m2"], 64]);
  });

  it("closing in the middle of a transfer ends both sides", async () => {
    const { disk, file } = await checkpoint(8 * MiB);
    const { m1, m2 } = await pair(disk, new MemoryDisk(), { limits: { snapshotBytesPerSecond: 4 * MiB } });
    m1.peers.sendSnapshot(order(file), file);
    await until("it has begun", () => m1.progressed.length > 0);
    await m2.peers.close();
    await m1.peers.close();
    assert.deepEqual([m1.sent, m2.received], [[], []]);
  });

  it("a throttle lets bytes through at its rate, whoever asks, and those that wait are let go when it is over", async () => {
    const manual = new ManualClock();
    const throttle = new Throttle({ clock: manual, bytesPerSecond: 1000 });
    const { signal } = new AbortController();
    const passedMs: number[] = [];
    const takers = Array.from({ length: 4 }, async () => {
      await throttle.take(100, signal);
      passedMs.push(manual.monotonicMs());
    });
    await manual.advance(1000);
    await Promise.all(takers);
    assert.deepEqual(passedMs, [0, 80, 180, 280]);
    const giveUp = new AbortController();
    await throttle.take(5000, giveUp.signal);
    const waiting = throttle.take(100, giveUp.signal);
    giveUp.abort();
    await waiting;
  });
});
