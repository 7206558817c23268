/**
 * Shared storage, as the shared journal needs it (docs/shared-journal.md): objects that are created once, whole, under a name
 * that did not exist, and never changed. A directory (`shared-directory.ts`) and an S3-compatible bucket (`shared-bucket.ts`)
 * implement it; one contract suite (`shared-store-contract.ts`) holds both to it.
 *
 * What every rule of the protocol rests on: of several `create`s of one name exactly one is "created", ever; and what one
 * created, every later `read` of that name sees, on whichever machine. Nothing rests on listings.
 *
 * Names are `/`-separated parts of `[a-z0-9.-]`, at most 200 bytes.
 */

export type SharedObject = { readonly name: string; readonly sizeBytes: number };

/**
 * Errors of every call: `unavailable` (retryable) for a store that does not answer or answers nonsense, `no-space`, `denied`, `cancelled`
 * when the signal fired. An error of `create` has the outcome "unknown" unless nothing can have been written (then "none"): who creates
 * finds out by `read`.
 */
export interface SharedStore {
  /** Without secrets: fit for logs. */
  readonly uri: string;
  /** How many calls under way use it well. */
  readonly parallelCalls: number;

  /** Durable when it resolves. "exists": something is under that name, perhaps of a lost attempt of our own. */
  create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<"created" | "exists">;

  /** The whole object; `undefined`: there is none. Never from a cache that may be behind. At most `objectBytesMax`. */
  read(name: string, signal?: AbortSignal): Promise<Uint8Array | undefined>;

  /** Objects directly below `prefix` (a directory, with or without a slash at its end) behind the name `after`, in order of names. A hint: may lack what is there, may show what is gone. */
  list(prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<readonly SharedObject[]>;

  /** Absent: no error. */
  remove(name: string, signal?: AbortSignal): Promise<void>;

  /** A large object from a local file; exclusive like `create`. */
  upload(name: string, path: string, signal?: AbortSignal): Promise<"created" | "exists">;

  /** Into a new local file, durable when it resolves; `undefined`: there is none. Nothing is left at `path` when it fails. */
  download(name: string, path: string, signal?: AbortSignal): Promise<{ readonly bytes: number } | undefined>;

  close(): Promise<void>;
}

/** Of objects that are created and read whole: a slot's batch is cut to it. */
export const objectBytesMax = 8 * 1024 * 1024;
