/**
 * The records of checkpoints in shared storage. They are never removed: whoever knows one finds all later ones by reading name after name,
 * and so knows for certain what garbage collection may have taken away. Listings are hints where to begin.
 */

import { HeadpondError } from "../base/errors.ts";
import { type Cursor, checkpointsPrefix, isAtOrBefore, numberOf, type Place, recordName } from "./shared-names.ts";
import { countIn, objectKind, type SharedObjectContent, textIn } from "./shared-object.ts";
import type { SharedObjects } from "./shared-objects.ts";

const listedAtOnce = 1000;

export type SharedRecord = {
  readonly number: number;
  /** The state holds all slots up to here, and of the next one what is up to `index`. */
  readonly upTo: Place;
  readonly index: number;
  readonly term: number;
  readonly digest: string;
  readonly bytes: number;
  readonly xxh64: string;
  /** Name of the object with the state. */
  readonly state: string;
  /** Whose. */
  readonly id: string;
  readonly createdMs: number;
  /** The log begins here: it goes on where another journal ended (docs/migration.md). Only of the first record. */
  readonly begins?: boolean;
};

export class SharedRecords {
  readonly #objects: SharedObjects;
  #newest: SharedRecord | undefined;
  #before: SharedRecord | undefined;
  #looked = 0;

  constructor(objects: SharedObjects) {
    this.#objects = objects;
  }

  /** As of the last look. */
  get newest(): SharedRecord | undefined {
    return this.#newest;
  }

  /** The one before the newest: what it covers may be gone. */
  get before(): SharedRecord | undefined {
    return this.#before;
  }

  /** Where the log begins, as long as nothing of it was taken away. */
  get beginning(): Cursor | undefined {
    if (this.#before !== undefined) return undefined;
    return this.#newest?.begins === true ? cursorBehind(this.#newest) : { epoch: 1, slot: 1, index: 0 };
  }

  /** Finds the newest from scratch. */
  async open(signal: AbortSignal): Promise<void> {
    const objects = this.#objects;
    let hint = 0;
    for (;;) {
      const after = hint;
      const page = await objects.repeat(
        () => objects.store.list(checkpointsPrefix, after === 0 ? "" : recordName(after), listedAtOnce, signal),
        signal,
      );
      for (const { name } of page) hint = Math.max(hint, numberOf(name) ?? 0);
      if (page.length === 0 || hint === after) break;
    }
    // The two newest are wanted; one more, should a hint be of something that is not there yet.
    this.#looked = Math.max(0, hint - 3);
    if (this.#looked > 0 && (await this.#read(this.#looked, signal)) === undefined) this.#looked = 0;
    await this.look(signal);
  }

  /** Reads what came behind the last known one. Whether something did. */
  async look(signal: AbortSignal): Promise<boolean> {
    for (let found = false; ; found = true) {
      const number = this.#looked + 1;
      const record = await this.#read(number, signal);
      if (record === undefined) return found;
      // Several may look at once.
      if (this.#looked >= number) continue;
      this.#looked = number;
      if (this.#newest !== undefined && !coversMore(record, this.#newest)) continue;
      this.#before = this.#newest;
      this.#newest = record;
    }
  }

  /** Whether the place may have been taken away by garbage collection, as of the last look. */
  mayBeGone(place: Place): boolean {
    return this.#before !== undefined && isAtOrBefore(place, this.#before.upTo);
  }

  /** Whether it counts now. False: another one came before, or covers as much. Durable when it resolves. */
  async add(about: Omit<SharedRecord, "number">, mark: string, signal: AbortSignal): Promise<SharedRecord | undefined> {
    await this.look(signal);
    if (this.#newest !== undefined && !coversMore(about, this.#newest)) return undefined;
    const number = this.#looked + 1;
    const name = recordName(number);
    const { upTo, ...fields } = about;
    const bytes = this.#objects.encode(objectKind.checkpoint, name, mark, { ...fields, ...upTo });
    const created = await this.#objects.create(name, bytes, mark, signal);
    await this.look(signal);
    return created.own ? { number, ...about } : undefined;
  }

  async #read(number: number, signal: AbortSignal): Promise<SharedRecord | undefined> {
    const name = recordName(number);
    const found = await this.#objects.read(name, signal);
    return found === undefined ? undefined : recordOf(name, number, found);
  }
}

/** Where a reader of the log goes on behind it. Entries up to `index` are in the state already. */
export function cursorBehind({ upTo, index }: Pick<SharedRecord, "upTo" | "index">): Cursor {
  return { epoch: upTo.epoch, slot: upTo.slot + 1, index };
}

/** Throws `corrupt`. */
export function recordOf(name: string, number: number, { kind, head }: SharedObjectContent): SharedRecord {
  if (kind !== objectKind.checkpoint) {
    throw new HeadpondError("corrupt", `${name}: offset 5: it is of kind ${kind}, no record of a checkpoint`, {
      details: { file: name, offset: 5 },
    });
  }
  const count = (field: string): number => countIn(head, field, name);
  const text = (field: string): string => textIn(head, field, name);
  return {
    number,
    upTo: { epoch: count("epoch"), slot: count("slot") },
    index: count("index"),
    term: count("term"),
    digest: text("digest"),
    bytes: count("bytes"),
    xxh64: text("xxh64"),
    state: text("state"),
    id: text("id"),
    createdMs: count("createdMs"),
    ...(head["begins"] === true ? { begins: true } : {}),
  };
}

function coversMore(a: Pick<SharedRecord, "upTo" | "index">, b: Pick<SharedRecord, "upTo" | "index">): boolean {
  return a.index > b.index && isAtOrBefore(b.upTo, a.upTo);
}
