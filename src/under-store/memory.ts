/**
 * An under store in memory, for tests and simulations: deterministic, as strict as the contract, and nothing survives it.
 * `put` and `peek` let a test play the outside world that changes objects behind Headpond's back.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import {
  type CallOptions,
  checkFileKey,
  checkKey,
  compareEntries,
  type ListEntry,
  type ListOptions,
  type ListPage,
  type ObjectInfo,
  type ReadOptions,
  throwIfCancelled,
  type UnderStore,
  type UnderStoreTraits,
  type WriteOptions,
} from "./under-store.ts";

export type MemoryUnderStoreDependencies = {
  readonly clock: Clock;
  readonly name?: string;
  readonly listPageMax?: number;
  /** Bytes handed to `onChunk` at once. */
  readonly chunkSizeBytes?: number;
};

type StoredObject = { readonly info: ObjectInfo; readonly bytes: Uint8Array };

export class MemoryUnderStore implements UnderStore {
  readonly uri: string;
  readonly traits: UnderStoreTraits;
  readonly #clock: Clock;
  readonly #chunkSizeBytes: number;
  readonly #objects = new Map<string, StoredObject>();
  /** Children of each directory; a directory exists when it has an entry here. */
  readonly #directories = new Map<string, Map<string, "file" | "directory">>([["", new Map()]]);
  /** Of the directory listed last, until anything changes: pages of a big directory are not sorted again and again. */
  #sorted: { readonly key: string; readonly entries: readonly ListEntry[] } | undefined;
  #lastVersion = 0;

  constructor({ clock, name = "test", listPageMax = 1000, chunkSizeBytes = 65536 }: MemoryUnderStoreDependencies) {
    this.#clock = clock;
    this.#chunkSizeBytes = chunkSizeBytes;
    this.uri = `memory://${name}`;
    this.traits = {
      writable: true,
      exclusiveWrites: true,
      rename: "atomic",
      listPageMax,
      readBytesPreferred: 4 * 1024 * 1024,
    };
  }

  /** Replaces or creates an object at once, with a new etag even if the bytes are the same. */
  put(key: string, bytes: Uint8Array): ObjectInfo {
    checkFileKey(key);
    if (this.#directories.has(key)) throw new HeadpondError("is-a-directory", `${key} is a directory in ${this.uri}`);
    this.#makeParents(key);
    this.#lastVersion++;
    const etag = `"memory-${this.#lastVersion}"`;
    const info = { key, sizeBytes: bytes.length, etag, modifiedMs: this.#clock.wallMs() };
    this.#objects.set(key, { info, bytes: Uint8Array.from(bytes) });
    this.#childrenOf(parentKey(key))?.set(lastName(key), "file");
    this.#sorted = undefined;
    return info;
  }

  /** The stored bytes, not a copy. */
  peek(key: string): Uint8Array | undefined {
    return this.#objects.get(key)?.bytes;
  }

  async list(directoryKey: string, options: ListOptions = {}): Promise<ListPage> {
    throwIfCancelled(options.signal);
    checkKey(directoryKey);
    const entries = this.#sortedEntries(directoryKey);
    const start = options.continuation === undefined ? 0 : indexAfter(entries, options.continuation);
    const end = start + Math.max(1, Math.min(options.limit ?? this.traits.listPageMax, this.traits.listPageMax));
    const page = entries.slice(start, end);
    const last = page.at(-1);
    return {
      entries: page,
      skipped: 0,
      ...(end < entries.length && last !== undefined ? { next: continuationOf(last) } : {}),
    };
  }

  async head(key: string, options: CallOptions = {}): Promise<ListEntry | undefined> {
    throwIfCancelled(options.signal);
    checkKey(key);
    const object = this.#objects.get(key);
    if (object !== undefined) return { kind: "file", info: object.info };
    return this.#directories.has(key) ? { kind: "directory", key } : undefined;
  }

  async read(key: string, { position, length, etag, signal, onChunk }: ReadOptions): Promise<void> {
    throwIfCancelled(signal);
    const check = (): StoredObject => {
      checkFileKey(key);
      const object = this.#objects.get(key);
      if (object === undefined) throw new HeadpondError("not-found", `${key} is not in ${this.uri}`);
      if (object.info.etag !== etag) {
        throw new HeadpondError("version-mismatch", `${key} is ${object.info.etag} in ${this.uri}, not ${etag}`);
      }
      return object;
    };
    const { bytes } = check();
    if (position < 0 || length < 0 || position + length > bytes.length) {
      throw new HeadpondError("invalid", `${key} has ${bytes.length} bytes, not ${position} + ${length}`);
    }
    for (let at = position; at < position + length; at += this.#chunkSizeBytes) {
      await onChunk(bytes.slice(at, Math.min(at + this.#chunkSizeBytes, position + length)));
      throwIfCancelled(signal);
      check();
    }
  }

  async write(key: string, { body, sizeBytes, ifAbsent = false, signal }: WriteOptions): Promise<ObjectInfo> {
    checkFileKey(key);
    const parts: Uint8Array[] = [];
    let total = 0;
    for await (const part of body) {
      throwIfCancelled(signal);
      parts.push(Uint8Array.from(part));
      total += part.length;
    }
    throwIfCancelled(signal);
    if (sizeBytes !== undefined && sizeBytes !== total) {
      throw new HeadpondError("invalid", `${key}: the body has ${total} bytes, not ${sizeBytes}`);
    }
    if (ifAbsent && this.#objects.has(key)) {
      throw new HeadpondError("already-exists", `${key} is already in ${this.uri}`);
    }
    return this.put(key, Buffer.concat(parts));
  }

  async makeDirectory(key: string): Promise<void> {
    checkKey(key);
    this.#makeParents(`${key}/_`);
  }

  async remove(key: string): Promise<void> {
    checkFileKey(key);
    if (this.#directories.has(key)) throw new HeadpondError("is-a-directory", `${key} is a directory in ${this.uri}`);
    if (this.#objects.delete(key)) this.#childrenOf(parentKey(key))?.delete(lastName(key));
    this.#sorted = undefined;
  }

  async removeDirectory(key: string): Promise<void> {
    checkFileKey(key);
    if (this.#objects.has(key)) throw new HeadpondError("not-a-directory", `${key} is a file in ${this.uri}`);
    const children = this.#directories.get(key);
    if (children === undefined) return;
    if (children.size > 0) throw new HeadpondError("not-empty", `${key} has ${children.size} entries in ${this.uri}`);
    this.#directories.delete(key);
    this.#childrenOf(parentKey(key))?.delete(lastName(key));
    this.#sorted = undefined;
  }

  async rename(from: string, to: string): Promise<void> {
    checkFileKey(from);
    checkFileKey(to);
    if (from === to || to.startsWith(`${from}/`)) {
      if (from === to && (await this.head(from)) !== undefined) return;
      throw new HeadpondError("invalid", `${from} cannot be renamed to ${to}`);
    }
    const object = this.#objects.get(from);
    if (object !== undefined) {
      this.put(to, object.bytes);
      await this.remove(from);
      return;
    }
    const children = this.#directories.get(from);
    if (children === undefined) throw new HeadpondError("not-found", `${from} is not in ${this.uri}`);
    if (this.#objects.has(to)) throw new HeadpondError("not-a-directory", `${to} is a file in ${this.uri}`);
    if ((this.#directories.get(to)?.size ?? 0) > 0) {
      throw new HeadpondError("not-empty", `${to} is not empty in ${this.uri}`);
    }
    await this.makeDirectory(to);
    for (const name of [...children.keys()]) await this.rename(`${from}/${name}`, `${to}/${name}`);
    await this.removeDirectory(from);
  }

  async close(): Promise<void> {}

  #childrenOf(key: string): Map<string, "file" | "directory"> | undefined {
    return this.#directories.get(key);
  }

  #makeParents(key: string): void {
    let parent = "";
    for (const name of key.split("/").slice(0, -1)) {
      if (name === "") continue;
      const child = parent === "" ? name : `${parent}/${name}`;
      if (this.#objects.has(child)) throw new HeadpondError("not-a-directory", `${child} is a file in ${this.uri}`);
      if (!this.#directories.has(child)) {
        this.#directories.set(child, new Map());
        this.#childrenOf(parent)?.set(name, "directory");
        this.#sorted = undefined;
      }
      parent = child;
    }
  }

  #sortedEntries(key: string): readonly ListEntry[] {
    if (this.#sorted?.key === key) return this.#sorted.entries;
    const children = this.#directories.get(key);
    if (children === undefined) {
      if (this.#objects.has(key)) throw new HeadpondError("not-a-directory", `${key} is a file in ${this.uri}`);
      throw new HeadpondError("not-found", `${key} is not in ${this.uri}`);
    }
    const entries: ListEntry[] = [];
    for (const [name, kind] of children) {
      const child = key === "" ? name : `${key}/${name}`;
      const info = this.#objects.get(child)?.info;
      entries.push(kind === "file" && info !== undefined ? { kind: "file", info } : { kind: "directory", key: child });
    }
    entries.sort(compareEntries);
    this.#sorted = { key, entries };
    return entries;
  }
}

function parentKey(key: string): string {
  return key.includes("/") ? key.slice(0, key.lastIndexOf("/")) : "";
}

function lastName(key: string): string {
  return key.slice(key.lastIndexOf("/") + 1);
}

/** Continuations name the entry that was last on the page, so that changes between pages shift nothing. */
function continuationOf(entry: ListEntry): string {
  return entry.kind === "file" ? `f${entry.info.key}` : `d${entry.key}`;
}

function indexAfter(entries: readonly ListEntry[], continuation: string): number {
  const key = continuation.slice(1);
  const last: ListEntry = continuation.startsWith("d")
    ? { kind: "directory", key }
    : { kind: "file", info: { key, sizeBytes: 0, etag: "", modifiedMs: 0 } };
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compareEntries(entries[middle] as ListEntry, last) <= 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
