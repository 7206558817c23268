/** A bounded number of things at once, with a queue in which a waiting reader comes before a load job. */

import { assert } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";

/** A smaller number goes first. A waiting reader is 0; load jobs are 1 (priority 9) to 10 (priority 0). */
export type Urgency = number;
export const readerUrgency: Urgency = 0;

export function loadUrgency(priority: number): Urgency {
  return 10 - Math.min(9, Math.max(0, priority));
}

type Waiter = { readonly urgency: () => Urgency; readonly resolve: () => void };

export class Slots {
  readonly #name: string;
  readonly #limit: number;
  readonly #waitersMax: number;
  readonly #waiters = new Set<Waiter>();
  #taken = 0;

  constructor(options: { readonly name: string; readonly limit: number; readonly waitersMax?: number }) {
    assert(options.limit > 0, `${options.name}: a limit of ${options.limit} lets nothing through`);
    this.#name = options.name;
    this.#limit = options.limit;
    this.#waitersMax = options.waitersMax ?? 10_000;
  }

  get takenCount(): number {
    return this.#taken;
  }

  get waiterCount(): number {
    return this.#waiters.size;
  }

  /** Runs `work` as soon as there is a slot. `urgency` is asked whenever one is free: it may rise while we wait. Rejects with the signal's reason, or `overloaded` when the queue is full. */
  async run<T>(urgency: () => Urgency, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    const give = await this.take(urgency, signal);
    try {
      return await work();
    } finally {
      give();
    }
  }

  /** The same in two steps; resolves with what gives the slot back, once however often it is called. */
  async take(urgency: () => Urgency, signal: AbortSignal | undefined): Promise<() => void> {
    await this.#take(urgency, signal);
    let given = false;
    return () => {
      if (!given) this.#give();
      given = true;
    };
  }

  #take(urgency: () => Urgency, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      if (this.#taken < this.#limit) {
        this.#taken++;
        return resolve();
      }
      if (this.#waiters.size >= this.#waitersMax) {
        const message = `all ${this.#limit} ${this.#name} are in use and ${this.#waitersMax} wait`;
        return reject(new HeadpondError("overloaded", message, { details: { retryAfterMs: 1000 } }));
      }
      const onAbort = (): void => {
        this.#waiters.delete(waiter);
        reject(signal?.reason as Error);
      };
      const waiter: Waiter = {
        urgency,
        resolve: () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      this.#waiters.add(waiter);
      signal?.addEventListener("abort", onAbort, { once: true });
      return undefined;
    });
  }

  #give(): void {
    let next: Waiter | undefined;
    for (const waiter of this.#waiters) {
      if (next === undefined || waiter.urgency() < next.urgency()) next = waiter;
    }
    if (next === undefined) {
      this.#taken--;
      return;
    }
    this.#waiters.delete(next);
    next.resolve();
  }
}
