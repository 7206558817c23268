/**
 * A store in memory that survives a simulated crash of the process as LMDB does: with the batches that were committed, without
 * the one under way. For tests and simulations; nothing is bounded.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Batch, Store, Table } from "./store.ts";

type Rows = Map<string, Buffer>;

/** Stands for the file system: copies made by `backup`, by path. */
export type MemoryCopies = Map<string, readonly Rows[]>;

export class MemoryStore implements Store {
  readonly #copies: MemoryCopies;
  /** Called within a commit; a test may make it wait, fail, or crash the store. */
  readonly #beforeCommit: (() => Promise<void> | void) | undefined;
  #tables: Rows[] = [new Map(), new Map(), new Map()];
  /** Keys in order, rebuilt when a scan finds it stale. */
  #sorted: (string[] | undefined)[] = [undefined, undefined, undefined];
  #incarnation = 0;
  commits = 0;

  constructor(options: { readonly copies?: MemoryCopies; readonly beforeCommit?: () => Promise<void> | void } = {}) {
    this.#copies = options.copies ?? new Map();
    this.#beforeCommit = options.beforeCommit;
  }

  get(table: Table, key: Uint8Array): Buffer | undefined {
    return (this.#tables[table] as Rows).get(text(key));
  }

  scan(table: Table, from: Uint8Array, visit: (key: Buffer, value: Buffer) => boolean): void {
    const rows = this.#tables[table] as Rows;
    const keys = (this.#sorted[table] ??= [...rows.keys()].sort());
    const start = text(from);
    let low = 0;
    let high = keys.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((keys[middle] as string) < start) low = middle + 1;
      else high = middle;
    }
    for (let i = low; i < keys.length; i++) {
      const key = keys[i] as string;
      if (!visit(Buffer.from(key, "latin1"), rows.get(key) as Buffer)) return;
    }
  }

  async commit(batch: Batch): Promise<void> {
    const incarnation = this.#incarnation;
    // Always at least one turn later, as with a real store.
    await Promise.resolve();
    await this.#beforeCommit?.();
    if (incarnation !== this.#incarnation) throw new HeadpondError("cancelled", "the store crashed during a commit");
    batch.forEach((table, key, value) => {
      const rows = this.#tables[table] as Rows;
      if (value === undefined) rows.delete(text(key));
      else rows.set(text(key), Buffer.from(value));
      this.#sorted[table] = undefined;
    });
    this.commits++;
  }

  /** The process dies: the commit under way is lost, what was committed stays for the next user of this store. */
  crash(): void {
    this.#incarnation++;
  }

  backup(path: string): Promise<undefined> {
    this.#copies.set(
      path,
      this.#tables.map((rows) => new Map(rows)),
    );
    return Promise.resolve(undefined);
  }

  replace(path: string | undefined): Promise<void> {
    const copy = path === undefined ? undefined : this.#copies.get(path);
    if (path !== undefined && copy === undefined) {
      return Promise.reject(new HeadpondError("not-found", `no copy of a state at ${path}`));
    }
    this.#tables = copy === undefined ? [new Map(), new Map(), new Map()] : copy.map((rows) => new Map(rows));
    this.#sorted = [undefined, undefined, undefined];
    return Promise.resolve();
  }

  peek(path: string, table: Table, key: Uint8Array): Promise<Buffer | undefined> {
    return Promise.resolve(this.#copies.get(path)?.[table]?.get(text(key)));
  }

  close(): Promise<void> {
    this.#incarnation++;
    return Promise.resolve();
  }
}

/** Bytes as a string whose order is that of the bytes. */
function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}
