/**
 * One record of a WAL segment (docs/formats/wal.md): its encoding, and the check that finds a damaged, stale or
 * misplaced one. The CRC of a record continues the CRC of the record before it, salted by the segment's number, so a
 * record that is sound in itself but stands in the wrong place does not match. No input or output here.
 */

import { assert } from "../base/assert.ts";
import { crc32Of } from "../io/hash.ts";

/** The numbers are the format's. */
export const recordType = {
  /** A command of the journal, or a no-op (empty payload). */
  entry: 1,
  /** Raft's term and vote; the local journal's count of starts. */
  hardState: 2,
  /** Entries from `index` on are void; `term` is that of the entry before. */
  truncate: 3,
  /** The segment ends here and another one follows. `index` is the next entry's. */
  seal: 4,
  /** Says that all before it was durable when it was written: the last flush has no other witness. */
  mark: 5,
  /** Raft's membership from this index on; an entry of the log as a command is. */
  configuration: 6,
} as const;

export type RecordType = (typeof recordType)[keyof typeof recordType];

/** Whether records of this type have an index of their own in the log. */
export function isEntryType(type: RecordType): boolean {
  return type === recordType.entry || type === recordType.configuration;
}

/** What is appended and read back. */
export type WalRecord = {
  readonly type: RecordType;
  readonly index: number;
  readonly term: number;
  readonly payload: Uint8Array;
};

/** Bytes before the payload: length, type, start of the batch, index, term. */
export const recordHeaderBytes = 28;
/** Header and CRC. */
export const recordOverheadBytes = 32;
/** Records begin at multiples of this, so that a search for them knows where to look. */
export const recordAlignmentBytes = 8;

/** Upper half of the type's word, "HP": few other bytes look like a record. */
const typeTag = 0x50480000;

/** Where in a record that half is, and its bytes. */
const tagOffset = 6;
const tagBytes = Buffer.from("HP", "latin1");

const emptyPayload = new Uint8Array(0);

export function recordBytes(payloadBytes: number): number {
  return recordOverheadBytes + Math.ceil(payloadBytes / 8) * 8;
}

/** Differs between segments, so that what a recycled segment still holds of its former life never matches. */
export function segmentSalt(sequence: number): number {
  return Math.imul(sequence, 0x9e3779b1) >>> 0;
}

/** A buffer with both views that encoding needs. */
export type RecordBuffer = { readonly bytes: Buffer; readonly view: DataView };

export function recordBuffer(sizeBytes: number): RecordBuffer {
  const bytes = Buffer.alloc(sizeBytes);
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
}

/**
 * Writes one record at `offset` of the buffer and returns its CRC. `previousCrc` is that of the record before it,
 * `batchStart` the offset in the segment where its batch begins: all before that offset was durable at the time.
 */
export function encodeRecord(
  target: RecordBuffer,
  offset: number,
  record: WalRecord,
  batchStart: number,
  salt: number,
  previousCrc: number,
): number {
  const { bytes, view } = target;
  const { payload, index, term } = record;
  const end = offset + recordBytes(payload.length);
  const crcOffset = end - 4;
  view.setUint32(offset, payload.length, true);
  view.setUint32(offset + 4, typeTag | record.type, true);
  view.setUint32(offset + 8, batchStart, true);
  setUint64(view, offset + 12, index);
  setUint64(view, offset + 20, term);
  bytes.set(payload, offset + recordHeaderBytes);
  for (let at = offset + recordHeaderBytes + payload.length; at < crcOffset; at++) bytes[at] = 0;
  const crc = crc32Of(bytes, view, offset, crcOffset, (previousCrc ^ salt) >>> 0);
  view.setUint32(crcOffset, crc, true);
  return crc;
}

export type DecodedRecord = WalRecord & {
  readonly batchStart: number;
  readonly crc: number;
  /** Where the next record begins. */
  readonly end: number;
};

/** Why there is no record: `absent` (zeros), or what is wrong. */
export type RecordDefect = "absent" | "implausible" | "checksum";

/**
 * Reads the record at `offset`, or says why there is none. The payload is a view of `bytes`. `origin` is where in the
 * segment the source begins.
 */
export function decodeRecord(
  source: RecordBuffer,
  offset: number,
  salt: number,
  previousCrc: number,
  origin = 0,
): DecodedRecord | RecordDefect {
  const end = recordEnd(source, offset, origin);
  if (end === undefined) return isZero(source.view, offset) ? "absent" : "implausible";
  const { bytes, view } = source;
  const crc = view.getUint32(end - 4, true);
  if (crc32Of(bytes, view, offset, end - 4, (previousCrc ^ salt) >>> 0) !== crc) return "checksum";
  const length = view.getUint32(offset, true);
  return {
    type: (view.getUint32(offset + 4, true) - typeTag) as RecordType,
    index: getUint64(view, offset + 12),
    term: getUint64(view, offset + 20),
    payload:
      length === 0 ? emptyPayload : bytes.subarray(offset + recordHeaderBytes, offset + recordHeaderBytes + length),
    batchStart: view.getUint32(offset + 8, true),
    crc,
    end,
  };
}

/** Where a record at `offset` would end if its header is plausible. Cheap: a search asks it at every eighth byte. */
function recordEnd({ view }: RecordBuffer, offset: number, origin = 0): number | undefined {
  if (offset + recordOverheadBytes > view.byteLength) return undefined;
  const type = view.getUint32(offset + 4, true) - typeTag;
  if (type < recordType.entry || type > recordType.configuration) return undefined;
  const end = offset + recordBytes(view.getUint32(offset, true));
  if (end > view.byteLength || end <= offset) return undefined;
  return view.getUint32(offset + 8, true) <= origin + offset ? end : undefined;
}

/**
 * Looks behind a defect at `from` for a sound record whose batch began behind it: then what is defect had been durable,
 * and it is damage. Records of the same batch prove nothing: a crash may keep any part of an unfinished write.
 * A record's seed is the CRC right before it. Also returns where the last sound record ends.
 */
export function searchBehind(
  source: RecordBuffer,
  from: number,
  salt: number,
  previousCrc: number,
): { readonly proof: { readonly offset: number; readonly index: number } | undefined; readonly end: number } {
  assert(from % recordAlignmentBytes === 0, `record offset ${from} is not aligned`);
  const { bytes, view } = source;
  let end = from;
  // If only the stored CRC at `from` is damaged, the next record continues the computed one instead.
  const defectEnd = recordEnd(source, from);
  const computed = defectEnd === undefined ? 0 : crc32Of(bytes, view, from, defectEnd - 4, (previousCrc ^ salt) >>> 0);
  for (let offset = from + recordOverheadBytes; offset + recordOverheadBytes <= view.byteLength; ) {
    // Most of what lies behind the tail is zeros, 64 MiB of them: the search for the tag passes over them at once.
    const tagAt = bytes.indexOf(tagBytes, offset + tagOffset);
    if (tagAt < 0) break;
    offset = Math.ceil((tagAt - tagOffset) / recordAlignmentBytes) * recordAlignmentBytes;
    if (tagAt - tagOffset !== offset) continue;
    if (recordEnd(source, offset) === undefined) {
      offset += recordAlignmentBytes;
      continue;
    }
    let record = decodeRecord(source, offset, salt, view.getUint32(offset - 4, true));
    if (typeof record === "string" && offset === defectEnd) record = decodeRecord(source, offset, salt, computed);
    if (typeof record === "string") {
      offset += recordAlignmentBytes;
      continue;
    }
    if (record.batchStart > from) return { proof: { offset, index: record.index }, end: record.end };
    end = record.end;
    offset = record.end;
  }
  return { proof: undefined, end };
}

export function setUint64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
}

export function getUint64(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true) * 2 ** 32 + view.getUint32(offset, true);
}

function isZero(view: DataView, offset: number): boolean {
  const end = Math.min(offset + recordOverheadBytes, view.byteLength);
  for (let at = offset; at < end; at++) if (view.getUint8(at) !== 0) return false;
  return true;
}
