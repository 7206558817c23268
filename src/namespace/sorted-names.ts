/** The names of a directory that are in memory, in the order of listings. */

import { compareNames, type Inode } from "./inode.ts";

const noNames: readonly string[] = [];

/** Names below the directory that the store does not hold as they are. `fresh` gives those of its fresh rows. */
export function sortedNames(directory: Inode, fresh: () => readonly string[]): readonly string[] {
  const { names, frozenNames, freshLast, frozenFreshLast } = directory;
  if (names === undefined && frozenNames === undefined && freshLast === 0 && frozenFreshLast === 0) return noNames;
  if (directory.sortedNames === undefined) {
    const all = new Set(names?.keys());
    if (frozenNames !== undefined) for (const name of frozenNames.keys()) all.add(name);
    if (freshLast !== 0 || frozenFreshLast !== 0) for (const name of fresh()) all.add(name);
    directory.sortedNames = [...all].sort(compareNames);
  }
  return directory.sortedNames;
}

/** Index of the first name behind `name`. */
export function firstBehind(names: readonly string[], name: string): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compareNames(names[middle] as string, name) <= 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
