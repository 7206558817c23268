/** Whether the store takes what a primary writes: one that is full is full for all, one that this master may not write to another one may be able to. */

import type { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import { asRefusal } from "./shared-writer.ts";

export type SharedRoomOptions = {
  readonly clock: Clock;
  readonly limits: {
    /** After a refusal: how long until the next attempt. */
    readonly noSpaceRetryMs: number;
    /** So long a primary bears to be denied. */
    readonly storePatienceMs: number;
  };
};

export class SharedRoom {
  readonly #options: SharedRoomOptions;
  #refused: { readonly error: HeadpondError; readonly untilMs: number } | undefined;
  #deniedAtMs: number | undefined;

  constructor(options: SharedRoomOptions) {
    this.#options = options;
  }

  /** Why nothing is to be tried now. */
  get refusal(): HeadpondError | undefined {
    if (this.#refused === undefined || this.#options.clock.monotonicMs() >= this.#refused.untilMs) return undefined;
    return asRefusal(this.#refused.error);
  }

  /** Something was written, or it is another one's turn. */
  clear(): void {
    this.#refused = undefined;
    this.#deniedAtMs = undefined;
  }

  /** Something was not written. Whether another master should try. */
  refused(error: HeadpondError): boolean {
    const { clock, limits } = this.#options;
    const nowMs = clock.monotonicMs();
    this.#refused = { error, untilMs: nowMs + limits.noSpaceRetryMs };
    if (error.code !== "denied") return false;
    this.#deniedAtMs ??= nowMs;
    return nowMs - this.#deniedAtMs >= limits.storePatienceMs;
  }
}
