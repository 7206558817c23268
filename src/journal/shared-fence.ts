/**
 * The fence between primaries: epochs, each claimed by an exclusive create. Who holds epoch E is deposed from the moment when `epochs/E+1`
 * is there, whether it knows or not; so it asks before it says anything that depends on being the newest. A question is answered by a read
 * that began after it, and all questions that wait share one read.
 */

import { epochName } from "./shared-names.ts";
import { objectKind } from "./shared-object.ts";
import type { SharedObjects } from "./shared-objects.ts";

export type Claim = {
  readonly mark: string;
  /** Who claims, for people: in the object. */
  readonly about: Readonly<Record<string, string | number>>;
};

/** The first epoch behind `known`, which is claimed, that was free. Each later one is free still, or a later primary's. */
export async function claimEpoch(
  objects: SharedObjects,
  known: number,
  { mark, about }: Claim,
  signal: AbortSignal,
): Promise<number> {
  for (let epoch = known + 1; ; epoch++) {
    const name = epochName(epoch);
    const bytes = objects.encode(objectKind.epoch, name, mark, { epoch, ...about });
    if ((await objects.create(name, bytes, mark, signal)).own) return epoch;
  }
}

type Waiter = { readonly resolve: (isStill: boolean) => void; readonly reject: (error: unknown) => void };

export type SharedFenceOptions = {
  readonly objects: SharedObjects;
  /** The own. */
  readonly epoch: number;
  /** Reads under way at most. */
  readonly readsMax: number;
  readonly signal: AbortSignal;
  readonly onDeposed: (by: string) => void;
};

export class SharedFence {
  readonly #options: SharedFenceOptions;
  #waiting: Waiter[] = [];
  #underWay = 0;
  #isDeposed = false;

  constructor(options: SharedFenceOptions) {
    this.#options = options;
  }

  /** Whether the own epoch is still the newest, as of some moment after this call. Rejects when the signal fires. */
  check(): Promise<boolean> {
    if (this.#isDeposed) return Promise.resolve(false);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#begin();
    });
  }

  #begin(): void {
    const { readsMax } = this.#options;
    if (this.#waiting.length === 0 || this.#underWay >= readsMax) return;
    const waiters = this.#waiting;
    this.#waiting = [];
    this.#underWay++;
    void this.#read(waiters);
  }

  async #read(waiters: readonly Waiter[]): Promise<void> {
    const { objects, epoch, signal, onDeposed } = this.#options;
    try {
      const next = await objects.read(epochName(epoch + 1), signal);
      if (next !== undefined && !this.#isDeposed) {
        this.#isDeposed = true;
        onDeposed(String(next.head["id"] ?? next.head.mark));
      }
      for (const { resolve } of waiters) resolve(!this.#isDeposed);
    } catch (error) {
      for (const { reject } of waiters) reject(error);
    }
    this.#underWay--;
    this.#begin();
  }
}
