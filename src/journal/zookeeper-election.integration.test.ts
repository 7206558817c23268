/** Elections among masters that are objects of this process, by a real ensemble: who should lead, when, and what it costs. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "../base/random.ts";
import { silentLogger } from "../io/logger.ts";
import type { Connection, Listener } from "../io/network.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { CuttableNetwork } from "../testing/cuttable-network.ts";
import { hasZooKeeper, withZooKeeper, type ZooKeeperEnsemble } from "../testing/zookeeper-ensemble.ts";
import { openAcl } from "../zookeeper/protocol.ts";
import { ZooKeeper } from "../zookeeper/zookeeper.ts";
import type { ElectionView } from "./election.ts";
import { ZooKeeperElection } from "./zookeeper-election.ts";
import type { ZooKeeperElectionLimits } from "./zookeeper-election-options.ts";

const clock = new NodeClock();
const available = await hasZooKeeper();
const sessionTimeoutMs = 2000;

describe("by a real ensemble", { skip: available ? false : "zookeeper (Debian) is not installed" }, () => {
  let directory: string;
  let ensemble: ZooKeeperEnsemble;
  let end: () => void;
  let ended: Promise<void>;
  const open = new Set<Master>();

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "headpond-zk-election-"));
    await new Promise<void>((ready, failed) => {
      ended = withZooKeeper(directory, async (started) => {
        ensemble = started;
        ready();
        await new Promise<void>((done) => (end = done));
      });
      ended.catch(failed);
    });
  });

  after(async () => {
    end?.();
    await ended;
    await rm(directory, { recursive: true, force: true });
  });

  /** A master with an RPC port that answers whatever comes, which claims as soon as it should and says so. */
  class Master {
    readonly id: string;
    readonly network = new CuttableNetwork(new TcpNetwork());
    readonly views: ElectionView[] = [];
    readonly epochs: number[] = [];
    readonly election: ZooKeeperElection;
    incarnation: string;
    sessions: ZooKeeper[] = [];
    claims = true;
    readonly #epoch: () => number;
    readonly #listener: Listener;
    readonly #connections: Set<Connection>;

    private constructor(
      id: string,
      listener: Listener,
      connections: Set<Connection>,
      options: MasterOptions & { readonly root: string; readonly nextEpoch: () => number },
    ) {
      this.id = id;
      this.#listener = listener;
      this.#connections = connections;
      this.#epoch = options.nextEpoch;
      this.incarnation = options.incarnation ?? randomUUID();
      const random = new Random(randomSeed());
      this.election = new ZooKeeperElection({
        connect: () => {
          const { network } = this;
          const { servers } = ensemble;
          const made = new ZooKeeper({ network, clock, logger: silentLogger, random, servers, sessionTimeoutMs });
          this.sessions.push(made);
          return made;
        },
        network: new TcpNetwork(),
        clock,
        logger: silentLogger,
        random,
        root: options.root,
        acl: openAcl,
        clusterId: options.clusterId ?? "c1",
        software: "test",
        candidate: () => ({ id, rpc: `127.0.0.1:${listener.address.port}`, http: "127.0.0.1:1", featureLevel: 1 }),
        incarnation: this.incarnation,
        newMark: () => randomUUID().replaceAll("-", ""),
        limits: options.limits ?? {},
      });
      this.election.onChange((view) => {
        this.views.push(view);
        this.#claim(view);
      });
    }

    static async start(
      id: string,
      options: MasterOptions & { readonly root: string; readonly nextEpoch: () => number },
    ): Promise<Master> {
      const connections = new Set<Connection>();
      const listener = await new TcpNetwork().listen({ host: "127.0.0.1", port: 0 }, (connection) => {
        connections.add(connection);
        connection.onData = () => connection.write(Buffer.from([0]));
        connection.onClose = () => connections.delete(connection);
      });
      const master = new Master(id, listener, connections, options);
      if (options.claims === false) master.claims = false;
      open.add(master);
      await master.election.start();
      return master;
    }

    get leads(): boolean {
      return this.election.view.shouldLead && this.epochs.length > 0;
    }

    get requests(): number {
      return this.sessions.reduce((sum, session) => sum + session.requestCount, 0);
    }

    /** As kill -9 does: its port is closed, and nothing is heard of it any more. */
    async die(): Promise<void> {
      this.claims = false;
      this.network.cut();
      await this.closePort();
    }

    async closePort(): Promise<void> {
      await this.#listener.close();
      for (const connection of this.#connections) connection.destroy();
    }

    hang(): void {
      this.network.cut();
      for (const connection of this.#connections) connection.onData = () => {};
    }

    async close(): Promise<void> {
      open.delete(this);
      await this.closePort();
      await this.election.close();
    }

    #claim(view: ElectionView): void {
      if (!this.claims || !view.shouldLead || !view.connected || view.leaderId !== this.id) return;
      if (this.views.at(-2)?.shouldLead === true) return;
      const epoch = this.#epoch();
      this.epochs.push(epoch);
      this.election.announce(epoch);
    }
  }

  type MasterOptions = {
    readonly clusterId?: string;
    readonly incarnation?: string;
    readonly limits?: Partial<ZooKeeperElectionLimits>;
    readonly claims?: boolean;
  };

  /** A cluster of `ids`, started one after the other; all are closed at the end. */
  const cluster = async (
    ids: readonly string[],
    use: (masters: Master[], more: (id: string, options?: MasterOptions) => Promise<Master>) => Promise<void>,
    options: MasterOptions = {},
  ): Promise<void> => {
    const root = `/test/${randomUUID()}`;
    let epoch = 0;
    const more = (id: string, own: MasterOptions = {}): Promise<Master> =>
      Master.start(id, { root, nextEpoch: () => ++epoch, ...options, ...own });
    const masters: Master[] = [];
    try {
      for (const id of ids) masters.push(await more(id));
      if (masters.length > 0) await until(() => masters.every(({ election }) => election.view.leaderId === ids[0]));
      await use(masters, more);
    } finally {
      await Promise.all([...open].map((master) => master.close()));
    }
  };

  test("the oldest leads, all know it and each other", () =>
    cluster(["m1", "m2", "m3"], async (masters) => {
      const [m1, m2, m3] = masters as [Master, Master, Master];
      await until(() => m1.leads && masters.every(({ election }) => election.view.candidates.length === 3));
      for (const { election } of masters) {
        assert.equal(election.view.leaderId, "m1");
        assert.equal(election.view.connected, true);
        assert.deepEqual(election.view.candidates.map(({ id }) => id).sort(), ["m1", "m2", "m3"]);
      }
      assert.deepEqual([m2.epochs, m3.epochs], [[], []]);
    }));

  test("a leader that closes is followed by the next at once, and is absent afterwards until it is forgotten", () =>
    cluster(["m1", "m2", "m3"], async (masters) => {
      const [m1, m2, m3] = masters as [Master, Master, Master];
      await until(() => m1.leads);
      await m1.close();
      await until(() => m2.leads && m3.election.view.leaderId === "m2");
      assert.deepEqual(m3.epochs, []);
      await until(() => m3.election.view.absent?.[0]?.id === "m1");
      await assert.rejects(m3.election.forget("m2"), { code: "invalid" });
      await assert.rejects(m3.election.forget("m9"), { code: "not-found" });
      await m3.election.forget("m1");
      assert.deepEqual(m3.election.view.absent, []);
    }));

  test("a leader whose port is closed is followed before its session has expired", () =>
    cluster(["m1", "m2", "m3"], async (masters) => {
      const [m1, m2, m3] = masters as [Master, Master, Master];
      await until(() => m1.leads);
      await until(() => m2.election.view.candidates.length === 3);
      await sleep(300);
      await m1.die();
      await until(() => m2.leads);
      assert.equal(
        m2.election.view.candidates.some(({ id }) => id === "m1"),
        true,
        "its session was alive still",
      );
      await until(() => m3.election.view.leaderId === "m2");
      assert.deepEqual(m3.epochs, []);
      // Its session goes on now, and it learns that somebody else has claimed.
      m1.network.heal();
      await until(() => !m1.election.view.shouldLead);
    }));

  test("a leader that hangs is followed, too", () =>
    cluster(["m1", "m2"], async (masters) => {
      const [m1, m2] = masters as [Master, Master];
      await until(() => m1.leads);
      m1.hang();
      await until(() => m2.leads);
    }));

  test("a hint is withdrawn when the leader answers again", () =>
    cluster(["m1", "m2"], async (masters) => {
      const [m1, m2] = masters as [Master, Master];
      await until(() => m1.leads);
      m2.claims = false;
      await m1.closePort();
      await until(() => m2.election.view.shouldLead);
      await new TcpNetwork()
        .listen(
          {
            host: "127.0.0.1",
            port: Number(m2.election.view.candidates.find(({ id }) => id === "m1")?.rpc.split(":")[1]),
          },
          (connection) => {
            connection.onData = () => connection.write(Buffer.from([0]));
          },
        )
        .then(async (listener) => {
          await until(() => !m2.election.view.shouldLead);
          await listener.close();
        });
      assert.equal(m1.leads, true);
    }));

  test("leadership is handed to whom it is meant for, or to the next", () =>
    cluster(["m1", "m2", "m3"], async (masters) => {
      const [m1, m2, m3] = masters as [Master, Master, Master];
      await until(() => m1.leads && m1.election.view.candidates.length === 3);
      await assert.rejects(m1.election.yieldTo("m9"), { code: "not-found" });
      assert.equal(m1.leads, true);
      await m1.election.yieldTo("m3");
      assert.equal(m1.election.view.shouldLead, false);
      await until(() => m3.leads && masters.every(({ election }) => election.view.leaderId === "m3"));
      assert.deepEqual(m2.epochs, []);
      await m3.election.yieldTo(undefined);
      await until(() => m2.leads);
      assert.deepEqual([m1.epochs, m2.epochs, m3.epochs], [[1], [3], [2]]);
    }));

  test("a master that was cut off for longer than its session takes part again by itself", () =>
    cluster(["m1", "m2"], async (masters) => {
      const [m1, m2] = masters as [Master, Master];
      await until(() => m1.leads);
      m1.network.cut();
      // Its port answers: there is no hint, only the expiry.
      await until(() => m2.leads);
      assert.equal(m1.election.view.connected, false);
      assert.equal(m1.election.view.shouldLead, true, "nobody has told it yet: storage does");
      m1.network.heal();
      await until(() => m1.election.view.connected && !m1.election.view.shouldLead);
      await until(() => m1.sessions.length === 2 && m2.election.view.candidates.length === 2);
      await m2.election.yieldTo(undefined);
      await until(() => m1.leads && m1.epochs.length === 2);
    }));

  test("while ZooKeeper is down the leader goes on, nobody else leads, and it keeps its place afterwards", () =>
    cluster(["m1", "m2", "m3"], async (masters) => {
      const [m1, m2, m3] = masters as [Master, Master, Master];
      await until(() => m1.leads);
      for (let i = 0; i < 3; i++) await ensemble.stop(i);
      await until(() => masters.every(({ election }) => !election.view.connected));
      // Long enough that every session is over in the eyes of its owner.
      await until(() => masters.every(({ sessions }) => sessions.length > 1));
      assert.equal(m1.leads, true);
      assert.deepEqual([m2.election.view.shouldLead, m3.election.view.shouldLead], [false, false]);
      await assert.rejects(m1.election.yieldTo("m2"), { code: "unavailable" });
      await Promise.all([0, 1, 2].map((i) => ensemble.start(i)));
      await until(() => masters.every(({ election }) => election.view.connected));
      await until(() => masters.every(({ election }) => election.view.candidates.length === 3));
      assert.deepEqual([m1.epochs, m2.epochs, m3.epochs], [[1], [], []]);
      assert.equal(m1.leads, true);
    }));

  test("a master that comes back on its directory removes what its dead process left", () =>
    cluster(["m1", "m2"], async (masters, more) => {
      const [m1, m2] = masters as [Master, Master];
      await until(() => m1.leads);
      m2.claims = false;
      m1.claims = false;
      m1.network.cut();
      await more("m1", { incarnation: m1.incarnation });
      // By the removal, not by the expiry: the one cut off is still believed alive then.
      await until(() => m2.election.view.shouldLead);
      assert.notEqual(m1.sessions[0]?.state, "expired");
    }));

  test("a root that belongs to another cluster is refused, by name", () =>
    cluster(["m1"], async (_masters, more) => {
      await assert.rejects(more("x1", { clusterId: "c2" }), (error: Error) => {
        assert.match(error.message, /belongs to cluster c1, this master to c2/);
        return true;
      });
    }));

  test("who should lead and does not get to it lets the others try", () =>
    cluster([], async (_masters, more) => {
      const limits = { patienceMs: 500 };
      const m1 = await more("m1", { claims: false, limits });
      await until(() => m1.election.view.shouldLead);
      const m2 = await more("m2", { limits });
      await until(() => m2.leads);
      await until(() => m1.election.view.leaderId === "m2");
    }));

  test("of twenty, the death of the leader makes one lead, and costs each of the others three requests", () =>
    cluster(
      Array.from({ length: 20 }, (_, i) => `m${i + 1}`),
      async (masters) => {
        const [m1, m2, ...others] = masters as [Master, Master, ...Master[]];
        await until(() => m1.leads && others.at(-1)?.election.view.candidates.length === 20);
        const before = masters.map(({ requests }) => requests);
        await m1.die();
        await until(() => m2.leads && others.every(({ election }) => election.view.leaderId === "m2"));
        const asked = others.map(({ requests }, i) => requests - (before[i + 2] as number));
        assert.deepEqual(
          others.flatMap(({ epochs }) => epochs),
          [],
        );
        const most = Math.max(...asked);
        assert.ok(most <= 3, `${asked.join(", ")} requests of those who did not lead`);
        const own = m2.requests - (before[1] as number);
        // It has not seen the 18 younger ones before.
        assert.ok(own <= 18 + 15, `${own} requests of the one that did`);
      },
      // Nobody looks without an event meanwhile.
      { limits: { lookEveryMs: 60_000 } },
    ));
});

function randomSeed(): number {
  return Math.floor(Math.random() * 2 ** 32);
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 40_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`it did not come true: ${holds.toString()}`);
    await sleep(10);
  }
}
