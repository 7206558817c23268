/**
 * The digest of a whole file, where its under store vouches for one. Computed block by block as soon as blocks are
 * there, in slices, and remembered in the index when it matches. When it does not, all blocks of the version go and it is
 * fetched once more, straight from the under store; a second mismatch makes the version `corrupt` for a while.
 */

import { HeadpondError } from "../base/errors.ts";
import type { BlockIndex, FileVersionId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import { crc32, Digest } from "../io/hash.ts";
import type { Logger } from "../io/logger.ts";
import type { CachedFile } from "./cached-file.ts";
import { Crc32c } from "./crc32c.ts";
import type { Fetcher } from "./fetcher.ts";
import { loadUrgency } from "./slots.ts";
import { untilAborted } from "./until-aborted.ts";

/** How long a version that failed twice is refused before it is tried again. */
const corruptMs = 60_000;
/** Hashed on one turn of the event loop at most. */
const sliceBytes = 1024 * 1024;

export type FileDigestDependencies = {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly fetcher: Fetcher;
  readonly onMismatch: (file: CachedFile) => void;
};

export type PassingDigest = {
  update(bytes: Uint8Array): void;
  /** All bytes have passed. Throws `corrupt`. */
  verify(): void;
};

type Task = {
  readonly file: CachedFile;
  readonly done: Promise<void>;
  /** Somebody waits: missing blocks are fetched for it. */
  demanded: boolean;
  /** Raised when a block went: what was hashed so far may not be what will be there. */
  generation: number;
  wake: () => void;
};

export class FileDigests {
  readonly #deps: FileDigestDependencies;
  readonly #tasks = new Map<CachedFile, Task>();
  readonly #mismatches = new Map<FileVersionId, { count: number; atMs: number }>();
  #closed = false;

  constructor(dependencies: FileDigestDependencies) {
    this.#deps = dependencies;
  }

  /** Whether readers of the whole file must wait for the digest. */
  isPending(file: CachedFile): boolean {
    return file.descriptor.digest !== undefined && !file.digestVerified;
  }

  /** A block came or went. */
  noteChange(file: CachedFile, removed: boolean): void {
    if (this.#closed || !this.isPending(file)) return;
    const task = this.#tasks.get(file);
    if (task === undefined) {
      if (!removed) this.#start(file, false);
      return;
    }
    if (removed) task.generation++;
    task.wake();
  }

  /** Resolves when the digest matched and the index says so. Fetches what is missing. Throws `corrupt`. */
  async verify(file: CachedFile, signal?: AbortSignal): Promise<void> {
    if (!this.isPending(file)) return;
    this.#throwIfRefused(file);
    const task = this.#tasks.get(file) ?? this.#start(file, true);
    task.demanded = true;
    task.wake();
    await untilAborted(task.done, signal);
  }

  /** For a file that is not kept: the digest of its bytes as they pass, all of them and in order. Undefined: there is none to compare with. */
  follow(file: CachedFile): PassingDigest | undefined {
    if (!this.isPending(file)) return undefined;
    this.#throwIfRefused(file);
    const hash = streamingDigest(file);
    return {
      update: (bytes) => hash.update(bytes),
      verify: () => {
        const value = hash.hex();
        if (value === file.descriptor.digest?.value) {
          this.#mismatches.delete(file.id);
          return;
        }
        this.#refuse(file, value);
        throw mismatch(file);
      },
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    const tasks = [...this.#tasks.values()];
    for (const task of tasks) task.wake();
    await Promise.all(tasks.map((task) => task.done.catch(() => {})));
  }

  #start(file: CachedFile, demanded: boolean): Task {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const task: Task = { file, done: promise, demanded, generation: 0, wake: () => {} };
    promise.catch(() => {});
    this.#tasks.set(file, task);
    this.#run(task)
      .finally(() => this.#tasks.delete(file))
      .then(resolve, reject);
    return task;
  }

  async #run(task: Task): Promise<void> {
    const { file } = task;
    for (;;) {
      const generation = task.generation;
      const value = await this.#compute(task);
      if (generation !== task.generation || value === undefined) continue;
      if (value === file.descriptor.digest?.value) {
        await file.flush();
        await file.setDigestVerified();
        this.#mismatches.delete(file.id);
        this.#deps.fetcher.forgetFile(file);
        return;
      }
      this.#refuse(file, value);
      throw mismatch(file);
    }
  }

  #throwIfRefused(file: CachedFile): void {
    const refused = this.#mismatches.get(file.id);
    if (refused === undefined || refused.count < 2) return;
    if (this.#deps.clock.monotonicMs() - refused.atMs < corruptMs) throw mismatch(file);
    this.#mismatches.delete(file.id);
  }

  #refuse(file: CachedFile, value: string): void {
    const count = (this.#mismatches.get(file.id)?.count ?? 0) + 1;
    this.#mismatches.set(file.id, { count, atMs: this.#deps.clock.monotonicMs() });
    const { digest, path } = file.descriptor;
    this.#deps.logger.error(
      "a file does not have the digest that its under store vouches for: its blocks are dropped",
      {
        id: file.id,
        path,
        algorithm: digest?.algorithm,
        expected: digest?.value,
        computed: value,
        mismatches: count,
      },
    );
    // One that passes is forgotten with its last reader, and so would be this.
    if (!file.isPassing) this.#deps.fetcher.distrustPeers(file);
    for (let block = 0 as BlockIndex; block < file.blockCount; block++) this.#deps.fetcher.discard(file, block);
    this.#deps.onMismatch(file);
  }

  /** Undefined: start over. */
  async #compute(task: Task): Promise<string | undefined> {
    const { file } = task;
    const { fetcher, clock } = this.#deps;
    const hash = streamingDigest(file);
    const generation = task.generation;
    const buffer = Buffer.allocUnsafe(Math.min(sliceBytes, file.descriptor.blockSizeBytes));
    for (let block = 0 as BlockIndex; block < file.blockCount; block++) {
      await this.#awaitBlock(task, block);
      const length = file.blockLength(block);
      for (let at = 0; at < length; ) {
        if (task.generation !== generation) return undefined;
        const slice = buffer.subarray(0, Math.min(buffer.length, length - at));
        await fetcher.readPiece(file, block, at, slice, { urgency: loadUrgency(9) });
        hash.update(slice);
        at += slice.length;
      }
      await clock.sleep(0);
    }
    return hash.hex();
  }

  async #awaitBlock(task: Task, block: BlockIndex): Promise<void> {
    const { file } = task;
    while (!file.has(block)) {
      if (this.#closed) throw new HeadpondError("unavailable", "the worker is stopping");
      if (file.isGone) throw new HeadpondError("unavailable", `${file.descriptor.path} was dropped from the cache`);
      if (task.demanded) {
        await this.#deps.fetcher.start(file, block, { urgency: loadUrgency(9) }).stored;
        continue;
      }
      await new Promise<void>((resolve) => (task.wake = resolve));
    }
  }
}

type StreamingDigest = { update(bytes: Uint8Array): void; hex(): string };

function streamingDigest(file: CachedFile): StreamingDigest {
  const algorithm = file.descriptor.digest?.algorithm;
  if (algorithm === "crc32c") return new Crc32c();
  if (algorithm === "crc32") {
    let crc = 0;
    return {
      update: (bytes) => {
        crc = crc32(bytes, crc);
      },
      hex: () => crc.toString(16).padStart(8, "0"),
    };
  }
  const digest = new Digest("sha256");
  return { update: (bytes) => void digest.update(bytes), hex: () => digest.hex() };
}

function mismatch(file: CachedFile): HeadpondError {
  const { path, digest } = file.descriptor;
  return new HeadpondError(
    "corrupt",
    `${path} (${file.id}): its bytes do not have the ${digest?.algorithm} ${digest?.value} of the under store`,
  );
}
