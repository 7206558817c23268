/**
 * Verified bytes of a file, in order, at the pace of whoever takes them. What is here comes from memory or disk, what is
 * missing is fetched some blocks ahead. A whole file whose digest is still to be confirmed gives away its last block
 * only after the digest matched.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { BlockIndex } from "../base/ids.ts";
import type { BufferPool } from "../io/aligned-buffer.ts";
import type { BlockCache } from "./block-cache.ts";
import type { CachedFile } from "./cached-file.ts";
import type { Fetcher } from "./fetcher.ts";
import type { FileDigests, PassingDigest } from "./file-digest.ts";
import type { FillBuffers, Loan } from "./fill-buffers.ts";
import { readerUrgency } from "./slots.ts";
import { untilAborted } from "./until-aborted.ts";

export type ReaderLimits = {
  /** Bytes fetched ahead of each reader. */
  readonly prefetchBytes: number;
  /** Pieces that are on their way to one reader at once. */
  readonly piecesMax: number;
  /** Of what lies on the disk, given away at once where the sink takes files: at least so much, else the way costs more than the bytes. */
  readonly sendFileBytesMin: number;
  /** At most so much, before the blocks that follow are looked at again. */
  readonly sendFileBytesMax: number;
};

export const readerLimits: ReaderLimits = {
  prefetchBytes: 32 * 1024 * 1024,
  piecesMax: 3,
  sendFileBytesMin: 256 * 1024,
  sendFileBytesMax: 64 * 1024 * 1024,
};

/** A reader that finds no pooled buffer free goes on with a small one of its own: slow readers cannot starve others. */
const privatePieceBytes = 64 * 1024;
/** Fetched ahead of a file that is not kept: in memory only, which must not lose them before they are read. */
const passingBlocks = 4;
/** Times that a read goes on in another directory after one failed. */
const reopensMax = 3;

export type ByteSink = {
  /** Resolves when the bytes are gone and the buffer may be used again; called before earlier promises resolved. */
  write(bytes: Uint8Array): Promise<void>;
  /**
   * Takes a range of a file by its descriptor, after all writes have resolved. Resolves with how many bytes are gone: fewer than
   * asked for if the file did not give more. Absent: the sink takes bytes only.
   */
  readonly sendFile?: (range: FileRange, onSent: (bytes: number) => void) => Promise<number>;
};

export type FileRange = { readonly descriptor: number; readonly position: number; readonly lengthBytes: number };

export type ReadRequest = {
  readonly position: number;
  readonly length: number;
  readonly signal?: AbortSignal;
};

export type ReaderDependencies = {
  readonly cache: BlockCache;
  readonly fetcher: Fetcher;
  readonly digests: FileDigests;
  /** Of the blocks that are in memory: readers are sent some of them without a copy. */
  readonly buffers: FillBuffers;
  /** For the pieces of all readers; bounds their memory together with the small private ones. */
  readonly pool: BufferPool;
  readonly limits: ReaderLimits;
  readonly onRead: (file: CachedFile, bytes: number, hit: boolean) => void;
};

export class Reader {
  readonly #deps: ReaderDependencies;

  constructor(dependencies: ReaderDependencies) {
    this.#deps = dependencies;
  }

  /**
   * Writes exactly the bytes [position, position + length) to `sink`. Throws `invalid` for a range outside the file,
   * `version-mismatch` (`details.gone`) when missing bytes can no longer be had, `corrupt`, `no-space`, `overloaded`,
   * `under-store`, or what the sink threw.
   */
  async read(descriptor: FileDescriptor, request: ReadRequest, sink: ByteSink): Promise<void> {
    const { position, length } = request;
    if (!(position >= 0 && length >= 0 && position + length <= descriptor.sizeBytes)) {
      const range = `${position} + ${length}`;
      throw new HeadpondError("invalid", `${descriptor.path} has ${descriptor.sizeBytes} bytes, not ${range}`);
    }
    const isWhole = position === 0 && length === descriptor.sizeBytes;
    let at = position;
    for (let reopens = 0; ; reopens++) {
      const file = await this.#deps.cache.openOrPass(descriptor);
      file.acquire();
      try {
        await this.#pump(file, request, isWhole, at, sink, (sent) => {
          at = sent;
        });
        return;
      } catch (error) {
        const directoryFailed = isHeadpondError(error, "unavailable") && file.isGone;
        if (!directoryFailed || reopens >= reopensMax) throw error;
      } finally {
        file.release();
      }
    }
  }

  async #pump(
    file: CachedFile,
    { position, length, signal }: ReadRequest,
    isWhole: boolean,
    from: number,
    sink: ByteSink,
    onSent: (at: number) => void,
  ): Promise<void> {
    const { fetcher, digests, limits, onRead } = this.#deps;
    const { blockSizeBytes } = file.descriptor;
    const end = position + length;
    const writes = new Set<Promise<void>>();
    const spare: Uint8Array[] = [];
    // What is not kept is summed as it passes; from its middle on that cannot be.
    const passing = isWhole && file.isPassing ? digests.follow(file) : undefined;
    if (passing !== undefined && from > 0) throw noRoomHalfway(file);
    let passed = false;
    let failure: { readonly error: unknown } | undefined;
    let prefetched = Math.floor(from / blockSizeBytes);
    try {
      for (let at = from; at < end; ) {
        if (failure !== undefined) throw failure.error;
        signal?.throwIfAborted();
        const block = Math.floor(at / blockSizeBytes) as BlockIndex;
        const blockEnd = Math.min((block + 1) * blockSizeBytes, end);
        prefetched = this.#prefetch(file, Math.max(prefetched, block), block, end);
        const isLast = isWhole && blockEnd === end;
        if (isLast && passing === undefined && digests.isPending(file)) await digests.verify(file, signal);
        if (isLast && passing !== undefined && !passed) {
          await this.#sum(file, block, at, blockEnd, passing, spare, signal);
          passed = true;
        }
        if (sink.sendFile !== undefined) {
          const lastBegin = Math.floor((end - 1) / blockSizeBytes) * blockSizeBytes;
          const onDisk = this.#bytesOnDisk(file, at, isWhole && digests.isPending(file) ? lastBegin : end);
          if (onDisk >= limits.sendFileBytesMin) {
            const last = Math.floor((at + onDisk - 1) / blockSizeBytes) as BlockIndex;
            prefetched = this.#prefetch(file, Math.max(prefetched, last), last, end);
            await Promise.all(writes);
            const sent = failure === undefined ? await this.#sendFile(file, at, onDisk, sink.sendFile) : 0;
            at += sent;
            onSent(at);
            if (sent > 0) continue;
          }
        }
        while (writes.size >= limits.piecesMax) await Promise.race(writes);
        const hit = fetcher.isReady(file, block);
        const piece = await this.#take(file, block, at, blockEnd, spare, signal);
        if (!passed) passing?.update(piece.bytes);
        at += piece.bytes.length;
        onSent(at);
        onRead(file, piece.bytes.length, hit);
        const write = sink
          .write(piece.bytes)
          .catch((error: unknown) => {
            failure ??= { error };
          })
          .finally(() => {
            writes.delete(write);
            piece.giveBack();
          });
        writes.add(write);
      }
    } finally {
      await Promise.all(writes);
    }
    if (failure !== undefined) throw (failure as { readonly error: unknown }).error;
  }

  /**
   * The next checked bytes from `at` on, at most up to `blockEnd`: where they lie in memory if they may be lent, else copied out of there
   * or off the disk. `spare`: small buffers of this stream, to be used again.
   */
  async #take(
    file: CachedFile,
    block: BlockIndex,
    at: number,
    blockEnd: number,
    spare: Uint8Array[],
    signal: AbortSignal | undefined,
  ): Promise<Loan> {
    const { fetcher, buffers, pool } = this.#deps;
    const options = { urgency: readerUrgency, ...(signal === undefined ? {} : { signal }) };
    const offset = at - block * file.descriptor.blockSizeBytes;
    if (!fetcher.isReady(file, block)) await untilAborted(fetcher.start(file, block, options).verified, signal);
    const fill = fetcher.current(file, block);
    const loan = fill?.isReadable ? buffers.lend(fill, offset, Math.min(pool.bufferBytes, blockEnd - at)) : undefined;
    if (loan !== undefined) return loan;
    const pooled = pool.tryTake();
    const buffer = pooled ?? spare.pop() ?? new Uint8Array(privatePieceBytes);
    const giveBack = (): void => {
      if (pooled !== undefined) pool.give(pooled);
      else spare.push(buffer);
    };
    try {
      const bytes = buffer.subarray(0, Math.min(buffer.length, blockEnd - at));
      await fetcher.readPiece(file, block, offset, bytes, options);
      return { bytes, giveBack };
    } catch (error) {
      giveBack();
      throw error;
    }
  }

  /** The last block of a file that passes: it leaves after the digest of the whole has matched. */
  async #sum(
    file: CachedFile,
    block: BlockIndex,
    from: number,
    blockEnd: number,
    digest: PassingDigest,
    spare: Uint8Array[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    for (let at = from; at < blockEnd; ) {
      const piece = await this.#take(file, block, at, blockEnd, spare, signal);
      digest.update(piece.bytes);
      at += piece.bytes.length;
      piece.giveBack();
    }
    digest.verify();
  }

  /**
   * How many bytes from `at` on, at most up to `end`, can be sent off the disk. Blocks that were read back to be checked are in the page
   * cache, and leave from there better than from a buffer of ours; what has just been filled is not.
   */
  #bytesOnDisk(file: CachedFile, at: number, end: number): number {
    const { limits } = this.#deps;
    const { blockSizeBytes } = file.descriptor;
    const stop = Math.min(end, at + limits.sendFileBytesMax);
    let reached = at;
    while (reached < stop) {
      const block = Math.floor(reached / blockSizeBytes) as BlockIndex;
      if (!file.has(block) || !file.isChecked(block)) break;
      reached = Math.min((block + 1) * blockSizeBytes, stop);
    }
    return reached - at;
  }

  /** Returns how many bytes are gone: 0 where the disk has no descriptors, or fails. */
  async #sendFile(
    file: CachedFile,
    position: number,
    lengthBytes: number,
    send: NonNullable<ByteSink["sendFile"]>,
  ): Promise<number> {
    const sent = await file.withDescriptor((descriptor) =>
      send({ descriptor, position, lengthBytes }, (bytes) => this.#deps.onRead(file, bytes, true)),
    );
    return sent ?? 0;
  }

  /** Starts fills of the blocks ahead; returns the first block that was not looked at. */
  #prefetch(file: CachedFile, from: number, current: number, end: number): number {
    const { fetcher, limits } = this.#deps;
    const { blockSizeBytes } = file.descriptor;
    const window = file.isPassing ? passingBlocks : Math.max(2, Math.floor(limits.prefetchBytes / blockSizeBytes));
    const stop = Math.min(current + window, Math.ceil(end / blockSizeBytes));
    let block = from;
    for (; block < stop; block++) {
      // What is here but not yet compared is read one block ahead only: the disk is near.
      if (file.has(block as BlockIndex) && block > current + 1) break;
      if (!fetcher.isReady(file, block as BlockIndex)) {
        fetcher.start(file, block as BlockIndex, { urgency: readerUrgency });
      }
    }
    return block;
  }
}

function noRoomHalfway(file: CachedFile): HeadpondError {
  const message = `${file.descriptor.path}: its cache directory failed, and there is no room in another: read it again`;
  return new HeadpondError("unavailable", message);
}
