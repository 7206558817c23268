/**
 * Compares a listing of an under store, page by page, with the children that the namespace has: which rows are new or
 * different, and which children the listing did not show. One pass over both, in memory proportional to a page, so a
 * directory of a million objects that has not changed costs a million comparisons and no command at all.
 *
 * The two are ordered differently: the namespace by names, stores by keys in which a directory's name ends with a slash
 * (`a-b` comes before `a/`, but `a` before `a-b`). A directory is held back until its key's turn; those that wait at one
 * time are prefixes of each other, so there are few.
 */

import type { ListedRow } from "../base/file.ts";
import { compareCodePoints, type ListEntry } from "../under-store/under-store.ts";

/** What the namespace knows of one child. */
export type KnownChild = {
  readonly name: string;
  readonly kind: "file" | "directory";
  readonly sizeBytes: number;
  readonly etag: string;
  readonly hasDigest: boolean;
  /** False while it is being written to the store: no listing can tell anything about it. */
  readonly complete: boolean;
};

/** At most `limit` children behind `afterName` (undefined: from the first on), in the order of names. */
export type ChildrenSource = (afterName: string | undefined, limit: number) => readonly KnownChild[];

const childrenPerRead = 1000;

export type MergedPage = { readonly rows: readonly ListedRow[]; readonly goneNames: readonly string[] };

export class ListingMerge {
  readonly #children: ChildrenCursor;

  constructor(children: ChildrenSource) {
    this.#children = new ChildrenCursor(children);
  }

  /** `entries` as the store lists them, consecutive from page to page. */
  page(entries: readonly ListEntry[]): MergedPage {
    const rows: ListedRow[] = [];
    const goneNames: string[] = [];
    for (const entry of entries) {
      const row = rowOf(entry);
      const key = orderKey(row);
      for (;;) {
        const child = this.#children.peek();
        const order = child === undefined ? 1 : compareCodePoints(orderKey(child), key);
        if (child === undefined || order > 0) {
          rows.push(row);
          break;
        }
        this.#children.next();
        if (order === 0) {
          if (differs(child, row)) rows.push(row);
          break;
        }
        if (child.complete) goneNames.push(child.name);
      }
    }
    return { rows, goneNames };
  }

  /** After the last page: at most `limit` more children that the listing did not show; empty when there are no more. */
  rest(limit: number): readonly string[] {
    const goneNames: string[] = [];
    while (goneNames.length < limit) {
      const child = this.#children.next();
      if (child === undefined) break;
      if (child.complete) goneNames.push(child.name);
    }
    return goneNames;
  }
}

/** Children in the order of stores. */
class ChildrenCursor {
  readonly #source: ChildrenSource;
  #chunk: readonly KnownChild[] = [];
  #at = 0;
  #lastName: string | undefined;
  #exhausted = false;
  /** Directories whose key has not had its turn, in the order of their keys. */
  readonly #waiting: KnownChild[] = [];

  constructor(source: ChildrenSource) {
    this.#source = source;
  }

  peek(): KnownChild | undefined {
    for (;;) {
      const named = this.#peekNamed();
      const waiting = this.#waiting[0];
      if (waiting !== undefined) {
        if (named === undefined || compareCodePoints(orderKey(waiting), named.name) < 0) return waiting;
      }
      if (named === undefined || named.kind === "file") return named;
      this.#at++;
      const position = this.#waiting.findIndex((other) => compareCodePoints(orderKey(named), orderKey(other)) < 0);
      this.#waiting.splice(position === -1 ? this.#waiting.length : position, 0, named);
    }
  }

  next(): KnownChild | undefined {
    const child = this.peek();
    if (child !== undefined && child === this.#waiting[0]) this.#waiting.shift();
    else this.#at++;
    return child;
  }

  #peekNamed(): KnownChild | undefined {
    if (this.#at >= this.#chunk.length && !this.#exhausted) {
      this.#chunk = this.#source(this.#lastName, childrenPerRead);
      this.#at = 0;
      this.#lastName = this.#chunk.at(-1)?.name;
      this.#exhausted = this.#chunk.length === 0;
    }
    return this.#chunk[this.#at];
  }
}

export function rowOf(entry: ListEntry): ListedRow {
  if (entry.kind === "directory") {
    return { name: lastName(entry.key), kind: "directory", sizeBytes: 0, etag: "", modifiedMs: 0 };
  }
  const { key, sizeBytes, etag, modifiedMs, digest } = entry.info;
  return {
    name: lastName(key),
    kind: "file",
    sizeBytes,
    etag,
    modifiedMs: Math.max(0, Math.floor(modifiedMs)),
    ...(digest === undefined ? {} : { digest }),
  };
}

/** The etag names the content; the size is compared besides. A time alone is no change: the content is the same. */
export function differs(child: KnownChild, row: ListedRow): boolean {
  if (child.kind !== row.kind) return true;
  if (row.kind === "directory" || !child.complete) return false;
  return child.etag !== row.etag || child.sizeBytes !== row.sizeBytes || (row.digest !== undefined && !child.hasDigest);
}

function orderKey({ name, kind }: { readonly name: string; readonly kind: "file" | "directory" }): string {
  return kind === "file" ? name : `${name}/`;
}

function lastName(key: string): string {
  return key.slice(key.lastIndexOf("/") + 1);
}
