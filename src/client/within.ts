/** A bound on waiting for something that cannot be cancelled itself: the wait ends, the thing goes on. */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { CallOptions } from "./master-calls.ts";

/** `promise`'s outcome, or `timeout` or `cancelled`, whichever comes first. `what` names it in the message. */
export function within<T>(promise: Promise<T>, clock: Clock, options: CallOptions, what: string): Promise<T> {
  const { signal, timeoutMs } = options;
  if (signal === undefined && timeoutMs === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    const cancelled = (): void => {
      timer?.clear();
      reject(cancellation(signal as AbortSignal));
    };
    const timer =
      timeoutMs === undefined
        ? undefined
        : clock.timer(timeoutMs, () => {
            signal?.removeEventListener("abort", cancelled);
            reject(new HeadpondError("timeout", `${what}: no answer within ${timeoutMs} ms`));
          });
    promise
      .finally(() => {
        timer?.clear();
        signal?.removeEventListener("abort", cancelled);
      })
      .then(resolve, reject);
    if (signal?.aborted === true) cancelled();
    else signal?.addEventListener("abort", cancelled, { once: true });
  });
}

/** Why the signal fired, as an error of ours. */
export function cancellation(signal: AbortSignal): HeadpondError {
  const reason: unknown = signal.reason;
  const error = toHeadpondError(reason);
  return error.code === "internal" ? new HeadpondError("cancelled", error.message, { cause: reason }) : error;
}
