/**
 * A guess at which inode a name in a directory is: a few slots per hash, side by side in memory, the newest first. It may be wrong or out of
 * date, so whoever asks compares the inode's own parent and name; for that nothing has to be told to it when names change. Sixteen
 * bytes a name, and no object for the garbage collector: a million names cost what thirty thousand cached paths did.
 */

const firstSlots = 4096;
/** Slots that a name may be in: as many as a line of the processor's cache holds. */
const waysMax = 4;

export class NameCache {
  readonly #slotsMax: number;
  readonly #ways: number;
  /** A slot is two numbers: the whole hash, and the inode's id (0: empty). */
  #slots: Float64Array;
  #mask: number;
  #used = 0;

  /** Holds at most about `namesMax` names. */
  constructor(namesMax: number) {
    this.#slotsMax = 2 ** Math.ceil(Math.log2(Math.max(2, namesMax)));
    this.#ways = Math.min(waysMax, this.#slotsMax);
    const slots = Math.min(firstSlots, this.#slotsMax);
    this.#slots = new Float64Array(2 * slots);
    this.#mask = slots / this.#ways - 1;
  }

  /** The id last set under this hash; 0: none. */
  get(hash: number): number {
    const slots = this.#slots;
    const first = 2 * this.#ways * (hash & this.#mask);
    const end = first + 2 * this.#ways;
    for (let at = first; at < end; at += 2) if (slots[at] === hash) return slots[at + 1] as number;
    return 0;
  }

  set(hash: number, id: number): void {
    const slots = this.#slots;
    const first = 2 * this.#ways * (hash & this.#mask);
    const last = first + 2 * this.#ways - 2;
    // What is before its old place, or before the first empty one, moves back by one; if there is none, the oldest goes.
    let at = first;
    while (at < last && slots[at + 1] !== 0 && slots[at] !== hash) at += 2;
    if (slots[at + 1] === 0) this.#used++;
    for (; at > first; at -= 2) {
      slots[at] = slots[at - 2] as number;
      slots[at + 1] = slots[at - 1] as number;
    }
    slots[first] = hash;
    slots[first + 1] = id;
    if (this.#used > slots.length / 4 && slots.length < 2 * this.#slotsMax) this.#grow();
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Float64Array(2 * old.length);
    this.#mask = 2 * this.#mask + 1;
    this.#used = 0;
    // From the end, so that the newest of a few is set last.
    for (let at = old.length - 2; at >= 0; at -= 2) {
      const id = old[at + 1] as number;
      if (id !== 0) this.set(old[at] as number, id);
    }
  }
}
