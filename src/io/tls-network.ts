/**
 * TCP with TLS, as a door like the plain one: who connects checks the other side's certificate, always, and shows its own if it has one; who listens
 * may ask for one. Keys and certificates come as PEM. Leaves out renewal while it runs: a new certificate is for new connections of a new network.
 */

import net from "node:net";
import tls from "node:tls";
import type { Address, Connection, Listener, Network } from "./network.ts";
import { TcpConnection } from "./tcp-connection.ts";
import { boundAddress, listenOn } from "./tcp-network.ts";

export type TlsNetworkOptions = {
  /** Certificates that the other side's must come from; those of the system, if absent. */
  readonly ca?: string | undefined;
  /** Own certificate, with its chain, and key: who listens needs them. */
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
  /** What the certificate must be for, where it is not the host that is connected to. */
  readonly serverName?: string | undefined;
  /** Who connects must show a certificate that comes from `ca`. */
  readonly asksForCertificates?: boolean;
};

export class TlsNetwork implements Network {
  readonly #options: TlsNetworkOptions;

  constructor(options: TlsNetworkOptions) {
    this.#options = options;
  }

  connect({ host, port }: Address, signal?: AbortSignal): Promise<Connection> {
    const { ca, certificate, key, serverName = host } = this.#options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const socket = tls.connect({
        host,
        port,
        ...(ca === undefined ? {} : { ca }),
        ...(certificate === undefined ? {} : { cert: certificate }),
        ...(key === undefined ? {} : { key }),
        // An address cannot be a name on the wire; it is checked all the same.
        ...(net.isIP(serverName) === 0 ? { servername: serverName } : {}),
        checkServerIdentity: (_name, seen) => tls.checkServerIdentity(serverName, seen),
        minVersion: "TLSv1.2",
      });
      const settled = (): void => {
        signal?.removeEventListener("abort", onAbort);
        socket.off("error", onError);
        socket.off("close", onClose);
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
      const onClose = (): void => onError(new Error(`${host}:${port} ended the connection before it was secure`));
      signal?.addEventListener("abort", onAbort, { once: true });
      socket.once("error", onError);
      socket.once("close", onClose);
      socket.once("secureConnect", () => {
        settled();
        resolve(new TcpConnection(socket));
      });
    });
  }

  async listen(address: Address, onConnection: (connection: Connection) => void): Promise<Listener> {
    const { ca, certificate, key, asksForCertificates = false } = this.#options;
    const server = tls.createServer({
      ...(ca === undefined ? {} : { ca }),
      ...(certificate === undefined ? {} : { cert: certificate }),
      ...(key === undefined ? {} : { key }),
      requestCert: asksForCertificates,
      rejectUnauthorized: asksForCertificates,
      minVersion: "TLSv1.2",
    });
    server.on("secureConnection", (socket) => onConnection(new TcpConnection(socket)));
    // Who is refused costs a connection.
    server.on("tlsClientError", () => {});
    await listenOn(server, address);
    return { address: boundAddress(server), close: async () => void server.close() };
  }
}
