/**
 * Begins the log of a new cluster in an empty store from what another one left: a backup, the directory of a master that survived, or another
 * shared log. The new cluster has an id of its own. Its log begins with the checkpoint, in an epoch above all former terms, which is sealed.
 *
 * The store is no journal's before it is complete: its object `cluster` comes last. What a crash leaves is reported by the next try.
 */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { sumFile } from "./checkpoints.ts";
import type { Entry } from "./journal.ts";
import type { Restored, RestoreSource } from "./restore.ts";
import { claimSharedStore, readSharedCluster } from "./shared-format.ts";
import type { SharedLogAtRest } from "./shared-inspect.ts";
import { epochName, slotName, stateName } from "./shared-names.ts";
import { objectKind } from "./shared-object.ts";
import { defaultRetryLimits, SharedObjects } from "./shared-objects.ts";
import { SharedRecords } from "./shared-records.ts";
import type { SharedStore } from "./shared-store.ts";

const slotEntriesMax = 4096;
const slotBytesMax = 4 * 1024 * 1024;

export type SharedRestoreOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly source: RestoreSource;
  /** Must hold nothing of a journal. */
  readonly store: SharedStore;
  readonly clusterId: ClusterId;
  /** Hexadecimal digits, never the same twice. */
  readonly mark: string;
  /** Last entry to restore; by default all. */
  readonly toIndex?: number;
  readonly signal: AbortSignal;
  readonly onProgress?: (done: { readonly bytes: number; readonly index: number }) => void;
};

/** Throws `already-exists`, `invalid` for an index that the source does not reach, `corrupt`, `no-space`. */
export async function restoreSharedJournal(options: SharedRestoreOptions): Promise<Restored> {
  const { clock, source, store, clusterId, mark, signal } = options;
  const { checkpoint, lastIndex } = source;
  const toIndex = options.toIndex ?? lastIndex;
  const baseIndex = checkpoint?.index ?? 0;
  if (toIndex < baseIndex || toIndex > lastIndex) {
    throw new HeadpondError(
      "invalid",
      `index ${toIndex} cannot be restored: this source reaches from ${baseIndex} to ${lastIndex}`,
    );
  }
  const objects = new SharedObjects({
    store,
    clusterId,
    clock,
    random: new Random(1),
    limits: defaultRetryLimits,
    onTrouble: () => {},
  });
  await checkEmpty(store, signal);
  const epoch = (await lastTermOf(source, toIndex)) + 1;
  // A log that is whole needs no checkpoint, and begins where logs begin.
  const first = checkpoint === undefined ? 1 : epoch;
  if (checkpoint !== undefined) await bringCheckpoint(options, objects, first);
  const claim = epochName(first);
  await create(
    objects,
    objectKind.epoch,
    claim,
    mark,
    { epoch: first, id: "restore", createdMs: clock.wallMs() },
    signal,
  );
  let slot = 1;
  let index = baseIndex;
  let bytes = checkpoint?.bytes ?? 0;
  for await (const piece of source.entries()) {
    const wanted = piece.filter((entry) => entry.index > index && entry.index <= toIndex);
    for (const entries of slotsOf(wanted, first)) {
      const name = slotName({ epoch: first, slot });
      await create(objects, objectKind.slot, name, mark, { firstIndex: index + 1 }, signal, entries);
      slot++;
      index += entries.length;
      bytes += entries.reduce((sum, { payload }) => sum + payload.length, 0);
      options.onProgress?.({ bytes, index });
    }
    if (index === toIndex) break;
  }
  if (index !== toIndex) {
    throw new HeadpondError("corrupt", `the source ends at entry ${index}, ${toIndex} was promised`);
  }
  await create(objects, objectKind.seal, slotName({ epoch: first, slot }), mark, { lastIndex: index }, signal);
  await claimSharedStore(store, clusterId, clock.wallMs());
  return { clusterId, index, term: first };
}

/** Another cluster's log, of which no master is left. The newest checkpoint is brought to `path`. */
export async function sharedSource(
  log: SharedLogAtRest,
  store: SharedStore,
  path: string,
  signal: AbortSignal,
): Promise<RestoreSource> {
  const { lastIndex } = await log.status();
  const newest = log.checkpoints.at(-1);
  if (newest !== undefined && (await store.download(newest.path, path, signal)) === undefined) {
    throw new HeadpondError(
      "unavailable",
      `${newest.path} was removed meanwhile: masters run on this store, try again`,
    );
  }
  return {
    clusterId: log.clusterId,
    checkpoint: newest === undefined ? undefined : { ...newest, path },
    lastIndex,
    entries: () => log.entries((newest?.index ?? 0) + 1),
  };
}

async function checkEmpty(store: SharedStore, signal: AbortSignal): Promise<void> {
  const present = await readSharedCluster(store, signal);
  if (present !== undefined) {
    throw new HeadpondError(
      "already-exists",
      `${store.uri}: the journal of cluster ${present} is here: a journal is restored into an empty store`,
    );
  }
  for (const prefix of ["epochs/", "checkpoints/", "states/"]) {
    const [found] = await store.list(prefix, "", 1, signal);
    if (found === undefined) continue;
    throw new HeadpondError(
      "already-exists",
      `${store.uri}: ${found.name} is here, of a try that was cut short: empty this place or choose another one`,
    );
  }
}

async function lastTermOf({ checkpoint, entries }: RestoreSource, toIndex: number): Promise<number> {
  let term = checkpoint?.term ?? 0;
  if (toIndex === (checkpoint?.index ?? 0)) return term;
  for await (const piece of entries()) {
    for (const entry of piece) if (entry.index <= toIndex) term = Math.max(term, entry.term);
    if ((piece.at(-1)?.index ?? 0) >= toIndex) break;
  }
  return term;
}

async function bringCheckpoint(
  { disk, clock, source, mark, signal }: SharedRestoreOptions,
  objects: SharedObjects,
  epoch: number,
): Promise<void> {
  const checkpoint = source.checkpoint as NonNullable<RestoreSource["checkpoint"]>;
  const { index, term, digest, bytes, xxh64, path } = checkpoint;
  const sum = await sumFile(disk, path);
  if (sum.bytes !== bytes || sum.xxh64 !== xxh64) {
    throw new HeadpondError("corrupt", `${path}: offset 0: it is not the checkpoint that was saved`, {
      details: { file: path, offset: 0 },
    });
  }
  const state = stateName(index, mark);
  await objects.repeat(() => objects.store.upload(state, path, signal), signal);
  const upTo = { epoch, slot: 0 };
  const record = { upTo, index, term, digest, bytes, xxh64, state, id: "restore", createdMs: clock.wallMs() };
  const added = await new SharedRecords(objects).add({ ...record, begins: true }, mark, signal);
  if (added === undefined) {
    throw new HeadpondError("already-exists", `${objects.store.uri}: another journal is being restored here`);
  }
}

/** Terms are the new log's. */
function* slotsOf(entries: readonly Entry[], epoch: number): Generator<readonly Entry[]> {
  let slot: Entry[] = [];
  let bytes = 0;
  for (const { index, payload } of entries) {
    if (slot.length === slotEntriesMax || (slot.length > 0 && bytes + payload.length > slotBytesMax)) {
      yield slot;
      slot = [];
      bytes = 0;
    }
    slot.push({ index, term: epoch, payload });
    bytes += payload.length;
  }
  if (slot.length > 0) yield slot;
}

async function create(
  objects: SharedObjects,
  kind: (typeof objectKind)[keyof typeof objectKind],
  name: string,
  mark: string,
  fields: Readonly<Record<string, string | number>>,
  signal: AbortSignal,
  entries?: readonly Entry[],
): Promise<void> {
  const created = await objects.create(name, objects.encode(kind, name, mark, fields, entries), mark, signal, {
    waitsForSpace: false,
  });
  if (created.own) return;
  throw new HeadpondError("already-exists", `${objects.store.uri}: ${name} is there already: choose an empty place`);
}
