/**
 * Files, behind a door: the real disk (`node-disk.ts`), a crashable one in memory (`memory-disk.ts`) and a faulty
 * decorator (`faulty-disk.ts`) implement it. Errors carry Node's `code` (`ENOENT`, `ENOSPC`, `EIO`, ...) unchanged:
 * each user of a disk knows best what they mean to it.
 */

export type OpenMode =
  /** Must exist. */
  | "read"
  /** Must exist; read and write. */
  | "write"
  /** Read and write; must not exist (`EEXIST`). */
  | "create"
  /** Read and write; made if absent. */
  | "open-or-create";

export type OpenOptions = {
  /** O_DIRECT: buffers, positions and lengths must be multiples of 4096, buffers from `alignedBuffer`. Falls back silently where unsupported. */
  readonly direct?: boolean;
};

export type FileStat = {
  readonly kind: "file" | "directory" | "other";
  readonly sizeBytes: number;
  readonly modifiedMs: number;
  readonly inode: number;
};

export interface DiskFile {
  readonly path: string;
  /** The kernel's number for it, for calls that take one; absent where the kernel knows nothing of the file. */
  readonly descriptor?: number;
  /** Reads up to `buffer.length` bytes at `position`; returns how many (0 at the end). */
  read(buffer: Uint8Array, position: number): Promise<number>;
  /** Writes all of `buffer` at `position`. */
  write(buffer: Uint8Array, position: number): Promise<void>;
  /** As `write`, on the calling thread: for small writes into the page cache. */
  writeSync(buffer: Uint8Array, position: number): void;
  /** As `read`, on the calling thread: for small reads that are expected in the page cache. */
  readSync(buffer: Uint8Array, position: number): number;
  /** fdatasync: what was written before the call is durable when it resolves. After a rejection nothing is known: crash. */
  datasync(): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  stat(): Promise<FileStat>;
  close(): Promise<void>;
}

export interface Disk {
  open(path: string, mode: OpenMode, options?: OpenOptions): Promise<DiskFile>;
  /** Throws `ENOENT`. Follows symbolic links. */
  stat(path: string): Promise<FileStat>;
  /** `path` with every symbolic link resolved, so that a user can see where it really leads. Throws `ENOENT`. */
  realPath(path: string): Promise<string>;
  /** Names in a directory, unsorted. */
  list(path: string): Promise<readonly string[]>;
  /** With parents; no error if it exists. */
  makeDirectory(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Hard link; `EEXIST` if `to` exists: exclusive and atomic. */
  link(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** An empty directory. */
  removeDirectory(path: string): Promise<void>;
  /** A whole tree; no error if it is absent. */
  removeTree(path: string): Promise<void>;
  /** Makes created, renamed and removed names in the directory durable. */
  syncDirectory(path: string): Promise<void>;
  /** Free and total bytes of the file system that holds `path`. */
  space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }>;
  /** An exclusive lock that the kernel drops when the process dies; `undefined` if another process holds it. */
  lock(path: string): Promise<DiskLock | undefined>;
}

export interface DiskLock {
  release(): Promise<void>;
}
