/**
 * Copies a large file so that others hardly notice: in pieces, past the page cache, at a bounded rate, made durable as it
 * goes and summed on the way.
 *
 * A copy through the page cache leaves gigabytes of dirty pages, and whoever syncs a small write of its own meanwhile waits behind
 * them (docs/decisions/0150). Written directly, never more than one piece is between such a write and the disk.
 */

import { assert } from "../base/assert.ts";
import { KiB, MiB } from "../base/units.ts";
import { alignedBuffer, directAlignmentBytes } from "./aligned-buffer.ts";
import type { Clock } from "./clock.ts";
import type { Disk } from "./disk.ts";
import { Xxh64 } from "./hash.ts";

export type PacedCopyLimits = {
  /** One write; a multiple of 4096. Others wait for at most so many bytes. */
  readonly pieceBytes: number;
  readonly bytesPerSecond: number;
  /** What may be in the disk's own cache before it is told to write it. */
  readonly unsyncedBytesMax: number;
};

export const pacedCopyLimits: PacedCopyLimits = {
  pieceBytes: 256 * KiB,
  bytesPerSecond: 256 * MiB,
  unsyncedBytesMax: 16 * MiB,
};

export type PacedCopyRequest = {
  readonly from: { read(buffer: Uint8Array, position: number): Promise<number> };
  /** Must not exist. Is removed again when the copy fails. */
  readonly to: string;
  readonly sizeBytes: number;
  /** Stands in for the first bytes of `from`. */
  readonly head: Uint8Array;
  /** What is copied, as position and length, ascending; positions are multiples of 4096. All else becomes a hole: zeros. */
  readonly runs: Iterable<readonly [position: number, length: number]>;
  readonly signal?: AbortSignal;
};

export type FileSum = { readonly bytes: number; readonly xxh64: string };

export class PacedCopier {
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #limits: PacedCopyLimits;

  constructor(options: { readonly disk: Disk; readonly clock: Clock; readonly limits?: Partial<PacedCopyLimits> }) {
    this.#disk = options.disk;
    this.#clock = options.clock;
    this.#limits = { ...pacedCopyLimits, ...options.limits };
    assert(this.#limits.pieceBytes % directAlignmentBytes === 0, "pieces of a direct copy are multiples of 4096 bytes");
  }

  /** Resolves when the copy is durable (its name is not: sync the directory), with the sum of what was written. */
  async copy(request: PacedCopyRequest): Promise<FileSum> {
    const { to, sizeBytes, head } = request;
    const { pieceBytes } = this.#limits;
    assert(head.length <= pieceBytes, `the head of a copy has at most ${pieceBytes} bytes`);
    const file = await this.#disk.open(to, "create", { direct: true });
    let isDone = false;
    try {
      const sum = await this.#copyPieces(request, file);
      await file.truncate(sizeBytes);
      await file.datasync();
      isDone = true;
      return sum;
    } finally {
      await file.close();
      if (!isDone) await this.#disk.removeTree(to);
    }
  }

  async #copyPieces(
    { from, sizeBytes, head, runs, signal }: PacedCopyRequest,
    file: { write(buffer: Uint8Array, position: number): Promise<void>; datasync(): Promise<void> },
  ): Promise<FileSum> {
    const { pieceBytes, bytesPerSecond, unsyncedBytesMax } = this.#limits;
    const clock = this.#clock;
    const hash = new Xxh64();
    // Two: while one is written the next is read.
    const buffers = [alignedBuffer(pieceBytes), alignedBuffer(pieceBytes)] as const;
    const pieces = piecesOf(runs, pieceBytes);
    const load = async (buffer: Buffer): Promise<Piece | undefined> => {
      const next = pieces.next();
      if (next.done === true) return undefined;
      const { value } = next;
      const bytes = buffer.subarray(0, value.length);
      await readFully(from, bytes, value.position);
      if (value.position === 0) bytes.set(head);
      return { bytes, position: value.position };
    };
    let summedBytes = 0;
    let unsyncedBytes = 0;
    let dueMs = clock.monotonicMs();
    let next = load(buffers[0]);
    try {
      for (let turn = 0; ; turn ^= 1) {
        signal?.throwIfAborted();
        const piece = await next;
        await this.#sumZeros(hash, (piece?.position ?? sizeBytes) - summedBytes);
        if (piece === undefined) break;
        next = load(buffers[turn ^ 1] as Buffer);
        next.catch(() => {});
        const { bytes, position } = piece;
        hash.update(bytes);
        summedBytes = position + bytes.length;
        // Direct writes come in whole pages.
        const paddedBytes = Math.ceil(bytes.length / directAlignmentBytes) * directAlignmentBytes;
        await file.write((buffers[turn] as Buffer).subarray(0, paddedBytes).fill(0, bytes.length), position);
        unsyncedBytes += bytes.length;
        if (unsyncedBytes >= unsyncedBytesMax) {
          await file.datasync();
          unsyncedBytes = 0;
        }
        // Time that the disk took beyond its share is not made up for: bursts are what hurts.
        const nowMs = clock.monotonicMs();
        dueMs = Math.max(dueMs, nowMs - burstMs) + (bytes.length / bytesPerSecond) * 1000;
        if (dueMs - nowMs >= 1) await clock.sleep(dueMs - nowMs, signal);
      }
    } finally {
      // Nobody may close `from` under a read.
      await next.catch(() => {});
    }
    return { bytes: sizeBytes, xxh64: hash.hex() };
  }

  async #sumZeros(hash: Xxh64, count: number): Promise<void> {
    for (let left = count; left > 0; left -= zeros.length) {
      hash.update(zeros.subarray(0, Math.min(left, zeros.length)));
      await this.#clock.nextTurn();
    }
  }
}

type Piece = { readonly bytes: Buffer; readonly position: number };

const zeros = new Uint8Array(MiB);

function* piecesOf(
  runs: PacedCopyRequest["runs"],
  pieceBytes: number,
): Generator<{ position: number; length: number }, void> {
  for (const [position, length] of runs) {
    assert(position % directAlignmentBytes === 0, `a run begins at ${position}, which is no multiple of 4096`);
    for (let done = 0; done < length; done += pieceBytes) {
      yield { position: position + done, length: Math.min(pieceBytes, length - done) };
    }
  }
}

/** Timers are a millisecond late or more: so much is made up for. */
const burstMs = 5;

/** All of `buffer`; what lies behind the end of the file becomes zeros. */
async function readFully(from: PacedCopyRequest["from"], buffer: Buffer, position: number): Promise<void> {
  for (let done = 0; done < buffer.length; ) {
    const count = await from.read(buffer.subarray(done), position + done);
    if (count === 0) {
      buffer.fill(0, done);
      return;
    }
    done += count;
  }
}
