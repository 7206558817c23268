/**
 * A WAL segment (docs/formats/wal.md): a file of fixed size with one header block, then records. Here are its name,
 * its header and the walk over its records. The header says where the segment belongs (cluster, sequence, first index,
 * the CRC that its records continue), so that a missing, swapped, foreign or damaged segment is told apart.
 */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { crc32 } from "../io/hash.ts";
import {
  type DecodedRecord,
  decodeRecord,
  getUint64,
  type RecordBuffer,
  type RecordDefect,
  recordBuffer,
  recordBytes,
  recordType,
  segmentSalt,
  setUint64,
} from "./record.ts";

export const segmentHeaderBytes = 4096;
const formatVersion = 1;
const magic = Buffer.from("HEADWAL\n", "latin1");
const freshFlag = 1;
const membershipFlag = 2;
const maxNameBytes = 63;

/** Raft's durable promise; for the local journal the term counts its starts and there is no vote. */
export type HardState = { readonly term: number; readonly vote: Uint8Array };
export const initialHardState: HardState = { term: 0, vote: new Uint8Array(0) };

export type SegmentHeader = {
  readonly segmentBytes: number;
  /** Counts the segments of this log, from 1. */
  readonly sequence: number;
  /** Index of the next entry when the segment began. */
  readonly firstIndex: number;
  /** Term of the entry before `firstIndex`; 0 if there is none. */
  readonly previousTerm: number;
  /** What the CRC of the first record continues: the CRC of the seal of the segment before. */
  readonly seed: number;
  /** Where the seal of the segment before ends; 0 if `fresh`. */
  readonly previousEnd: number;
  /** This segment begins a log; what lies before it is void. */
  readonly fresh: boolean;
  /** The hard state when the segment began. */
  readonly hardState: HardState;
  readonly clusterId: ClusterId;
  /**
   * Of the newest membership in the log when the segment began, 0 if there was none: where it differs from the next segment's, this one holds
   * memberships, and a start must look into it. `undefined` in segments of older releases.
   */
  readonly configurationIndex: number | undefined;
};

/** Payload of a seal: the lowest index that a `truncate` in its segment made void, 0 if none. */
export const sealPayloadBytes = 8;
export const sealBytes = recordBytes(sealPayloadBytes);

export function segmentName(sequence: number, firstIndex: number): string {
  return `segment-${String(sequence).padStart(8, "0")}-${String(firstIndex).padStart(16, "0")}.wal`;
}

export function parseSegmentName(name: string): { sequence: number; firstIndex: number } | undefined {
  const match = /^segment-([0-9]{8,})-([0-9]{16})\.wal$/.exec(name);
  return match === null ? undefined : { sequence: Number(match[1]), firstIndex: Number(match[2]) };
}

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const { bytes, view } = recordBuffer(segmentHeaderBytes);
  bytes.set(magic, 0);
  view.setUint32(8, formatVersion, true);
  view.setUint32(12, header.segmentBytes, true);
  setUint64(view, 16, header.sequence);
  setUint64(view, 24, header.firstIndex);
  setUint64(view, 32, header.previousTerm);
  view.setUint32(40, header.seed, true);
  const hasMembership = header.configurationIndex !== undefined;
  view.setUint32(44, (header.fresh ? freshFlag : 0) | (hasMembership ? membershipFlag : 0), true);
  view.setUint32(48, header.previousEnd, true);
  setUint64(view, 56, header.hardState.term);
  setShortBytes(bytes, 64, header.hardState.vote, "vote");
  setShortBytes(bytes, 128, Buffer.from(header.clusterId, "utf8"), "cluster id");
  setUint64(view, 192, header.configurationIndex ?? 0);
  view.setUint32(segmentHeaderBytes - 4, crc32(bytes.subarray(0, segmentHeaderBytes - 4)), true);
  return bytes;
}

/** Throws `corrupt` or `unsupported` with the file's name. Does not know where the segment should be: see `read-wal.ts`. */
export function decodeSegmentHeader(source: RecordBuffer, file: string): SegmentHeader {
  const { bytes, view } = source;
  if (bytes.compare(magic, 0, magic.length, 0, magic.length) !== 0) {
    throw new HeadpondError("corrupt", `${file}: offset 0: not a WAL segment, or its header is damaged`);
  }
  if (crc32(bytes.subarray(0, segmentHeaderBytes - 4)) !== view.getUint32(segmentHeaderBytes - 4, true)) {
    throw new HeadpondError(
      "corrupt",
      `${file}: offset 0: the segment's header is damaged (its checksum does not match)`,
    );
  }
  const version = view.getUint32(8, true);
  if (version !== formatVersion) {
    throw new HeadpondError(
      "unsupported",
      `${file}: WAL format version ${version}, this program reads ${formatVersion}: use the release that wrote it`,
    );
  }
  return {
    segmentBytes: view.getUint32(12, true),
    sequence: getUint64(view, 16),
    firstIndex: getUint64(view, 24),
    previousTerm: getUint64(view, 32),
    seed: view.getUint32(40, true),
    fresh: (view.getUint32(44, true) & freshFlag) !== 0,
    previousEnd: view.getUint32(48, true),
    hardState: { term: getUint64(view, 56), vote: new Uint8Array(getShortBytes(bytes, 64)) },
    clusterId: getShortBytes(bytes, 128).toString("utf8") as ClusterId,
    configurationIndex: (view.getUint32(44, true) & membershipFlag) === 0 ? undefined : getUint64(view, 192),
  };
}

export type SegmentWalk = {
  /** Where the sound records end, and the CRC that the next one would continue. */
  readonly end: number;
  readonly crc: number;
  readonly sealed: boolean;
  /** Why the walk ended, unless by the seal. */
  readonly defect: RecordDefect | undefined;
};

/** Visits the sound records of a whole segment in order. `crc` at the visit is what the visited record continues. */
export function walkSegment(
  source: RecordBuffer,
  header: SegmentHeader,
  visit: (record: DecodedRecord, offset: number, previousCrc: number) => void,
): SegmentWalk {
  const salt = segmentSalt(header.sequence);
  let offset = segmentHeaderBytes;
  let crc = header.seed;
  for (;;) {
    const record = decodeRecord(source, offset, salt, crc);
    if (typeof record === "string") return { end: offset, crc, sealed: false, defect: record };
    visit(record, offset, crc);
    offset = record.end;
    crc = record.crc;
    if (record.type === recordType.seal) return { end: offset, crc, sealed: true, defect: undefined };
  }
}

function setShortBytes(target: Buffer, offset: number, value: Uint8Array, what: string): void {
  if (value.length > maxNameBytes) {
    throw new HeadpondError("invalid", `a ${what} has at most ${maxNameBytes} bytes, this one has ${value.length}`);
  }
  target[offset] = value.length;
  target.set(value, offset + 1);
}

function getShortBytes(source: Buffer, offset: number): Buffer {
  const length = Math.min(source[offset] ?? 0, maxNameBytes);
  return source.subarray(offset + 1, offset + 1 + length);
}
