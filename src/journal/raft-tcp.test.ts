import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { present } from "../base/assert.ts";
import type { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { MemoryNetwork } from "../io/memory-network.ts";
import { Metrics } from "../io/metrics.ts";
import { quickRaft } from "../testing/raft-group.ts";
import { RunningClock } from "../testing/running-clock.ts";
import { formatJournal } from "./format.ts";
import { ListMachine } from "./list-machine.ts";
import { mortalDisk } from "./mortal-disk.ts";
import { RaftJournal } from "./raft-journal.ts";
import { TcpPeers } from "./tcp-peers.ts";
import { defaultWalLimits } from "./wal.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const clusterId = "c1" as ClusterId;
const worlds: World[] = [];

after(async () => {
  for (const world of worlds) await world.close();
});

type Life = {
  readonly journal: RaftJournal<string>;
  readonly machine: ListMachine;
  readonly fatal: HeadpondError[];
  readonly kill: () => Promise<void>;
};

/** Raft journals whose peers are the real ones, over a network in memory. */
class World {
  readonly clock = new RunningClock();
  readonly network = new MemoryNetwork({ clock: this.clock, latencyMs: 1 });
  readonly lives = new Map<string, Life>();
  readonly #random = new Random(seed);
  readonly #disks = new Map<string, MemoryDisk>();

  constructor() {
    worlds.push(this);
  }

  async format(id: string, founders: readonly string[] | undefined): Promise<void> {
    const disk = new MemoryDisk();
    this.#disks.set(id, disk);
    const addresses = founders?.map((name) => [name, `${name}:7072`]);
    const raft = { id, incarnation: `disk-of-${id}`, founders: addresses && Object.fromEntries(addresses) };
    await formatJournal({ disk, clock: this.clock, directory: "/journal", clusterId, segmentBytes: 64 * KiB, raft });
  }

  async open(id: string): Promise<Life> {
    const { clock } = this;
    const { disk, kill } = mortalDisk(present(this.#disks.get(id), "formatted"));
    const machine = new ListMachine(disk);
    const fatal: HeadpondError[] = [];
    const random = new Random(this.#random.uint32());
    const snapshots = { disk, directory: "/journal/incoming" };
    const listen = { host: id, port: 7072 };
    const peers = new TcpPeers({
      network: this.network.at(id),
      clock,
      logger: silentLogger,
      random,
      listen,
      snapshots,
    });
    const journal = new RaftJournal<string>({
      disk,
      clock,
      logger: silentLogger,
      metrics: new Metrics(),
      directory: "/journal",
      clusterId,
      id,
      machine,
      peers,
      random,
      addresses: () => ({ rpc: `${id}:7070`, http: `${id}:7071` }),
      bootId: "boot",
      limits: {
        wal: { ...defaultWalLimits, segmentBytes: 64 * KiB, reserveBytes: 0 },
        raft: quickRaft,
        logKeepBytes: 0,
      },
      onFatal: (error) => fatal.push(error),
    });
    const life = {
      journal,
      machine,
      fatal,
      kill: async () => {
        journal.abandon();
        await Promise.all([peers.close(), kill()]);
        this.lives.delete(id);
      },
    };
    this.lives.set(id, life);
    await journal.start();
    return life;
  }

  async cluster(ids: readonly string[]): Promise<void> {
    for (const id of ids) await this.format(id, ids);
    await Promise.all(ids.map((id) => this.open(id)));
  }

  async until<T>(what: string, find: () => T | undefined | false): Promise<T> {
    const endMs = this.clock.monotonicMs() + 20_000;
    for (;;) {
      const found = find();
      if (found !== undefined && found !== false) return found;
      const statuses = [...this.lives].map(([id, { journal }]) => `${id} ${JSON.stringify(journal.status())}`);
      if (this.clock.monotonicMs() > endMs) throw new Error(`waited in vain until ${what}: ${statuses.join(", ")}`);
      await this.clock.sleep(5);
    }
  }

  leader(): Promise<Life & { readonly id: string }> {
    return this.until("somebody leads", () => {
      const [id, life] = [...this.lives].find(([, { journal }]) => journal.role === "leader") ?? [];
      return id !== undefined && life !== undefined && { id, ...life };
    });
  }

  async settled(): Promise<void> {
    await this.until("all have the same", () => {
      const indexes = [...this.lives.values()].map(({ journal }) => journal.status().appliedIndex);
      const commit = Math.max(...[...this.lives.values()].map(({ journal }) => journal.status().commitIndex));
      return indexes.every((index) => index === commit);
    });
    const [first, ...others] = [...this.lives.values()];
    for (const { machine } of others) assert.deepEqual(machine.list, first?.machine.list);
    for (const { fatal } of this.lives.values()) assert.deepEqual(fatal, []);
  }

  async close(): Promise<void> {
    await Promise.all([...this.lives.values()].map(({ journal }) => journal.close()));
    this.clock.stop();
  }
}

const command = (text: string): Uint8Array => Buffer.from(text);

describe(`Raft journals with the real peers (SEED=${seed})`, () => {
  it("three founders find each other at once, replicate, and go on without their leader", async () => {
    const world = new World();
    const startedMs = world.clock.monotonicMs();
    await world.cluster(["m1", "m2", "m3"]);
    const first = await world.leader();
    const foundMs = world.clock.monotonicMs() - startedMs;
    assert.ok(foundMs < 1_000, `founding took ${foundMs} ms of the simulated clock`);
    await Promise.all(Array.from({ length: 300 }, (_, n) => first.journal.propose(command(`first ${n}`))));
    await world.settled();
    await first.kill();
    const second = await world.leader();
    await second.journal.propose(command("second"));
    await world.open(first.id);
    await world.settled();
  });

  it("a master that joins with an empty disk gets the checkpoint and what came after it", async () => {
    const world = new World();
    await world.cluster(["m1", "m2", "m3"]);
    const leader = await world.leader();
    for (let n = 0; n < 20; n++)
      await Promise.all(
        Array.from({ length: 50 }, (_, i) => leader.journal.propose(command(`${n}/${i} ${"x".repeat(200)}`))),
      );
    for (let round = 0; round < 2; round++) {
      await leader.journal.checkpoint();
      await leader.journal.propose(command(`behind checkpoint ${round}`));
    }
    assert.ok(leader.journal.status().firstIndex > 1, "the log was cut");
    await world.format("m4", undefined);
    const joining = await world.open("m4");
    const resetsBefore = joining.machine.resets;
    const change = leader.journal.cluster.changeMembers({ kind: "add", id: "m4", address: "m4:7072" });
    let proposals = 0;
    const writing = (async () => {
      while (joining.machine.resets === resetsBefore) {
        await leader.journal.propose(command(`meanwhile ${proposals++}`));
        await world.clock.sleep(1);
      }
    })();
    await change;
    await writing;
    await leader.journal.cluster.changeMembers({ kind: "promote", id: "m4" });
    await world.settled();
    assert.ok(joining.machine.resets > resetsBefore && proposals > 0);
    const described = leader.journal.configuration.members["m4"];
    assert.equal(described?.incarnation, "disk-of-m4");
  });
});
