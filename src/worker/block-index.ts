/**
 * The index file of one cached file version: which blocks are durable, and their checksums. An append-only sequence of
 * records, each with a CRC that covers the CRC before it, so that a record which was flipped, cut, moved or brought over from another
 * index ends what is trusted (docs/formats/block-cache.md). Reading stops at the first record that is not whole: less
 * is trusted then, never more.
 *
 * Pure: bytes in, state out. When a record may be written (only after fdatasync of the data) is `cached-file.ts`'s business.
 */

import { Compile } from "typebox/compile";
import { BlockBitmap, blockCount } from "../base/blocks.ts";
import { HeadpondError } from "../base/errors.ts";
import { FileDescriptor } from "../base/file.ts";
import type { BlockIndex } from "../base/ids.ts";
import { crc32 } from "../io/hash.ts";

export const indexMagic = "HPBLKIX1";
export const checksumBytes = 8;
/** Longest payload of a record: blocks of a file of 4 TiB in 4 MiB blocks, in one record. */
const recordBytesMax = 16 * 1024 * 1024;
/** Blocks that one descriptor may have; bounds memory against a hostile or damaged descriptor. */
export const blocksPerFileMax = 1024 * 1024;

const recordType = { header: 1, blocks: 2, dropped: 3, complete: 4, digestVerified: 5, pinned: 6, stale: 7 } as const;
const checkDescriptor = Compile(FileDescriptor);

/** All that an index says. */
export type IndexState = {
  readonly descriptor: FileDescriptor;
  /** Blocks whose bytes were durable before their record was written. */
  readonly durable: BlockBitmap;
  /** 8 bytes for each block, meaningful where `durable` has it. */
  readonly checksums: Uint8Array;
  digestVerified: boolean;
  pinned: boolean;
  /** The under store no longer has this content: what is missing will never come. */
  stale: boolean;
};

export type IndexRecord =
  | { readonly kind: "blocks"; readonly blocks: readonly BlockIndex[]; readonly checksums: Uint8Array }
  | { readonly kind: "dropped"; readonly blocks: readonly BlockIndex[] }
  | { readonly kind: "complete" }
  | { readonly kind: "digest-verified" }
  | { readonly kind: "pinned"; readonly pinned: boolean }
  | { readonly kind: "stale" };

export function emptyIndexState(descriptor: FileDescriptor): IndexState {
  const count = blockCount(descriptor.sizeBytes, descriptor.blockSizeBytes);
  if (count > blocksPerFileMax) {
    throw new HeadpondError(
      "invalid",
      `${descriptor.path} (${descriptor.id}) has ${count} blocks, more than ${blocksPerFileMax}: use larger blocks`,
    );
  }
  return {
    descriptor,
    durable: new BlockBitmap(count),
    checksums: new Uint8Array(count * checksumBytes),
    digestVerified: false,
    pinned: descriptor.pinned,
    stale: false,
  };
}

export function checksumOf(state: IndexState, block: BlockIndex): Uint8Array {
  return state.checksums.subarray(block * checksumBytes, (block + 1) * checksumBytes);
}

/** Writes records one after another; `chain` is the CRC of the last one. */
export class IndexEncoder {
  #chain: number;

  /** `chain`: of the index that is continued; absent: a new one. */
  constructor(chain = crc32(indexMagic)) {
    this.#chain = chain;
  }

  get chain(): number {
    return this.#chain;
  }

  record(record: IndexRecord): Uint8Array {
    switch (record.kind) {
      case "blocks": {
        const body = Buffer.alloc(record.blocks.length * (4 + checksumBytes));
        record.blocks.forEach((block, i) => {
          body.writeUInt32LE(block, i * 12);
          body.set(record.checksums.subarray(i * checksumBytes, (i + 1) * checksumBytes), i * 12 + 4);
        });
        return this.#frame(recordType.blocks, body);
      }
      case "dropped": {
        const body = Buffer.alloc(record.blocks.length * 4);
        record.blocks.forEach((block, i) => body.writeUInt32LE(block, i * 4));
        return this.#frame(recordType.dropped, body);
      }
      case "complete":
        return this.#frame(recordType.complete, new Uint8Array(0));
      case "digest-verified":
        return this.#frame(recordType.digestVerified, new Uint8Array(0));
      case "pinned":
        return this.#frame(recordType.pinned, Uint8Array.of(record.pinned ? 1 : 0));
      case "stale":
        return this.#frame(recordType.stale, new Uint8Array(0));
      default:
        return record satisfies never;
    }
  }

  /** A whole index that says `state` in the fewest records. */
  whole(state: IndexState): Uint8Array {
    const header = this.#frame(recordType.header, Buffer.from(JSON.stringify(state.descriptor)));
    const parts: Uint8Array[] = [Buffer.from(indexMagic), header];
    const blocks: BlockIndex[] = [];
    for (let i = 0 as BlockIndex; i < state.durable.length; i++) if (state.durable.has(i)) blocks.push(i);
    const checksums = new Uint8Array(blocks.length * checksumBytes);
    blocks.forEach((block, i) => checksums.set(checksumOf(state, block), i * checksumBytes));
    if (blocks.length > 0) parts.push(this.record({ kind: "blocks", blocks, checksums }));
    if (state.durable.isFull) parts.push(this.record({ kind: "complete" }));
    if (state.digestVerified) parts.push(this.record({ kind: "digest-verified" }));
    if (state.pinned !== state.descriptor.pinned) parts.push(this.record({ kind: "pinned", pinned: state.pinned }));
    if (state.stale) parts.push(this.record({ kind: "stale" }));
    return Buffer.concat(parts);
  }

  #frame(type: number, body: Uint8Array): Uint8Array {
    const frame = Buffer.alloc(9 + body.length);
    frame.writeUInt32LE(1 + body.length, 0);
    frame.writeUInt8(type, 8);
    frame.set(body, 9);
    this.#chain = chainedCrc(this.#chain, frame.subarray(0, 4), frame.subarray(8));
    frame.writeUInt32LE(this.#chain, 4);
    return frame;
  }
}

/** The length is covered too: a flipped one must not make a record out of two. */
function chainedCrc(previous: number, length: Uint8Array, payload: Uint8Array): number {
  return crc32(payload, crc32(length, previous));
}

export type DecodedIndex = {
  /** Absent: not even the header is whole, nothing can be trusted. */
  readonly state: IndexState | undefined;
  /** Bytes from the start that are whole records; an appender goes on there. */
  readonly validBytes: number;
  readonly chain: number;
  /** What is wrong, for the log. */
  readonly finding: string | undefined;
};

export function decodeIndex(bytes: Uint8Array): DecodedIndex {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let chain = crc32(indexMagic);
  let position = indexMagic.length;
  let state: IndexState | undefined;
  const stop = (finding: string | undefined): DecodedIndex => ({
    state,
    validBytes: state === undefined ? 0 : position,
    chain,
    finding,
  });
  if (buffer.subarray(0, position).toString("latin1") !== indexMagic) return stop("it does not begin as an index does");
  while (position < buffer.length) {
    const rest = buffer.length - position;
    const at = `the record at byte ${position}`;
    if (rest < 9) return stop(`${at} is cut off after ${rest} bytes`);
    const length = buffer.readUInt32LE(position);
    if (length < 1 || length > recordBytesMax) return stop(`${at} claims ${length} bytes`);
    if (rest < 8 + length) return stop(`${at} claims ${length} bytes of which ${rest - 8} are there`);
    const payload = buffer.subarray(position + 8, position + 8 + length);
    const crc = chainedCrc(chain, buffer.subarray(position, position + 4), payload);
    if (crc !== buffer.readUInt32LE(position + 4))
      return stop(`${at} fails its checksum, ${rest} bytes are not trusted`);
    const problem = applyRecord(state, payload);
    if (typeof problem === "string") return stop(`${at}: ${problem}`);
    state = problem;
    chain = crc;
    position += 8 + length;
  }
  return stop(state === undefined ? "it has no header" : undefined);
}

/** The state after one record, or what is wrong with it. */
function applyRecord(state: IndexState | undefined, payload: Buffer): IndexState | string {
  const type = payload.readUInt8(0);
  const body = payload.subarray(1);
  if (type === recordType.header) {
    if (state !== undefined) return "a second header";
    return parseHeader(body);
  }
  if (state === undefined) return "records before the header";
  switch (type) {
    case recordType.blocks:
      if (body.length % 12 !== 0) return `${body.length} bytes are no list of blocks`;
      for (let at = 0; at < body.length; at += 12) {
        const block = body.readUInt32LE(at) as BlockIndex;
        if (block >= state.durable.length) return `block ${block} is not among ${state.durable.length}`;
        state.durable.add(block);
        state.checksums.set(body.subarray(at + 4, at + 12), block * checksumBytes);
      }
      return state;
    case recordType.dropped:
      if (body.length % 4 !== 0) return `${body.length} bytes are no list of blocks`;
      for (let at = 0; at < body.length; at += 4) state.durable.delete(body.readUInt32LE(at) as BlockIndex);
      state.digestVerified = false;
      return state;
    case recordType.complete:
      return state.durable.isFull ? state : `complete with ${state.durable.count} of ${state.durable.length} blocks`;
    case recordType.digestVerified:
      if (!state.durable.isFull) return "a verified digest of an incomplete file";
      state.digestVerified = true;
      return state;
    case recordType.pinned:
      state.pinned = body[0] === 1;
      return state;
    case recordType.stale:
      state.stale = true;
      return state;
    default:
      return `unknown type ${type}`;
  }
}

function parseHeader(body: Buffer): IndexState | string {
  try {
    const descriptor: unknown = JSON.parse(body.toString("utf8"));
    if (!checkDescriptor.Check(descriptor)) return "its header is no file descriptor";
    return emptyIndexState(descriptor);
  } catch (error) {
    return `its header cannot be read: ${error instanceof Error ? error.message : String(error)}`;
  }
}
