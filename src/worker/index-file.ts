/**
 * Writes the index of one cached file version. One change at a time, in the order in which they were asked for, each
 * durable when its promise resolves. The first write makes the file whole under another name and renames it, so that an index is
 * either absent or begins with a whole header. Whoever appends "durable" records has synced the data before.
 */

import type { Disk, DiskFile } from "../io/disk.ts";
import { IndexEncoder, type IndexRecord, type IndexState } from "./block-index.ts";

/** Records after which the next change rewrites the file instead of growing it. */
const appendsMax = 1000;

export type IndexFilePosition = { readonly bytes: number; readonly chain: number };

export class IndexFile {
  readonly path: string;
  readonly #disk: Disk;
  readonly #directoryPath: string;
  #file: DiskFile | undefined;
  /** Where the next record goes; undefined: the file does not exist, or must be rewritten. */
  #end: IndexFilePosition | undefined;
  #appends = 0;
  /** Tail of the chain of changes. Never rejects. */
  #last: Promise<void> = Promise.resolve();

  constructor(options: {
    readonly disk: Disk;
    readonly directoryPath: string;
    readonly path: string;
    readonly end: IndexFilePosition | undefined;
  }) {
    this.#disk = options.disk;
    this.#directoryPath = options.directoryPath;
    this.path = options.path;
    this.#end = options.end;
  }

  get exists(): boolean {
    return this.#end !== undefined;
  }

  /**
   * `prepare` runs when all earlier changes are durable: it may sync data, changes `state`, and returns what to record. Nothing
   * is written when it returns nothing.
   */
  change(state: IndexState, prepare: () => Promise<readonly IndexRecord[]>): Promise<void> {
    const work = this.#last.then(async () => {
      const records = await prepare();
      if (records.length === 0) return;
      const compacts = records.some((record) => record.kind === "complete") || this.#appends >= appendsMax;
      if (this.#end === undefined || compacts) await this.#rewrite(state);
      else await this.#append(this.#end, records);
    });
    this.#last = work.catch(() => {});
    return work;
  }

  /** When every change so far has ended, well or not. */
  async settle(): Promise<void> {
    await this.#last;
  }

  /** Takes its turn among the changes; the next one opens the file again. */
  close(): Promise<void> {
    const work = this.#last.then(async () => {
      const file = this.#file;
      this.#file = undefined;
      await file?.close();
    });
    this.#last = work.catch(() => {});
    return work;
  }

  async remove(): Promise<void> {
    await this.close();
    this.#end = undefined;
    await unlinkIfThere(this.#disk, this.path);
  }

  async #append(end: IndexFilePosition, records: readonly IndexRecord[]): Promise<void> {
    this.#file ??= await this.#disk.open(this.path, "write");
    const encoder = new IndexEncoder(end.chain);
    const bytes = Buffer.concat(records.map((record) => encoder.record(record)));
    // Should this fail half-way, the next change must not append behind a torn record.
    this.#end = undefined;
    await this.#file.write(bytes, end.bytes);
    await this.#file.datasync();
    this.#end = { bytes: end.bytes + bytes.length, chain: encoder.chain };
    this.#appends++;
  }

  async #rewrite(state: IndexState): Promise<void> {
    const old = this.#file;
    this.#file = undefined;
    await old?.close();
    const encoder = new IndexEncoder();
    const bytes = encoder.whole(state);
    const newPath = `${this.path}.new`;
    await unlinkIfThere(this.#disk, newPath);
    const file = await this.#disk.open(newPath, "create");
    try {
      await file.write(bytes, 0);
      await file.datasync();
    } finally {
      await file.close();
    }
    await this.#disk.rename(newPath, this.path);
    await this.#disk.syncDirectory(this.#directoryPath);
    this.#end = { bytes: bytes.length, chain: encoder.chain };
    this.#appends = 0;
  }
}

export async function unlinkIfThere(disk: Disk, path: string): Promise<void> {
  try {
    await disk.unlink(path);
  } catch (error) {
    if ((error as { code?: unknown }).code !== "ENOENT") throw error;
  }
}
