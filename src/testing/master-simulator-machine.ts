/**
 * One machine of a simulated cluster of masters: a disk and a state that outlive processes, and the master that runs there. What runs
 * is the product: `Master` with its RPC, `RaftJournal` over its log and its peers, `Namespace`. Only what is outside of a process is
 * simulated.
 */

import { errorFromDocument, HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { ClusterId, MasterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import type { LogFields, Logger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import type { Network } from "../io/network.ts";
import { formatJournal } from "../journal/format.ts";
import type { Journal, JournalCluster } from "../journal/journal.ts";
import type { RaftJournal } from "../journal/raft-journal.ts";
import type { RaftJournalOptions } from "../journal/raft-journal-options.ts";
import type { RaftJournalLimits } from "../journal/raft-limits.ts";
import { formatSharedJournal } from "../journal/shared-format.ts";
import type { SharedJournal } from "../journal/shared-journal.ts";
import type { SharedJournalLimits } from "../journal/shared-limits.ts";
import type { TcpPeers } from "../journal/tcp-peers.ts";
import type { Master } from "../master/master.ts";
import type { MasterLimits } from "../master/master-limits.ts";
import type { CommandResult } from "../namespace/command.ts";
import type { Namespace } from "../namespace/namespace.ts";
import type { MemorySharedStore } from "./memory-shared-store.ts";
import { DiskTroubles, SimDisk } from "./sim-disk.ts";
import { SimElection, type SimElections } from "./sim-election.ts";
import type { SimNetwork } from "./sim-network.ts";
import { SimSharedStore, StoreTroubles } from "./sim-shared-store.ts";
import { StateAtRest } from "./sim-store.ts";
import { type SimClockOptions, SimProcess, type SimWorld } from "./sim-world.ts";

export const clusterId = "simulated" as ClusterId;
export const rpcPort = 7070;
export const peerPort = 7072;
const directory = "/master/journal";
const stopPatienceMs = 10_000;

/** The classes under test: those of the product, or copies with a bug in them. */
export type MasterParts = {
  readonly RaftJournal: typeof RaftJournal;
  readonly SharedJournal: typeof SharedJournal;
  readonly TcpPeers: typeof TcpPeers;
  readonly Master: typeof Master;
  readonly Namespace: typeof Namespace;
};

/** What the masters have in common when their log is in shared storage. */
export type SharedStorage = {
  readonly store: MemorySharedStore;
  readonly troubles: StoreTroubles;
  readonly elections: SimElections;
  readonly limits: Partial<SharedJournalLimits>;
  readonly parallelCalls: number;
};

export type MachineOptions = {
  readonly world: SimWorld;
  readonly network: SimNetwork;
  readonly parts: MasterParts;
  readonly host: string;
  readonly limits: Partial<RaftJournalLimits>;
  /** Absent: the journal is Raft's. */
  readonly shared: SharedStorage | undefined;
  readonly masterLimits: Partial<MasterLimits>;
  /** Every so often the state goes to its store. */
  readonly flushStateMs: number;
  readonly segmentBytes: number;
  readonly clock: () => SimClockOptions;
  /** The master's process ended by itself. */
  readonly onEnd: (machine: Machine, reason: HeadpondError) => void;
  readonly onDiverged: (machine: Machine, reason: string) => void;
  /** It is made and not started yet. */
  readonly onLife: (life: MasterLife) => void;
  readonly onOpen: (machine: Machine, life: MasterLife) => void;
  readonly onApplied: (machine: Machine, life: MasterLife) => void;
  readonly onLog: (machine: Machine, level: string, message: string, fields: LogFields | undefined) => void;
};

export type SimulatedJournal = Journal<CommandResult> & { readonly cluster: JournalCluster };

/** A master while its process lives. */
export type MasterLife = {
  readonly process: SimProcess;
  readonly namespace: Namespace;
  readonly journal: SimulatedJournal;
  readonly master: Master;
  /** It serves. */
  isOpen: boolean;
};

export class Machine {
  readonly host: string;
  readonly disk = new MemoryDisk();
  readonly troubles = new DiskTroubles();
  /** Of its way to shared storage. */
  readonly storeTroubles = new StoreTroubles();
  /** When it was paused or its disk hung last: an excuse for being slow. */
  lastTroubleMs = 0;
  /** Its disk was damaged or lost: it may refuse to start, and must not come back as the member that it was. */
  isSpoilt = false;
  readonly #options: MachineOptions;
  readonly #state = new StateAtRest();
  #id: MasterId;
  #boot = 1;
  #lives = 0;
  #life: MasterLife | undefined;
  #isBusy = false;

  constructor(options: MachineOptions, id: string) {
    this.#options = options;
    this.host = options.host;
    this.#id = id as MasterId;
  }

  get id(): MasterId {
    return this.#id;
  }

  get life(): MasterLife | undefined {
    return this.#life;
  }

  get isUp(): boolean {
    return this.#life !== undefined;
  }

  /** The journal of a master that serves. */
  get journal(): SimulatedJournal | undefined {
    return this.#life?.isOpen === true ? this.#life.journal : undefined;
  }

  get peerAddress(): string {
    return `${this.host}:${peerPort}`;
  }

  /** Makes an empty disk a member's. `founders` of all members by id, or `undefined` to join. */
  async format(founders: Readonly<Record<string, string>> | undefined): Promise<void> {
    const { shared } = this.#options;
    if (shared !== undefined) {
      const { clock } = new SimProcess(this.#options.world, "format", this.#options.clock());
      const store = shared.store.view();
      await formatSharedJournal({ disk: this.disk, clock, store, directory, id: this.#id, clusterId });
      return;
    }
    const incarnation = `${this.#options.world.random.uint32().toString(16)}-${this.host}`;
    await formatJournal({
      disk: this.disk,
      clock: new SimProcess(this.#options.world, "format", this.#options.clock()).clock,
      directory,
      clusterId,
      segmentBytes: this.#options.segmentBytes,
      raft: { id: this.#id, incarnation, founders: founders?.[this.#id] === undefined ? undefined : founders },
    });
  }

  /** All is lost: a new, empty disk. `id`: who the master will be then. */
  async wipe(id: string): Promise<void> {
    for (const name of await this.disk.list("/")) await this.disk.removeTree(`/${name}`);
    await this.disk.syncDirectory("/");
    await this.#state.wipe();
    this.#id = id as MasterId;
  }

  /** Flips a bit of a checkpoint, or of a part of the log that is not its newest. Returns where; `undefined`: there is no such thing. */
  async rot(random: Random): Promise<string | undefined> {
    const list = async (of: string): Promise<string[]> =>
      (await this.disk.list(`${directory}/${of}`)).map((name) => `${directory}/${of}/${name}`).sort();
    const segments = (await list("wal")).filter((path) => path.endsWith(".wal"));
    const checkpoints = (await list("checkpoints")).filter((path) => /checkpoint-[0-9]+$/.test(path));
    const paths = [...segments.slice(0, -1), ...checkpoints];
    if (paths.length === 0) return undefined;
    const path = random.pick(paths);
    const file = await this.disk.open(path, "write");
    const { sizeBytes } = await file.stat();
    const at = random.between(0, Math.max(0, sizeBytes - 1));
    const byte = new Uint8Array(1);
    await file.read(byte, at);
    byte[0] = (byte[0] ?? 0) ^ (1 << random.between(0, 7));
    await file.write(byte, at);
    await file.datasync();
    await file.close();
    return `${path} at ${at}`;
  }

  start(): void {
    if (this.#life !== undefined || this.#isBusy) return;
    const { world, network, parts, host, masterLimits, clock: drawClock } = this.#options;
    const process = new SimProcess(world, `${this.#id}.${++this.#lives}`, drawClock());
    const { clock } = process;
    const logger = this.#logger();
    const disk = new SimDisk({ disk: this.disk, process, troubles: this.troubles });
    const door = network.at(host, process);
    const random = new Random(world.random.uint32());
    const end = (reason: unknown): void => this.#ended(process, asOurs(reason));
    let life: MasterLife;
    try {
      const namespace = new parts.Namespace({ store: this.#state.open(disk), backgroundFlush: false });
      const metrics = new Metrics();
      const common = {
        disk,
        clock,
        logger,
        metrics,
        directory,
        clusterId,
        machine: namespace,
        bootId: `boot-${this.#boot}`,
        id: this.#id,
        random,
        onDiverged: (details: unknown) => this.#options.onDiverged(this, String(details)),
        onFatal: end,
      };
      const journal = this.#journal(common, process, door);
      const master = new parts.Master({
        id: this.#id,
        clusterId,
        clusterName: "simulated",
        version: "0",
        nodeVersion: "",
        directory: "/master",
        disk,
        network: door,
        clock,
        logger,
        metrics,
        rpcAddress: { host, port: rpcPort },
        httpAddress: { host, port: 80 },
        http: noHttp,
        journal,
        namespace,
        verifyJournal: () => Promise.resolve({ ok: true, entries: 0, bytes: 0, findings: [] }),
        openUnderStore: () => Promise.reject(new HeadpondError("unsupported", "no under stores are simulated")),
        limits: masterLimits,
      });
      life = { process, namespace, journal, master, isOpen: false };
      watchApplies(namespace, () => this.#options.onApplied(this, life));
    } catch (error) {
      process.kill();
      this.#options.onEnd(this, asOurs(error));
      return;
    }
    this.#life = life;
    this.#options.onLife(life);
    life.master.start().then(() => {
      if (!process.isAlive) return;
      life.isOpen = true;
      world.note(`${process.name} serves at ${life.namespace.applied.index}`);
      this.#options.onOpen(this, life);
    }, end);
    this.#flushState(life);
  }

  #journal(common: JournalParts, process: SimProcess, network: Network): SimulatedJournal {
    const { host, limits, parts, shared } = this.#options;
    const { clock, logger, random, disk } = common;
    if (shared !== undefined) {
      const { store, troubles, elections, parallelCalls } = shared;
      const all = [troubles, this.storeTroubles];
      const candidate = { id: this.#id, rpc: `${host}:${rpcPort}`, http: "", featureLevel: 1 };
      return new parts.SharedJournal<CommandResult>({
        ...common,
        store: new SimSharedStore({ store, process, disk, troubles: all, parallelCalls }),
        election: new SimElection(elections, process, candidate),
        limits: shared.limits,
      });
    }
    const peers = new parts.TcpPeers({
      network,
      clock,
      logger,
      random,
      snapshots: { disk, directory: `${directory}/incoming` },
      listen: { host, port: peerPort },
    });
    const addresses = (): { rpc: string; http: string } => ({ rpc: `${host}:${rpcPort}`, http: "" });
    return new parts.RaftJournal<CommandResult>({ ...common, peers, addresses, limits });
  }

  /** The process dies; the machine goes on. */
  kill(): void {
    this.#life?.process.kill();
    this.#life = undefined;
  }

  /** The master is told to stop: it hands over, ends what is under way, and exits. Whoever waits for too long kills it. */
  stop(onStopped: () => void): void {
    const life = this.#life;
    if (life === undefined || !life.isOpen) return;
    const { process, master, journal, namespace } = life;
    life.isOpen = false;
    let isOver = false;
    const end = (text: string): void => {
      if (isOver || !process.isAlive) return;
      isOver = true;
      this.#options.world.note(`${process.name} stopped: ${text}`);
      this.kill();
      onStopped();
    };
    const stopping = async (): Promise<void> => {
      await master.handOver();
      await master.close();
      await journal.close();
      await namespace.close();
    };
    stopping().then(
      () => end("orderly"),
      (error: unknown) => end(asOurs(error).message),
    );
    this.#options.world.events.after(stopPatienceMs, () => end("killed"));
  }

  /** Process and unsynced bytes are gone, and nobody is told. */
  async losePower(): Promise<void> {
    const { network, world } = this.#options;
    network.losePower(this.host);
    this.kill();
    this.disk.crash({ random: world.random });
    this.#boot++;
    this.#isBusy = true;
    await this.#state.powerLoss(world.random);
    this.#isBusy = false;
  }

  regainPower(): void {
    this.#options.network.regainPower(this.host);
  }

  #ended(process: SimProcess, reason: HeadpondError): void {
    if (this.#life?.process !== process) return;
    this.kill();
    this.#options.onEnd(this, reason);
  }

  #flushState(life: MasterLife): void {
    life.process.clock.timer(this.#options.flushStateMs, () => {
      life.namespace.flush().then(
        () => this.#flushState(life),
        () => this.#flushState(life),
      );
    });
  }

  #logger(): Logger {
    const { onLog } = this.#options;
    const say =
      (level: string) =>
      (message: string, fields?: LogFields): void =>
        onLog(this, level, message, fields);
    const logger: Logger = {
      debug: () => {},
      info: say("info"),
      warn: say("warn"),
      error: say("error"),
      child: () => logger,
    };
    return logger;
  }
}

type JournalParts = Omit<RaftJournalOptions<CommandResult>, "peers" | "addresses" | "limits"> & {
  readonly clusterId: ClusterId;
};

/** An error of ours, also one of a copy of the sources. */
export function asOurs(error: unknown): HeadpondError {
  const isOfCopy = error instanceof Error && error.name === "HeadpondError" && !(error instanceof HeadpondError);
  return isOfCopy ? errorFromDocument((error as HeadpondError).toJSON()) : toHeadpondError(error);
}

/** Tells after each apply, for oracles that compare states. */
function watchApplies(namespace: Namespace, onApplied: () => void): void {
  const apply = namespace.apply.bind(namespace);
  namespace.apply = (entries) => {
    const results = apply(entries);
    onApplied();
    return results;
  };
}

const noHttp = {
  listen: (address: { host: string; port: number }) => Promise.resolve(address),
  close: () => Promise.resolve(),
};
