/**
 * The manners of a client towards one store: how many requests run at once, how it backs off, how often it tries again.
 * A store that throttles halves the number of requests (every success gives a little back) and pauses all of them
 * for as long as it asked; faults of the network are tried again after an exponential wait with full jitter. What is
 * left out: retries that span minutes, which belong to whoever called.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import { cancellation, throwIfCancelled } from "./under-store.ts";
import type { UnderStoreMetrics } from "./under-store-metrics.ts";

export type RequestLimits = {
  /** Requests under way at once, at most. */
  readonly requestsMax: number;
  /** Requests that wait for their turn, at most; more are refused with `overloaded`. */
  readonly queueMax: number;
  /** Tries of one request, the first included. */
  readonly attemptsMax: number;
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
  /** A store that asks for a longer pause than this is not waited for: the caller gets `overloaded` at once. */
  readonly pauseMaxMs: number;
};

export const requestLimitsDefault: RequestLimits = {
  requestsMax: 64,
  queueMax: 8192,
  attemptsMax: 6,
  backoffMinMs: 50,
  backoffMaxMs: 5000,
  pauseMaxMs: 20_000,
};

export type RequestGateDependencies = {
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: UnderStoreMetrics;
  /** Label of the metrics and name in messages: the URI of the store. */
  readonly store: string;
  readonly limits?: Partial<RequestLimits>;
};

type Waiting = { readonly admit: () => void };

export class RequestGate {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #metrics: UnderStoreMetrics;
  readonly #store: string;
  readonly #limits: RequestLimits;
  /** Requests allowed at once now; in [1, requestsMax], with fractions. */
  #allowance: number;
  #active = 0;
  readonly #queue: Waiting[] = [];
  /** Monotonic; nobody starts before. */
  #pausedUntilMs = 0;

  constructor({ clock, random, metrics, store, limits }: RequestGateDependencies) {
    this.#clock = clock;
    this.#random = random;
    this.#metrics = metrics;
    this.#store = store;
    this.#limits = { ...requestLimitsDefault, ...limits };
    this.#allowance = this.#limits.requestsMax;
  }

  /** For tests and for people: how many requests may run at once now. */
  get allowance(): number {
    return Math.floor(this.#allowance);
  }

  /**
   * Runs `attempt` until it succeeds, fails for good, or has been tried `attemptsMax` times. An attempt that may be tried
   * again throws a retryable `under-store`, `timeout` or `overloaded` (with `details.retryAfterMs` when the store said how long).
   */
  async run<T>(operation: string, signal: AbortSignal | undefined, attempt: (turn: number) => Promise<T>): Promise<T> {
    for (let turn = 1; ; turn++) {
      await this.#enter(signal);
      let failure: HeadpondError;
      try {
        const result = await attempt(turn);
        this.#succeeded();
        this.#metrics.request({ store: this.#store, operation, outcome: "ok" });
        return result;
      } catch (error) {
        throwIfCancelled(signal);
        const outcome = error instanceof HeadpondError ? error.code : "internal";
        this.#metrics.request({ store: this.#store, operation, outcome });
        const isTemporary = isHeadpondError(error, "under-store", "timeout", "overloaded") && error.retryable;
        if (!isTemporary || error.outcome === "unknown") throw error;
        failure = error;
      } finally {
        this.#leave();
      }
      await this.#backOff(failure, turn, signal);
    }
  }

  async #backOff(failure: HeadpondError, turn: number, signal: AbortSignal | undefined): Promise<void> {
    const { attemptsMax, backoffMinMs, backoffMaxMs, pauseMaxMs } = this.#limits;
    const ceilingMs = Math.min(backoffMaxMs, backoffMinMs * 2 ** (turn - 1));
    const asked = failure.details?.["retryAfterMs"];
    const isThrottled = failure.code === "overloaded";
    const waitMs = typeof asked === "number" ? asked : ceilingMs * (isThrottled ? 1 : this.#random.float());
    if (isThrottled) this.#throttled(waitMs);
    if (turn >= attemptsMax || waitMs > pauseMaxMs) {
      const text = `${failure.message} (tried ${turn} times)`;
      const details = isThrottled ? { ...failure.details, retryAfterMs: Math.ceil(waitMs) } : failure.details;
      throw new HeadpondError(failure.code, text, { cause: failure, ...(details === undefined ? {} : { details }) });
    }
    // Everybody waits for the pause; the jitter on top keeps them from coming back in one wave.
    await this.#sleep(isThrottled ? waitMs + this.#random.float() * ceilingMs : waitMs, signal);
  }

  #throttled(pauseMs: number): void {
    const nowMs = this.#clock.monotonicMs();
    // One answer of a burst speaks for all that were under way with it.
    if (nowMs >= this.#pausedUntilMs) {
      this.#allowance = Math.max(1, this.#allowance / 2);
      this.#metrics.throttled({ store: this.#store });
    }
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, nowMs + Math.min(pauseMs, this.#limits.pauseMaxMs));
  }

  #succeeded(): void {
    this.#allowance = Math.min(this.#limits.requestsMax, this.#allowance + 1 / this.#allowance);
  }

  async #enter(signal: AbortSignal | undefined): Promise<void> {
    throwIfCancelled(signal);
    if (this.#active >= Math.floor(this.#allowance) || this.#queue.length > 0) await this.#waitForTurn(signal);
    else this.#active++;
    try {
      for (;;) {
        const pauseMs = this.#pausedUntilMs - this.#clock.monotonicMs();
        if (pauseMs <= 0) return;
        await this.#sleep(pauseMs, signal);
      }
    } catch (error) {
      this.#leave();
      throw error;
    }
  }

  #waitForTurn(signal: AbortSignal | undefined): Promise<void> {
    if (this.#queue.length >= this.#limits.queueMax) {
      throw new HeadpondError("overloaded", `${this.#queue.length} requests already wait for ${this.#store}`, {
        details: { retryAfterMs: 1000 },
      });
    }
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        admit: () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      const onAbort = (): void => {
        this.#queue.splice(this.#queue.indexOf(waiting), 1);
        reject(cancellation(signal as AbortSignal));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#queue.push(waiting);
    });
  }

  #leave(): void {
    this.#active--;
    while (this.#active < Math.floor(this.#allowance)) {
      const next = this.#queue.shift();
      if (next === undefined) return;
      this.#active++;
      next.admit();
    }
  }

  async #sleep(durationMs: number, signal: AbortSignal | undefined): Promise<void> {
    try {
      await this.#clock.sleep(durationMs, signal);
    } catch (error) {
      throwIfCancelled(signal);
      throw error;
    }
  }
}
