/**
 * The search for an order, for one part of a history: depth first, one operation after the other, among those that nobody who
 * is not placed yet was before. What was tried from the same place is not tried again.
 *
 * Rules keep it short, none of which loses an order. An operation that changes nothing is placed as soon as it can be. Of what
 * failed with some operations of unknown outcome spent, the same with more of them spent fails too. Operations of unknown outcome are
 * placed only right before one that returned and could need them: a chain before a target, joined to it by keys. Chains are short at first
 * and become longer only if that does not do. Of equal ones the first is taken first.
 */

import { present } from "../base/assert.ts";
import type { Model, Operation } from "./linearizability-model.ts";

export type SearchFailure<State, Input, Output> = {
  /** The longest order that was found, and the state after it. */
  readonly order: readonly Operation<Input, Output>[];
  readonly state: State;
  /** What could have been next by its time. */
  readonly candidates: readonly Operation<Input, Output>[];
  readonly placed: number;
  readonly total: number;
};

/** An operation that returned. */
type Known<Input, Output> = {
  readonly operation: Operation<Input, Output>;
  readonly returnedAt: number;
  readonly output: Output;
};

type Candidate = {
  readonly isKnown: boolean;
  readonly at: number;
  /** Of an unknown one: the known one that it is placed for. */
  readonly target: number;
};

/** How many unknown operations may come in a row, one pass after the other. */
const chainsMax: readonly number[] = [1, 2, 4, Number.POSITIVE_INFINITY];

/** One place in the order that is being tried. */
type Frame<State> = {
  readonly state: State;
  readonly fingerprint: string;
  /** How the place was reached; `undefined`: the beginning. */
  readonly by: Candidate | undefined;
  readonly before: Frame<State> | undefined;
  /** Unknown operations in a row that led here. */
  readonly chain: number;
  readonly candidates: readonly Candidate[];
  next: number;
};

export class HistorySearch<State, Input, Output> {
  readonly #model: Model<State, Input, Output>;
  /** By the time of their call. */
  readonly #known: readonly Known<Input, Output>[];
  readonly #unknown: readonly Operation<Input, Output>[];
  /** For each unknown one the next before it with the same input, or -1. */
  readonly #twins: readonly number[];
  readonly #unknownOf = new Map<string, number[]>();
  readonly #stepsMax: number;
  #chainMax = 1;
  /** Something was left out in this pass because of the length of chains. */
  #isCut = false;
  readonly #isPlaced: Uint8Array;
  /** All known ones before it are placed. */
  #low = 0;
  #placed = 0;
  /** Unknown ones that are placed, as bits. */
  #spent = 0n;
  /** What has failed: by placed known ones and state, the sets of spent unknown ones. */
  readonly #failed = new Map<string, bigint[]>();
  steps = 0;

  constructor(model: Model<State, Input, Output>, part: readonly Operation<Input, Output>[], stepsMax: number) {
    this.#model = model;
    this.#stepsMax = stepsMax;
    const known: Known<Input, Output>[] = [];
    const unknown: Operation<Input, Output>[] = [];
    for (const operation of part) {
      const { outcome } = operation;
      if (outcome.kind === "returned") known.push({ operation, returnedAt: outcome.at, output: outcome.output });
      else if (outcome.kind === "unknown") unknown.push(operation);
    }
    this.#known = known.sort((a, b) => a.operation.calledAt - b.operation.calledAt);
    this.#unknown = unknown.sort((a, b) => a.calledAt - b.calledAt);
    this.#isPlaced = new Uint8Array(known.length);
    const last = new Map<string, number>();
    this.#twins = unknown.map(({ input }, i) => {
      const text = model.describe(input, undefined);
      const twin = last.get(text) ?? -1;
      last.set(text, i);
      return twin;
    });
    for (const [i, { input }] of unknown.entries()) {
      for (const key of model.keysOf(input)) this.#unknownOf.set(key, [...(this.#unknownOf.get(key) ?? []), i]);
    }
  }

  /** `undefined`: there is an order. */
  run(): SearchFailure<State, Input, Output> | "limit" | undefined {
    let failure: SearchFailure<State, Input, Output> | "limit" | undefined;
    for (const chainMax of chainsMax) {
      this.#chainMax = chainMax;
      this.#isCut = false;
      this.#failed.clear();
      failure = this.#pass();
      if (failure === undefined || failure === "limit" || !this.#isCut) break;
    }
    return failure;
  }

  #pass(): SearchFailure<State, Input, Output> | "limit" | undefined {
    const total = this.#known.length;
    let frame: Frame<State> | undefined = this.#frame(this.#model.initial, undefined, undefined);
    let deepest: SearchFailure<State, Input, Output> | undefined;
    let deepestPlaced = -1;
    while (frame !== undefined) {
      if (this.#placed === total) return undefined;
      if (this.#placed > deepestPlaced) {
        deepestPlaced = this.#placed;
        deepest = this.#failureAt(frame);
      }
      const next = this.#descend(frame);
      if (next !== undefined) {
        frame = next;
        continue;
      }
      if (this.steps >= this.#stepsMax) return "limit";
      this.#remember(frame);
      if (frame.by !== undefined) this.#take(frame.by);
      frame = frame.before;
    }
    return present(deepest, "a search begins somewhere");
  }

  /** The next place to try from here; `undefined` if there is none. */
  #descend(frame: Frame<State>): Frame<State> | undefined {
    const model = this.#model;
    while (frame.next < frame.candidates.length) {
      if (this.steps >= this.#stepsMax) return undefined;
      this.steps++;
      const candidate = frame.candidates[frame.next++] as Candidate;
      const { input, output } = this.#at(candidate);
      const state = model.step(frame.state, input, output);
      if (state === undefined) continue;
      const fingerprint = state === frame.state ? frame.fingerprint : model.fingerprint(state);
      // An unknown operation that does nothing here is as good as unspent.
      if (!candidate.isKnown && fingerprint === frame.fingerprint) continue;
      if (this.#isNeedless(frame, candidate, fingerprint)) continue;
      this.#put(candidate);
      if (!this.#hasFailed(fingerprint, candidate)) return this.#frame(state, candidate, frame, fingerprint);
      this.#take(candidate);
    }
    return undefined;
  }

  /** Whether the same can be had with the last unknown operation left out or placed later, which is tried elsewhere. */
  #isNeedless(frame: Frame<State>, candidate: Candidate, fingerprint: string): boolean {
    const { by, before } = frame;
    if (by === undefined || before === undefined || by.isKnown) return false;
    const model = this.#model;
    const { input, output } = this.#at(candidate);
    const without = model.step(before.state, input, output);
    if (without === undefined) return false;
    if (model.fingerprint(without) === fingerprint) return true;
    if (!candidate.isKnown && candidate.at > by.at) return false;
    const last = this.#at(by);
    const later = model.step(without, last.input, last.output);
    return later !== undefined && model.fingerprint(later) === fingerprint;
  }

  #frame(
    state: State,
    by: Candidate | undefined,
    before: Frame<State> | undefined,
    fingerprint = this.#model.fingerprint(state),
  ): Frame<State> {
    const chain = by === undefined || by.isKnown ? 0 : (before?.chain ?? 0) + 1;
    const candidates =
      by === undefined || by.isKnown ? this.#candidates(state) : [known(by.target), ...this.#chainTo(by.target, chain)];
    return { state, fingerprint, by, before, chain, candidates, next: 0 };
  }

  /** What may be next, by time: known ones first, those that returned early first. */
  #candidates(state: State): readonly Candidate[] {
    const all = this.#known;
    const result: Candidate[] = [];
    for (const at of this.#inTime()) {
      const { operation, output } = all[at] as Known<Input, Output>;
      if (this.#model.step(state, operation.input, output) === state) return [known(at)];
      result.push(known(at));
    }
    result.sort((a, b) => (all[a.at]?.returnedAt ?? 0) - (all[b.at]?.returnedAt ?? 0));
    if (this.#unknown.length === 0) return result;
    return [...result, ...result.flatMap(({ at }) => this.#chainTo(at, 0))];
  }

  /** The known ones that nobody who is not placed was before. */
  #inTime(): readonly number[] {
    const all = this.#known;
    const result: number[] = [];
    let endAt = Number.POSITIVE_INFINITY;
    for (let at = this.#low; at < all.length; at++) {
      if (this.#isPlaced[at] === 1) continue;
      const { operation, returnedAt } = all[at] as Known<Input, Output>;
      if (operation.calledAt > endAt) break;
      endAt = Math.min(endAt, returnedAt);
      result.push(at);
    }
    return result;
  }

  /** When the first of those that are not placed returned: what is placed next was called by then. */
  #endAt(): number {
    return Math.min(...this.#inTime().map((at) => this.#known[at]?.returnedAt ?? 0));
  }

  /** Unknown ones that may be next in a chain before `target`: they share a key with it, or with one that does, as far as the chain may go. */
  #chainTo(target: number, chain: number): readonly Candidate[] {
    const left = this.#chainMax - chain;
    const { operation } = this.#known[target] as Known<Input, Output>;
    const endAt = this.#endAt();
    const found = new Set<number>();
    const seen = new Set<string>();
    let keys = this.#model.keysOf(operation.input);
    for (let distance = 1; keys.length > 0; distance++) {
      const reached: string[] = [];
      for (const key of keys) {
        if (seen.has(key)) continue;
        seen.add(key);
        for (const at of this.#unknownOf.get(key) ?? []) {
          const other = this.#unknown[at] as Operation<Input, Output>;
          if (found.has(at) || this.#isSpent(at) || other.calledAt > endAt) continue;
          if (distance > left) {
            this.#isCut = true;
            continue;
          }
          found.add(at);
          reached.push(...this.#model.keysOf(other.input));
        }
      }
      keys = reached;
    }
    const result: Candidate[] = [];
    for (const at of [...found].sort((a, b) => a - b)) {
      const twin = this.#twins[at] as number;
      if (twin < 0 || this.#isSpent(twin)) result.push({ isKnown: false, at, target });
    }
    // One after another of the same distance may be needed together.
    if (left === 1 && result.length > 1) this.#isCut = true;
    return result;
  }

  #at({ isKnown, at }: Candidate): { readonly input: Input; readonly output: Output | undefined } {
    if (!isKnown) return { input: present(this.#unknown[at], "in range").input, output: undefined };
    const { operation, output } = present(this.#known[at], "in range");
    return { input: operation.input, output };
  }

  #isSpent(at: number): boolean {
    return (this.#spent >> BigInt(at)) % 2n === 1n;
  }

  #put({ isKnown, at }: Candidate): void {
    if (!isKnown) {
      this.#spent |= 1n << BigInt(at);
      return;
    }
    this.#isPlaced[at] = 1;
    this.#placed++;
    while (this.#isPlaced[this.#low] === 1) this.#low++;
  }

  #take({ isKnown, at }: Candidate): void {
    if (!isKnown) {
      this.#spent &= ~(1n << BigInt(at));
      return;
    }
    this.#isPlaced[at] = 0;
    this.#placed--;
    this.#low = Math.min(this.#low, at);
  }

  /** Which known ones are placed, and the state. */
  #key(fingerprint: string, target: number | undefined): string {
    let key = target === undefined ? `${this.#low}` : `${target}<${this.#low}`;
    for (let at = this.#low, left = this.#placed - this.#low; left > 0; at++) {
      if (this.#isPlaced[at] !== 1) continue;
      key += `,${at}`;
      left--;
    }
    return `${key};${fingerprint}`;
  }

  #remember({ fingerprint, by }: Frame<State>): void {
    const key = this.#key(fingerprint, targetOf(by));
    const sets = this.#failed.get(key);
    if (sets === undefined) this.#failed.set(key, [this.#spent]);
    else sets.push(this.#spent);
  }

  /** Before a target less is tried: what failed for all fails for it, not the other way round. */
  #hasFailed(fingerprint: string, by: Candidate): boolean {
    const isDominated = (target: number | undefined): boolean =>
      this.#failed.get(this.#key(fingerprint, target))?.some((set) => (set & ~this.#spent) === 0n) ?? false;
    return isDominated(undefined) || (!by.isKnown && isDominated(by.target));
  }

  #failureAt(frame: Frame<State>): SearchFailure<State, Input, Output> {
    const operationOf = ({ isKnown, at }: Candidate): Operation<Input, Output> =>
      isKnown ? present(this.#known[at], "in range").operation : present(this.#unknown[at], "in range");
    const order: Operation<Input, Output>[] = [];
    for (let at: Frame<State> | undefined = frame; at?.by !== undefined && order.length < 50; at = at.before) {
      order.unshift(operationOf(at.by));
    }
    return {
      order,
      state: frame.state,
      candidates: frame.candidates.map(operationOf),
      placed: this.#placed,
      total: this.#known.length,
    };
  }
}

function known(at: number): Candidate {
  return { isKnown: true, at, target: -1 };
}

function targetOf(by: Candidate | undefined): number | undefined {
  return by === undefined || by.isKnown ? undefined : by.target;
}
