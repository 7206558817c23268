/**
 * Turns chunks that are pushed into chunks that are asked for, one at a time: the pusher waits until its chunk has been
 * used, so nothing is copied and nothing piles up.
 */

export class Handover {
  #chunk: Uint8Array | undefined;
  #used: (() => void) | undefined;
  #waiting:
    | { readonly resolve: (chunk: Uint8Array | undefined) => void; readonly reject: (error: unknown) => void }
    | undefined;
  #ended = false;
  #error: unknown;

  /** Resolves when the chunk may be overwritten. */
  give(chunk: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      if (this.#ended) {
        resolve();
        return;
      }
      this.#used = resolve;
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (waiting === undefined) this.#chunk = chunk;
      else waiting.resolve(chunk);
    });
  }

  /** The next chunk, `undefined` at the end. The chunk before it is given back. */
  take(): Promise<Uint8Array | undefined> {
    // A chunk that waits has not been taken yet: only its pusher knows it.
    const chunk = this.#chunk;
    if (chunk !== undefined) {
      this.#chunk = undefined;
      return Promise.resolve(chunk);
    }
    return new Promise((resolve, reject) => {
      this.#release();
      if (this.#error !== undefined) reject(this.#error as Error);
      else if (this.#ended) resolve(undefined);
      else this.#waiting = { resolve, reject };
    });
  }

  end(): void {
    this.#ended = true;
    if (this.#chunk === undefined) this.#waiting?.resolve(undefined);
    this.#waiting = undefined;
  }

  fail(error: unknown): void {
    this.#error ??= error ?? new Error("failed");
    this.#ended = true;
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  /** The taker leaves: whoever pushes is let go. */
  close(): void {
    this.#ended = true;
    this.#chunk = undefined;
    this.#release();
  }

  #release(): void {
    const used = this.#used;
    this.#used = undefined;
    used?.();
  }
}
