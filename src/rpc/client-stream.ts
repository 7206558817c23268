/**
 * The client's end of a stream: items wait here until they are taken, at most as many as credit was granted for. Credit is
 * granted again as they are taken, in halves of the window, so that a reader that keeps up is never waited for.
 */

import type { HeadpondError } from "../base/errors.ts";
import { ClientCall, type MethodCodecs } from "./client-call.ts";
import type { Codec } from "./codec.ts";

type Waiting = { readonly resolve: (result: IteratorResult<unknown>) => void; readonly reject: (error: Error) => void };

export type StreamWindow = { readonly items: number; readonly bytes: number };

export class ClientStream extends ClientCall {
  readonly kind = "stream";
  readonly itemCodec: Codec;
  readonly window: StreamWindow;
  #items: { readonly value: unknown; readonly bytes: number }[] = [];
  #taken = 0;
  #returnItems = 0;
  #returnBytes = 0;
  #waiting: Waiting[] = [];
  #ended = false;
  #error: HeadpondError | undefined;

  constructor(
    methodName: string,
    codecs: MethodCodecs,
    request: unknown,
    deadlineMs: number,
    signal: AbortSignal | undefined,
    window: StreamWindow,
  ) {
    super(methodName, codecs.request, request, deadlineMs, signal);
    this.itemCodec = codecs.answer;
    this.window = window;
  }

  /** Items that came and were not taken yet. */
  get bufferedItems(): number {
    return this.#items.length - this.#taken;
  }

  push(value: unknown, bytes: number): void {
    if (this.settled) return;
    const waiting = this.#waiting.shift();
    if (waiting === undefined) {
      this.#items.push({ value, bytes });
    } else {
      this.#giveBack(bytes);
      waiting.resolve({ done: false, value });
    }
  }

  finish(): void {
    if (!this.settle()) return;
    this.#ended = true;
    for (const waiting of this.#waiting.splice(0)) waiting.resolve({ done: true, value: undefined });
  }

  protected reject(error: HeadpondError): void {
    this.#ended = true;
    this.#error = error;
    const [first, ...others] = this.#waiting.splice(0);
    if (first === undefined) return;
    this.#error = undefined;
    first.reject(error);
    for (const waiting of others) waiting.resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<unknown>> {
    const item = this.#items[this.#taken];
    if (item !== undefined) {
      this.#taken++;
      if (this.#taken === this.#items.length || this.#taken >= 1024) {
        this.#items = this.#items.slice(this.#taken);
        this.#taken = 0;
      }
      this.#giveBack(item.bytes);
      return Promise.resolve({ done: false, value: item.value });
    }
    if (this.#error !== undefined) {
      const error = this.#error;
      this.#error = undefined;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** The reader wants no more. */
  close(error: HeadpondError): void {
    this.abandon(error);
    this.#error = undefined;
    this.#items = [];
    this.#taken = 0;
  }

  #giveBack(bytes: number): void {
    this.#returnItems++;
    this.#returnBytes += bytes;
    if (this.settled) return;
    if (this.#returnItems * 2 < this.window.items && this.#returnBytes * 2 < this.window.bytes) return;
    this.connection?.grant(this, this.#returnItems, this.#returnBytes);
    this.#returnItems = 0;
    this.#returnBytes = 0;
  }
}
