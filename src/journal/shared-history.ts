/**
 * Which slot holds which entries, as far back as is remembered: for checkpoints, which are of entries and must name a place in the log, and
 * for whoever reads entries again.
 */

import { assert } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import type { Entry } from "./journal.ts";
import { type Cursor, type Place, slotName } from "./shared-names.ts";
import { objectKind } from "./shared-object.ts";
import type { SharedObjects } from "./shared-objects.ts";
import { slotOf } from "./shared-reader.ts";
import { cursorBehind, type SharedRecords } from "./shared-records.ts";

/** `index`: of the last entry before it. */
type Remembered = Cursor & { readonly lastIndex: number; readonly bytes: number };

export type SharedHistoryOptions = {
  readonly objects: SharedObjects;
  readonly records: SharedRecords;
  readonly rememberedSlots: number;
  readonly signal: AbortSignal;
};

export class SharedHistory {
  readonly #options: SharedHistoryOptions;
  /** Before the first remembered slot. */
  #base: Cursor = { epoch: 1, slot: 1, index: 0 };
  #slots: Remembered[] = [];
  #bytes = 0;

  constructor(options: SharedHistoryOptions) {
    this.#options = options;
  }

  /** Of remembered slots. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The state begins anew here. */
  restart(base: Cursor): void {
    this.#base = base;
    this.#slots = [];
    this.#bytes = 0;
  }

  add(slot: Cursor & { readonly entries: readonly Entry[] }, bytes: number): void {
    const { epoch, slot: number, index, entries } = slot;
    this.#slots.push({ epoch, slot: number, index, lastIndex: index + entries.length, bytes });
    this.#bytes += bytes;
    if (this.#slots.length > this.#options.rememberedSlots) this.#drop(this.#slots.length >> 1);
  }

  /** Entries up to here are in a checkpoint before the newest. */
  cut(index: number): void {
    const kept = this.#slots.findIndex(({ lastIndex }) => lastIndex > index);
    this.#drop(kept < 0 ? this.#slots.length : kept);
  }

  /** The last slot that a state at `index` holds as a whole. */
  placeOf(index: number): Place {
    const at = this.#find(index);
    if (at === undefined) {
      assert(index >= this.#base.index, () => `entry ${index} is before what is remembered, ${this.#base.index}`);
      return { epoch: this.#base.epoch, slot: this.#base.slot - 1 };
    }
    return { epoch: at.epoch, slot: at.lastIndex === index ? at.slot : at.slot - 1 };
  }

  /** Some entries from `fromIndex` on. They must be there. Throws `compacted`. */
  async read(fromIndex: number): Promise<readonly Entry[]> {
    const { objects, records, signal } = this.#options;
    const remembered = this.#find(fromIndex);
    let cursor = remembered === undefined ? this.#cursorBefore(fromIndex) : remembered;
    for (;;) {
      const content = await objects.read(slotName(cursor), signal);
      await records.look(signal);
      if (content === undefined || records.mayBeGone(cursor))
        throw compacted(fromIndex, records.before?.index ?? records.beginning?.index ?? 0);
      if (content.kind === objectKind.seal) {
        cursor = { epoch: cursor.epoch + 1, slot: 1, index: cursor.index };
        continue;
      }
      const { entries } = slotOf(content, cursor);
      const last = (entries.at(-1) as Entry).index;
      if (last >= fromIndex) return entries.filter(({ index }) => index >= fromIndex);
      cursor = { epoch: cursor.epoch, slot: cursor.slot + 1, index: last };
    }
  }

  /** Where to begin looking for an entry that is not remembered. */
  #cursorBefore(fromIndex: number): Cursor {
    const { newest, before, beginning } = this.#options.records;
    if (newest !== undefined && newest.index < fromIndex) return cursorBehind(newest);
    if (beginning !== undefined && beginning.index < fromIndex) return beginning;
    if (before !== undefined && before.index < fromIndex) return cursorBehind(before);
    throw compacted(fromIndex, before?.index ?? beginning?.index ?? 0);
  }

  #find(index: number): Remembered | undefined {
    const slots = this.#slots;
    let low = 0;
    for (let high = slots.length; low < high; ) {
      const middle = (low + high) >> 1;
      if ((slots[middle] as Remembered).lastIndex < index) low = middle + 1;
      else high = middle;
    }
    const found = slots[low];
    return found !== undefined && found.index < index ? found : undefined;
  }

  #drop(count: number): void {
    const dropped = this.#slots.splice(0, count);
    const last = dropped.at(-1);
    if (last === undefined) return;
    for (const { bytes } of dropped) this.#bytes -= bytes;
    this.#base = { epoch: last.epoch, slot: last.slot + 1, index: last.lastIndex };
  }
}

function compacted(index: number, cutIndex: number): HeadpondError {
  return new HeadpondError(
    "compacted",
    `entry ${index} was cut from the log, which begins at ${cutIndex + 1}: begin with a checkpoint`,
  );
}
