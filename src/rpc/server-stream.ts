/**
 * The server's end of one stream: takes items from the handler only while the client has granted credit and the
 * connection takes bytes, so an unread stream costs one item, not memory.
 */

import type { HeadpondError } from "../base/errors.ts";
import type { ServerCall } from "./server-call.ts";

export type StreamSink = {
  /** Writes one item; returns its size in bytes. Throws when it cannot be written. */
  readonly send: (item: unknown) => number;
  /** Whether the connection takes more. */
  readonly hasRoom: () => boolean;
};

export class ServerStream {
  readonly call: ServerCall;
  readonly #sink: StreamSink;
  #creditItems: number;
  #creditBytes: number;
  #wake: (() => void) | undefined;

  constructor(call: ServerCall, sink: StreamSink, creditItems: number, creditBytes: number) {
    this.call = call;
    this.#sink = sink;
    this.#creditItems = creditItems;
    this.#creditBytes = creditBytes;
  }

  grant(items: number, bytes: number): void {
    this.#creditItems += items;
    this.#creditBytes += bytes;
    this.wake();
  }

  /** Something that the stream may wait for has changed: credit, room, or that it is over. */
  wake(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  abort(reason: HeadpondError): void {
    this.call.abort(reason);
    this.wake();
  }

  /** Resolves when the handler has ended well or the call was aborted; rejects with the handler's error. */
  async run(items: AsyncIterable<unknown>): Promise<void> {
    const iterator = items[Symbol.asyncIterator]();
    let ended = false;
    try {
      for (;;) {
        while (!this.#mayGoOn()) await new Promise<void>((resolve) => (this.#wake = resolve));
        if (this.call.abortedWith !== undefined) return;
        const next = await iterator.next();
        if (next.done === true) {
          ended = true;
          return;
        }
        if (this.call.abortedWith !== undefined) return;
        this.#creditItems--;
        this.#creditBytes -= this.#sink.send(next.value);
      }
    } finally {
      if (!ended) await iterator.return?.();
    }
  }

  #mayGoOn(): boolean {
    if (this.call.abortedWith !== undefined) return true;
    return this.#creditItems > 0 && this.#creditBytes > 0 && this.#sink.hasRoom();
  }
}
