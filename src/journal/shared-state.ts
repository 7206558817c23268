/**
 * Where the own state stands in the shared log, and how it gets there: what is on the own disk is gone on with if it can be trusted and is
 * part of the log; else a checkpoint of the store takes its place. The state is a cache: it may be thrown away at any time.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { type Checkpoint, sumFile } from "./checkpoints.ts";
import type { StateMachine } from "./journal.ts";
import type { Cursor } from "./shared-names.ts";
import type { SharedObjects } from "./shared-objects.ts";
import type { Position, SharedPlace } from "./shared-place.ts";
import { cursorBehind, type SharedRecord, type SharedRecords } from "./shared-records.ts";

export type SharedStateOptions = {
  readonly disk: Disk;
  readonly place: SharedPlace;
  readonly objects: SharedObjects;
  readonly records: SharedRecords;
  readonly machine: StateMachine<unknown>;
  readonly logger: Logger;
};

export class SharedState {
  readonly #options: SharedStateOptions;

  constructor(options: SharedStateOptions) {
    this.#options = options;
  }

  /** A place in the log from which the state can go on: entries that it has already may come again. */
  async open(signal: AbortSignal): Promise<Cursor> {
    const { place, machine, records } = this.#options;
    const doubt = await place.trust.doubt();
    if (doubt !== undefined) return this.rebuild(doubt, signal);
    const found = this.#known();
    if (typeof found === "string") return this.rebuild(found, signal);
    // An empty state could read the whole log; a checkpoint is quicker.
    if (machine.applied.index === 0 && records.newest !== undefined) return this.rebuild("it is empty", signal);
    await place.trust.markInUse();
    return found;
  }

  /** Replaces the state by the newest checkpoint that is sound; by the empty state if the log is whole. */
  async rebuild(reason: string, signal: AbortSignal): Promise<Cursor> {
    const { machine, records, logger } = this.#options;
    if (machine.applied.index > 0) logger.warn("the state is replaced by checkpoint and log", { reason });
    for (;;) {
      await records.look(signal);
      const { newest, before } = records;
      for (const record of [newest, before]) {
        if (record !== undefined && (await this.#install(record, signal))) return cursorBehind(record);
      }
      // A checkpoint that was the newest may be gone because there are newer ones.
      if (await records.look(signal)) continue;
      const { beginning } = records;
      if (beginning?.index === 0) {
        await this.#replace(undefined);
        return beginning;
      }
      throw new HeadpondError(
        "corrupt",
        `${newest?.state}: neither this checkpoint nor the one before is sound, and the log behind the older one is all there is: restore a backup into a new store`,
        { details: { file: String(newest?.state), offset: 0 } },
      );
    }
  }

  /** Where a trusted state goes on, or why it cannot. */
  #known(): Cursor | string {
    const { place, machine, records } = this.#options;
    const { index, term } = machine.applied;
    const candidates: (Cursor & { readonly term: number })[] = [];
    const { beginning } = records;
    // Of a log that another journal's precedes the first record is the beginning.
    if (beginning?.index === 0) candidates.push({ ...beginning, term: 0 });
    for (const record of [records.before, records.newest]) {
      if (record !== undefined) candidates.push({ ...cursorBehind(record), term: record.term });
    }
    if (place.position !== undefined && !records.mayBeGone(place.position)) candidates.push(place.position);
    const usable = candidates.filter((candidate) => candidate.index <= index);
    const best = usable.reduce<Position | undefined>(
      (a, b) => (a === undefined || b.index >= a.index ? b : a),
      undefined,
    );
    if (best === undefined) return `it ends at ${index}, before the log begins`;
    if (best.index === index && index > 0 && best.term !== term) {
      return `it has entry ${index} of epoch ${term}, the log has one of epoch ${best.term}`;
    }
    return { epoch: best.epoch, slot: best.slot, index: best.index };
  }

  /** Whether it was sound and is the state now. */
  async #install(record: SharedRecord, signal: AbortSignal): Promise<boolean> {
    const { logger } = this.#options;
    try {
      const checkpoint = await this.#bring(record, signal);
      if (checkpoint === undefined) return false;
      await this.#replace(checkpoint);
      return true;
    } catch (error) {
      if (!isHeadpondError(error, "corrupt")) throw error;
      logger.error("damaged checkpoint", { error: error.message });
      return false;
    }
  }

  async #replace(checkpoint: Checkpoint | undefined): Promise<void> {
    const { place, machine } = this.#options;
    await place.trust.markRebuilding();
    await machine.reset(checkpoint?.path);
    const { index, term } = machine.applied;
    if (checkpoint !== undefined) {
      const { path } = checkpoint;
      if (index !== checkpoint.index || term !== checkpoint.term || machine.digest() !== checkpoint.digest) {
        throw new HeadpondError(
          "corrupt",
          `${path}: the state in it is (${index}, ${term}) with digest ${machine.digest()}, its record says (${checkpoint.index}, ${checkpoint.term}) with ${checkpoint.digest}`,
          { details: { file: path, offset: 0 } },
        );
      }
    }
    await place.trust.markInUse();
  }

  /** The own copy, or a new one. `undefined`: it is not in the store any more. Throws `corrupt`. */
  async #bring(record: SharedRecord, signal: AbortSignal): Promise<Checkpoint | undefined> {
    const { disk, place, objects } = this.#options;
    const { checkpoints } = place;
    const { index, term, digest, bytes, xxh64, state } = record;
    const own = checkpoints.known.find((known) => known.index === index);
    if (own !== undefined) {
      const isSound = own.xxh64 === xxh64 && (await isWhole(checkpoints, own));
      if (isSound) return own;
      await checkpoints.forget(index);
    }
    const path = place.incomingPath;
    const arrived = await objects.repeat(async () => {
      await place.clearIncoming();
      return objects.store.download(state, path, signal);
    }, signal);
    if (arrived === undefined) return undefined;
    const sum = await sumFile(disk, path);
    if (sum.xxh64 !== xxh64 || sum.bytes !== bytes) {
      await place.clearIncoming();
      throw new HeadpondError(
        "corrupt",
        `${state}: offset 0: it has ${sum.bytes} bytes with xxh64 ${sum.xxh64}, its record says ${bytes} with ${xxh64}`,
        { details: { file: state, offset: 0 } },
      );
    }
    await checkpoints.prune();
    return checkpoints.adopt(path, { index, term, digest, bytes, xxh64, configuration: undefined });
  }
}

async function isWhole(
  checkpoints: { readonly verify: (checkpoint: Checkpoint) => Promise<void> },
  own: Checkpoint,
): Promise<boolean> {
  try {
    await checkpoints.verify(own);
    return true;
  } catch (error) {
    if (!isHeadpondError(error, "corrupt")) throw error;
    return false;
  }
}
