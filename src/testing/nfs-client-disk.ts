/**
 * What a machine sees of a directory that an NFS server keeps: names and facts from caches that may be old, data that is written to the
 * server only when a file is flushed or closed, and there in any order. The server itself is a disk in memory that all clients
 * share, and makes changes of names durable before it answers. No NFS can be mounted where the tests run; this stands for it.
 *
 * Kept of the real one: close-to-open (opening asks the server about a file that it found), the three kinds of `lookupcache`, listings as old
 * as the cache allows, `ESTALE` for a cached name whose file is gone. Left out: locks, delegations, soft timeouts (a faulty disk around it has those).
 */

import type { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk, DiskFile, DiskLock, FileStat, OpenMode } from "../io/disk.ts";

export type LookupCache = "all" | "positive" | "none";

export type NfsClientDiskDependencies = {
  readonly server: Disk;
  readonly clock: Clock;
  readonly random: Random;
  readonly lookupCache: LookupCache;
  /** How long names, facts and listings are believed. */
  readonly cacheMs: number;
};

type Cached<T> = { readonly value: T; readonly untilMs: number };

export class NfsClientDisk implements Disk {
  readonly #server: Disk;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #lookupCache: LookupCache;
  readonly #cacheMs: number;
  /** Whether a name exists, by path. */
  readonly #lookups = new Map<string, Cached<boolean>>();
  readonly #stats = new Map<string, Cached<FileStat>>();
  readonly #listings = new Map<string, Cached<readonly string[]>>();

  constructor({ server, clock, random, lookupCache, cacheMs }: NfsClientDiskDependencies) {
    this.#server = server;
    this.#clock = clock;
    this.#random = random;
    this.#lookupCache = lookupCache;
    this.#cacheMs = cacheMs;
  }

  async open(path: string, mode: OpenMode): Promise<DiskFile> {
    if (mode === "read" || mode === "write") {
      const known = this.#known(path);
      if (known === false) throw fileError("ENOENT", path);
      try {
        const file = await this.#server.open(path, mode);
        this.#note(path, true);
        return new NfsFile(file, this.#random);
      } catch (error) {
        if (codeOf(error) !== "ENOENT") throw error;
        this.#note(path, false);
        throw known === true ? fileError("ESTALE", path) : error;
      }
    }
    const file = await this.#server.open(path, mode);
    await this.#changed(path, true);
    return new NfsFile(file, this.#random);
  }

  async stat(path: string): Promise<FileStat> {
    const cached = this.#fresh(this.#stats, path);
    if (cached !== undefined) return cached;
    if (this.#known(path) === false) throw fileError("ENOENT", path);
    try {
      const stat = await this.#server.stat(path);
      this.#note(path, true);
      this.#stats.set(path, this.#cached(stat));
      return stat;
    } catch (error) {
      if (codeOf(error) === "ENOENT") this.#note(path, false);
      throw error;
    }
  }

  async list(path: string): Promise<readonly string[]> {
    const cached = this.#fresh(this.#listings, path);
    if (cached !== undefined) return cached;
    const names = await this.#server.list(path);
    this.#listings.set(path, this.#cached(names));
    return names;
  }

  realPath(path: string): Promise<string> {
    return this.#server.realPath(path);
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#server.makeDirectory(path);
    await this.#changed(path, true);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#server.rename(from, to);
    await this.#changed(from, false);
    await this.#changed(to, true);
  }

  async link(from: string, to: string): Promise<void> {
    await this.#server.link(from, to);
    await this.#changed(to, true);
  }

  async unlink(path: string): Promise<void> {
    await this.#server.unlink(path);
    await this.#changed(path, false);
  }

  async removeDirectory(path: string): Promise<void> {
    await this.#server.removeDirectory(path);
    await this.#changed(path, false);
  }

  async removeTree(path: string): Promise<void> {
    await this.#server.removeTree(path);
    await this.#changed(path, false);
  }

  syncDirectory(path: string): Promise<void> {
    return this.#server.syncDirectory(path);
  }

  space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }> {
    return this.#server.space(path);
  }

  lock(path: string): Promise<DiskLock | undefined> {
    return this.#server.lock(path);
  }

  /** What the cache of names says; `undefined`: ask the server. */
  #known(path: string): boolean | undefined {
    const known = this.#fresh(this.#lookups, path);
    if (this.#lookupCache === "none") return undefined;
    return known === false && this.#lookupCache === "positive" ? undefined : known;
  }

  #note(path: string, exists: boolean): void {
    this.#lookups.set(path, this.#cached(exists));
    if (!exists) this.#stats.delete(path);
  }

  /** An own change: the client knows it, and the server has made it durable. */
  async #changed(path: string, exists: boolean): Promise<void> {
    this.#note(path, exists);
    this.#stats.delete(path);
    const parent = path.slice(0, Math.max(1, path.lastIndexOf("/")));
    await this.#server.syncDirectory(parent).catch((error: unknown) => {
      if (codeOf(error) !== "ENOENT") throw error;
    });
  }

  #cached<T>(value: T): Cached<T> {
    return { value, untilMs: this.#clock.monotonicMs() + this.#cacheMs };
  }

  #fresh<T>(cache: ReadonlyMap<string, Cached<T>>, path: string): T | undefined {
    const found = cache.get(path);
    return found !== undefined && this.#clock.monotonicMs() < found.untilMs ? found.value : undefined;
  }
}

type PendingWrite = { readonly bytes: Uint8Array; readonly position: number };

class NfsFile implements DiskFile {
  readonly path: string;
  readonly #file: DiskFile;
  readonly #random: Random;
  #pending: PendingWrite[] = [];

  constructor(file: DiskFile, random: Random) {
    this.path = file.path;
    this.#file = file;
    this.#random = random;
  }

  async read(buffer: Uint8Array, position: number): Promise<number> {
    await this.#flush();
    return this.#file.read(buffer, position);
  }

  readSync(buffer: Uint8Array, position: number): number {
    return this.#file.readSync(buffer, position);
  }

  async write(buffer: Uint8Array, position: number): Promise<void> {
    this.writeSync(buffer, position);
  }

  writeSync(buffer: Uint8Array, position: number): void {
    this.#pending.push({ bytes: Uint8Array.from(buffer), position });
  }

  async datasync(): Promise<void> {
    await this.#flush();
    await this.#file.datasync();
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#file.truncate(sizeBytes);
  }

  async stat(): Promise<FileStat> {
    await this.#flush();
    return this.#file.stat();
  }

  async close(): Promise<void> {
    await this.#flush();
    await this.#file.datasync().catch(() => {});
    await this.#file.close();
  }

  /** In any order, as the server may get them; our callers never write one place twice. */
  async #flush(): Promise<void> {
    const writes = this.#random.shuffle(this.#pending);
    this.#pending = [];
    for (const { bytes, position } of writes) await this.#file.write(bytes, position);
  }
}

function fileError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: as an NFS client sees it, '${path}'`), { code });
}

function codeOf(error: unknown): string | undefined {
  return (error as { readonly code?: string }).code;
}
