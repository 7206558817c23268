/** What an election by ZooKeeper is given, and its limits. */

import type { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import type { Network } from "../io/network.ts";
import type { Acl } from "../zookeeper/protocol.ts";
import type { ZooKeeper } from "../zookeeper/zookeeper.ts";
import type { Candidate } from "./election.ts";
import type { LeaderProbeLimits } from "./leader-probe.ts";

export type ZooKeeperElectionLimits = {
  /** At least so often the list is read without any event: for who is watched by somebody else. */
  readonly lookEveryMs: number;
  /** `start` waits so long for a first answer, to refuse what it can refuse at once. */
  readonly startWaitMs: number;
  /** Who should lead and has not announced it for so long lets the others try; twice as long each time. */
  readonly patienceMs: number;
  readonly patienceMsMax: number;
  /** Until it is tried again after an answer that no repetition is likely to change. */
  readonly problemRetryMs: number;
  /** Until it is tried again after a request was lost. */
  readonly retryMs: number;
  /** `yieldTo` without a name does not wait longer for ZooKeeper. */
  readonly yieldWaitMs: number;
  readonly probe: LeaderProbeLimits;
};

export const defaultZooKeeperElectionLimits: ZooKeeperElectionLimits = {
  lookEveryMs: 2000,
  startWaitMs: 1000,
  patienceMs: 5000,
  patienceMsMax: 300_000,
  problemRetryMs: 3000,
  retryMs: 50,
  yieldWaitMs: 1000,
  probe: { pingEveryMs: 100, silenceMs: 700 },
};

export type ZooKeeperElectionOptions = {
  /** Begins a session: one after the other, never two at a time. */
  readonly connect: () => ZooKeeper;
  /** The way to the leader's RPC port. */
  readonly network: Network;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: Random;
  readonly metrics?: Metrics | undefined;
  /** A node's path: of this cluster alone. */
  readonly root: string;
  readonly acl: readonly Acl[];
  readonly clusterId: string;
  readonly software: string;
  /** This master, as the others should see it. */
  readonly candidate: () => Candidate;
  /** Of its directory, which no other process works on. */
  readonly incarnation: string;
  /** 32 random hexadecimal digits. */
  readonly newMark: () => string;
  readonly limits?: Partial<ZooKeeperElectionLimits>;
};
