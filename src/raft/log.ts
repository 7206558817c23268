/**
 * The log as consensus sees it: the durable part behind `LogStorage`, and the tail in memory that has not reached the
 * disk. Several writes may be under way; each has a token, and they end in order.
 *
 * Promises: `stableIndex` never counts an entry whose latest write has not ended, also if the same entry was written,
 * overwritten and written again (each truncation shortens what earlier tokens stand for). Nothing at or below `commit`
 * is ever overwritten: an attempt ends the process.
 */

import { assert, present } from "../base/assert.ts";
import { checkPosition, type Entry, entryBytes, type LogStorage } from "./types.ts";

export class RaftLog {
  readonly #storage: LogStorage;
  /** Entries from `#offset` on; what the storage has from there on is void. */
  #tail: Entry[] = [];
  #tailBytes = 0;
  #offset: number;
  /** Highest index handed out to be written. */
  #takenIndex: number;
  #truncateFrom: number | undefined;
  readonly #writes: { readonly token: number; lastIndex: number }[] = [];
  #commit: number;
  /** Handed out to be applied; applied <= applying <= min(commit, stableIndex). */
  #applying: number;
  #applied: number;

  constructor(storage: LogStorage, appliedIndex: number) {
    this.#storage = storage;
    this.#offset = storage.lastIndex + 1;
    this.#takenIndex = storage.lastIndex;
    assert(appliedIndex <= storage.lastIndex, `applied ${appliedIndex} of a log that ends at ${storage.lastIndex}`);
    assert(
      appliedIndex >= storage.firstIndex - 1,
      `entries behind ${appliedIndex} are cut, from ${storage.firstIndex}`,
    );
    this.#commit = appliedIndex;
    this.#applying = appliedIndex;
    this.#applied = appliedIndex;
  }

  get firstIndex(): number {
    return this.#storage.firstIndex;
  }

  get lastIndex(): number {
    return this.#offset + this.#tail.length - 1;
  }

  get lastTerm(): number {
    return present(this.term(this.lastIndex), "the last entry has a term");
  }

  /** Highest index that is durable here. */
  get stableIndex(): number {
    return this.#offset - 1;
  }

  /** Bytes of the tail that waits for the disk. */
  get unstableBytes(): number {
    return this.#tailBytes;
  }

  /** Highest index known to be durable on a quorum. */
  get commit(): number {
    return this.#commit;
  }

  get applied(): number {
    return this.#applied;
  }

  /** `undefined` if there is no such entry or it was cut. */
  term(index: number): number | undefined {
    if (index >= this.#offset) return this.#tail[index - this.#offset]?.term;
    return this.#storage.term(index);
  }

  matches(index: number, term: number): boolean {
    return this.term(index) === term;
  }

  /** Whether a log that ends so holds at least what this one does. */
  isUpToDate(lastIndex: number, lastTerm: number): boolean {
    return lastTerm > this.lastTerm || (lastTerm === this.lastTerm && lastIndex >= this.lastIndex);
  }

  /** The last entry up to `index` whose term is at most `term`: terms only rise, so no later one can be shared. */
  lastOfTerm(index: number, term: number): { readonly index: number; readonly term: number } {
    let low = Math.max(0, this.firstIndex - 1);
    let high = Math.min(index, this.lastIndex);
    if (high < low) return { index: high, term: 0 };
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((this.term(middle) ?? 0) <= term) low = middle;
      else high = middle - 1;
    }
    return { index: low, term: this.term(low) ?? 0 };
  }

  /** Adds entries at the end. */
  append(entries: readonly Entry[]): void {
    for (const entry of entries) {
      assert(entry.index === this.lastIndex + 1, () => `entry ${entry.index} follows ${this.lastIndex}`);
      this.#tail.push(entry);
      this.#tailBytes += entryBytes(entry);
    }
  }

  /** Takes over a leader's entries that continue a shared one. Returns what is new, and where the old ended if it conflicts. */
  merge(entries: readonly Entry[]): { readonly added: readonly Entry[]; readonly truncatedFrom: number | undefined } {
    const at = entries.findIndex(({ index, term }) => !this.matches(index, term));
    if (at < 0) return { added: [], truncatedFrom: undefined };
    const added = entries.slice(at);
    const from = present(added[0], "not empty").index;
    const truncatedFrom = from <= this.lastIndex ? from : undefined;
    if (truncatedFrom !== undefined) this.#truncate(truncatedFrom);
    this.append(added);
    return { added, truncatedFrom };
  }

  /** From `first` on, at least one if there is any, else as many as fit. */
  slice(first: number, maxBytes: number): readonly Entry[] | "compacted" | "loading" {
    if (first > this.lastIndex) return [];
    if (first < this.firstIndex) return "compacted";
    if (first < this.#offset) return this.#storage.entries(first, this.#offset, maxBytes);
    let end = first - this.#offset;
    for (let bytes = 0; end < this.#tail.length; end++) {
      bytes += entryBytes(this.#tail[end] as Entry);
      if (bytes > maxBytes && end > first - this.#offset) break;
    }
    return this.#tail.slice(first - this.#offset, end);
  }

  commitTo(index: number): void {
    checkPosition(index, "commit");
    if (index <= this.#commit) return;
    assert(
      index <= this.lastIndex,
      () => `entry ${index} is committed, but this log, which acknowledged it, ends at ${this.lastIndex}`,
    );
    this.#commit = index;
  }

  /** What may be applied and was not handed out yet. */
  takeCommitted(maxBytes: number): readonly Entry[] {
    const end = Math.min(this.#commit, this.stableIndex);
    if (this.#applying >= end || this.#applying > this.#applied) return [];
    const entries = this.#storage.entries(this.#applying + 1, end + 1, maxBytes);
    assert(entries !== "compacted", () => `entry ${this.#applying + 1} was cut before it was applied`);
    if (entries === "loading") return [];
    this.#applying = present(entries.at(-1), "a storage gives at least one entry").index;
    return entries;
  }

  appliedTo(index: number): void {
    assert(
      index > this.#applied && index <= this.#applying,
      () => `applied ${index}, but up to ${this.#applying} was handed out`,
    );
    this.#applied = index;
  }

  get hasUnwritten(): boolean {
    return this.#takenIndex < this.lastIndex || this.#truncateFrom !== undefined;
  }

  /** What has to be written next, as the write `token`. */
  takeUnwritten(token: number): { readonly truncateFrom: number | undefined; readonly entries: readonly Entry[] } {
    const entries = this.#tail.slice(this.#takenIndex + 1 - this.#offset);
    const truncateFrom = this.#truncateFrom;
    this.#takenIndex = this.lastIndex;
    this.#truncateFrom = undefined;
    this.#writes.push({ token, lastIndex: this.lastIndex });
    return { truncateFrom, entries };
  }

  /** The write `token` and all before it have ended. */
  written(token: number): void {
    let stable = this.stableIndex;
    while (this.#writes[0] !== undefined && this.#writes[0].token <= token) {
      stable = Math.max(stable, (this.#writes.shift() as { lastIndex: number }).lastIndex);
    }
    const done = this.#tail.splice(0, stable + 1 - this.#offset);
    for (const entry of done) this.#tailBytes -= entryBytes(entry);
    this.#offset = stable + 1;
  }

  /** The storage now begins behind a snapshot and holds nothing else. */
  restore(index: number): void {
    assert(
      this.#storage.lastIndex === index && this.#storage.firstIndex === index + 1,
      `the log was not restarted at ${index}`,
    );
    this.#tail = [];
    this.#tailBytes = 0;
    this.#offset = index + 1;
    this.#takenIndex = index;
    this.#truncateFrom = undefined;
    for (const write of this.#writes) write.lastIndex = Math.min(write.lastIndex, index);
    this.#commit = index;
    this.#applying = index;
    this.#applied = index;
  }

  #truncate(from: number): void {
    assert(from > this.#commit, `entry ${from} conflicts with a leader's, but up to ${this.#commit} is committed`);
    if (from <= this.#takenIndex) {
      this.#truncateFrom = Math.min(from, this.#truncateFrom ?? from);
      this.#takenIndex = from - 1;
    }
    for (const write of this.#writes) write.lastIndex = Math.min(write.lastIndex, from - 1);
    if (from <= this.#offset) {
      this.#tail = [];
      this.#tailBytes = 0;
      this.#offset = from;
    } else {
      for (const entry of this.#tail.splice(from - this.#offset)) this.#tailBytes -= entryBytes(entry);
    }
  }
}
