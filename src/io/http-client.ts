/**
 * A minimal HTTP/1.1 client for bulk reads: a pool of kept connections per origin, and responses that are read in place.
 * It follows no redirects, decodes no content, keeps no cookies, and repeats nothing, except a GET, HEAD or OPTIONS
 * that met a kept connection which the server had closed meanwhile.
 */

import type tls from "node:tls";
import { HeadpondError } from "../base/errors.ts";
import type { Clock, Timer } from "./clock.ts";
import { HttpClientConnection, type Origin } from "./http-client-connection.ts";
import type { HttpClientResponse } from "./http-client-response.ts";
import { type ExchangeRequest, HttpExchange } from "./http-exchange.ts";

export type HttpClientLimits = {
  readonly connectionsPerOriginMax: number;
  /** Requests that wait for a connection to one origin; the next is refused with `overloaded`. */
  readonly waitersPerOriginMax: number;
  /** How long an unused connection is kept. Shorter than servers usually keep theirs. */
  readonly keptMs: number;
  readonly headerBytesMax: number;
  /** Per connection. */
  readonly readBufferBytes: number;
};

const defaultLimits: HttpClientLimits = {
  connectionsPerOriginMax: 64,
  waitersPerOriginMax: 10_000,
  keptMs: 15_000,
  headerBytesMax: 64 * 1024,
  readBufferBytes: 256 * 1024,
};

export type HttpClientOptions = {
  readonly clock: Clock;
  readonly limits?: Partial<HttpClientLimits>;
  /** Certificates and the like for https. */
  readonly tls?: tls.ConnectionOptions;
};

export type HttpClientRequest = {
  readonly method: string;
  readonly url: string | URL;
  /** The request target (path and query) as it goes out, where the URL's normal form is not what the peer means. */
  readonly target?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** A stream needs the header `content-length`, or goes in chunks. */
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>;
  readonly signal?: AbortSignal;
  readonly connectTimeoutMs?: number;
  /** How long the peer may be silent while we wait for it. */
  readonly idleTimeoutMs?: number;
};

type Waiter = { readonly resolve: () => void; readonly reject: (error: Error) => void };

/** Connections of one origin; `count` includes those that are being opened. */
type Pool = {
  readonly origin: Origin;
  readonly idle: { readonly connection: HttpClientConnection; readonly timer: Timer }[];
  readonly waiters: Set<Waiter>;
  count: number;
};

const repeatableMethods: readonly string[] = ["GET", "HEAD", "OPTIONS"];

export class HttpClient {
  readonly #clock: Clock;
  readonly #limits: HttpClientLimits;
  readonly #tls: tls.ConnectionOptions;
  readonly #pools = new Map<string, Pool>();
  readonly #exchanges = new Set<HttpExchange>();
  /** Connections that are being opened. */
  readonly #opening = new Set<AbortController>();
  #closed = false;

  constructor(options: HttpClientOptions) {
    this.#clock = options.clock;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#tls = options.tls ?? {};
  }

  /**
   * Resolves with the head of the response, whatever its status. Rejects with `unavailable` (no connection, or it
   * broke), `timeout`, `corrupt` (not HTTP), `overloaded`, `invalid`, or the signal's reason.
   */
  async request(request: HttpClientRequest): Promise<HttpClientResponse> {
    const url = typeof request.url === "string" ? parseUrl(request.url) : request.url;
    const exchangeRequest: ExchangeRequest = {
      method: request.method,
      target: request.target ?? `${url.pathname}${url.search}`,
      headers: requestHeaders(request, url),
      body: request.body,
      signal: request.signal,
      idleTimeoutMs: request.idleTimeoutMs ?? 30_000,
    };
    checkHead(exchangeRequest);
    const pool = this.#pool(url);
    const connectTimeoutMs = request.connectTimeoutMs ?? 10_000;
    for (;;) {
      const connection = await this.#take(pool, exchangeRequest.signal, connectTimeoutMs);
      const kept = connection.used;
      const exchange = new HttpExchange(connection, exchangeRequest, {
        clock: this.#clock,
        headerBytesMax: this.#limits.headerBytesMax,
        onDone: (reusable) => {
          this.#exchanges.delete(exchange);
          this.#release(pool, connection, reusable);
        },
      });
      this.#exchanges.add(exchange);
      try {
        return await exchange.run();
      } catch (error) {
        const stale = kept && !exchange.answered && error instanceof HeadpondError && error.code === "unavailable";
        if (!stale || request.body !== undefined || !repeatableMethods.includes(request.method)) throw error;
      }
    }
  }

  /** Connections to all origins, idle ones included. */
  get connectionCount(): number {
    let count = 0;
    for (const pool of this.#pools.values()) count += pool.count;
    return count;
  }

  /** Closes idle connections at once; what is under way is aborted. */
  async close(): Promise<void> {
    this.#closed = true;
    const reason = closedError();
    for (const exchange of this.#exchanges) exchange.abort(reason);
    for (const opening of this.#opening) opening.abort(reason);
    for (const pool of this.#pools.values()) {
      for (const waiter of pool.waiters) waiter.reject(reason);
      for (const { connection, timer } of pool.idle.splice(0)) {
        timer.clear();
        connection.destroy();
        pool.count--;
      }
    }
  }

  #pool(url: URL): Pool {
    if (url.protocol !== "http:" && url.protocol !== "https:") {
      throw new HeadpondError("invalid", `${url.href}: the protocol must be http or https`);
    }
    const key = `${url.protocol}//${url.host}`;
    let pool = this.#pools.get(key);
    if (pool === undefined) {
      const secure = url.protocol === "https:";
      const host = url.hostname.replace(/^\[|\]$/g, "");
      const origin = { secure, host, port: Number(url.port) || (secure ? 443 : 80) };
      pool = { origin, idle: [], waiters: new Set(), count: 0 };
      this.#pools.set(key, pool);
    }
    return pool;
  }

  async #take(pool: Pool, signal: AbortSignal | undefined, connectTimeoutMs: number): Promise<HttpClientConnection> {
    for (;;) {
      if (this.#closed) throw closedError();
      signal?.throwIfAborted();
      for (let kept = pool.idle.pop(); kept !== undefined; kept = pool.idle.pop()) {
        kept.timer.clear();
        if (!kept.connection.closed && !kept.connection.hasUnread) {
          kept.connection.keepAlive(true);
          return kept.connection;
        }
        kept.connection.destroy();
        pool.count--;
      }
      if (pool.count < this.#limits.connectionsPerOriginMax) return this.#open(pool, signal, connectTimeoutMs);
      await this.#wait(pool, signal);
      // Aborted between its turn and now: the turn is the next one's.
      if (signal?.aborted) this.#wake(pool);
    }
  }

  async #open(pool: Pool, signal: AbortSignal | undefined, connectTimeoutMs: number): Promise<HttpClientConnection> {
    const { host, port } = pool.origin;
    const stop = new AbortController();
    const onAbort = (): void => stop.abort(signal?.reason);
    const timer = this.#clock.timer(connectTimeoutMs, () => {
      stop.abort(new HeadpondError("timeout", `${host}:${port} did not answer within ${connectTimeoutMs} ms`));
    });
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#opening.add(stop);
    pool.count++;
    try {
      const { readBufferBytes } = this.#limits;
      return await HttpClientConnection.open(pool.origin, { readBufferBytes, tls: this.#tls, signal: stop.signal });
    } catch (error) {
      this.#giveUp(pool);
      throw error;
    } finally {
      timer.clear();
      this.#opening.delete(stop);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #wait(pool: Pool, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (pool.waiters.size >= this.#limits.waitersPerOriginMax) {
        const { host, port } = pool.origin;
        reject(
          new HeadpondError("overloaded", `${pool.waiters.size} requests wait for a connection to ${host}:${port}`),
        );
        return;
      }
      const leave = (): void => {
        pool.waiters.delete(waiter);
        signal?.removeEventListener("abort", onAbort);
      };
      const onAbort = (): void => waiter.reject(signal?.reason as Error);
      const waiter: Waiter = {
        resolve: () => {
          leave();
          resolve();
        },
        reject: (error) => {
          leave();
          reject(error);
        },
      };
      pool.waiters.add(waiter);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  #release(pool: Pool, connection: HttpClientConnection, reusable: boolean): void {
    if (!reusable || connection.closed || connection.hasUnread || this.#closed) {
      connection.destroy();
      this.#giveUp(pool);
      return;
    }
    connection.used = true;
    connection.keepAlive(false);
    const entry = {
      connection,
      timer: this.#clock.timer(this.#limits.keptMs, () => {
        pool.idle.splice(pool.idle.indexOf(entry), 1);
        connection.destroy();
        this.#giveUp(pool);
      }),
    };
    pool.idle.push(entry);
    this.#wake(pool);
  }

  #giveUp(pool: Pool): void {
    pool.count--;
    this.#wake(pool);
  }

  #wake(pool: Pool): void {
    const [first] = pool.waiters;
    first?.resolve();
  }
}

function parseUrl(text: string): URL {
  try {
    return new URL(text);
  } catch (error) {
    throw new HeadpondError("invalid", `${JSON.stringify(text)} is not a URL`, { cause: error });
  }
}

/** With the headers that a request must have, unless the caller gave them: names in lower case. */
function requestHeaders(request: HttpClientRequest, url: URL): Record<string, string> {
  const headers: Record<string, string> = { host: url.host };
  for (const [name, value] of Object.entries(request.headers ?? {})) headers[name.toLowerCase()] = value;
  const { body } = request;
  if (body instanceof Uint8Array) headers["content-length"] = String(body.length);
  else if (body !== undefined && headers["content-length"] === undefined) headers["transfer-encoding"] = "chunked";
  else if (body === undefined && ["POST", "PUT", "PATCH"].includes(request.method)) headers["content-length"] = "0";
  return headers;
}

/** A line break in a header would begin another one, or another request. */
function checkHead({ method, target, headers }: ExchangeRequest): void {
  if (!/^[A-Z]+$/.test(method)) throw new HeadpondError("invalid", `${JSON.stringify(method)} is not an HTTP method`);
  if (!/^[!-~]+$/.test(target)) {
    throw new HeadpondError("invalid", `${JSON.stringify(target)} must be percent-encoded to be requested`);
  }
  for (const [name, value] of Object.entries(headers)) {
    if (!/^[!#$%&'*+\-.^_`|~0-9a-z]+$/.test(name) || /[^\t -~\x80-\xff]/.test(value)) {
      throw new HeadpondError("invalid", `the header ${JSON.stringify(name)} has characters that HTTP does not allow`);
    }
  }
}

function closedError(): HeadpondError {
  return new HeadpondError("cancelled", "the HTTP client was closed");
}
