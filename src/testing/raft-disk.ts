/**
 * The disk under a consensus core in tests: a durable log with hard state and checkpoint, and the queue of writes that
 * have not reached it. One flush at a time, which takes all that queued up, in order; a crash keeps a prefix of the
 * records of the flush under way and nothing of what waited.
 */

import { assert, present } from "../base/assert.ts";
import type { Random } from "../base/random.ts";
import { decodeConfiguration } from "../raft/membership.ts";
import {
  type AppendWork,
  type Configuration,
  type Entry,
  entryBytes,
  type HardState,
  type LoggedConfiguration,
  type LogStorage,
  type SnapshotPoint,
} from "../raft/types.ts";

/** A checkpoint: where it is, and the state that it holds. */
export type Checkpoint = { readonly point: SnapshotPoint; readonly state: number };

type Write = AppendWork | { readonly install: Checkpoint };

export type Flushed = { readonly token: number | undefined; readonly installed: Checkpoint | undefined };

export class RaftDisk implements LogStorage {
  #hardState: HardState = { term: 0, vote: undefined };
  #entries: Entry[] = [];
  /** The log begins behind it. */
  #base: { readonly index: number; readonly term: number } = { index: 0, term: 0 };
  #checkpoint: Checkpoint;
  #queue: Write[] = [];
  #flushing: Write[] = [];

  constructor(format: Configuration) {
    this.#checkpoint = { point: { index: 0, term: 0, configuration: format }, state: 0 };
  }

  get hardState(): HardState {
    return this.#hardState;
  }

  get checkpoint(): Checkpoint {
    return this.#checkpoint;
  }

  get firstIndex(): number {
    return this.#base.index + 1;
  }

  get lastIndex(): number {
    return this.#base.index + this.#entries.length;
  }

  get snapshot(): SnapshotPoint | undefined {
    return this.#checkpoint.point.index === 0 ? undefined : this.#checkpoint.point;
  }

  term(index: number): number | undefined {
    return index === this.#base.index ? this.#base.term : this.#entries[index - this.firstIndex]?.term;
  }

  entries(first: number, end: number, maxBytes: number): readonly Entry[] | "compacted" {
    if (first < this.firstIndex) return "compacted";
    const from = first - this.firstIndex;
    let count = 0;
    for (let bytes = 0; first + count < end; count++) {
      bytes += entryBytes(present(this.#entries[from + count], `entry ${first + count} is on the disk`));
      if (bytes > maxBytes && count > 0) break;
    }
    return this.#entries.slice(from, from + count);
  }

  /** Whether entry `term`/`index` is durable here, or behind a checkpoint. */
  holds(index: number, term: number): boolean {
    return index <= this.#base.index || this.term(index) === term;
  }

  /** What a start would find. */
  get configurations(): readonly LoggedConfiguration[] {
    const { point } = this.#checkpoint;
    const inLog = this.#entries
      .filter(({ kind, index }) => kind === "configuration" && index > point.index)
      .map(({ index, payload }) => ({ index, configuration: decodeConfiguration(payload) }));
    return [{ index: point.index, configuration: point.configuration }, ...inLog];
  }

  get isIdle(): boolean {
    return this.#flushing.length === 0 && this.#queue.length === 0;
  }

  get isFlushing(): boolean {
    return this.#flushing.length > 0;
  }

  write(work: AppendWork): void {
    this.#queue.push(work);
  }

  install(checkpoint: Checkpoint): void {
    this.#queue.push({ install: checkpoint });
  }

  /** Begins to flush what is queued: all up to a snapshot, or a snapshot alone. Whether there is anything. */
  beginFlush(): boolean {
    assert(!this.isFlushing, "one flush at a time");
    const at = this.#queue.findIndex((write) => "install" in write);
    this.#flushing = this.#queue.splice(0, at < 0 ? this.#queue.length : Math.max(1, at));
    return this.isFlushing;
  }

  endFlush(): Flushed {
    const last = this.#flushing.at(-1);
    for (const write of this.#flushing) this.#perform(write);
    this.#flushing = [];
    if (last === undefined) return { token: undefined, installed: undefined };
    return "install" in last
      ? { token: undefined, installed: last.install }
      : { token: last.token, installed: undefined };
  }

  /** The power goes out: of the records under way, the first `random` few are there. */
  crash(random: Random): void {
    const records: (() => void)[] = [];
    for (const write of this.#flushing) {
      if ("install" in write) {
        records.push(() => this.#perform(write));
        continue;
      }
      const { hardState, truncateFrom } = write;
      const nothing = { token: write.token, hardState: undefined, truncateFrom: undefined, entries: [] };
      if (hardState !== undefined) records.push(() => this.#perform({ ...nothing, hardState }));
      if (truncateFrom !== undefined) records.push(() => this.#perform({ ...nothing, truncateFrom }));
      for (const entry of write.entries) records.push(() => this.#perform({ ...nothing, entries: [entry] }));
    }
    for (const record of records.slice(0, random.between(0, records.length))) record();
    this.#flushing = [];
    this.#queue = [];
  }

  /** Keeps the state as of `checkpoint`, so that entries up to `cutIndex` can go. */
  save(checkpoint: Checkpoint, cutIndex: number): void {
    assert(checkpoint.point.index >= this.#checkpoint.point.index, "checkpoints only move on");
    this.#checkpoint = checkpoint;
    const cut = Math.min(cutIndex, checkpoint.point.index, this.lastIndex);
    if (cut <= this.#base.index) return;
    const term = present(this.term(cut), "what is cut is there");
    this.#entries = this.#entries.slice(cut - this.#base.index);
    this.#base = { index: cut, term };
  }

  #perform(write: Write): void {
    if ("install" in write) {
      this.#checkpoint = write.install;
      this.#base = write.install.point;
      this.#entries = [];
      return;
    }
    const { hardState, truncateFrom, entries } = write;
    if (hardState !== undefined) this.#hardState = hardState;
    if (truncateFrom !== undefined) this.#entries.length = Math.max(0, truncateFrom - this.firstIndex);
    for (const entry of entries) {
      assert(entry.index === this.lastIndex + 1, `entry ${entry.index} is written behind ${this.lastIndex}`);
      this.#entries.push(entry);
    }
  }
}
