/**
 * Where in the segments an entry stands: a mark every so many bytes, from which reading begins. Also follows the log's
 * bounds: the entries that a `truncate` made void leave it here. Pure bookkeeping.
 */

import { KiB } from "../base/units.ts";
import { recordType, type WalRecord } from "./record.ts";
import { type HardState, initialHardState, type SegmentHeader, segmentHeaderBytes } from "./segment.ts";

/** A mark per this many bytes: one read of the log decodes about as much. */
export const markEveryBytes = 256 * KiB;

export type Segment = {
  readonly path: string;
  readonly header: SegmentHeader;
  /** Whether its records are marked, or only its beginning is known. */
  walked: boolean;
  /** Reads under way: such a segment must not be overwritten. */
  readers: number;
};

export type Mark = {
  readonly index: number;
  readonly segment: Segment;
  readonly offset: number;
  /** What the record at `offset` continues. */
  readonly crc: number;
  /** Where the last record under this mark ends. */
  end: number;
};

export class WalIndex {
  /** By index, strictly rising. Each covers the entries from its own up to the next mark's. */
  #marks: Mark[] = [];
  /** The next entry stands apart from the last mark's: behind a truncation. */
  #apart = false;
  /** Lowest index that can be read; `lastIndex + 1` if the log is empty. */
  firstIndex = 1;
  /** Of the entry right before `firstIndex`; 0 if there was none. */
  previousTerm = 0;
  lastIndex = 0;
  /** Of the entry at `lastIndex`. */
  lastTerm = 0;
  hardState: HardState = initialHardState;
  /** Lowest index that a truncation in the current segment made void, 0 if none. */
  lowestVoid = 0;

  /** Goes on in a new segment: its header repeats what is known, or begins a new log. */
  enter(segment: Segment): void {
    const { header } = segment;
    const last = this.#marks.at(-1);
    if (last === undefined || header.fresh) {
      this.#marks = [];
      this.firstIndex = header.firstIndex;
      this.previousTerm = header.previousTerm;
    } else if (!last.segment.walked) {
      last.end = header.previousEnd;
    }
    this.lastIndex = header.firstIndex - 1;
    this.lastTerm = header.previousTerm;
    this.hardState = header.hardState;
    this.lowestVoid = 0;
    this.#push(segment, header.firstIndex, segmentHeaderBytes, header.seed);
  }

  /** Adds the record at `offset`. Returns what is wrong with it, if anything. */
  add(segment: Segment, record: WalRecord, offset: number, previousCrc: number, end: number): string | undefined {
    if (record.type === recordType.entry) {
      if (record.index !== this.lastIndex + 1) return `has index ${record.index}, expected ${this.lastIndex + 1}`;
      if (record.term < this.lastTerm) return `has term ${record.term} after term ${this.lastTerm}`;
      const mark = this.#marks.at(-1);
      if (this.#apart || mark === undefined || offset - mark.offset >= markEveryBytes) {
        this.#push(segment, record.index, offset, previousCrc);
      }
      this.lastIndex = record.index;
      this.lastTerm = record.term;
    } else if (record.type === recordType.hardState) {
      this.hardState = { term: record.term, vote: new Uint8Array(record.payload) };
    } else if (record.type === recordType.truncate) {
      const { index, term } = record;
      if (index > this.lastIndex + 1) return `makes entries from ${index} on void, the log ends at ${this.lastIndex}`;
      if (index < this.firstIndex) {
        // What stood before was cut later, when these entries had been written anew: they are all here.
        this.firstIndex = index;
        this.previousTerm = term;
      }
      this.lowestVoid = this.lowestVoid === 0 ? index : Math.min(this.lowestVoid, index);
      while ((this.#marks.at(-1)?.index ?? 0) >= index) this.#marks.pop();
      this.lastIndex = index - 1;
      this.lastTerm = term;
      this.#apart = true;
      return undefined;
    }
    const mark = this.#marks.at(-1);
    if (mark !== undefined && !this.#apart) mark.end = end;
    return undefined;
  }

  /** The mark to read from to find `index`, and the first index that stands under another one. */
  locate(index: number): { readonly mark: Mark; readonly until: number } | undefined {
    if (index < this.firstIndex || index > this.lastIndex) return undefined;
    let low = 0;
    let high = this.#marks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#marks[middle] as Mark).index <= index) low = middle + 1;
      else high = middle;
    }
    const mark = this.#marks[low - 1];
    if (mark === undefined) return undefined;
    return { mark, until: this.#marks[low]?.index ?? this.lastIndex + 1 };
  }

  /** Replaces the single mark of a segment that had not been walked. */
  refine(coarse: Mark, fine: readonly Mark[]): void {
    const at = this.#marks.indexOf(coarse);
    const until = this.#marks[at + 1]?.index ?? this.lastIndex + 1;
    if (at >= 0 && fine.length > 0) this.#marks.splice(at, 1, ...fine.filter((mark) => mark.index < until));
    coarse.segment.walked = true;
  }

  /** Forgets what stands before `segment`. */
  cutBefore(segment: Segment): void {
    const keep = this.#marks.findIndex((mark) => mark.segment.header.sequence >= segment.header.sequence);
    this.#marks = keep < 0 ? [] : this.#marks.slice(keep);
    this.firstIndex = segment.header.firstIndex;
    this.previousTerm = segment.header.previousTerm;
  }

  #push(segment: Segment, index: number, offset: number, crc: number): void {
    while ((this.#marks.at(-1)?.index ?? 0) >= index) this.#marks.pop();
    this.#marks.push({ index, segment, offset, crc, end: offset });
    this.#apart = false;
  }
}
