/**
 * A disk in memory that can crash. Until `datasync`, bytes are a promise: a crash keeps an arbitrary subset of the
 * unsynced writes, each whole, torn at 512-byte sectors, or not at all. Until `syncDirectory`, names are a promise: a
 * crash keeps an arbitrary prefix of the unsynced changes of names, in the order in which they were made. `datasync` of
 * a new file does not make its name durable, as POSIX has it.
 *
 * Operations take effect when they are called and resolve in a microtask, so that a simulation stays deterministic.
 * Left out: permissions, symbolic links, alignment of direct files.
 */

import type { Random } from "../base/random.ts";
import type { Disk, DiskFile, DiskLock, FileStat, OpenMode, OpenOptions } from "./disk.ts";
import { diskError, MemoryDirectory, MemoryFileNode, NameTree } from "./memory-names.ts";
import { type SparseBytes, sparsePageBytes } from "./sparse-bytes.ts";

const unlimitedBytes = 2 ** 50;

export type MemoryDiskOptions = {
  /** Room for all files together; beyond it writes fail with `ENOSPC`. Counted in pages of 4096 bytes. */
  readonly capacityBytes?: number;
  /** For the time stamps of files. */
  readonly wallMs?: () => number;
};

export class MemoryDisk implements Disk {
  /** May be changed: a disk that is full now and has room later. */
  capacityBytes: number;
  readonly #wallMs: () => number;
  readonly #tree = new NameTree();
  readonly #locks = new Set<MemoryFileNode>();
  /** Raised by each crash: files and locks of an earlier life are dead. */
  #life = 0;

  constructor(options: MemoryDiskOptions = {}) {
    this.capacityBytes = options.capacityBytes ?? unlimitedBytes;
    this.#wallMs = options.wallMs ?? (() => 0);
  }

  /**
   * The power fails and comes back. Open files are dead (`EIO`), locks are free, and chance keeps some of what was not
   * synced: the same random state gives the same disk.
   */
  crash({ random }: { readonly random: Random }): void {
    this.#life++;
    this.#locks.clear();
    this.#tree.crash(random);
    for (const node of this.#tree.files()) node.crash(random);
  }

  get usedBytes(): number {
    let result = 0;
    for (const node of this.#tree.files()) result += node.content.allocatedBytes;
    return result;
  }

  async open(path: string, mode: OpenMode, _options?: OpenOptions): Promise<DiskFile> {
    const { directory, name, node } = this.#tree.find(path, "open");
    if (node instanceof MemoryDirectory) throw diskError("EISDIR", "open", path);
    if (node !== undefined && mode === "create") throw diskError("EEXIST", "open", path);
    if (node !== undefined) return this.#file(path, node, mode);
    if (mode === "read" || mode === "write") throw diskError("ENOENT", "open", path);
    const made = this.#tree.makeFile(this.#wallMs());
    this.#tree.change([{ directory, name, node: made }]);
    return this.#file(path, made, mode);
  }

  async stat(path: string): Promise<FileStat> {
    const { node } = this.#tree.find(path, "stat");
    if (node === undefined) throw diskError("ENOENT", "stat", path);
    return toFileStat(node);
  }

  async realPath(path: string): Promise<string> {
    if (this.#tree.find(path, "realpath").node === undefined) throw diskError("ENOENT", "realpath", path);
    return path;
  }

  async list(path: string): Promise<readonly string[]> {
    return [...this.#tree.findDirectory(path, "scandir").entries.keys()];
  }

  async makeDirectory(path: string): Promise<void> {
    this.#tree.makeDirectory(path);
  }

  async rename(from: string, to: string): Promise<void> {
    this.#tree.rename(from, to);
  }

  async link(from: string, to: string): Promise<void> {
    const source = this.#tree.find(from, "link").node;
    if (source === undefined) throw diskError("ENOENT", "link", from);
    if (source instanceof MemoryDirectory) throw diskError("EPERM", "link", from);
    const { directory, name, node } = this.#tree.find(to, "link");
    if (node !== undefined) throw diskError("EEXIST", "link", to);
    this.#tree.change([{ directory, name, node: source }]);
  }

  async unlink(path: string): Promise<void> {
    const { directory, name, node } = this.#tree.find(path, "unlink");
    if (node === undefined) throw diskError("ENOENT", "unlink", path);
    if (node instanceof MemoryDirectory) throw diskError("EISDIR", "unlink", path);
    this.#tree.change([{ directory, name, node: undefined }]);
  }

  async removeDirectory(path: string): Promise<void> {
    const { directory, name } = this.#tree.find(path, "rmdir");
    if (this.#tree.findDirectory(path, "rmdir").entries.size > 0) throw diskError("ENOTEMPTY", "rmdir", path);
    this.#tree.change([{ directory, name, node: undefined }]);
  }

  async removeTree(path: string): Promise<void> {
    const found = this.#tree.findIfAny(path);
    if (found?.node !== undefined) this.#tree.removeTree(found.directory, found.name, found.node);
  }

  async syncDirectory(path: string): Promise<void> {
    this.#tree.sync(this.#tree.findDirectory(path, "fsync"));
  }

  async space(_path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }> {
    return { freeBytes: Math.max(0, this.capacityBytes - this.usedBytes), totalBytes: this.capacityBytes };
  }

  async lock(path: string): Promise<DiskLock | undefined> {
    const file = await this.open(path, "open-or-create");
    await file.close();
    const { node } = this.#tree.find(path, "open");
    if (!(node instanceof MemoryFileNode) || this.#locks.has(node)) return undefined;
    this.#locks.add(node);
    const life = this.#life;
    let held = true;
    return {
      release: async () => {
        if (held && life === this.#life) this.#locks.delete(node);
        held = false;
      },
    };
  }

  #fittingBytes(content: SparseBytes, position: number, lengthBytes: number): number {
    if (this.capacityBytes >= unlimitedBytes) return lengthBytes;
    const freeBytes = this.capacityBytes - this.usedBytes;
    let fitting = lengthBytes;
    while (fitting > 0 && content.growthBytes(position, fitting) > freeBytes) {
      fitting = Math.max(0, fitting - ((position + fitting) % sparsePageBytes || sparsePageBytes));
    }
    return fitting;
  }

  #file(path: string, node: MemoryFileNode, mode: OpenMode): DiskFile {
    const life = this.#life;
    return new MemoryFile(path, node, mode !== "read", {
      check: (operation) => {
        if (life !== this.#life) throw diskError("EIO", operation, path);
      },
      fittingBytes: (content, position, lengthBytes) => this.#fittingBytes(content, position, lengthBytes),
      wallMs: this.#wallMs,
    });
  }
}

type DiskState = {
  /** Throws `EIO` if the disk has crashed since the file was opened. */
  readonly check: (operation: string) => void;
  /** How much of a write there is room for. */
  readonly fittingBytes: (content: SparseBytes, position: number, lengthBytes: number) => number;
  readonly wallMs: () => number;
};

class MemoryFile implements DiskFile {
  readonly path: string;
  readonly #node: MemoryFileNode;
  readonly #writable: boolean;
  readonly #disk: DiskState;
  #open = true;

  constructor(path: string, node: MemoryFileNode, writable: boolean, disk: DiskState) {
    this.path = path;
    this.#node = node;
    this.#writable = writable;
    this.#disk = disk;
  }

  async read(buffer: Uint8Array, position: number): Promise<number> {
    return this.readSync(buffer, position);
  }

  async write(buffer: Uint8Array, position: number): Promise<void> {
    this.writeSync(buffer, position);
  }

  readSync(buffer: Uint8Array, position: number): number {
    this.#check("read");
    return this.#node.content.read(buffer, position);
  }

  writeSync(buffer: Uint8Array, position: number): void {
    this.#checkWritable("write");
    const fittingBytes = this.#disk.fittingBytes(this.#node.content, position, buffer.length);
    // A write that meets the end of the disk leaves its beginning behind, as real ones do.
    this.#node.write(buffer.subarray(0, fittingBytes), position, this.#disk.wallMs());
    if (fittingBytes < buffer.length) throw diskError("ENOSPC", "write", this.path);
  }

  async datasync(): Promise<void> {
    this.#check("fdatasync");
    this.#node.sync();
  }

  async truncate(sizeBytes: number): Promise<void> {
    this.#checkWritable("ftruncate");
    this.#node.truncate(sizeBytes, this.#disk.wallMs());
  }

  async stat(): Promise<FileStat> {
    this.#check("fstat");
    return toFileStat(this.#node);
  }

  async close(): Promise<void> {
    this.#open = false;
  }

  #check(operation: string): void {
    if (!this.#open) throw diskError("EBADF", operation, this.path);
    this.#disk.check(operation);
  }

  #checkWritable(operation: string): void {
    this.#check(operation);
    if (!this.#writable) throw diskError("EBADF", operation, this.path);
  }
}

function toFileStat(node: MemoryFileNode | MemoryDirectory): FileStat {
  if (node instanceof MemoryDirectory) return { kind: "directory", sizeBytes: 0, modifiedMs: 0, inode: node.inode };
  return { kind: "file", sizeBytes: node.content.sizeBytes, modifiedMs: node.modifiedMs, inode: node.inode };
}
