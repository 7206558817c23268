/**
 * The real disk, over node:fs. Errors are Node's own, with their `code`. Files are plain descriptors: a FileHandle
 * costs more per call and closes itself behind our back when it is collected.
 */

import fs from "node:fs";
import type { Disk, DiskFile, DiskLock, FileStat, OpenMode, OpenOptions } from "./disk.ts";
import { takeFileLock } from "./file-lock.ts";

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_DIRECTORY } = fs.constants;
/** Absent outside Linux, where `direct` then means nothing. */
const directFlag: number = (fs.constants as { O_DIRECT?: number }).O_DIRECT ?? 0;

const openFlags: Readonly<Record<OpenMode, number>> = {
  read: O_RDONLY,
  write: O_RDWR,
  create: O_RDWR | O_CREAT | O_EXCL,
  "open-or-create": O_RDWR | O_CREAT,
};

export type NodeDiskOptions = {
  /** What it makes is for its owner only: it may hold secrets, as all that a master keeps does. False: the process's umask decides. */
  readonly isPrivate?: boolean;
};

export class NodeDisk implements Disk {
  readonly #fileMode: number;
  readonly #directoryMode: number;

  constructor({ isPrivate = false }: NodeDiskOptions = {}) {
    this.#fileMode = isPrivate ? 0o600 : 0o666;
    this.#directoryMode = isPrivate ? 0o700 : 0o777;
  }

  async open(path: string, mode: OpenMode, options: OpenOptions = {}): Promise<DiskFile> {
    const flags = openFlags[mode];
    const made = this.#fileMode;
    if (!options.direct || directFlag === 0) return new NodeFile(path, await openDescriptor(path, flags, made));
    try {
      return new NodeFile(path, await openDescriptor(path, flags | directFlag, made));
    } catch (error) {
      if (errorCode(error) !== "EINVAL") throw error;
      // tmpfs and others refuse O_DIRECT, some only after they have made the file: so the second try must not be exclusive.
      return new NodeFile(path, await openDescriptor(path, flags & ~O_EXCL, made));
    }
  }

  async stat(path: string): Promise<FileStat> {
    return toFileStat(await fs.promises.stat(path));
  }

  realPath(path: string): Promise<string> {
    return fs.promises.realpath(path);
  }

  async list(path: string): Promise<readonly string[]> {
    return fs.promises.readdir(path);
  }

  async makeDirectory(path: string): Promise<void> {
    await fs.promises.mkdir(path, { recursive: true, mode: this.#directoryMode });
  }

  rename(from: string, to: string): Promise<void> {
    return fs.promises.rename(from, to);
  }

  link(from: string, to: string): Promise<void> {
    return fs.promises.link(from, to);
  }

  unlink(path: string): Promise<void> {
    return fs.promises.unlink(path);
  }

  removeDirectory(path: string): Promise<void> {
    return fs.promises.rmdir(path);
  }

  removeTree(path: string): Promise<void> {
    return fs.promises.rm(path, { recursive: true, force: true });
  }

  async syncDirectory(path: string): Promise<void> {
    const descriptor = await openDescriptor(path, O_RDONLY | O_DIRECTORY, 0);
    try {
      await new Promise<void>((resolve, reject) => fs.fsync(descriptor, settle(resolve, reject)));
    } finally {
      await closeDescriptor(descriptor);
    }
  }

  async space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }> {
    const { bavail, blocks, bsize } = await fs.promises.statfs(path);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  }

  /** Makes `path` if absent, and its directory must exist; see `file-lock.ts` for how far the lock reaches. */
  async lock(path: string): Promise<DiskLock | undefined> {
    return takeFileLock(path, this.#fileMode);
  }
}

class NodeFile implements DiskFile {
  readonly path: string;
  #descriptor: number;

  constructor(path: string, descriptor: number) {
    this.path = path;
    this.#descriptor = descriptor;
  }

  get descriptor(): number {
    return this.#descriptor;
  }

  read(buffer: Uint8Array, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.read(this.#descriptor, buffer, 0, buffer.length, position, (error, count) =>
        error === null ? resolve(count) : reject(error),
      );
    });
  }

  async write(buffer: Uint8Array, position: number): Promise<void> {
    for (let written = 0; written < buffer.length; ) {
      // A write may be short, e.g. when the disk fills up: the next one then names the reason.
      written += await new Promise<number>((resolve, reject) => {
        const at = position + written;
        fs.write(this.#descriptor, buffer, written, buffer.length - written, at, (error, count) =>
          error === null ? resolve(count) : reject(error),
        );
      });
    }
  }

  writeSync(buffer: Uint8Array, position: number): void {
    for (let written = 0; written < buffer.length; ) {
      written += fs.writeSync(this.#descriptor, buffer, written, buffer.length - written, position + written);
    }
  }

  readSync(buffer: Uint8Array, position: number): number {
    return fs.readSync(this.#descriptor, buffer, 0, buffer.length, position);
  }

  datasync(): Promise<void> {
    return new Promise((resolve, reject) => fs.fdatasync(this.#descriptor, settle(resolve, reject)));
  }

  truncate(sizeBytes: number): Promise<void> {
    return new Promise((resolve, reject) => fs.ftruncate(this.#descriptor, sizeBytes, settle(resolve, reject)));
  }

  stat(): Promise<FileStat> {
    return new Promise((resolve, reject) => {
      fs.fstat(this.#descriptor, (error, stats) => (error === null ? resolve(toFileStat(stats)) : reject(error)));
    });
  }

  /** A second close does nothing: the number may already belong to another file. */
  async close(): Promise<void> {
    const descriptor = this.#descriptor;
    if (descriptor === -1) return;
    this.#descriptor = -1;
    await closeDescriptor(descriptor);
  }
}

function openDescriptor(path: string, flags: number, mode: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.open(path, flags, mode, (error, descriptor) => (error === null ? resolve(descriptor) : reject(error)));
  });
}

function closeDescriptor(descriptor: number): Promise<void> {
  return new Promise((resolve, reject) => fs.close(descriptor, settle(resolve, reject)));
}

function settle(resolve: () => void, reject: (error: Error) => void): (error?: Error | null) => void {
  return (error) => (error === null || error === undefined ? resolve() : reject(error));
}

function toFileStat(stats: fs.Stats): FileStat {
  const kind = stats.isFile() ? "file" : stats.isDirectory() ? "directory" : "other";
  return { kind, sizeBytes: stats.size, modifiedMs: stats.mtimeMs, inode: stats.ino };
}

function errorCode(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
