/** What one call of a client of several masters has been through, and what its caller is told in the end. */

import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";

export class Attempts {
  readonly retryUnknown: boolean;
  readonly #readOnly: boolean;
  redirects = 0;
  backoffs = 0;
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  #failures = 0;
  /** Whether some attempt may have taken effect. */
  #unknown = false;

  constructor(
    clock: Clock,
    startMs: number,
    timeoutMs: number,
    options: { readonly retryUnknown?: boolean; readonly readOnly?: boolean },
  ) {
    this.#clock = clock;
    this.#deadlineMs = startMs + timeoutMs;
    this.#readOnly = options.readOnly ?? false;
    this.retryUnknown = this.#readOnly || (options.retryUnknown ?? false);
  }

  remainingMs(): number {
    return this.#deadlineMs - this.#clock.monotonicMs();
  }

  note(error: HeadpondError): void {
    this.#failures++;
    if (error.outcome === "unknown") this.#unknown = true;
  }

  /** Another master leads: it is asked as if it were the first. */
  startAnew(): void {
    this.redirects = 0;
    this.backoffs = 0;
  }

  /** Whether every one of `count` masters has been asked since the last wait. */
  triedAll(count: number): boolean {
    return this.#failures % count === 0;
  }

  /** What the caller is told: an earlier attempt may have taken effect, whatever the last one says. */
  final(error: HeadpondError, methodName: string): HeadpondError {
    const { code, message, details } = error;
    const rest = { cause: error, ...(details === undefined ? {} : { details }) };
    if (this.#readOnly)
      return new HeadpondError(code === "unknown-outcome" ? "timeout" : code, message, { ...rest, outcome: "none" });
    if (!this.#unknown && error.outcome === "none") return error;
    if (code === "cancelled") return new HeadpondError(code, message, { ...rest, outcome: "unknown" });
    return new HeadpondError(
      "unknown-outcome",
      `${methodName}: it is not known whether it took effect: ${message}`,
      rest,
    );
  }
}
