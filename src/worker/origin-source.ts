/**
 * Bytes of a block from its under store, under the content's etag: what arrives is exactly that content, or nothing.
 * Rides out short faults (going on where the last attempt broke off) and throttling, both within bounds.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { MountId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { UnderStore } from "../under-store/under-store.ts";
import type { Fill } from "./fill.ts";

export type OriginLimits = {
  /** Reads that fail before the block counts as not to be had now. */
  readonly attemptsMax: number;
  /** Wait before the second attempt; doubles. */
  readonly backoffMs: number;
  /** How long throttling is waited out in all. */
  readonly patienceMs: number;
  /** No bytes for so long: the attempt is given up. */
  readonly stallTimeoutMs: number;
};

export const originLimits: OriginLimits = {
  attemptsMax: 4,
  backoffMs: 200,
  patienceMs: 30_000,
  stallTimeoutMs: 10_000,
};

export type OriginDependencies = {
  readonly clock: Clock;
  readonly limits: OriginLimits;
  /** Throws `no-mount` or `unavailable`. */
  readonly underStore: (mountId: MountId) => Promise<UnderStore>;
  /** Every byte that arrived, also of attempts that failed. */
  readonly onBytes: (fill: Fill, bytes: number) => void;
};

/**
 * Fills the block to its end, from `fill.filledBytes` on: bytes before must come from this origin, too. Throws
 * `version-mismatch` when the content is no longer there; the file is marked stale then.
 */
export async function readOrigin(fill: Fill, dependencies: OriginDependencies, signal: AbortSignal): Promise<void> {
  const { clock, limits } = dependencies;
  const throttledSinceMs = clock.monotonicMs();
  for (let attempt = 1; ; ) {
    try {
      await readOnce(fill, dependencies, signal);
      return;
    } catch (thrown) {
      if (signal.aborted) throw signal.reason;
      const error = toHeadpondError(thrown);
      if (error.code === "version-mismatch" || error.code === "not-found") {
        fill.file.setStale();
        throw changedContent(fill, error);
      }
      if (error.code === "overloaded") {
        const waitMs = Number(error.details?.["retryAfterMs"] ?? 1000);
        const waitedMs = clock.monotonicMs() - throttledSinceMs;
        if (waitedMs + waitMs > limits.patienceMs) throw error;
        await clock.sleep(waitMs, signal);
        continue;
      }
      if (!error.retryable || attempt >= limits.attemptsMax) throw error;
      await clock.sleep(limits.backoffMs * 2 ** (attempt - 1), signal);
      attempt++;
    }
  }
}

async function readOnce(fill: Fill, dependencies: OriginDependencies, signal: AbortSignal): Promise<void> {
  const { clock, limits, underStore, onBytes } = dependencies;
  const { descriptor } = fill.file;
  const store = await underStore(descriptor.mountId);
  const room = fill.room();
  const attempt = new AbortController();
  const onAbort = (): void => attempt.abort(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  let timer = clock.timer(limits.stallTimeoutMs, () => stalled());
  const stalled = (): void => {
    const message = `${descriptor.path}: ${store.uri} gave no bytes for ${limits.stallTimeoutMs} ms`;
    attempt.abort(new HeadpondError("under-store", message));
  };
  const stopped = new Promise<never>((_, reject) => {
    attempt.signal.addEventListener("abort", () => reject(attempt.signal.reason as Error), { once: true });
  });
  stopped.catch(() => {});
  try {
    const reading = store.read(descriptor.key, {
      position: fill.block * descriptor.blockSizeBytes + fill.filledBytes,
      length: fill.length - fill.filledBytes,
      etag: descriptor.etag,
      signal: attempt.signal,
      ...(room === undefined ? {} : { into: room }),
      onChunk: (chunk) => {
        // A store that ignores its signal must not write into a buffer that has another owner by now.
        if (attempt.signal.aborted) throw attempt.signal.reason;
        timer.clear();
        timer = clock.timer(limits.stallTimeoutMs, stalled);
        onBytes(fill, chunk.length);
        if (!fill.append(chunk)) throw wrongLength(fill, "more bytes than asked for");
      },
    });
    reading.catch(() => {});
    await Promise.race([reading, stopped]);
    if (fill.filledBytes !== fill.length) throw wrongLength(fill, `${fill.filledBytes} of ${fill.length} bytes`);
  } finally {
    attempt.abort(new HeadpondError("cancelled", "the attempt is over"));
    timer.clear();
    signal.removeEventListener("abort", onAbort);
  }
}

function wrongLength(fill: Fill, what: string): HeadpondError {
  return new HeadpondError(
    "under-store",
    `${fill.file.descriptor.path}: the under store gave ${what} of block ${fill.block}`,
  );
}

export function changedContent(fill: Pick<Fill, "file" | "block">, cause?: unknown): HeadpondError {
  const { descriptor } = fill.file;
  return new HeadpondError(
    "version-mismatch",
    `${descriptor.path} (${descriptor.id}): the under store no longer has this content, and block ${fill.block} is not held here: read the file again`,
    { cause, details: { gone: true } },
  );
}
