/**
 * Several Raft journals in one process over memory: their disks, their peers, and what a test does to them. Each master's
 * state is a list (list-machine.ts), so that every difference shows.
 */

import { present } from "../base/assert.ts";
import type { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { formatJournal } from "../journal/format.ts";
import type { Role } from "../journal/journal.ts";
import { ListMachine } from "../journal/list-machine.ts";
import { mortalDisk } from "../journal/mortal-disk.ts";
import { RaftJournal } from "../journal/raft-journal.ts";
import type { RaftJournalLimits } from "../journal/raft-limits.ts";
import { defaultWalLimits } from "../journal/wal.ts";
import { membersOf } from "../raft/membership.ts";
import { MemoryPeerNetwork, type MemoryPeers } from "./memory-peers.ts";

export const groupSegmentBytes = 64 * KiB;
const clusterId = "group" as ClusterId;
const directory = "/journal";

export const quickRaft = { tickMs: 5, heartbeatMs: 15, electionTimeoutMs: 100, leaseMs: 90, snapshotTimeoutMs: 2000 };

export type Master = {
  readonly id: string;
  readonly journal: RaftJournal<string>;
  readonly machine: ListMachine;
  readonly peers: MemoryPeers;
  readonly fatal: HeadpondError[];
  readonly diverged: string[];
  /** What others said when they refused it. */
  readonly refusals: string[];
};

export type MasterView = {
  /** Its own view of the disk, e.g. one with faults. */
  readonly wrap?: (disk: Disk) => Disk;
  /** How many operations on the disk it lives to begin. */
  readonly operations?: number;
  /** Heard from before the start on. */
  readonly onRole?: (role: Role) => void;
};

export type RaftGroupOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly ids?: readonly string[];
  readonly network?: MemoryPeerNetwork;
  readonly limits?: Partial<RaftJournalLimits>;
  readonly makeMachine?: (disk: Disk) => ListMachine;
};

export class RaftGroup {
  readonly network: MemoryPeerNetwork;
  readonly clock: Clock;
  readonly #options: RaftGroupOptions;
  readonly #ids: readonly string[];
  readonly #disks = new Map<string, MemoryDisk>();
  readonly #masters = new Map<string, Master & { readonly kill: () => Promise<void> }>();
  #incarnations = 0;

  constructor(options: RaftGroupOptions) {
    this.#options = options;
    this.clock = options.clock;
    this.network = options.network ?? new MemoryPeerNetwork({ clock: options.clock });
    this.#ids = options.ids ?? ["m1", "m2", "m3"];
  }

  /** Formats all founders and starts them. */
  static async start(options: RaftGroupOptions): Promise<RaftGroup> {
    const group = new RaftGroup(options);
    for (const id of group.#ids) await group.format(id);
    await Promise.all(group.#ids.map((id) => group.open(id)));
    return group;
  }

  get ids(): readonly string[] {
    return this.#ids;
  }

  get masters(): readonly Master[] {
    return [...this.#masters.values()];
  }

  disk(id: string): MemoryDisk {
    return present(this.#disks.get(id), `${id} has a disk`);
  }

  master(id: string): Master {
    return present(this.#masters.get(id), `${id} runs`);
  }

  /** On a new, empty disk. `joins`: to a cluster that exists, instead of founding one. */
  async format(
    id: string,
    options: { readonly joins?: boolean; readonly founders?: readonly string[] } = {},
  ): Promise<void> {
    const disk = new MemoryDisk();
    this.#disks.set(id, disk);
    const founders = options.joins === true ? undefined : (options.founders ?? this.#ids);
    await formatJournal({
      disk,
      clock: this.clock,
      directory,
      clusterId,
      segmentBytes: groupSegmentBytes,
      raft: {
        id,
        incarnation: `disk-${++this.#incarnations}`,
        founders: founders === undefined ? undefined : Object.fromEntries(founders.map((name) => [name, `${name}:1`])),
      },
    });
  }

  /** Starts a master on what its disk has. */
  async open(id: string, view: MasterView = {}): Promise<Master> {
    const { random, limits } = this.#options;
    const mortal = mortalDisk(view.wrap?.(this.disk(id)) ?? this.disk(id), view.operations);
    const { disk } = mortal;
    const machine = this.#options.makeMachine?.(disk) ?? new ListMachine(disk);
    const peers = this.network.peers({ disk, directory: `${directory}/incoming` });
    const fatal: HeadpondError[] = [];
    const diverged: string[] = [];
    const refusals: string[] = [];
    const journal = new RaftJournal({
      disk,
      clock: this.clock,
      logger: silentLogger,
      metrics: new Metrics(),
      directory,
      clusterId,
      id,
      machine,
      peers,
      random: new Random(random.uint32()),
      addresses: () => ({ rpc: `${id}:7070`, http: `${id}:7071` }),
      bootId: "boot",
      limits: {
        wal: { ...defaultWalLimits, segmentBytes: groupSegmentBytes, reserveBytes: 0 },
        raft: quickRaft,
        restMs: 5,
        ...limits,
      },
      onFatal: (error) => fatal.push(error),
      onDiverged: (details) => diverged.push(details),
      onRefused: (_, reason) => refusals.push(reason),
    });
    const kill = async (): Promise<void> => {
      peers.kill();
      const killed = mortal.kill();
      journal.abandon();
      await killed;
    };
    if (view.onRole !== undefined) journal.onRoleChange(view.onRole);
    const master = { id, journal, machine, peers, fatal, diverged, refusals, kill };
    this.#masters.set(id, master);
    await journal.start();
    return master;
  }

  /** The end of a process. `powerFails`: what was not flushed is lost, too. */
  async kill(id: string, powerFails = false): Promise<void> {
    const master = this.#masters.get(id);
    this.#masters.delete(id);
    const killed = master?.kill();
    if (powerFails) this.disk(id).crash({ random: this.#options.random });
    await killed;
  }

  /** One that has failed is killed. */
  async close(id: string): Promise<void> {
    const master = this.#masters.get(id);
    if (master !== undefined && master.fatal.length > 0) return this.kill(id);
    this.#masters.delete(id);
    await master?.journal.close();
  }

  /** Whatever there is, as the end of a test that may have failed. */
  async killAll(): Promise<void> {
    await Promise.all([...this.#masters.keys()].map((id) => this.kill(id)));
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#masters.keys()].map((id) => this.close(id)));
  }

  /** The one master that acts as leader, as soon as there is one. */
  async leader(timeoutMs = 10_000): Promise<Master> {
    return this.until(`a leader among ${[...this.#masters.keys()].join(", ")}`, timeoutMs, () => {
      const leaders = this.masters.filter(({ journal }) => journal.role === "leader");
      return leaders.sort((a, b) => b.journal.status().term - a.journal.status().term)[0];
    });
  }

  /** The leader, when it has written down where all members are: then it writes nothing more by itself. */
  async described(timeoutMs = 10_000): Promise<Master> {
    const isDescribed = ({ journal }: Master): boolean => {
      const { lastIndex, appliedIndex } = journal.status();
      const members = membersOf(journal.configuration).map((id) => journal.configuration.members[id]);
      return (
        lastIndex === appliedIndex && members.every((member) => member?.incarnation !== "" && member?.rpc !== undefined)
      );
    };
    return this.until("a leader that has described all members", timeoutMs, () =>
      this.masters.find((master) => master.journal.role === "leader" && isDescribed(master)),
    );
  }

  /** Polls by the clock. */
  async until<T>(what: string, timeoutMs: number, probe: () => T | undefined | false): Promise<T> {
    const endMs = this.clock.monotonicMs() + timeoutMs;
    for (;;) {
      const found = probe();
      if (found !== undefined && found !== false) return found;
      if (this.clock.monotonicMs() >= endMs) throw new Error(`${what}: not within ${timeoutMs} ms; ${this.describe()}`);
      await this.clock.sleep(2);
    }
  }

  /** All that run have applied the same, up to the highest index that any of them knows as committed. */
  async settled(timeoutMs = 10_000): Promise<void> {
    await this.until("all masters at the same index", timeoutMs, () => {
      const commit = Math.max(...this.masters.map(({ journal }) => journal.status().commitIndex));
      return this.masters.every(({ machine }) => machine.applied.index === commit);
    });
  }

  describe(): string {
    return this.masters
      .map(({ id, journal }) => {
        const { role, term, lastIndex, commitIndex, appliedIndex } = journal.status();
        return `${id}: ${role} term ${term} last ${lastIndex} commit ${commitIndex} applied ${appliedIndex}`;
      })
      .join("; ");
  }
}
