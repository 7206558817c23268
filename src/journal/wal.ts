/**
 * The write-ahead log: entries with index and term, Raft's hard state and truncations of the tail, in segments
 * (docs/formats/wal.md). The local journal and the Raft journal write it; both gather a batch while the last one is
 * being flushed.
 *
 * Promises: what `append` resolved is on the disk; what is read back is what was appended, or `corrupt` is thrown. The
 * first failed write or flush ends the log's life: the kernel forgets which pages failed, so a second flush would lie.
 * A full disk is no such failure: it is met before anything is written.
 */

import { assert, present } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { MiB } from "../base/units.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk, DiskFile } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { createFirstSegment, type NewLog } from "./first-segment.ts";
import { encodeSeal, readWal, readWhole, throwFinding, type WalState } from "./read-wal.ts";
import {
  decodeRecord,
  encodeRecord,
  isEntryType,
  recordBuffer,
  recordBytes,
  recordOverheadBytes,
  recordType,
  segmentSalt,
  type WalRecord,
} from "./record.ts";
import {
  encodeSegmentHeader,
  type HardState,
  type SegmentHeader,
  sealBytes,
  segmentHeaderBytes,
  segmentName,
  walkSegment,
} from "./segment.ts";
import { SpareSegments } from "./spare-segments.ts";
import { type Mark, markEveryBytes, type Segment, type WalIndex } from "./wal-index.ts";

export type WalLimits = {
  readonly segmentBytes: number;
  /** One `append` writes at most this much. */
  readonly batchBytes: number;
  /** Recycled segments that wait for use. */
  readonly maxSpares: number;
  /** Free space that new segments do not touch. */
  readonly reserveBytes: number;
  /** At start, records are checked from the newest back until so many bytes; older ones when they are read. */
  readonly walkBytes: number;
};

export const defaultWalLimits: WalLimits = {
  segmentBytes: 64 * MiB,
  batchBytes: 8 * MiB,
  maxSpares: 4,
  reserveBytes: 16 * MiB,
  walkBytes: 64 * MiB,
};

export type WalOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly directory: string;
  readonly clusterId: ClusterId;
  readonly limits: WalLimits;
  /** Terms and memberships of the whole log are wanted: a start also looks into the segments in which they change. */
  readonly needsTerms?: boolean;
  /** Called once, when the log can no longer be trusted: the process should end. */
  readonly onFatal: (error: HeadpondError) => void;
};

export class Wal {
  readonly #options: WalOptions;
  readonly #spares: SpareSegments;
  readonly #index: WalIndex;
  #segments: Segment[];
  #file: DiskFile;
  #offset: number;
  #crc: number;
  /** Encodes batches; free again when a batch is in the page cache. */
  #buffer = recordBuffer(MiB);
  #failure: HeadpondError | undefined;
  #busy = false;
  #closed = false;
  /** The last record is a witness of all before it. */
  #witnessed = true;
  /** Where what is known to be on the disk ends in the current segment: behind it there may be a witness. */
  #durableEnd: number;
  /** Highest index known to be on the disk; `lastIndex` while nothing is being written. */
  #durableIndex: number;

  private constructor(options: WalOptions, spares: SpareSegments, state: WalState, file: DiskFile) {
    this.#options = options;
    this.#spares = spares;
    this.#index = state.index;
    this.#segments = [...state.segments];
    this.#file = file;
    this.#offset = state.tail.offset;
    this.#crc = state.tail.crc;
    this.#durableEnd = this.#offset;
    this.#durableIndex = state.index.lastIndex;
  }

  /** Makes the first segment of a new log in an empty directory; its first entry will be `firstIndex`. */
  static async create(options: NewLog, firstIndex = 1, previousTerm = 0): Promise<void> {
    await createFirstSegment(options, firstIndex, previousTerm);
  }

  /** Recovers the log. Throws `corrupt` naming file, offset and index when anything durable is damaged. */
  static async open(options: WalOptions): Promise<Wal> {
    const { disk, clock, logger, directory, clusterId, limits, needsTerms = false } = options;
    const reading = { disk, directory, clusterId, walkBytes: limits.walkBytes, needsTerms };
    const state = await readWal({ ...reading, onFinding: throwFinding });
    const last = present(state.segments.at(-1), "a sound log has a segment");
    const { segmentBytes } = last.header;
    const spares = new SpareSegments({ disk, clock, logger, directory, segmentBytes, ...limitsOfSpares(limits) });
    if (state.owedSeal !== undefined)
      await writeThrough(disk, state.owedSeal.path, state.owedSeal.bytes, state.owedSeal.offset);
    const file = await disk.open(last.path, "write");
    // Sound records of a torn batch must not come to life behind new ones.
    for (let at = state.tail.offset; at < state.tornEnd; at += MiB) {
      await file.write(new Uint8Array(Math.min(MiB, state.tornEnd - at)), at);
    }
    // What a killed process wrote, maybe just before it went on in the last segment, may be in the page cache only; now it counts as durable.
    await file.datasync();
    const before = state.segments.at(-2);
    if (before !== undefined) await writeThrough(disk, before.path, new Uint8Array(0), 0);
    for (const path of state.voidPaths) await disk.unlink(path);
    await disk.syncDirectory(directory);
    await spares.open();
    return new Wal(options, spares, state, file);
  }

  get firstIndex(): number {
    return this.#index.firstIndex;
  }

  /** Of the durable entries. */
  get lastIndex(): number {
    return this.#durableIndex;
  }

  get lastTerm(): number {
    return this.#index.lastTerm;
  }

  get hardState(): HardState {
    return this.#index.hardState;
  }

  /** Raft's memberships in the walked part of the log, by rising index; all with `needsTerms`. */
  get configurations(): WalIndex["configurations"] {
    return this.#index.configurations;
  }

  /** Term of an entry, or of the one right before the first; without reading, and right where the log was walked, or with `needsTerms`. */
  term(index: number): number | undefined {
    return this.#index.term(index);
  }

  /** Bytes of the segments in use. */
  get bytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.header.segmentBytes, 0);
  }

  /** About how many bytes of log lie behind the entry `index`. */
  bytesBehind(index: number): number {
    const behind = this.#segments.filter((segment) => segment.header.firstIndex > index);
    const whole = behind.reduce((sum, { header }) => sum + header.segmentBytes, 0);
    return behind.length === 0 ? 0 : whole - this.#current.header.segmentBytes + this.#offset;
  }

  get directory(): string {
    return this.#options.directory;
  }

  get failure(): HeadpondError | undefined {
    return this.#failure;
  }

  /** The largest payload that fits a segment and a batch. */
  get maxPayloadBytes(): number {
    const { segmentBytes, batchBytes } = this.#options.limits;
    const ofSegment = (this.#segments.at(-1)?.header.segmentBytes ?? segmentBytes) - segmentHeaderBytes - sealBytes;
    return Math.floor((Math.min(ofSegment, batchBytes) - recordOverheadBytes) / 8) * 8;
  }

  /**
   * Appends records in order and flushes. Returns how many of them are durable now, at least one: a batch ends with
   * its segment or at the limit, and the caller appends the rest next. One call at a time. Throws `no-space` when
   * nothing was written, `unknown-outcome` when it is not known what was.
   */
  async append(records: readonly WalRecord[]): Promise<number> {
    this.#enter();
    try {
      if (records.length === 0) return 0;
      if (!this.#fits(present(records[0], "not empty"))) await this.#roll();
      const count = this.#write(records);
      await this.#file.datasync();
      this.#durableIndex = this.#index.lastIndex;
      this.#durableEnd = this.#offset;
      return count;
    } catch (error) {
      throw this.#fail(error);
    } finally {
      this.#busy = false;
    }
  }

  /**
   * Says in the log that all before is durable, without a flush. Called when the log rests: damage to the last batch
   * could otherwise be taken for a batch that a crash cut short. Does nothing while an `append` is under way.
   */
  witness(): void {
    if (this.#busy || this.#closed || this.#witnessed || this.#failure !== undefined) return;
    const record: WalRecord = {
      type: recordType.mark,
      index: this.#index.lastIndex + 1,
      term: this.#index.lastTerm,
      payload: new Uint8Array(0),
    };
    if (!this.#fits(record)) return;
    try {
      this.#write([record]);
      this.#witnessed = true;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Up to `maxEntries` entries from `fromIndex` on; empty behind the last durable one. Throws `compacted`, `corrupt`. */
  async read(fromIndex: number, maxEntries = Number.POSITIVE_INFINITY): Promise<readonly WalRecord[]> {
    if (fromIndex > this.#durableIndex) return [];
    let place = this.#index.locate(fromIndex);
    if (place !== undefined && !place.mark.segment.walked) {
      await this.#walk(place.mark);
      place = this.#index.locate(fromIndex);
    }
    if (place === undefined) {
      throw new HeadpondError(
        "compacted",
        `entry ${fromIndex} has been cut from the log, which begins at ${this.#index.firstIndex}: start from a checkpoint`,
        { details: { firstIndex: this.#index.firstIndex } },
      );
    }
    const { mark } = place;
    const until = Math.min(place.until, this.#durableIndex + 1);
    const bytes = await this.#readSpan(mark.segment, mark.offset, mark.end);
    const salt = segmentSalt(mark.segment.header.sequence);
    const entries: WalRecord[] = [];
    let crc = mark.crc;
    let expected = mark.index;
    for (let offset = 0; expected < until && entries.length < maxEntries; ) {
      // The offsets inside the records count from the segment's beginning, so the span is decoded in place of it.
      const record = decodeRecord(bytes, offset, salt, crc, mark.offset);
      if (typeof record === "string") throw this.#damage(mark.segment, mark.offset + offset, expected, record);
      offset = record.end;
      crc = record.crc;
      if (!isEntryType(record.type)) continue;
      if (record.index !== expected)
        throw this.#damage(mark.segment, mark.offset + offset, expected, `index ${record.index}`);
      if (expected++ >= fromIndex) entries.push(record);
    }
    return entries;
  }

  /** Term of an entry, `undefined` if it is not in the log. Also knows the one right before the first. */
  async termAt(index: number): Promise<number | undefined> {
    if (index === this.#durableIndex) return this.#index.lastTerm;
    if (index === this.firstIndex - 1) return this.#index.previousTerm;
    if (index < this.firstIndex || index > this.#durableIndex) return undefined;
    return (await this.read(index, 1))[0]?.term;
  }

  /** Gives up whole segments whose entries are all at or below `index`, as long as `keepBytes` are left. Reads of them end with `compacted`. */
  async cut(index: number, keepBytes = 0): Promise<void> {
    while (this.#segments.length > 1) {
      const [segment, next] = this.#segments as [Segment, Segment];
      if (next.header.firstIndex > index + 1 || this.bytes - segment.header.segmentBytes < keepBytes) return;
      this.#segments.shift();
      this.#index.cutBefore(next);
      const reusable = segment.readers === 0 && segment.header.segmentBytes === next.header.segmentBytes;
      await this.#spares.recycle(segment.path, reusable);
      // One after the other: a crash must not leave a hole, which would look like a lost segment.
      await this.#options.disk.syncDirectory(this.#options.directory);
    }
  }

  /**
   * Begins the log anew behind an entry that is in a checkpoint, e.g. one that came from a leader: all entries are void,
   * the hard state stays. Atomic: after a crash the log is the old one or the new one.
   */
  async restart(lastIndex: number, lastTerm: number): Promise<void> {
    this.#enter();
    try {
      const spare = await this.#spares.take();
      const place = { firstIndex: lastIndex + 1, previousTerm: lastTerm, seed: 0, previousEnd: 0, fresh: true };
      const segment = await this.#publish(spare, place);
      const old = this.#segments;
      this.#segments = [];
      await this.#goOn(spare, segment);
      this.#durableIndex = lastIndex;
      for (const { path, readers } of old) await this.#spares.recycle(path, readers === 0);
    } catch (error) {
      throw this.#fail(error);
    } finally {
      this.#busy = false;
    }
  }

  /** Waits for nothing: the owner has finished its appends. */
  async close(): Promise<void> {
    if (this.#closed) return;
    assert(!this.#busy, "the log is closed while an append is under way");
    this.witness();
    this.#closed = true;
    await this.#spares.close();
    await this.#file.close();
  }

  #enter(): void {
    if (this.#failure !== undefined) throw this.#failure;
    assert(!this.#closed, "the log is closed");
    assert(!this.#busy, "one append at a time");
    this.#busy = true;
  }

  #fits(record: WalRecord): boolean {
    const { segmentBytes } = this.#current.header;
    return this.#offset + recordBytes(record.payload.length) + sealBytes <= segmentBytes;
  }

  get #current(): Segment {
    return present(this.#segments.at(-1), "a log has a segment");
  }

  /** Encodes what fits into the segment and the batch, and hands it to the page cache. */
  #write(records: readonly WalRecord[]): number {
    const segment = this.#current;
    const { segmentBytes, sequence } = segment.header;
    const salt = segmentSalt(sequence);
    const start = this.#offset;
    const room = Math.min(segmentBytes - sealBytes - start, this.#options.limits.batchBytes);
    let used = 0;
    let crc = this.#crc;
    let count = 0;
    for (const record of records) {
      const bytes = recordBytes(record.payload.length);
      if (used + bytes > room) break;
      if (used + bytes > this.#buffer.bytes.length) this.#grow(used, used + bytes);
      const previous = crc;
      crc = encodeRecord(this.#buffer, used, record, this.#durableEnd, salt, previous);
      const wrong = this.#index.add(segment, record, start + used, previous, start + used + bytes);
      assert(wrong === undefined, () => `appended record ${wrong}`);
      used += bytes;
      count++;
    }
    assert(count > 0, () => `a record of ${records[0]?.payload.length} bytes fits no batch`);
    this.#file.writeSync(this.#buffer.bytes.subarray(0, used), start);
    this.#offset = start + used;
    this.#crc = crc;
    this.#witnessed = false;
    return count;
  }

  #grow(used: number, needed: number): void {
    const larger = recordBuffer(
      Math.max(needed, Math.min(this.#buffer.bytes.length * 2, this.#options.limits.batchBytes)),
    );
    larger.bytes.set(this.#buffer.bytes.subarray(0, used));
    this.#buffer = larger;
  }

  /** Goes on in a new segment: the next one is complete on the disk before this one says that it ends. */
  async #roll(): Promise<void> {
    // The next segment will say how this one ends: a witness that nobody has flushed must not be lost any more.
    if (this.#durableEnd < this.#offset) await this.#file.datasync();
    const spare = await this.#spares.take();
    const { lastIndex, lastTerm } = this.#index;
    const seal = encodeSeal(this.#current.header, this.#index, this.#offset, this.#crc);
    const link = { seed: seal.crc, previousEnd: this.#offset + sealBytes, fresh: false };
    const segment = await this.#publish(spare, { ...link, firstIndex: lastIndex + 1, previousTerm: lastTerm });
    this.#file.writeSync(seal.bytes, this.#offset);
    await this.#file.datasync();
    await this.#goOn(spare, segment);
  }

  /** Makes a spare the next segment, durable under its name. */
  async #publish(
    spare: DiskFile,
    place: Pick<SegmentHeader, "firstIndex" | "previousTerm" | "seed" | "previousEnd" | "fresh">,
  ): Promise<Segment> {
    const { disk, directory, clusterId } = this.#options;
    const { segmentBytes, sequence } = this.#current.header;
    const { hardState } = this.#index;
    const configurationIndex = place.fresh ? 0 : this.#index.configurationIndex;
    const own = { segmentBytes, sequence: sequence + 1, hardState, clusterId, configurationIndex };
    const header: SegmentHeader = { ...place, ...own };
    const path = `${directory}/${segmentName(header.sequence, header.firstIndex)}`;
    spare.writeSync(encodeSegmentHeader(header), 0);
    await spare.datasync();
    await disk.rename(spare.path, path);
    await disk.syncDirectory(directory);
    return { path, header, walked: true, readers: 0 };
  }

  async #goOn(file: DiskFile, segment: Segment): Promise<void> {
    await this.#file.close();
    this.#file = file;
    this.#segments.push(segment);
    this.#index.enter(segment);
    this.#offset = segmentHeaderBytes;
    this.#durableEnd = segmentHeaderBytes;
    this.#crc = segment.header.seed;
    this.#spares.prepare();
  }

  /** Only a refusal to give a spare leaves the log whole. */
  #fail(error: unknown): HeadpondError {
    if (error instanceof HeadpondError) return error;
    if (this.#failure === undefined) {
      const message = error instanceof Error ? error.message : String(error);
      const fatal = `${this.#current.path}: the log failed and cannot be trusted until a restart: ${message}`;
      this.#failure = new HeadpondError("unavailable", fatal, { cause: error });
      this.#options.onFatal(this.#failure);
    }
    return new HeadpondError("unknown-outcome", this.#failure.message, { cause: error });
  }

  async #readSpan(segment: Segment, from: number, to: number): Promise<ReturnType<typeof recordBuffer>> {
    segment.readers++;
    try {
      const buffer = recordBuffer(to - from);
      const file = await this.#options.disk.open(segment.path, "read");
      try {
        for (let done = 0; done < to - from; ) {
          const count = await file.read(buffer.bytes.subarray(done), from + done);
          if (count === 0) break;
          done += count;
        }
      } finally {
        await file.close();
      }
      return buffer;
    } finally {
      segment.readers--;
    }
  }

  /** Marks a segment that the start did not look into. */
  async #walk(coarse: Mark): Promise<void> {
    const { segment } = coarse;
    segment.readers++;
    try {
      const source = await readWhole(this.#options.disk, segment.path, segment.header.segmentBytes, undefined);
      const marks: Mark[] = [];
      const walk = walkSegment(source, segment.header, (record, offset, crc) => {
        let mark = marks.at(-1);
        if (mark === undefined || (isEntryType(record.type) && offset - mark.offset >= markEveryBytes)) {
          const index = mark === undefined ? coarse.index : record.index;
          mark = { index, segment, offset, crc, end: offset };
          marks.push(mark);
        }
        mark.end = record.end;
      });
      if (!walk.sealed) throw this.#damage(segment, walk.end, undefined, walk.defect ?? "no seal");
      this.#index.refine(coarse, marks);
    } finally {
      segment.readers--;
    }
  }

  #damage(segment: Segment, offset: number, index: number | undefined, what: string): HeadpondError {
    const at = index === undefined ? "" : `, index ${index}`;
    return new HeadpondError("corrupt", `${segment.path}: offset ${offset}${at}: durable record is damaged (${what})`, {
      details: { file: segment.path, offset, ...(index === undefined ? {} : { index }) },
    });
  }
}

function limitsOfSpares({ maxSpares, reserveBytes }: WalLimits): { maxSpares: number; reserveBytes: number } {
  return { maxSpares, reserveBytes };
}

async function writeThrough(disk: Disk, path: string, bytes: Uint8Array, offset: number): Promise<void> {
  const file = await disk.open(path, "write");
  try {
    await file.write(bytes, offset);
    await file.datasync();
  } finally {
    await file.close();
  }
}
