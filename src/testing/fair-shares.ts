/** Max-min fair shares of links for flows that each use two of them and want a bounded amount; by progressive filling in a few rounds. */

/** Rounds of filling; what is left after them is less than a percent. */
const rounds = 6;
const flowsFirst = 1024;

export class FairShares {
  readonly #capacity: Float64Array;
  readonly #left: Float64Array;
  readonly #fair: Float64Array;
  readonly #users: Int32Array;
  #from = new Int32Array(flowsFirst);
  #to = new Int32Array(flowsFirst);
  #want = new Float64Array(flowsFirst);
  #got = new Float64Array(flowsFirst);
  #open = new Int32Array(flowsFirst);
  #count = 0;

  constructor(capacities: readonly number[]) {
    this.#capacity = Float64Array.from(capacities);
    this.#left = new Float64Array(capacities.length);
    this.#fair = new Float64Array(capacities.length);
    this.#users = new Int32Array(capacities.length);
  }

  setCapacity(link: number, capacity: number): void {
    this.#capacity[link] = capacity;
  }

  begin(): void {
    this.#count = 0;
  }

  add(from: number, to: number, want: number): void {
    if (this.#count === this.#from.length) this.#grow();
    this.#from[this.#count] = from;
    this.#to[this.#count] = to;
    this.#want[this.#count] = want;
    this.#count++;
  }

  /** In the order in which the flows were added; valid until the next `share`. */
  share(): Float64Array {
    const left = this.#left;
    const users = this.#users;
    const fair = this.#fair;
    const got = this.#got;
    const open = this.#open;
    left.set(this.#capacity);
    got.fill(0, 0, this.#count);
    let openCount = this.#count;
    for (let i = 0; i < openCount; i++) open[i] = i;
    for (let round = 0; round < rounds && openCount > 0; round++) {
      users.fill(0);
      for (let at = 0; at < openCount; at++) {
        const i = open[at] as number;
        const a = this.#from[i] as number;
        const b = this.#to[i] as number;
        users[a] = (users[a] as number) + 1;
        users[b] = (users[b] as number) + 1;
      }
      for (let link = 0; link < left.length; link++) {
        fair[link] = (left[link] as number) / Math.max(1, users[link] as number);
      }
      let still = 0;
      for (let at = 0; at < openCount; at++) {
        const i = open[at] as number;
        const a = this.#from[i] as number;
        const b = this.#to[i] as number;
        const wanted = (this.#want[i] as number) - (got[i] as number);
        const amount = Math.min(wanted, fair[a] as number, fair[b] as number);
        got[i] = (got[i] as number) + amount;
        left[a] = (left[a] as number) - amount;
        left[b] = (left[b] as number) - amount;
        if (amount < wanted) open[still++] = i;
      }
      openCount = still;
    }
    return got;
  }

  #grow(): void {
    const length = this.#from.length * 2;
    const grown = <T extends Int32Array | Float64Array>(array: T, larger: T): T => {
      larger.set(array);
      return larger;
    };
    this.#from = grown(this.#from, new Int32Array(length));
    this.#to = grown(this.#to, new Int32Array(length));
    this.#want = grown(this.#want, new Float64Array(length));
    this.#got = new Float64Array(length);
    this.#open = new Int32Array(length);
  }
}
