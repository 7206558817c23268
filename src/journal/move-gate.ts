/**
 * The state machine as one journal of several in a row sees it. It lets entries through until the mark that ends this journal, and not one
 * more: whatever the journal commits behind it is void. Towards the journal it looks as if they had been applied, so that the journal can go on
 * for those who have not come as far.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Entry, StateMachine } from "./journal.ts";
import type { MoveMark, MoveMarks } from "./migration.ts";

export type MoveCut = {
  readonly mark: MoveMark;
  readonly index: number;
  readonly term: number;
  readonly digest: string;
};

export type MoveGateOptions<Result> = {
  readonly machine: StateMachine<Result>;
  readonly marks: MoveMarks;
  /** Of the journal on this side. */
  readonly generation: number;
  /** Where it began; 0 if no move brought it. */
  readonly beganIndex: number;
  /** Of entries that are void. */
  readonly voidResult: Result;
  /** Called once, in the turn in which the mark was applied. */
  readonly onCut: (cut: MoveCut) => void;
};

export class MoveGate<Result> implements StateMachine<Result> {
  readonly #options: MoveGateOptions<Result>;
  readonly #closing = new AbortController();
  #cut: MoveCut | undefined;
  #position: { readonly index: number; readonly term: number } = { index: 0, term: 0 };
  #isLookedAt = false;

  constructor(options: MoveGateOptions<Result>) {
    this.#options = options;
  }

  /** Where this journal ended. */
  get cut(): MoveCut | undefined {
    return this.#cut;
  }

  /**
   * A state that has the mark from the beginning was cut in an earlier life, or by another master's checkpoint. It ends at the mark: what the
   * new journal brought would have been applied under that one. Once the journal has recovered; its recovery may replace the state first.
   */
  look(): void {
    if (this.#isLookedAt) return;
    this.#isLookedAt = true;
    const { marks, generation } = this.#options;
    const mark = marks.newest();
    if (mark !== undefined && mark.generation > generation) this.#close(mark);
  }

  get applied(): { readonly index: number; readonly term: number } {
    return this.#cut === undefined ? this.#options.machine.applied : this.#position;
  }

  apply(entries: readonly Entry[]): Result[] {
    const { machine, marks, generation } = this.#options;
    this.look();
    if (this.#cut === undefined) {
      const at = entries.findIndex(({ payload }) => marks.read(payload)?.generation === generation + 1);
      if (at < 0) return machine.apply(entries);
      const results = machine.apply(at + 1 === entries.length ? entries : entries.slice(0, at + 1));
      const mark = marks.newest();
      if (mark?.generation !== generation + 1) {
        throw new HeadpondError("internal", `the mark at ${entries[at]?.index} was applied and is not in the state`);
      }
      this.#close(mark);
      return at + 1 === entries.length ? results : [...results, ...this.#void(entries.slice(at + 1))];
    }
    return this.#void(entries);
  }

  digest(): string {
    return this.#cut?.digest ?? this.#options.machine.digest();
  }

  /** Not of the very place where the journal began: the term there is not the same in all logs. The arrival comes at once. */
  async writeCheckpoint(path: string, signal?: AbortSignal): ReturnType<StateMachine<Result>["writeCheckpoint"]> {
    const { machine, beganIndex } = this.#options;
    this.#requireOpen();
    const both = signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
    if (beganIndex > 0 && machine.applied.index <= beganIndex) throw tooEarly(beganIndex);
    const made = await machine.writeCheckpoint(path, both);
    // It may be of the new journal's entries by now.
    this.#requireOpen();
    if (beganIndex > 0 && made.index <= beganIndex) throw tooEarly(beganIndex);
    return made;
  }

  backPressure(): Promise<void> | undefined {
    return this.#options.machine.backPressure?.();
  }

  async flush(): Promise<void> {
    await this.#options.machine.flush?.();
  }

  async reset(path: string | undefined): Promise<void> {
    this.#requireOpen();
    this.#isLookedAt = false;
    await this.#options.machine.reset(path);
    this.look();
  }

  #close(mark: MoveMark): void {
    const { machine, onCut } = this.#options;
    const { index, term } = machine.applied;
    this.#position = { index, term };
    this.#cut = { mark, index, term, digest: machine.digest() };
    this.#closing.abort(
      new HeadpondError("unavailable", `this journal ended at entry ${index}: the cluster has moved`),
    );
    // Not before the journal knows that the mark is applied.
    const cut = this.#cut;
    queueMicrotask(() => onCut(cut));
  }

  #void(entries: readonly Entry[]): Result[] {
    const last = entries.at(-1);
    if (last !== undefined) this.#position = { index: last.index, term: last.term };
    return entries.map(() => this.#options.voidResult);
  }

  #requireOpen(): void {
    this.#closing.signal.throwIfAborted();
  }
}

function tooEarly(index: number): HeadpondError {
  return new HeadpondError(
    "unavailable",
    `the journal begins at entry ${index}, and nothing is in it yet: ask again in a moment`,
  );
}
