/**
 * Histories that are right because they were made by one sequential execution with random overlaps, and ways to make a right
 * history wrong beyond doubt: what calibrates the checker.
 */

import { Random } from "../base/random.ts";
import { EventQueue } from "./event-queue.ts";
import { History } from "./linearizability-history.ts";
import type { CountInput, PathInput, PathOutput } from "./linearizability-models.ts";

export type GeneratorOptions = {
  readonly seed: number;
  readonly operations: number;
  readonly clients: number;
  readonly keys: number;
  /** Probability that a client does not learn what became of an operation: it did not happen, did, or will later. */
  readonly unknown: number;
  readonly refused: number;
  /** Whether keys are joined by renames. */
  readonly renames: boolean;
};

/** The loop that both kinds of histories have in common: clients that call, effects that happen once in between. */
function generate<Input, Output>(
  options: GeneratorOptions,
  choose: (random: Random, client: string) => Input,
  execute: (input: Input) => Output,
  learn: (client: string, output: Output) => void,
): History<Input, Output> {
  const random = new Random(options.seed);
  const events = new EventQueue();
  const history = new History<Input, Output>();
  let begun = 0;
  const next = (client: string): void => {
    if (begun++ >= options.operations) return;
    const input = choose(random, client);
    const call = history.call(client, input);
    const wait = (): number => 1 + random.float() * random.pick([1, 10, 10, 100]);
    const goOn = (): void => events.after(wait(), () => next(client));
    if (random.chance(options.unknown)) {
      const fate = random.pick(["never", "before", "later"] as const);
      if (fate !== "never") events.after(fate === "before" ? wait() : wait() * 20, () => void execute(input));
      events.after(100, () => {
        call.unknown();
        goOn();
      });
    } else if (random.chance(options.refused)) {
      events.after(wait(), () => {
        call.refused();
        goOn();
      });
    } else {
      events.after(wait(), () => {
        const output = execute(input);
        events.after(wait(), () => {
          call.returned(output);
          learn(client, output);
          goOn();
        });
      });
    }
  };
  for (let i = 0; i < options.clients; i++) {
    const client = `c${i + 1}`;
    events.after(random.float(), () => next(client));
  }
  while (events.step(Number.MAX_SAFE_INTEGER));
  return history;
}

/** Of paths: each client mostly asks for a version that it has seen. */
export function pathHistory(options: GeneratorOptions): History<PathInput, PathOutput> {
  const rows = new Map<string, { value: string; version: number }>();
  const seen = new Map<string, number>();
  let version = 0;
  let values = 0;
  return generate<PathInput, PathOutput>(
    options,
    (random, client) => {
      const path = `/k${random.between(1, options.keys)}`;
      const value = `v${++values}`;
      const kind = random.pick(["create", "set", "set", "stat", "stat", "stat", "remove", "rename"] as const);
      if (kind === "rename" && options.renames && options.keys > 1) {
        const to = `/k${random.between(1, options.keys)}`;
        if (to !== path) return { kind, from: path, to };
      }
      if (kind === "create") return { kind, path, value };
      if (kind === "remove") return { kind, path };
      if (kind !== "set") return { kind: "stat", path };
      const ifVersion = seen.get(client);
      return ifVersion === undefined || random.chance(0.5) ? { kind, path, value } : { kind, path, value, ifVersion };
    },
    (input): PathOutput => {
      version++;
      if (input.kind === "rename") {
        const row = rows.get(input.from);
        if (row === undefined) return { code: "not-found" };
        if (rows.has(input.to)) return { code: "already-exists" };
        rows.delete(input.from);
        rows.set(input.to, { value: row.value, version });
        return { code: "ok", version };
      }
      const row = rows.get(input.path);
      if (input.kind === "create") {
        if (row !== undefined) return { code: "already-exists" };
        rows.set(input.path, { value: input.value, version });
        return { code: "ok", version };
      }
      if (row === undefined) return { code: "not-found" };
      if (input.kind === "stat") return { code: "ok", version: row.version, value: row.value };
      if (input.kind === "remove") {
        rows.delete(input.path);
        return { code: "ok", version };
      }
      if (input.ifVersion !== undefined && input.ifVersion !== row.version) {
        return { code: "version-mismatch", version: row.version };
      }
      rows.set(input.path, { value: input.value, version });
      return { code: "ok", version };
    },
    (client, output) => {
      if ("version" in output) seen.set(client, output.version);
    },
  );
}

export function countHistory(options: GeneratorOptions): History<CountInput, number> {
  const counts = new Map<string, number>();
  return generate<CountInput, number>(
    options,
    (random) => ({ kind: random.pick(["raise", "read"] as const), counter: `n${random.between(1, options.keys)}` }),
    ({ kind, counter }) => {
      const count = (counts.get(counter) ?? 0) + (kind === "raise" ? 1 : 0);
      counts.set(counter, count);
      return count;
    },
    () => {},
  );
}
