/**
 * Segments that are ready before they are needed: zero-filled and durable, so that a flush of the log writes neither
 * sizes nor extents, or recycled from the part of the log that was cut. The one that waits is also the reserve with
 * which a full disk is met: when it is used up, the journal refuses proposals until there is space again.
 */

import { HeadpondError } from "../base/errors.ts";
import { formatBytes, MiB } from "../base/units.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk, DiskFile } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";

const fillBytes = 4 * MiB;
/** After a full disk: how long until the next attempt. */
const retryMs = 250;

export type SpareSegmentsOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly directory: string;
  readonly segmentBytes: number;
  /** Recycled segments that are kept; more are deleted. */
  readonly maxSpares: number;
  /** Segments are not made when less than this would stay free. */
  readonly reserveBytes: number;
};

export class SpareSegments {
  readonly #options: SpareSegmentsOptions;
  /** Paths of complete spares. */
  readonly #ready: string[] = [];
  #nextNumber = 1;
  #preparing: Promise<void> | undefined;
  /** Why the last attempt failed, and when the next one may begin. */
  #refusal: { readonly error: HeadpondError; readonly untilMs: number } | undefined;
  #closed = false;

  constructor(options: SpareSegmentsOptions) {
    this.#options = options;
  }

  get count(): number {
    return this.#ready.length;
  }

  /** Adopts the complete spares that an earlier run left, removes the incomplete ones, and sees that one is ready. */
  async open(): Promise<void> {
    const { disk, directory, segmentBytes, maxSpares } = this.#options;
    for (const name of await disk.list(directory)) {
      const match = /^spare-([0-9]+)\.wal(\.new)?$/.exec(name);
      if (match === null) continue;
      const path = `${directory}/${name}`;
      this.#nextNumber = Math.max(this.#nextNumber, Number(match[1]) + 1);
      const complete = match[2] === undefined && (await disk.stat(path)).sizeBytes === segmentBytes;
      if (complete && this.#ready.length < maxSpares) this.#ready.push(path);
      else await disk.unlink(path);
    }
    this.prepare();
  }

  /** Begins to make a spare in the background if none is ready. Its failure shows when one is taken. */
  prepare(): void {
    if (this.#ready.length > 0 || this.#preparing !== undefined || this.#closed) return;
    if (this.#refusal !== undefined && this.#options.clock.monotonicMs() < this.#refusal.untilMs) return;
    this.#preparing = this.#make()
      .then(
        () => {
          this.#refusal = undefined;
        },
        (error: unknown) => {
          this.#refusal = { error: refusalOf(error), untilMs: this.#options.clock.monotonicMs() + retryMs };
          this.#options.logger.warn("no spare WAL segment", { error: this.#refusal.error.message });
        },
      )
      .finally(() => {
        this.#preparing = undefined;
      });
  }

  /** A spare, open, for the caller to rename. Throws `no-space` when there is none and none can be made. */
  async take(): Promise<DiskFile> {
    if (this.#ready.length === 0) {
      this.prepare();
      await this.#preparing;
    }
    const path = this.#ready.shift();
    if (path === undefined) {
      throw (
        this.#refusal?.error ?? new HeadpondError("unavailable", `${this.#options.directory}: the journal is closing`)
      );
    }
    return this.#options.disk.open(path, "write");
  }

  /** Takes over a segment of the cut part of the log, or deletes it. */
  async recycle(path: string, reusable: boolean): Promise<void> {
    const { disk, directory, maxSpares } = this.#options;
    if (!reusable || this.#ready.length >= maxSpares) return disk.unlink(path);
    const spare = `${directory}/spare-${this.#nextNumber++}.wal`;
    await disk.rename(path, spare);
    this.#ready.push(spare);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#preparing;
  }

  async #make(): Promise<void> {
    const { disk, directory, segmentBytes, reserveBytes } = this.#options;
    const { freeBytes } = await disk.space(directory);
    if (freeBytes < segmentBytes + reserveBytes) {
      throw new HeadpondError(
        "no-space",
        `${directory}: ${formatBytes(freeBytes)} free, a new WAL segment needs ${formatBytes(segmentBytes)} and a reserve of ${formatBytes(reserveBytes)}: free some space, the journal then goes on by itself`,
      );
    }
    const path = `${directory}/spare-${this.#nextNumber++}.wal`;
    const unfinished = `${path}.new`;
    const file = await disk.open(unfinished, "create");
    try {
      const zeros = new Uint8Array(Math.min(fillBytes, segmentBytes));
      for (let at = 0; at < segmentBytes; at += zeros.length) {
        await file.write(zeros.subarray(0, Math.min(zeros.length, segmentBytes - at)), at);
        // In small portions, or one big flush would hold up the log's own.
        await file.datasync();
      }
      await file.close();
      await disk.rename(unfinished, path);
    } catch (error) {
      await file.close();
      await disk.unlink(unfinished).catch(() => {});
      throw error;
    }
    this.#ready.push(path);
  }
}

function refusalOf(error: unknown): HeadpondError {
  if (error instanceof HeadpondError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const code = (error as { code?: unknown }).code;
  const full = code === "ENOSPC" || code === "EDQUOT";
  return new HeadpondError(full ? "no-space" : "unavailable", `cannot make a WAL segment: ${message}`, {
    cause: error,
  });
}
