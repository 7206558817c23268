/**
 * Which directories are models: the topmost ones that hold weights themselves. The root of the namespace is none: a stray file there
 * would make all others part of it. Masters say by it what is READY where, workers evict by it: both have to draw the same line.
 */

import { isWeightsName } from "./cluster.ts";
import type { Path } from "./path.ts";

/** Of the directories in which these files lie. */
export function modelRoots(files: Iterable<Path>): ReadonlySet<Path> {
  const holding = new Set<Path>();
  for (const path of files) {
    const slash = path.lastIndexOf("/");
    if (slash > 0 && isWeightsName(path.slice(slash + 1))) holding.add(path.slice(0, slash) as Path);
  }
  const roots = new Set<Path>();
  for (const directory of holding) if (modelOf(directory, holding) === undefined) roots.add(directory);
  return roots;
}

/** The root that a path lies below; undefined: it is part of no model. */
export function modelOf(path: Path, roots: ReadonlySet<Path>): Path | undefined {
  for (let slash = path.lastIndexOf("/"); slash > 0; slash = path.lastIndexOf("/", slash - 1)) {
    const above = path.slice(0, slash) as Path;
    if (roots.has(above)) return above;
  }
  return undefined;
}
