/**
 * A clock that stands still until a test moves it. Timers fire in the order of their due times, those due at the same
 * time in the order in which they were set: the same test, the same order.
 */

import { type Clock, sleepBy, type Timer } from "./clock.ts";

type Entry = { readonly dueMs: number; readonly callback: () => void };

export class ManualClock implements Clock {
  #wallMs: number;
  #monotonicMs = 0;
  /** In the order in which they were set. */
  readonly #entries = new Set<Entry>();

  constructor(options: { readonly wallMs?: number } = {}) {
    this.#wallMs = options.wallMs ?? Date.UTC(2026, 0, 1);
  }

  wallMs(): number {
    return Math.floor(this.#wallMs);
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  timer(durationMs: number, callback: () => void): Timer {
    const entry: Entry = { dueMs: this.#monotonicMs + Math.max(0, durationMs), callback };
    this.#entries.add(entry);
    return { clear: () => void this.#entries.delete(entry) };
  }

  nextTurn(): Promise<void> {
    return Promise.resolve();
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return sleepBy((callback) => this.timer(durationMs, callback), signal);
  }

  /** Timers and sleeps that are still to come. */
  get pendingCount(): number {
    return this.#entries.size;
  }

  /** Moves both clocks. Between two due times everything that became possible without the world outside happens first. */
  async advance(durationMs: number): Promise<void> {
    const endMs = this.#monotonicMs + durationMs;
    await settle();
    while (this.#fireNext(endMs)) await settle();
    this.#moveTo(endMs);
  }

  /** As `advance`, for callers that use timers only: promises get no turn in between. */
  advanceSync(durationMs: number): void {
    const endMs = this.#monotonicMs + durationMs;
    while (this.#fireNext(endMs)) {}
    this.#moveTo(endMs);
  }

  /** Somebody sets the wall clock, forwards or back; the monotonic one does not care. */
  jumpWall(byMs: number): void {
    this.#wallMs += byMs;
  }

  #fireNext(endMs: number): boolean {
    let next: Entry | undefined;
    for (const entry of this.#entries) if (next === undefined || entry.dueMs < next.dueMs) next = entry;
    if (next === undefined || next.dueMs > endMs) return false;
    this.#entries.delete(next);
    this.#moveTo(next.dueMs);
    next.callback();
    return true;
  }

  /** Never back: while `advance` waits for a turn, somebody else may have moved on. */
  #moveTo(monotonicMs: number): void {
    if (monotonicMs <= this.#monotonicMs) return;
    this.#wallMs += monotonicMs - this.#monotonicMs;
    this.#monotonicMs = monotonicMs;
  }
}

/** Lets all promises that can go on do so. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
