/**
 * Reads a WAL directory as it lies on disk and finds everything that is wrong with it: recovery stops at the first
 * finding, `journal verify` lists them all. It changes nothing.
 *
 * The one legal irregularity is what a crash leaves at the very end: a part of the last batch, which nobody was told
 * about (a torn tail), or a segment that was begun and not yet entered (an unfinished roll). Everything else is damage.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Disk, DiskFile } from "../io/disk.ts";
import {
  type DecodedRecord,
  decodeRecord,
  encodeRecord,
  getUint64,
  type RecordBuffer,
  recordBuffer,
  recordHeaderBytes,
  recordType,
  searchBehind,
  segmentSalt,
  type WalRecord,
} from "./record.ts";
import {
  decodeSegmentHeader,
  parseSegmentName,
  type SegmentHeader,
  sealBytes,
  sealPayloadBytes,
  segmentHeaderBytes,
  walkSegment,
} from "./segment.ts";
import { type Segment, WalIndex } from "./wal-index.ts";

export type Finding = {
  /** `note`: legal after a crash, and repaired by the next start. */
  readonly severity: "damage" | "note";
  readonly file: string;
  readonly offset: number;
  /** Index of the entry concerned, where known. */
  readonly index?: number;
  readonly message: string;
};

export type ReadWalOptions = {
  readonly disk: Disk;
  readonly directory: string;
  /** `undefined`: any, but all the same. */
  readonly clusterId: ClusterId | undefined;
  /** Segments are checked record by record from the newest back until so many bytes; of older ones the header and the seal. */
  readonly walkBytes: number;
  /** So are those in which the term changes, or that hold memberships. */
  readonly needsTerms?: boolean;
  /** Receives each damage. What it throws ends the reading. */
  readonly onFinding: (finding: Finding) => void;
  /** Sees every sound record of the walked segments, in the order of writing. Its payload is valid during the call. */
  readonly onRecord?: (record: DecodedRecord, segment: Segment, offset: number) => void;
};

export type WalState = {
  readonly segments: readonly Segment[];
  /** Older segments that a reset of the log has made void. */
  readonly voidPaths: readonly string[];
  readonly index: WalIndex;
  /** Where the next record goes in the last segment, and what it continues. */
  readonly tail: { readonly offset: number; readonly crc: number };
  /** End of what a crash left behind the tail, if sound records are among it. */
  readonly tornEnd: number;
  /** The seal that an unfinished roll owes to the last segment but one. */
  readonly owedSeal: { readonly path: string; readonly offset: number; readonly bytes: Uint8Array } | undefined;
};

/** For recovery: the first damage ends it. */
export function throwFinding(finding: Finding): void {
  if (finding.severity === "note") return;
  throw new HeadpondError("corrupt", describeFinding(finding), {
    details: {
      file: finding.file,
      offset: finding.offset,
      ...(finding.index === undefined ? {} : { index: finding.index }),
    },
  });
}

export function describeFinding({ file, offset, index, message }: Finding): string {
  return `${file}: offset ${offset}${index === undefined ? "" : `, index ${index}`}: ${message}`;
}

export async function readWal(options: ReadWalOptions): Promise<WalState> {
  const { disk, directory, onFinding } = options;
  const all = await readHeaders(options);
  const freshAt = all.findLastIndex((segment) => segment.header.fresh);
  const segments = freshAt <= 0 ? all : all.slice(freshAt);
  const voidPaths = freshAt <= 0 ? [] : all.slice(0, freshAt).map((segment) => segment.path);
  const index = new WalIndex();
  let tail = { offset: segmentHeaderBytes, crc: 0 };
  let tornEnd = 0;
  let owedSeal: WalState["owedSeal"];
  if (segments.length === 0) {
    onFinding({ severity: "damage", file: directory, offset: 0, message: "no WAL segment: the log is missing" });
    return { segments, voidPaths, index, tail, tornEnd, owedSeal };
  }
  const walked = await segmentsToWalk(options, segments);
  let buffer: RecordBuffer | undefined;
  for (const [at, segment] of segments.entries()) {
    const { header, path } = segment;
    const next = segments[at + 1];
    const damage = (offset: number, message: string, entry?: number): void =>
      onFinding({ severity: "damage", file: path, offset, ...(entry === undefined ? {} : { index: entry }), message });
    const before = segments[at - 1];
    if (before !== undefined && header.sequence !== before.header.sequence + 1) {
      damage(
        0,
        `missing segment: number ${header.sequence} follows number ${before.header.sequence}`,
        index.lastIndex + 1,
      );
    }
    index.enter(segment);
    if (!walked.has(at)) {
      await checkSeal(disk, segment, next, damage);
      continue;
    }
    buffer = await readWhole(disk, path, header.segmentBytes, buffer);
    const source = buffer;
    segment.walked = true;
    const walk = walkSegment(source, header, (record, offset, previousCrc) => {
      const wrong = index.add(segment, record, offset, previousCrc, record.end);
      if (wrong !== undefined) damage(offset, `the record ${wrong}`, record.index);
      options.onRecord?.(record, segment, offset);
    });
    if (next !== undefined) {
      if (walk.sealed) {
        if (next.header.sequence === header.sequence + 1) checkLink(segment, next, walk.end, walk.crc, damage);
        continue;
      }
      owedSeal = at + 2 === segments.length ? await owedSealOf(disk, segment, next, index, walk) : undefined;
      if (owedSeal === undefined)
        damage(walk.end, describeDefect(walk.defect, "other segments follow"), index.lastIndex + 1);
      else
        onFinding({
          severity: "note",
          file: path,
          offset: walk.end,
          message: "the next segment was begun and not entered",
        });
      continue;
    }
    tail = { offset: walk.end, crc: walk.crc };
    if (walk.sealed) {
      damage(
        walk.end,
        `missing segment: number ${header.sequence} is sealed and number ${header.sequence + 1} is not there`,
      );
      continue;
    }
    const { proof, end } = searchBehind(source, walk.end, segmentSalt(header.sequence), walk.crc);
    if (proof !== undefined) {
      const message = `${describeDefect(walk.defect, `the sound record ${proof.index} follows at offset ${proof.offset}`)}`;
      damage(walk.end, message, index.lastIndex + 1);
    } else if (end > walk.end) {
      tornEnd = end;
      onFinding({
        severity: "note",
        file: path,
        offset: walk.end,
        message: "torn tail: part of a batch that was never acknowledged",
      });
    }
  }
  return { segments, voidPaths, index, tail, tornEnd, owedSeal };
}

function headerOf(buffer: RecordBuffer, path: string, damage: (message: string) => void): SegmentHeader | undefined {
  try {
    return decodeSegmentHeader(buffer, path);
  } catch (error) {
    if (!isHeadpondError(error, "corrupt")) throw error;
    // The finding names the file itself.
    damage(error.message.slice(`${path}: offset 0: `.length));
    return undefined;
  }
}

/** Segments with a sound header, by sequence; findings for the others. */
async function readHeaders({ disk, directory, clusterId, onFinding }: ReadWalOptions): Promise<Segment[]> {
  const segments: Segment[] = [];
  const names = (await disk.list(directory)).filter((name) => parseSegmentName(name) !== undefined).sort();
  for (const name of names) {
    const path = `${directory}/${name}`;
    const damage = (message: string): void => onFinding({ severity: "damage", file: path, offset: 0, message });
    const file = await disk.open(path, "read");
    try {
      const buffer = recordBuffer(segmentHeaderBytes);
      const { sizeBytes } = await file.stat();
      await readFully(file, buffer.bytes, 0);
      const header = headerOf(buffer, path, damage);
      if (header === undefined) continue;
      const named = parseSegmentName(name);
      const expected = clusterId ?? segments[0]?.header.clusterId ?? header.clusterId;
      if (header.sequence !== named?.sequence || header.firstIndex !== named.firstIndex) {
        damage(`misplaced segment: its header says number ${header.sequence}, first index ${header.firstIndex}`);
      } else if (header.clusterId !== expected) {
        damage(`foreign segment: it belongs to cluster ${header.clusterId}, not ${expected}`);
      } else if (sizeBytes !== header.segmentBytes) {
        onFinding({
          severity: "damage",
          file: path,
          offset: Math.min(sizeBytes, header.segmentBytes),
          message: `the file has ${sizeBytes} bytes, its header says ${header.segmentBytes}: it was cut or extended`,
        });
        if (sizeBytes > header.segmentBytes) segments.push({ path, header, walked: false, readers: 0 });
      } else segments.push({ path, header, walked: false, readers: 0 });
    } finally {
      await file.close();
    }
  }
  return segments;
}

/** Those within the budget, and of the older ones those that a look from outside does not tell enough of, by their place among `segments`. */
async function segmentsToWalk(options: ReadWalOptions, segments: readonly Segment[]): Promise<ReadonlySet<number>> {
  const { disk, walkBytes, needsTerms = false } = options;
  let from = segments.length - 1;
  let bytes = (segments[from] as Segment).header.segmentBytes;
  // The last but one owes a seal if the roll to the last was not finished.
  if (from > 0 && !(await isSealed(disk, segments[from - 1] as Segment, segments[from] as Segment)))
    bytes += (segments[--from] as Segment).header.segmentBytes;
  while (from > 0 && bytes + (segments[from - 1] as Segment).header.segmentBytes <= walkBytes) {
    bytes += (segments[--from] as Segment).header.segmentBytes;
  }
  const walked = new Set<number>();
  for (let at = from; at < segments.length; at++) walked.add(at);
  for (let at = 0; at < from; at++) {
    const [segment, next] = [segments[at] as Segment, segments[at + 1] as Segment];
    const seal = await readSeal(disk, segment, next);
    // A truncation changes what is known of the segments before it.
    const truncates = seal === undefined || getUint64(seal.view, recordHeaderBytes) !== 0;
    if (truncates || (needsTerms && !isUniform(segment.header, next.header))) walked.add(at);
  }
  return walked;
}

/** Whether all entries of a segment without truncations are of one term, and none is a membership. */
function isUniform(header: SegmentHeader, next: SegmentHeader): boolean {
  if (header.configurationIndex === undefined || next.configurationIndex === undefined) return false;
  return header.previousTerm === next.previousTerm && header.configurationIndex === next.configurationIndex;
}

/** Whether the seal of `segment` is there, whole, and what `next` continues. */
async function isSealed(disk: Disk, segment: Segment, next: Segment): Promise<boolean> {
  const { previousEnd, seed, sequence } = next.header;
  const offset = previousEnd - sealBytes - 4;
  if (offset < segmentHeaderBytes || previousEnd > segment.header.segmentBytes) return false;
  if (sequence !== segment.header.sequence + 1) return false;
  // With the sum of the record before it, which it continues.
  const buffer = recordBuffer(4 + sealBytes);
  const file = await disk.open(segment.path, "read");
  try {
    await readFully(file, buffer.bytes, offset);
  } finally {
    await file.close();
  }
  const salt = segmentSalt(segment.header.sequence);
  const seal = decodeRecord(buffer, 4, salt, buffer.view.getUint32(0, true), offset);
  return typeof seal !== "string" && seal.type === recordType.seal && seal.crc === seed;
}

/** The bytes where the seal of `segment` must be, if they are within the file. */
async function readSeal(disk: Disk, segment: Segment, next: Segment | undefined): Promise<RecordBuffer | undefined> {
  const offset = (next?.header.previousEnd ?? 0) - sealBytes;
  if (offset < segmentHeaderBytes || offset + sealBytes > segment.header.segmentBytes) return undefined;
  const buffer = recordBuffer(sealBytes);
  const file = await disk.open(segment.path, "read");
  try {
    await readFully(file, buffer.bytes, offset);
  } finally {
    await file.close();
  }
  return buffer;
}

type Damage = (offset: number, message: string, entry?: number) => void;

async function checkSeal(disk: Disk, segment: Segment, next: Segment | undefined, damage: Damage): Promise<void> {
  const seal = await readSeal(disk, segment, next);
  if (next === undefined || next.header.sequence !== segment.header.sequence + 1) return;
  const crc = seal?.view.getUint32(sealBytes - 4, true);
  if (crc === undefined)
    damage(0, `segment number ${next.header.sequence} says that this one ends at ${next.header.previousEnd}`);
  else checkLink(segment, next, next.header.previousEnd, crc, damage);
}

function checkLink(segment: Segment, next: Segment, end: number, crc: number, damage: Damage): void {
  if (next.header.seed === crc && next.header.previousEnd === end) return;
  damage(
    end - sealBytes,
    `its end does not fit segment number ${segment.header.sequence + 1}, which continues another one`,
  );
}

/** The seal that is missing at the end of `segment` if the roll to `next` was cut short by a crash. */
async function owedSealOf(
  disk: Disk,
  segment: Segment,
  next: Segment,
  index: WalIndex,
  walk: { readonly end: number; readonly crc: number },
): Promise<WalState["owedSeal"]> {
  const { bytes, crc } = encodeSeal(segment.header, index, walk.end, walk.crc);
  if (next.header.seed !== crc || next.header.previousEnd !== walk.end + sealBytes) return undefined;
  const source = await readWhole(disk, next.path, next.header.segmentBytes, undefined);
  const first = decodeRecord(source, segmentHeaderBytes, segmentSalt(next.header.sequence), next.header.seed);
  return typeof first === "string" ? { path: segment.path, offset: walk.end, bytes } : undefined;
}

/** The record that ends a segment, as it is now at `offset`. */
export function encodeSeal(
  header: SegmentHeader,
  index: WalIndex,
  offset: number,
  previousCrc: number,
): { readonly bytes: Uint8Array; readonly crc: number } {
  const payload = recordBuffer(sealPayloadBytes);
  payload.view.setUint32(0, index.lowestVoid >>> 0, true);
  payload.view.setUint32(4, Math.floor(index.lowestVoid / 2 ** 32), true);
  const target = recordBuffer(sealBytes);
  const record: WalRecord = {
    type: recordType.seal,
    index: index.lastIndex + 1,
    term: index.lastTerm,
    payload: payload.bytes,
  };
  const crc = encodeRecord(target, 0, record, offset, segmentSalt(header.sequence), previousCrc);
  return { bytes: target.bytes, crc };
}

/** A whole file, into `reuse` if it has the size. */
export async function readWhole(
  disk: Disk,
  path: string,
  sizeBytes: number,
  reuse: RecordBuffer | undefined,
): Promise<RecordBuffer> {
  const buffer = reuse?.bytes.length === sizeBytes ? reuse : recordBuffer(sizeBytes);
  const file = await disk.open(path, "read");
  try {
    const count = await readFully(file, buffer.bytes, 0);
    buffer.bytes.fill(0, count);
  } finally {
    await file.close();
  }
  return buffer;
}

async function readFully(file: DiskFile, bytes: Uint8Array, position: number): Promise<number> {
  let done = 0;
  while (done < bytes.length) {
    const count = await file.read(bytes.subarray(done), position + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

function describeDefect(defect: string | undefined, evidence: string): string {
  const what =
    defect === "absent"
      ? "there is no record"
      : defect === "checksum"
        ? "the record's checksum does not match"
        : "this is not a record";
  return `${what}, but ${evidence}`;
}
