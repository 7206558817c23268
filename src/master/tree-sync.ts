/**
 * Syncs a directory and all below it: a few listings at a time, depth first. What is still to be listed is a path of
 * cursors into directories that are taken in already, so memory is that of the tree's depth, not of its size.
 */

import type { InodeId } from "../base/ids.ts";
import { joinPath, type Path } from "../base/path.ts";
import type { SyncProgress } from "../rpc/master-service.ts";
import { type DirectorySync, noCounts } from "./directory-sync.ts";
import type { SyncedInode, SyncedMount, SyncView } from "./sync-view.ts";
import type { TimeSlices } from "./time-slices.ts";

const childrenPerRead = 100;
/** Directories that cost no I/O are passed so many at a time. */
const skippedPerTurn = 64;

type Cursor = { readonly path: Path; names: string[]; afterName: string | undefined };
type Directory = { readonly path: Path; readonly directoryId: InodeId };

export class TreeSync {
  readonly #view: SyncView;
  readonly #directories: DirectorySync;
  readonly #listingsAtOnce: number;
  readonly #slices: TimeSlices;

  constructor(dependencies: {
    readonly slices: TimeSlices;
    readonly view: SyncView;
    readonly directories: DirectorySync;
    readonly listingsAtOnce: number;
  }) {
    this.#view = dependencies.view;
    this.#directories = dependencies.directories;
    this.#listingsAtOnce = dependencies.listingsAtOnce;
    this.#slices = dependencies.slices;
  }

  /** Yields what is done so far whenever that changed and the reader is ready; the last one says `done`. */
  async *run(
    mount: SyncedMount,
    path: Path,
    directoryId: InodeId,
    recursive: boolean,
    signal: AbortSignal,
    /** Directories that need no listing of their own, only a look at what is below them. */
    skip: (directory: SyncedInode) => boolean = () => false,
  ): AsyncGenerator<SyncProgress> {
    const stop = new AbortController();
    const both = AbortSignal.any([signal, stop.signal]);
    const total = { ...noCounts(), directories: 0 };
    const underWay = new Set<ReturnType<typeof noCounts>>();
    const cursors: Cursor[] = [];
    let first: Directory | undefined = { path, directoryId };
    let active = 0;
    let skipped = 0;
    let isOver = false;
    let failure: unknown;
    let wakeReader: (() => void) | undefined;
    let wakeRunners: (() => void)[] = [];
    const changed = (): void => {
      wakeReader?.();
      wakeReader = undefined;
    };

    const take = (): Directory | undefined => {
      if (first !== undefined) {
        const directory = first;
        first = undefined;
        return directory;
      }
      for (;;) {
        const cursor = cursors.at(-1);
        if (cursor === undefined) return undefined;
        const next = this.#nextDirectory(cursor);
        if (next !== undefined) return next;
        cursors.splice(cursors.indexOf(cursor), 1);
      }
    };
    const runner = async (): Promise<void> => {
      for (;;) {
        const directory = take();
        if (directory === undefined) {
          if (active === 0) return;
          await new Promise<void>((resolve) => wakeRunners.push(resolve));
          continue;
        }
        active++;
        const counts = noCounts();
        underWay.add(counts);
        try {
          const known = this.#view.inode(directory.path);
          if (known !== undefined && skip(known)) {
            if (recursive) cursors.push({ path: directory.path, names: [], afterName: undefined });
            if (++skipped % skippedPerTurn === 0) await this.#slices.pause(both);
            continue;
          }
          const done = await this.#directories.run(mount, directory.path, directory.directoryId, both, (now) => {
            Object.assign(counts, now);
            changed();
          });
          total.directories++;
          addCounts(total, done);
          if (recursive) cursors.push({ path: directory.path, names: [], afterName: undefined });
        } finally {
          underWay.delete(counts);
          active--;
          const waiting = wakeRunners;
          wakeRunners = [];
          for (const wake of waiting) wake();
          changed();
        }
      }
    };

    const runners = Array.from({ length: recursive ? this.#listingsAtOnce : 1 }, runner);
    const all = Promise.all(runners)
      .catch((error: unknown) => {
        failure = error;
        stop.abort(error);
      })
      .finally(() => {
        isOver = true;
        changed();
      });
    const progress = (done: boolean): SyncProgress => {
      const sum = { ...total };
      for (const counts of underWay) addCounts(sum, counts);
      return { ...sum, done };
    };
    try {
      while (!isOver) {
        await new Promise<void>((resolve) => {
          wakeReader = resolve;
          if (isOver) resolve();
        });
        if (!isOver) yield progress(false);
      }
      await all;
      if (failure !== undefined) throw failure as Error;
      yield progress(true);
    } finally {
      // The reader has left, or everything is over: nobody lists on.
      stop.abort();
      await Promise.allSettled(runners);
    }
  }

  #nextDirectory(cursor: Cursor): Directory | undefined {
    for (;;) {
      const name = cursor.names.shift();
      if (name !== undefined) {
        const path = joinPath(cursor.path, name);
        const inode = this.#view.inode(path);
        if (inode?.kind === "directory") return { path, directoryId: inode.inodeId };
        continue;
      }
      const children = this.#view.children(cursor.path, cursor.afterName, childrenPerRead);
      const last = children.at(-1);
      if (last === undefined) return undefined;
      cursor.afterName = last.name;
      cursor.names = children.filter(({ kind }) => kind === "directory").map((child) => child.name);
    }
  }
}

type Counts = ReturnType<typeof noCounts>;

function addCounts(sum: Counts, more: Readonly<Counts>): void {
  sum.files += more.files;
  sum.added += more.added;
  sum.changed += more.changed;
  sum.removed += more.removed;
  sum.skipped += more.skipped;
}
