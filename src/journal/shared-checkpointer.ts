/**
 * Checkpoints of a shared journal: the state is written to the own disk, copied into the store, and counts once its record has the next free
 * number. Any master may make one; they take turns by their rank: standbys first, and who leads last, so that it has its time for clients.
 */

import { toHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Checkpoint, Checkpoints } from "./checkpoints.ts";
import type { StateMachine } from "./journal.ts";
import { collectGarbage } from "./shared-collector.ts";
import type { SharedHistory } from "./shared-history.ts";
import { stateName } from "./shared-names.ts";
import type { SharedObjects } from "./shared-objects.ts";
import type { SharedRecords } from "./shared-records.ts";

export type Made = { readonly index: number; readonly bytes: number; readonly durationMs: number };

export type SharedCheckpointerOptions = {
  readonly id: string;
  readonly machine: StateMachine<unknown>;
  readonly objects: SharedObjects;
  readonly records: SharedRecords;
  readonly history: SharedHistory;
  readonly checkpoints: Checkpoints;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly everyBytes: number;
  readonly everyEntries: number;
  readonly rankDelay: number;
  /** How many masters are more fit to make the next one. */
  readonly rank: () => number;
  /** The state is as good as the others'. */
  readonly mayMake: () => boolean;
  readonly nextMark: () => string;
  readonly signal: AbortSignal;
};

export class SharedCheckpointer {
  readonly #options: SharedCheckpointerOptions;
  /** What runs, or waits for its turn, last. */
  #last: Promise<unknown> = Promise.resolve();
  #running = 0;
  /** Applied since the newest record, and which one that was. */
  #bytes = 0;
  #since = 0;
  #notBeforeIndex = 0;

  constructor(options: SharedCheckpointerOptions) {
    this.#options = options;
  }

  /** So much was applied: makes a checkpoint if one is due. */
  applied(entries: number, bytes: number): void {
    const { records, machine, everyBytes, everyEntries, rankDelay, rank, mayMake, logger, signal } = this.#options;
    const newest = records.newest;
    if (newest !== undefined && newest.number > this.#since) {
      this.#since = newest.number;
      this.#bytes = 0;
    }
    this.#bytes += bytes;
    const behind = machine.applied.index - (newest?.index ?? 0);
    if (this.#running > 0 || (this.#bytes < everyBytes && behind < everyEntries)) return;
    const factor = 1 + rank() * rankDelay;
    if (this.#bytes < everyBytes * factor && behind < everyEntries * factor) return;
    // A failed one is tried again when as much has come again, or half of it: not with every slice.
    if (entries === 0 || !mayMake() || machine.applied.index < this.#notBeforeIndex) return;
    this.#notBeforeIndex = machine.applied.index + Math.ceil(everyEntries / 16);
    this.make().catch((error: unknown) => {
      if (!signal.aborted) logger.error("checkpoint failed", { error: toHeadpondError(error).message });
    });
  }

  /** Begins after those that were asked for before. */
  make(): Promise<Made> {
    this.#running++;
    const run = this.#last.then(
      () => this.#make(),
      () => this.#make(),
    );
    this.#last = run.catch(() => {});
    return run.finally(() => {
      this.#running--;
    });
  }

  /** Waits for what is under way, which the journal's signal ends. */
  async close(): Promise<void> {
    while (this.#running > 0) await this.#last;
  }

  async #make(): Promise<Made> {
    const { checkpoints, machine, clock, logger, records, signal } = this.#options;
    signal.throwIfAborted();
    const startMs = clock.monotonicMs();
    const own = await checkpoints.write(machine);
    const { index, bytes } = own;
    await records.look(signal);
    if ((records.newest?.index ?? 0) < index) await this.#publish(own);
    await checkpoints.prune();
    this.#options.history.cut(records.before?.index ?? 0);
    const durationMs = clock.monotonicMs() - startMs;
    logger.info("checkpoint", { index, bytes, durationMs, cutIndex: records.before?.index ?? 0 });
    await this.#collect();
    return { index, bytes, durationMs };
  }

  /** Another master may have been quicker: then its checkpoint does. */
  async #publish(own: Checkpoint): Promise<void> {
    const { id, objects, records, history, clock, nextMark, signal } = this.#options;
    const { index, term, digest, bytes, xxh64, path } = own;
    const mark = nextMark();
    const state = stateName(index, (mark.split(".").at(-1) ?? "").slice(0, 16));
    // "exists" is an earlier attempt of this one whose answer was lost: the name is random, and objects appear whole.
    await objects.repeat(() => objects.store.upload(state, path, signal), signal);
    const upTo = history.placeOf(index);
    const createdMs = clock.wallMs();
    const record = { upTo, index, term, digest, bytes, xxh64, state, id, createdMs };
    if ((await records.add(record, mark, signal)) !== undefined) return;
    await objects.store.remove(state, signal);
  }

  async #collect(): Promise<void> {
    const { objects, records, logger, signal } = this.#options;
    try {
      await collectGarbage(objects, records, signal);
    } catch (error) {
      if (signal.aborted) return;
      logger.warn("garbage is left in the store until the next checkpoint", { error: toHeadpondError(error).message });
    }
  }
}
