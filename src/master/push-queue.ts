/**
 * A bounded queue between somebody who pushes without waiting and one who reads with `for await`: orders to a worker,
 * events to a watcher, progress to whoever asked. When the reader falls behind by more than `limit` items the queue
 * fails with `overloaded`, so that a slow reader costs a bounded amount of memory and knows that it missed something.
 */

import { HeadpondError } from "../base/errors.ts";

export class PushQueue<T> implements AsyncIterable<T> {
  readonly #limit: number;
  readonly #name: string;
  #items: T[] = [];
  /** Read position in `#items`: they are dropped together. */
  #at = 0;
  #end: { readonly error: Error | undefined } | undefined;
  #wake: (() => void) | undefined;

  /** `name` is for the message of an overflow, e.g. `orders to worker w1`. */
  constructor({ name, limit }: { readonly name: string; readonly limit: number }) {
    this.#name = name;
    this.#limit = limit;
  }

  get length(): number {
    return this.#items.length - this.#at;
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  /** False: the queue has ended or has just overflowed, and the item is lost. */
  push(item: T): boolean {
    if (this.#end !== undefined) return false;
    if (this.length >= this.#limit) {
      this.end(new HeadpondError("overloaded", `${this.#name}: the reader is more than ${this.#limit} items behind`));
      return false;
    }
    this.#items.push(item);
    this.#wakeUp();
    return true;
  }

  /** No more items: the reader gets those that are queued, then the end or `error`. */
  end(error?: Error): void {
    if (this.#end !== undefined) return;
    this.#end = { error };
    this.#wakeUp();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      while (this.#at < this.#items.length) {
        const item = this.#items[this.#at] as T;
        this.#at++;
        if (this.#at === this.#items.length) {
          this.#items = [];
          this.#at = 0;
        }
        yield item;
      }
      if (this.#end !== undefined) {
        if (this.#end.error !== undefined) throw this.#end.error;
        return;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}
