/**
 * A thin HTTP/1.1 server over node:http, for admin pages, gateways and blocks. It owns limits, timeouts, the translation
 * of errors and an orderly end; what a path means is the handler's business. Connections come from its own port
 * (`listen`) or from a port that several protocols share (`handleConnection`).
 */

import http from "node:http";
import type net from "node:net";
import { errorTable, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock } from "./clock.ts";
import { defaultHttpLimits, type HttpLimits } from "./http-limits.ts";
import { HttpRequest } from "./http-request.ts";
import { HttpResponse } from "./http-response.ts";
import type { Logger } from "./logger.ts";
import type { Address } from "./network.ts";
import { boundAddress, listenOn } from "./tcp-network.ts";

export type { HttpLimits } from "./http-limits.ts";

export type HttpHandler = (request: HttpRequest, response: HttpResponse) => Promise<void>;

export type HttpServerOptions = {
  readonly handler: HttpHandler;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits?: Partial<HttpLimits>;
};

export class HttpServer {
  readonly #server: http.Server;
  readonly #handler: HttpHandler;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #limits: HttpLimits;
  readonly #sockets = new Set<net.Socket>();
  /** The last response of each connection. */
  readonly #last = new WeakMap<net.Socket, http.ServerResponse>();
  #activeCount = 0;
  #closing = false;
  #onIdle: () => void = () => {};

  constructor(options: HttpServerOptions) {
    this.#handler = options.handler;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#limits = { ...defaultHttpLimits, ...options.limits };
    this.#server = http.createServer(
      {
        maxHeaderSize: this.#limits.headerBytesMax,
        headersTimeout: this.#limits.headersTimeoutMs,
        // A large body may take hours: what is bounded is its pauses (`bodyTimeoutMs`), not its length in time.
        requestTimeout: 0,
        keepAliveTimeout: this.#limits.idleTimeoutMs,
        connectionsCheckingInterval: Math.min(5000, this.#limits.headersTimeoutMs),
        noDelay: true,
        keepAlive: true,
      },
      (request, response) => void this.#serve(request, response),
    );
    this.#server.maxConnections = this.#limits.connectionsMax;
    this.#server.on("connection", (socket: net.Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
  }

  /** Port 0: any free one. `reusePort`: several threads or processes share it, and the kernel deals connections out. */
  async listen(address: Address, options: { readonly reusePort?: boolean } = {}): Promise<Address> {
    await listenOn(this.#server, { ...address, ...options });
    return boundAddress(this.#server);
  }

  /** Serves HTTP on a connection that somebody else accepted; bytes already read must have been unshifted. */
  handleConnection(socket: net.Socket): void {
    if (this.#closing) {
      socket.destroy();
      return;
    }
    // node:http begins to watch its timeouts when it listens, which a server behind a shared port never does itself.
    if (!this.#server.listening && this.#sockets.size === 0) this.#server.emit("listening");
    this.#server.emit("connection", socket);
  }

  get connectionCount(): number {
    return this.#sockets.size;
  }

  /** Accepts nothing new, lets running requests finish for at most `graceMs`, then cuts what is left. */
  async close(graceMs = 5000): Promise<void> {
    this.#closing = true;
    // A server that never listened says so as an error here, and has stopped its timers all the same.
    const stopped = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    if (this.#activeCount > 0) {
      await new Promise<void>((resolve) => {
        const timer = this.#clock.timer(graceMs, resolve);
        this.#onIdle = () => {
          timer.clear();
          resolve();
        };
      });
    }
    const cut = [...this.#sockets].map((socket) => new Promise((resolve) => socket.once("close", resolve)));
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all([stopped, ...cut]);
  }

  async #serve(incoming: http.IncomingMessage, outgoing: http.ServerResponse): Promise<void> {
    const request = new HttpRequest(incoming, outgoing, this.#limits, this.#clock);
    const response = new HttpResponse(request, outgoing, this.#limits, this.#clock);
    const before = this.#last.get(incoming.socket);
    this.#last.set(incoming.socket, outgoing);
    this.#activeCount++;
    if (this.#closing) outgoing.shouldKeepAlive = false;
    // A client may ask again before it has been answered to the end. Each answer has the connection to itself, and is not kept in memory meanwhile.
    if (outgoing.socket === null && before !== undefined && !before.closed) {
      await new Promise<void>((resolve) => before.once("close", () => resolve()));
      if (incoming.socket.destroyed) {
        // There is nobody left to answer; such a response never gets a connection, and never closes.
        this.#requestDone();
        return;
      }
    }
    try {
      await this.#handler(request, response);
      if (!response.ended) throw new Error("the handler returned without ending the response");
    } catch (error) {
      this.#answerError(request, response, error);
    } finally {
      // Not before the last byte is with the kernel: `close` would cut it off.
      if (outgoing.closed) this.#requestDone();
      else outgoing.once("close", () => this.#requestDone());
    }
  }

  #requestDone(): void {
    this.#activeCount--;
    if (this.#activeCount === 0) this.#onIdle();
  }

  #answerError(request: HttpRequest, response: HttpResponse, thrown: unknown): void {
    const error = toHeadpondError(thrown);
    if (!isHeadpondError(thrown) && error.code === "internal") {
      this.#logger.error("a request failed", { method: request.method, path: request.path, error: thrown });
    }
    // Once the status is out, the only honest answer left is a broken connection: the client sees a short body.
    if (response.headSent) response.destroy();
    else response.error(error, errorTable[error.code].httpStatus);
  }
}
