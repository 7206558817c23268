/**
 * One port for two protocols: HTTP and the framed RPC. The first bytes of a connection tell them apart: HTTP begins with
 * a method, and no frame does.
 */

import net from "node:net";
import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "./clock.ts";
import type { HttpServer } from "./http-server.ts";
import type { Address, Connection, Listener } from "./network.ts";
import { TcpConnection } from "./tcp-connection.ts";
import { boundAddress, listenOn } from "./tcp-network.ts";

const methods = ["GET ", "HEAD ", "PUT ", "POST ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE "];

export type SharedPortOptions = {
  readonly http: HttpServer;
  /** Every connection that does not speak HTTP. Its first bytes arrive through `onData` like all others. */
  readonly onConnection: (connection: Connection) => void;
  readonly clock: Clock;
  /** How long a connection may say nothing at first. */
  readonly firstByteTimeoutMs?: number;
  readonly connectionsMax?: number;
  readonly reusePort?: boolean;
};

/** Closing the listener stops accepting; connections and the HTTP server live on. */
export async function listenShared(address: Address, options: SharedPortOptions): Promise<Listener> {
  const { http, onConnection, clock, firstByteTimeoutMs = 20_000 } = options;
  const undecided = new Set<net.Socket>();
  const server = net.createServer({ noDelay: true }, (socket) => {
    const timer = clock.timer(firstByteTimeoutMs, () => {
      socket.destroy(new HeadpondError("timeout", `nothing came for ${firstByteTimeoutMs} ms`));
    });
    const onError = (): void => void socket.destroy();
    let first = Buffer.alloc(0);
    undecided.add(socket);
    const decided = (): void => {
      timer.clear();
      undecided.delete(socket);
      socket.off("readable", onReadable);
      socket.off("close", decided);
      socket.off("error", onError);
    };
    const onReadable = (): void => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      first = Buffer.concat([first, chunk]);
      const verdict = speaksHttp(first);
      if (verdict === undefined) return;
      decided();
      socket.unshift(first);
      if (verdict) http.handleConnection(socket);
      else onConnection(new TcpConnection(socket));
    };
    socket.on("error", onError);
    socket.on("close", decided);
    socket.on("readable", onReadable);
  });
  server.maxConnections = options.connectionsMax ?? 20_000;
  await listenOn(server, { ...address, reusePort: options.reusePort ?? false });
  return {
    address: boundAddress(server),
    close: async () => {
      server.close();
      for (const socket of undecided) socket.destroy();
    },
  };
}

/** `undefined`: too few bytes to tell. */
function speaksHttp(first: Uint8Array): boolean | undefined {
  const text = Buffer.from(first.buffer, first.byteOffset, Math.min(first.length, 8)).toString("latin1");
  if (methods.some((method) => text.startsWith(method.slice(0, 8)))) return true;
  return methods.some((method) => method.startsWith(text)) ? undefined : false;
}
