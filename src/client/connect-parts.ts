/** From the options of `connect` to the parts of a client in the real world: the one place where the SDK chooses its doors. */

import type { WorkerAddress } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import { type Place, parsePlace } from "../base/place.ts";
import type { Clock } from "../io/clock.ts";
import { HttpClient } from "../io/http-client.ts";
import { type Logger, silentLogger } from "../io/logger.ts";
import type { Network } from "../io/network.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { parseAddress } from "../rpc/address.ts";
import { ClusterClient } from "../rpc/cluster-client.ts";
import { masterService } from "../rpc/master-service.ts";
import type { DataPort } from "./data-port.ts";
import { LocalDataPort, type LocalReader } from "./local-data-port.ts";
import { type MasterCalls, withCheckedPaths } from "./master-calls.ts";
import { WorkerDataPort } from "./worker-data-port.ts";

export type ConnectOptions = {
  /** `host:port` of the masters' RPC, in any order; or all of them in one text, separated by commas. */
  readonly masters: readonly string[] | string;
  /** Not served yet: refused. */
  readonly token?: string;
  /** Not served yet: refused. */
  readonly tls?: unknown;
  /** Where this program runs, `cloud/region/zone/host`: its own host's worker is asked first, then near ones. */
  readonly place?: string;
  /** False: talk to the first master only and follow no redirect (tools, tests). */
  readonly follow?: boolean;
  /** When no master can be reached, answer reads from the last known answers instead of failing. Off by default. */
  readonly staleOnUnavailable?: boolean;
  /** This worker before all others: a gateway's own. */
  readonly preferredWorker?: WorkerAddress;
  /** How long a call may take, all attempts included, unless it says otherwise. Default 30 s. */
  readonly timeoutMs?: number;
  /** Bytes of `preferredWorker` without a socket in between: the worker of the same process. */
  readonly localReader?: LocalReader;
  /** What the masters call this client in their logs. */
  readonly clientName?: string;
  readonly logger?: Logger;
  readonly clock?: Clock;
  readonly network?: Network;
};

/** What the client is made of; `connect` fills it with the real world. */
export type ClientParts = {
  readonly masters: MasterCalls;
  readonly dataPort: DataPort;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly place?: Place | undefined;
  /** Asked before all other workers, and when no master tells of any: a gateway's own. */
  readonly preferredWorker?: WorkerAddress | undefined;
  readonly staleOnUnavailable?: boolean | undefined;
  readonly clientName?: string | undefined;
};

export function connectParts(options: ConnectOptions): ClientParts {
  if (options.tls !== undefined) {
    throw new HeadpondError(
      "unsupported",
      "tls is not served yet: leave it out, and keep the cluster on a private network",
    );
  }
  if (options.token !== undefined) {
    throw new HeadpondError(
      "unsupported",
      "token is not served yet: leave it out, and keep the cluster on a private network",
    );
  }
  const { masters } = options;
  const texts = typeof masters === "string" ? masters.split(",") : masters;
  const addresses = texts.filter((text) => text.trim() !== "").map((text) => parseAddress(text.trim()));
  if (addresses.length === 0) throw new HeadpondError("invalid", "masters is empty: name at least one host:port");
  const clock = options.clock ?? new NodeClock();
  const network = options.network ?? new TcpNetwork();
  const logger = options.logger ?? silentLogger;
  const { localReader, preferredWorker } = options;
  if (localReader !== undefined && preferredWorker === undefined) {
    throw new HeadpondError("invalid", "localReader needs preferredWorker: whose bytes it reads");
  }
  const others = new WorkerDataPort({ http: new HttpClient({ clock }), network, clock, logger });
  const dataPort =
    localReader === undefined || preferredWorker === undefined
      ? others
      : new LocalDataPort({ address: preferredWorker.data, reader: localReader, others });
  const clientName = options.clientName ?? "headpond-sdk";
  return {
    masters: withCheckedPaths(
      new ClusterClient({
        network,
        addresses,
        follow: options.follow ?? true,
        ...(options.timeoutMs === undefined ? {} : { limits: { timeoutMs: options.timeoutMs } }),
        service: masterService,
        mastersMethod: masterService.methods.masters,
        self: { software: "headpond", role: "client", name: clientName },
        clock,
        logger,
      }),
    ),
    dataPort,
    clock,
    logger,
    clientName,
    place: options.place === undefined ? undefined : parsePlace(options.place),
    preferredWorker,
    staleOnUnavailable: options.staleOnUnavailable,
  };
}
