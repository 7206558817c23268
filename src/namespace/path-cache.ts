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
  /** A slot is a path and its directory, side by side in memory. */
  #slots: (Path | Inode | undefined)[];
  #used = 0;

  constructor(pathsMax: number) {
    this.#slotsMax = 2 ** Math.ceil(Math.log2(Math.max(2, pathsMax)));
    this.#ways = Math.min(waysMax, this.#slotsMax);
    this.#slots = emptySlots(Math.min(firstSlots, this.#slotsMax));
  }

  /** The directory whose path is the first `length` characters of `text`; undefined once its object was let go. */
  get(text: string, length: number): Inode | undefined {
    const slots = this.#slots;
    const first = this.#first(text, length);
    const end = first + 2 * this.#ways;
    for (let at = first; at < end; at += 2) {
      const path = slots[at] as Path | undefined;
      if (path === undefined) return undefined;
      if (!begins(text, length, path)) continue;
      const inode = slots[at + 1] as Inode;
      if (!inode.live || inode.removed) return undefined;
      inode.referenced = true;
      return inode;
    }
    return undefined;
  }

  set(path: Path, inode: Inode): void {
    const slots = this.#slots;
    const first = this.#first(path, path.length);
    const last = first + 2 * this.#ways - 2;
    // What is before its old place, or before the first empty one, moves back by one; if there is none, the oldest goes.
    let at = first;
    while (at < last && slots[at] !== undefined && slots[at] !== path) at += 2;
    if (slots[at] === undefined) this.#used++;
    for (; at > first; at -= 2) {
      slots[at] = slots[at - 2];
      slots[at + 1] = slots[at - 1];
    }
    slots[first] = path;
    slots[first + 1] = inode;
    if (this.#used > slots.length / 4 && slots.length < 2 * this.#slotsMax) this.#grow();
  }

  clear(): void {
    if (this.#used === 0) return;
    this.#slots.fill(undefined);
    this.#used = 0;
  }

  #first(text: string, length: number): number {
    let hash = 0x2545f491;
    for (let i = 0; i < length; i++) {
      hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
      hash ^= hash >>> 15;
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
    return 2 * ((hash ^ (hash >>> 15)) & (this.#slots.length / 2 - 1) & -this.#ways);
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = emptySlots(old.length);
    this.#used = 0;
    // From the end, so that the newest of a few is set last.
    for (let at = old.length - 2; at >= 0; at -= 2) {
      if (old[at] !== undefined) this.set(old[at] as Path, old[at + 1] as Inode);
    }
  }
}

function emptySlots(count: number): (Path | Inode | undefined)[] {
  return new Array<Path | Inode | undefined>(2 * count).fill(undefined);
}

/** From the end: that is where paths differ. */
function begins(text: string, length: number, path: string): boolean {
  if (path.length !== length) return false;
  for (let i = length - 1; i >= 0; i--) if (text.charCodeAt(i) !== path.charCodeAt(i)) return false;
  return true;
}
