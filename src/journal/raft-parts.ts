/** Puts the parts of a Raft journal together over what recovery found. */

import type { HeadpondError } from "../base/errors.ts";
import type { Logger } from "../io/logger.ts";
import { Raft } from "../raft/raft.ts";
import type { AppendWork, RaftConfig } from "../raft/types.ts";
import type { Entry } from "./journal.ts";
import { RaftApplier } from "./raft-applier.ts";
import { RaftCheckpointer } from "./raft-checkpointer.ts";
import { RaftDigests } from "./raft-digests.ts";
import { RaftDivergence } from "./raft-divergence.ts";
import { RaftInstaller } from "./raft-installer.ts";
import type { RaftJournalOptions } from "./raft-journal-options.ts";
import { defaultRaftJournalLimits, type RaftJournalLimits } from "./raft-limits.ts";
import { RaftLogStorage } from "./raft-log.ts";
import { RaftMembers } from "./raft-members.ts";
import { configurationsOf, type RaftPlace } from "./raft-recovery.ts";
import { RaftWriter, toHardState } from "./raft-writer.ts";

/** What there is between `start` and `close`. */
export type RaftParts<Result> = RaftPlace & {
  readonly core: Raft;
  readonly storage: RaftLogStorage;
  readonly writer: RaftWriter;
  readonly applier: RaftApplier<Result>;
  readonly checkpointer: RaftCheckpointer;
  readonly installer: RaftInstaller;
  readonly digests: RaftDigests;
  readonly divergence: RaftDivergence;
  readonly members: RaftMembers;
  /** Whether the core was admitted from the beginning. */
  readonly isAdmitted: boolean;
};

export type RaftPartsOptions<Result> = {
  readonly options: RaftJournalOptions<Result>;
  readonly limits: RaftJournalLimits;
  readonly config: RaftConfig;
  readonly logger: Logger;
  readonly place: RaftPlace;
  readonly wake: () => void;
  readonly onWritten: (works: readonly AppendWork[], durationMs: number) => void;
  readonly onNoSpace: () => void;
  readonly onApplied: (entries: readonly Entry[], results: readonly Result[]) => void;
  readonly onInstalled: (index: number) => void;
  readonly onDiverged: (details: string) => void;
  readonly onFatal: (error: HeadpondError) => void;
};

export function assembleRaft<Result>(all: RaftPartsOptions<Result>): RaftParts<Result> {
  const { options, limits, config, logger, place, wake, onFatal } = all;
  const { clock, disk, id, machine, random, peers, addresses } = options;
  const { wal, identity } = place;
  const checkpointer = new RaftCheckpointer({
    ...place,
    machine,
    clock,
    logger,
    everyBytes: limits.checkpointEveryBytes,
    everyEntries: limits.checkpointEveryEntries,
    logKeepBytes: limits.logKeepBytes,
    logMaxBytes: limits.logMaxBytes,
    configurationAt: (index) => core.configurationAt(index),
  });
  const snapshot = (): RaftCheckpointer["point"] => checkpointer.point;
  const storage = new RaftLogStorage({ wal, memoryBytes: limits.logMemoryBytes, snapshot, onLoaded: wake, onFatal });
  const appliedIndex = machine.applied.index;
  const configurations = configurationsOf(place, appliedIndex);
  const configuration = configurations.at(-1)?.configuration;
  const isAdmitted = identity.isFounded || (configuration !== undefined && identity.isNamedBy(configuration));
  const core = new Raft({
    id,
    config,
    limits: { ...defaultRaftJournalLimits.core, ...limits.core },
    random,
    storage,
    hardState: toHardState(wal.hardState),
    configurations,
    appliedIndex,
    restartedAtMs: clock.monotonicMs() - (options.succession === undefined ? 0 : config.electionTimeoutMs),
    admitted: isAdmitted,
  });
  const divergence = new RaftDivergence({ trust: place.trust, core, logger, onRaised: all.onDiverged });
  const digests = new RaftDigests({
    id,
    clock,
    waitMs: limits.digestWaitMs,
    configuration: () => core.configuration.configuration,
    leader: () => core.leader,
    onDiverged: (details) => divergence.raise(details),
  });
  const retryMs = limits.noSpaceRetryMs;
  const writer = new RaftWriter({ wal, clock, retryMs, onFatal, onWritten: all.onWritten, onNoSpace: all.onNoSpace });
  const applier = new RaftApplier<Result>({
    machine,
    clock,
    sliceEntries: limits.applySliceEntries,
    digestEveryEntries: limits.digestEveryEntries,
    isStandby: () => core.role !== "leader",
    retryMs,
    onApplied: all.onApplied,
    onDone: (lastIndex) => {
      core.applied(lastIndex);
      wake();
    },
    onDigest: (index, digest) => {
      digests.own(index, digest);
      digests.judge();
    },
    onFatal,
  });
  const { onInstalled } = all;
  const installing = { core, storage, writer, applier, checkpointer };
  const installer = new RaftInstaller({
    ...installing,
    disk,
    clock,
    onInstalled: (index) => {
      digests.reset();
      divergence.heal();
      onInstalled(index);
    },
    wake,
    onFatal,
  });
  const members = new RaftMembers({
    core,
    peers,
    identity,
    clock,
    logger,
    succeeds: options.succession === "led",
    software: options.software ?? "",
    featureLevel: options.featureLevel ?? 1,
    limits: { ...defaultRaftJournalLimits.members, ...limits.members },
    addresses,
    state: () => ({
      appliedIndex: machine.applied.index,
      ...digests.newest,
      fresh: core.lastIndex === 0 && core.term === 0,
      full: writer.noSpace !== undefined,
    }),
    wake,
  });
  return { ...place, ...installing, installer, digests, divergence, members, isAdmitted };
}
