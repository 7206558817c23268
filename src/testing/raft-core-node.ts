/**
 * One member in a simulated cluster: the core, its disk, and the driver between them that a journal would be. It can be
 * paused (what comes in waits), crash (what was not flushed is gone), and have a disk that is slow or hangs.
 */

import { present } from "../base/assert.ts";
import { Random } from "../base/random.ts";
import type { Raft } from "../raft/raft.ts";
import type { Configuration, Entry, Message, NodeId, RaftConfig, RaftLimits } from "../raft/types.ts";
import type { EventQueue } from "./event-queue.ts";
import { entryHash, nextState, payloadNumber, type RaftOracle, Violation } from "./raft-core-oracle.ts";
import { RaftDisk } from "./raft-disk.ts";

export type RaftClass = typeof Raft;

/** What the members of one simulation share. */
export type World = {
  readonly Raft: RaftClass;
  readonly events: EventQueue;
  readonly oracle: RaftOracle;
  readonly random: Random;
  readonly config: RaftConfig;
  readonly limits: RaftLimits;
  readonly send: (message: Message, state: number) => void;
  readonly holds: (id: NodeId, index: number, term: number) => boolean;
  readonly counts: Counts;
  flushMs: () => number;
};

export type Counts = {
  events: number;
  proposed: number;
  acknowledged: number;
  refused: number;
  unknown: number;
  leaseReads: number;
  quorumReads: number;
  refusedReads: number;
  installs: number;
  crashes: number;
  changes: number;
  transfers: number;
};

export class SimulatedNode {
  readonly id: NodeId;
  readonly disk: RaftDisk;
  readonly #world: World;
  /** Clocks differ in what they show and how fast they go. */
  readonly #clockRate: number;
  #clockOffsetMs: number;
  #raft: Raft | undefined;
  /** Counts lives: what was begun in an earlier one does not end. */
  #life = 0;
  #paused = false;
  readonly #inbox: (() => void)[] = [];
  #hungUntilMs = 0;
  #applied = 0;
  #state = 0;
  #applying: readonly Entry[] = [];
  #knownCommit = 0;
  #nextContext = 1;
  /** Reads under way: what was committed when they were asked for. */
  #reads = new Map<number, number>();
  /** Accepted proposals, by index. */
  #waiters = new Map<number, { readonly term: number; readonly number: number }>();

  constructor(id: NodeId, format: Configuration, world: World) {
    this.id = id;
    this.disk = new RaftDisk(format);
    this.#world = world;
    this.#clockRate = 0.98 + world.random.float() * 0.04;
    this.#clockOffsetMs = 0;
    this.start();
  }

  get isUp(): boolean {
    return this.#raft !== undefined;
  }

  get isPaused(): boolean {
    return this.#paused;
  }

  /** Of a member that is up. */
  get raft(): Raft {
    return present(this.#raft, `${this.id} is up`);
  }

  get appliedIndex(): number {
    return this.#applied;
  }

  start(): void {
    const { Raft, random, config, limits, oracle } = this.#world;
    this.#clockOffsetMs = random.between(-1e6, 1e6);
    const { point, state } = this.disk.checkpoint;
    this.#applied = point.index;
    this.#state = state;
    this.#knownCommit = point.index;
    oracle.applied(this.id, point.index, state);
    this.#raft = new Raft({
      id: this.id,
      config,
      limits,
      random: new Random(random.uint32()),
      storage: this.disk,
      hardState: this.disk.hardState,
      configurations: this.disk.configurations,
      appliedIndex: point.index,
      restartedAtMs: this.#clock(),
    });
    this.#life++;
    this.#tickLater();
  }

  crash(): void {
    this.#world.counts.crashes++;
    this.#raft = undefined;
    this.#life++;
    this.#paused = false;
    this.#hungUntilMs = 0;
    this.#inbox.length = 0;
    this.#applying = [];
    this.#reads.clear();
    this.#world.counts.unknown += this.#waiters.size;
    this.#waiters.clear();
    this.disk.crash(this.#world.random);
  }

  pause(): void {
    this.#paused = true;
  }

  /** Goes on. What came in meanwhile, a read that came in just now and the next tick are met in any order. */
  thaw(): void {
    if (!this.#paused || !this.isUp) return;
    this.#paused = false;
    const { random } = this.#world;
    const waiting = this.#inbox.splice(0);
    const steps = [
      () => {
        for (const run of waiting) if (this.isUp) run();
      },
      () => this.#tick(),
      () => this.read(),
    ];
    for (const step of random.shuffle(steps)) if (this.isUp) step();
  }

  /** No flush ends before `untilMs`. */
  hang(untilMs: number): void {
    this.#hungUntilMs = untilMs;
  }

  receive(message: Message, state: number): void {
    this.#enter(() => {
      if (message.type === "snapshot") this.#snapshotStates.set(message.snapshot.index, state);
      this.raft.step(message, this.#clock());
    });
  }

  propose(payload: Uint8Array): void {
    this.#enter(() => {
      const { counts, oracle } = this.#world;
      const proposal = this.raft.propose([payload], this.#clock());
      if (proposal.accepted) {
        counts.proposed++;
        this.#waiters.set(proposal.firstIndex, { term: proposal.term, number: payloadNumber(payload) });
      } else {
        counts.refused++;
        oracle.refused(payload);
      }
    });
  }

  /** Asks for a linearizable read, now. */
  read(): void {
    const asOf = this.#world.oracle.commitIndex;
    this.#enter(() => {
      const context = this.#nextContext++;
      this.#reads.set(context, asOf);
      const index = this.raft.leaseIndex(this.#clock());
      if (index !== undefined) this.#world.oracle.read(this.id, index, asOf, "lease");
      this.raft.readIndex(context, this.#clock());
    });
  }

  /** Tells the core something else. */
  tell(run: (raft: Raft, nowMs: number) => void): void {
    this.#enter(() => run(this.raft, this.#clock()));
  }

  /** Saves the state and cuts the log behind it, but for `keep` entries. */
  saveCheckpoint(keep: number): void {
    if (!this.isUp || this.#paused || !this.disk.isIdle || this.#applied <= this.disk.checkpoint.point.index) return;
    const index = this.#applied;
    const term = present(this.disk.term(index), "what is applied is on the disk");
    const configuration = present(this.raft.configurationAt(index), `the configuration at ${index} is known`);
    this.disk.save({ point: { index, term, configuration }, state: this.#state }, index - keep);
  }

  readonly #snapshotStates = new Map<number, number>();

  #clock(): number {
    return Math.floor(this.#world.events.nowMs * this.#clockRate) + this.#clockOffsetMs;
  }

  #tickLater(): void {
    const life = this.#life;
    const { events, random, config } = this.#world;
    events.after(config.tickMs + (random.chance(0.2) ? random.between(0, 8) : 0), () => {
      if (life !== this.#life) return;
      this.#tickLater();
      if (!this.#paused) this.#tick();
    });
  }

  #tick(): void {
    this.#enter(() => this.raft.tick(this.#clock()));
  }

  /** Runs something in the process, or when it goes on. */
  #enter(run: () => void): void {
    if (!this.isUp) return;
    if (this.#paused) {
      this.#inbox.push(() => this.#enter(run));
      return;
    }
    this.#world.counts.events++;
    run();
    this.#drain();
  }

  /** What a driver does with what is ready. */
  #drain(): void {
    const { oracle, counts, send } = this.#world;
    const raft = this.raft;
    const ready = raft.ready();
    if (ready.roleChange?.role === "leader") oracle.leads(this.id, raft);
    if (ready.append !== undefined) {
      for (const entry of ready.append.entries) oracle.appended(this.id, entry, raft.termAt(entry.index - 1));
      this.disk.write(ready.append);
    }
    if (raft.commitIndex > this.#knownCommit) {
      const { configuration } = raft.status;
      oracle.committed(this.id, raft, this.#knownCommit + 1, configuration, this.#world.holds);
      this.#knownCommit = raft.commitIndex;
    }
    if (ready.unknown !== undefined) {
      const { firstIndex, lastIndex, term } = ready.unknown;
      for (let index = firstIndex; index <= lastIndex; index++) {
        if (this.#waiters.get(index)?.term === term && this.#waiters.delete(index)) counts.unknown++;
      }
    }
    if (ready.roleChange !== undefined && ready.roleChange.role !== "leader") this.#checkWaiters(raft);
    if (ready.install !== undefined) {
      const state = present(this.#snapshotStates.get(ready.install.index), "the snapshot has arrived");
      this.disk.install({ point: ready.install, state });
    }
    if (ready.committed.length > 0) this.#applyLater(ready.committed);
    for (const { context, index, via } of ready.reads) {
      const asOf = this.#reads.get(context);
      if (asOf === undefined) throw new Violation(`${this.id} answers a read ${context} that nobody asked for`);
      this.#reads.delete(context);
      counts[via === "lease" ? "leaseReads" : "quorumReads"]++;
      oracle.read(this.id, index, asOf, via);
    }
    for (const { context } of ready.refusedReads) {
      if (!this.#reads.delete(context))
        throw new Violation(`${this.id} refuses a read ${context} that nobody asked for`);
      counts.refusedReads++;
    }
    this.#flush();
    for (const message of ready.messages) send(message, this.disk.checkpoint.state);
  }

  /** A member that does not lead has told every proposer something, or will when it applies what is committed. */
  #checkWaiters(raft: Raft): void {
    for (const [index, { term }] of this.#waiters) {
      if (index > raft.commitIndex) throw new Violation(`${this.id} forgot the proposal ${term}/${index}`);
    }
  }

  #flush(): void {
    if (this.disk.isFlushing || !this.disk.beginFlush()) return;
    const life = this.#life;
    const { events, flushMs } = this.#world;
    const delayMs = Math.max(flushMs(), this.#hungUntilMs - events.nowMs);
    events.after(delayMs, () => life === this.#life && this.#flushed());
  }

  #flushed(): void {
    const { events } = this.#world;
    if (this.#hungUntilMs > events.nowMs) {
      const life = this.#life;
      events.after(this.#hungUntilMs - events.nowMs, () => life === this.#life && this.#flushed());
      return;
    }
    const { token, installed } = this.disk.endFlush();
    if (installed !== undefined) {
      // The log has changed under the core, so this must not be overtaken by anything that waits.
      this.#finishApply();
      this.#install(installed.point.index, installed.state);
    } else if (token !== undefined) {
      this.#enter(() => this.raft.appended(token, this.#clock()));
    }
    this.#flush();
  }

  #install(index: number, state: number): void {
    const { counts } = this.#world;
    counts.installs++;
    for (const waiting of this.#waiters.keys()) if (waiting <= index && this.#waiters.delete(waiting)) counts.unknown++;
    this.#applied = index;
    this.#state = state;
    this.#knownCommit = Math.max(this.#knownCommit, index);
    this.raft.snapshotInstalled(index, this.#clock());
    this.#world.oracle.applied(this.id, index, state);
    if (this.#paused) this.#inbox.push(() => this.#enter(() => {}));
    else this.#drain();
  }

  #applyLater(entries: readonly Entry[]): void {
    this.#applying = entries;
    const life = this.#life;
    const { events, random } = this.#world;
    events.after(random.between(0, 3), () => {
      if (life !== this.#life || this.#applying !== entries) return;
      this.#enter(() => this.#finishApply());
    });
  }

  #finishApply(): void {
    const entries = this.#applying;
    const last = entries.at(-1);
    if (last === undefined) return;
    this.#applying = [];
    const { counts, oracle } = this.#world;
    for (const entry of entries) {
      if (entry.index !== this.#applied + 1)
        throw new Violation(`${this.id} applies ${entry.index} after ${this.#applied}`);
      this.#applied = entry.index;
      this.#state = nextState(this.#state, entry.index, entryHash(entry));
      const waiter = this.#waiters.get(entry.index);
      if (waiter === undefined) continue;
      this.#waiters.delete(entry.index);
      const isOurs = waiter.term === entry.term;
      if (isOurs && payloadNumber(entry.payload) !== waiter.number)
        throw new Violation(`${this.id} mixed up proposals`);
      if (!isOurs) throw new Violation(`${this.id} lost ${waiter.term}/${entry.index} without saying so`);
      counts.acknowledged++;
    }
    oracle.applied(this.id, this.#applied, this.#state);
    this.raft.applied(last.index);
  }
}
