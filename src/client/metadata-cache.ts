/**
 * The last answers of the masters, for the time when none of them answers. It never saves a question: as long as a master
 * can be reached, everything is asked. A gateway that may serve old names rather than none turns it on
 * (`staleOnUnavailable`); bytes stay right in any case, because they belong to file versions.
 */

import { isHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";

export type MetadataCacheLimits = {
  /** Answers kept. */
  readonly entriesMax: number;
  /** Sum of the weights of the answers kept, e.g. of the files in a revision. */
  readonly weightMax: number;
  /** After a failure, for this long, nobody waits for a master when there is a last answer. */
  readonly retryAfterMs: number;
};

const defaultLimits: MetadataCacheLimits = { entriesMax: 10_000, weightMax: 200_000, retryAfterMs: 1000 };

type Entry = { readonly value: unknown; readonly weight: number };

export class MetadataCache {
  readonly #clock: Clock;
  readonly #limits: MetadataCacheLimits;
  /** Oldest use first. */
  readonly #entries = new Map<string, Entry>();
  #weight = 0;
  #downUntilMs = Number.NEGATIVE_INFINITY;

  constructor(parts: { readonly clock: Clock; readonly limits?: Partial<MetadataCacheLimits> }) {
    this.#clock = parts.clock;
    this.#limits = { ...defaultLimits, ...parts.limits };
  }

  get size(): number {
    return this.#entries.size;
  }

  /** `ask`'s answer; or, when no master can be reached, the last one that was given under `key`. */
  async answer<T>(key: string, ask: () => Promise<T>, weigh: (value: T) => number = () => 1): Promise<T> {
    const known = this.#entries.get(key);
    if (known !== undefined && this.#clock.monotonicMs() < this.#downUntilMs) return this.#use<T>(key, known);
    try {
      const value = await ask();
      this.#downUntilMs = Number.NEGATIVE_INFINITY;
      this.#store(key, { value, weight: weigh(value) });
      return value;
    } catch (error) {
      if (!isHeadpondError(error, "unavailable", "not-leader", "timeout")) {
        // The masters answered, and the old answer is not true any more.
        if (isHeadpondError(error, "not-found", "not-a-directory", "is-a-directory")) this.#delete(key);
        throw error;
      }
      this.#downUntilMs = this.#clock.monotonicMs() + this.#limits.retryAfterMs;
      const last = this.#entries.get(key);
      if (last === undefined) throw error;
      return this.#use<T>(key, last);
    }
  }

  #use<T>(key: string, entry: Entry): T {
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.value as T;
  }

  #store(key: string, entry: Entry): void {
    this.#delete(key);
    if (entry.weight > this.#limits.weightMax) return;
    this.#entries.set(key, entry);
    this.#weight += entry.weight;
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#limits.entriesMax && this.#weight <= this.#limits.weightMax) break;
      this.#delete(oldest);
    }
  }

  #delete(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#weight -= entry.weight;
  }
}
