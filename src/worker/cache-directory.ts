/**
 * One cache directory: a capacity, a lock, an identity, and a state. `failed`: its disk let us down; its files are out of
 * service and nothing new goes there, but the worker lives on. `full`: the file system said so before the capacity was used up;
 * fills stop for a while, reads do not.
 *
 * Layout: `headpond-cache.json` (identity), `lock`, `versions/<fileVersionId>.data` and `.index`.
 */

import { HeadpondError } from "../base/errors.ts";
import type { FileVersionId } from "../base/ids.ts";
import { formatBytes } from "../base/units.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk, DiskLock } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { unlinkIfThere } from "./index-file.ts";

/** After the file system was full, fills are tried again this much later. */
const fullRetryMs = 5000;
/** Reads that fail before the disk counts as failed; one that fails costs only its block. */
const readErrorsMax = 3;

export type CacheIdentity = {
  readonly format: 1;
  readonly workerId?: string;
  /** File version ids mean something only within one cluster. */
  readonly clusterId?: string;
};

export type CacheDirectoryState = "healthy" | "full" | "failed";

export type CacheDirectoryDependencies = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
};

export class CacheDirectory {
  readonly path: string;
  readonly capacityBytes: number;
  readonly disk: Disk;
  /** Called once, when the directory has failed. */
  onFailed: (directory: CacheDirectory) => void = () => {};
  readonly #clock: Clock;
  readonly #logger: Logger;
  #lock: DiskLock | undefined;
  #identity: CacheIdentity = { format: 1 };
  #reservedBytes = 0;
  #failure: string | undefined;
  #fullUntilMs = 0;
  #readErrors = 0;

  constructor(
    options: { readonly path: string; readonly capacityBytes: number },
    { disk, clock, logger }: CacheDirectoryDependencies,
  ) {
    this.path = options.path;
    this.capacityBytes = options.capacityBytes;
    this.disk = disk;
    this.#clock = clock;
    this.#logger = logger.child({ directory: options.path });
  }

  get versionsPath(): string {
    return `${this.path}/versions`;
  }

  get identity(): CacheIdentity {
    return this.#identity;
  }

  get state(): CacheDirectoryState {
    if (this.#failure !== undefined) return "failed";
    return this.#clock.monotonicMs() < this.#fullUntilMs ? "full" : "healthy";
  }

  /** What an operator should know; undefined: nothing. */
  get problem(): string | undefined {
    if (this.#failure !== undefined) return `${this.path}: ${this.#failure}; its files are out of service`;
    return this.state === "full" ? `${this.path}: no space, fills stopped` : undefined;
  }

  /** Space promised to file versions, whether their bytes are there yet or not; at most `capacityBytes`. */
  get reservedBytes(): number {
    return this.#reservedBytes;
  }

  get freeBytes(): number {
    return Math.max(0, this.capacityBytes - this.#reservedBytes);
  }

  dataPath(id: FileVersionId): string {
    return `${this.versionsPath}/${id}.data`;
  }

  indexPath(id: FileVersionId): string {
    return `${this.versionsPath}/${id}.index`;
  }

  /** Takes the directory for this process. Throws `unavailable` when another one has it. Disk errors make it `failed`. */
  async open(): Promise<void> {
    try {
      await this.disk.makeDirectory(this.versionsPath);
      // A durable file in a directory whose own name is lost would be no use.
      await this.disk.syncDirectory(this.path);
      const parent = this.path.slice(0, this.path.lastIndexOf("/"));
      if (parent !== "") await this.disk.syncDirectory(parent).catch(() => {});
      this.#lock = await this.disk.lock(`${this.path}/lock`);
    } catch (error) {
      this.fail(error);
      return;
    }
    if (this.#lock === undefined) {
      throw new HeadpondError("unavailable", `${this.path} is in use by another worker: give each its own directory`);
    }
    try {
      this.#identity = await this.#readIdentity();
      const { totalBytes } = await this.disk.space(this.path);
      if (totalBytes < this.capacityBytes) {
        this.#logger.warn("the capacity is larger than the file system", {
          capacity: formatBytes(this.capacityBytes),
          total: formatBytes(totalBytes),
        });
      }
    } catch (error) {
      this.fail(error);
    }
  }

  async close(): Promise<void> {
    const lock = this.#lock;
    this.#lock = undefined;
    await lock?.release();
  }

  /** Durable when it resolves. */
  async setIdentity(identity: CacheIdentity): Promise<void> {
    const path = `${this.path}/headpond-cache.json`;
    await unlinkIfThere(this.disk, `${path}.new`);
    const file = await this.disk.open(`${path}.new`, "create");
    try {
      await file.write(Buffer.from(`${JSON.stringify(identity)}\n`), 0);
      await file.datasync();
    } finally {
      await file.close();
    }
    await this.disk.rename(`${path}.new`, path);
    await this.disk.syncDirectory(this.path);
    this.#identity = identity;
  }

  reserve(bytes: number): void {
    this.#reservedBytes += bytes;
  }

  /** Space came back, so a full file system may have some again. */
  release(bytes: number): void {
    this.#reservedBytes -= bytes;
    this.#fullUntilMs = 0;
  }

  /** Sorts what the disk threw during a fill: full stops fills, everything else the directory. Returns what to throw. */
  writeFailed(error: unknown): HeadpondError {
    const code = errorCode(error);
    if (code === "ENOSPC" || code === "EDQUOT") {
      if (this.state === "healthy") this.#logger.warn("no space: fills stop", { code });
      this.#fullUntilMs = this.#clock.monotonicMs() + fullRetryMs;
      return new HeadpondError("no-space", `${this.path}: the file system is full: free cached files or disk space`, {
        cause: error,
        details: { retryAfterMs: fullRetryMs },
      });
    }
    this.fail(error);
    return this.failure();
  }

  readFailed(error: unknown): void {
    this.#readErrors++;
    this.#logger.error("a read failed", { error: String(error), readErrors: this.#readErrors });
    if (this.#readErrors >= readErrorsMax) this.fail(error);
  }

  fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = `failed (${errorCode(error) ?? String(error)})`;
    this.#logger.error("the cache directory failed: its files are out of service", { error: String(error) });
    this.onFailed(this);
  }

  /** What users of a failed directory get. */
  failure(): HeadpondError {
    return new HeadpondError("unavailable", `${this.path}: ${this.#failure ?? "not failed"}`, {
      details: { directoryFailed: true },
    });
  }

  async #readIdentity(): Promise<CacheIdentity> {
    let text: string;
    try {
      const file = await this.disk.open(`${this.path}/headpond-cache.json`, "read");
      try {
        const buffer = Buffer.alloc(4096);
        text = buffer.subarray(0, await file.read(buffer, 0)).toString("utf8");
      } finally {
        await file.close();
      }
    } catch (error) {
      if (errorCode(error) === "ENOENT") return { format: 1 };
      throw error;
    }
    try {
      const value = JSON.parse(text) as Partial<CacheIdentity>;
      if (value.format !== 1) throw new Error(`format ${String(value.format)}`);
      return {
        format: 1,
        ...(typeof value.workerId === "string" ? { workerId: value.workerId } : {}),
        ...(typeof value.clusterId === "string" ? { clusterId: value.clusterId } : {}),
      };
    } catch (error) {
      this.#logger.error("the identity of the cache directory cannot be read: a new one will be made", {
        error: String(error),
      });
      return { format: 1 };
    }
  }
}

export function errorCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}
