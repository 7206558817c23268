/**
 * One request and its response on one connection: writes the one, parses the other, watches the time, and says at the
 * end whether the connection may be used again.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Clock, Timer } from "./clock.ts";
import type { HttpClientConnection } from "./http-client-connection.ts";
import { HttpClientResponse } from "./http-client-response.ts";
import { HttpResponseParser, type ResponseHead } from "./http-response-parser.ts";

const writePieceBytes = 256 * 1024;

export type ExchangeRequest = {
  readonly method: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | AsyncIterable<Uint8Array> | undefined;
  readonly signal: AbortSignal | undefined;
  readonly idleTimeoutMs: number;
};

export type ExchangeOptions = {
  readonly clock: Clock;
  readonly headerBytesMax: number;
  /** Called once, when the connection is no longer needed here. */
  readonly onDone: (reusable: boolean) => void;
};

export class HttpExchange {
  readonly #connection: HttpClientConnection;
  readonly #request: ExchangeRequest;
  readonly #options: ExchangeOptions;
  readonly #parser: HttpResponseParser;
  readonly #head = Promise.withResolvers<HttpClientResponse>();
  #response: HttpClientResponse | undefined;
  #keepAlive = false;
  #requestSent = false;
  #done = false;
  #timer: Timer | undefined;
  #lastProgressMs: number;
  /** Whether anything at all came back: before that, a kept connection may simply have been stale. */
  answered = false;

  constructor(connection: HttpClientConnection, request: ExchangeRequest, options: ExchangeOptions) {
    this.#connection = connection;
    this.#request = request;
    this.#options = options;
    this.#lastProgressMs = options.clock.monotonicMs();
    this.#parser = new HttpResponseParser(
      { method: request.method, headerBytesMax: options.headerBytesMax },
      {
        onHead: (head) => this.#onHead(head),
        onBody: (bytes) => this.#response?.deliver(bytes) ?? 0,
        onEnd: (trailers) => this.#onEnd(trailers),
      },
    );
  }

  /** Resolves when the head of the response is there. */
  run(): Promise<HttpClientResponse> {
    const { signal } = this.#request;
    if (signal?.aborted) {
      this.#fail(signal.reason as Error);
      return this.#head.promise;
    }
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    this.#connection.use({
      onBytes: (bytes) => this.#onBytes(bytes),
      paused: () => this.#response !== undefined && (this.#response.busy || !this.#mayFlow()),
      room: () => (this.#done ? undefined : this.#response?.room(this.#parser.bodyLeftBytes)),
      onClose: (error) => this.#onClose(error),
    });
    this.#watch(this.#request.idleTimeoutMs);
    this.#send().catch((error: unknown) => this.#fail(error as Error));
    this.#connection.resume();
    return this.#head.promise;
  }

  abort(error: Error): void {
    this.#fail(error);
  }

  readonly #onAbort = (): void => this.#fail(this.#request.signal?.reason as Error);

  async #send(): Promise<void> {
    const { body } = this.#request;
    const lines = Object.entries(this.#request.headers).map(([name, value]) => `${name}: ${value}\r\n`);
    const head = `${this.#request.method} ${this.#request.target} HTTP/1.1\r\n${lines.join("")}\r\n`;
    const writeHead = this.#connection.write(Buffer.from(head, "latin1"));
    if (body instanceof Uint8Array) {
      const writes = [writeHead];
      // In pieces, so that a large body on a slow line counts as progress.
      for (let at = 0; at < body.length; at += writePieceBytes) {
        writes.push(this.#connection.write(body.subarray(at, at + writePieceBytes)));
        await Promise.all(writes.splice(0));
        if (this.#done) return;
        this.#progress();
      }
      await Promise.all(writes);
    } else {
      await writeHead;
      if (body !== undefined) await this.#sendStream(body);
    }
    this.#progress();
    this.#requestSent = true;
  }

  async #sendStream(body: AsyncIterable<Uint8Array>): Promise<void> {
    const lengthText = this.#request.headers["content-length"];
    let left = lengthText === undefined ? undefined : Number(lengthText);
    for await (const piece of body) {
      // The answer may come before the whole question, and then nobody listens any more.
      if (this.#done) return;
      this.#progress();
      if (piece.length === 0) continue;
      if (left === undefined) {
        await Promise.all([
          this.#connection.write(`${piece.length.toString(16)}\r\n`),
          this.#connection.write(piece),
          this.#connection.write("\r\n"),
        ]);
        continue;
      }
      left -= piece.length;
      if (left < 0) throw new HeadpondError("invalid", `the body is longer than its length, ${lengthText} bytes`);
      await this.#connection.write(piece);
    }
    if (left === undefined) await this.#connection.write("0\r\n\r\n");
    else if (left > 0) throw new HeadpondError("invalid", `the body is shorter than its length, ${lengthText} bytes`);
  }

  #onBytes(bytes: Uint8Array): number {
    this.answered = true;
    this.#progress();
    try {
      const used = this.#parser.feed(bytes);
      if (this.#parser.ended && used < bytes.length) this.#keepAlive = false;
      // The end may have given the connection away: what is left is nobody's, and is seen there.
      return this.#done ? bytes.length : used;
    } catch (error) {
      this.#fail(error as Error);
      return bytes.length;
    }
  }

  #onHead(head: ResponseHead): void {
    this.#keepAlive = head.keepAlive;
    this.#response = new HttpClientResponse(head, {
      resume: () => {
        this.#progress();
        this.#connection.resume();
      },
      destroy: (error) => this.#fail(error),
    });
    this.#head.resolve(this.#response);
  }

  #onEnd(trailers: Readonly<Record<string, string>>): void {
    const finish = (): void => this.#finish(this.#keepAlive && this.#requestSent);
    // The parser is still on the stack, with bytes behind this response perhaps: release when it has said so. And not
    // before the last piece is read: the next response would be written over it.
    if (this.#response?.busy) this.#response.onIdle = finish;
    else queueMicrotask(finish);
    this.#response?.finish(undefined, trailers);
  }

  /** Whether bytes that arrive now have a taker, or are none of this response's. */
  #mayFlow(): boolean {
    return this.#parser.ended || this.#response?.wanted === true;
  }

  #onClose(error: Error | undefined): void {
    try {
      if (error !== undefined) throw error;
      this.#parser.finish();
    } catch (cause) {
      const { host, port } = this.#connection.origin;
      const { method, target } = this.#request;
      const why = (cause as Error).message;
      this.#fail(new HeadpondError("unavailable", `${method} ${host}:${port}${target}: ${why}`, { cause }));
    }
  }

  #fail(error: Error): void {
    if (this.#done) return;
    this.#finish(false);
    this.#head.reject(error);
    this.#response?.finish(error);
  }

  #finish(reusable: boolean): void {
    if (this.#done) return;
    this.#done = true;
    this.#timer?.clear();
    this.#request.signal?.removeEventListener("abort", this.#onAbort);
    this.#connection.free();
    if (!reusable) this.#connection.destroy();
    this.#options.onDone(reusable);
  }

  #progress(): void {
    this.#lastProgressMs = this.#options.clock.monotonicMs();
  }

  /** One timer, set again only when it fires: progress comes thousands of times a second. */
  #watch(waitMs: number): void {
    this.#timer = this.#options.clock.timer(waitMs, () => {
      // A reader that has stopped is allowed to take its time: then it is not the peer who stalls.
      if (this.#response !== undefined && !this.#response.wanted) this.#progress();
      const idleMs = this.#options.clock.monotonicMs() - this.#lastProgressMs;
      const leftMs = this.#request.idleTimeoutMs - idleMs;
      if (leftMs > 0) {
        this.#watch(leftMs);
        return;
      }
      const { host, port } = this.#connection.origin;
      const message = `${this.#request.method} ${host}:${port}${this.#request.target}: nothing came for ${Math.round(idleMs)} ms`;
      this.#fail(new HeadpondError("timeout", message));
    });
  }
}
