/**
 * Checks a history of concurrent operations for linearizability: is there an order of them, one after the other, that keeps who
 * was before whom in time and in which a sequential model gives every answer that was given? The search is that of Wing and
 * Gong (1993) with the memory of Lowe (2017), in parts by key: a history is linearizable if its part for each key is.
 *
 * An operation of unknown outcome may take effect at any time after its call, or never; a refused one must not. Promises: a
 * verdict is right, or it is `undecided` when the search met its limit. It leaves out models whose state after an operation
 * depends on more than the state before, the input and the output.
 */

import type { Model, Operation } from "./linearizability-model.ts";
import { HistorySearch, type SearchFailure } from "./linearizability-search.ts";

export type CheckLimits = {
  /** Operations that the search tries at most, over all keys. */
  readonly stepsMax: number;
};

export const checkLimitsDefault: CheckLimits = { stepsMax: 3_000_000 };

export type Verdict =
  | { readonly kind: "linearizable"; readonly operations: number; readonly parts: number; readonly steps: number }
  /** For people: the part, how far it went, and what could not follow. */
  | { readonly kind: "violation"; readonly keys: readonly string[]; readonly explanation: string }
  | { readonly kind: "undecided"; readonly keys: readonly string[]; readonly steps: number };

export function checkLinearizable<State, Input, Output>(
  model: Model<State, Input, Output>,
  history: readonly Operation<Input, Output>[],
  limits: Partial<CheckLimits> = {},
): Verdict {
  let stepsLeft = limits.stepsMax ?? checkLimitsDefault.stepsMax;
  const parts = partition(model, history);
  let steps = 0;
  let undecided: Verdict | undefined;
  for (const { keys, operations } of parts) {
    const search = new HistorySearch(model, operations, stepsLeft);
    const failure = search.run();
    steps += search.steps;
    stepsLeft -= search.steps;
    if (failure === undefined) continue;
    // Another part may still be wrong beyond doubt.
    if (failure === "limit") undecided = { kind: "undecided", keys, steps };
    else return { kind: "violation", keys, explanation: explain(model, keys, failure) };
    if (stepsLeft <= 0) return undecided;
  }
  return undecided ?? { kind: "linearizable", operations: history.length, parts: parts.length, steps };
}

type Part<Input, Output> = { readonly keys: string[]; readonly operations: Operation<Input, Output>[] };

/** Keys that an operation joins belong together; what was refused belongs nowhere. */
function partition<Input, Output>(
  model: Pick<Model<unknown, Input, Output>, "keysOf">,
  history: readonly Operation<Input, Output>[],
): Part<Input, Output>[] {
  const parents = new Map<string, string>();
  const root = (key: string): string => {
    let at = key;
    for (let parent = parents.get(at); parent !== undefined && parent !== at; parent = parents.get(at)) at = parent;
    return at;
  };
  const happened = history.filter(({ outcome }) => outcome.kind !== "refused");
  for (const { input } of happened) {
    const [first, ...others] = model.keysOf(input);
    if (first === undefined) continue;
    if (!parents.has(first)) parents.set(first, first);
    for (const key of others) {
      if (!parents.has(key)) parents.set(key, key);
      parents.set(root(key), root(first));
    }
  }
  const parts = new Map<string, Part<Input, Output>>();
  for (const key of parents.keys()) {
    const part = parts.get(root(key)) ?? { keys: [], operations: [] };
    part.keys.push(key);
    parts.set(root(key), part);
  }
  for (const operation of happened) {
    const key = model.keysOf(operation.input)[0];
    if (key !== undefined) parts.get(root(key))?.operations.push(operation);
  }
  return [...parts.values()];
}

const shownMax = 12;

function explain<State, Input, Output>(
  model: Model<State, Input, Output>,
  keys: readonly string[],
  failure: SearchFailure<State, Input, Output>,
): string {
  const line = (operation: Operation<Input, Output>): string => {
    const { client, calledAt, input, outcome } = operation;
    const until = outcome.kind === "returned" ? String(outcome.at) : "unknown";
    const output = outcome.kind === "returned" ? outcome.output : undefined;
    return `  [${calledAt}, ${until}] ${client}: ${model.describe(input, output)}`;
  };
  const { order, state, candidates, placed, total } = failure;
  const named = keys.length > 3 ? `${keys.slice(0, 3).join(", ")} and ${keys.length - 3} more` : keys.join(", ");
  return [
    `${named}: not linearizable. At best ${placed} of ${total} operations can be put in order, the last of them`,
    ...order.slice(-shownMax).map(line),
    `after which the state is ${model.fingerprint(state)}, where none of these can follow`,
    ...candidates.slice(0, shownMax).map(line),
  ].join("\n");
}
