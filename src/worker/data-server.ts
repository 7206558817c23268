/**
 * The data port: HTTP for bulk and the framed RPC for small reads, on one port. What it answers is the contract in
 * rpc/worker-service.ts.
 */

import { HeadpondError } from "../base/errors.ts";
import type { WorkerId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpResponse } from "../io/http-response.ts";
import { type HttpLimits, HttpServer } from "../io/http-server.ts";
import type { Logger } from "../io/logger.ts";
import type { Address, Listener } from "../io/network.ts";
import { listenShared } from "../io/shared-port.ts";
import { type Handlers, RpcServer } from "../rpc/server.ts";
import { type WorkerMethods, workerService } from "../rpc/worker-service.ts";
import type { Claims } from "./claims.ts";
import type { FileRoutes } from "./file-routes.ts";
import type { ObjectRoutes } from "./object-routes.ts";
import type { PeerRoutes } from "./peer-routes.ts";

export type DataServerOptions = {
  readonly workerId: WorkerId;
  readonly software: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly files: FileRoutes;
  readonly peers: PeerRoutes;
  readonly objects: ObjectRoutes;
  readonly claims: Pick<Claims, "serve">;
  readonly rpc: Handlers<WorkerMethods>;
  readonly connectionsMax: number;
  readonly httpLimits?: Partial<HttpLimits>;
};

export class DataServer {
  readonly #options: DataServerOptions;
  readonly #http: HttpServer;
  readonly #rpc: RpcServer<WorkerMethods>;
  #listener: Listener | undefined;

  constructor(options: DataServerOptions) {
    const { clock, logger } = options;
    this.#options = options;
    this.#http = new HttpServer({
      clock,
      logger,
      handler: (request, response) => this.#serve(request, response),
      ...(options.httpLimits === undefined ? {} : { limits: options.httpLimits }),
    });
    this.#rpc = new RpcServer({
      service: workerService,
      handlers: options.rpc,
      self: { software: options.software, role: "worker", name: options.workerId },
      clock,
      logger,
    });
  }

  /** Port 0: any free one. */
  async listen(address: Address): Promise<Address> {
    this.#listener = await listenShared(address, {
      http: this.#http,
      onConnection: (connection) => this.#rpc.accept(connection),
      clock: this.#options.clock,
      connectionsMax: this.#options.connectionsMax,
    });
    return this.#listener.address;
  }

  get connectionCount(): number {
    return this.#http.connectionCount + this.#rpc.connectionCount;
  }

  async close(graceMs: number): Promise<void> {
    await this.#listener?.close();
    await Promise.all([this.#http.close(graceMs), this.#rpc.close()]);
  }

  async #serve(request: HttpRequest, response: HttpResponse): Promise<void> {
    const { files, peers, objects, claims } = this.#options;
    const { method } = request;
    const [empty, version, kind, first, second, ...rest] = request.path.split("/");
    const isRead = method === "GET" || method === "HEAD";
    if (empty === "" && version === "v1" && rest.length === 0) {
      if (kind === "files" && isRead && first !== undefined && second === undefined) {
        return files.serve(request, response, first);
      }
      if (kind === "blocks" && method === "GET" && first !== undefined && second !== undefined) {
        return peers.serveBlock(request, response, first, second);
      }
      if (kind === "holdings" && method === "GET" && first !== undefined && second === undefined) {
        return peers.serveHoldings(response, first);
      }
      if (kind === "claims" && method === "POST" && first !== undefined && second === undefined) {
        return claims.serve(request, response, first);
      }
      if (kind === "objects" && method === "PUT" && first !== undefined && second === undefined) {
        return objects.serve(request, response, first);
      }
      if (kind === "alive" && isRead && first === undefined) return response.empty(204);
    }
    throw new HeadpondError("not-found", `${method} ${request.path.slice(0, 200)}: there is nothing here`);
  }
}
