/**
 * Sequence numbers of one session, from 1, each used once, and the mark up to which all of them are settled. Answers may
 * come in any order; the mark moves only over a stretch without gaps. Between the mark and the newest number there are at
 * most `outstandingMax`: who wants more, waits.
 */

export class Watermark {
  readonly #outstandingMax: number;
  /** Every number up to here is settled. */
  #acknowledged = 0;
  #last = 0;
  /** Settled numbers above the mark. */
  readonly #settled = new Set<number>();
  readonly #waiting: (() => void)[] = [];
  #ended = false;

  constructor(outstandingMax: number) {
    this.#outstandingMax = outstandingMax;
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** The next number; `undefined` when one has to wait for it, or the session has ended. */
  nextNow(): number | undefined {
    if (this.#ended || this.#last - this.#acknowledged >= this.#outstandingMax) return undefined;
    return ++this.#last;
  }

  /** The next number, at once or when there is room; `undefined` once the session has ended. */
  async next(): Promise<number | undefined> {
    while (!this.#ended && this.#last - this.#acknowledged >= this.#outstandingMax) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    return this.nextNow();
  }

  settle(sequence: number): void {
    // In order is the usual case, and needs no set.
    if (sequence === this.#acknowledged + 1) this.#acknowledged++;
    else this.#settled.add(sequence);
    while (this.#settled.delete(this.#acknowledged + 1)) this.#acknowledged++;
    const free = this.#outstandingMax - (this.#last - this.#acknowledged);
    if (this.#waiting.length > 0) for (const wake of this.#waiting.splice(0, free)) wake();
  }

  /** Nobody gets a number any more. */
  end(): void {
    this.#ended = true;
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
