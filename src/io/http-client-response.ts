/**
 * A response whose head has arrived. Its body is taken once, by `consume`, `readInto` or `bytes`, and until then the
 * peer waits. Whoever does not want the body must `destroy` the response: its connection is held until then.
 */

import { assert } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import type { ResponseHead } from "./http-response-parser.ts";

/** What the response needs of the exchange that it belongs to. */
export type BodySource = {
  /** The reader wants bytes now. */
  readonly resume: () => void;
  readonly destroy: (error: Error) => void;
};

export type ConsumeOptions = {
  /**
   * Memory for the body, in order from its beginning: pieces lie there when they are handed over, straight from the socket if that can
   * be. What is longer than it comes as without it. Nothing is written there any more once `consume` has settled or was aborted.
   */
  readonly into?: Uint8Array;
};

type Reader = {
  /** Returns how much it took; when it wants no more for now it has put itself out of `#reader`. */
  readonly take: (bytes: Uint8Array) => number;
  readonly end: () => void;
  readonly fail: (error: Error) => void;
  /** Where it wants the next bytes. */
  readonly room?: () => Uint8Array | undefined;
};

/** Of memory of the reader's: small enough to be still in the processor's cache when the reader looks at it. */
const readAtOnceBytes = 512 * 1024;
const nowhere = new Uint8Array(0);

export class HttpClientResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly #source: BodySource;
  #reader: Reader | undefined;
  /** `undefined` while the body is coming. */
  #outcome: { readonly error: Error | undefined } | undefined;
  /** A consumer still works on the last piece, whose memory is the connection's. */
  #busy = false;
  /** From the exchange: called once when no consumer works on a piece any more. */
  onIdle: () => void = () => {};
  #trailers: Readonly<Record<string, string>> = {};

  constructor(head: ResponseHead, source: BodySource) {
    this.status = head.status;
    this.headers = head.headers;
    this.#source = source;
  }

  /** Headers that followed a body in chunks; complete when the body has ended. */
  get trailers(): Readonly<Record<string, string>> {
    return this.#trailers;
  }

  /** `Content-Length`, if it was given. */
  get lengthBytes(): number | undefined {
    const text = this.headers["content-length"];
    return text === undefined ? undefined : Number(text);
  }

  /**
   * Hands over the body piece by piece. A piece is valid until `onChunk` returns, or until the promise that it returned
   * is fulfilled; no more arrives before. Resolves at the end of the body; rejects if it is cut short
   * (`unavailable`), stalls (`timeout`), is malformed (`corrupt`) or `onChunk` throws.
   */
  consume(
    onChunk: (bytes: Uint8Array) => void | Promise<void>,
    { into = nowhere }: ConsumeOptions = {},
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      let placedBytes = 0;
      const place = (bytes: Uint8Array): Uint8Array => {
        if (placedBytes === into.length) return bytes;
        const count = Math.min(bytes.length, into.length - placedBytes);
        const placed = into.subarray(placedBytes, placedBytes + count);
        const isThere = placed.buffer === bytes.buffer && placed.byteOffset === bytes.byteOffset;
        if (!isThere) placed.set(count === bytes.length ? bytes : bytes.subarray(0, count));
        placedBytes += count;
        return placed;
      };
      const stop = (thrown: unknown): void => {
        const error = thrown instanceof Error ? thrown : new Error(String(thrown));
        this.#reader = undefined;
        this.#source.destroy(error);
        reject(error);
      };
      const reader: Reader = {
        take: (given) => {
          const bytes = place(given);
          try {
            const pending = onChunk(bytes);
            if (pending !== undefined) {
              this.#reader = undefined;
              this.#busy = true;
              pending.then(() => {
                this.#busy = false;
                this.onIdle();
                this.#read(reader);
              }, stop);
            }
          } catch (error) {
            stop(error);
          }
          return bytes.length;
        },
        end: resolve,
        fail: reject,
        room: () => (placedBytes === into.length ? undefined : into.subarray(placedBytes)),
      };
      this.#read(reader);
    });
  }

  /** Fills `target` from the body; resolves with how many bytes came: fewer than asked for only at the end of the body. */
  readInto(target: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      let filled = 0;
      if (target.length === 0) {
        resolve(0);
        return;
      }
      this.#read({
        take: (bytes) => {
          const count = Math.min(bytes.length, target.length - filled);
          target.set(count === bytes.length ? bytes : bytes.subarray(0, count), filled);
          filled += count;
          if (filled === target.length) {
            this.#reader = undefined;
            resolve(filled);
          }
          return count;
        },
        end: () => resolve(filled),
        fail: reject,
      });
    });
  }

  /** The whole body, if it is no longer than `bytesMax`; else throws `invalid`. */
  async bytes(bytesMax: number): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let count = 0;
    await this.consume((bytes) => {
      count += bytes.length;
      if (count > bytesMax)
        throw new HeadpondError("invalid", `the body of the response is larger than ${bytesMax} bytes`);
      chunks.push(Buffer.from(bytes));
    });
    return Buffer.concat(chunks, count);
  }

  async text(bytesMax: number): Promise<string> {
    return (await this.bytes(bytesMax)).toString("utf8");
  }

  /** Gives the body up and closes its connection. Harmless after the end. */
  destroy(): void {
    this.#source.destroy(new HeadpondError("cancelled", "the response was given up"));
  }

  /** From the exchange: a piece of the body. */
  deliver(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length && this.#reader !== undefined) {
      at += this.#reader.take(at === 0 ? bytes : bytes.subarray(at));
    }
    return at;
  }

  /** From the exchange: where the next bytes should arrive, of which `bodyLeftBytes` are the body's. */
  room(bodyLeftBytes: number): Uint8Array | undefined {
    const room = bodyLeftBytes === 0 ? undefined : this.#reader?.room?.();
    return room?.subarray(0, Math.min(bodyLeftBytes, readAtOnceBytes));
  }

  get busy(): boolean {
    return this.#busy;
  }

  /** Whether somebody waits for more of the body. */
  get wanted(): boolean {
    return this.#reader !== undefined;
  }

  /** From the exchange: the body has ended, well or not. */
  finish(error: Error | undefined, trailers: Readonly<Record<string, string>> = {}): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = { error };
    this.#trailers = trailers;
    const reader = this.#reader;
    this.#reader = undefined;
    if (error === undefined) reader?.end();
    else reader?.fail(error);
  }

  #read(reader: Reader): void {
    assert(this.#reader === undefined, "a body has one reader at a time");
    if (this.#outcome !== undefined) {
      if (this.#outcome.error === undefined) reader.end();
      else reader.fail(this.#outcome.error);
      return;
    }
    this.#reader = reader;
    this.#source.resume();
  }
}
