/** Max-min fair shares of links for flows that each use two of them and want a bounded amount; by progressive filling in a few rounds. */

/** Rounds of filling; what is left after them is less than a percent. */
const rounds = 6;

export class FairShares {
  readonly #capacity: Float64Array;
  readonly #left: Float64Array;
  readonly #users: Int32Array;
  #from: number[] = [];
  #to: number[] = [];
  #want: number[] = [];

  constructor(capacities: readonly number[]) {
    this.#capacity = Float64Array.from(capacities);
    this.#left = new Float64Array(capacities.length);
    this.#users = new Int32Array(capacities.length);
  }

  setCapacity(link: number, capacity: number): void {
    this.#capacity[link] = capacity;
  }

  begin(): void {
    this.#from = [];
    this.#to = [];
    this.#want = [];
  }

  add(from: number, to: number, want: number): void {
    this.#from.push(from);
    this.#to.push(to);
    this.#want.push(want);
  }

  /** In the order in which the flows were added. */
  share(): Float64Array {
    const left = this.#left;
    const users = this.#users;
    const from = this.#from;
    const to = this.#to;
    const got = new Float64Array(from.length);
    left.set(this.#capacity);
    let open = from.map((_, i) => i);
    for (let round = 0; round < rounds && open.length > 0; round++) {
      users.fill(0);
      for (const i of open) {
        const a = from[i] as number;
        const b = to[i] as number;
        users[a] = (users[a] as number) + 1;
        users[b] = (users[b] as number) + 1;
      }
      const fair = Float64Array.from(left, (rest, link) => rest / Math.max(1, users[link] as number));
      const still: number[] = [];
      for (const i of open) {
        const a = from[i] as number;
        const b = to[i] as number;
        const wanted = (this.#want[i] as number) - (got[i] as number);
        const amount = Math.min(wanted, fair[a] as number, fair[b] as number);
        got[i] = (got[i] as number) + amount;
        left[a] = (left[a] as number) - amount;
        left[b] = (left[b] as number) - amount;
        if (amount < wanted) still.push(i);
      }
      open = still.filter(
        (i) => (left[from[i] as number] as number) > 1e-6 && (left[to[i] as number] as number) > 1e-6,
      );
    }
    return got;
  }
}
