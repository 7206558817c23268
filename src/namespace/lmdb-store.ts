/**
 * The store on LMDB: one file, three tables, batches written by LMDB's own thread. Pages are not synced at a commit, because the
 * journal's log owns durability: a killed process loses nothing (the kernel holds the pages), but after a crash of the
 * machine the file may be inconsistent. The boot that wrote last is noted in it; a file that was in use when another boot ended is
 * discarded, and the journal rebuilds the state from its checkpoint and log.
 *
 * The only file that knows LMDB. Its own damage is `corrupt`, naming the file.
 */

import { open as openLmdb, type RootDatabaseOptionsWithPath } from "lmdb";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import { type Meta, metaBytes, PageSet, readFreePages, readMeta } from "./lmdb-pages.ts";
import { type Batch, type FileSum, rowsTable, type Store, type Table } from "./store.ts";

/** The part of the disk door (io/disk.ts) that files of a state need. */
export interface StoreDisk {
  makeDirectory(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  removeTree(path: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
  open(path: string, mode: "write" | "open-or-create"): Promise<StoreFile>;
  stat(path: string): Promise<{ readonly sizeBytes: number }>;
  space(path: string): Promise<{ readonly freeBytes: number }>;
}

export interface StoreFile {
  read(buffer: Uint8Array, position: number): Promise<number>;
  readSync(buffer: Uint8Array, position: number): number;
  truncate(sizeBytes: number): Promise<void>;
  datasync(): Promise<void>;
  close(): Promise<void>;
}

export type LmdbStoreOptions = {
  /** Holds `state.mdb` and its lock file. */
  readonly directory: string;
  readonly disk: StoreDisk;
  /** Names the running boot of the machine (Linux: /proc/sys/kernel/random/boot_id). Absent: crashes of the machine are not noticed. */
  readonly bootId?: string;
  /** Copies the file of a backup (io/paced-copy.ts). Absent: LMDB does, as fast as the disk lets it, which others notice. */
  readonly copier?: StoreCopier;
};

export interface StoreCopier {
  /**
   * Copies the runs of `from` to their places in the new file `to` of `sizeBytes`, with `head` for its first bytes; all else is
   * zeros. Durable when it resolves.
   */
  copy(request: {
    readonly from: StoreFile;
    readonly to: string;
    readonly sizeBytes: number;
    readonly head: Uint8Array;
    /** Position and length, ascending. */
    readonly runs: Iterable<readonly [position: number, length: number]>;
    readonly signal?: AbortSignal;
  }): Promise<FileSum>;
}

/** So little is nothing: a commit writes whole pages, many at a time. */
const fullDiskBytes = 1024 * 1024;
const fileName = "state.mdb";
const newFileName = "state-new.mdb";
const tableNames = ["inodes", "names", "rows"] as const;
/** `{ bootId, clean }`, in the table of small rows. */
const bootKey = Buffer.of(0x01);

/** A key without an object of its own: lmdb copies it out at once. */
type KeyRef = { bytes: Uint8Array; start: number; end: number };
type Database = ReturnType<ReturnType<typeof openLmdb>["openDB"]>;
type Environment = { readonly root: ReturnType<typeof openLmdb>; readonly tables: readonly Database[] };
/** lmdb takes the bytes from `start` to `end` of such a buffer by address, without a copy. */
type Slab = Buffer & { start?: number; end?: number };

const keyEncoder = {
  writeKey(key: KeyRef, target: Uint8Array, position: number): number {
    const { bytes, end } = key;
    let at = position;
    for (let i = key.start; i < end; i++) target[at++] = bytes[i] as number;
    return at;
  },
  readKey(source: Uint8Array, start: number, end: number): Buffer {
    return Buffer.from(source.subarray(start, end));
  },
};

export class LmdbStore implements Store {
  readonly #options: LmdbStoreOptions;
  readonly #path: string;
  #environment: Environment;
  readonly #key: KeyRef = { bytes: Buffer.alloc(0), start: 0, end: 0 };
  /** The commit under way. */
  #committing: Promise<unknown> | undefined;
  /** Whether the state of before was thrown away, because the machine had crashed with it open. */
  discardedUnclean = false;

  private constructor(options: LmdbStoreOptions, environment: Environment) {
    this.#options = options;
    this.#path = `${options.directory}/${fileName}`;
    this.#environment = environment;
  }

  /** Throws `corrupt` for a file that is none of ours or damaged. */
  static async open(options: LmdbStoreOptions): Promise<LmdbStore> {
    await options.disk.makeDirectory(options.directory);
    const path = `${options.directory}/${fileName}`;
    const store = new LmdbStore(options, await openEnvironment(path, options.disk, false));
    try {
      const boot = store.#boot();
      if (options.bootId !== undefined && boot !== undefined && !boot.clean && boot.bootId !== options.bootId) {
        await store.replace(undefined);
        store.discardedUnclean = true;
      }
      store.#noteBoot(false);
    } catch (error) {
      await store.#environment.root.close();
      throw storeError(error, path);
    }
    return store;
  }

  get(table: Table, key: Uint8Array): Buffer | undefined {
    let value: Buffer | undefined;
    try {
      value = (this.#environment.tables[table] as Database).getBinaryFast(this.#keyOf(key) as never);
    } catch (error) {
      throw storeError(error, this.#path);
    }
    // lmdb answers with one big buffer whose `length` is only a property: methods of Buffer would read beyond it.
    return value === undefined ? undefined : Buffer.from(value.buffer, value.byteOffset, value.length);
  }

  scan(table: Table, from: Uint8Array, visit: (key: Buffer, value: Buffer) => boolean): void {
    const start = { bytes: from, start: 0, end: from.length };
    try {
      for (const { key, value } of (this.#environment.tables[table] as Database).getRange({ start: start as never })) {
        if (!visit(key as unknown as Buffer, value as Buffer)) return;
      }
    } catch (error) {
      throw storeError(error, this.#path);
    }
  }

  async commit(batch: Batch): Promise<void> {
    const { root, tables } = this.#environment;
    // A view of its own: with the properties that lmdb wants, the writer's buffer would be of another hidden class, and
    // all code that writes and hashes bytes several times slower.
    const { buffer, byteOffset, byteLength } = batch.writer.buffer;
    const slab: Slab = Buffer.from(buffer, byteOffset, byteLength);
    const { rows } = batch;
    const key: KeyRef = { bytes: slab, start: 0, end: 0 };
    const committed = root.batch(() => {
      for (let i = 0; i < rows.length; i += 4) {
        const table = tables[rows[i] as Table] as Database;
        const valueStart = rows[i + 2] as number;
        const end = rows[i + 3] as number;
        key.start = rows[i + 1] as number;
        // The promises of single writes resolve with the batch.
        if (valueStart === -1) {
          key.end = end;
          table.remove(key as never).catch(ignore);
        } else {
          key.end = valueStart;
          slab.start = valueStart;
          slab.end = end;
          void table.put(key as never, slab);
        }
      }
    });
    this.#committing = committed;
    try {
      await committed;
    } catch (error) {
      throw await this.#writeError(await commitError(error));
    } finally {
      if (this.#committing === committed) this.#committing = undefined;
    }
    // Reads within this turn of the event loop must see the batch, too.
    root.resetReadTxn();
  }

  /** LMDB reports a write that was cut short, which is what a full disk does to it, as an input/output error. */
  async #writeError(error: unknown): Promise<HeadpondError> {
    const known = storeError(error, this.#path);
    if (!isHeadpondError(known, "corrupt") || !/Input\/output error|EIO/.test(known.message)) return known;
    const { freeBytes } = await this.#options.disk.space(this.#options.directory);
    if (freeBytes < fullDiskBytes) {
      const message = `no space for ${this.#path}: ${freeBytes} bytes free: make room, it then goes on by itself`;
      return new HeadpondError("no-space", message, { cause: error });
    }
    const message = `cannot write ${this.#path}: input/output error: check the disk; the journal has everything`;
    return new HeadpondError("unavailable", message, { cause: error });
  }

  async backup(path: string, signal?: AbortSignal): Promise<FileSum | undefined> {
    const { copier, disk } = this.#options;
    try {
      if (copier !== undefined) return await this.#backupBy(copier, path, signal);
      await this.#environment.root.backup(path, false);
      await syncFile(disk, path);
      return undefined;
    } catch (error) {
      await disk.removeTree(path);
      throw signal?.aborted === true ? signal.reason : storeError(error, path);
    }
  }

  /**
   * LMDB never writes over a page that an open read transaction can reach. So its pages can be copied at leisure, and are
   * one commit's together with the meta pages as they were when the transaction began.
   */
  async #backupBy(copier: StoreCopier, path: string, signal: AbortSignal | undefined): Promise<FileSum> {
    const from = await this.#options.disk.open(this.#path, "write");
    try {
      while (this.#committing !== undefined) await this.#committing.catch(ignore);
      // In this turn nobody commits: transaction, meta pages and counts belong together.
      const { root, tables } = this.#environment;
      root.resetReadTxn();
      const transaction = root.useReadTransaction();
      try {
        const { head, meta } = this.#readMetaPages(from);
        const usedPages = countPages(tables) + 2;
        const free = await readFreePages((buffer, at) => from.read(buffer, at), meta);
        // LMDB may lose a free page now and then, and can never have one more than it does not use.
        const isSound = free !== undefined && free.size + usedPages <= meta.pageCount;
        const runs = (isSound ? free : new PageSet(meta.pageCount)).complementRuns(freeRunPagesMin);
        const { pageSizeBytes, pageCount } = meta;
        return await copier.copy({
          from,
          to: path,
          sizeBytes: pageCount * pageSizeBytes,
          head,
          runs: inBytes(runs, pageSizeBytes),
          ...(signal === undefined ? {} : { signal }),
        });
      } finally {
        transaction.done();
      }
    } finally {
      await from.close();
    }
  }

  #readMetaPages(file: StoreFile): { readonly head: Buffer; readonly meta: Meta } {
    const first = Buffer.alloc(metaBytes);
    const pageSizeBytes = file.readSync(first, 0) < metaBytes ? undefined : readMeta(first)?.pageSizeBytes;
    const head = Buffer.alloc(2 * (pageSizeBytes ?? 0));
    if (pageSizeBytes !== undefined && file.readSync(head, 0) === head.length) {
      const [even, odd] = [readMeta(head), readMeta(head.subarray(pageSizeBytes))];
      if (even !== undefined && odd !== undefined)
        return { head, meta: even.transaction > odd.transaction ? even : odd };
    }
    throw new HeadpondError("corrupt", `${this.#path}: its first pages are damaged; ${advice}`);
  }

  async peek(path: string, table: Table, key: Uint8Array): Promise<Buffer | undefined> {
    const copy = await openEnvironment(path, this.#options.disk, true);
    try {
      const value = (copy.tables[table] as Database).getBinary({ bytes: key, start: 0, end: key.length } as never);
      return value === undefined ? undefined : Buffer.from(value);
    } finally {
      await copy.root.close();
      await this.#options.disk.removeTree(`${path}-lock`);
    }
  }

  async replace(path: string | undefined): Promise<void> {
    const { directory, disk } = this.#options;
    const newPath = `${directory}/${newFileName}`;
    await disk.removeTree(newPath);
    if (path !== undefined) {
      // Copied by LMDB, which reads every page: a damaged checkpoint is found before the old state goes.
      const copy = await openEnvironment(path, disk, true);
      try {
        await copy.root.backup(newPath, false);
      } finally {
        await copy.root.close();
        await disk.removeTree(`${path}-lock`);
      }
      await syncFile(disk, newPath);
    }
    await this.#environment.root.close();
    await disk.removeTree(`${this.#path}-lock`);
    if (path === undefined) await disk.removeTree(this.#path);
    else await disk.rename(newPath, this.#path);
    await disk.syncDirectory(directory);
    this.#environment = await openEnvironment(this.#path, disk, false);
    this.#noteBoot(false);
  }

  async close(): Promise<void> {
    const { root } = this.#environment;
    // The note that all is well must not reach the disk before what it vouches for.
    await sync(root);
    this.#noteBoot(true);
    await sync(root);
    await root.close();
  }

  #keyOf(bytes: Uint8Array): KeyRef {
    const key = this.#key;
    key.bytes = bytes;
    key.end = bytes.length;
    return key;
  }

  #boot(): { readonly bootId?: string; readonly clean: boolean } | undefined {
    const row = this.get(rowsTable, bootKey);
    if (row === undefined) return undefined;
    try {
      return JSON.parse(row.toString("utf8")) as { bootId?: string; clean: boolean };
    } catch (error) {
      throw storeError(error, this.#path);
    }
  }

  #noteBoot(clean: boolean): void {
    const row = Buffer.from(JSON.stringify({ bootId: this.#options.bootId, clean }));
    (this.#environment.tables[rowsTable] as Database).putSync(this.#keyOf(bootKey) as never, row);
    this.#environment.root.resetReadTxn();
  }
}

/** Fewer free pages in a row are copied with what is around them: many small writes cost more. */
const freeRunPagesMin = 16;

type TreeStats = { readonly [count in "treeBranchPageCount" | "treeLeafPageCount" | "overflowPages"]: number };

/** Pages of all tables, of the table of tables and of the tree of free pages. */
function countPages(databases: readonly { getStats(): unknown }[]): number {
  const trees = databases.map((database) => database.getStats() as TreeStats);
  const { free } = trees[0] as unknown as { readonly free: TreeStats };
  const { root } = trees[0] as unknown as { readonly root: TreeStats };
  let count = 0;
  for (const tree of [...trees, root, free]) {
    count += tree.treeBranchPageCount + tree.treeLeafPageCount + tree.overflowPages;
  }
  return count;
}

function* inBytes(
  runs: Iterable<readonly [number, number]>,
  pageSizeBytes: number,
): Generator<readonly [number, number]> {
  for (const [first, count] of runs) yield [first * pageSizeBytes, count * pageSizeBytes];
}

async function openEnvironment(path: string, disk: StoreDisk, readOnly: boolean): Promise<Environment> {
  try {
    await checkFile(path, disk, readOnly);
    // LMDB would let everybody read what it makes; who may is the disk's to say.
    if (!readOnly) for (const name of [path, `${path}-lock`]) await (await disk.open(name, "open-or-create")).close();
    const root = openLmdb({
      path,
      noSubdir: true,
      maxDbs: tableNames.length,
      noSync: true,
      noMemInit: true,
      readOnly,
      encoding: "binary",
      // With it, a failed commit rejects a promise that nobody but lmdb can reach, which would end the process.
      eventTurnBatching: false,
    } as RootDatabaseOptionsWithPath);
    try {
      const tables = tableNames.map((name) => root.openDB({ name, encoding: "binary", keyEncoder } as never));
      if (tables.some((table) => table === undefined)) {
        throw new HeadpondError("corrupt", `${path} is no state of Headpond: it lacks a table; ${advice}`);
      }
      return { root, tables };
    } catch (error) {
      await root.close();
      throw error;
    }
  } catch (error) {
    throw storeError(error, path);
  }
}

const advice = "move it away, the journal will rebuild it";

/**
 * LMDB maps the file, and a read behind its end kills the process: so what its two meta pages say is compared with its length first
 * (layout: struct MDB_meta of LMDB 0.9.90 as lmdb-js builds it). A commit may leave out a few unused pages at the end; they
 * are filled up with zeros, which LMDB reads as an error should they matter.
 */
async function checkFile(path: string, disk: StoreDisk, mustExist: boolean): Promise<void> {
  const sizeBytes = await fileSizeBytes(path, disk);
  if (sizeBytes === undefined || (sizeBytes === 0 && !mustExist)) {
    if (mustExist) throw new HeadpondError("not-found", `no state at ${path}`);
    return;
  }
  const file = await disk.open(path, "write");
  try {
    const page = Buffer.alloc(metaBytes);
    let newest: Meta | undefined;
    let pageSizeBytes = 4096;
    for (const number of [0, 1]) {
      const count = await file.read(page, number * pageSizeBytes);
      const meta = count < metaBytes ? undefined : readMeta(page);
      if (meta === undefined) {
        throw new HeadpondError(
          "corrupt",
          `${path} is no state of Headpond, or cut short: it has ${sizeBytes} bytes; ${advice}`,
        );
      }
      pageSizeBytes = meta.pageSizeBytes;
      if (newest === undefined || meta.transaction > newest.transaction) newest = meta;
    }
    const neededBytes = (newest?.pageCount ?? 0) * pageSizeBytes;
    if (sizeBytes + unusedPagesMax * pageSizeBytes < neededBytes) {
      throw new HeadpondError(
        "corrupt",
        `${path} is cut short: it has ${sizeBytes} bytes and names ${neededBytes}; ${advice}`,
      );
    }
    if (sizeBytes < neededBytes) await file.truncate(neededBytes);
  } finally {
    await file.close();
  }
}

const unusedPagesMax = 64;

async function fileSizeBytes(path: string, disk: StoreDisk): Promise<number | undefined> {
  try {
    return (await disk.stat(path)).sizeBytes;
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
}

/** lmdb says why a commit failed in a second promise, which must not stay unhandled. */
async function commitError(error: unknown): Promise<unknown> {
  const reason = (error as { commitError?: Promise<never> }).commitError;
  if (reason === undefined) return error;
  return reason.then(
    () => error,
    (cause: unknown) => cause,
  );
}

function ignore(): void {
  // The promise of the batch rejects as well.
}

function storeError(error: unknown, path: string): HeadpondError {
  if (isHeadpondError(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (/ENOSPC|no space|MAP_FULL|disk full/i.test(message)) {
    return new HeadpondError("no-space", `no space for ${path}: ${message}`, { cause: error });
  }
  if (/ENOENT|no such file/i.test(message)) {
    return new HeadpondError("not-found", `no state at ${path}`, { cause: error });
  }
  return new HeadpondError("corrupt", `cannot read ${path}: ${message}; ${advice}`, {
    cause: error,
  });
}

async function syncFile(disk: StoreDisk, path: string): Promise<void> {
  const file = await disk.open(path, "write");
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

function sync(root: Environment["root"]): Promise<void> {
  return new Promise((resolve, reject) => {
    (root as unknown as { sync(done: (error?: Error) => void): void }).sync((error) => {
      if (error instanceof Error) reject(error);
      else resolve();
    });
  });
}
