/** Puts the parts of a shared journal together. */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import type { Logger } from "../io/logger.ts";
import type { Entry } from "./journal.ts";
import { SharedApplier } from "./shared-applier.ts";
import { SharedCheckpointer } from "./shared-checkpointer.ts";
import { SharedDigests } from "./shared-digests.ts";
import { SharedDivergence } from "./shared-divergence.ts";
import { SharedFollower } from "./shared-follower.ts";
import { readSharedCluster } from "./shared-format.ts";
import { SharedHistory } from "./shared-history.ts";
import type { SharedJournalOptions } from "./shared-journal-options.ts";
import type { SharedJournalLimits } from "./shared-limits.ts";
import type { SharedMembers } from "./shared-members.ts";
import { SharedObjects } from "./shared-objects.ts";
import { SharedPlace } from "./shared-place.ts";
import { SharedPositions } from "./shared-positions.ts";
import { SharedReader } from "./shared-reader.ts";
import { SharedRecords } from "./shared-records.ts";
import { SharedState } from "./shared-state.ts";

export type SharedParts<Result> = {
  readonly place: SharedPlace;
  readonly objects: SharedObjects;
  readonly records: SharedRecords;
  readonly history: SharedHistory;
  readonly follower: SharedFollower;
  readonly applier: SharedApplier<Result>;
  readonly checkpointer: SharedCheckpointer;
  readonly digests: SharedDigests;
  readonly divergence: SharedDivergence;
  readonly positions: SharedPositions;
  readonly marks: Marks;
};

export type SharedPartsOptions<Result> = {
  readonly options: SharedJournalOptions<Result>;
  readonly limits: SharedJournalLimits;
  readonly logger: Logger;
  readonly signal: AbortSignal;
  readonly members: SharedMembers;
  readonly onApplied: (entries: readonly Entry[], results: readonly Result[]) => void;
  readonly onJump: () => void;
  readonly onDiverged: (details: string) => void;
  readonly onTrouble: (error: HeadpondError | undefined) => void;
  readonly onFatal: (error: HeadpondError) => void;
};

/** Names what this master writes: never the same twice, and never another master's. */
export class Marks {
  readonly #id: string;
  readonly #random: Random;
  #count = 0;

  constructor(id: string, random: Random) {
    this.#id = id;
    this.#random = random;
  }

  next(): string {
    return `${this.#id}.${++this.#count}.${Buffer.from(this.#random.bytes(8)).toString("hex")}`;
  }
}

/** Opens the local directory, and finds that the store is this cluster's. What is open is closed again if it throws. */
export async function openSharedParts<Result>(given: SharedPartsOptions<Result>): Promise<SharedParts<Result>> {
  const { options, limits, logger, signal, members } = given;
  const { disk, clock, directory, id, machine, store, random } = options;
  const place = await SharedPlace.open({
    disk,
    directory,
    clusterId: options.clusterId,
    id,
    bootId: options.bootId,
    logger,
  });
  try {
    const objects = new SharedObjects({
      store,
      clusterId: place.clusterId,
      clock,
      random,
      limits: limits.retry,
      onTrouble: given.onTrouble,
    });
    await checkCluster(objects, place.clusterId, signal);
    const records = new SharedRecords(objects);
    const history = new SharedHistory({ objects, records, rememberedSlots: limits.rememberedSlots, signal });
    const reader = new SharedReader({
      objects,
      records,
      aheadMax: Math.min(limits.readAheadSlots, Math.max(4, store.parallelCalls)),
    });
    const state = new SharedState({ disk, place, objects, records, machine, logger });
    const marks = new Marks(id, random);
    const applier = new SharedApplier<Result>({
      machine,
      clock,
      sliceEntries: limits.applySliceEntries,
      digestEveryEntries: limits.digestEveryEntries,
      onApplied: given.onApplied,
      onDigest: (index, digest) => digests.own(index, digest),
      onFatal: given.onFatal,
    });
    const positions = new SharedPositions({ place, history, machine, clock, logger, everyMs: limits.positionEveryMs });
    const follower = new SharedFollower({
      objects,
      records,
      reader,
      state,
      history,
      applier: applier as SharedApplier<unknown>,
      machine,
      onJump: () => {
        positions.reset();
        given.onJump();
      },
    });
    const divergence = new SharedDivergence({ trust: place.trust, logger, onRaised: given.onDiverged });
    const digests = new SharedDigests({
      id,
      objects,
      clock,
      logger,
      waitMs: limits.digestWaitMs,
      signal,
      ids: () => members.candidates.map((candidate) => candidate.id),
      leaderId: () => members.leaderId,
      nextMark: () => marks.next(),
      onDiverged: (details) => divergence.raise(details),
    });
    const checkpointer = new SharedCheckpointer({
      id,
      machine,
      objects,
      records,
      history,
      checkpoints: place.checkpoints,
      clock,
      logger,
      everyBytes: limits.checkpointEveryBytes,
      everyEntries: limits.checkpointEveryEntries,
      rankDelay: limits.checkpointRankDelay,
      rank: () => members.checkpointRank,
      mayMake: () => divergence.details === undefined,
      nextMark: () => marks.next(),
      signal,
    });
    return {
      place,
      objects,
      records,
      history,
      follower,
      applier,
      checkpointer,
      digests,
      divergence,
      positions,
      marks,
    };
  } catch (error) {
    await place.release();
    throw error;
  }
}

async function checkCluster(objects: SharedObjects, clusterId: ClusterId, signal: AbortSignal): Promise<void> {
  const { store } = objects;
  const found = await objects.repeat(() => readSharedCluster(store, signal), signal);
  if (found === clusterId) return;
  const message =
    found === undefined
      ? `${store.uri}: there is no journal of cluster ${clusterId} here (its object "cluster" is missing): check the store, or run "headpond format"`
      : `${store.uri}: this journal belongs to cluster ${found}, not ${clusterId}: check the store of the journal`;
  throw new HeadpondError(found === undefined ? "not-found" : "invalid", message);
}
