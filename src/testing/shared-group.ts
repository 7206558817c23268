/**
 * Several shared journals in one process over memory: their store, their election, their disks, and what a test does to them. Each master's
 * state is a list (list-machine.ts), so that every difference shows.
 */

import { present } from "../base/assert.ts";
import type { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import type { Role } from "../journal/journal.ts";
import { type Applied, ListMachine } from "../journal/list-machine.ts";
import { mortalDisk } from "../journal/mortal-disk.ts";
import { formatSharedJournal } from "../journal/shared-format.ts";
import { SharedJournal } from "../journal/shared-journal.ts";
import type { SharedJournalLimits } from "../journal/shared-limits.ts";
import type { SharedStore } from "../journal/shared-store.ts";
import { type MemoryElection, MemoryElections } from "./memory-election.ts";
import { type CallFate, MemorySharedStore, type SharedCall, type ViewOptions } from "./memory-shared-store.ts";

const clusterId = "group" as ClusterId;
export const sharedDirectory = "/journal";

export const quickShared: Partial<SharedJournalLimits> = {
  idleCheckMs: 50,
  storePatienceMs: 500,
  readPatienceMs: 100,
  noSpaceRetryMs: 10,
  pollMinMs: 2,
  pollMaxMs: 20,
  positionEveryMs: 100,
  reclaimDelayMs: 20,
  digestWaitMs: 200,
  retry: { retryMinMs: 1, retryMaxMs: 20 },
};

export type SharedMaster = {
  readonly id: string;
  readonly journal: SharedJournal<string>;
  readonly machine: ListMachine;
  readonly election: MemoryElection;
  readonly fatal: HeadpondError[];
  readonly diverged: string[];
  /** Its calls to the store wait while it is true: a pause of the process, as others see it. */
  isPaused: boolean;
};

export type SharedView = {
  readonly fate?: (call: SharedCall, name: string) => CallFate;
  readonly before?: ViewOptions["before"];
  readonly after?: ViewOptions["after"];
  /** Listings show nothing: they are hints. */
  readonly listsNothing?: boolean;
  /** How many calls of the store it lives to begin. */
  readonly calls?: number;
  readonly onRole?: (role: Role) => void;
  readonly bootId?: string;
  /** What the state's own store has; by default nothing. */
  readonly state?: readonly Applied[];
};

export type SharedGroupOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly ids?: readonly string[];
  readonly limits?: Partial<SharedJournalLimits>;
  readonly parallelCalls?: number;
};

export class SharedGroup {
  readonly store = new MemorySharedStore();
  readonly elections = new MemoryElections();
  readonly clock: Clock;
  readonly #options: SharedGroupOptions;
  readonly #ids: readonly string[];
  readonly #disks = new Map<string, MemoryDisk>();
  readonly #masters = new Map<string, SharedMaster & { readonly kill: () => Promise<void> }>();

  constructor(options: SharedGroupOptions) {
    this.#options = options;
    this.clock = options.clock;
    this.#ids = options.ids ?? ["m1", "m2", "m3"];
  }

  static async start(options: SharedGroupOptions): Promise<SharedGroup> {
    const group = new SharedGroup(options);
    for (const id of group.#ids) await group.format(id);
    for (const id of group.#ids) await group.open(id);
    return group;
  }

  get masters(): readonly SharedMaster[] {
    return [...this.#masters.values()];
  }

  disk(id: string): MemoryDisk {
    return present(this.#disks.get(id), `${id} has a disk`);
  }

  master(id: string): SharedMaster {
    return present(this.#masters.get(id), `${id} runs`);
  }

  async format(id: string): Promise<void> {
    const disk = new MemoryDisk();
    this.#disks.set(id, disk);
    const { clock } = this;
    await formatSharedJournal({ disk, clock, store: this.store.view(), directory: sharedDirectory, id, clusterId });
  }

  /** Starts a master on what its disk has. */
  async open(id: string, view: SharedView = {}): Promise<SharedMaster> {
    const { random, limits, parallelCalls = 8 } = this.#options;
    const mortal = mortalDisk(this.disk(id));
    const machine = new ListMachine(mortal.disk);
    machine.list.push(...(view.state ?? []));
    const fatal: HeadpondError[] = [];
    const diverged: string[] = [];
    const process = { isDead: false, calls: view.calls ?? Number.POSITIVE_INFINITY };
    const never = new Promise<never>(() => {});
    const gate = async (): Promise<void> => {
      while (master.isPaused && !process.isDead) await this.clock.sleep(1);
      if (process.isDead) await never;
    };
    const store: SharedStore = this.store.view({
      disk: mortal.disk,
      parallelCalls,
      before: async (call, name) => {
        if (process.calls-- <= 0) process.isDead = true;
        await gate();
        await view.before?.(call, name);
      },
      after: async (call, name) => {
        await view.after?.(call, name);
        await gate();
      },
      ...(view.fate === undefined ? {} : { fate: view.fate }),
      ...(view.listsNothing === undefined ? {} : { listsNothing: view.listsNothing }),
    });
    const election = this.elections.join(id);
    const journal = new SharedJournal({
      disk: mortal.disk,
      clock: this.clock,
      logger: silentLogger,
      metrics: new Metrics(),
      directory: sharedDirectory,
      clusterId,
      id,
      machine,
      store,
      election,
      random: new Random(random.uint32()),
      bootId: view.bootId ?? "boot",
      limits: { ...quickShared, ...limits },
      onFatal: (error) => fatal.push(error),
      onDiverged: (details) => diverged.push(details),
    });
    const kill = async (): Promise<void> => {
      process.isDead = true;
      const killed = mortal.kill();
      journal.abandon();
      await election.close();
      await killed;
    };
    if (view.onRole !== undefined) journal.onRoleChange(view.onRole);
    const master = { id, journal, machine, election, fatal, diverged, isPaused: false, kill };
    this.#masters.set(id, master);
    await journal.start();
    return master;
  }

  /** The end of a process. `powerFails`: what was not flushed to its own disk is lost, too. */
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

  async killAll(): Promise<void> {
    await Promise.all([...this.#masters.keys()].map((id) => this.kill(id)));
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#masters.keys()].map((id) => this.close(id)));
  }

  async leader(timeoutMs = 10_000): Promise<SharedMaster> {
    return this.until(`a leader among ${[...this.#masters.keys()].join(", ")}`, timeoutMs, () => {
      const leaders = this.masters.filter(({ journal }) => journal.role === "leader");
      return leaders.sort((a, b) => b.journal.status().term - a.journal.status().term)[0];
    });
  }

  /** Polls by the clock. */
  async until<T>(
    what: string,
    timeoutMs: number,
    probe: () => T | undefined | false | Promise<T | undefined | false>,
  ): Promise<T> {
    const endMs = this.clock.monotonicMs() + timeoutMs;
    for (;;) {
      const found = await probe();
      if (found !== undefined && found !== false) return found;
      if (this.clock.monotonicMs() >= endMs) throw new Error(`${what}: not within ${timeoutMs} ms; ${this.describe()}`);
      await this.clock.sleep(2);
    }
  }

  /** All that run have applied as much as any of them. */
  async settled(timeoutMs = 10_000): Promise<void> {
    await this.until("all masters at the same index", timeoutMs, () => {
      const last = Math.max(...this.masters.map(({ journal }) => journal.status().lastIndex));
      return this.masters.every(({ machine }) => machine.applied.index === last);
    });
  }

  describe(): string {
    return this.masters
      .map(({ id, journal, fatal }) => {
        const { role, term, lastIndex, commitIndex, appliedIndex } = journal.status();
        const failed = fatal.length === 0 ? "" : ` failed: ${fatal[0]?.message}`;
        return `${id}: ${role} epoch ${term} last ${lastIndex} commit ${commitIndex} applied ${appliedIndex}${failed}`;
      })
      .join("; ");
  }
}
