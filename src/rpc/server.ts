/**
 * The server of one service: connections of clients in, answers of handlers out. It bounds everything that a client can
 * make it hold, refuses work beyond its limits as `overloaded`, and closes gracefully: what is under way is finished, new
 * requests are refused as `unavailable`.
 *
 * Handlers of unary methods may answer at once, without a promise: that is a third of the cost of a request.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import type { Address, Connection, Listener, Network } from "../io/network.ts";
import { codecOf } from "./codec.ts";
import { agree, type ClientHello, type PeerInfo, type ServerHello } from "./hello.ts";
import type { ItemOf, Method, Methods, ReplyOf, RequestOf, Service } from "./method.ts";
import type { RequestContext } from "./server-call.ts";
import { ServerConnection } from "./server-connection.ts";
import type { ConnectionLimits, ServerHost, ServerMethod } from "./server-host.ts";
import { rpcServerMetrics } from "./server-metrics.ts";

export type { RequestContext } from "./server-call.ts";

/** One function per method: `(request, context)` to a reply (or a promise of one), or to items. */
export type Handlers<M extends Methods> = {
  readonly [K in keyof M]: M[K] extends Method<unknown, unknown>
    ? (request: RequestOf<M[K]>, context: RequestContext) => ReplyOf<M[K]> | Promise<ReplyOf<M[K]>>
    : (request: RequestOf<M[K]>, context: RequestContext) => AsyncIterable<ItemOf<M[K]>>;
};

export type ServerLimits = ConnectionLimits & {
  readonly connectionsMax: number;
  /** Requests under way on all connections; beyond, they are refused as `overloaded`. */
  readonly requestsMax: number;
  /** Streams, likewise: most are open for as long as their clients live, and must not take the place of requests. */
  readonly streamsMax: number;
  /** What a refused client is told to wait. */
  readonly retryAfterMs: number;
  /** How often silent and slow clients are looked for. */
  readonly sweepIntervalMs: number;
  /** How long `close` waits for what is under way. */
  readonly closeGraceMs: number;
};

export const defaultServerLimits: ServerLimits = {
  connectionsMax: 40_000,
  requestsMax: 16_384,
  streamsMax: 65_536,
  requestsPerConnectionMax: 2_048,
  streamsPerConnectionMax: 256,
  requestFrameBytesMax: 16 * 1024 * 1024,
  queuedBytesMax: 4 * 1024 * 1024,
  retryAfterMs: 100,
  helloTimeoutMs: 10_000,
  idleTimeoutMs: 60_000,
  slowClientTimeoutMs: 30_000,
  sweepIntervalMs: 1_000,
  closeGraceMs: 5_000,
};

export type RpcServerOptions<M extends Methods> = {
  readonly service: Service<M>;
  readonly handlers: Handlers<M>;
  readonly self: PeerInfo;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics;
  readonly limits?: Partial<ServerLimits>;
};

export class RpcServer<M extends Methods = Methods> {
  readonly #limits: ServerLimits;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #service: Service;
  readonly #self: PeerInfo;
  readonly #host: ServerHost;
  readonly #connections = new Set<ServerConnection>();
  readonly #listeners: Listener[] = [];
  readonly #numbers: Readonly<Record<string, number>>;
  readonly #underWay = { unary: 0, stream: 0 };
  #sweep: Timer | undefined;
  #closing: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  constructor(options: RpcServerOptions<M>) {
    const { service, handlers, self, clock, logger } = options;
    this.#limits = { ...defaultServerLimits, ...options.limits };
    this.#clock = clock;
    this.#logger = logger;
    this.#service = service;
    this.#self = self;
    const methods = Object.entries(service.methods).map(([key, method]): ServerMethod => {
      const handler = (handlers as Record<string, unknown>)[key] as ServerMethod["handler"];
      const answer = codecOf(method.kind === "unary" ? method.reply : method.item);
      return { name: method.name, kind: method.kind, request: codecOf(method.request), answer, handler };
    });
    this.#numbers = Object.fromEntries(methods.map((method, number) => [method.name, number]));
    const metrics = options.metrics === undefined ? undefined : rpcServerMetrics(options.metrics);
    const answered = metrics?.add(service.name, this) ?? (() => {});
    this.#host = {
      limits: this.#limits,
      clock,
      logger,
      methods,
      welcome: (hello) => this.#welcome(hello),
      admit: (kind) => this.#admit(kind),
      release: (kind) => this.#release(kind),
      answered,
    };
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /** Requests and streams whose handlers run. */
  get requestsUnderWay(): number {
    return this.#underWay.unary + this.#underWay.stream;
  }

  /** Listens until `close`; returns the address, which names the port when 0 was asked for. */
  async listen(network: Network, address: Address): Promise<Address> {
    const listener = await network.listen(address, (connection) => this.accept(connection));
    this.#listeners.push(listener);
    return listener.address;
  }

  /** Serves a connection, whose first bytes are still to come. */
  accept(connection: Connection): void {
    if (this.#closing !== undefined || this.#connections.size >= this.#limits.connectionsMax) {
      const reason = this.#closing === undefined ? "too many connections" : "the server is closing";
      this.#logger.warn("rpc connection refused", { remote: connection.remote, reason });
      connection.destroy();
      return;
    }
    this.#connections.add(new ServerConnection(connection, this.#host, (gone) => this.#connections.delete(gone)));
    this.#sweep ??= this.#clock.timer(this.#limits.sweepIntervalMs, () => this.#sweepConnections());
  }

  /** Refuses new work, lets what is under way finish for `closeGraceMs`, then ends all connections. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.all(this.#listeners.map((listener) => listener.close()));
    for (const connection of this.#connections) connection.sayFarewell();
    if (this.requestsUnderWay > 0) {
      const grace = new AbortController();
      const idle = new Promise<void>((resolve) => (this.#onIdle = resolve));
      const waited = this.#clock.sleep(this.#limits.closeGraceMs, grace.signal).catch(() => {});
      await Promise.race([idle, waited]);
      grace.abort();
    }
    this.#sweep?.clear();
    for (const connection of [...this.#connections]) connection.end();
  }

  #sweepConnections(): void {
    this.#sweep = undefined;
    const nowMs = this.#clock.monotonicMs();
    for (const connection of this.#connections) connection.sweep(nowMs);
    if (this.#connections.size === 0) return;
    this.#sweep = this.#clock.timer(this.#limits.sweepIntervalMs, () => this.#sweepConnections());
  }

  #welcome(hello: ClientHello): ServerHello {
    const protocol = agree(hello, this.#service, this.#self);
    return {
      protocol,
      service: this.#service.name,
      serviceVersion: this.#service.version,
      methods: this.#numbers,
      frameBytesMax: this.#limits.requestFrameBytesMax,
      requestsMax: this.#limits.requestsPerConnectionMax,
      streamsMax: this.#limits.streamsPerConnectionMax,
      peer: this.#self,
    };
  }

  #admit(kind: ServerMethod["kind"]): void {
    if (this.#closing !== undefined) {
      throw new HeadpondError("unavailable", `${this.#self.role} ${this.#self.name} is closing: ask another`);
    }
    const { requestsMax, streamsMax, retryAfterMs } = this.#limits;
    const max = kind === "unary" ? requestsMax : streamsMax;
    if (this.#underWay[kind] >= max) {
      const what = kind === "unary" ? "requests" : "streams";
      throw new HeadpondError(
        "overloaded",
        `${this.#self.role} ${this.#self.name} has ${max} ${what} under way: try again in ${retryAfterMs} ms`,
        { details: { retryAfterMs } },
      );
    }
    this.#underWay[kind]++;
  }

  #release(kind: ServerMethod["kind"]): void {
    this.#underWay[kind]--;
    if (this.requestsUnderWay === 0) this.#onIdle?.();
  }
}
