/**
 * Directories in pages. The operating system gives all names of a directory at once and in no order, so they are read
 * and sorted once, kept while somebody turns the pages, and read again if they were dropped meanwhile: a page is defined
 * by the name that it follows, not by a position. Memory: about 100 bytes a name, for few directories at once.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Disk } from "../io/disk.ts";
import { compareCodePoints, isValidName } from "./under-store.ts";

/** A directory with more names is refused: they would not fit into memory beside everything else. */
const namesMax = 4_000_000;
/** Directories whose names are kept at once. */
const listingsKeptMax = 4;

type Listing = {
  /** By `orderKey`; a directory that sorts apart from its name ends with a slash. */
  readonly orderKeys: readonly string[];
  /** Names that cannot be expressed, counted on the first page. */
  readonly unreadable: number;
};

export type NamePage = { readonly names: readonly string[]; readonly next?: string; readonly unreadable: number };

export class LocalListings {
  readonly #disk: Disk;
  /** By path; the first was used longest ago. */
  readonly #kept = new Map<string, Listing>();

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  clear(): void {
    this.#kept.clear();
  }

  /** `continuation` is the order key of the last name on the page before. */
  async page(directory: string, continuation: string | undefined, limit: number): Promise<NamePage> {
    const kept = continuation === undefined ? undefined : this.#kept.get(directory);
    const listing = kept ?? (await this.#read(directory));
    this.#kept.delete(directory);
    const { orderKeys } = listing;
    const start = continuation === undefined ? 0 : positionAfter(orderKeys, continuation);
    const end = start + limit;
    const page = orderKeys.slice(start, end);
    const next = end < orderKeys.length ? page.at(-1) : undefined;
    if (next !== undefined) {
      this.#kept.set(directory, listing);
      for (const oldest of this.#kept.keys()) {
        if (this.#kept.size <= listingsKeptMax) break;
        this.#kept.delete(oldest);
      }
    }
    return {
      names: page.map((key) => (key.endsWith("/") ? key.slice(0, -1) : key)),
      unreadable: continuation === undefined ? listing.unreadable : 0,
      ...(next === undefined ? {} : { next }),
    };
  }

  async #read(directory: string): Promise<Listing> {
    const all = await this.#disk.list(directory);
    if (all.length > namesMax) {
      throw new HeadpondError(
        "unsupported",
        `${directory} has ${all.length} names, more than the ${namesMax} supported`,
      );
    }
    const names = all.filter((name) => isValidName(name) && !isTemporaryName(name));
    const temporary = all.filter(isTemporaryName).length;
    names.sort(compareCodePoints);
    return { orderKeys: await this.#orderKeys(directory, names), unreadable: all.length - names.length - temporary };
  }

  /**
   * Directories sort as if their names ended with a slash. That matters only for a name that is followed by itself plus
   * a character below the slash (`a`, `a-b`): only those are looked at.
   */
  async #orderKeys(directory: string, names: string[]): Promise<readonly string[]> {
    let changed = false;
    for (let i = 0; i + 1 < names.length; i++) {
      const name = names[i] as string;
      const following = names[i + 1] as string;
      if (!following.startsWith(name) || following.charCodeAt(name.length) >= 0x2f) continue;
      const stat = await this.#disk.stat(`${directory}/${name}`).catch(() => undefined);
      if (stat?.kind !== "directory") continue;
      names[i] = `${name}/`;
      changed = true;
    }
    if (changed) names.sort(compareCodePoints);
    return names;
  }
}

/** Left by a write that is under way, or that died. */
export function isTemporaryName(name: string): boolean {
  return name.startsWith(".headpond-") && name.endsWith(".tmp");
}

/** How many keys are not behind `key`. */
function positionAfter(orderKeys: readonly string[], key: string): number {
  let low = 0;
  let high = orderKeys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compareCodePoints(orderKeys[middle] as string, key) <= 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
