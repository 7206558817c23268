/**
 * Makes names in directories durable, many at a time: whoever made one waits for a sync of its directory that *began* after
 * that, and all who wait share it. A sync that fails fails for those whom it covered, and the directory counts as not durable until one
 * succeeds. (After a failed sync of a directory the file systems that we know go read-only, so a later success does not lie.)
 */

import type { Disk } from "../io/disk.ts";

type Directory = {
  /** Names made or seen so far. */
  marks: number;
  /** Of them durable. */
  durable: number;
  /** Of them covered by the sync that runs. */
  covered: number;
  running: Promise<void> | undefined;
};

export class DurableNames {
  readonly #disk: Disk;
  /** Only those that have, or had until just now, names that may not be durable. */
  readonly #directories = new Map<string, Directory>();

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** A name in `path` may not be durable yet. */
  mark(path: string): void {
    const directory = this.#directories.get(path);
    if (directory === undefined) this.#directories.set(path, { marks: 1, durable: 0, covered: 0, running: undefined });
    else directory.marks++;
  }

  /** Whether a name in `path` may not be durable yet. */
  isPending(path: string): boolean {
    return this.#directories.has(path);
  }

  /** Resolves when every name that was marked in `path` before the call is durable. */
  async settle(path: string): Promise<void> {
    const directory = this.#directories.get(path);
    if (directory === undefined) return;
    const target = directory.marks;
    while (directory.durable < target) {
      directory.running ??= this.#sync(path, directory);
      const isCovered = directory.covered >= target;
      try {
        await directory.running;
      } catch (error) {
        if (isCovered) throw error;
      }
    }
  }

  /** As `settle`, of all directories. */
  async settleAll(): Promise<void> {
    if (this.#directories.size === 1) {
      for (const path of this.#directories.keys()) await this.settle(path);
      return;
    }
    await Promise.all([...this.#directories.keys()].map((path) => this.settle(path)));
  }

  async #sync(path: string, directory: Directory): Promise<void> {
    directory.covered = directory.marks;
    try {
      await this.#disk.syncDirectory(path);
      directory.durable = directory.covered;
    } catch (error) {
      // Removed since: with all its names.
      if ((error as { readonly code?: string }).code !== "ENOENT") throw error;
      directory.durable = directory.covered;
    } finally {
      directory.running = undefined;
      if (directory.durable === directory.marks) this.#directories.delete(path);
    }
  }
}
