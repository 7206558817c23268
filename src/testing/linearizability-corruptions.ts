/**
 * Ways to make a right history wrong: each takes one by chance where it can be applied and changes it so that no order explains it any
 * more. `undefined`: there is no place for it in this history.
 */

import type { Random } from "../base/random.ts";
import type { Operation } from "./linearizability-model.ts";
import type { CountInput, PathInput, PathOutput } from "./linearizability-models.ts";

type PathOperation = Operation<PathInput, PathOutput>;
type CountOperation = Operation<CountInput, number>;

export type Corruption<O> = {
  /** What a system that did this would be guilty of. */
  readonly name: string;
  readonly apply: (history: readonly O[], random: Random) => O[] | undefined;
};

type Returned<Input, Output> = Operation<Input, Output> & { readonly outcome: { readonly kind: "returned" } };

function hasReturned<Input, Output>(operation: Operation<Input, Output>): operation is Returned<Input, Output> {
  return operation.outcome.kind === "returned";
}

/** The first by chance that `found` likes. */
function some<O extends object, R>(
  history: readonly O[],
  random: Random,
  found: (one: O) => R | undefined,
): R | undefined {
  for (const one of random.shuffle([...history])) {
    const result = found(one);
    if (result !== undefined) return result;
  }
  return undefined;
}

function replaced<O>(history: readonly O[], old: O, by: readonly O[]): O[] {
  return history.flatMap((one) => (one === old ? by : [one]));
}

function returning<I, O>(operation: Operation<I, O>, output: O): Operation<I, O> {
  const at = operation.outcome.kind === "returned" ? operation.outcome.at : operation.calledAt;
  return { ...operation, outcome: { kind: "returned", at, output } };
}

const touches = ({ input }: PathOperation, path: string): boolean =>
  input.kind === "rename" ? input.from === path || input.to === path : input.path === path;
const isRead = ({ input }: PathOperation): boolean => input.kind === "stat";
function endOf<Input, Output>({ outcome }: Operation<Input, Output>): number {
  return outcome.kind === "returned" ? outcome.at : Number.POSITIVE_INFINITY;
}

/** Changes of a path that may take effect after `at`, other than `but`. */
function changesAfter(history: readonly PathOperation[], path: string, at: number, but: PathOperation): boolean {
  return history.some(
    (one) => one !== but && !isRead(one) && one.outcome.kind !== "refused" && touches(one, path) && endOf(one) > at,
  );
}

/** A read with a value, and the operation that wrote it. */
function writeAndRead(
  history: readonly PathOperation[],
  random: Random,
): { readonly write: PathOperation; readonly read: Returned<PathInput, PathOutput> } | undefined {
  return some(history, random, (read) => {
    if (!isRead(read) || !hasReturned(read)) return undefined;
    const { output } = read.outcome;
    if (output.code !== "ok") return undefined;
    const write = history.find(
      ({ input }) => (input.kind === "set" || input.kind === "create") && input.value === output.value,
    );
    return write === undefined ? undefined : { write, read };
  });
}

export const pathCorruptions: readonly Corruption<PathOperation>[] = [
  {
    name: "a read is stale",
    apply: (history, random) =>
      some(history, random, (late) => {
        if (late.input.kind !== "stat" || !hasReturned(late)) return undefined;
        const { path } = late.input;
        return some(history, random, (write) => {
          if (write.input.kind !== "set" || write.input.path !== path || !hasReturned(write)) return undefined;
          if (write.outcome.output.code !== "ok" || write.outcome.at >= late.calledAt) return undefined;
          const early = history.find(
            (one) =>
              isRead(one) &&
              touches(one, path) &&
              hasReturned(one) &&
              one.outcome.output.code === "ok" &&
              one.outcome.at < write.calledAt,
          );
          if (early === undefined || !hasReturned(early)) return undefined;
          return replaced(history, late, [returning(late, early.outcome.output)]);
        });
      }),
  },
  {
    name: "an acknowledged write is lost",
    apply: (history, random) =>
      some(history, random, (write) => {
        const { input } = write;
        if (input.kind !== "create" || !hasReturned(write) || write.outcome.output.code !== "ok") return undefined;
        if (changesAfter(history, input.path, write.calledAt, write)) return undefined;
        const calledAt = Math.max(...history.map((one) => one.calledAt), write.outcome.at) + 10;
        const read: PathOperation = {
          client: "late",
          input: { kind: "stat", path: input.path },
          calledAt,
          outcome: { kind: "returned", at: calledAt + 1, output: { code: "not-found" } },
        };
        return [...history, read];
      }),
  },
  {
    name: "a write that was refused takes effect",
    apply: (history, random) => {
      const found = writeAndRead(history, random);
      if (found === undefined) return undefined;
      return replaced(history, found.write, [{ ...found.write, outcome: { kind: "refused" } }]);
    },
  },
  {
    name: "a value is read that nobody wrote",
    apply: (history, random) => {
      const read = writeAndRead(history, random)?.read;
      if (read === undefined || read.outcome.output.code !== "ok") return undefined;
      return replaced(history, read, [returning(read, { ...read.outcome.output, value: "never" })]);
    },
  },
  {
    name: "a write is read before it is asked for",
    apply: (history, random) => {
      const found = writeAndRead(history, random);
      if (found === undefined) return undefined;
      const { write, read } = found;
      const calledAt = read.outcome.at + 0.1;
      const outcome = hasReturned(write)
        ? { ...write.outcome, at: Math.max(write.outcome.at, calledAt + 0.1) }
        : write.outcome;
      return replaced(history, write, [{ ...write, calledAt, outcome }]);
    },
  },
  {
    name: "an old version is read of a new value",
    apply: (history, random) => {
      const found = writeAndRead(history, random);
      if (found === undefined || !hasReturned(found.write)) return undefined;
      const { output } = found.write.outcome;
      const seen = found.read.outcome.output;
      if (output.code !== "ok" || seen.code !== "ok") return undefined;
      return replaced(history, found.read, [returning(found.read, { ...seen, version: output.version - 0.5 })]);
    },
  },
  {
    name: "a path is created twice",
    apply: (history, random) =>
      some(history, random, (one) => {
        const { input } = one;
        if (input.kind !== "create" || !hasReturned(one) || one.outcome.output.code !== "ok") return undefined;
        if (changesAfter(history, input.path, one.calledAt, one)) return undefined;
        const { version } = one.outcome.output;
        const twin = returning({ ...one, client: "twin", input: { ...input, value: "twin" } }, {
          code: "ok",
          version: version + 0.5,
        } as PathOutput);
        return replaced(history, one, [one, twin]);
      }),
  },
  {
    name: "two writes replace the same version",
    apply: (history, random) =>
      some(history, random, (one) => {
        const { input } = one;
        if (input.kind !== "set" || input.ifVersion === undefined || !hasReturned(one)) return undefined;
        const { output } = one.outcome;
        if (output.code !== "ok") return undefined;
        // A path that came anew by a change that nobody saw may have any version.
        if (history.some((other) => other.outcome.kind === "unknown" && touches(other, input.path))) return undefined;
        const twin = returning({ ...one, client: "twin", input: { ...input, value: "twin" } }, {
          code: "ok",
          version: output.version + 0.5,
        } as PathOutput);
        return replaced(history, one, [one, twin]);
      }),
  },
  {
    name: "a path is removed twice",
    apply: (history, random) =>
      some(history, random, (one) => {
        const { input } = one;
        if (input.kind !== "remove" || !hasReturned(one) || one.outcome.output.code !== "ok") return undefined;
        if (changesAfter(history, input.path, one.calledAt, one)) return undefined;
        return replaced(history, one, [one, { ...one, client: "twin" }]);
      }),
  },
  {
    name: "what is there is not found",
    apply: (history, random) =>
      some(history, random, (read) => {
        const { input } = read;
        if (input.kind !== "stat" || !hasReturned(read) || read.outcome.output.code !== "ok") return undefined;
        const goes = history.some(
          (one) => (one.input.kind === "remove" || one.input.kind === "rename") && touches(one, input.path),
        );
        const written = history.some(
          (one) => touches(one, input.path) && hasReturned(one) && one.outcome.at < read.calledAt && saw(one),
        );
        return goes || !written ? undefined : replaced(history, read, [returning(read, { code: "not-found" })]);
      }),
  },
];

function saw(operation: Returned<PathInput, PathOutput>): boolean {
  return operation.outcome.output.code === "ok";
}

/** Of counters that were raised without doubt only: a raise of unknown outcome explains much. */
function certain(history: readonly CountOperation[], counter: string): boolean {
  return !history.some(({ input, outcome }) => input.counter === counter && outcome.kind === "unknown");
}

const isRaise = ({ input }: CountOperation): boolean => input.kind === "raise";

export const countCorruptions: readonly Corruption<CountOperation>[] = [
  {
    name: "a raise is applied twice",
    apply: (history, random) =>
      some(history, random, (one) => {
        const { counter } = one.input;
        if (!isRaise(one) || !hasReturned(one) || !certain(history, counter)) return undefined;
        const count = one.outcome.output;
        // Everybody counts one more from there on, and somebody raised before.
        if (count < 2) return undefined;
        return history.map((other) => {
          const isLater = other.input.counter === counter && hasReturned(other) && other.outcome.output >= count;
          return isLater && hasReturned(other) ? returning(other, other.outcome.output + 1) : other;
        });
      }),
  },
  {
    name: "two raises get the same count",
    apply: (history, random) =>
      some(history, random, (one) =>
        isRaise(one) && hasReturned(one) ? replaced(history, one, [one, { ...one, client: "twin" }]) : undefined,
      ),
  },
  {
    name: "an acknowledged raise is lost",
    apply: (history, random) =>
      some(history, random, (read) => {
        if (isRaise(read) || !hasReturned(read)) return undefined;
        const { calledAt, input } = read;
        const least = Math.max(
          0,
          ...history.map((one) =>
            hasReturned(one) && one.input.counter === input.counter && one.outcome.at < calledAt
              ? one.outcome.output
              : 0,
          ),
        );
        return least === 0 ? undefined : replaced(history, read, [returning(read, least - 1)]);
      }),
  },
  {
    name: "a read counts what was not asked for yet",
    apply: (history, random) =>
      some(history, random, (read) => {
        if (isRaise(read) || !hasReturned(read)) return undefined;
        const { at } = read.outcome;
        const asked = history.filter(
          (one) => isRaise(one) && one.input.counter === read.input.counter && one.calledAt < at,
        );
        return replaced(history, read, [returning(read, asked.length + 1)]);
      }),
  },
  {
    name: "the brain is split: two sides count on by themselves",
    apply: (history, random) =>
      some(history, random, (one) => {
        const { counter } = one.input;
        if (!isRaise(one) || !hasReturned(one) || !certain(history, counter)) return undefined;
        const count = one.outcome.output;
        const side = ["c1", "c2", "c3"];
        // The others do not see what this side raises from there on, nor this side what they do.
        let left = count;
        let right = count;
        let bothRaised = 0;
        const result = [...history]
          .sort((a, b) => endOf(a) - endOf(b))
          .map((other) => {
            if (other.input.counter !== counter || !hasReturned(other) || other.outcome.output <= count) return other;
            const isLeft = side.includes(other.client);
            if (isRaise(other)) {
              bothRaised |= isLeft ? 1 : 2;
              return returning(other, isLeft ? ++left : ++right);
            }
            return returning(other, isLeft ? left : right);
          });
        return bothRaised === 3 ? result : undefined;
      }),
  },
];
