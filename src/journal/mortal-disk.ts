/**
 * The disk as one process sees it, for tests: once the process is dead it changes nothing any more, not even by what it
 * had begun. Without this a journal that a test has given up could go on beside its successor.
 */

import type { Disk, DiskFile, DiskLock } from "../io/disk.ts";

export type MortalDisk = {
  readonly disk: Disk;
  /** As the kernel ends a process: its files are closed and its locks are free. */
  readonly kill: () => Promise<void>;
};

/** `operations`: how many it lives to begin. */
export function mortalDisk(real: Disk, operations = Number.POSITIVE_INFINITY): MortalDisk {
  let left = operations;
  let dead = false;
  const files = new Set<DiskFile>();
  const locks = new Set<DiskLock>();
  const fate = (): Error => Object.assign(new Error("EIO: the process is dead"), { code: "EIO" });
  const guard = <T extends object>(target: T): T =>
    new Proxy(target, {
      get(of, key) {
        const value: unknown = Reflect.get(of, key, of);
        if (typeof value !== "function") return value;
        return (...args: readonly unknown[]): unknown => {
          if (left-- <= 0) dead = true;
          if (dead && String(key).endsWith("Sync")) throw fate();
          if (dead) return Promise.reject(fate());
          const result: unknown = Reflect.apply(value, of, args);
          if (key === "lock") {
            return (result as Promise<DiskLock | undefined>).then((lock) => {
              if (lock !== undefined) locks.add(lock);
              return lock;
            });
          }
          if (key !== "open") return result;
          return (result as Promise<DiskFile>).then((file) => {
            files.add(file);
            if (!dead) return guard(file);
            throw fate();
          });
        };
      },
    });
  return {
    disk: guard(real),
    kill: async () => {
      dead = true;
      for (const file of files) await file.close().catch(() => {});
      for (const lock of locks) await lock.release();
    },
  };
}
