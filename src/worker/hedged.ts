/** Asks one after the other until one answers: the next one when the one before has failed, or has not answered for a while. */

import { assert } from "../base/assert.ts";
import { type HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock, Timer } from "../io/clock.ts";

/** Rejects with the first error that no other answer would change, else with the last one. `askers`: at least one, free to be asked together. */
export function hedged<T>(
  askers: readonly (() => Promise<T>)[],
  options: { readonly clock: Clock; readonly afterMs: number },
): Promise<T> {
  assert(askers.length > 0, "somebody is asked");
  return new Promise((resolve, reject) => {
    let asked = 0;
    let failed = 0;
    let timer: Timer | undefined;
    const fail = (thrown: unknown): void => {
      const error: HeadpondError = toHeadpondError(thrown);
      failed++;
      if (!error.retryable || failed === askers.length) {
        timer?.clear();
        reject(error);
        return;
      }
      if (failed === asked) next();
    };
    const next = (): void => {
      timer?.clear();
      const asker = askers[asked];
      if (asker === undefined) return;
      asked++;
      if (asked < askers.length) timer = options.clock.timer(options.afterMs, next);
      asker().then((answer) => {
        timer?.clear();
        resolve(answer);
      }, fail);
    };
    next();
  });
}
