/**
 * Keeps a target level with the journal in force until the mark comes: begins it with a checkpoint, then follows what is committed. A copy
 * that fails, because the disk is full or a checkpoint went while it was linked, is begun anew; it says so meanwhile.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Entry, Journal, SavedCheckpoint } from "./journal.ts";
import type { MoveMarks, PreparedFile } from "./migration.ts";
import type { MoveCut } from "./move-gate.ts";
import type { MoveTarget } from "./move-target.ts";

export type MoveCopyLimits = {
  /** A checkpoint that lacks more entries than this is too old to begin with. */
  readonly tailEntriesMax: number;
  /** Entries that wait for the target; beyond, the journal is not read on. */
  readonly waitingEntriesMax: number;
  readonly waitingBytesMax: number;
  /** Until a copy that failed is begun anew. */
  readonly retryMs: number;
};

export const defaultMoveCopyLimits: MoveCopyLimits = {
  tailEntriesMax: 200_000,
  waitingEntriesMax: 8192,
  waitingBytesMax: 4 * 1024 * 1024,
  retryMs: 500,
};

export type MoveCopyOptions = {
  readonly plan: PreparedFile;
  readonly target: MoveTarget;
  readonly journal: Journal<unknown>;
  readonly marks: Pick<MoveMarks, "read">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: MoveCopyLimits;
};

export class MoveCopy {
  readonly plan: PreparedFile;
  readonly #options: MoveCopyOptions;
  #closing = new AbortController();
  readonly #waiters = new Set<() => void>();
  #running: Promise<void> = Promise.resolve();
  #copiedIndex = 0;
  #hasMark = false;
  #problem: string | undefined = "it begins";

  constructor(options: MoveCopyOptions) {
    this.plan = options.plan;
    this.#options = options;
  }

  get copiedIndex(): number {
    return this.#copiedIndex;
  }

  /** Why it does not follow; undefined: it does. */
  get problem(): string | undefined {
    return this.#problem;
  }

  start(): void {
    this.#closing = new AbortController();
    this.#hasMark = false;
    this.#running = this.#run(this.#closing.signal);
  }

  /** Resolves when the mark, and so all before it, is in the target. */
  #complete({ index }: MoveCut, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      // Others may have completed a target that is common to all.
      const hasAll = (): boolean => this.#hasMark || (this.#problem === undefined && this.#copiedIndex >= index);
      const look = (): void => {
        if (!hasAll() && !signal.aborted) return;
        this.#waiters.delete(look);
        signal.removeEventListener("abort", look);
        if (hasAll()) resolve();
        else reject(signal.reason as Error);
      };
      this.#waiters.add(look);
      signal.addEventListener("abort", look);
      look();
    });
  }

  /**
   * Makes the target what the new journal begins with, then `seal` it. Tries until it can, each time from the beginning: the cluster stands still
   * meanwhile, and nothing else may be done any more.
   */
  async finish(cut: MoveCut, seal: () => Promise<void>, signal: AbortSignal): Promise<void> {
    const { target, clock, limits, logger } = this.#options;
    for (;;) {
      await this.#complete(cut, signal);
      await this.#stop();
      try {
        await target.finish(cut);
        await seal();
        return;
      } catch (error) {
        logger.error("the new journal cannot be finished yet", { error: toHeadpondError(error).message });
        await clock.sleep(limits.retryMs, signal);
        this.start();
      }
    }
  }

  async close(): Promise<void> {
    await this.#stop();
    await this.#options.target.close();
  }

  /** Ends following; the target stays open. */
  async #stop(): Promise<void> {
    this.#closing.abort(new HeadpondError("cancelled", "the copy is not wanted any more"));
    await this.#running;
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, logger, target, limits, plan } = this.#options;
    while (!signal.aborted && !this.#hasMark) {
      try {
        const base = await this.#base();
        this.#copiedIndex = await target.begin(base);
        logger.info("the journal is copied for a move", { move: plan.move, to: plan.to, from: this.#copiedIndex });
        this.#problem = undefined;
        for (const look of this.#waiters) look();
        await this.#follow(this.#copiedIndex + 1, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#problem = toHeadpondError(error).message;
        logger.warn("the copy for a move failed, it is begun anew", { move: plan.move, error: this.#problem });
        await clock.sleep(limits.retryMs, signal).catch(() => {});
      }
    }
  }

  /** `undefined`: the log has everything from its beginning. */
  async #base(): Promise<SavedCheckpoint | undefined> {
    const { journal, limits } = this.#options;
    const { firstIndex, appliedIndex } = journal.status();
    const isRecent = (index: number): boolean => appliedIndex - index <= limits.tailEntriesMax;
    const newest = journal.checkpoints.at(-1);
    if (newest !== undefined && newest.index + 1 >= firstIndex && isRecent(newest.index)) return newest;
    const isWhole = firstIndex === 1 && !this.#options.target.needsBase;
    if (newest === undefined && isWhole && isRecent(0)) return undefined;
    const usable = newest !== undefined ? newest.index + 1 >= firstIndex : isWhole;
    try {
      await journal.checkpoint();
    } catch (error) {
      // A journal that has ended makes none any more: what there is does, however long the log behind it is.
      if (!usable) throw error;
      return newest;
    }
    return journal.checkpoints.at(-1);
  }

  async #follow(fromIndex: number, ending: AbortSignal): Promise<void> {
    const { journal, marks, plan, limits } = this.#options;
    const failing = new AbortController();
    const signal = AbortSignal.any([ending, failing.signal]);
    let waiting: Entry[] = [];
    let waitingBytes = 0;
    let writing: Promise<void> | undefined;
    const write = async (): Promise<void> => {
      try {
        while (waiting.length > 0) {
          const entries = waiting;
          waiting = [];
          waitingBytes = 0;
          await this.#options.target.append(entries);
          this.#reached(entries, marks, plan.generation);
        }
      } catch (error) {
        failing.abort(error);
      } finally {
        writing = undefined;
      }
    };
    for await (const entry of journal.committed(fromIndex, signal)) {
      waiting.push(entry);
      waitingBytes += entry.payload.length;
      writing ??= write();
      if (marks.read(entry.payload)?.generation === plan.generation) break;
      if (waiting.length >= limits.waitingEntriesMax || waitingBytes >= limits.waitingBytesMax) await writing;
    }
    await writing;
    failing.signal.throwIfAborted();
  }

  #reached(entries: readonly Entry[], marks: Pick<MoveMarks, "read">, generation: number): void {
    const last = entries.at(-1);
    if (last === undefined) return;
    this.#copiedIndex = last.index;
    this.#hasMark = marks.read(last.payload)?.generation === generation;
    if (this.#hasMark) for (const look of this.#waiters) look();
  }
}
