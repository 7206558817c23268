/**
 * A directory as an under store: a local disk, or anything the operating system mounts (NFS, Lustre, ...), as long as
 * master and workers see the same files under the same path.
 *
 * The identity of a content is inode, size and time of modification (microseconds); it is checked before and after
 * every range that is read, so a file that changes meanwhile is noticed (as far as the file system's clock ticks: two
 * changes of equal size within one tick look alike). Writes go to a temporary file, are flushed, and take their name in
 * one step. Links are followed inside the mount only, unless the option `links=all` says otherwise: that guards against
 * mistakes and surprises, not against somebody who may write into the directory and races with us.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import { KiB, MiB } from "../base/units.ts";
import type { Disk, DiskFile, FileStat } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { isTemporaryName, LocalListings } from "./local-listings.ts";
import {
  bodyChunks,
  CallerError,
  type CallOptions,
  checkFileKey,
  checkKey,
  handOver,
  type ListEntry,
  type ListOptions,
  type ListPage,
  type ObjectInfo,
  type ReadOptions,
  throwIfCancelled,
  type UnderStore,
  type UnderStoreTraits,
  unwrapCaller,
  type WriteOptions,
} from "./under-store.ts";

export type LocalUnderStoreDependencies = {
  /** Absolute path of the directory. */
  readonly root: string;
  readonly links?: "inside" | "all";
  readonly disk: Disk;
  readonly random: Random;
  readonly logger: Logger;
};

const readChunkBytes = MiB;
/** Buffers kept for later reads; more may be in use at once. */
const spareBuffersMax = 8;
const listPageMax = 1000;
/** Files looked at at once while a page is made. */
const statsActiveMax = 32;

export class LocalUnderStore implements UnderStore {
  readonly uri: string;
  readonly traits: UnderStoreTraits = {
    writable: true,
    exclusiveWrites: true,
    rename: "atomic",
    listPageMax,
    readBytesPreferred: 4 * MiB,
  };
  readonly #disk: Disk;
  readonly #random: Random;
  readonly #logger: Logger;
  readonly #links: "inside" | "all";
  /** With every link resolved. */
  readonly #root: string;
  /** If the root becomes another directory, a file system went away below us: that is no reason to forget its files. */
  readonly #rootInode: number;
  readonly #listings: LocalListings;
  readonly #spareBuffers: Uint8Array[] = [];

  private constructor(dependencies: LocalUnderStoreDependencies, root: string, rootInode: number) {
    this.uri = `file://${dependencies.root}`;
    this.#disk = dependencies.disk;
    this.#random = dependencies.random;
    this.#logger = dependencies.logger;
    this.#links = dependencies.links ?? "inside";
    this.#root = root;
    this.#rootInode = rootInode;
    this.#listings = new LocalListings(dependencies.disk);
  }

  /** Throws `not-found` and `not-a-directory` for a root that cannot be one. */
  static async open(dependencies: LocalUnderStoreDependencies): Promise<LocalUnderStore> {
    const { root, disk } = dependencies;
    try {
      const real = await disk.realPath(root);
      const stat = await disk.stat(real);
      if (stat.kind !== "directory") throw new HeadpondError("not-a-directory", `${root} is not a directory`);
      return new LocalUnderStore(dependencies, real, stat.inode);
    } catch (error) {
      if (errorCodeOf(error) === "ENOENT") {
        throw new HeadpondError("not-found", `${root} does not exist on this machine: make it, or correct the mount`);
      }
      throw translate(error, root);
    }
  }

  async list(directoryKey: string, options: ListOptions = {}): Promise<ListPage> {
    checkKey(directoryKey);
    throwIfCancelled(options.signal);
    try {
      if (directoryKey === "") await this.#checkRoot();
      const directory = await this.#resolve(directoryKey);
      const limit = Math.max(1, Math.min(options.limit ?? listPageMax, listPageMax));
      const { names, next, unreadable } = await this.#listings.page(directory, options.continuation, limit);
      const entries: ListEntry[] = [];
      let skipped = unreadable;
      for (let at = 0; at < names.length; at += statsActiveMax) {
        throwIfCancelled(options.signal);
        const found = await Promise.all(
          names.slice(at, at + statsActiveMax).map((name) => this.#look(directory, directoryKey, name)),
        );
        for (const entry of found) {
          if (entry === "skipped") skipped++;
          else if (entry !== "gone") entries.push(entry);
        }
      }
      return { entries, skipped, ...(next === undefined ? {} : { next }) };
    } catch (error) {
      throw this.#failure(error, directoryKey);
    }
  }

  async head(key: string, options: CallOptions = {}): Promise<ListEntry | undefined> {
    checkKey(key);
    throwIfCancelled(options.signal);
    try {
      if (key === "") await this.#checkRoot();
      const stat = await this.#disk.stat(await this.#resolve(key));
      if (stat.kind === "other" || isTemporaryName(lastName(key))) return undefined;
      return stat.kind === "directory" ? { kind: "directory", key } : { kind: "file", info: infoOf(key, stat) };
    } catch (error) {
      if (key !== "" && isAbsence(error)) return undefined;
      throw this.#failure(error, key);
    }
  }

  async read(key: string, { position, length, etag, signal, onChunk }: ReadOptions): Promise<void> {
    checkFileKey(key);
    throwIfCancelled(signal);
    let file: DiskFile | undefined;
    const buffer = this.#spareBuffers.pop() ?? Buffer.allocUnsafeSlow(readChunkBytes);
    try {
      const path = await this.#resolve(key);
      const kind = (await this.#disk.stat(path)).kind;
      if (kind !== "file") {
        // Opening a pipe would wait for its writer.
        throw new HeadpondError(kind === "directory" ? "is-a-directory" : "unsupported", `${key} is not a file`);
      }
      file = await this.#disk.open(path, "read");
      const { sizeBytes } = await checkUnchanged(file, key, etag);
      if (position < 0 || length < 0 || position + length > sizeBytes) {
        throw new HeadpondError("invalid", `${key} has ${sizeBytes} bytes, not ${position} + ${length}`);
      }
      for (let done = 0; done < length; ) {
        const wanted = buffer.subarray(0, Math.min(readChunkBytes, length - done));
        const count = await file.read(wanted, position + done);
        throwIfCancelled(signal);
        if (count === 0) {
          throw new HeadpondError("version-mismatch", `${key} became shorter while it was read`);
        }
        done += count;
        await handOver(onChunk, wanted.subarray(0, count));
        throwIfCancelled(signal);
      }
      await checkUnchanged(file, key, etag);
    } catch (error) {
      throw this.#failure(error, key);
    } finally {
      if (this.#spareBuffers.length < spareBuffersMax) this.#spareBuffers.push(buffer);
      await file?.close();
    }
  }

  async write(key: string, options: WriteOptions): Promise<ObjectInfo> {
    const { ifAbsent = false, signal } = options;
    checkFileKey(key);
    throwIfCancelled(signal);
    try {
      const directory = await this.#resolveParent(key, true);
      const path = `${directory}/${lastName(key)}`;
      // What rename would refuse is refused before the body is read.
      const kind = await this.#kindOf(path);
      if (kind === "directory") throw new HeadpondError("is-a-directory", `${key} is a directory`);
      if (ifAbsent && kind !== "absent") throw new HeadpondError("already-exists", `${key} already exists`);
      const temporary = await this.#createTemporary(directory);
      let stat: FileStat;
      try {
        try {
          let written = 0;
          for await (const chunk of bodyChunks(key, options)) {
            await temporary.write(chunk, written);
            written += chunk.length;
          }
          await temporary.datasync();
          stat = await temporary.stat();
        } finally {
          await temporary.close();
        }
        throwIfCancelled(signal);
        if (ifAbsent) await this.#disk.link(temporary.path, path);
        else await this.#disk.rename(temporary.path, path);
      } catch (error) {
        await this.#disk.unlink(temporary.path).catch(() => {});
        throw error;
      }
      if (ifAbsent) await this.#disk.unlink(temporary.path);
      await this.#disk.syncDirectory(directory);
      return infoOf(key, stat);
    } catch (error) {
      throw this.#failure(error, key);
    }
  }

  async makeDirectory(key: string, options: CallOptions = {}): Promise<void> {
    checkKey(key);
    throwIfCancelled(options.signal);
    try {
      if (key !== "") await this.#resolveParent(`${key}/_`, true);
    } catch (error) {
      throw this.#failure(error, key);
    }
  }

  async remove(key: string, options: CallOptions = {}): Promise<void> {
    checkFileKey(key);
    throwIfCancelled(options.signal);
    try {
      const directory = await this.#resolveParent(key, false);
      const path = `${directory}/${lastName(key)}`;
      if ((await this.#kindOf(path)) === "directory") {
        throw new HeadpondError("is-a-directory", `${key} is a directory`);
      }
      await this.#disk.unlink(path);
      await this.#disk.syncDirectory(directory);
    } catch (error) {
      if (!isAbsence(error)) throw this.#failure(error, key);
    }
  }

  async removeDirectory(key: string, options: CallOptions = {}): Promise<void> {
    checkFileKey(key);
    throwIfCancelled(options.signal);
    try {
      const directory = await this.#resolveParent(key, false);
      const path = `${directory}/${lastName(key)}`;
      const kind = await this.#kindOf(path);
      if (kind === "absent") return;
      if (kind !== "directory") throw new HeadpondError("not-a-directory", `${key} is a file`);
      await this.#disk.removeDirectory(path);
      await this.#disk.syncDirectory(directory);
    } catch (error) {
      if (!isAbsence(error)) throw this.#failure(error, key);
    }
  }

  async rename(from: string, to: string, options: CallOptions = {}): Promise<void> {
    checkFileKey(from);
    checkFileKey(to);
    throwIfCancelled(options.signal);
    if (to.startsWith(`${from}/`))
      throw new HeadpondError("invalid", `${from} cannot be renamed to ${to}, below itself`);
    try {
      const fromDirectory = await this.#resolveParent(from, false);
      const source = `${fromDirectory}/${lastName(from)}`;
      if ((await this.#kindOf(source)) === "absent") throw new HeadpondError("not-found", `${from} does not exist`);
      const toDirectory = await this.#resolveParent(to, true);
      await this.#disk.rename(source, `${toDirectory}/${lastName(to)}`);
      await this.#disk.syncDirectory(toDirectory);
      if (toDirectory !== fromDirectory) await this.#disk.syncDirectory(fromDirectory);
    } catch (error) {
      throw this.#failure(error, `${from} to ${to}`);
    }
  }

  async close(): Promise<void> {
    this.#listings.clear();
    this.#spareBuffers.length = 0;
  }

  /** One name of a listing. What leaves the mount, loops, or is neither file nor directory is skipped, and said in the log. */
  async #look(directory: string, directoryKey: string, name: string): Promise<ListEntry | "skipped" | "gone"> {
    const key = directoryKey === "" ? name : `${directoryKey}/${name}`;
    try {
      const path = await this.#disk.realPath(`${directory}/${name}`);
      const stat = await this.#disk.stat(path);
      const isLoop = stat.kind === "directory" && isInside(directory, path);
      if (stat.kind === "other" || isLoop || !this.#isAllowed(path)) {
        const why = isLoop
          ? "a link to its own ancestor"
          : stat.kind === "other"
            ? "not a file"
            : "a link out of the mount";
        this.#logger.warn("under store: skipped a name", { uri: this.uri, objectKey: key, why });
        return "skipped";
      }
      return stat.kind === "directory" ? { kind: "directory", key } : { kind: "file", info: infoOf(key, stat) };
    } catch (error) {
      if (!isAbsence(error) && errorCodeOf(error) !== "ELOOP") throw error;
      // Removed since the names were read, a dangling link, or bytes that are not UTF-8 and so have no name for us.
      if (errorCodeOf(error) === "ENOENT" && !name.includes("\ufffd")) return "gone";
      this.#logger.warn("under store: skipped a name", {
        uri: this.uri,
        objectKey: key,
        why: "not UTF-8, or a link to itself",
      });
      return "skipped";
    }
  }

  /** The real path of something that exists. */
  async #resolve(key: string): Promise<string> {
    const path = await this.#disk.realPath(key === "" ? this.#root : `${this.#root}/${key}`);
    if (!this.#isAllowed(path)) {
      throw new HeadpondError("denied", `${key} is a link that leaves the mount: mount with links=all to follow it`);
    }
    return path;
  }

  /** The real path of the directory that holds `key`, made if `create`. */
  async #resolveParent(key: string, create: boolean): Promise<string> {
    let directory = this.#root;
    for (const name of key.split("/").slice(0, -1)) {
      const child = `${directory}/${name}`;
      let kind = await this.#kindOf(child);
      if (kind === "absent" && create) {
        await this.#disk.makeDirectory(child);
        await this.#disk.syncDirectory(directory);
        kind = "directory";
      }
      if (kind !== "directory" && kind !== "absent" && create) {
        throw new HeadpondError("not-a-directory", `${key}: ${name} is not a directory`);
      }
      directory = await this.#disk.realPath(child);
      if (!this.#isAllowed(directory)) {
        throw new HeadpondError("denied", `${key}: ${name} is a link that leaves the mount`);
      }
    }
    return directory;
  }

  async #kindOf(path: string): Promise<FileStat["kind"] | "absent"> {
    try {
      return (await this.#disk.stat(path)).kind;
    } catch (error) {
      if (isAbsence(error)) return "absent";
      throw error;
    }
  }

  #isAllowed(realPath: string): boolean {
    return this.#links === "all" || isInside(realPath, this.#root);
  }

  async #checkRoot(): Promise<void> {
    const stat = await this.#disk.stat(this.#root).catch(() => undefined);
    if (stat?.inode === this.#rootInode) return;
    throw new HeadpondError("under-store", `${this.uri} is gone or another directory: is its file system mounted?`);
  }

  async #createTemporary(directory: string): Promise<DiskFile> {
    for (let attempt = 1; ; attempt++) {
      const suffix = `${this.#random.uint32().toString(36)}${this.#random.uint32().toString(36)}`;
      try {
        return await this.#disk.open(`${directory}/.headpond-${suffix}.tmp`, "create");
      } catch (error) {
        if (errorCodeOf(error) !== "EEXIST" || attempt === 3) throw error;
      }
    }
  }

  #failure(error: unknown, key: string): unknown {
    if (error instanceof CallerError) return unwrapCaller(error);
    return translate(error, `${key === "" ? "/" : key} in ${this.uri}`);
  }
}

async function checkUnchanged(file: DiskFile, key: string, etag: string): Promise<FileStat> {
  const stat = await file.stat();
  const found = etagOf(stat);
  if (found !== etag) throw new HeadpondError("version-mismatch", `${key} is ${found}, not ${etag}`);
  return stat;
}

function infoOf(key: string, stat: FileStat): ObjectInfo {
  return { key, sizeBytes: stat.sizeBytes, etag: etagOf(stat), modifiedMs: Math.max(0, Math.floor(stat.modifiedMs)) };
}

function etagOf({ inode, sizeBytes, modifiedMs }: FileStat): string {
  return `${inode.toString(36)}-${sizeBytes.toString(36)}-${Math.round(modifiedMs * KiB).toString(36)}`;
}

function isInside(path: string, root: string): boolean {
  return path === root || root === "/" || path.startsWith(`${root}/`);
}

function lastName(key: string): string {
  return key.slice(key.lastIndexOf("/") + 1);
}

function errorCodeOf(error: unknown): string | undefined {
  return (error as { readonly code?: string } | undefined)?.code;
}

function isAbsence(error: unknown): boolean {
  const code = errorCodeOf(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

const translations: Readonly<Record<string, readonly [code: HeadpondError["code"], text: string]>> = {
  ENOENT: ["not-found", "does not exist"],
  ENOTDIR: ["not-a-directory", "is below something that is not a directory"],
  EISDIR: ["is-a-directory", "is a directory"],
  EEXIST: ["already-exists", "already exists"],
  ENOTEMPTY: ["not-empty", "is not empty"],
  EACCES: ["denied", "may not be used: check owner and mode of the file and of the process"],
  EPERM: ["denied", "may not be changed: check owner, mode and attributes"],
  ELOOP: ["invalid", "is a link to itself"],
  ENAMETOOLONG: ["invalid", "has a name that is too long for this file system"],
  EILSEQ: ["invalid", "has a name that this file system does not take"],
  EROFS: ["read-only", "is on a file system that is mounted read-only"],
  ENOSPC: ["no-space", "does not fit: the file system is full"],
  EDQUOT: ["no-space", "does not fit: the quota is used up"],
};

function translate(error: unknown, what: string): HeadpondError {
  if (error instanceof HeadpondError) return error;
  const code = errorCodeOf(error) ?? "";
  const [ours, text] = translations[code] ?? ["under-store", `failed with ${code || String(error)}`];
  return new HeadpondError(ours, `${what} ${text}`, { cause: error });
}
