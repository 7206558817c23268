/** Writes down who called what, when it returned and with what, for the checker. One for all clients of a run. */

import { assert } from "../base/assert.ts";
import type { Operation, Outcome } from "./linearizability-model.ts";

/** One call that was begun. It is ended once, or counts as unknown. */
export interface Call<Output> {
  returned(output: Output): void;
  /** It may have happened or may yet. */
  unknown(): void;
  /** It did not happen and will not. */
  refused(): void;
}

export class History<Input, Output> {
  readonly #operations: { client: string; input: Input; calledAt: number; outcome: Outcome<Output> }[] = [];
  readonly #now: () => number;
  #events = 0;

  /** `now`: a clock that all clients share; by default events are counted, which is exact where one process sees all. */
  constructor(now?: () => number) {
    this.#now = now ?? ((): number => ++this.#events);
  }

  call(client: string, input: Input): Call<Output> {
    const operation = { client, input, calledAt: this.#now(), outcome: { kind: "unknown" } as Outcome<Output> };
    this.#operations.push(operation);
    let isOpen = true;
    const end = (outcome: Outcome<Output>): void => {
      assert(isOpen, "a call ends once");
      isOpen = false;
      operation.outcome = outcome;
    };
    return {
      returned: (output) => end({ kind: "returned", at: this.#now(), output }),
      unknown: () => end({ kind: "unknown" }),
      refused: () => end({ kind: "refused" }),
    };
  }

  /** As of now, in the order of the calls. */
  get operations(): readonly Operation<Input, Output>[] {
    return this.#operations;
  }
}
