/** What a Raft journal is made of. */

import type { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import type { NodeId } from "../raft/types.ts";
import type { StateMachine } from "./journal.ts";
import type { Peers } from "./peers.ts";
import type { RaftJournalLimits } from "./raft-limits.ts";

export type RaftJournalOptions<Result> = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** As made by `formatJournal` with `raft`. */
  readonly directory: string;
  /** If given, the journal must be this cluster's. */
  readonly clusterId?: ClusterId;
  /** Must be the one that the directory was formatted for. */
  readonly id: NodeId;
  readonly machine: StateMachine<Result>;
  readonly peers: Peers;
  readonly random: Random;
  /** Where clients and workers find this master; empty while that is not known. */
  readonly addresses: () => { readonly rpc: string; readonly http: string };
  readonly limits?: Partial<RaftJournalLimits>;
  /**
   * The journal takes the place of another one at this moment, on a disk that has promised nothing in it yet: votes need not wait for the end of
   * leases that an earlier life may have granted, and who led the old one stands for election as soon as a majority is connected.
   */
  readonly succession?: "led" | "followed" | undefined;
  /** Told to the other masters. */
  readonly software?: string;
  readonly featureLevel?: number;
  /** The id of this boot of the computer; by default the kernel is asked. */
  readonly bootId?: string;
  /** Called once, when the log or the state can no longer be trusted: the process should end, and not by `close`. */
  readonly onFatal: (error: HeadpondError) => void;
  /** The state differs from the other masters': this one serves and leads no more, until it is repaired. */
  readonly onDiverged?: (details: string) => void;
  /** Another master does not accept this one, e.g. because it knows it with another disk. */
  readonly onRefused?: (id: NodeId, reason: string) => void;
};
