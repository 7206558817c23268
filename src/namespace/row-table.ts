/**
 * Small rows of the state beside inodes: mounts, intents, jobs, TTL deadlines and so on, ordered by key, each kind under a prefix
 * byte. As with inodes, changes live in memory until a flush has written them. Values are bytes; hashes are counted at
 * the change, since these rows change seldom.
 */

import { assert } from "../base/assert.ts";
import { type Digest, hashHigh, hashLow, hashRow } from "./hash.ts";
import { type Batch, rowsTable, type Store } from "./store.ts";

/** Bytes as latin1 text, so that a Map can hold them and their order is that of the bytes. */
type KeyText = string;
type Changes = Map<KeyText, Buffer | undefined>;

export class RowTable {
  readonly #store: Store;
  readonly #digest: Digest;
  #changes: Changes = new Map();
  #frozen: Changes = new Map();

  constructor(options: { readonly store: Store; readonly digest: Digest }) {
    this.#store = options.store;
    this.#digest = options.digest;
  }

  get dirtyCount(): number {
    return this.#changes.size;
  }

  get(key: Buffer): Buffer | undefined {
    const text = key.toString("latin1");
    if (this.#changes.has(text)) return this.#changes.get(text);
    if (this.#frozen.has(text)) return this.#frozen.get(text);
    const value = this.#store.get(rowsTable, key);
    return value === undefined ? undefined : Buffer.from(value);
  }

  /** `undefined` removes the row. */
  set(key: Buffer, value: Buffer | undefined): void {
    const old = this.get(key);
    if (old !== undefined) {
      hashRow(key, old);
      this.#digest.subtract(hashLow, hashHigh);
    }
    if (value !== undefined) {
      hashRow(key, value);
      this.#digest.add(hashLow, hashHigh);
    } else if (old === undefined) {
      return;
    }
    this.#changes.set(key.toString("latin1"), value);
  }

  /** Up to `limit` rows whose keys begin with `prefix`, from `from` (itself included) on. */
  list(prefix: Buffer, limit: number, from: Buffer = prefix): { key: Buffer; value: Buffer }[] {
    const prefixText = prefix.toString("latin1");
    const fromText = from.toString("latin1");
    const changed: KeyText[] = [];
    for (const text of this.#frozen.keys()) {
      if (text.startsWith(prefixText) && text >= fromText && !this.#changes.has(text)) changed.push(text);
    }
    for (const text of this.#changes.keys()) {
      if (text.startsWith(prefixText) && text >= fromText) changed.push(text);
    }
    changed.sort();
    const result: { key: Buffer; value: Buffer }[] = [];
    let next = 0;
    const takeChanged = (text: KeyText): void => {
      const value = this.#changes.has(text) ? this.#changes.get(text) : this.#frozen.get(text);
      if (value !== undefined) result.push({ key: Buffer.from(text, "latin1"), value });
    };
    this.#store.scan(rowsTable, from, (key, value) => {
      const text = key.toString("latin1");
      if (!text.startsWith(prefixText)) return false;
      for (; next < changed.length && (changed[next] as KeyText) <= text && result.length < limit; next++) {
        takeChanged(changed[next] as KeyText);
        if (changed[next] === text) {
          next++;
          return result.length < limit;
        }
      }
      if (result.length < limit) result.push({ key: Buffer.from(key), value: Buffer.from(value) });
      return result.length < limit;
    });
    for (; next < changed.length && result.length < limit; next++) takeChanged(changed[next] as KeyText);
    return result;
  }

  freeze(): void {
    assert(this.#frozen.size === 0, "a flush is under way");
    this.#frozen = this.#changes;
    this.#changes = new Map();
  }

  encode(batch: Batch): void {
    for (const [text, value] of this.#frozen) batch.put(rowsTable, Buffer.from(text, "latin1"), value);
  }

  thaw(): void {
    this.#frozen = new Map();
  }
}
