/**
 * The live stream of committed entries. What was committed last is kept once, within a limit, for all consumers that
 * keep up; a slow one reads the log again. So the memory does not grow with the number or the slowness of consumers.
 */

import type { Entry } from "./journal.ts";

export type FeedLimits = {
  /** Newest entries that are kept, in whole batches. */
  readonly maxEntries: number;
  readonly maxBytes: number;
};

export const defaultFeedLimits: FeedLimits = { maxEntries: 16_384, maxBytes: 8 * 1024 * 1024 };

type Batch = { readonly entries: readonly Entry[]; readonly bytes: number };

export type FeedSource = {
  /** Highest committed index. */
  readonly committedIndex: () => number;
  /** Some entries from `fromIndex` on, at least one if it is committed. Throws `compacted`. */
  readonly read: (fromIndex: number) => Promise<readonly Entry[]>;
};

export class CommittedFeed {
  readonly #limits: FeedLimits;
  readonly #source: FeedSource;
  #batches: Batch[] = [];
  #entries = 0;
  #bytes = 0;
  #consumers = 0;
  #waiting: (() => void)[] = [];
  #closed = false;

  constructor(limits: FeedLimits, source: FeedSource) {
    this.#limits = limits;
    this.#source = source;
  }

  /** Committed, in order. */
  add(entries: readonly Entry[], bytes: number): void {
    if (this.#consumers === 0) return;
    this.#batches.push({ entries, bytes });
    this.#entries += entries.length;
    this.#bytes += bytes;
    while (this.#entries > this.#limits.maxEntries || this.#bytes > this.#limits.maxBytes) {
      const oldest = this.#batches.shift();
      if (oldest === undefined) break;
      this.#entries -= oldest.entries.length;
      this.#bytes -= oldest.bytes;
    }
    this.#wake();
  }

  /** The state was replaced by a later one: whoever waited for what lies between learns that it was cut. */
  jumped(): void {
    this.#forget();
    this.#wake();
  }

  /** Ends all streams. */
  close(): void {
    this.#closed = true;
    this.#wake();
  }

  /** From `fromIndex` on until the signal fires or the journal closes. */
  async *stream(fromIndex: number, signal: AbortSignal): AsyncGenerator<Entry, void, void> {
    const wake = (): void => this.#wake();
    signal.addEventListener("abort", wake);
    this.#consumers++;
    try {
      let next = fromIndex;
      while (!signal.aborted && !this.#closed) {
        const committed = this.#source.committedIndex();
        if (next > committed) {
          await new Promise<void>((resolve) => this.#waiting.push(resolve));
          continue;
        }
        for (const entry of this.#recent(next) ?? (await this.#source.read(next))) {
          if (signal.aborted || this.#closed) return;
          if (entry.index > committed) break;
          yield entry;
          next = entry.index + 1;
        }
      }
    } finally {
      signal.removeEventListener("abort", wake);
      if (--this.#consumers === 0) this.#forget();
    }
  }

  #recent(index: number): readonly Entry[] | undefined {
    for (let at = this.#batches.length - 1; at >= 0; at--) {
      const { entries } = this.#batches[at] as Batch;
      const first = entries[0]?.index ?? 0;
      if (index >= first) return index < first + entries.length ? entries.slice(index - first) : undefined;
    }
    return undefined;
  }

  #forget(): void {
    this.#batches = [];
    this.#entries = 0;
    this.#bytes = 0;
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
