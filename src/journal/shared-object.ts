/**
 * The objects of the shared log as bytes (docs/formats/shared-log.md): each carries a checksum, its own name, the cluster's id and the
 * mark of who made it, so that it is known for what it is wherever it turns up, and so that a create whose answer was lost is recognised
 * by reading the object back. No input or output here.
 */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { crc32 } from "../io/hash.ts";
import type { Entry } from "./journal.ts";
import { decodeRecord, encodeRecord, type RecordBuffer, recordBytes, recordType } from "./record.ts";

/** The numbers are the format's. */
export const objectKind = { cluster: 1, epoch: 2, slot: 3, seal: 4, checkpoint: 5, digest: 6 } as const;
export type ObjectKind = (typeof objectKind)[keyof typeof objectKind];

export type ObjectHead = {
  readonly cluster: ClusterId;
  readonly name: string;
  /** Of one master in one epoch; what has it was made by that one. */
  readonly mark: string;
  readonly [field: string]: string | number | boolean | undefined;
};

export type SharedObjectContent = {
  readonly kind: ObjectKind;
  readonly head: ObjectHead;
  /** A view of the object. Empty unless it is a slot. */
  readonly body: Buffer;
};

const magic = 0x4c535048; // "HPSL"
const formatVersion = 1;
const fixedBytes = 16;
const salt = 0;

/** Layout: magic, version, kind, 2 zeros, CRC-32 of all before and behind it, bytes of the head, the head as JSON, the body. */
export function encodeObject(kind: ObjectKind, head: ObjectHead, entries: readonly Entry[] = []): Buffer {
  const text = JSON.stringify(head);
  const headBytes = Buffer.byteLength(text, "utf8");
  let size = fixedBytes + headBytes;
  for (const { payload } of entries) size += recordBytes(payload.length);
  const bytes = Buffer.allocUnsafe(size);
  const view = new DataView(bytes.buffer, bytes.byteOffset, size);
  view.setUint32(0, magic, true);
  view.setUint8(4, formatVersion);
  view.setUint8(5, kind);
  view.setUint16(6, 0, true);
  view.setUint32(12, headBytes, true);
  bytes.write(text, fixedBytes, "utf8");
  const target: RecordBuffer = { bytes, view };
  let at = fixedBytes + headBytes;
  let crc = 0;
  for (const { index, term, payload } of entries) {
    crc = encodeRecord(target, at, { type: recordType.entry, index, term, payload }, 0, salt, crc);
    at += recordBytes(payload.length);
  }
  view.setUint32(8, sumOf(bytes), true);
  return bytes;
}

/** Throws `corrupt`, `unsupported`, or `invalid` if it is another cluster's. */
export function decodeObject(name: string, source: Uint8Array, cluster: ClusterId | undefined): SharedObjectContent {
  const bytes = Buffer.from(source.buffer, source.byteOffset, source.length);
  if (bytes.length < fixedBytes || bytes.readUInt32LE(0) !== magic) throw damaged(name, 0, "no object of a shared log");
  const version = bytes.readUInt8(4);
  if (version !== formatVersion) {
    throw new HeadpondError(
      "unsupported",
      `${name}: format version ${version} of the shared log, this program reads ${formatVersion}: use the newer program`,
    );
  }
  if (sumOf(bytes) !== bytes.readUInt32LE(8)) throw damaged(name, 8, "its checksum does not match");
  const kind = bytes.readUInt8(5);
  const bodyAt = fixedBytes + bytes.readUInt32LE(12);
  if (kind < objectKind.cluster || kind > objectKind.digest || bodyAt > bytes.length) {
    throw damaged(name, 4, `kind ${kind} and a head of ${bodyAt - fixedBytes} bytes are implausible`);
  }
  const head = readHead(name, bytes.toString("utf8", fixedBytes, bodyAt));
  if (head.name !== name) throw damaged(name, fixedBytes, `it is ${head.name}, under another name`);
  if (cluster !== undefined && head.cluster !== cluster) {
    throw new HeadpondError(
      "invalid",
      `${name}: the shared log belongs to cluster ${head.cluster}, not ${cluster}: check the store of the journal`,
    );
  }
  return { kind: kind as ObjectKind, head, body: bytes.subarray(bodyAt) };
}

/** Of a slot. Payloads are views. Throws `corrupt`. */
export function decodeEntries(name: string, { head, body }: SharedObjectContent, epoch: number): Entry[] {
  const entries: Entry[] = [];
  const source: RecordBuffer = { bytes: body, view: new DataView(body.buffer, body.byteOffset, body.length) };
  let index = countIn(head, "firstIndex", name);
  let crc = 0;
  for (let at = 0; at < body.length; ) {
    const record = decodeRecord(source, at, salt, crc);
    if (typeof record === "string") throw damaged(name, at, `its record is ${record}`);
    if (record.index !== index || record.term !== epoch || record.type !== recordType.entry) {
      throw damaged(name, at, `it holds ${record.term}/${record.index}, expected ${epoch}/${index}`);
    }
    entries.push({ index, term: epoch, payload: record.payload });
    index++;
    crc = record.crc;
    at = record.end;
  }
  return entries;
}

/** Throws `corrupt`. */
export function countIn(head: ObjectHead, field: string, name: string): number {
  const count = head[field];
  if (Number.isSafeInteger(count) && (count as number) >= 0) return count as number;
  throw damaged(name, fixedBytes, `${field} is ${JSON.stringify(count)}`);
}

/** Throws `corrupt`. */
export function textIn(head: ObjectHead, field: string, name: string): string {
  const text = head[field];
  if (typeof text === "string") return text;
  throw damaged(name, fixedBytes, `${field} is ${JSON.stringify(text)}`);
}

export function damaged(name: string, offset: number, message: string): HeadpondError {
  return new HeadpondError("corrupt", `${name}: offset ${offset}: damaged object of the shared log: ${message}`, {
    details: { file: name, offset },
  });
}

/** Of everything but the place of the sum itself. */
function sumOf(bytes: Buffer): number {
  return crc32(bytes.subarray(12), crc32(bytes.subarray(0, 8)));
}

function readHead(name: string, text: string): ObjectHead {
  try {
    const head = JSON.parse(text) as ObjectHead;
    if (typeof head.cluster === "string" && typeof head.name === "string" && typeof head.mark === "string") return head;
  } catch {
    // Said below.
  }
  throw damaged(name, fixedBytes, "its head is none");
}
