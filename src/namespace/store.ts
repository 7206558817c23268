/**
 * What the state machine asks of a store: three ordered tables of bytes, read synchronously, written by atomic batches
 * in the background. `LmdbStore` is the real one, `MemoryStore` crashes on demand for simulations.
 *
 * A store need not make a batch durable: the journal's log does that. It must never show a part of a batch.
 */

import { ByteWriter } from "./bytes.ts";

/** Pages of inodes by page number, names by directory and name, all else by a prefix byte. */
export const inodesTable = 0;
export const namesTable = 1;
export const rowsTable = 2;
export type Table = typeof inodesTable | typeof namesTable | typeof rowsTable;

export type FileSum = { readonly bytes: number; readonly xxh64: string };

export interface Store {
  /** The value under a key as of the last commit. Valid only until the next call. */
  get(table: Table, key: Uint8Array): Buffer | undefined;
  /** Visits rows from `from` on, ascending, until `visit` returns false. Buffers are valid only during the visit. */
  scan(table: Table, from: Uint8Array, visit: (key: Buffer, value: Buffer) => boolean): void;
  /** Writes all of the batch or nothing; readers see it when it resolves. One at a time. The batch must not change meanwhile. */
  commit(batch: Batch): Promise<void>;
  /** Writes a copy of some commit at or after the call into the new file `path`, durable when it resolves; with its sum, if that came by the way. */
  backup(path: string, signal?: AbortSignal): Promise<FileSum | undefined>;
  /** Replaces all rows by those of a copy; `undefined`: by none. Nothing else may run meanwhile. */
  replace(path: string | undefined): Promise<void>;
  /** Reads one row of the copy at `path`, without touching this store. */
  peek(path: string, table: Table, key: Uint8Array): Promise<Buffer | undefined>;
  close(): Promise<void>;
}

/** Rows to write, all in one slab: `begin`, write the key, `value`, write the value, `end`; or `begin`, the key, `remove`. */
export class Batch {
  readonly writer = new ByteWriter(64 * 1024);
  /** As `rows`, with room for more. Not an array of the engine's: one that is filled and emptied again and again is mostly garbage. */
  #rows = new Int32Array(4 * 1024);
  #used = 0;
  #table: Table = inodesTable;
  #keyStart = 0;
  #valueStart = 0;

  clear(): void {
    this.writer.position = 0;
    this.#used = 0;
  }

  get count(): number {
    return this.#used / 4;
  }

  /** Four numbers a row: table, start of the key, start of the value, end; a value start of -1 removes the key. */
  get rows(): Int32Array {
    return this.#rows.subarray(0, this.#used);
  }

  begin(table: Table): void {
    this.#table = table;
    this.#keyStart = this.writer.position;
  }

  value(): void {
    this.#valueStart = this.writer.position;
  }

  end(): void {
    this.#add(this.#valueStart);
  }

  remove(): void {
    this.#add(-1);
  }

  put(table: Table, key: Uint8Array, value: Uint8Array | undefined): void {
    this.begin(table);
    this.writer.raw(key);
    if (value === undefined) {
      this.remove();
      return;
    }
    this.value();
    this.writer.raw(value);
    this.end();
  }

  /** Visits the rows in the order they were added; the subarrays share the slab. */
  forEach(visit: (table: Table, key: Buffer, value: Buffer | undefined) => void): void {
    const { buffer } = this.writer;
    const rows = this.#rows;
    for (let i = 0; i < this.#used; i += 4) {
      const keyStart = rows[i + 1] as number;
      const valueStart = rows[i + 2] as number;
      const end = rows[i + 3] as number;
      visit(
        rows[i] as Table,
        buffer.subarray(keyStart, valueStart === -1 ? end : valueStart),
        valueStart === -1 ? undefined : buffer.subarray(valueStart, end),
      );
    }
  }

  #add(valueStart: number): void {
    if (this.#used === this.#rows.length) {
      const grown = new Int32Array(2 * this.#rows.length);
      grown.set(this.#rows);
      this.#rows = grown;
    }
    const rows = this.#rows;
    const at = this.#used;
    rows[at] = this.#table;
    rows[at + 1] = this.#keyStart;
    rows[at + 2] = valueStart;
    rows[at + 3] = this.writer.position;
    this.#used = at + 4;
  }
}
