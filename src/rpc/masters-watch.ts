/**
 * Listens to several masters at once for who they are and who leads. Each is listened to by a stream that is opened again, for
 * as long as the watch lives, when it ends; what comes is handed on. So a client hears of a new leader from whoever hears of it
 * first, and needs no answer from the old one.
 */

import { toHeadpondError } from "../base/errors.ts";
import type { MasterList } from "../base/masters.ts";
import type { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";

export type MastersWatchLimits = {
  /** Masters that are listened to at the same time: the first so many that are named. */
  readonly watchedMax: number;
  /** The wait before a stream is opened again doubles from the first to the second, with jitter. */
  readonly reopenMinMs: number;
  readonly reopenMaxMs: number;
};

export const mastersWatchLimits: MastersWatchLimits = { watchedMax: 7, reopenMinMs: 20, reopenMaxMs: 2000 };

export type MastersWatchOptions = {
  readonly open: (address: string, signal: AbortSignal) => AsyncIterable<MasterList>;
  readonly onList: (from: string, list: MasterList) => void;
  /** The stream ended or could not be opened. */
  readonly onLost: (from: string) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits?: Partial<MastersWatchLimits>;
};

type Watched = { readonly ending: AbortController; readonly done: Promise<void> };

export class MastersWatch {
  readonly #options: MastersWatchOptions;
  readonly #limits: MastersWatchLimits;
  readonly #watched = new Map<string, Watched>();
  /** Those that were ended and have not noticed. */
  readonly #ending = new Set<Promise<void>>();
  #closed = false;

  constructor(options: MastersWatchOptions) {
    this.#options = options;
    this.#limits = { ...mastersWatchLimits, ...options.limits };
  }

  /** Listens to these and no others. */
  watch(addresses: readonly string[]): void {
    if (this.#closed) return;
    const wanted = new Set(addresses.slice(0, this.#limits.watchedMax));
    for (const address of this.#watched.keys()) if (!wanted.has(address)) this.#end(address);
    for (const address of wanted) {
      if (this.#watched.has(address)) continue;
      const ending = new AbortController();
      this.#watched.set(address, { ending, done: this.#listen(address, ending.signal) });
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const address of [...this.#watched.keys()]) this.#end(address);
    await Promise.all(this.#ending);
  }

  #end(address: string): void {
    const watched = this.#watched.get(address);
    if (watched === undefined) return;
    this.#watched.delete(address);
    this.#ending.add(watched.done);
    void watched.done.finally(() => this.#ending.delete(watched.done));
    watched.ending.abort();
  }

  async #listen(address: string, signal: AbortSignal): Promise<void> {
    const { open, onList, onLost, clock, random } = this.#options;
    const { reopenMinMs, reopenMaxMs } = this.#limits;
    let failures = 0;
    // Not within the call that asked for it: that one is still looking at what is watched.
    await Promise.resolve();
    while (!signal.aborted) {
      try {
        for await (const list of open(address, signal)) {
          if (signal.aborted) return;
          failures = 0;
          onList(address, list);
        }
      } catch (error) {
        // A master of another kind tells nothing, now or later.
        if (toHeadpondError(error).code === "unsupported") return;
      }
      if (signal.aborted) return;
      onLost(address);
      const waitMs = Math.min(reopenMaxMs, reopenMinMs * 2 ** Math.min(failures++, 20));
      await clock.sleep(waitMs * (0.5 + random.float() / 2), signal).catch(() => {});
    }
  }
}
