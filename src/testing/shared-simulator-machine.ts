/**
 * One machine of a simulated cluster of shared journals: a disk and a state that outlive processes, and the journal that runs there. The state is a
 * list, so that every difference shows; like a database it keeps what it has flushed, and after a power failure anything.
 */

import type { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import type { LogFields, Logger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import type { Entry } from "../journal/journal.ts";
import { type Applied, ListMachine } from "../journal/list-machine.ts";
import { formatSharedJournal } from "../journal/shared-format.ts";
import type { SharedJournal } from "../journal/shared-journal.ts";
import type { SharedJournalLimits } from "../journal/shared-limits.ts";
import { asOurs } from "./master-simulator-machine.ts";
import type { MemorySharedStore } from "./memory-shared-store.ts";
import { DiskTroubles, SimDisk } from "./sim-disk.ts";
import { SimElection, type SimElections } from "./sim-election.ts";
import { SimSharedStore, StoreTroubles } from "./sim-shared-store.ts";
import { type SimClockOptions, SimProcess, type SimWorld } from "./sim-world.ts";

export const sharedClusterId = "simulated" as ClusterId;
const directory = "/master/journal";

/** The classes under test: those of the product, or of a copy with a bug in it. */
export type SharedParts = {
  readonly SharedJournal: typeof SharedJournal;
  readonly HeadpondError: typeof HeadpondError;
};

export type SharedMachineOptions = {
  readonly world: SimWorld;
  readonly store: MemorySharedStore;
  readonly storeTroubles: StoreTroubles;
  readonly elections: SimElections;
  readonly parts: SharedParts;
  readonly limits: Partial<SharedJournalLimits>;
  readonly parallelCalls: number;
  readonly clock: () => SimClockOptions;
  readonly onEnd: (machine: SharedMachine, reason: HeadpondError) => void;
  readonly onDiverged: (machine: SharedMachine, reason: string) => void;
  readonly onApplied: (machine: SharedMachine, entries: readonly Applied[]) => void;
  readonly onLog: (machine: SharedMachine, level: string, message: string, fields: LogFields | undefined) => void;
};

export type SharedLife = {
  readonly process: SimProcess;
  readonly machine: ListMachine;
  readonly journal: SharedJournal<string>;
  isOpen: boolean;
};

export class SharedMachine {
  readonly id: string;
  readonly disk = new MemoryDisk();
  readonly diskTroubles = new DiskTroubles();
  readonly storeTroubles = new StoreTroubles();
  readonly #options: SharedMachineOptions;
  /** What the state's own store has. */
  #atRest: Applied[] = [];
  #boot = 1;
  #lives = 0;
  #life: SharedLife | undefined;

  constructor(options: SharedMachineOptions, id: string) {
    this.#options = options;
    this.id = id;
  }

  get life(): SharedLife | undefined {
    return this.#life;
  }

  get journal(): SharedJournal<string> | undefined {
    return this.#life?.isOpen === true ? this.#life.journal : undefined;
  }

  /** Before anything goes wrong. */
  async format(): Promise<void> {
    const { clock } = new SimProcess(this.#options.world, "format", this.#options.clock());
    const store = this.#options.store.view();
    const { disk, id } = this;
    await formatSharedJournal({ disk, clock, store, directory, id, clusterId: sharedClusterId });
  }

  start(): void {
    if (this.#life !== undefined) return;
    const { world, store, storeTroubles, elections, parts, limits, parallelCalls, clock: drawClock } = this.#options;
    const process = new SimProcess(world, `${this.id}.${++this.#lives}`, drawClock());
    const disk = new SimDisk({ disk: this.disk, process, troubles: this.diskTroubles });
    const machine = new RestingList(disk, this.#atRest, (entries) => this.#options.onApplied(this, entries));
    const end = (reason: unknown): void => {
      if (this.#life?.process !== process) return;
      this.kill();
      this.#options.onEnd(this, asOurs(reason));
    };
    const candidate = { id: this.id, rpc: `${this.id}:7070`, http: `${this.id}:7071`, featureLevel: 1 };
    const journal = new parts.SharedJournal<string>({
      disk,
      clock: process.clock,
      logger: this.#logger(),
      metrics: new Metrics(),
      directory,
      clusterId: sharedClusterId,
      id: this.id,
      machine,
      store: new SimSharedStore({
        store,
        process,
        disk,
        troubles: [storeTroubles, this.storeTroubles],
        parallelCalls,
        errors: parts.HeadpondError,
      }),
      election: new SimElection(elections, process, candidate),
      random: new Random(world.random.uint32()),
      limits,
      bootId: `boot-${this.#boot}`,
      onFatal: end,
      onDiverged: (details: string) => this.#options.onDiverged(this, details),
    });
    const life: SharedLife = { process, machine, journal, isOpen: false };
    this.#life = life;
    journal.start().then(() => {
      if (!process.isAlive) return;
      life.isOpen = true;
      world.note(`${process.name} serves at ${machine.applied.index}`);
    }, end);
    const flush = (): void => {
      this.#atRest = [...machine.list];
      process.after(world.random.between(1, 200), flush);
    };
    process.after(world.random.between(1, 200), flush);
  }

  /** The process dies; the machine goes on. */
  kill(): void {
    this.#life?.process.kill();
    this.#life = undefined;
  }

  stop(onStopped: () => void): void {
    const life = this.#life;
    if (life === undefined || !life.isOpen) return;
    life.isOpen = false;
    const { process, journal, machine } = life;
    const end = (text: string): void => {
      if (!process.isAlive) return;
      this.#options.world.note(`${process.name} stopped: ${text}`);
      if (text === "orderly") this.#atRest = [...machine.list];
      this.kill();
      onStopped();
    };
    journal.close().then(
      () => end("orderly"),
      (error: unknown) => end(asOurs(error).message),
    );
    this.#options.world.events.after(10_000, () => end("killed"));
  }

  losePower(): void {
    const { random } = this.#options.world;
    this.kill();
    this.disk.crash({ random });
    this.#boot++;
    const fate = random.pick(["as it was", "older", "empty", "damaged"] as const);
    if (fate === "older") this.#atRest = this.#atRest.slice(0, random.between(0, this.#atRest.length));
    if (fate === "empty") this.#atRest = [];
    if (fate === "damaged") this.#atRest = this.#atRest.map((one) => ({ ...one, text: `${one.text}?` }));
  }

  #logger(): Logger {
    const say =
      (level: string) =>
      (message: string, fields?: LogFields): void =>
        this.#options.onLog(this, level, message, fields);
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

/** Begins with what was flushed. */
class RestingList extends ListMachine {
  readonly #onApplied: (entries: readonly Applied[]) => void;

  constructor(disk: SimDisk, atRest: readonly Applied[], onApplied: (entries: readonly Applied[]) => void) {
    super(disk);
    this.list.push(...atRest);
    this.#onApplied = onApplied;
  }

  override apply(entries: readonly Entry[]): string[] {
    const results = super.apply(entries);
    this.#onApplied(this.list.slice(this.list.length - entries.length));
    return results;
  }

  async flush(): Promise<void> {}
}
