/**
 * Takes one directory of an under store into the namespace: page after page is compared with what is known, what differs
 * becomes `sync-rows`, what the listing did not show becomes `sync-end`. Memory is that of a page; between pages and
 * commands everybody else has his turn. A directory that is being listed is not listed twice at the same time: whoever
 * wants it too waits for the same listing, and when the last of them gives up, the listing stops.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ListedRow } from "../base/file.ts";
import type { InodeId } from "../base/ids.ts";
import { type Path, relativePath } from "../base/path.ts";
import { syncRowsMax } from "../namespace/command.ts";
import type { UnderStore } from "../under-store/under-store.ts";
import { ListingMerge } from "./listing-merge.ts";
import type { Proposer } from "./proposer.ts";
import type { SyncedMount, SyncView } from "./sync-view.ts";
import type { TimeSlices } from "./time-slices.ts";

export type SyncCounts = { files: number; added: number; changed: number; removed: number; skipped: number };

export function noCounts(): SyncCounts {
  return { files: 0, added: 0, changed: 0, removed: 0, skipped: 0 };
}

type Flight = {
  readonly promise: Promise<SyncCounts>;
  readonly controller: AbortController;
  readonly counts: SyncCounts;
  waiters: number;
};

export class DirectorySync {
  readonly #view: SyncView;
  readonly #proposer: Proposer;
  readonly #storeOf: (mount: SyncedMount) => Promise<UnderStore>;
  readonly #slices: TimeSlices;
  readonly #flights = new Map<InodeId, Flight>();
  /** Names that the last listing of a directory left out; only of those where it did. */
  readonly #leftOut = new Map<Path, number>();
  #rowCount = 0;
  #listingCount = 0;

  constructor(dependencies: {
    readonly view: SyncView;
    readonly proposer: Proposer;
    readonly storeOf: (mount: SyncedMount) => Promise<UnderStore>;
    readonly slices: TimeSlices;
  }) {
    this.#view = dependencies.view;
    this.#proposer = dependencies.proposer;
    this.#storeOf = dependencies.storeOf;
    this.#slices = dependencies.slices;
  }

  /** Rows that were journaled, in all. */
  get rowCount(): number {
    return this.#rowCount;
  }

  /** Names at or below `path` that the namespace cannot express, as far as this master has listed. */
  leftOutBelow(path: Path): number {
    let sum = 0;
    for (const [directory, count] of this.#leftOut) {
      if (directory === path || path === "/" || directory.startsWith(`${path}/`)) sum += count;
    }
    return sum;
  }

  /** Listings that were begun, in all. */
  get listingCount(): number {
    return this.#listingCount;
  }

  get flightCount(): number {
    return this.#flights.size;
  }

  /**
   * Resolves when the whole directory is taken in. `onProgress` is called after each page with the counts of this listing,
   * also by one that somebody else began.
   */
  async run(
    mount: SyncedMount,
    directory: Path,
    directoryId: InodeId,
    signal?: AbortSignal,
    onProgress?: (counts: Readonly<SyncCounts>) => void,
  ): Promise<Readonly<SyncCounts>> {
    signal?.throwIfAborted();
    const flight = this.#flights.get(directoryId) ?? this.#begin(mount, directory, directoryId);
    flight.waiters++;
    const leave = (): void => {
      flight.waiters--;
      if (flight.waiters === 0)
        flight.controller.abort(new HeadpondError("cancelled", `the sync of ${directory} was cancelled`));
    };
    let report: (() => void) | undefined;
    if (onProgress !== undefined) {
      report = () => onProgress(flight.counts);
      this.#reporters.add(report);
    }
    try {
      return await (signal === undefined ? flight.promise : untilAborted(flight.promise, signal));
    } finally {
      if (report !== undefined) this.#reporters.delete(report);
      leave();
    }
  }

  readonly #reporters = new Set<() => void>();

  close(): void {
    for (const { controller } of this.#flights.values()) {
      controller.abort(new HeadpondError("cancelled", "this master leads no more, or is closing"));
    }
  }

  #begin(mount: SyncedMount, directory: Path, directoryId: InodeId): Flight {
    const controller = new AbortController();
    const counts = noCounts();
    const promise = this.#list(mount, directory, directoryId, counts, controller.signal).finally(() => {
      if (this.#flights.get(directoryId) === flight) this.#flights.delete(directoryId);
    });
    promise.catch(() => {});
    const flight: Flight = { promise, controller, counts, waiters: 0 };
    this.#flights.set(directoryId, flight);
    return flight;
  }

  async #list(
    mount: SyncedMount,
    directory: Path,
    directoryId: InodeId,
    counts: SyncCounts,
    signal: AbortSignal,
  ): Promise<SyncCounts> {
    const store = await this.#storeOf(mount);
    const key = relativePath(directory, mount.path);
    const listingBeganVersion = this.#view.version;
    this.#listingCount++;
    const merge = new ListingMerge((afterName, limit) => this.#view.children(directory, afterName, limit));
    let continuation: string | undefined;
    let gone: string[] = [];
    do {
      const page = await listPage(store, key, continuation, signal);
      signal.throwIfAborted();
      const { rows, goneNames } = merge.page(page.entries);
      for (const entry of page.entries) if (entry.kind === "file") counts.files++;
      counts.skipped += page.skipped;
      for (const part of commandSized(rows)) {
        const done = await this.#proposer.propose({
          kind: "sync-rows",
          mountId: mount.id,
          directoryInodeId: directoryId,
          listingBeganVersion,
          rows: part,
          timeMs: this.#proposer.nowMs(),
        });
        this.#rowCount += part.length;
        counts.added += done.added;
        counts.changed += done.changed;
        counts.removed += done.removed;
      }
      gone.push(...goneNames);
      // Only after their page's rows: a file that became a directory is changed by its row, not removed for its old self.
      if (gone.length >= syncRowsMax) {
        await this.#removeGone(directoryId, listingBeganVersion, gone.splice(0, syncRowsMax), false, counts);
      }
      for (const report of this.#reporters) report();
      // A store and a journal that never make anybody wait must not keep the thread to themselves.
      await this.#slices.pause(signal);
      continuation = page.next;
    } while (continuation !== undefined);
    for (;;) {
      const more = merge.rest(syncRowsMax - gone.length);
      gone.push(...more);
      if (more.length === 0) break;
      if (gone.length < syncRowsMax) continue;
      await this.#removeGone(directoryId, listingBeganVersion, gone, false, counts);
      gone = [];
      await this.#slices.pause(signal);
    }
    await this.#removeGone(directoryId, listingBeganVersion, gone, true, counts);
    if (counts.skipped === 0) this.#leftOut.delete(directory);
    else if (this.#leftOut.size < leftOutDirectoriesMax) this.#leftOut.set(directory, counts.skipped);
    return counts;
  }

  async #removeGone(
    directoryInodeId: InodeId,
    listingBeganVersion: number,
    goneNames: readonly string[],
    finished: boolean,
    counts: SyncCounts,
  ): Promise<void> {
    const timeMs = this.#proposer.nowMs();
    const done = await this.#proposer.propose({
      kind: "sync-end",
      directoryInodeId,
      listingBeganVersion,
      goneNames,
      finished,
      timeMs,
    });
    counts.removed += done.removed;
  }
}

/** Directories whose left-out names are remembered: what is beyond is only in the log and the metrics. */
const leftOutDirectoriesMax = 10_000;
/** Bytes of rows in one command, about: journals take commands of 1 MiB. */
const rowsBytesMax = 256 * 1024;

/** Parts of at most `syncRowsMax` rows and about `rowsBytesMax` bytes. */
function* commandSized(rows: readonly ListedRow[]): Generator<readonly ListedRow[]> {
  let part: ListedRow[] = [];
  let bytes = 0;
  for (const row of rows) {
    // At most three bytes a character, plus numbers and digest.
    const rowBytes = (row.name.length + row.etag.length) * 3 + 128;
    if (part.length >= syncRowsMax || (part.length > 0 && bytes + rowBytes > rowsBytesMax)) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(row);
    bytes += rowBytes;
  }
  if (part.length > 0) yield part;
}

/** A directory that vanished from the store is empty: its children go, and whoever lists its parent sees that it is gone. */
async function listPage(
  store: UnderStore,
  key: string,
  continuation: string | undefined,
  signal: AbortSignal,
): ReturnType<UnderStore["list"]> {
  try {
    return await store.list(key, {
      limit: syncRowsMax,
      signal,
      ...(continuation === undefined ? {} : { continuation }),
    });
  } catch (error) {
    // The root of a mount is another matter: a bucket that is gone must not look like an empty one.
    if (key !== "" && continuation === undefined && isHeadpondError(error, "not-found"))
      return { entries: [], skipped: 0 };
    throw error;
  }
}

/** As `promise`, but rejects with the signal's reason as soon as it fires. */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener("abort", onAbort);
  }
}
