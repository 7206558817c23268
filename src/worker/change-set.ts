/** What has changed in the cache since a master last heard of it: one entry a file version, however often it changed. */

import type { Holding } from "../base/cluster.ts";
import type { BlockIndex, FileVersionId } from "../base/ids.ts";

/** More changed blocks than this are told as a whole bitmap. */
const listedBlocksMax = 256;

type Change = { readonly added: Set<BlockIndex>; readonly removed: Set<BlockIndex>; whole: boolean };

export class ChangeSet {
  readonly #holding: (id: FileVersionId) => Holding | undefined;
  readonly #changes = new Map<FileVersionId, Change>();

  /** `holding`: the whole truth of now. */
  constructor(holding: (id: FileVersionId) => Holding | undefined) {
    this.#holding = holding;
  }

  get isEmpty(): boolean {
    return this.#changes.size === 0;
  }

  clear(): void {
    this.#changes.clear();
  }

  note(id: FileVersionId, change: { readonly added?: BlockIndex; readonly removed?: BlockIndex }): void {
    let entry = this.#changes.get(id);
    if (entry === undefined) {
      entry = { added: new Set(), removed: new Set(), whole: false };
      this.#changes.set(id, entry);
    }
    if (change.added !== undefined) {
      entry.removed.delete(change.added);
      entry.added.add(change.added);
    }
    if (change.removed !== undefined) {
      entry.added.delete(change.removed);
      entry.removed.add(change.removed);
    }
    if (entry.added.size + entry.removed.size > listedBlocksMax) {
      entry.whole = true;
      entry.added.clear();
      entry.removed.clear();
    }
  }

  /** The version went altogether, and may come back as another holding: the next report is whole. */
  noteGone(id: FileVersionId): void {
    this.#changes.set(id, { added: new Set(), removed: new Set(), whole: true });
  }

  /** At most `max` changes, the oldest first, as holdings for a report. */
  take(max: number): readonly Holding[] {
    const result: Holding[] = [];
    for (const [id, change] of this.#changes) {
      if (result.length >= max) break;
      this.#changes.delete(id);
      const now = this.#holding(id);
      if (now === undefined) {
        result.push({ id, blockCount: 0, complete: false, gone: true, originBytes: 0 });
      } else if (change.whole) {
        result.push(now);
      } else {
        const { bitmap: _bitmap, ...rest } = now;
        result.push({ ...rest, added: [...change.added], removed: [...change.removed] });
      }
    }
    return result;
  }
}
