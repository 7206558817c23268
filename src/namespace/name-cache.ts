/**
 * A guess at which inode a name in a directory is: one slot per hash, the newest wins. It may be wrong or out of date, so whoever asks
 * compares the inode's own parent and name; for that nothing has to be told to it when names change. Sixteen bytes a
 * name, and no object for the garbage collector: a million names cost what thirty thousand cached paths did.
 */

const firstSlots = 4096;

export class NameCache {
  readonly #slotsMax: number;
  /** A slot is two numbers, side by side in memory: the whole hash, and the inode's id (0: empty). */
  #slots: Float64Array;
  #mask: number;
  #used = 0;

  /** Holds at most about `namesMax` names. */
  constructor(namesMax: number) {
    this.#slotsMax = 2 ** Math.ceil(Math.log2(Math.max(2, namesMax)));
    const slots = Math.min(firstSlots, this.#slotsMax);
    this.#slots = new Float64Array(2 * slots);
    this.#mask = slots - 1;
  }

  /** The id last set under this hash; 0: none. */
  get(hash: number): number {
    const at = 2 * (hash & this.#mask);
    return this.#slots[at] === hash ? (this.#slots[at + 1] as number) : 0;
  }

  set(hash: number, id: number): void {
    const at = 2 * (hash & this.#mask);
    if (this.#slots[at + 1] === 0) this.#used++;
    this.#slots[at] = hash;
    this.#slots[at + 1] = id;
    if (this.#used > this.#mask / 2 && this.#mask + 1 < this.#slotsMax) this.#grow();
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Float64Array(2 * old.length);
    this.#mask = 2 * this.#mask + 1;
    this.#used = 0;
    for (let at = 0; at < old.length; at += 2) {
      const id = old[at + 1] as number;
      if (id !== 0) this.set(old[at] as number, id);
    }
  }
}
