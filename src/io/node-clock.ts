/**
 * The real clock. A `timer` never keeps the process alive, because a heartbeat or a lease is no reason to live; a
 * `sleep` does, because somebody waits for it: a loop that should not hold the process up aborts its sleep on close.
 */

import { type Clock, sleepBy, type Timer } from "./clock.ts";

/** Node's timers fire at once beyond this; longer waits are made of several. */
const timeoutMaxMs = 2 ** 31 - 1;

export class NodeClock implements Clock {
  wallMs(): number {
    return Date.now();
  }

  monotonicMs(): number {
    return performance.now();
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return sleepBy((callback) => startTimer(durationMs, true, callback), signal);
  }

  nextTurn(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  timer(durationMs: number, callback: () => void): Timer {
    return startTimer(durationMs, false, callback);
  }
}

function startTimer(durationMs: number, keepsProcessAlive: boolean, callback: () => void): Timer {
  let remainingMs = Math.max(0, durationMs);
  let handle: NodeJS.Timeout;
  const arm = (): void => {
    const stepMs = Math.min(remainingMs, timeoutMaxMs);
    remainingMs -= stepMs;
    handle = setTimeout(() => (remainingMs > 0 ? arm() : callback()), stepMs);
    if (!keepsProcessAlive) handle.unref();
  };
  arm();
  return { clear: () => clearTimeout(handle) };
}
