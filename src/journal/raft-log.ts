/**
 * The log as the consensus core reads it: the WAL, with its newest part in memory. Terms are answered for the whole log;
 * entries that have left the memory are read from the disk on demand, and the core asks again when they are there.
 *
 * It shows what was acknowledged to the core and nothing newer: `wrote` is called before `Raft.appended`. Writing is
 * `raft-writer.ts`.
 */

import { assert } from "../base/assert.ts";
import type { HeadpondError } from "../base/errors.ts";
import { isHeadpondError, toHeadpondError } from "../base/errors.ts";
import { type AppendWork, type Entry, entryBytes, type LogStorage, type SnapshotPoint } from "../raft/types.ts";
import { recordType, type WalRecord } from "./record.ts";
import type { Wal } from "./wal.ts";

/** Pieces of the log that were read from the disk and are kept: several followers that are behind need one each. */
const loadedPieces = 8;

export type RaftLogOptions = {
  readonly wal: Wal;
  /** Of the newest entries, beyond which they are read from the disk. */
  readonly memoryBytes: number;
  readonly snapshot: () => SnapshotPoint | undefined;
  /** What was `loading` is there. */
  readonly onLoaded: () => void;
  /** The log could not be read. */
  readonly onFatal: (error: HeadpondError) => void;
};

type Piece = { readonly first: number; readonly entries: readonly Entry[] };

export class RaftLogStorage implements LogStorage {
  readonly #options: RaftLogOptions;
  readonly #wal: Wal;
  /** As acknowledged. */
  #lastIndex: number;
  /** The newest entries: from `#memoryFirst` to `#lastIndex`, behind `#dead` that are not counted any more. */
  #memory: Entry[] = [];
  #dead = 0;
  #memoryFirst: number;
  #memoryBytes = 0;
  #pieces: Piece[] = [];
  readonly #loading = new Set<number>();
  /** Counts the changes that make what is being read void. */
  #generation = 0;

  constructor(options: RaftLogOptions) {
    this.#options = options;
    this.#wal = options.wal;
    this.#lastIndex = options.wal.lastIndex;
    this.#memoryFirst = this.#lastIndex + 1;
  }

  get firstIndex(): number {
    return this.#wal.firstIndex;
  }

  get lastIndex(): number {
    return this.#lastIndex;
  }

  get snapshot(): SnapshotPoint | undefined {
    return this.#options.snapshot();
  }

  term(index: number): number | undefined {
    return this.#wal.term(index);
  }

  entries(first: number, end: number, maxBytes: number): readonly Entry[] | "compacted" | "loading" {
    if (first < this.firstIndex) return "compacted";
    if (first >= this.#memoryFirst) {
      const start = this.#dead + first - this.#memoryFirst;
      return take(this.#memory, start, start + end - first, maxBytes);
    }
    for (const piece of this.#pieces) {
      const at = first - piece.first;
      if (at >= 0 && at < piece.entries.length) {
        return take(piece.entries, at, Math.min(piece.entries.length, at + end - first), maxBytes);
      }
    }
    this.#load(first);
    return "loading";
  }

  /** The writes have ended, in this order; the core is told next. */
  wrote(works: readonly AppendWork[]): void {
    for (const { truncateFrom, entries } of works) {
      if (truncateFrom !== undefined) this.#truncate(truncateFrom);
      for (const entry of entries) {
        this.#memory.push(entry);
        this.#memoryBytes += entryBytes(entry);
      }
      this.#lastIndex += entries.length;
    }
    this.#trim();
  }

  /** The WAL begins anew behind `index`. */
  restarted(index: number): void {
    this.#memory = [];
    this.#dead = 0;
    this.#memoryBytes = 0;
    this.#memoryFirst = index + 1;
    this.#lastIndex = index;
    this.#forgetPieces();
  }

  #truncate(from: number): void {
    assert(from <= this.#lastIndex + 1, `the log is cut from ${from} on, it ends at ${this.#lastIndex}`);
    const keep = Math.max(0, from - this.#memoryFirst);
    for (const entry of this.#memory.splice(this.#dead + keep)) this.#memoryBytes -= entryBytes(entry);
    this.#lastIndex = from - 1;
    this.#memoryFirst = Math.min(this.#memoryFirst, from);
    this.#forgetPieces();
  }

  #trim(): void {
    const { memoryBytes } = this.#options;
    while (this.#memoryBytes > memoryBytes && this.#dead < this.#memory.length) {
      this.#memoryBytes -= entryBytes(this.#memory[this.#dead] as Entry);
      this.#dead++;
      this.#memoryFirst++;
    }
    // Seldom, so that each entry is moved about once.
    if (this.#dead > 1024 && this.#dead * 2 > this.#memory.length) {
      this.#memory = this.#memory.slice(this.#dead);
      this.#dead = 0;
    }
  }

  #forgetPieces(): void {
    this.#generation++;
    this.#pieces = [];
  }

  #load(first: number): void {
    if (this.#loading.has(first)) return;
    this.#loading.add(first);
    const generation = this.#generation;
    const settle = (): void => {
      this.#loading.delete(first);
      this.#options.onLoaded();
    };
    this.#wal.read(first).then(
      (records) => {
        if (generation === this.#generation && records.length > 0) {
          this.#pieces.push({ first, entries: records.map(toEntry) });
          if (this.#pieces.length > loadedPieces) this.#pieces.shift();
        }
        settle();
      },
      (error: unknown) => {
        // Cut meanwhile: the core finds that out by itself.
        if (isHeadpondError(error, "compacted")) settle();
        else this.#options.onFatal(toHeadpondError(error));
      },
    );
  }
}

export function toEntry({ type, index, term, payload }: WalRecord): Entry {
  return { index, term, kind: type === recordType.configuration ? "configuration" : "command", payload };
}

function take(from: readonly Entry[], start: number, end: number, maxBytes: number): readonly Entry[] {
  let at = start;
  for (let bytes = 0; at < end; at++) {
    bytes += entryBytes(from[at] as Entry);
    if (bytes > maxBytes && at > start) break;
  }
  return from.slice(start, at);
}
