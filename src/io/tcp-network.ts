/**
 * The real network: TCP over node:net. A peer that vanished is noticed by keep-alive probes; one that is there but does
 * not answer is the business of whoever waits for an answer.
 */

import net from "node:net";
import type { Address, Connection, Listener, Network } from "./network.ts";
import { TcpConnection } from "./tcp-connection.ts";

export type TcpLimits = {
  /** Open connections of one listener; more are closed at once. */
  readonly connectionsMax: number;
  /** Bytes queued on one connection before `write` answers false. */
  readonly writeBufferBytes: number;
};

const defaultLimits: TcpLimits = { connectionsMax: 20_000, writeBufferBytes: 256 * 1024 };

export class TcpNetwork implements Network {
  readonly #limits: TcpLimits;
  readonly #reusePort: boolean;

  /** `reusePort`: several threads or processes listen on one port, and the kernel deals connections out (Linux). */
  constructor(options: { readonly limits?: Partial<TcpLimits>; readonly reusePort?: boolean } = {}) {
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#reusePort = options.reusePort ?? false;
  }

  connect(address: Address, signal?: AbortSignal): Promise<Connection> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      // Node hands `highWaterMark` on to the stream, though its types do not say so.
      const options = { host: address.host, port: address.port, highWaterMark: this.#limits.writeBufferBytes };
      const socket = net.connect(options);
      const settled = (): void => {
        signal?.removeEventListener("abort", onAbort);
        socket.off("error", onError);
      };
      const onAbort = (): void => {
        settled();
        socket.on("error", () => {});
        socket.destroy();
        reject(signal?.reason as Error);
      };
      const onError = (error: Error): void => {
        settled();
        reject(error);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      socket.once("error", onError);
      socket.once("connect", () => {
        settled();
        resolve(new TcpConnection(socket));
      });
    });
  }

  async listen(address: Address, onConnection: (connection: Connection) => void): Promise<Listener> {
    const server = net.createServer({ highWaterMark: this.#limits.writeBufferBytes }, (socket) => {
      onConnection(new TcpConnection(socket));
    });
    server.maxConnections = this.#limits.connectionsMax;
    await listenOn(server, { ...address, reusePort: this.#reusePort });
    return { address: boundAddress(server), close: async () => void server.close() };
  }
}

/** Resolves when `server` listens; rejects with Node's `code` (`EADDRINUSE`, ...). */
export function listenOn(server: net.Server, options: net.ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ backlog: 4096, ...options }, () => {
      server.off("error", reject);
      // Later errors (out of descriptors on accept) cost one connection, not the process.
      server.on("error", () => {});
      resolve();
    });
  });
}

export function boundAddress(server: net.Server): Address {
  const { address, port } = server.address() as net.AddressInfo;
  return { host: address, port };
}
