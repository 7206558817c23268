/**
 * Reads in the background what is held and compares it with its checksums, so that damage is found before a reader or another
 * worker asks for it: least urgent of all, never faster than its rate, and not at all while other bytes are on their way. Files that
 * were there when the worker started come first; each comes again after a while. A damaged block is dropped and fetched again
 * from elsewhere (`cached-file.ts` drops it, so that nobody gets it); masters hear of both.
 */

import { type HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { BlockIndex, FileVersionId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { BlockCache } from "./block-cache.ts";
import type { CachedFile } from "./cached-file.ts";
import type { Fetcher } from "./fetcher.ts";
import type { FillBuffers } from "./fill-buffers.ts";
import { loadUrgency, type Urgency } from "./slots.ts";

export type ScrubLimits = {
  readonly bytesPerSecond: number;
  /** After its start a worker has other things to do. */
  readonly firstAfterMs: number;
  /** Each file is read again after so long. */
  readonly againAfterMs: number;
  /** How often is looked whether something is due, or everything else has become quiet. */
  readonly lookMs: number;
};

export const scrubLimits: ScrubLimits = {
  bytesPerSecond: 32 * 1024 * 1024,
  firstAfterMs: 60_000,
  againAfterMs: 7 * 24 * 3_600_000,
  lookMs: 5000,
};

/** Behind every load. */
export const scrubUrgency: Urgency = loadUrgency(0) + 1;

export type BackgroundScrubDependencies = {
  readonly cache: Pick<BlockCache, "list" | "get">;
  readonly buffers: Pick<FillBuffers, "take" | "give">;
  readonly fetcher: Pick<Fetcher, "start" | "activeFills">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: ScrubLimits;
  readonly onBytes?: (bytes: number) => void;
};

export class BackgroundScrub {
  readonly #deps: BackgroundScrubDependencies;
  readonly #closing = new AbortController();
  readonly #loop: Promise<void>;
  /** Monotonic times at which versions are due. */
  readonly #dueMs = new Map<FileVersionId, number>();
  #bytes = 0;
  #rounds = 0;

  constructor(dependencies: BackgroundScrubDependencies) {
    this.#deps = dependencies;
    this.#loop = this.#run(this.#closing.signal);
  }

  /** Bytes that were read back. */
  get scrubbedBytes(): number {
    return this.#bytes;
  }

  /** How often nothing more was due. */
  get roundCount(): number {
    return this.#rounds;
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error("the worker is stopping"));
    await this.#loop;
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, limits, cache, logger } = this.#deps;
    // Those that are there now come from an earlier life.
    for (const { id } of cache.list()) this.#dueMs.set(id, clock.monotonicMs());
    await clock.sleep(limits.firstAfterMs, signal).catch(() => {});
    while (!signal.aborted) {
      const file = this.#nextDue();
      try {
        if (file === undefined) {
          this.#rounds++;
          await clock.sleep(limits.lookMs, signal);
          continue;
        }
        await this.#scrub(file, signal);
      } catch (error) {
        if (signal.aborted) return;
        const { code, message }: HeadpondError = toHeadpondError(error);
        logger.warn("a file could not be scrubbed: it comes again later", { id: file?.id, code, error: message });
      }
      if (file !== undefined) this.#dueMs.set(file.id, clock.monotonicMs() + limits.againAfterMs);
    }
  }

  /** The one that has waited longest. Versions that are gone are forgotten, new ones noted. */
  #nextDue(): CachedFile | undefined {
    const { cache, clock, limits } = this.#deps;
    const nowMs = clock.monotonicMs();
    for (const id of this.#dueMs.keys()) if (cache.get(id) === undefined) this.#dueMs.delete(id);
    let next: CachedFile | undefined;
    let nextMs = nowMs;
    for (const file of cache.list()) {
      const dueMs = this.#dueMs.get(file.id);
      if (dueMs === undefined) this.#dueMs.set(file.id, nowMs + limits.againAfterMs);
      else if (dueMs <= nextMs) [next, nextMs] = [file, dueMs];
    }
    return next;
  }

  async #scrub(file: CachedFile, signal: AbortSignal): Promise<void> {
    const { buffers, clock, fetcher, limits, logger, onBytes } = this.#deps;
    for (let block = 0 as BlockIndex; block < file.blockCount; block++) {
      if (!file.has(block)) continue;
      while (fetcher.activeFills > 0) await clock.sleep(limits.lookMs, signal);
      const length = file.blockLength(block);
      await clock.sleep((length / limits.bytesPerSecond) * 1000, signal);
      if (!file.has(block)) continue;
      const buffer = await buffers.take(signal);
      try {
        await file.readBlock(block, buffer);
      } catch (error) {
        if (!isHeadpondError(error, "corrupt")) throw error;
      } finally {
        buffers.give(buffer);
      }
      this.#bytes += length;
      onBytes?.(length);
      if (file.isGone) return;
      if (file.has(block)) continue;
      // Who reads it next may be luckier; that it was damaged is told all the same.
      await fetcher.start(file, block, { urgency: scrubUrgency }).stored.then(
        () => logger.info("a damaged block was fetched again", { id: file.id, path: file.descriptor.path, block }),
        (error: unknown) =>
          logger.warn("a damaged block could not be fetched again yet", { id: file.id, block, error }),
      );
    }
  }
}
