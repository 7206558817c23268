/**
 * Calls of a file system that may never come back: a server of NFS that is gone, a disk that hangs. The call that has made no
 * progress for `timeoutMs` is given up: its caller gets `unavailable`, and what hangs is left to itself. As long as `hungMax` such
 * are left, new ones are refused at once: each holds a thread of the process, and there are few.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import { cancellation, throwIfCancelled } from "../under-store/under-store.ts";

export type WatchedCall = {
  /** From now on it may have taken effect, whatever comes of it. */
  mayHaveHappened: boolean;
  /** Some of the work is done: the time runs anew. Throws when nobody waits for the call any more. */
  progress(): void;
};

export class CallWatch {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #hungMax: number;
  readonly #store: string;
  #hung = 0;

  constructor(dependencies: {
    readonly clock: Clock;
    readonly timeoutMs: number;
    readonly hungMax: number;
    /** In messages. */
    readonly store: string;
  }) {
    this.#clock = dependencies.clock;
    this.#timeoutMs = dependencies.timeoutMs;
    this.#hungMax = dependencies.hungMax;
    this.#store = dependencies.store;
  }

  /** Errors of `body` go through `translate`, which is told whether the call may have happened. */
  async run<T>(
    what: string,
    signal: AbortSignal | undefined,
    body: (call: WatchedCall) => Promise<T>,
    translate: (error: unknown, mayHaveHappened: boolean) => HeadpondError,
  ): Promise<T> {
    throwIfCancelled(signal);
    if (this.#hung >= this.#hungMax) {
      throw new HeadpondError("unavailable", `${this.#store}: ${what}: ${this.#hung} earlier calls still hang`);
    }
    return new Promise((resolve, reject) => {
      let isOver = false;
      let timer = this.#clock.timer(this.#timeoutMs, () => onTimeout());
      const call: WatchedCall = {
        mayHaveHappened: false,
        progress: () => {
          if (isOver) throw new HeadpondError("cancelled", `${what}: nobody waits for it any more`);
          timer.clear();
          timer = this.#clock.timer(this.#timeoutMs, () => onTimeout());
        },
      };
      const outcome = (): "unknown" | "none" => (call.mayHaveHappened ? "unknown" : "none");
      const end = (): void => {
        isOver = true;
        timer.clear();
        signal?.removeEventListener("abort", onAbort);
      };
      let isHung = false;
      const onTimeout = (): void => {
        end();
        isHung = true;
        this.#hung++;
        const text = `${this.#store}: ${what}: nothing happened for ${this.#timeoutMs} ms: the disk or its server hangs`;
        reject(new HeadpondError("unavailable", text, { outcome: outcome() }));
      };
      const onAbort = (): void => {
        end();
        const { code, message, cause } = cancellation(signal as AbortSignal);
        reject(new HeadpondError(code, `${what}: ${message}`, { cause, outcome: outcome() }));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      body(call).then(
        (result) => {
          if (isHung) this.#hung--;
          end();
          resolve(result);
        },
        (error: unknown) => {
          if (isHung) this.#hung--;
          end();
          reject(translate(error, call.mayHaveHappened));
        },
      );
    });
  }
}
