/**
 * Simulated time and the processes that live in it: real code that runs as if each process had a machine of its own. Everything
 * that reaches a process (timers, ends of disk operations, bytes of the network) comes through its gate, so that a paused process
 * stands still and a dead one is never heard of again, whatever promises it left behind.
 *
 * After each event all that can go on without the world outside does so. One seed, one order of events: the transcript's hash proves
 * it. It leaves out `setTimeout` and real threads: code under simulation takes its time from the clock that it is given.
 */

import type { Random } from "../base/random.ts";
import { type Clock, sleepBy, type Timer } from "../io/clock.ts";
import { EventQueue } from "./event-queue.ts";

const transcriptLinesKept = 400;

export class SimWorld {
  readonly random: Random;
  readonly events = new EventQueue();
  #hashLow = 0x811c9dc5;
  #hashHigh = 0x9e3779b9;
  readonly #lines: string[] = [];
  readonly #onLine: ((line: string) => void) | undefined;
  #eventCount = 0;

  constructor(options: { readonly random: Random; readonly onLine?: ((line: string) => void) | undefined }) {
    this.random = options.random;
    this.#onLine = options.onLine;
  }

  get nowMs(): number {
    return this.events.nowMs;
  }

  get eventCount(): number {
    return this.#eventCount;
  }

  /** Writes into the transcript: what is the same in two runs of one seed. */
  note(text: string): void {
    const line = `${this.nowMs.toFixed(3)} ${text}`;
    this.#hash(line);
    this.#onLine?.(line);
    this.#lines.push(line);
    if (this.#lines.length > 2 * transcriptLinesKept) this.#lines.splice(0, transcriptLinesKept);
  }

  get transcriptHash(): string {
    return (this.#hashHigh >>> 0).toString(16).padStart(8, "0") + (this.#hashLow >>> 0).toString(16).padStart(8, "0");
  }

  /** The last lines, for people. */
  get transcriptEnd(): readonly string[] {
    return this.#lines.slice(-transcriptLinesKept);
  }

  /** FNV-1a, twice, over different starts and primes. */
  #hash(line: string): void {
    for (let i = 0; i <= line.length; i++) {
      const code = i < line.length ? line.charCodeAt(i) : 10;
      this.#hashLow = Math.imul(this.#hashLow ^ code, 0x01000193);
      this.#hashHigh = Math.imul(this.#hashHigh ^ code, 0x85ebca6b) ^ (this.#hashHigh >>> 13);
    }
  }

  /** Again and again, with random waits of this mean, as long as `goesOn`; never if the mean is infinite. */
  often(meanMs: number, goesOn: () => boolean, run: () => void): void {
    if (meanMs === Number.POSITIVE_INFINITY) return;
    const next = (): void => {
      this.events.after(-meanMs * Math.log(1 - this.random.float()), () => {
        if (!goesOn()) return;
        run();
        next();
      });
    };
    next();
  }

  /** Lets time pass up to `untilMs`, or until `isDone`. */
  async run(untilMs: number, isDone: () => boolean = () => false): Promise<void> {
    while (!isDone() && this.events.step(untilMs)) {
      this.#eventCount++;
      await settle();
    }
  }
}

/** Lets all promises that can go on do so. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export type SimClockOptions = {
  /** How fast its monotonic clock goes; 1 is right. */
  readonly rate: number;
  readonly monotonicOffsetMs: number;
  readonly wallOffsetMs: number;
};

/** One life of one process. */
export class SimProcess {
  readonly name: string;
  readonly clock: SimClock;
  readonly world: SimWorld;
  #isAlive = true;
  #isPaused = false;
  readonly #waiting: { readonly isTimer: boolean; readonly run: () => void }[] = [];
  readonly #onDeath: (() => void)[] = [];

  constructor(world: SimWorld, name: string, clock: SimClockOptions) {
    this.world = world;
    this.name = name;
    this.clock = new SimClock(this, clock);
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Runs something in the process: now, or when it goes on, or never if it is dead. */
  enter(run: () => void, isTimer = false): void {
    if (!this.#isAlive) return;
    if (this.#isPaused) this.#waiting.push({ isTimer, run });
    else run();
  }

  after(delayMs: number, run: () => void, isTimer = false): void {
    this.world.events.after(Math.max(0, delayMs), () => this.enter(run, isTimer));
  }

  pause(): void {
    this.#isPaused = true;
  }

  /** What came in meanwhile happens one after the other; timers come first or in between, as the kernel likes. */
  thaw(): void {
    if (!this.#isPaused || !this.#isAlive) return;
    this.#isPaused = false;
    const waiting = this.#waiting.splice(0);
    if (this.world.random.chance(0.5)) waiting.sort((a, b) => Number(b.isTimer) - Number(a.isTimer));
    for (const { run } of waiting) this.after(0, run);
  }

  /** Calls back when the process dies: for what the kernel cleans up. */
  onDeath(run: () => void): void {
    this.#onDeath.push(run);
  }

  kill(): void {
    if (!this.#isAlive) return;
    this.#isAlive = false;
    this.#waiting.length = 0;
    for (const run of this.#onDeath.splice(0)) run();
  }
}

export class SimClock implements Clock {
  readonly #process: SimProcess;
  readonly #options: SimClockOptions;
  #wallJumpMs = 0;

  constructor(process: SimProcess, options: SimClockOptions) {
    this.#process = process;
    this.#options = options;
  }

  wallMs(): number {
    const { wallOffsetMs, rate } = this.#options;
    return Math.floor(wallEpochMs + wallOffsetMs + this.#wallJumpMs + this.#process.world.nowMs * rate);
  }

  monotonicMs(): number {
    return this.#options.monotonicOffsetMs + this.#process.world.nowMs * this.#options.rate;
  }

  /** Somebody sets the wall clock. */
  jumpWall(byMs: number): void {
    this.#wallJumpMs += byMs;
  }

  timer(durationMs: number, callback: () => void): Timer {
    let isSet = true;
    const run = (): void => {
      if (!isSet) return;
      isSet = false;
      callback();
    };
    this.#process.after(durationMs / this.#options.rate, run, true);
    return {
      clear: () => {
        isSet = false;
      },
    };
  }

  nextTurn(): Promise<void> {
    return new Promise((resolve) => this.#process.after(0, resolve));
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return sleepBy((callback) => this.timer(durationMs, callback), signal);
  }
}

const wallEpochMs = Date.UTC(2026, 0, 1);
