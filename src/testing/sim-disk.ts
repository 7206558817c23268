/**
 * A machine's disk as one simulated process sees it: operations take time, hang, fail and run out of space, and end only in a process
 * that is alive to hear it. What is on the disk is a `MemoryDisk` that outlives the process, and loses what was not synced when the
 * machine loses power.
 */

import type { Random } from "../base/random.ts";
import type { Disk, DiskFile, DiskLock, FileStat, OpenMode, OpenOptions } from "../io/disk.ts";
import type { MemoryDisk } from "../io/memory-disk.ts";
import type { SimProcess } from "./sim-world.ts";

/** Of one machine; shared by the lives of its processes. */
export class DiskTroubles {
  /** Of a flush, at most. */
  flushMs = 1;
  /** Nothing that changes the disk ends before this moment of simulated time. */
  hungUntilMs = 0;
  /** The next flush fails, and with it what it was to make durable. */
  failsNextFlush = false;
}

export type SimDiskOptions = {
  readonly disk: MemoryDisk;
  readonly process: SimProcess;
  readonly troubles: DiskTroubles;
};

type Gate = {
  readonly quick: <T>(operation: () => Promise<T>) => Promise<T>;
  readonly flush: (operation: () => Promise<void>) => Promise<void>;
  readonly isAlive: () => boolean;
};

export class SimDisk implements Disk {
  readonly #disk: MemoryDisk;
  readonly #gate: Gate;
  /** Locks that the kernel drops when the process dies. */
  readonly #locks = new Set<DiskLock>();

  constructor({ disk, process, troubles }: SimDiskOptions) {
    this.#disk = disk;
    this.#gate = gateOf(process, troubles);
    process.onDeath(() => {
      for (const lock of this.#locks) void lock.release();
    });
  }

  open(path: string, mode: OpenMode, options?: OpenOptions): Promise<DiskFile> {
    return this.#gate.quick(async () => new SimFile(await this.#disk.open(path, mode, options), this.#gate));
  }

  stat(path: string): Promise<FileStat> {
    return this.#gate.quick(() => this.#disk.stat(path));
  }

  realPath(path: string): Promise<string> {
    return this.#gate.quick(() => this.#disk.realPath(path));
  }

  list(path: string): Promise<readonly string[]> {
    return this.#gate.quick(() => this.#disk.list(path));
  }

  makeDirectory(path: string): Promise<void> {
    return this.#gate.quick(() => this.#disk.makeDirectory(path));
  }

  rename(from: string, to: string): Promise<void> {
    return this.#gate.quick(() => this.#disk.rename(from, to));
  }

  link(from: string, to: string): Promise<void> {
    return this.#gate.quick(() => this.#disk.link(from, to));
  }

  unlink(path: string): Promise<void> {
    return this.#gate.quick(() => this.#disk.unlink(path));
  }

  removeDirectory(path: string): Promise<void> {
    return this.#gate.quick(() => this.#disk.removeDirectory(path));
  }

  removeTree(path: string): Promise<void> {
    return this.#gate.quick(() => this.#disk.removeTree(path));
  }

  syncDirectory(path: string): Promise<void> {
    return this.#gate.flush(() => this.#disk.syncDirectory(path));
  }

  space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }> {
    return this.#gate.quick(() => this.#disk.space(path));
  }

  lock(path: string): Promise<DiskLock | undefined> {
    return this.#gate.quick(async () => {
      const lock = await this.#disk.lock(path);
      if (lock !== undefined) this.#locks.add(lock);
      return lock;
    });
  }
}

class SimFile implements DiskFile {
  readonly path: string;
  readonly #file: DiskFile;
  readonly #gate: Gate;

  constructor(file: DiskFile, gate: Gate) {
    this.path = file.path;
    this.#file = file;
    this.#gate = gate;
  }

  read(buffer: Uint8Array, position: number): Promise<number> {
    return this.#gate.quick(() => this.#file.read(buffer, position));
  }

  write(buffer: Uint8Array, position: number): Promise<void> {
    return this.#gate.quick(() => this.#file.write(buffer, position));
  }

  writeSync(buffer: Uint8Array, position: number): void {
    if (!this.#gate.isAlive()) throw dead();
    this.#file.writeSync(buffer, position);
  }

  readSync(buffer: Uint8Array, position: number): number {
    if (!this.#gate.isAlive()) throw dead();
    return this.#file.readSync(buffer, position);
  }

  datasync(): Promise<void> {
    return this.#gate.flush(() => this.#file.datasync());
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#gate.quick(() => this.#file.truncate(sizeBytes));
  }

  stat(): Promise<FileStat> {
    return this.#gate.quick(() => this.#file.stat());
  }

  close(): Promise<void> {
    return this.#gate.quick(() => this.#file.close());
  }
}

function gateOf(process: SimProcess, troubles: DiskTroubles): Gate {
  const { world } = process;
  const random: Random = world.random;
  const heard = <T>(operation: Promise<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      operation.then(
        (value) => process.after(0, () => resolve(value)),
        (error: Error) => process.after(0, () => reject(error)),
      );
    });
  return {
    isAlive: () => process.isAlive,
    // Effects on the page cache come at once, whoever hears of them.
    quick: (operation) => (process.isAlive ? heard(operation()) : new Promise(() => {})),
    flush: (operation) =>
      new Promise((resolve, reject) => {
        if (!process.isAlive) return;
        // The disk may have everything long before it says so, or just then.
        const isEarly = random.chance(0.3);
        let early: Promise<void> | undefined;
        const fails = troubles.failsNextFlush;
        troubles.failsNextFlush = false;
        if (isEarly && !fails) early = operation();
        const end = (): void => {
          // A crash of the machine in between is its disk's business: it ends no flush of an earlier life.
          if (!process.isAlive) return;
          if (troubles.hungUntilMs > world.nowMs) {
            world.events.after(troubles.hungUntilMs - world.nowMs, end);
            return;
          }
          if (fails) process.enter(() => reject(Object.assign(new Error("EIO: the flush failed"), { code: "EIO" })));
          else
            (early ?? operation()).then(
              () => process.enter(resolve),
              (error: Error) => process.enter(() => reject(error)),
            );
        };
        world.events.after(random.float() * troubles.flushMs, end);
      }),
  };
}

function dead(): Error {
  return Object.assign(new Error("EIO: the process is dead"), { code: "EIO" });
}
