/**
 * Checksums and digests. xxh64 (of blocks; WebAssembly, about 15 GB/s per core) is synchronous from the first call,
 * because its module is compiled while this file is imported. Cryptographic digests run on the calling thread at
 * 0.8 to 2 GB/s: whole files belong into a thread of their own.
 */

import { createHash, createHmac, type Hash, timingSafeEqual } from "node:crypto";
import { crc32 as zlibCrc32 } from "node:zlib";
import { createXXHash64, type IHasher } from "hash-wasm";
import { canHashInPlace, InPlaceHash } from "./in-place-hash.ts";

/** Below, to copy the bytes costs less than what surrounds a hash in place. */
const inPlaceBytesMin = 64 * 1024;
const engine: IHasher = await createXXHash64();

/** xxh64 with seed 0, 8 bytes, big-endian (the canonical form). */
export function xxh64(bytes: Uint8Array): Uint8Array {
  if (bytes.length >= inPlaceBytesMin && canHashInPlace(bytes)) return new InPlaceHash(bytes).digest(bytes.length);
  return hashWhole(bytes).digest("binary");
}

/** As `xxh64`, in 16 hexadecimal digits. */
export function xxh64Hex(bytes: Uint8Array): string {
  return hashWhole(bytes).digest("hex");
}

/** As `xxh64`, as a number below 2^64. */
export function xxh64BigInt(bytes: Uint8Array): bigint {
  return BigInt(`0x${hashWhole(bytes).digest("hex")}`);
}

/** xxh64 of a stream. Any number may be open at once: they take turns on one WebAssembly instance. */
export class Xxh64 {
  readonly #stream: EngineStream = { saved: undefined };

  update(bytes: Uint8Array): this {
    takeEngine(this.#stream);
    engine.update(bytes);
    return this;
  }

  /** Of everything so far; more may follow. */
  hex(): string {
    return Buffer.from(this.bytes()).toString("hex");
  }

  bytes(): Uint8Array {
    takeEngine(this.#stream);
    // The engine forgets its state with the digest: this stream goes on from the copy.
    leaveEngine();
    return engine.digest("binary");
  }
}

/** `saved`: the state while another stream has the engine; absent before the first update. */
type EngineStream = { saved: Uint8Array | undefined };

/** The stream whose state is in the engine now. */
let engineUser: EngineStream | undefined;

function takeEngine(stream: EngineStream): void {
  if (engineUser === stream) return;
  leaveEngine();
  if (stream.saved === undefined) engine.init();
  else engine.load(stream.saved);
  engineUser = stream;
}

function leaveEngine(): void {
  if (engineUser !== undefined) engineUser.saved = engine.save();
  engineUser = undefined;
}

function hashWhole(bytes: Uint8Array): IHasher {
  leaveEngine();
  return engine.init().update(bytes);
}

export type DigestAlgorithm = "sha256" | "sha1" | "md5";

/** A cryptographic digest of a stream. One answer, after which nothing can be added. */
export class Digest {
  readonly algorithm: DigestAlgorithm;
  readonly #hash: Hash;

  constructor(algorithm: DigestAlgorithm) {
    this.algorithm = algorithm;
    this.#hash = createHash(algorithm);
  }

  update(bytes: Uint8Array | string): this {
    this.#hash.update(bytes);
    return this;
  }

  hex(): string {
    return this.#hash.digest("hex");
  }

  bytes(): Uint8Array {
    return this.#hash.digest();
  }
}

/** A digest of something small, in hexadecimal digits. */
export function digestHex(algorithm: DigestAlgorithm, bytes: Uint8Array | string): string {
  return new Digest(algorithm).update(bytes).hex();
}

export function hmacSha256(key: Uint8Array | string, bytes: Uint8Array | string): Uint8Array {
  return createHmac("sha256", key).update(bytes).digest();
}

/** Compares without telling by its duration where the first difference is. */
export function equalSecrets(a: string, b: string): boolean {
  const left = createHash("sha256").update(a).digest();
  const right = createHash("sha256").update(b).digest();
  return timingSafeEqual(left, right);
}

/** CRC-32 as in zlib and PNG; `previous` continues one. */
export function crc32(bytes: Uint8Array | string, previous = 0): number {
  return zlibCrc32(bytes, previous);
}

/**
 * As `crc32`, of the bytes from `start` to `end` of a buffer with its view. For short pieces of a large buffer: the way into
 * native code costs more than 200 bytes do here (92 bytes: 112 ns against 212).
 */
export function crc32Of(bytes: Uint8Array, view: DataView, start: number, end: number, previous: number): number {
  if (end - start > shortCrcBytes) return zlibCrc32(bytes.subarray(start, end), previous);
  const t = crcTables;
  let crc = ~previous;
  let at = start;
  // Eight bytes a round: the tables hold what a byte does to the sum when 0 to 7 others follow it.
  for (const last = end - 8; at <= last; at += 8) {
    const low = crc ^ view.getInt32(at, true);
    const high = view.getInt32(at + 4, true);
    crc =
      (t[1792 + (low & 255)] as number) ^
      (t[1536 + ((low >>> 8) & 255)] as number) ^
      (t[1280 + ((low >>> 16) & 255)] as number) ^
      (t[1024 + (low >>> 24)] as number) ^
      (t[768 + (high & 255)] as number) ^
      (t[512 + ((high >>> 8) & 255)] as number) ^
      (t[256 + ((high >>> 16) & 255)] as number) ^
      (t[high >>> 24] as number);
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ (t[(crc ^ view.getUint8(at)) & 255] as number);
  return ~crc >>> 0;
}

const shortCrcBytes = 200;
const crcTables = makeCrcTables();

function makeCrcTables(): Int32Array {
  const tables = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ 0xedb88320;
    tables[byte] = crc;
  }
  for (let at = 256; at < tables.length; at++) {
    const before = tables[at - 256] as number;
    tables[at] = (before >>> 8) ^ (tables[before & 255] as number);
  }
  return tables;
}
