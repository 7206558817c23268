/** What a shared journal is made of. */

import type { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import type { Election } from "./election.ts";
import type { StateMachine } from "./journal.ts";
import type { SharedJournalLimits } from "./shared-limits.ts";
import type { SharedStore } from "./shared-store.ts";

export type SharedJournalOptions<Result> = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** As made by `formatSharedJournal`. */
  readonly directory: string;
  /** If given, the journal must be this cluster's. */
  readonly clusterId?: ClusterId;
  /** Must be the one that the directory was formatted for. */
  readonly id: string;
  readonly machine: StateMachine<Result>;
  /** Closed by whoever made it, after the journal. */
  readonly store: SharedStore;
  /** The journal starts and closes it. */
  readonly election: Election;
  readonly random: Random;
  readonly limits?: Partial<SharedJournalLimits>;
  /** The id of this boot of the computer; by default the kernel is asked. */
  readonly bootId?: string;
  /** Called once, when the log or the state can no longer be trusted: the process should end, and not by `close`. */
  readonly onFatal: (error: HeadpondError) => void;
  /** The state differs from the other masters': this one serves and leads no more, until it is repaired. */
  readonly onDiverged?: (details: string) => void;
};
