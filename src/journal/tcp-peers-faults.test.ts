import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { Random } from "../base/random.ts";
import { KiB, MiB } from "../base/units.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { MemoryNetwork } from "../io/memory-network.ts";
import type { Connection, Network } from "../io/network.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { describeMessage } from "../raft/describe.ts";
import { FrameWriter, frameKind, peerPreface } from "./peer-frame.ts";
import { helloDocument } from "./peer-hello.ts";
import { anyReport, append, heartbeat, TestMaster, until } from "./tcp-peers.test-support.ts";
import { defaultTcpPeersLimits } from "./tcp-peers.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const running: TestMaster[] = [];

afterEach(async () => {
  for (const { peers } of running.splice(0)) await peers.close();
});

type MasterOptions = Partial<ConstructorParameters<typeof TestMaster>[0]>;

class World {
  readonly clock = new ManualClock();
  readonly network = new MemoryNetwork({ clock: this.clock, latencyMs: 1 });

  async master(id: string, options: MasterOptions = {}): Promise<TestMaster> {
    const [network, listen] = [this.network.at(id), { host: id, port: 7072 }];
    const made = await new TestMaster({ id, network, listen, clock: this.clock, ...options }).start();
    running.push(made);
    return made;
  }

  /** Masters that know each other and are connected. */
  async cluster(ids: readonly string[], options: MasterOptions = {}): Promise<TestMaster[]> {
    const masters: TestMaster[] = [];
    for (const id of ids) masters.push(await this.master(id, options));
    for (const one of masters) one.meet(masters);
    await this.clock.advance(20);
    for (const one of masters) assert.equal(one.connected.length, ids.length - 1);
    return masters;
  }
}

function rounds(master: TestMaster): number[] {
  return master.messages.flatMap((message) => (message.type === "heartbeat" ? [message.round] : []));
}

describe(`masters that meet the wrong ones (SEED=${seed})`, () => {
  it("a master of another cluster is refused, and both are told what is wrong", async () => {
    const world = new World();
    const m1 = await world.master("m1");
    const m2 = await world.master("m2", { identity: { clusterId: "c2" } });
    m1.meet([m1, m2]);
    m2.meet([m1, m2]);
    await world.clock.advance(50);
    assert.deepEqual(m1.connected, []);
    assert.match(
      m1.refused[0]?.reason ?? "",
      /m1 belongs to cluster c1, m2 to c2: one of the two has another cluster's data/,
    );
    assert.match(m2.refused[0]?.reason ?? "", /m2 belongs to cluster c2, m1 to c1/);
    m1.peers.send([heartbeat("m1", "m2", 1)]);
    await world.clock.advance(5_000);
    assert.deepEqual(m2.messages, []);
    assert.ok(m1.refused.length < 15, `tried ${m1.refused.length} times in 5 s`);
  });

  it("a disk that the cluster does not know is refused by whoever sees it, and is told so, whoever dialled", async () => {
    for (const dialler of ["m1", "m2"]) {
      const world = new World();
      const m1 = await world.master("m1");
      const m2 = await world.master("m2", { identity: { incarnation: "new-disk" } });
      m1.refusal = ({ id, incarnation }) =>
        incarnation === "new-disk" ? `${id} has another disk than the one that is a member` : undefined;
      for (const one of [m1, m2]) if (one.id === dialler) one.meet([m1, m2]);
      await world.clock.advance(50);
      assert.deepEqual(
        [m1.connected, m2.connected, m2.refused[0]],
        [[], [], { id: "m1", reason: "m2 has another disk than the one that is a member" }],
      );
    }
  });

  it("another master at the address of one is not taken for it", async () => {
    const world = new World();
    const [m1, m3] = [await world.master("m1"), await world.master("m3")];
    m1.meet([m1, { id: "m2", address: m3.address }]);
    await world.clock.advance(50);
    assert.match(m1.refused[0]?.reason ?? "", /m3 answers at this address, not m2/);
    m1.meet([m1, m3, { id: "m2", address: m1.address }]);
    await world.clock.advance(50);
    assert.match(m1.refused.at(-1)?.reason ?? "", /m1 answers at this address, not m2/);
    assert.deepEqual(
      m1.connected.map(({ id }) => id),
      ["m3"],
    );
  });

  it("a release whose protocol is another one is refused with both sides' versions", async () => {
    const world = new World();
    const m1 = await world.master("m1");
    const connecting = world.network.at("m2").connect(m1.address);
    await world.clock.advance(5);
    const stream = await connecting;
    let answer = "";
    stream.onData = (chunk) => (answer += Buffer.from(chunk).toString("latin1"));
    const hello = {
      ...(helloDocument({ clusterId: "c1", id: "m2", incarnation: "i" }, "control", "m1") as object),
      protocolMin: 7,
      protocolMax: 9,
    };
    stream.write(
      Buffer.concat([peerPreface, new FrameWriter().encode(frameKind.hello, Buffer.from(JSON.stringify(hello)))]),
    );
    await world.clock.advance(20);
    assert.match(answer, /m2 speaks versions 7 to 9 of the masters' protocol, m1 1 to 1/);
  });

  it("strangers are cut off: other protocols at once, silent ones in time, large and many ones before they cost anything", async () => {
    const world = new World();
    const m1 = await world.master("m1");
    const closed: string[] = [];
    const stranger = async (name: string, bytes: Uint8Array): Promise<Connection> => {
      const stream = await world.network.at("stranger").connect(m1.address);
      stream.onData = () => {};
      stream.onClose = () => closed.push(name);
      if (bytes.length > 0) stream.write(bytes);
      return stream;
    };
    const join = Promise.all([
      stranger("http", Buffer.from("GET / HTTP/1.1\r\n\r\n")),
      stranger("silent", Buffer.alloc(0)),
      stranger("half", peerPreface.subarray(0, 2)),
      stranger(
        "large",
        Buffer.concat([peerPreface, new FrameWriter().encode(frameKind.hello, Buffer.alloc(20 * KiB))]),
      ),
      stranger("other", Buffer.concat([peerPreface, new FrameWriter().encode(frameKind.messages, Buffer.alloc(0))])),
      stranger("no hello", Buffer.concat([peerPreface, new FrameWriter().encode(frameKind.hello, Buffer.from("[]"))])),
    ]);
    await world.clock.advance(100);
    await join;
    assert.deepEqual(closed.sort(), ["http", "large", "no hello", "other"]);
    await world.clock.advance(defaultTcpPeersLimits.helloTimeoutMs);
    assert.deepEqual(closed.sort(), ["half", "http", "large", "no hello", "other", "silent"]);
    const crowd = Promise.all(
      Array.from({ length: defaultTcpPeersLimits.strangersMax + 10 }, (_, i) =>
        stranger(`crowd ${i}`, Buffer.alloc(0)),
      ),
    );
    await world.clock.advance(100);
    await crowd;
    assert.equal(closed.filter((name) => name.startsWith("crowd")).length, 10);
  });
});

describe(`masters whose connections break (SEED=${seed})`, () => {
  it("a broken connection is told at once and made again at once", async () => {
    const world = new World();
    const [m1, m2] = (await world.cluster(["m1", "m2"])) as [TestMaster, TestMaster];
    world.network.cut("m1", "m2");
    await world.clock.advance(2);
    assert.deepEqual([[...new Set(m1.unreachable)], [...new Set(m2.unreachable)]], [["m2"], ["m1"]]);
    await world.clock.advance(30);
    assert.deepEqual([m1.connected.length, m2.connected.length], [2, 2]);
    m1.peers.send([heartbeat("m1", "m2", 5)]);
    await world.clock.advance(5);
    assert.deepEqual(rounds(m2), [5]);
  });

  it("a master that was away for long is connected within 100 ms of its return, in both directions", async () => {
    const world = new World();
    const [m1, m2] = (await world.cluster(["m1", "m2"])) as [TestMaster, TestMaster];
    await m2.peers.close();
    await world.clock.advance(20_000);
    assert.deepEqual([...new Set(m1.unreachable)], ["m2"]);
    const back = await world.master("m2", { seed: 9 });
    back.meet([m1, back]);
    await world.clock.advance(100);
    assert.deepEqual([m1.connected.length, back.connected.length], [2, 1]);
    m1.peers.send([heartbeat("m1", "m2", 6), append("m1", "m2", 1, [Buffer.from("x")])]);
    await world.clock.advance(5);
    assert.equal(back.messages.length, 2);
  });

  it("a host that vanished without a word is noticed by silence, and found again when it is back", async () => {
    const world = new World();
    const [m1, m2, m3] = (await world.cluster(["m1", "m2", "m3"])) as [TestMaster, TestMaster, TestMaster];
    world.network.vanish("m2");
    const patienceMs = defaultTcpPeersLimits.keepAliveMs * (defaultTcpPeersLimits.silentTicksMax.control + 1);
    await world.clock.advance(patienceMs - 2 * defaultTcpPeersLimits.keepAliveMs);
    assert.deepEqual(m1.unreachable, []);
    await world.clock.advance(2 * defaultTcpPeersLimits.keepAliveMs);
    assert.deepEqual([...new Set(m1.unreachable)], ["m2"]);
    await world.clock.advance(60_000);
    await m2.peers.close();
    world.network.appear("m2");
    const back = await world.master("m2");
    back.meet([m1, back, m3]);
    await world.clock.advance(100);
    assert.deepEqual([back.connected.length, m1.connected.length, m3.connected.length], [2, 3, 3]);
  });

  it("after a partition both find each other within the longest pause between two attempts", async () => {
    const world = new World();
    const [m1, m2] = (await world.cluster(["m1", "m2"])) as [TestMaster, TestMaster];
    world.network.partition("m1", "m2");
    await world.clock.advance(60_000);
    assert.deepEqual([[...new Set(m1.unreachable)], [...new Set(m2.unreachable)]], [["m2"], ["m1"]]);
    world.network.heal();
    await world.clock.advance(defaultTcpPeersLimits.backoffMaxMs + defaultTcpPeersLimits.connectTimeoutMs);
    assert.ok(m1.connected.length >= 2 && m2.connected.length >= 2);
    m1.peers.send([heartbeat("m1", "m2", 7)]);
    m2.peers.send([heartbeat("m2", "m1", 8)]);
    await world.clock.advance(5);
    assert.deepEqual([rounds(m2), rounds(m1)], [[7], [8]]);
  });

  it("a pause of the own process proves nothing about the others", async () => {
    const clock = new NodeClock();
    const network = new TcpNetwork();
    const limits = { keepAliveMs: 20, silentTicksMax: { control: 5, log: 5, snapshot: 5 } };
    const masters: TestMaster[] = [];
    for (const id of ["m1", "m2"]) masters.push(await new TestMaster({ id, network, clock, limits }).start());
    running.push(...masters);
    for (const one of masters) one.meet(masters);
    for (const one of masters) await until(`${one.id} is connected`, () => one.connected.length === 1);
    const pausedUntilMs = performance.now() + 500;
    while (performance.now() < pausedUntilMs);
    await clock.sleep(100);
    assert.deepEqual(
      masters.map(({ unreachable }) => unreachable),
      [[], []],
    );
  });

  it("any byte that is spoilt on the way ends its connection, and nothing wrong arrives", async () => {
    const random = new Random(seed);
    for (let round = 0; round < 30; round++) {
      const world = new World();
      let spoilAt = random.between(200, 3_000);
      const wrap = (plain: Network): Network =>
        changed(plain, (bytes) => {
          const at = spoilAt;
          spoilAt -= bytes.length;
          if (at < 0 || at >= bytes.length) return bytes;
          const spoilt = Uint8Array.from(bytes);
          spoilt[at] = (spoilt[at] as number) ^ (1 << random.between(0, 7));
          return spoilt;
        });
      const m1 = await world.master("m1", { network: wrap(world.network.at("m1")) });
      const m2 = await world.master("m2");
      m1.meet([m1, m2]);
      const sent = Array.from({ length: 60 }, (_, i) =>
        i % 2 === 0 ? heartbeat("m1", "m2", i) : append("m1", "m2", i, [Buffer.from(String(random.uint32()))]),
      );
      for (const message of sent) {
        await world.clock.advance(5);
        m1.peers.send([message]);
      }
      await world.clock.advance(2_000);
      const sentTexts = sent.map(describeMessage);
      const texts = m2.messages.map(describeMessage);
      assert.ok(texts.length > 5, `round ${round}: only ${texts.length} arrived`);
      assert.equal(new Set(texts).size, texts.length, `round ${round}: something came twice`);
      // Heartbeats and appends come by connections of their own: each kind in its order.
      for (const type of [" heartbeat ", " append "]) {
        const order = texts.filter((text) => text.includes(type));
        assert.deepEqual(
          order,
          sentTexts.filter((text) => order.includes(text)),
          `round ${round}`,
        );
      }
      if (spoilAt < 0) assert.ok([...m1.logLines, ...m2.logLines].length > 0, "it is in the log");
      for (const { peers } of running.splice(0)) await peers.close();
      await world.clock.advance(10);
      assert.equal(world.network.connectionCount, 0);
    }
  });
});

describe("what masters send each other", () => {
  it("what does not fit into the queue of a peer that takes nothing is dropped and told, and heartbeats still have room", async () => {
    const world = new World();
    const limits = { queueBytes: 4 * MiB, silentTicksMax: { control: 1000, log: 1000, snapshot: 1000 } };
    const [m1, m2] = (await world.cluster(["m1", "m2"], { limits })) as [TestMaster, TestMaster];
    world.network.partition("m1", "m2", { oneWay: true });
    for (let i = 0; i < 100; i++) {
      m1.peers.send([heartbeat("m1", "m2", i), append("m1", "m2", i, [new Uint8Array(MiB / 2)])]);
      await world.clock.advance(1);
    }
    assert.ok(m1.unreachable.length >= 90, `told ${m1.unreachable.length} times`);
    world.network.heal();
    await world.clock.advance(10);
    assert.deepEqual(
      rounds(m2),
      Array.from({ length: 100 }, (_, i) => i),
    );
    const arrived = m2.messages.flatMap((message) => (message.type === "append" ? [message.prevIndex] : []));
    assert.deepEqual(arrived, [0, 1, 2, 3, 4, 5, 6]);
    m1.peers.send([append("m1", "m2", 500, [new Uint8Array(5 * MiB)])]);
    await world.clock.advance(10);
    assert.equal(m2.messages.at(-1)?.type, "append", "a message larger than the queue goes alone");
  });

  it("the number of waiting messages is bounded, too", async () => {
    const world = new World();
    const limits = { queueMessages: 10, silentTicksMax: { control: 1000, log: 1000, snapshot: 1000 } };
    const [m1, m2] = (await world.cluster(["m1", "m2"], { limits })) as [TestMaster, TestMaster];
    m1.peers.send(Array.from({ length: 50 }, (_, i) => heartbeat("m1", "m2", i)));
    await world.clock.advance(10);
    m1.peers.send([heartbeat("m1", "m2", 99)]);
    await world.clock.advance(10);
    assert.deepEqual([rounds(m2), m1.unreachable], [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 99], ["m2"]]);
  });

  it("heartbeats and votes do not wait behind entries that the peer does not take", async () => {
    const world = new World();
    const network = changed(world.network.at("m1"), (bytes, lane) =>
      lane === "log" && bytes.length > 100 * KiB ? undefined : bytes,
    );
    const m1 = await world.master("m1", { network });
    const m2 = await world.master("m2");
    m1.meet([m1, m2]);
    await world.clock.advance(20);
    m1.peers.send([append("m1", "m2", 1, [new Uint8Array(MiB)])]);
    m1.peers.send([
      heartbeat("m1", "m2", 1),
      { type: "vote", from: "m1", to: "m2", term: 9, lastIndex: 1, lastTerm: 1, transfer: false },
    ]);
    await world.clock.advance(5);
    assert.deepEqual(
      m2.messages.map(({ type }) => type),
      ["heartbeat", "vote"],
    );
  });

  it("entries for several peers are encoded once, and what is sent together leaves together", async () => {
    const world = new World();
    const writes: Uint8Array[] = [];
    const m1 = await world.master("m1", {
      network: changed(world.network.at("m1"), (bytes) => (writes.push(bytes), bytes)),
    });
    const others = [await world.master("m2"), await world.master("m3")];
    m1.meet([m1, ...others]);
    await world.clock.advance(20);
    writes.length = 0;
    const large = append("m1", "m2", 1, [new Uint8Array(200 * KiB), new Uint8Array(10)]);
    m1.peers.send([large, { ...large, to: "m3" }]);
    await world.clock.advance(1);
    const bodies = writes.filter((bytes) => bytes.length > 100 * KiB);
    assert.equal(bodies.length, 2);
    assert.equal(bodies[0], bodies[1]);
    writes.length = 0;
    m1.peers.send(Array.from({ length: 20 }, (_, i) => heartbeat("m1", "m2", i)));
    await world.clock.advance(1);
    assert.equal(writes.length, 1);
  });

  it("a master that knows nobody answers, and reports, by the connection it was dialled by", async () => {
    const world = new World();
    const [leader, joining] = [await world.master("m1"), await world.master("m9")];
    joining.peers.report({ ...anyReport, fresh: true });
    leader.peers.report(anyReport);
    leader.meet([leader, joining]);
    await world.clock.advance(20);
    joining.peers.send([
      { type: "append-reject", from: "m9", to: "m1", term: 1, prevIndex: 9, hintIndex: 0, hintTerm: 0, sentAtMs: 1 },
    ]);
    joining.peers.report({ ...anyReport, appliedIndex: 50 });
    await world.clock.advance(10);
    assert.deepEqual(
      leader.messages.map(({ type, from }) => [type, from]),
      [["append-reject", "m9"]],
    );
    assert.deepEqual(
      leader.reports.map(({ id, report }) => [id, report.fresh, report.appliedIndex]),
      [
        ["m9", true, 41],
        ["m9", undefined, 50],
      ],
    );
    assert.deepEqual(joining.reports, [{ id: "m1", report: anyReport }]);
    world.network.cut("m1", "m9");
    await world.clock.advance(2);
    assert.deepEqual(joining.unreachable, ["m1"]);
  });

  it("a member that is removed is disconnected, one that moved is dialled at its new address", async () => {
    const world = new World();
    const [m1, m2, m3] = (await world.cluster(["m1", "m2", "m3"])) as [TestMaster, TestMaster, TestMaster];
    m1.meet([m1, m2]);
    m1.refusal = ({ id }) => (id === "m3" ? "m3 was removed" : undefined);
    await world.clock.advance(1_500);
    assert.deepEqual(m3.refused[0], { id: "m1", reason: "m3 was removed" });
    m1.peers.send([heartbeat("m1", "m3", 1)]);
    m3.peers.send([heartbeat("m3", "m1", 1)]);
    await world.clock.advance(10);
    assert.deepEqual([rounds(m1), rounds(m3)], [[], []]);
    await m2.peers.close();
    const moved = await world.master("m2", { listen: { host: "m2", port: 9999 } });
    m1.meet([m1, moved]);
    await world.clock.advance(50);
    m1.peers.send([heartbeat("m1", "m2", 2)]);
    await world.clock.advance(10);
    assert.deepEqual(rounds(moved), [2]);
  });

  it("nothing is left of masters that were closed, and closing twice is closing once", async () => {
    const world = new World();
    const masters = await world.cluster(["m1", "m2", "m3"]);
    await Promise.all(masters.flatMap(({ peers }) => [peers.close(), peers.close()]));
    await world.clock.advance(5_000);
    assert.equal(world.network.connectionCount, 0);
    assert.equal(world.clock.pendingCount, 0);
  });
});

/** A network whose dialled connections show what is written to them, with what they are for; `undefined`: it gets stuck. */
function changed(
  plain: Network,
  change: (bytes: Uint8Array, lane: string | undefined) => Uint8Array | undefined,
): Network {
  return {
    listen: (...args) => plain.listen(...args),
    connect: async (...args) => {
      const connection = await plain.connect(...args);
      const write = connection.write.bind(connection);
      let lane: string | undefined;
      let isStuck = false;
      connection.write = (bytes) => {
        lane ??= /"lane":"([a-z]+)"/.exec(Buffer.from(bytes).toString("latin1"))?.[1];
        const instead = isStuck ? undefined : change(bytes, lane);
        isStuck = instead === undefined;
        return instead !== undefined && write(instead);
      };
      return connection;
    },
  };
}
