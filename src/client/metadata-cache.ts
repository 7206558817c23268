/**
 * The last answers of the masters, for the time when none of them answers. It never saves a question: as long as a master
 * can be reached, everything is asked. A gateway that may serve old names rather than none turns it on
 * (`staleOnUnavailable`); bytes stay right in any case, because they belong to file versions.
 */

import { type HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";

export type MetadataCacheLimits = {
  /** Answers kept. */
  readonly entriesMax: number;
  /** Sum of the weights of the answers kept, e.g. of the files in a revision. */
  readonly weightMax: number;
  /** After a failure, for this long, no master is asked: the last answer serves, or the last error. */
  readonly retryAfterMs: number;
  /** As long as masters are thought to be down, whoever has a last answer waits no longer than this for a new one. */
  readonly probeMs: number;
};

const defaultLimits: MetadataCacheLimits = { entriesMax: 10_000, weightMax: 200_000, retryAfterMs: 1000, probeMs: 250 };

type Entry = { readonly value: unknown; readonly weight: number };

export class MetadataCache {
  readonly #clock: Clock;
  readonly #limits: MetadataCacheLimits;
  /** Oldest use first. */
  readonly #entries = new Map<string, Entry>();
  #weight = 0;
  /** Why the masters are thought to be down, and until when they are not asked again. */
  #down: { readonly error: HeadpondError; readonly untilMs: number } | undefined;

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
    const down = this.#down;
    if (down !== undefined && this.#clock.monotonicMs() < down.untilMs) {
      if (known === undefined) throw down.error;
      return this.#use<T>(key, known);
    }
    const asking = this.#ask(key, ask, weigh);
    if (down === undefined || known === undefined) return asking;
    const answered = new AbortController();
    const patience = this.#clock.sleep(this.#limits.probeMs, answered.signal).then(
      () => {
        this.#markDown(down.error);
        return this.#use<T>(key, known);
      },
      () => asking,
    );
    // Whoever loses the race is not waited for; a late answer still counts for the next question.
    patience.catch(() => {});
    return Promise.race([asking, patience]).finally(() => answered.abort());
  }

  async #ask<T>(key: string, ask: () => Promise<T>, weigh: (value: T) => number): Promise<T> {
    try {
      const value = await ask();
      this.#down = undefined;
      this.#store(key, { value, weight: weigh(value) });
      return value;
    } catch (error) {
      if (!isHeadpondError(error, "unavailable", "not-leader", "timeout")) {
        // The masters answered, and the old answer is not true any more.
        if (isHeadpondError(error, "not-found", "not-a-directory", "is-a-directory")) this.#delete(key);
        throw error;
      }
      this.#markDown(error);
      const last = this.#entries.get(key);
      if (last === undefined) throw error;
      return this.#use<T>(key, last);
    }
  }

  #markDown(error: HeadpondError): void {
    this.#down = { error, untilMs: this.#clock.monotonicMs() + this.#limits.retryAfterMs };
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
