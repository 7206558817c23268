/** A growing set of small whole numbers, one bit each: which workers hold a version, which versions a worker holds. */

export class SlotSet {
  #words: Uint32Array = new Uint32Array(0);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Bytes of memory that it takes, about. */
  get memoryBytes(): number {
    return this.#words.byteLength + 64;
  }

  has(slot: number): boolean {
    return ((this.#words[slot >>> 5] ?? 0) & (1 << (slot & 31))) !== 0;
  }

  /** Returns whether the set changed. */
  add(slot: number): boolean {
    const word = slot >>> 5;
    if (word >= this.#words.length) {
      const grown = new Uint32Array(Math.max(word + 1, Math.min(this.#words.length * 2, word + 4096)));
      grown.set(this.#words);
      this.#words = grown;
    }
    const before = this.#words[word] as number;
    const after = (before | (1 << (slot & 31))) >>> 0;
    if (after === before) return false;
    this.#words[word] = after;
    this.#count++;
    return true;
  }

  delete(slot: number): boolean {
    if (!this.has(slot)) return false;
    const word = slot >>> 5;
    this.#words[word] = ((this.#words[word] as number) & ~(1 << (slot & 31))) >>> 0;
    this.#count--;
    return true;
  }

  copy(): SlotSet {
    const result = new SlotSet();
    result.#words = this.#words.slice();
    result.#count = this.#count;
    return result;
  }

  /** Calls back for every member, in ascending order; members may be deleted meanwhile. */
  forEach(visit: (slot: number) => void): void {
    let left = this.#count;
    for (let word = 0; word < this.#words.length && left > 0; word++) {
      for (let bits = this.#words[word] as number; bits !== 0; ) {
        const bit = 31 - Math.clz32(bits & -bits);
        visit(word * 32 + bit);
        left--;
        bits = (bits & ~(1 << bit)) >>> 0;
      }
    }
  }
}
