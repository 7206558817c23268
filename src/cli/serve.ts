/** What the roles share when they are wired to the real world: doors, and what a running role tells of itself. */

import type { Config } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Network } from "../io/network.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { createLogger, type LeveledLogger } from "../io/pino-logger.ts";
import { TcpNetwork } from "../io/tcp-network.ts";

export type Doors = {
  readonly clock: Clock;
  /** Of files that users may see: under stores, the block cache. */
  readonly disk: Disk;
  /** Of what a master keeps: it knows the secrets of all mounts. */
  readonly privateDisk: Disk;
  readonly network: Network;
  readonly logger: LeveledLogger;
  /** Ends the process at once, without any clean-up: the state on disk is right, the one in memory is not known to be. */
  readonly onFatal: (error: HeadpondError) => void;
};

/** A running role, or several in one process. */
export type Served = {
  readonly masters: readonly string[];
  readonly endpoints: Readonly<Record<string, string>>;
  readonly workers: readonly { readonly id: string; readonly place: string; readonly http: string }[];
  readonly directory: string;
  close(): Promise<void>;
};

const fatalExitCode = 70;

export function makeDoors(config: Config): Doors {
  const logger = createLogger({ level: config["log.level"] });
  return {
    clock: new NodeClock(),
    disk: new NodeDisk(),
    privateDisk: new NodeDisk({ isPrivate: true }),
    network: new TcpNetwork(),
    logger,
    onFatal: (error) => {
      logger.error("fatal: the process ends; start it again, it recovers from its journal", { error: error.toJSON() });
      process.exit(fatalExitCode);
    },
  };
}

/**
 * The host by which other machines reach a door of this master that listens on `listenHost`: what is configured, what the list
 * of founders calls it, or what it listens on. Throws `invalid` when that is a wildcard, which says nothing to them.
 */
export function reachedHost(listenHost: string, config: Config, setting: string): string {
  const told = config["master.advertise"] ?? config["journal.raft.members"][config["master.id"]]?.host;
  if (told !== undefined) return told;
  if (listenHost !== "0.0.0.0" && listenHost !== "::") return listenHost;
  throw new HeadpondError(
    "invalid",
    `${setting} is ${listenHost}, which other machines cannot connect to: set master.advertise to the name of this machine`,
  );
}

/** The host that others should use for a listener: a wildcard says nothing to them. */
export function advertisedHost(listenHost: string, advertise: string | undefined): string {
  if (advertise !== undefined) return advertise;
  return listenHost === "0.0.0.0" || listenHost === "::" ? "127.0.0.1" : listenHost;
}
