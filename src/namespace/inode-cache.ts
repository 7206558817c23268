/**
 * Inodes that have an object, by id, up to a limit. Clean ones are let go by a clock hand; what changed stays until the store has it.
 */

import type { Inode } from "./inode.ts";

/** Several small maps: growing one big one stops the thread for as long as it takes to rehash. */
const shardCount = 16;
/** Keeps one `trim` short. */
const trimStepsMax = 2000;

export class InodeCache {
  readonly #max: number;
  readonly #shards: Map<number, Inode>[] = [];
  #count = 0;
  #handShard = 0;
  #hand: IterableIterator<Inode> | undefined = undefined;

  constructor(max: number) {
    this.#max = max;
    for (let i = 0; i < shardCount; i++) this.#shards.push(new Map());
  }

  get count(): number {
    return this.#count;
  }

  get(id: number): Inode | undefined {
    const inode = (this.#shards[id % shardCount] as Map<number, Inode>).get(id);
    if (inode !== undefined) inode.referenced = true;
    return inode;
  }

  add(inode: Inode): void {
    (this.#shards[inode.id % shardCount] as Map<number, Inode>).set(inode.id, inode);
    this.#count++;
  }

  forget(inode: Inode): void {
    inode.live = false;
    if ((this.#shards[inode.id % shardCount] as Map<number, Inode>).delete(inode.id)) this.#count--;
  }

  /**
   * Lets clean objects go while there are too many: the hand passes over them, those used since its last round get another one.
   * Only between operations: nobody may hold an object that is forgotten.
   */
  trim(): void {
    if (this.#count <= this.#max) return;
    let steps = Math.min(trimStepsMax, (this.#count - this.#max) * 2);
    for (; steps > 0 && this.#count > this.#max; steps--) {
      this.#hand ??= (this.#shards[this.#handShard] as Map<number, Inode>).values();
      const { value: inode, done } = this.#hand.next() as IteratorResult<Inode, undefined>;
      if (done === true || inode === undefined) {
        this.#hand = undefined;
        this.#handShard = (this.#handShard + 1) % shardCount;
      } else if (inode.referenced) {
        inode.referenced = false;
      } else if (isIdle(inode)) {
        this.forget(inode);
      }
    }
  }
}

/** Whether the store holds all of the inode, so that its object may go. */
export function isIdle(inode: Inode): boolean {
  return (
    !inode.dirty &&
    inode.frozen === 0 &&
    inode.names === undefined &&
    inode.frozenNames === undefined &&
    inode.freshLast === 0 &&
    inode.frozenFreshLast === 0 &&
    inode.id !== 1
  );
}
