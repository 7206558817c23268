/**
 * Moves changes from memory to the store in the background: when enough rows wait, or a moment after the first one. Encoding
 * goes in short slices between other work; the store writes in its own thread. Never more than one flush at a time.
 */

import type { State } from "./state.ts";

export type FlushLimits = {
  /** A flush begins when so many rows wait, ... */
  readonly rowsTarget: number;
  /** ... or so long after the first of them. */
  readonly delayMs: number;
  /** Rows encoded between two turns of the event loop. */
  readonly sliceRows: number;
  /** With so many rows waiting, `pressure` is 1: nothing more should be proposed until `drained()`. */
  readonly rowsMax: number;
  /** Wait between attempts after the store refused a batch. */
  readonly retryMs: number;
};

/** Few large flushes: names are scattered over the store's pages, and each page that a flush touches is written anew. */
export const flushLimitsDefault: FlushLimits = {
  rowsTarget: 40_000,
  delayMs: 1000,
  sliceRows: 2500,
  rowsMax: 200_000,
  retryMs: 500,
};

export class Flusher {
  readonly #state: State;
  readonly #limits: FlushLimits;
  readonly #background: boolean;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #running: Promise<void> | undefined;
  #closed = false;
  /** Why the last attempt failed; undefined once one succeeds. */
  error: unknown;
  flushes = 0;
  flushedRows = 0;

  constructor(options: { readonly state: State; readonly limits: FlushLimits; readonly background: boolean }) {
    this.#state = options.state;
    this.#limits = options.limits;
    this.#background = options.background;
  }

  /** 0 to 1 and above: how full the memory for unflushed rows is. */
  get pressure(): number {
    return this.#state.dirtyCount / this.#limits.rowsMax;
  }

  /** To be called after changes. */
  changed(): void {
    if (!this.#background || this.#closed || this.#running !== undefined) return;
    if (this.#state.dirtyCount >= this.#limits.rowsTarget) {
      this.#schedule(0);
    } else if (this.#timer === undefined) {
      this.#schedule(this.#limits.delayMs);
    }
  }

  /** Resolves when all that is applied at the call is in the store. Rejects when the store refuses it. */
  async flush(): Promise<void> {
    // The flush under way was frozen before this call, and so was a batch that the store refused: another must follow.
    if (this.#running !== undefined) await this.#running.catch(() => undefined);
    if (this.error !== undefined) await this.#start();
    await this.#start();
  }

  /** Resolves when the pressure is below one half. */
  async drained(): Promise<void> {
    while (this.pressure >= 0.5) await this.flush();
  }

  /** Waits for the flush under way, and begins no other. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#running?.catch(() => undefined);
  }

  #schedule(delayMs: number): void {
    if (delayMs === 0 && this.#timer !== undefined) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
    }
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#running !== undefined || this.#closed) return;
      this.#start().catch(() => this.#retryLater());
    }, delayMs);
    this.#timer.unref();
  }

  #retryLater(): void {
    if (this.#background && !this.#closed) this.#schedule(this.#limits.retryMs);
  }

  #start(): Promise<void> {
    const running = this.#running ?? this.#run();
    this.#running = running;
    return running;
  }

  async #run(): Promise<void> {
    try {
      // After a failure the same batch is still frozen, and is offered again.
      if (this.error === undefined) this.#state.freeze();
      while (!this.#state.encode(this.#limits.sliceRows)) await turn();
      this.flushedRows += await this.#state.commit();
      this.flushes++;
      this.error = undefined;
    } catch (error) {
      this.error = error;
      throw error;
    } finally {
      this.#running = undefined;
      if (this.error === undefined && this.#state.dirtyCount > 0) queueMicrotask(() => this.changed());
    }
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
