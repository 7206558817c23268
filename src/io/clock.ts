/** Time, behind a door, so that simulations own it. */

export interface Clock {
  /** Wall clock, ms since 1970: for people and for stamps, never for measuring; it may jump. */
  wallMs(): number;
  /** Monotonic clock, ms since an arbitrary start, with fractions. */
  monotonicMs(): number;
  /** Resolves after `durationMs`; rejects with the signal's reason when aborted. */
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>;
  /** Resolves when everything else that is ready has had its turn: a long task calls it between slices. */
  nextTurn(): Promise<void>;
  /** Calls back once, after `durationMs`; `clear` revokes it. Never keeps the process alive. */
  timer(durationMs: number, callback: () => void): Timer;
}

export interface Timer {
  clear(): void;
}
