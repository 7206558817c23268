/** What was found damaged since the worker started: a disk that has changed bytes once will do so again, so it is shown until then. */

import type { BlockIndex } from "../base/ids.ts";
import type { CachedFile } from "./cached-file.ts";

/** Cache directories that are named. */
const directoriesMax = 100;

type Damage = { count: number; path: string; block: BlockIndex };

export class DamageLog {
  readonly #byDirectory = new Map<string, Damage>();

  note({ directory, descriptor }: CachedFile, block: BlockIndex): void {
    const known = this.#byDirectory.get(directory.path);
    if (known === undefined && this.#byDirectory.size >= directoriesMax) return;
    this.#byDirectory.set(directory.path, { count: (known?.count ?? 0) + 1, path: descriptor.path, block });
  }

  /** One line a cache directory. */
  problems(): readonly string[] {
    return [...this.#byDirectory].map(
      ([directory, { count, path, block }]) =>
        `${directory}: ${count} damaged ${count === 1 ? "block" : "blocks"} since the start, the last of ${path} ` +
        `(block ${block}): dropped and fetched again; check the disk`,
    );
  }
}
