/**
 * Reads the shared log slot by slot. What it returns is the log: it has looked at the checkpoints after reading, so nothing of it can be
 * the work of a writer of the past in a place that garbage collection had freed (docs/shared-journal.md, rule 3).
 *
 * When several slots were found at once it reads several at once. Whether a slot that is absent ends its epoch is not for readers to say:
 * only a seal does.
 */

import type { Entry } from "./journal.ts";
import { type Cursor, slotName } from "./shared-names.ts";
import { countIn, damaged, decodeEntries, objectKind, type SharedObjectContent } from "./shared-object.ts";
import type { SharedObjects } from "./shared-objects.ts";
import type { SharedRecords } from "./shared-records.ts";

export type SharedSlot = Cursor & {
  /** Behind `index`; the first may be in the state already when a checkpoint ends within a slot. */
  readonly entries: readonly Entry[];
  readonly bytes: number;
  /** Of whom wrote it. */
  readonly mark: string;
};

export type ReadAhead = {
  readonly slots: readonly SharedSlot[];
  /** Where to go on. */
  readonly next: Cursor;
  /** There is nothing at `next`, as of some moment after the call. */
  readonly atEnd: boolean;
};

export type SharedReaderOptions = {
  readonly objects: SharedObjects;
  readonly records: SharedRecords;
  /** Slots that are read at once at most. */
  readonly aheadMax: number;
};

/** What was asked for already, from a place on. */
type Asked = { readonly from: Cursor; readonly contents: Promise<readonly (SharedObjectContent | undefined)[]> };

export class SharedReader {
  readonly #options: SharedReaderOptions;
  #ahead = 1;
  #asked: Asked | undefined;

  constructor(options: SharedReaderOptions) {
    this.#options = options;
  }

  /**
   * What is there from the cursor on, in part. "gone": a checkpoint covers this place and its slots may be removed already, so the way
   * on is by that checkpoint. Throws `corrupt`, `cancelled`.
   */
  async read(from: Cursor, signal: AbortSignal): Promise<ReadAhead | "gone"> {
    const { records, aheadMax } = this.#options;
    const asked = this.#take(from);
    const contents = await (asked ?? this.#ask(from, signal));
    const isWhole = contents.every((content) => content?.kind === objectKind.slot);
    if (isWhole) {
      // Who is behind reads on while it looks at the checkpoints: what comes then is believed only after the next look.
      this.#ahead = Math.min(aheadMax, this.#ahead * 2);
      this.#askBehind(from, contents.length, signal);
    } else this.#ahead = 1;
    await records.look(signal);
    if (records.mayBeGone(from)) return "gone";
    const slots: SharedSlot[] = [];
    let next = from;
    for (const content of contents) {
      // Of what was asked for before this call nothing says that it is absent now.
      if (content === undefined) return { slots, next, atEnd: asked === undefined };
      if (content.kind === objectKind.seal) {
        checkSeal(content, next);
        return { slots, next: { epoch: next.epoch + 1, slot: 1, index: next.index }, atEnd: false };
      }
      const slot = slotOf(content, next);
      slots.push(slot);
      next = { epoch: next.epoch, slot: next.slot + 1, index: slot.entries.at(-1)?.index ?? slot.index };
    }
    return { slots, next, atEnd: false };
  }

  #take(from: Cursor): Asked["contents"] | undefined {
    const asked = this.#asked;
    this.#asked = undefined;
    return asked?.from.epoch === from.epoch && asked.from.slot === from.slot ? asked.contents : undefined;
  }

  #ask({ epoch, slot }: Cursor, signal: AbortSignal): Asked["contents"] {
    const { objects } = this.#options;
    const places = Array.from({ length: this.#ahead }, (_, n) => ({ epoch, slot: slot + n }));
    return Promise.all(places.map((place) => objects.read(slotName(place), signal)));
  }

  #askBehind({ epoch, slot, index }: Cursor, count: number, signal: AbortSignal): void {
    const from = { epoch, slot: slot + count, index };
    const contents = this.#ask(from, signal);
    // Whoever reads on hears of a failure; nobody has to read on.
    contents.catch(() => {});
    this.#asked = { from, contents };
  }
}

/** Entries that are in the state already are left out. Throws `corrupt`. */
export function slotOf(content: SharedObjectContent, at: Cursor): SharedSlot {
  const name = slotName(at);
  if (content.kind !== objectKind.slot) throw damaged(name, 5, `kind ${content.kind} is no slot's`);
  const all = decodeEntries(name, content, at.epoch);
  const firstIndex = countIn(content.head, "firstIndex", name);
  const lastIndex = firstIndex + all.length - 1;
  if (firstIndex > at.index + 1 || lastIndex <= at.index) {
    throw damaged(name, 0, `it holds entries ${firstIndex} to ${lastIndex}, what is before it ends at ${at.index}`);
  }
  const entries = firstIndex === at.index + 1 ? all : all.slice(at.index + 1 - firstIndex);
  return { ...at, entries, bytes: content.body.length, mark: content.head.mark };
}

/** Throws `corrupt` if who sealed knew more or less of the log. */
export function checkSeal({ head }: SharedObjectContent, at: Cursor): void {
  const name = slotName(at);
  const index = countIn(head, "lastIndex", name);
  if (index !== at.index)
    throw damaged(name, 0, `the seal stands behind entry ${index}, what was read ends at ${at.index}`);
}
