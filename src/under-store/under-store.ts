/**
 * Under stores: where the truth behind a mount lives. One interface for a directory, an S3 bucket, a web server; one
 * contract suite (`contract.ts`) holds every implementation to the same words. Meaning lives above this seam (namespace,
 * sync, caching, retries that span minutes); a store only translates, and rides out the short faults of its own protocol.
 *
 * Keys are relative to the mount, `/`-separated, without a leading or trailing slash; `""` is the mount itself. Every part
 * is a valid name of a Headpond path; what a store holds under other names is skipped in listings and counted.
 *
 * Left out on purpose: modes, owners, links, appends, recursive listings.
 */

import { HeadpondError } from "../base/errors.ts";
import type { ContentDigest } from "../base/file.ts";
import { checkName, pathBytesMax } from "../base/path.ts";

export type ObjectInfo = {
  readonly key: string;
  readonly sizeBytes: number;
  /** Names exactly this content; never empty; opaque, compared byte for byte. */
  readonly etag: string;
  /** Wall clock of the store, ms since 1970. */
  readonly modifiedMs: number;
  /** Digest of the whole content, when the store vouches for one. `list` may leave it out where `head` has it. */
  readonly digest?: ContentDigest;
};

export type ListEntry =
  | { readonly kind: "file"; readonly info: ObjectInfo }
  | { readonly kind: "directory"; readonly key: string };

export type ListPage = {
  readonly entries: readonly ListEntry[];
  /** Hand it to the next `list` of the same directory; absent on the last page. A page may be empty and yet not be the last. */
  readonly next?: string;
  /** How many names on this page cannot be expressed in the namespace and were left out (also logged). */
  readonly skipped: number;
};

export type ListOptions = {
  readonly continuation?: string;
  /** Entries per page at most; the store may give fewer, and never more than its `listPageMax`. */
  readonly limit?: number;
  readonly signal?: AbortSignal;
};

export type ReadOptions = {
  readonly position: number;
  readonly length: number;
  /** The content to read: an `etag` that `head`, `list` or `write` gave. */
  readonly etag: string;
  readonly signal?: AbortSignal;
  /**
   * Called in order with consecutive bytes, together exactly `length`. `chunk` is valid until the call returns, or until
   * the promise that it returned resolves; nothing more is read from the store meanwhile than its buffers hold.
   */
  readonly onChunk: (chunk: Uint8Array) => void | Promise<void>;
  /**
   * Memory of `length` bytes for what is read, in order. A store that can lets the bytes arrive there, and hands over chunks of it;
   * it writes nothing there once `read` has settled or `signal` has fired. Others do as if it were not given.
   */
  readonly into?: Uint8Array;
};

export type WriteOptions = {
  readonly body: AsyncIterable<Uint8Array>;
  /** If given, a body of another length fails with `invalid` and nothing is written. */
  readonly sizeBytes?: number;
  /** Exactly one of several concurrent writers wins; the others get `already-exists`. */
  readonly ifAbsent?: boolean;
  readonly signal?: AbortSignal;
};

export type CallOptions = { readonly signal?: AbortSignal };

export type UnderStoreTraits = {
  readonly writable: boolean;
  /** Whether `ifAbsent` has exactly one winner. */
  readonly exclusiveWrites: boolean;
  /** How `rename` works: in one step; by copying, when a crash may leave both; or not at all. */
  readonly rename: "atomic" | "copy" | "none";
  readonly listPageMax: number;
  /** Reads of about this size use the store well. */
  readonly readBytesPreferred: number;
};

/**
 * Errors of every call: `invalid` for a hostile key, `denied`, `cancelled` when the signal fired, `overloaded` with
 * `details.retryAfterMs` when the store goes on throttling, `under-store` (retryable) for what broke on the way,
 * `unsupported` or `read-only` for what the store cannot do.
 */
export interface UnderStore {
  /** The mount's URI, without secrets: fit for logs. */
  readonly uri: string;
  readonly traits: UnderStoreTraits;

  /**
   * One level of a directory, in `compareEntries` order across all pages, in memory proportional to one page. An absent directory
   * is `not-found`, or an empty page where the store has no directories of its own (S3).
   */
  list(directoryKey: string, options?: ListOptions): Promise<ListPage>;

  /** Undefined: absent. */
  head(key: string, options?: CallOptions): Promise<ListEntry | undefined>;

  /**
   * Bytes `[position, position + length)` of exactly the content `etag`. Also throws `not-found`, `version-mismatch` when
   * the content is no longer that one (bytes handed out before are to be thrown away) and `invalid` for a range behind the end.
   */
  read(key: string, options: ReadOptions): Promise<void>;

  /**
   * Replaces or creates; whole or not at all. Parent directories come into being. Throws `unknown-outcome` when it cannot
   * be told whether the write took effect.
   */
  write(key: string, options: WriteOptions): Promise<ObjectInfo>;

  /** With parents; no error if it exists. Throws `not-a-directory` where a file is in the way. */
  makeDirectory(key: string, options?: CallOptions): Promise<void>;

  /** A file. Absent: no error (removals are driven again after a crash). */
  remove(key: string, options?: CallOptions): Promise<void>;

  /** An empty directory; absent: no error. Throws `not-empty`. */
  removeDirectory(key: string, options?: CallOptions): Promise<void>;

  /** A file (replacing a file at `to`) or a directory. Throws `not-found`. See `traits.rename`. */
  rename(from: string, to: string, options?: CallOptions): Promise<void>;

  close(): Promise<void>;
}

/** The name by which entries are ordered: that of a directory ends with a slash, as object stores list them. */
export function entryOrderKey(entry: ListEntry): string {
  return entry.kind === "file" ? entry.info.key : `${entry.key}/`;
}

/** Order of listings: by the bytes of UTF-8 (equal to the order of code points). */
export function compareEntries(a: ListEntry, b: ListEntry): number {
  return compareCodePoints(entryOrderKey(a), entryOrderKey(b));
}

/** UTF-16 order differs from that of UTF-8 for surrogates against U+E000..U+FFFF: those are moved. */
export function compareCodePoints(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return orderOfUnit(x) - orderOfUnit(y);
  }
  return a.length - b.length;
}

function orderOfUnit(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit >= 0xe000 ? unit - 0x800 : unit + 0x2000;
}

/** Checks a key from above. Throws `invalid`. */
export function checkKey(key: string): void {
  if (key === "") return;
  if (key.length * 3 > pathBytesMax && Buffer.byteLength(key) > pathBytesMax) {
    throw new HeadpondError("invalid", `key of ${Buffer.byteLength(key)} bytes is longer than ${pathBytesMax}`);
  }
  for (const name of key.split("/")) checkName(name);
}

/** As `checkKey`, of something that cannot be the mount itself. */
export function checkFileKey(key: string): void {
  if (key === "") throw new HeadpondError("is-a-directory", "the root of a mount is a directory, not a file");
  checkKey(key);
}

/** Throws `cancelled` (or the error of ours that the signal carries) once the signal has fired. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancellation(signal);
}

/** The error for an aborted signal. */
export function cancellation(signal: AbortSignal): HeadpondError {
  const reason: unknown = signal.reason;
  if (reason instanceof HeadpondError) return reason;
  if (reason instanceof Error && reason.name === "TimeoutError") {
    return new HeadpondError("timeout", reason.message, { cause: reason });
  }
  return new HeadpondError("cancelled", reason instanceof Error ? reason.message : "cancelled", { cause: reason });
}

/**
 * Carries an error of the caller's own code (`onChunk`, a body) through a store, so that it is neither taken for a fault of
 * the store nor tried again; `unwrapCaller` takes it out at the edge.
 */
export class CallerError extends Error {
  override readonly name = "CallerError";

  constructor(cause: unknown) {
    super("the caller's code failed", { cause });
  }
}

export function unwrapCaller(error: unknown): unknown {
  return error instanceof CallerError ? error.cause : error;
}

/** Hands `chunk` over; a promise if it is not taken at once. Fails with `CallerError`. */
export function handOver(onChunk: ReadOptions["onChunk"], chunk: Uint8Array): void | Promise<void> {
  try {
    return onChunk(chunk)?.catch((error: unknown) => {
      throw new CallerError(error);
    });
  } catch (error) {
    throw new CallerError(error);
  }
}

/**
 * The chunks of a body. Throws `CallerError` when the body fails, and `invalid` when it has other than `sizeBytes` bytes
 * (if given).
 */
export async function* bodyChunks(key: string, { body, sizeBytes, signal }: WriteOptions): AsyncGenerator<Uint8Array> {
  const iterator = body[Symbol.asyncIterator]();
  let total = 0;
  try {
    for (;;) {
      throwIfCancelled(signal);
      let step: IteratorResult<Uint8Array>;
      try {
        step = await iterator.next();
      } catch (error) {
        throw new CallerError(error);
      }
      if (step.done === true) break;
      total += step.value.length;
      if (sizeBytes !== undefined && total > sizeBytes) break;
      yield step.value;
    }
  } finally {
    await iterator.return?.();
  }
  if (sizeBytes === undefined || total === sizeBytes) return;
  throw new HeadpondError("invalid", `${key}: the body does not have the ${sizeBytes} bytes that were announced`);
}

/** Whether a name that a store holds can be one in the namespace. */
export function isValidName(name: string): boolean {
  try {
    checkName(name);
    return true;
  } catch {
    return false;
  }
}
