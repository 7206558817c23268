/**
 * Directories by path, as they were resolved lately. Nearly every request has one to look up, and a `Map` would make a string of
 * each and enter it into the engine's table of strings, which cost as much as all the rest of a create; here a path is compared in
 * place, as the front of the path that was asked for.
 */

import type { Path } from "../base/path.ts";
import type { Inode } from "./inode.ts";

const firstSlots = 1024;
/** Slots that a path may be in, the newest first. */
const waysMax = 4;

export class PathCache {
  readonly #slotsMax: number;
  readonly #ways: number;
  #paths: (Path | undefined)[];
  #inodes: (Inode | undefined)[];
  #used = 0;

  constructor(pathsMax: number) {
    this.#slotsMax = 2 ** Math.ceil(Math.log2(Math.max(2, pathsMax)));
    this.#ways = Math.min(waysMax, this.#slotsMax);
    const slots = Math.min(firstSlots, this.#slotsMax);
    this.#paths = new Array<Path | undefined>(slots).fill(undefined);
    this.#inodes = new Array<Inode | undefined>(slots).fill(undefined);
  }

  /** The directory whose path is the first `length` characters of `text`; undefined once its object was let go. */
  get(text: string, length: number): Inode | undefined {
    const first = this.#first(text, length);
    const end = first + this.#ways;
    for (let at = first; at < end; at++) {
      const path = this.#paths[at];
      if (path === undefined) return undefined;
      if (!begins(text, length, path)) continue;
      const inode = this.#inodes[at] as Inode;
      if (!inode.live || inode.removed) return undefined;
      inode.referenced = true;
      return inode;
    }
    return undefined;
  }

  set(path: Path, inode: Inode): void {
    const first = this.#first(path, path.length);
    const last = first + this.#ways - 1;
    const [paths, inodes] = [this.#paths, this.#inodes];
    // What is before its old place, or before the first empty one, moves back by one; if there is none, the oldest goes.
    let at = first;
    while (at < last && paths[at] !== undefined && paths[at] !== path) at++;
    if (paths[at] === undefined) this.#used++;
    for (; at > first; at--) {
      paths[at] = paths[at - 1];
      inodes[at] = inodes[at - 1];
    }
    paths[first] = path;
    inodes[first] = inode;
    if (this.#used > paths.length / 2 && paths.length < this.#slotsMax) this.#grow();
  }

  clear(): void {
    if (this.#used === 0) return;
    this.#paths.fill(undefined);
    this.#inodes.fill(undefined);
    this.#used = 0;
  }

  #first(text: string, length: number): number {
    let hash = 0x2545f491;
    for (let i = 0; i < length; i++) {
      hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
      hash ^= hash >>> 15;
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
    return (hash ^ (hash >>> 15)) & (this.#paths.length - 1) & -this.#ways;
  }

  #grow(): void {
    const [paths, inodes] = [this.#paths, this.#inodes];
    this.#paths = new Array<Path | undefined>(2 * paths.length).fill(undefined);
    this.#inodes = new Array<Inode | undefined>(2 * paths.length).fill(undefined);
    this.#used = 0;
    for (let at = paths.length - 1; at >= 0; at--) {
      const path = paths[at];
      if (path !== undefined) this.set(path, inodes[at] as Inode);
    }
  }
}

/** From the end: that is where paths differ. */
function begins(text: string, length: number, path: string): boolean {
  if (path.length !== length) return false;
  for (let i = length - 1; i >= 0; i--) if (text.charCodeAt(i) !== path.charCodeAt(i)) return false;
  return true;
}
