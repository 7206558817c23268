/**
 * One block on its way in: its buffer while bytes arrive, who waits for it, and how it ended. Peers read from the
 * growing buffer before anything is checked (a checksum follows); readers only when `verified` has resolved. The buffer stays
 * readable after the block is stored until somebody else needs it: bytes are taken out by synchronous copies, so it can be
 * taken back between any two turns.
 */

import type { BlockIndex, WorkerId } from "../base/ids.ts";
import { xxh64 } from "../io/hash.ts";
import { canHashInPlace, InPlaceHash } from "../io/in-place-hash.ts";
import type { CachedFile } from "./cached-file.ts";
import type { Urgency } from "./slots.ts";

export type FillPhase =
  /** Queued, or asking; bytes may arrive. */
  | "filling"
  /** All bytes are there and checked. */
  | "verified"
  /** Written to the cache, too: present there. */
  | "stored"
  | "failed";

export class Fill {
  readonly file: CachedFile;
  readonly block: BlockIndex;
  readonly length: number;
  urgency: Urgency;
  /** Workers that some asker found dead before it came to us, for messages between peers. */
  readonly after: ReadonlySet<WorkerId>;
  /** Whom the bytes come from now: that worker must not be served from here. */
  asking: WorkerId | undefined;
  /** It comes, or is about to come, from the under store. */
  readsOrigin = false;
  /** Bytes are about to come, and wait until there is room for them here. */
  awaitsRoom = false;
  /** Resolves when readers may have the bytes; rejects when the block cannot be had. */
  readonly verified: Promise<void>;
  /** Resolves when the block is present in the cache; rejects also when only that failed. */
  readonly stored: Promise<void>;
  #phase: FillPhase = "filling";
  #buffer: Uint8Array | undefined;
  #filledBytes = 0;
  /** Follows the bytes while they are fresh in the processor's cache. */
  #hash: InPlaceHash | undefined;
  #checksum: Uint8Array | undefined;
  #error: unknown;
  #waiters = new Set<() => void>();
  readonly #verified = Promise.withResolvers<void>();
  readonly #stored = Promise.withResolvers<void>();

  constructor(options: {
    readonly file: CachedFile;
    readonly block: BlockIndex;
    readonly urgency: Urgency;
    readonly after?: ReadonlySet<WorkerId>;
  }) {
    this.file = options.file;
    this.block = options.block;
    this.length = options.file.blockLength(options.block);
    this.urgency = options.urgency;
    this.after = options.after ?? new Set();
    this.verified = this.#verified.promise;
    this.stored = this.#stored.promise;
    // Whoever waits hears of a failure; nobody has to.
    this.verified.catch(() => {});
    this.stored.catch(() => {});
  }

  get phase(): FillPhase {
    return this.#phase;
  }

  get filledBytes(): number {
    return this.#filledBytes;
  }

  /** While its bytes are in memory: the buffer that they are in. */
  get buffer(): Uint8Array | undefined {
    return this.#buffer;
  }

  /** Known from `verified` on. */
  get checksum(): Uint8Array | undefined {
    return this.#checksum;
  }

  /** Its bytes are checked, and still in memory. */
  get isReadable(): boolean {
    return this.#checksum !== undefined && this.#buffer !== undefined;
  }

  throwIfFailed(): void {
    if (this.#phase === "failed") throw this.#error;
  }

  /** The bytes so far start in this buffer. */
  begin(buffer: Uint8Array): void {
    this.#buffer = buffer;
    this.#filledBytes = 0;
    this.#hash = canHashInPlace(buffer) ? new InPlaceHash(buffer) : undefined;
  }

  /** Bytes before a failed attempt count again or not: from here on. */
  rewind(filledBytes: number): void {
    if (filledBytes < this.#filledBytes) this.#hash?.reset();
    this.#filledBytes = filledBytes;
  }

  /** Where the next bytes belong: a source may put them there itself before it hands them to `append`. */
  room(): Uint8Array | undefined {
    return this.#buffer?.subarray(this.#filledBytes, this.length);
  }

  /** The next bytes, copied unless they lie in their place. Returns false when they do not fit: the source gave more than the block has. */
  append(chunk: Uint8Array): boolean {
    const buffer = this.#buffer;
    if (buffer === undefined || this.#filledBytes + chunk.length > this.length) return false;
    const isInPlace = chunk.buffer === buffer.buffer && chunk.byteOffset === buffer.byteOffset + this.#filledBytes;
    if (!isInPlace) buffer.set(chunk, this.#filledBytes);
    this.#filledBytes += chunk.length;
    this.#hash?.update(this.#filledBytes);
    this.#wake();
    return true;
  }

  /** The whole block has been put into the buffer. */
  setFilled(): void {
    this.#filledBytes = this.length;
  }

  /** xxh64 of all bytes so far. */
  digest(): Uint8Array {
    return this.#hash?.digest(this.#filledBytes) ?? xxh64(this.bytes() ?? new Uint8Array(0));
  }

  /** All bytes so far, not a copy: only for this turn. */
  bytes(): Uint8Array | undefined {
    return this.#buffer?.subarray(0, this.#filledBytes);
  }

  /** Copies bytes from `offset` on; returns how many (0: none yet), or undefined when the buffer is gone. */
  copyTo(target: Uint8Array, offset: number): number | undefined {
    if (this.#buffer === undefined) return undefined;
    const count = Math.min(target.length, this.#filledBytes - offset);
    if (count <= 0) return 0;
    target.set(this.#buffer.subarray(offset, offset + count));
    return count;
  }

  /** Resolves when there are more than `bytes` bytes, or the phase is no longer `filling`. */
  async progress(bytes: number): Promise<void> {
    while (this.#phase === "filling" && this.#filledBytes <= bytes) {
      await new Promise<void>((resolve) => this.#waiters.add(resolve));
    }
  }

  setVerified(checksum: Uint8Array): void {
    this.#checksum = checksum;
    this.#phase = "verified";
    this.#verified.resolve();
    this.#wake();
  }

  setStored(): void {
    this.#phase = "stored";
    this.#stored.resolve();
    this.#wake();
  }

  /** A block that was verified but could not be stored stays readable for those who wait, until its buffer goes. */
  fail(error: unknown): void {
    this.#error = error;
    this.#phase = "failed";
    this.#verified.reject(error);
    this.#stored.reject(error);
    this.#wake();
  }

  /** The buffer goes to somebody else. Of an attempt that failed nothing is left: who is in the middle waits for the next one. */
  detach(): void {
    this.#buffer = undefined;
    if (this.#phase === "filling") this.#filledBytes = 0;
    this.#wake();
  }

  #wake(): void {
    const waiters = this.#waiters;
    if (waiters.size === 0) return;
    this.#waiters = new Set();
    for (const wake of waiters) wake();
  }
}
