/** What a worker is made of and where it listens, and which id it has. */

import type { WorkerId } from "../base/ids.ts";
import type { Place } from "../base/place.ts";
import type { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { FileSender } from "../io/file-sender.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import type { Address } from "../io/network.ts";
import type { BlockCache } from "./block-cache.ts";
import type { MasterConnection } from "./master-link.ts";
import type { OpenUnderStore } from "./under-stores.ts";
import type { WorkerLimits } from "./worker-limits.ts";

export type WorkerOptions = {
  /** Absent: the one kept in the first cache directory, or drawn from the incarnation and kept there. */
  readonly id?: WorkerId;
  /** Drawn at random at each start, at least 8 characters. */
  readonly incarnation: string;
  readonly place: Place;
  readonly directories: readonly { readonly path: string; readonly capacityBytes: number }[];
  readonly disk: Disk;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** One for each master that is known (`RpcMaster`), named by its address. The worker closes them. */
  readonly masters: readonly MasterConnection[];
  /** Makes one for another master, of which those tell; absent: they are all. */
  readonly connectMaster?: (address: string) => MasterConnection;
  readonly openUnderStore: OpenUnderStore;
  /** Where the data port listens. Port 0: any. */
  readonly data: Address;
  /** Where health, metrics and status listen. */
  readonly http: Address;
  /** The host that others reach this worker by. Absent: that of the data port. */
  readonly advertisedHost?: string;
  /** `host:port` of the gateways that run beside this worker. */
  readonly gateways?: () => Readonly<Record<string, string>>;
  /** Threads that move bytes, where the system has them; they stay their maker's. */
  readonly sender?: FileSender | undefined;
  /** Release of the software. */
  readonly software: string;
  readonly limits?: Partial<WorkerLimits>;
};

/** The given one, or the one that is kept; kept from now on in all directories. */
export async function resolveId({ id, incarnation }: WorkerOptions, cache: BlockCache): Promise<WorkerId> {
  const kept = cache.directories.find((directory) => directory.identity.workerId !== undefined)?.identity.workerId;
  const chosen = id ?? kept ?? `worker-${incarnation.slice(0, 8)}`;
  for (const directory of cache.directories) {
    if (directory.state === "failed" || directory.identity.workerId === chosen) continue;
    await directory.setIdentity({ ...directory.identity, workerId: chosen });
  }
  return chosen as WorkerId;
}
