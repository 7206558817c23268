/**
 * One response as a handler makes it: in one call (`json`, `text`, `empty`, `error`), or `head`, then `write`s or a
 * `pump`, then `end`. A body goes out of buffers that are used again, at the client's pace.
 */

import type { ServerResponse } from "node:http";
import type net from "node:net";
import { assert } from "../base/assert.ts";
import { HeadpondError } from "../base/errors.ts";
import type { BufferPool } from "./aligned-buffer.ts";
import type { Clock } from "./clock.ts";
import type { FileSender } from "./file-sender.ts";
import type { HttpLimits } from "./http-limits.ts";
import { clientGone, type HttpRequest } from "./http-request.ts";

export type HttpHeaders = Readonly<Record<string, string | number | readonly string[]>>;

/** What a body is read from: a `DiskFile`, or anything with the same call. */
export type ByteSource = { read(buffer: Uint8Array, position: number): Promise<number> };

/** Buffers that one response keeps in flight: one read, one written, one in between (more brings nothing). */
const buffersPerPump = 3;
const nothing = Buffer.alloc(0);

export class HttpResponse {
  readonly #request: HttpRequest;
  readonly #outgoing: ServerResponse;
  readonly #limits: HttpLimits;
  readonly #clock: Clock;
  /** Writes whose bytes the kernel does not have yet. */
  readonly #unflushed = new Set<(error: Error) => void>();

  constructor(request: HttpRequest, outgoing: ServerResponse, limits: HttpLimits, clock: Clock) {
    this.#request = request;
    this.#outgoing = outgoing;
    this.#limits = limits;
    this.#clock = clock;
    outgoing.once("close", () => {
      for (const reject of this.#unflushed) reject(clientGone(request.remote));
    });
    // Errors of the socket reach whoever writes or reads; an unheard event would end the process.
    outgoing.on("error", () => {});
  }

  get headSent(): boolean {
    return this.#outgoing.headersSent;
  }

  get ended(): boolean {
    return this.#outgoing.writableEnded || this.#outgoing.destroyed;
  }

  /** Status and headers. Without `content-length` the body goes in chunks, and may have trailers. */
  head(status: number, headers: HttpHeaders = {}): void {
    for (const [name, value] of Object.entries(headers)) this.#outgoing.setHeader(name, value as string);
    this.#outgoing.writeHead(status);
  }

  /** Sends the head now, for a body whose first bytes will take their time: the client knows that it is answered. */
  flushHead(): void {
    this.#outgoing.flushHeaders();
  }

  /**
   * Resolves when the kernel has the bytes, so that `bytes` may be changed; to keep a line busy, have two or three
   * writes outstanding. Throws `cancelled` if the client has left, `timeout` if it stops reading.
   */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#outgoing.destroyed) {
        reject(clientGone(this.#request.remote));
        return;
      }
      const settle = (error: Error | null | undefined): void => {
        if (!this.#unflushed.delete(settle)) return;
        timer.clear();
        if (error === null || error === undefined) resolve();
        else reject(error instanceof HeadpondError ? error : clientGone(this.#request.remote, error));
      };
      const timer = this.#clock.timer(this.#limits.stallTimeoutMs, () => {
        const message = `the client ${this.#request.remote} took no bytes for ${this.#limits.stallTimeoutMs} ms`;
        settle(new HeadpondError("timeout", message));
        this.destroy();
      });
      this.#unflushed.add(settle);
      this.#outgoing.write(bytes, settle);
    });
  }

  /** Whether `sendFile` can be used: a plain connection of which it is this response's turn. After `head`, and with a length. */
  get canSendFile(): boolean {
    return this.#descriptor() !== undefined && !this.#outgoing.chunkedEncoding;
  }

  /**
   * A range of a file as (a part of) the body, past this process. Everything written before must have resolved. Resolves with how many
   * bytes left: fewer than asked for if the file did not give more. Rejects as `write` does; nothing can follow then.
   */
  async sendFile(
    sender: FileSender,
    file: { readonly descriptor: number; readonly position: number; readonly lengthBytes: number },
    onSent: (bytes: number) => void,
  ): Promise<number> {
    assert(this.headSent && this.#unflushed.size === 0, "a file follows the head, and nothing is on its way");
    this.#outgoing.flushHeaders();
    const socket = this.#outgoing.socket;
    // The head may still be in the stream's queue, behind which the kernel would put it.
    if (socket !== null && socket.writableLength > 0) {
      await new Promise<void>((resolve) => void socket.write(nothing, () => resolve()));
    }
    const descriptor = this.#descriptor();
    if (this.#outgoing.destroyed || descriptor === undefined) throw clientGone(this.#request.remote);
    return sender.send({
      socket: descriptor,
      file: file.descriptor,
      position: file.position,
      lengthBytes: file.lengthBytes,
      stallTimeoutMs: this.#limits.stallTimeoutMs,
      signal: this.#request.signal,
      onSent,
    });
  }

  /** The end of a body. Trailers need a body in chunks, announced by the header `trailer`. */
  end(trailers?: Readonly<Record<string, string>>): void {
    if (trailers !== undefined) this.#outgoing.addTrailers(trailers);
    this.#outgoing.end();
  }

  /** Cuts the connection: what was announced will not come. */
  destroy(): void {
    this.#outgoing.destroy();
  }

  empty(status: number, headers: HttpHeaders = {}): void {
    this.#whole(status, headers, Buffer.alloc(0));
  }

  text(status: number, body: string, headers: HttpHeaders = {}): void {
    this.bytes(status, Buffer.from(body), { "content-type": "text/plain; charset=utf-8", ...headers });
  }

  json(status: number, value: unknown, headers: HttpHeaders = {}): void {
    const body = Buffer.from(`${JSON.stringify(value)}\n`);
    this.bytes(status, body, { "content-type": "application/json", ...headers });
  }

  bytes(status: number, body: Uint8Array, headers: HttpHeaders = {}): void {
    this.#whole(status, headers, body);
  }

  /** The error's document; tells a client that should come back when to do so. */
  error(error: HeadpondError, status: number, headers: HttpHeaders = {}): void {
    const retryAfterMs = error.details?.["retryAfterMs"];
    const retryAfter =
      typeof retryAfterMs === "number" ? { "retry-after": Math.max(1, Math.ceil(retryAfterMs / 1000)) } : {};
    // What is still on its way of the body would be taken for the next request.
    const close = this.#request.complete ? {} : { connection: "close" };
    this.json(status, error, { ...retryAfter, ...close, ...headers });
  }

  /**
   * The bytes [position, position + lengthBytes) of `source` as (a part of) the body, after `head`; ends nothing.
   * Throws `corrupt` if the source ends early, besides what `write` and `source` throw.
   */
  async pump(source: ByteSource, position: number, lengthBytes: number, pool: BufferPool): Promise<void> {
    if (this.#request.method === "HEAD") return;
    const writes = new Set<Promise<void>>();
    let failure: unknown;
    let at = position;
    const end = position + lengthBytes;
    try {
      while (at < end && failure === undefined) {
        let buffer = writes.size < buffersPerPump ? pool.tryTake() : undefined;
        if (buffer === undefined) {
          // An own buffer comes back soon; only a stream that has none stands in the queue for one.
          if (writes.size > 0) {
            await Promise.race(writes);
            continue;
          }
          buffer = await pool.take(this.#request.signal);
        }
        const taken = buffer;
        let count: number;
        try {
          count = await source.read(taken.subarray(0, Math.min(taken.length, end - at)), at);
          if (count === 0) throw new HeadpondError("corrupt", `the source ended at ${at} of ${end} bytes`);
        } catch (error) {
          pool.give(taken);
          throw error;
        }
        at += count;
        const write = this.write(taken.subarray(0, count))
          .catch((error: unknown) => {
            failure ??= error;
          })
          .finally(() => {
            writes.delete(write);
            pool.give(taken);
          });
        writes.add(write);
      }
    } finally {
      await Promise.all(writes);
    }
    if (failure !== undefined) throw failure as Error;
  }

  /** Node keeps it in a property without a promise: whatever else is found there means that files go the long way. */
  #descriptor(): number | undefined {
    const socket = this.#outgoing.socket as (net.Socket & { readonly encrypted?: boolean; _handle?: unknown }) | null;
    // Another response is before this one (pipelining), or the connection is gone, or it is not the kernel's to write to.
    if (socket === null || socket.destroyed || socket.encrypted === true) return undefined;
    const descriptor = (socket._handle as { readonly fd?: unknown } | null | undefined)?.fd;
    return typeof descriptor === "number" && descriptor > 2 ? descriptor : undefined;
  }

  #whole(status: number, headers: HttpHeaders, body: Uint8Array): void {
    assert(!this.headSent, "a response has one head");
    const hasLength = status !== 204 && status !== 304 && status >= 200 && !Object.hasOwn(headers, "content-length");
    this.head(status, hasLength ? { ...headers, "content-length": body.length } : headers);
    this.#outgoing.end(body);
  }
}
