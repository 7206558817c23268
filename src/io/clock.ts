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

/** A `sleep` out of a timer: resolves when it calls back, and revokes it when the signal fires first. */
export function sleepBy(start: (callback: () => void) => Timer, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason as Error);
      return;
    }
    const onAbort = (): void => {
      timer.clear();
      reject(signal?.reason as Error);
    };
    const timer = start(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    });
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
