/**
 * Makes the writes of the consensus core durable, in their order: while one flush is under way others gather, and the
 * next flush takes all of them. A full disk is waited out; the first failed write or flush ends the log's life (wal.ts).
 */

import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { AppendWork, Entry, HardState } from "../raft/types.ts";
import { isEntryType, recordType, type WalRecord } from "./record.ts";
import type { HardState as RecordedHardState } from "./segment.ts";
import type { Wal } from "./wal.ts";

export type RaftWriterOptions = {
  readonly wal: Wal;
  readonly clock: Clock;
  /** After a full disk: how long until the next attempt. */
  readonly retryMs: number;
  /** These are durable, with all before them. */
  readonly onWritten: (works: readonly AppendWork[], durationMs: number) => void;
  readonly onFatal: (error: HeadpondError) => void;
  /** The disk has just turned out to be full. */
  readonly onNoSpace: () => void;
};

const noBytes = new Uint8Array(0);

export class RaftWriter {
  readonly #options: RaftWriterOptions;
  readonly #end = new AbortController();
  #queue: AppendWork[] = [];
  #running: Promise<void> | undefined;
  #noSpace: HeadpondError | undefined;
  #held = false;

  constructor(options: RaftWriterOptions) {
    this.#options = options;
  }

  /** Why the disk takes nothing at the moment. */
  get noSpace(): HeadpondError | undefined {
    return this.#noSpace;
  }

  get isIdle(): boolean {
    return this.#running === undefined;
  }

  /** Begins at once if nothing is under way. */
  write(work: AppendWork): void {
    this.#queue.push(work);
    if (!this.#held) this.#running ??= this.#run();
  }

  /** Runs `task` after all that was given; what is given meanwhile is written afterwards. */
  async pausedFor(task: () => Promise<void>): Promise<void> {
    // Nothing may begin between the last look and the hold, so this is not left to `drained`.
    while (this.#running !== undefined) await this.#running;
    this.#held = true;
    try {
      await task();
    } finally {
      this.#held = false;
      if (this.#queue.length > 0) this.#running ??= this.#run();
    }
  }

  /** Resolves when all that was given is durable, or the log has failed, or this was closed. */
  async drained(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  /** Gives up what waits for a full disk. */
  async close(): Promise<void> {
    this.#end.abort();
    await this.drained();
  }

  async #run(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        const works = this.#queue;
        this.#queue = [];
        if (!(await this.#write(works))) return;
      }
    } catch (error) {
      // The log has told its owner, unless this is a mistake of ours.
      if (this.#options.wal.failure === undefined) this.#options.onFatal(toHeadpondError(error));
    } finally {
      this.#running = undefined;
    }
  }

  /** Whether all of it was written. */
  async #write(works: readonly AppendWork[]): Promise<boolean> {
    const { wal, clock, onWritten } = this.#options;
    const records: WalRecord[] = [];
    /** Number of records up to the end of each work. */
    const ends: number[] = [];
    for (const work of works) {
      pushRecords(records, work, wal);
      ends.push(records.length);
    }
    let reported = 0;
    for (let done = 0; done < records.length; ) {
      const startMs = clock.monotonicMs();
      const count = await this.#append(done === 0 ? records : records.slice(done));
      if (count === undefined) return false;
      done += count;
      const from = reported;
      while (reported < ends.length && (ends[reported] as number) <= done) reported++;
      if (reported > from) onWritten(works.slice(from, reported), clock.monotonicMs() - startMs);
    }
    return true;
  }

  /** How many records are durable now; `undefined`: closed before there was room. */
  async #append(records: readonly WalRecord[]): Promise<number | undefined> {
    const { wal, clock, retryMs, onNoSpace } = this.#options;
    for (;;) {
      try {
        const count = await wal.append(records);
        this.#noSpace = undefined;
        return count;
      } catch (error) {
        if (!isHeadpondError(error, "no-space")) throw error;
        const isNews = this.#noSpace === undefined;
        this.#noSpace = error;
        if (isNews) onNoSpace();
        try {
          await clock.sleep(retryMs, this.#end.signal);
        } catch {
          return undefined;
        }
      }
    }
  }
}

function pushRecords(records: WalRecord[], { hardState, truncateFrom, entries }: AppendWork, wal: Wal): void {
  if (hardState !== undefined) {
    const payload = hardState.vote === undefined ? noBytes : new TextEncoder().encode(hardState.vote);
    records.push({ type: recordType.hardState, index: wal.lastIndex + 1, term: hardState.term, payload });
  }
  if (truncateFrom !== undefined) {
    const term = termBefore(records, truncateFrom) ?? wal.term(truncateFrom - 1) ?? 0;
    records.push({ type: recordType.truncate, index: truncateFrom, term, payload: noBytes });
  }
  for (const entry of entries) records.push(toRecord(entry));
}

/** Of the entry before a truncation, if that is among what is written just now: what the log has there is void then. */
function termBefore(records: readonly WalRecord[], index: number): number | undefined {
  return records.findLast((record) => record.index === index - 1 && isEntryType(record.type))?.term;
}

function toRecord({ index, term, kind, payload }: Entry): WalRecord {
  return { type: kind === "command" ? recordType.entry : recordType.configuration, index, term, payload };
}

export function toHardState({ term, vote }: RecordedHardState): HardState {
  return { term, vote: vote.length === 0 ? undefined : new TextDecoder().decode(vote) };
}

/** Throws `invalid`: the log keeps the name of whom a member voted for. */
export function checkNodeId(id: string): void {
  const bytes = new TextEncoder().encode(id).length;
  if (bytes === 0 || bytes > 63) {
    throw new HeadpondError("invalid", `a master's id has between 1 and 63 bytes, "${id}" has ${bytes}`);
  }
}
