/**
 * The client of one server: calls and streams multiplexed on one connection, which is made when it is first needed and
 * again after it broke. It promises that every call is settled, with an outcome that is true: `none` when no byte of the
 * request was handed to the connection, `unknown` when it may have reached the server. It retries nothing
 * (cluster-client.ts does).
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Address, Connection, Network } from "../io/network.ts";
import { type CallOwner, type ClientCall, type MethodCodecs, UnaryCall } from "./client-call.ts";
import { ClientConnection, type ClientConnectionEvents, type ClientConnectionLimits } from "./client-connection.ts";
import { ClientStream } from "./client-stream.ts";
import { codecOf } from "./codec.ts";
import { Deadlines } from "./deadlines.ts";
import { type ClientHello, type PeerInfo, protocolVersions } from "./hello.ts";
import type { AnyMethod, Method, Service, StreamMethod } from "./method.ts";

export type ClientLimits = ClientConnectionLimits & {
  /** Calls and streams that are waiting or under way; beyond, they are refused as `overloaded`. */
  readonly outstandingMax: number;
  /** For calls that name no timeout. */
  readonly timeoutMs: number;
  /** Until the server has answered the hello. */
  readonly connectTimeoutMs: number;
  /** After a failed attempt to connect, calls are refused for a while that doubles from the first to the second. */
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
  /** Items and bytes that a stream may have on the way or waiting to be taken. */
  readonly streamWindowItems: number;
  readonly streamWindowBytes: number;
};

export const defaultClientLimits: ClientLimits = {
  outstandingMax: 65_536,
  timeoutMs: 30_000,
  connectTimeoutMs: 5_000,
  backoffMinMs: 20,
  backoffMaxMs: 1_000,
  replyFrameBytesMax: 64 * 1024 * 1024,
  queuedBytesMax: 8 * 1024 * 1024,
  pingIntervalMs: 10_000,
  busyPingIntervalMs: 1_000,
  pingTimeoutMs: 2_000,
  quietMs: 2_000,
  streamWindowItems: 256,
  streamWindowBytes: 1024 * 1024,
};

export type CallOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Until the answer; Infinity for none. Default: the limit `timeoutMs` for calls, none for streams. */
  readonly timeoutMs?: number;
  /** The caller repeats it when its outcome is not known: `retreat` ends it at once. */
  readonly repeatable?: boolean;
};

export type RpcClientOptions = {
  readonly network: Network;
  readonly address: Address;
  readonly service: Service;
  readonly self: PeerInfo;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random?: Random;
  readonly limits?: Partial<ClientLimits>;
  /** Calls wait, and the server has given no sign of life, or not answered the hello, for `quietMs`. */
  readonly onQuiet?: () => void;
};

export class RpcClient implements CallOwner {
  readonly address: Address;
  readonly #network: Network;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #random: Random;
  readonly #limits: ClientLimits;
  readonly #hello: ClientHello;
  readonly #name: string;
  readonly #onQuiet: () => void;
  /** Calls for which there is no connection, or no room on it, yet. */
  readonly #waiting = new Set<ClientCall>();
  readonly #waitingDeadlines: Deadlines;
  /** All that are open, also those that the server has said farewell on. */
  readonly #connections = new Set<ClientConnection>();
  #current: ClientConnection | undefined;
  #attempt: AbortController | undefined;
  #quietTimer: Timer | undefined;
  #outstanding = 0;
  #closed = false;
  #failures = 0;
  #retryAtMs = Number.NEGATIVE_INFINITY;
  #lastError: HeadpondError | undefined;
  #server: PeerInfo | undefined;

  constructor(options: RpcClientOptions) {
    const { network, address, service, self, clock, logger } = options;
    this.address = address;
    this.#network = network;
    this.#clock = clock;
    this.#logger = logger;
    this.#random = options.random ?? new Random(clock.wallMs());
    this.#limits = { ...defaultClientLimits, ...options.limits };
    this.#onQuiet = options.onQuiet ?? (() => {});
    this.#name = `${service.name} at ${address.host}:${address.port}`;
    this.#hello = {
      protocolMin: protocolVersions.min,
      protocolMax: protocolVersions.max,
      service: service.name,
      serviceVersion: service.version,
      frameBytesMax: this.#limits.replyFrameBytesMax,
      peer: self,
    };
    this.#waitingDeadlines = new Deadlines({ clock, expire: (nowMs) => this.#expireWaiting(nowMs) });
  }

  /** What the server said about itself when it was last connected. */
  get server(): PeerInfo | undefined {
    return this.#server;
  }

  get connected(): boolean {
    return this.#current !== undefined;
  }

  /** One request, one reply. Rejects with the server's error, or `unavailable`, `timeout`, `cancelled`, `overloaded`. */
  call<Request, Reply>(
    method: Method<Request, Reply>,
    request: NoInfer<Request>,
    options?: CallOptions,
  ): Promise<Reply> {
    return new Promise<Reply>((resolve, reject) => {
      const nowMs = this.#clock.monotonicMs();
      const deadlineMs = nowMs + (options?.timeoutMs ?? this.#limits.timeoutMs);
      const signal = options?.signal;
      const settle = resolve as (reply: unknown) => void;
      const call = new UnaryCall(method.name, codecsOf(method), request, deadlineMs, signal, settle, reject);
      call.repeatable = options?.repeatable === true;
      this.#submit(call, signal, nowMs);
    });
  }

  /**
   * Another server is to be asked from now on. What waits to be sent fails as `unavailable`, nothing done; what was sent and is
   * repeatable, with an unknown outcome. The rest is still answered here, unless the server gives no sign of life.
   */
  retreat(reason: string): void {
    const error = new HeadpondError("unavailable", reason);
    for (const call of [...this.#waiting]) call.abandonWith(error);
    for (const connection of [...this.#connections]) {
      if (connection.isQuiet) connection.break(error);
      else connection.retreat(error);
    }
  }

  /**
   * The items that the server answers with, in order. The request is sent when the first is asked for; leaving the loop
   * cancels it. After an error the stream is over.
   */
  openStream<Request, Item>(
    method: StreamMethod<Request, Item>,
    request: NoInfer<Request>,
    options?: CallOptions,
  ): AsyncIterable<Item> {
    return { [Symbol.asyncIterator]: () => this.#iterate<Item>(method, request, options) };
  }

  #iterate<Item>(method: StreamMethod<unknown, unknown>, request: unknown, options?: CallOptions): AsyncIterator<Item> {
    let stream: ClientStream | undefined;
    let over = false;
    const open = (): ClientStream => {
      const { streamWindowItems: items, streamWindowBytes: bytes } = this.#limits;
      const nowMs = this.#clock.monotonicMs();
      const deadlineMs = nowMs + (options?.timeoutMs ?? Number.POSITIVE_INFINITY);
      const window = { items, bytes };
      const opened = new ClientStream(method.name, codecsOf(method), request, deadlineMs, options?.signal, window);
      this.#submit(opened, options?.signal, nowMs);
      return opened;
    };
    return {
      next: () => {
        if (over) return Promise.resolve({ done: true, value: undefined });
        stream ??= open();
        return stream.next() as Promise<IteratorResult<Item>>;
      },
      return: () => {
        over = true;
        stream?.close(new HeadpondError("cancelled", `${method.name}: the reader left`));
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }

  #submit(call: ClientCall, signal: AbortSignal | undefined, nowMs: number): void {
    const refusal = this.#refusal(call.methodName, signal);
    if (refusal !== undefined) {
      call.fail(refusal);
      return;
    }
    this.#outstanding++;
    call.owner = this;
    if (this.#waiting.size === 0 && this.#current?.hasRoom(call.kind) === true) {
      this.#current.send(call, nowMs);
      return;
    }
    this.#waiting.add(call);
    this.#waitingDeadlines.expect(call.deadlineMs);
    if (this.#current === undefined) this.#connect();
    else this.#dispatch();
  }

  #refusal(methodName: string, signal: AbortSignal | undefined): HeadpondError | undefined {
    if (this.#closed) return new HeadpondError("unavailable", `${methodName}: the client is closed`);
    if (signal?.aborted === true) {
      return new HeadpondError("cancelled", `${methodName}: cancelled before it was sent`, { cause: signal.reason });
    }
    const { outstandingMax } = this.#limits;
    if (this.#outstanding >= outstandingMax) {
      const message = `${methodName}: ${outstandingMax} calls of this client to ${this.#name} are outstanding: wait for some`;
      return new HeadpondError("overloaded", message);
    }
    if (this.#current !== undefined || this.#attempt !== undefined) return undefined;
    const waitMs = this.#retryAtMs - this.#clock.monotonicMs();
    if (waitMs <= 0) return undefined;
    const { code, message, retryable } = this.#lastError ?? new HeadpondError("unavailable", "not connected");
    return new HeadpondError(code, `${methodName}: ${message}`, {
      retryable,
      details: { retryAfterMs: Math.ceil(waitMs) },
    });
  }

  onSettled(call: ClientCall): void {
    this.#outstanding--;
    if (this.#waiting.size > 0) this.#waiting.delete(call);
  }

  /** Writes what waits, in order; a stream for which there is no room does not hold up unary calls. */
  #dispatch(): void {
    const connection = this.#current;
    if (connection === undefined || this.#waiting.size === 0) return;
    const nowMs = this.#clock.monotonicMs();
    for (const call of this.#waiting) {
      if (!connection.hasRoom(call.kind)) {
        if (!connection.hasRoom(call.kind === "unary" ? "stream" : "unary")) return;
        continue;
      }
      this.#waiting.delete(call);
      connection.send(call, nowMs);
    }
  }

  #expireWaiting(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const call of this.#waiting) {
      if (call.deadlineMs <= nowMs) call.timeOut();
      else nextMs = Math.min(nextMs, call.deadlineMs);
    }
    return nextMs;
  }

  #connect(): void {
    if (this.#attempt !== undefined) return;
    const attempt = new AbortController();
    this.#attempt = attempt;
    const { connectTimeoutMs } = this.#limits;
    const timer = this.#clock.timer(connectTimeoutMs, () => {
      attempt.abort(new HeadpondError("unavailable", `no answer to the hello within ${connectTimeoutMs} ms`));
    });
    this.#quietTimer?.clear();
    this.#quietTimer = this.#clock.timer(this.#limits.quietMs, () => {
      if (this.#attempt === attempt && this.#waiting.size > 0) this.#onQuiet();
    });
    this.#network.connect(this.address, attempt.signal).then(
      (connection) => {
        if (attempt.signal.aborted) {
          connection.destroy();
          this.#attemptFailed(attempt, timer, attempt.signal.reason);
          return;
        }
        this.#introduce(connection, attempt, timer);
      },
      (error: unknown) => this.#attemptFailed(attempt, timer, error),
    );
  }

  #introduce(connection: Connection, attempt: AbortController, timer: Timer): void {
    let readyMs: number | undefined;
    const events: ClientConnectionEvents = {
      onReady: (hello) => {
        timer.clear();
        this.#quietTimer?.clear();
        readyMs = this.#clock.monotonicMs();
        this.#server = hello.peer;
        this.#attempt = undefined;
        this.#current = client;
        this.#dispatch();
      },
      onRoom: () => {
        if (this.#waiting.size > 0 && this.#current === client) this.#dispatch();
      },
      onFarewell: () => {
        if (this.#current !== client) return;
        this.#current = undefined;
        if (this.#waiting.size > 0) this.#connect();
      },
      onQuiet: () => this.#onQuiet(),
      onBroken: (error) => {
        this.#connections.delete(client);
        if (readyMs === undefined) this.#attemptFailed(attempt, timer, error);
        else this.#onBroken(client, error, this.#clock.monotonicMs() - readyMs);
      },
    };
    const options = { connection, hello: this.#hello, limits: this.#limits, clock: this.#clock, events };
    const client = new ClientConnection(options);
    this.#connections.add(client);
    attempt.signal.addEventListener("abort", () => client.break(toHeadpondError(attempt.signal.reason)), {
      once: true,
    });
  }

  #attemptFailed(attempt: AbortController, timer: Timer, error: unknown): void {
    timer.clear();
    if (this.#attempt !== attempt) return;
    this.#quietTimer?.clear();
    this.#attempt = undefined;
    const { code, message, retryable } = error instanceof HeadpondError ? error : unreachable(error);
    this.#refuseWaiting(new HeadpondError(code, `${this.#name}: ${message}`, { cause: error, retryable }));
  }

  /** A connection that breaks before it has been of use is like one that cannot be made. */
  #onBroken(client: ClientConnection, error: HeadpondError, livedMs: number): void {
    if (!this.#closed) this.#logger.debug("rpc connection lost", { server: this.#name, error: error.message });
    if (this.#current !== client) return;
    this.#current = undefined;
    if (client.hasAnswered || livedMs >= this.#limits.backoffMaxMs) {
      this.#failures = 0;
      this.#retryAtMs = Number.NEGATIVE_INFINITY;
      if (this.#waiting.size > 0) this.#connect();
    } else {
      this.#refuseWaiting(error);
    }
  }

  #refuseWaiting(error: HeadpondError): void {
    const { backoffMinMs, backoffMaxMs } = this.#limits;
    const backoffMs = Math.min(backoffMaxMs, backoffMinMs * 2 ** Math.min(this.#failures, 20));
    this.#failures++;
    this.#lastError = error;
    this.#retryAtMs = this.#clock.monotonicMs() + backoffMs * (0.5 + this.#random.float() / 2);
    for (const call of [...this.#waiting]) {
      const options = { cause: error, retryable: error.retryable };
      call.fail(new HeadpondError(error.code, `${call.methodName}: ${error.message}`, options));
    }
  }

  /** Ends the connection; calls that are outstanding fail as `unavailable`. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const error = new HeadpondError("unavailable", "the client was closed");
    this.#attempt?.abort(error);
    this.#current = undefined;
    for (const connection of [...this.#connections]) connection.break(error);
    this.#refuseWaiting(error);
    this.#waitingDeadlines.close();
  }
}

const codecsOfMethods = new WeakMap<AnyMethod, MethodCodecs>();

function codecsOf(method: AnyMethod): MethodCodecs {
  let codecs = codecsOfMethods.get(method);
  if (codecs === undefined) {
    codecs = {
      request: codecOf(method.request),
      answer: codecOf(method.kind === "unary" ? method.reply : method.item),
    };
    codecsOfMethods.set(method, codecs);
  }
  return codecs;
}

function unreachable(error: unknown): HeadpondError {
  const { message } = error instanceof Error ? error : new Error(String(error));
  return new HeadpondError("unavailable", message === "" ? "cannot connect" : message, { cause: error });
}
