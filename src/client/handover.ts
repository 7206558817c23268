/**
 * Turns chunks that are pushed into chunks that are asked for. A chunk is given back to its pusher when the next one is
 * taken, so nothing is copied; how many are on the way at once is the pusher's choice.
 */

type Given = { readonly chunk: Uint8Array; readonly release: () => void };
type Waiting = {
  readonly resolve: (chunk: Uint8Array | undefined) => void;
  readonly reject: (error: unknown) => void;
};

export class Handover {
  /** Given and not yet taken. */
  readonly #queue: Given[] = [];
  /** Taken, and in use until the next one is asked for. */
  #inUse: Given | undefined;
  #waiting: Waiting | undefined;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;

  /** Resolves when the chunk may be overwritten. */
  give(chunk: Uint8Array): Promise<void> {
    return new Promise((release) => {
      if (this.#ended) {
        release();
        return;
      }
      this.#queue.push({ chunk, release });
      this.#serve();
    });
  }

  /** The next chunk, `undefined` at the end. The chunk before it is given back. */
  take(): Promise<Uint8Array | undefined> {
    this.#inUse?.release();
    this.#inUse = undefined;
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#serve();
    });
  }

  end(): void {
    this.#ended = true;
    this.#serve();
  }

  /** What was given before is still taken before the error. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.end();
  }

  /** The taker leaves: whoever pushes is let go. */
  close(): void {
    this.#ended = true;
    for (const { release } of this.#queue.splice(0)) release();
    this.#inUse?.release();
    this.#inUse = undefined;
  }

  #serve(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    const next = this.#queue.shift();
    if (next === undefined && !this.#ended) return;
    this.#waiting = undefined;
    this.#inUse = next;
    if (next !== undefined) waiting.resolve(next.chunk);
    else if (this.#failure !== undefined) waiting.reject(this.#failure.error);
    else waiting.resolve(undefined);
  }
}
