/** Limits of a master in one place: its own, and those of its parts where they are not the parts' defaults. */

import type { DeadVersionLimits } from "./dead-versions.ts";
import type { EventLimits } from "./events.ts";
import type { HousekeepingLimits } from "./housekeeping.ts";
import type { IntentLimits } from "./intents.ts";
import type { JobRunLimits } from "./job-run.ts";
import type { UpkeepLimits } from "./job-upkeep.ts";
import type { JobLimits } from "./jobs.ts";
import type { SyncLimits } from "./sync.ts";
import type { WorkerRegistryLimits } from "./worker-registry.ts";

export type MasterLimits = {
  /** A master that began to listen less than this ago waits for workers to register before it makes plans or lists of them. */
  readonly settleMs: number;
  /** Changes of the list of workers are sent together, this long after the first. */
  readonly listDelayMs: number;
  /** A leader that stops waits so long for another one to take over. */
  readonly handOverMs: number;
  readonly workers: Partial<WorkerRegistryLimits>;
  readonly sync: Partial<SyncLimits>;
  readonly intents: Partial<IntentLimits>;
  readonly jobs: Partial<JobLimits>;
  readonly jobRuns: Partial<JobRunLimits>;
  readonly upkeep: Partial<UpkeepLimits>;
  readonly housekeeping: Partial<HousekeepingLimits>;
  readonly deadVersions: Partial<DeadVersionLimits>;
  readonly events: Partial<EventLimits>;
};

export const masterLimits: MasterLimits = {
  settleMs: 1000,
  listDelayMs: 50,
  handOverMs: 3000,
  workers: {},
  sync: {},
  intents: {},
  jobs: {},
  jobRuns: {},
  upkeep: {},
  housekeeping: {},
  deadVersions: {},
  events: {},
};
