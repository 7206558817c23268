/**
 * A whole cluster of masters and their clients in one thread: one seed, one history. The product runs as it is (RPC, sessions, master,
 * Raft journal, log, peers, namespace); clocks, disks, networks and processes are simulated. Machines lose power, disks hang, fail, fill
 * up and are lost, processes are killed and paused, the network delays, stalls, breaks and is cut in any way, wall clocks
 * jump; members come and go, leadership is handed over, checkpoints are made and sent. An oracle looks after every event
 * (master-simulator-oracle.ts). Then all faults end: the cluster must come to rest with equal states, and what the clients saw must be
 * linearizable.
 */

import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { LogFields } from "../io/logger.ts";
import { RaftJournal } from "../journal/raft-journal.ts";
import { SharedJournal } from "../journal/shared-journal.ts";
import { TcpPeers } from "../journal/tcp-peers.ts";
import { Master } from "../master/master.ts";
import { Namespace } from "../namespace/namespace.ts";
import { checkLinearizable } from "./linearizability.ts";
import { History } from "./linearizability-history.ts";
import { type PathInput, type PathOutput, pathModel } from "./linearizability-models.ts";
import { type ClientCounts, SimulatedClient } from "./master-simulator-client.ts";
import { MasterFaults } from "./master-simulator-faults.ts";
import { Machine, type MasterParts, type SharedStorage } from "./master-simulator-machine.ts";
import { MasterOracle, Violation } from "./master-simulator-oracle.ts";
import { drawProfile, journalLimits, type Profile } from "./master-simulator-profile.ts";
import { MemorySharedStore } from "./memory-shared-store.ts";
import { drawSharedProfile, sharedLimits } from "./shared-simulator-profile.ts";
import { SimElections } from "./sim-election.ts";
import { SimNetwork } from "./sim-network.ts";
import { StoreTroubles } from "./sim-shared-store.ts";
import { type SimClockOptions, SimWorld } from "./sim-world.ts";

export type MasterSimulationOptions = {
  readonly seed: number;
  /** Simulated milliseconds with faults. */
  readonly ticks: number;
  /** Of the masters; Raft's by default. */
  readonly journal?: "raft" | "shared";
  /** Classes with a planted bug, to test the simulator. */
  readonly parts?: Partial<MasterParts>;
  readonly profile?: Partial<Profile>;
  readonly onLine?: (line: string) => void;
  /** The masters' own log goes into the lines, too. */
  readonly verbose?: boolean;
};

export type MasterSimulationResult = {
  readonly seed: number;
  readonly ticks: number;
  readonly violation: string | undefined;
  /** Of everything that was written into the transcript. */
  readonly transcript: string;
  /** Its last lines. */
  readonly lines: readonly string[];
  readonly counts: Readonly<Record<string, number>>;
};

const healMs = 20_000;
const spareMachines = 2;

export async function simulateMasters(options: MasterSimulationOptions): Promise<MasterSimulationResult> {
  return new MasterSimulation(options).run();
}

class MasterSimulation {
  readonly #options: MasterSimulationOptions;
  readonly #random: Random;
  readonly #profile: Profile;
  readonly #world: SimWorld;
  readonly #network: SimNetwork;
  readonly #shared: SharedStorage | undefined;
  readonly #oracle: MasterOracle;
  readonly #machines: Machine[] = [];
  readonly #clients: SimulatedClient[] = [];
  readonly #history = new History<PathInput, PathOutput>();
  readonly #faults: MasterFaults;
  readonly #clientCounts: ClientCounts = { returned: 0, unknown: 0, refused: 0, reads: 0, standbyReads: 0 };
  #founders: Readonly<Record<string, string>> = {};
  #values = 0;
  #clientNames = 0;

  constructor(options: MasterSimulationOptions) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#profile = { ...drawProfile(this.#random), ...options.profile };
    this.#world = new SimWorld({ random: this.#random, onLine: options.onLine });
    this.#network = new SimNetwork(this.#world);
    this.#shared = options.journal === "shared" ? this.#sharedStorage() : undefined;
    this.#oracle = new MasterOracle(this.#world);
    this.#faults = new MasterFaults({
      world: this.#world,
      network: this.#network,
      oracle: this.#oracle,
      machines: this.#machines,
      clients: this.#clients,
      profile: this.#profile,
      newClient: () => this.#addClient(),
      founders: () => this.#founders,
      shared: this.#shared,
    });
  }

  #sharedStorage(): SharedStorage {
    const profile = drawSharedProfile(this.#random);
    const { checkpointEveryEntries } = this.#profile;
    const { lostRequest, lostAnswer, lateRequest, existsAfterSuccess, staleListing, delayMs, parallelCalls } = profile;
    const elections = new SimElections(this.#world);
    elections.sessionMs = profile.sessionMs;
    const troubles = new StoreTroubles();
    const chances = { lostRequest, lostAnswer, lateRequest, existsAfterSuccess, staleListing };
    Object.assign(troubles, { ...chances, delayMs: Math.min(delayMs, 10) });
    const limits = { ...sharedLimits(profile), checkpointEveryEntries, applySliceEntries: 64, slotEntriesMax: 100 };
    return { store: new MemorySharedStore(), troubles, elections, limits, parallelCalls };
  }

  async run(): Promise<MasterSimulationResult> {
    const { seed, ticks } = this.#options;
    let violation: string | undefined;
    const onDefect = (error: unknown): void => {
      this.#oracle.fail(
        `a promise was rejected and nobody heard: ${error instanceof Error ? error.stack : String(error)}`,
      );
    };
    process.on("unhandledRejection", onDefect);
    try {
      await this.#start();
      await this.#run(ticks);
      await this.#heal();
      this.#judge();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const text = error instanceof Violation ? error.message : error.stack;
      violation = `after ${Math.round(this.#world.nowMs)} ms: ${text}`;
    } finally {
      process.off("unhandledRejection", onDefect);
      for (const machine of this.#machines) machine.kill();
      for (const client of this.#clients) client.process.kill();
    }
    const { comparedStates, highestIndex: entries, leaseReads } = this.#oracle;
    const counts = { entries, comparedStates, leaseReads, ...this.#clientCounts, ...this.#faults.counts };
    return {
      seed,
      ticks: this.#world.nowMs,
      violation,
      transcript: this.#world.transcriptHash,
      lines: this.#world.transcriptEnd,
      counts: { ...counts, events: this.#world.eventCount },
    };
  }

  async #start(): Promise<void> {
    const { size, delayMs, stall, flushMs } = this.#profile;
    Object.assign(this.#network.troubles, { delayMs, stall });
    const spare = this.#shared === undefined ? spareMachines : 0;
    for (let i = 1; i <= size + spare; i++) {
      const machine = this.#machine(`h${i}`, `m${i}`);
      machine.troubles.flushMs = flushMs;
      this.#machines.push(machine);
    }
    const founders = this.#machines.slice(0, size);
    this.#founders = Object.fromEntries(founders.map((machine) => [machine.id, machine.peerAddress]));
    for (const machine of this.#machines) await machine.format(founders.includes(machine) ? this.#founders : undefined);
    for (const machine of this.#machines) this.#world.events.after(this.#random.between(0, 50), () => machine.start());
    for (let i = 0; i < this.#profile.clients; i++) this.#addClient();
    this.#faults.begin();
  }

  #machine(host: string, id: string): Machine {
    const profile = this.#profile;
    return new Machine(
      {
        world: this.#world,
        network: this.#network,
        parts: { RaftJournal, SharedJournal, TcpPeers, Master, Namespace, ...this.#options.parts },
        host,
        limits: journalLimits(profile),
        shared: this.#shared,
        masterLimits: {
          housekeeping: { sessionTimeoutMs: profile.sessionTimeoutMs, intervalMs: 1000 },
          settleMs: 100,
          // A ring that nobody watches costs most of a start.
          events: { keptMax: 256 },
        },
        flushStateMs: profile.flushStateMs,
        segmentBytes: profile.segmentBytes,
        clock: () => this.#clock(),
        onEnd: (machine, reason) => this.#faults.ended(machine, reason),
        onDiverged: (machine, reason) => this.#oracle.fail(`${machine.id} found that states differ: ${reason}`),
        onLife: (life) => this.#oracle.watch(life),
        onOpen: (machine, life) => this.#oracle.recovered(machine, life),
        onApplied: (machine, life) => this.#oracle.applied(machine, life),
        onLog: (...line) => this.#logged(...line),
      },
      id,
    );
  }

  #logged(machine: Machine, level: string, message: string, fields: LogFields | undefined): void {
    const { counts } = this.#faults;
    if ((message === "role" && fields?.["role"] === "leader") || message === "leads") counts.elections++;
    if (message === "the state is a checkpoint of the leader") counts.installs++;
    if (/^the state is (rebuilt|replaced)/.test(message)) counts.rebuilds++;
    if (!this.#options.verbose) return;
    this.#world.note(
      `${machine.life?.process.name ?? machine.id} ${level}: ${message} ${JSON.stringify(fields ?? {})}`,
    );
  }

  #clock(): SimClockOptions {
    const random = this.#random;
    return {
      rate: 0.98 + random.float() * 0.04,
      monotonicOffsetMs: random.between(0, 1e6),
      wallOffsetMs: random.between(-500, 500),
    };
  }

  #addClient(): void {
    const { concurrency, thinkMs, paths, timeoutMs, fillerBytes } = this.#profile;
    const hosts = this.#random.shuffle(this.#machines.map(({ host }) => host));
    this.#clients.push(
      new SimulatedClient({
        world: this.#world,
        network: this.#network,
        name: `c${++this.#clientNames}`,
        clock: this.#clock(),
        masters: hosts,
        history: this.#history,
        paths,
        thinkMs,
        concurrency,
        timeoutMs,
        fillerBytes,
        counts: this.#clientCounts,
        nextValue: () => `v${++this.#values}`,
      }),
    );
  }

  async #run(untilMs: number, isDone: () => boolean = () => false): Promise<void> {
    await this.#world.run(untilMs, () => {
      this.#oracle.check(this.#machines);
      return isDone();
    });
    this.#oracle.check(this.#machines);
  }

  /** Ends all faults; then everybody agrees, and whoever asks is answered. */
  async #heal(): Promise<void> {
    this.#world.note("everything heals");
    this.#faults.heal();
    // First nobody asks for anything new: what was under way must come to its end by itself.
    for (const client of this.#clients) client.stop();
    await this.#await("rest", () => this.#isAtRest());
    for (const client of this.#clients) client.go();
    const { returned } = this.#clientCounts;
    await this.#await("answers", () => this.#clientCounts.returned >= returned + 20);
    for (const client of this.#clients) client.stop();
    await this.#await("end of operations", () => this.#clients.every(({ active }) => active === 0));
    await this.#await("rest of all", () => this.#isAtRest());
    const { index } = this.#leader()?.life?.namespace.applied ?? { index: 0 };
    this.#world.note(`at rest at ${index}`);
  }

  #judge(): void {
    const digests = new Set<string>();
    const leader = this.#leader();
    for (const { id } of leader?.journal?.cluster.members() ?? []) {
      const machine = this.#machines.find((one) => one.id === id);
      if (machine?.life !== undefined) digests.add(machine.life.namespace.digest());
    }
    if (digests.size !== 1) this.#oracle.fail(`${digests.size} different states at rest`);
    if (this.#oracle.violation !== undefined) throw this.#oracle.violation;
    const verdict = checkLinearizable(pathModel, this.#history.operations);
    if (verdict.kind === "violation") throw new Violation(verdict.explanation);
    if (verdict.kind === "undecided") throw new Violation(`the checker gave up after ${verdict.steps} steps`);
  }

  #leader(): Machine | undefined {
    return this.#machines.find(({ journal }) => journal?.role === "leader");
  }

  #isAtRest(): boolean {
    const leaders = this.#machines.filter(({ journal }) => journal?.role === "leader");
    const [leader] = leaders;
    if (leaders.length !== 1 || leader?.journal === undefined || !this.#faults.isSettled(leader)) return false;
    if (this.#clients.some(({ active }) => active > 0)) return false;
    const { appliedIndex, lastIndex } = leader.journal.status();
    if (appliedIndex !== lastIndex) return false;
    return leader.journal.cluster.members().every(({ id }) => {
      const machine = this.#machines.find((one) => one.id === id);
      return machine?.journal?.status().appliedIndex === lastIndex;
    });
  }

  async #await(what: string, isDone: () => boolean): Promise<void> {
    const untilMs = this.#world.nowMs + healMs;
    let isOver = false;
    while (!isOver && this.#world.nowMs < untilMs) {
      await this.#run(this.#world.nowMs + 20);
      isOver = isDone();
    }
    if (isOver) return;
    const members = this.#machines.map((machine) => {
      const { journal, life, id } = machine;
      if (journal === undefined) return `${id}: ${life === undefined ? "down" : "starting"}`;
      return `${id}: ${JSON.stringify(journal.status())} ${JSON.stringify(journal.cluster.members())}`;
    });
    throw new HeadpondError("internal", `liveness: no ${what} within ${healMs} ms\n${members.join("\n")}`);
  }
}
