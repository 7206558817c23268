/**
 * Where in the segments an entry stands: a mark every so many bytes, from which reading begins. Also follows the log's
 * bounds: the entries that a `truncate` made void leave it here. Pure bookkeeping.
 */

import { KiB } from "../base/units.ts";
import { isEntryType, recordType, type WalRecord } from "./record.ts";
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
  /** The terms of the log: each begins at an index and lasts up to the next. Rising in both. */
  #terms: { readonly fromIndex: number; readonly term: number }[] = [];
  /** Memberships among the walked entries, by rising index. */
  #configurations: { readonly index: number; readonly payload: Uint8Array }[] = [];
  /** Of the newest membership before the first segment. */
  #configurationBase = 0;

  get configurations(): readonly { readonly index: number; readonly payload: Uint8Array }[] {
    return this.#configurations;
  }

  /** Of the newest membership in the log, also when it has been cut; 0 if there was none. */
  get configurationIndex(): number {
    return this.#configurations.at(-1)?.index ?? this.#configurationBase;
  }

  /** Goes on in a new segment: its header repeats what is known, or begins a new log. */
  enter(segment: Segment): void {
    const { header } = segment;
    const last = this.#marks.at(-1);
    if (last === undefined || header.fresh) {
      this.#marks = [];
      this.#terms = [];
      this.#configurations = [];
      this.#configurationBase = header.configurationIndex ?? 0;
      this.firstIndex = header.firstIndex;
      this.previousTerm = header.previousTerm;
    } else if (!last.segment.walked) {
      last.end = header.previousEnd;
    }
    this.lastIndex = header.firstIndex - 1;
    this.lastTerm = header.previousTerm;
    this.#noteTerm(this.lastIndex, this.lastTerm);
    this.hardState = header.hardState;
    this.lowestVoid = 0;
    this.#push(segment, header.firstIndex, segmentHeaderBytes, header.seed);
  }

  /** Adds the record at `offset`. Returns what is wrong with it, if anything. */
  add(segment: Segment, record: WalRecord, offset: number, previousCrc: number, end: number): string | undefined {
    if (isEntryType(record.type)) {
      if (record.index !== this.lastIndex + 1) return `has index ${record.index}, expected ${this.lastIndex + 1}`;
      if (record.term < this.lastTerm) return `has term ${record.term} after term ${this.lastTerm}`;
      const mark = this.#marks.at(-1);
      if (this.#apart || mark === undefined || offset - mark.offset >= markEveryBytes) {
        this.#push(segment, record.index, offset, previousCrc);
      }
      this.lastIndex = record.index;
      if (record.term !== this.lastTerm) this.#noteTerm(record.index, record.term);
      this.lastTerm = record.term;
      if (record.type === recordType.configuration) {
        this.#configurations.push({ index: record.index, payload: new Uint8Array(record.payload) });
      }
    } else if (record.type === recordType.hardState) {
      this.hardState = { term: record.term, vote: new Uint8Array(record.payload) };
    } else if (record.type === recordType.truncate) {
      const { index, term } = record;
      if (index > this.lastIndex + 1) return `makes entries from ${index} on void, the log ends at ${this.lastIndex}`;
      if (index < this.firstIndex) {
        // What stood before was cut later, when these entries had been written anew: they are all here.
        this.firstIndex = index;
        this.previousTerm = term;
        this.#terms = [];
      }
      this.lowestVoid = this.lowestVoid === 0 ? index : Math.min(this.lowestVoid, index);
      while ((this.#marks.at(-1)?.index ?? 0) >= index) this.#marks.pop();
      while ((this.#terms.at(-1)?.fromIndex ?? 0) >= index) this.#terms.pop();
      while ((this.#configurations.at(-1)?.index ?? 0) >= index) this.#configurations.pop();
      this.lastIndex = index - 1;
      this.lastTerm = term;
      this.#noteTerm(this.lastIndex, term);
      this.#apart = true;
      return undefined;
    }
    const mark = this.#marks.at(-1);
    if (mark !== undefined && !this.#apart) mark.end = end;
    return undefined;
  }

  /**
   * Of an entry, or of the one right before the first. Of segments that were not walked only the last entry's is right, unless the log was
   * opened for its terms: then those in which the term changes were walked.
   */
  term(index: number): number | undefined {
    if (index < this.firstIndex - 1 || index > this.lastIndex) return undefined;
    if (index === this.lastIndex) return this.lastTerm;
    let low = 0;
    let high = this.#terms.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#terms[middle]?.fromIndex ?? 0) <= index) low = middle + 1;
      else high = middle;
    }
    return this.#terms[low - 1]?.term;
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
    // What the header says was true when it was written; a truncation may have come since.
    this.previousTerm = this.term(this.firstIndex - 1) ?? segment.header.previousTerm;
    while ((this.#terms[1]?.fromIndex ?? this.firstIndex) < this.firstIndex) this.#terms.shift();
  }

  #noteTerm(fromIndex: number, term: number): void {
    if (this.#terms.at(-1)?.term !== term) this.#terms.push({ fromIndex, term });
  }

  #push(segment: Segment, index: number, offset: number, crc: number): void {
    while ((this.#marks.at(-1)?.index ?? 0) >= index) this.#marks.pop();
    this.#marks.push({ index, segment, offset, crc, end: offset });
    this.#apart = false;
  }
}
