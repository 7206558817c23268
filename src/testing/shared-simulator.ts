/**
 * Shared journals over simulated storage and a simulated election, in one thread: one seed, one history. Processes are killed, paused, stopped and lose
 * power; storage is slow, away, full, loses requests and answers, and lets creates take effect long after who sent them is gone; the
 * election misleads and is away. An oracle looks at everything that is applied, acknowledged and read. Then all faults end: one must lead,
 * all must come to rest with the same state, and what was acknowledged must be in it, once.
 */

import { HeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { type Applied, resultOf } from "../journal/list-machine.ts";
import { SharedJournal } from "../journal/shared-journal.ts";
import { asOurs } from "./master-simulator-machine.ts";
import { MemorySharedStore } from "./memory-shared-store.ts";
import { SharedMachine, type SharedParts } from "./shared-simulator-machine.ts";
import { drawSharedProfile, type SharedProfile, sharedLimits } from "./shared-simulator-profile.ts";
import { SimElections } from "./sim-election.ts";
import { StoreTroubles } from "./sim-shared-store.ts";
import { SimWorld } from "./sim-world.ts";

export type SharedSimulationOptions = {
  readonly seed: number;
  /** Simulated milliseconds with faults. */
  readonly ticks: number;
  readonly parts?: Partial<SharedParts>;
  readonly profile?: Partial<SharedProfile>;
  readonly onLine?: (line: string) => void;
  /** The journals' own log goes into the lines, too. */
  readonly verbose?: boolean;
};

export type SharedSimulationResult = {
  readonly seed: number;
  readonly ticks: number;
  readonly violation: string | undefined;
  readonly transcript: string;
  readonly lines: readonly string[];
  readonly counts: Readonly<Record<string, number>>;
};

class Violation extends Error {
  override readonly name = "Violation";
}

const healMs = 20_000;
const promptMs = 4000;

export async function simulateShared(options: SharedSimulationOptions): Promise<SharedSimulationResult> {
  return new SharedSimulation(options).run();
}

class SharedSimulation {
  readonly #options: SharedSimulationOptions;
  readonly #random: Random;
  readonly #profile: SharedProfile;
  readonly #world: SimWorld;
  readonly #store = new MemorySharedStore();
  readonly #troubles = new StoreTroubles();
  readonly #elections: SimElections;
  readonly #machines: SharedMachine[] = [];
  /** By index: what the first that applied it had. */
  readonly #log = new Map<number, { readonly term: number; readonly text: string; readonly by: string }>();
  readonly #acknowledged = new Map<number, string>();
  readonly #refused = new Set<string>();
  #highestAcknowledged = 0;
  /** Of what was acknowledged, or shown by a read. */
  #highestSeen = 0;
  #values = 0;
  #isHealed = false;
  #violation: Violation | undefined;
  readonly #counts = {
    acknowledged: 0,
    unknown: 0,
    refused: 0,
    reads: 0,
    standbyReads: 0,
    kills: 0,
    stops: 0,
    powerLosses: 0,
    pauses: 0,
    outages: 0,
    full: 0,
    misled: 0,
    transfers: 0,
    checkpoints: 0,
    reigns: 0,
    rebuilds: 0,
    ends: 0,
  };

  constructor(options: SharedSimulationOptions) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#profile = { ...drawSharedProfile(this.#random), ...options.profile };
    this.#world = new SimWorld({ random: this.#random, onLine: options.onLine });
    this.#elections = new SimElections(this.#world);
  }

  async run(): Promise<SharedSimulationResult> {
    const { seed, ticks } = this.#options;
    let violation: string | undefined;
    const onDefect = (error: unknown): void =>
      this.#fail(`a promise was rejected and nobody heard: ${error instanceof Error ? error.stack : String(error)}`);
    process.on("unhandledRejection", onDefect);
    try {
      await this.#start();
      await this.#run(ticks);
      await this.#heal();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const text = error instanceof Violation ? error.message : error.stack;
      violation = `after ${Math.round(this.#world.nowMs)} ms: ${text}`;
    } finally {
      process.off("unhandledRejection", onDefect);
      for (const machine of this.#machines) machine.kill();
    }
    return {
      seed,
      ticks: this.#world.nowMs,
      violation,
      transcript: this.#world.transcriptHash,
      lines: this.#world.transcriptEnd,
      counts: { entries: this.#log.size, ...this.#counts },
    };
  }

  async #start(): Promise<void> {
    const p = this.#profile;
    const { lostRequest, lostAnswer, lateRequest, existsAfterSuccess, staleListing, delayMs, sessionMs } = p;
    Object.assign(this.#troubles, {
      ...{ lostRequest, lostAnswer, lateRequest, existsAfterSuccess, staleListing, delayMs },
    });
    this.#elections.sessionMs = sessionMs;
    for (let i = 1; i <= p.size; i++) this.#machines.push(this.#machine(`m${i}`));
    this.#random.pick(this.#machines).storeTroubles.lostRequest = p.oneLosesRequests;
    for (const machine of this.#machines) await machine.format();
    for (const machine of this.#machines) this.#world.events.after(this.#random.between(0, 50), () => machine.start());
    for (let i = 0; i < p.clients; i++) this.#client();
    this.#faults();
  }

  #machine(id: string): SharedMachine {
    const random = this.#random;
    return new SharedMachine(
      {
        world: this.#world,
        store: this.#store,
        storeTroubles: this.#troubles,
        elections: this.#elections,
        parts: { SharedJournal, HeadpondError, ...this.#options.parts },
        limits: sharedLimits(this.#profile),
        parallelCalls: this.#profile.parallelCalls,
        clock: () => ({
          rate: 0.98 + random.float() * 0.04,
          monotonicOffsetMs: random.between(0, 1e6),
          wallOffsetMs: random.between(-500, 500),
        }),
        onEnd: (machine, reason) => {
          this.#counts.ends++;
          const isExcused = /EIO|ENOSPC/.test(reason.message);
          if (!isExcused) this.#fail(`${machine.id} ended: ${reason.stack ?? reason.message}`);
          this.#startLater(machine);
        },
        onDiverged: (machine, reason) => this.#fail(`${machine.id} found that states differ: ${reason}`),
        onApplied: (machine, entries) => this.#applied(machine, entries),
        onLog: (machine, level, message, fields) => {
          if (message === "leads") this.#counts.reigns++;
          if (message.startsWith("the state is replaced")) this.#counts.rebuilds++;
          if (this.#options.verbose === true)
            this.#world.note(`${machine.id} ${level}: ${message} ${JSON.stringify(fields ?? {})}`);
        },
      },
      id,
    );
  }

  // Who uses it.

  #client(): void {
    const next = (): void => {
      const thinkMs = this.#profile.thinkMs + (this.#isHealed ? 40 : 0);
      this.#world.events.after(-thinkMs * Math.log(1 - this.#random.float()), () => {
        const machine = this.#random.pick(this.#machines);
        const leaders = this.#machines.filter(({ journal }) => journal?.role === "leader");
        const target = leaders.length > 0 && this.#random.chance(0.9) ? this.#random.pick(leaders) : machine;
        if (this.#random.chance(this.#profile.readShare)) this.#read(machine);
        else this.#propose(target);
        next();
      });
    };
    next();
  }

  #propose(machine: SharedMachine): void {
    const { journal, life } = machine;
    if (journal === undefined || life === undefined || life.process.isPaused) return;
    const count = this.#random.chance(0.1) ? this.#random.between(2, 20) : 1;
    for (let i = 0; i < count; i++) {
      const text = `v${++this.#values}${"x".repeat(this.#random.pick([0, 0, 0, this.#profile.fillerBytes]))}`;
      const before = this.#highestSeen;
      const sentAtMs = this.#world.nowMs;
      let isAnswered = false;
      this.#world.events.after(promptMs, () => {
        if (isAnswered || !life.process.isAlive || life.process.isPaused) return;
        if (this.#machines.some((one) => one.life?.process === life.process) && this.#isCalmSince(sentAtMs))
          this.#fail(`${life.process.name} has left ${text.slice(0, 12)} without an answer for ${promptMs} ms`);
      });
      journal.propose(Buffer.from(text, "utf8")).then(
        ({ index, result }) => {
          isAnswered = true;
          this.#world.note(`${machine.id} acknowledges ${text.slice(0, 12)} at ${index}`);
          this.#counts.acknowledged++;
          if (result !== resultOf(text)) this.#fail(`the result of ${text} is ${result}`);
          if (this.#log.get(index)?.text !== text) this.#fail(`${text} is acknowledged at ${index} and not there`);
          if (index <= before) this.#fail(`${text} is at ${index}, ${before} was known before it was proposed`);
          this.#acknowledged.set(index, text);
          this.#highestAcknowledged = Math.max(this.#highestAcknowledged, index);
          this.#highestSeen = Math.max(this.#highestSeen, index);
        },
        (thrown: unknown) => {
          isAnswered = true;
          const error = asOurs(thrown);
          if (error.code === "internal") this.#fail(`${text} is answered with ${error.stack ?? error.message}`);
          this.#counts[error.outcome === "none" ? "refused" : "unknown"]++;
          if (error.outcome === "none") this.#refused.add(text);
        },
      );
    }
  }

  /** Whether storage has been reachable all the time since. */
  #isCalmSince(sinceMs: number): boolean {
    return this.#lastTroubleMs < sinceMs;
  }

  #lastTroubleMs = 0;

  #read(machine: SharedMachine): void {
    const { journal, life } = machine;
    if (journal === undefined || life === undefined || life.process.isPaused) return;
    const before = this.#highestSeen;
    const isStandby = journal.role === "standby";
    journal.readBarrier().then(
      () => {
        this.#counts[isStandby ? "standbyReads" : "reads"]++;
        const { index } = life.machine.applied;
        if (index < before)
          this.#fail(
            `a read at ${life.process.name} sees ${index} entries, ${before} were known to somebody before it`,
          );
        this.#highestSeen = Math.max(this.#highestSeen, index);
      },
      (thrown: unknown) => {
        const error = asOurs(thrown);
        if (error.code === "internal") this.#fail(`a read is answered with ${error.stack ?? error.message}`);
      },
    );
  }

  #applied(machine: SharedMachine, entries: readonly Applied[]): void {
    for (const { index, term, text } of entries) {
      const known = this.#log.get(index);
      if (known === undefined) {
        this.#log.set(index, { term, text, by: machine.id });
        if (this.#refused.has(text)) this.#fail(`${text} was refused and is applied at ${index}`);
        continue;
      }
      if (known.term !== term || known.text !== text) {
        this.#fail(
          `${machine.id} applies ${term}/${text.slice(0, 12)} at ${index}, ${known.by} had ${known.term}/${known.text.slice(0, 12)}`,
        );
      }
    }
  }

  // What goes wrong.

  #faults(): void {
    const p = this.#profile;
    const { random } = this.#world;
    const often = (meanMs: number, run: () => void): void => this.#world.often(meanMs, () => !this.#isHealed, run);
    const any = (leaderProbability: number): SharedMachine => {
      const leaders = this.#machines.filter(({ journal }) => journal?.role === "leader");
      return random.pick(leaders.length > 0 && random.chance(leaderProbability) ? leaders : this.#machines);
    };
    often(p.killMs, () => {
      const machine = any(0.5);
      if (machine.life === undefined) return;
      this.#counts.kills++;
      this.#world.note(`${machine.id} is killed`);
      machine.kill();
      this.#startLater(machine);
    });
    often(p.stopMs, () => {
      const machine = any(0.5);
      this.#counts.stops++;
      machine.stop(() => this.#startLater(machine));
    });
    often(p.powerMs, () => {
      for (const machine of random.chance(0.2) ? this.#machines : [any(0.4)]) {
        if (machine.life === undefined) continue;
        this.#counts.powerLosses++;
        this.#world.note(`${machine.id} loses power`);
        machine.losePower();
        this.#startLater(machine);
      }
    });
    often(p.pauseMs, () => {
      const { life } = any(0.7);
      if (life === undefined || life.process.isPaused) return;
      const durationMs = random.between(5, random.pick([100, 600, 3000]));
      this.#counts.pauses++;
      this.#world.note(`${life.process.name} is paused for ${durationMs}`);
      this.#lastTroubleMs = this.#world.nowMs + durationMs;
      life.process.pause();
      this.#world.events.after(durationMs, () => life.process.thaw());
    });
    often(p.outageMs, () => {
      const troubles = random.pick([this.#troubles, any(0.7).storeTroubles]);
      const durationMs = random.between(20, random.pick([200, 1500, 4000]));
      this.#counts.outages++;
      this.#world.note(`storage is away for ${durationMs}`);
      troubles.downUntilMs = this.#world.nowMs + durationMs;
      this.#lastTroubleMs = Math.max(this.#lastTroubleMs, troubles.downUntilMs);
    });
    often(p.fullMs, () => {
      this.#counts.full++;
      this.#troubles.fullUntilMs = this.#world.nowMs + random.between(20, 1500);
      this.#lastTroubleMs = Math.max(this.#lastTroubleMs, this.#troubles.fullUntilMs);
    });
    often(p.electionMs, () => {
      this.#elections.downUntilMs = this.#world.nowMs + random.between(100, 3000);
    });
    often(p.misleadMs, () => {
      this.#counts.misled++;
      this.#elections.mislead();
    });
    often(p.transferMs, () => {
      this.#counts.transfers++;
      const target = random.chance(0.5) ? undefined : random.pick(this.#machines).id;
      any(1)
        .journal?.cluster.transferLeadership(target)
        .catch(() => {});
    });
    often(p.checkpointMs, () => {
      this.#counts.checkpoints++;
      any(0.3)
        .journal?.checkpoint()
        .catch(() => {});
    });
  }

  #startLater(machine: SharedMachine): void {
    this.#world.events.after(this.#random.between(1, this.#profile.downMs), () => machine.start());
  }

  // The end.

  async #heal(): Promise<void> {
    this.#world.note("everything heals");
    this.#isHealed = true;
    for (const troubles of [this.#troubles, ...this.#machines.map(({ storeTroubles }) => storeTroubles)]) {
      Object.assign(troubles, new StoreTroubles());
    }
    this.#elections.downUntilMs = 0;
    for (const machine of this.#machines) {
      machine.life?.process.thaw();
      machine.start();
    }
    const { acknowledged } = this.#counts;
    const untilMs = this.#world.nowMs + healMs;
    const goal = acknowledged + 30;
    while (this.#world.nowMs < untilMs && (this.#counts.acknowledged < goal || !this.#isAtRest())) {
      await this.#run(this.#world.nowMs + 20);
    }
    if (this.#counts.acknowledged < goal || !this.#isAtRest()) {
      const states = this.#machines.map(({ id, journal, life }) => {
        if (journal === undefined) return `${id}: ${life === undefined ? "down" : "starting"}`;
        return `${id}: ${JSON.stringify(journal.status())}`;
      });
      throw new Violation(`liveness: no rest within ${healMs} ms\n${states.join("\n")}`);
    }
    this.#judge();
  }

  #isAtRest(): boolean {
    const leaders = this.#machines.filter(({ journal }) => journal?.role === "leader");
    if (leaders.length !== 1 || this.#machines.some(({ journal }) => journal === undefined)) return false;
    // Clients go on asking: level means level within a moment.
    const indexes = this.#machines.map(({ journal }) => journal?.status().appliedIndex ?? 0);
    return Math.min(...indexes) >= this.#highestAcknowledged;
  }

  #judge(): void {
    if (this.#violation !== undefined) throw this.#violation;
    const texts = [...this.#log.values()].map(({ text }) => text);
    if (new Set(texts).size !== texts.length) throw new Violation("the log has something twice");
    for (const { id, life } of this.#machines) {
      for (const [at, { index, text }] of (life?.machine.list ?? []).entries()) {
        if (index !== at + 1) throw new Violation(`${id} has ${index} at ${at + 1}`);
        if (this.#log.get(index)?.text !== text) throw new Violation(`${id} has ${text} at ${index}`);
      }
      const { length } = life?.machine.list ?? [];
      for (const [index, text] of this.#acknowledged) {
        if (index > length || this.#log.get(index)?.text !== text)
          throw new Violation(`${text} was acknowledged at ${index} and is lost at ${id}`);
      }
    }
  }

  async #run(untilMs: number): Promise<void> {
    await this.#world.run(untilMs, () => {
      if (this.#violation !== undefined) throw this.#violation;
      return false;
    });
    if (this.#violation !== undefined) throw this.#violation;
  }

  #fail(message: string): void {
    this.#world.note(`violation: ${message}`);
    this.#violation ??= new Violation(message);
  }
}
