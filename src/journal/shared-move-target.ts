/**
 * The log of a shared journal while another journal is copied into it (docs/migration.md): a first record with a checkpoint of the old one, and
 * one epoch of slots with the entries behind it. All masters write what the old journal committed, in order; objects are created once, so that
 * they help each other, and whoever is left can finish it. The store is no journal's before it is complete: its object `cluster` comes last.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import type { Entry, SavedCheckpoint } from "./journal.ts";
import { readBootId } from "./journal-meta.ts";
import type { MoveCut } from "./move-gate.ts";
import type { MoveTarget, MoveTargetOptions } from "./move-target.ts";
import { claimEpoch } from "./shared-fence.ts";
import { claimSharedStore, formatSharedDirectory, readSharedCluster } from "./shared-format.ts";
import { type Cursor, epochName, recordName, slotName, stateName } from "./shared-names.ts";
import { decodeEntries, objectKind } from "./shared-object.ts";
import { defaultRetryLimits, SharedObjects } from "./shared-objects.ts";
import { writePosition } from "./shared-place.ts";
import { cursorBehind, recordOf, SharedRecords } from "./shared-records.ts";
import type { SharedStore } from "./shared-store.ts";
import { StateTrust } from "./state-trust.ts";

export type SharedMoveTargetOptions = MoveTargetOptions & {
  readonly store: SharedStore;
  readonly random: Random;
  /** Of the journal that is copied. Who leads writes the checkpoint; the others wait for it for a while. */
  readonly leads: () => boolean;
};

/** Epochs of the new journal begin so far above the terms of the old one, so that terms never run backwards. */
const epochsAbove = 1000;
const slotEntriesMax = 4096;
const slotBytesMax = 4 * 1024 * 1024;
const recordPatienceMs = 15_000;
const recordLookMs = 100;

export class SharedMoveTarget implements MoveTarget {
  readonly needsBase = true;
  readonly #options: SharedMoveTargetOptions;
  readonly #objects: SharedObjects;
  readonly #closing = new AbortController();
  /** What is written next. */
  #cursor: Cursor = { epoch: 1, slot: 1, index: 0 };

  constructor(options: SharedMoveTargetOptions) {
    this.#options = options;
    const { store, clusterId, clock, random, logger } = options;
    this.#objects = new SharedObjects({
      store,
      clusterId,
      clock,
      random,
      limits: defaultRetryLimits,
      onTrouble: (error) => {
        if (error !== undefined) logger.warn("the new store does not answer", { error: error.message });
      },
    });
  }

  async begin(base: SavedCheckpoint | undefined): Promise<number> {
    const { disk, directory, store, plan } = this.#options;
    const { signal } = this.#closing;
    await disk.removeTree(directory);
    const records = new SharedRecords(this.#objects);
    await this.#findRecord(records, base);
    const { newest } = records;
    const first = await this.#objects.read(recordName(1), signal);
    if (newest === undefined || first === undefined || !first.head.mark.startsWith(`${plan.move}.`)) {
      throw new HeadpondError(
        "already-exists",
        `${store.uri} holds another journal, or what a move left that was taken back: choose an empty place`,
      );
    }
    this.#cursor = cursorBehind(recordOf(recordName(1), 1, first));
    await this.#toEnd();
    return this.#cursor.index;
  }

  async append(entries: readonly Entry[]): Promise<void> {
    const { epoch } = this.#cursor;
    const late = entries.find(({ term }) => term >= epoch);
    if (late !== undefined) {
      throw new HeadpondError(
        "unavailable",
        `entry ${late.index} is of term ${late.term}, the new journal begins with epoch ${epoch}: take the move back and prepare it anew`,
      );
    }
    for (let left = this.#behindCursor(entries); left.length > 0; left = this.#behindCursor(left)) {
      const some = firstOf(left);
      await this.#write(some.map(({ index, payload }) => ({ index, term: epoch, payload })));
    }
  }

  async finish({ index, term }: MoveCut): Promise<void> {
    const { disk, clock, logger, directory, clusterId, id, store } = this.#options;
    const { signal } = this.#closing;
    await this.#objects.repeat(() => claimSharedStore(store, clusterId, clock.wallMs()), signal);
    await disk.removeTree(directory);
    await disk.makeDirectory(directory);
    // The state goes on where it is: behind the last slot that was copied, with the term that the old journal gave the entry.
    await writePosition(disk, directory, { ...this.#cursor, index, term });
    const bootId = this.#options.bootId ?? (await readBootId(disk));
    await new StateTrust({ disk, directory, bootId, logger }).markInUse();
    await formatSharedDirectory({ disk, clock, directory, id, clusterId });
  }

  async close(): Promise<void> {
    this.#closing.abort(new HeadpondError("cancelled", "the copy is not wanted any more"));
    await this.#options.store.close();
  }

  /** The record that the log begins with; makes it if nobody else does. */
  async #findRecord(records: SharedRecords, base: SavedCheckpoint | undefined): Promise<void> {
    const { clock, leads, store } = this.#options;
    const { signal } = this.#closing;
    const endMs = clock.monotonicMs() + recordPatienceMs;
    await records.open(signal);
    while (records.newest === undefined && !leads() && clock.monotonicMs() < endMs) {
      await clock.sleep(recordLookMs, signal);
      await records.look(signal);
    }
    if (records.newest !== undefined) return;
    if ((await this.#objects.repeat(() => readSharedCluster(store, signal), signal)) === undefined) {
      await this.#makeRecord(records, base);
    }
  }

  async #makeRecord(records: SharedRecords, base: SavedCheckpoint | undefined): Promise<void> {
    const { clock, id, plan, random } = this.#options;
    const { signal } = this.#closing;
    if (base === undefined) {
      throw new HeadpondError(
        "unavailable",
        "a copy into a shared store begins with a checkpoint, and there is none yet",
      );
    }
    const { index, term, digest, bytes, xxh64, path } = base;
    const mark = `${plan.move}.${id}.${Buffer.from(random.bytes(8)).toString("hex")}`;
    const state = stateName(index, Buffer.from(random.bytes(8)).toString("hex"));
    await this.#objects.repeat(() => this.#objects.store.upload(state, path, signal), signal);
    const epoch = term + epochsAbove;
    const record = {
      upTo: { epoch, slot: 0 },
      index,
      term,
      digest,
      bytes,
      xxh64,
      state,
      id,
      createdMs: clock.wallMs(),
    };
    if ((await records.add({ ...record, begins: true }, mark, signal)) === undefined) {
      await this.#objects.store.remove(state, signal);
      return;
    }
    await claimEpoch(this.#objects, epoch - 1, { mark, about: { id } }, signal);
  }

  /** Reads what is there already. */
  async #toEnd(): Promise<void> {
    const { signal } = this.#closing;
    for (;;) {
      const name = slotName(this.#cursor);
      const found = await this.#objects.read(name, signal);
      // A seal: the new journal has begun, so all that was to be copied is here.
      if (found === undefined || found.kind === objectKind.seal) return;
      this.#pass(decodeEntriesOf(name, found, this.#cursor.epoch));
    }
  }

  /** Into the next slot, unless another master was there first: then that one is passed. */
  async #write(entries: readonly Entry[]): Promise<void> {
    const { plan, id, random } = this.#options;
    const { signal } = this.#closing;
    const name = slotName(this.#cursor);
    const mark = `${plan.move}.${id}.${Buffer.from(random.bytes(8)).toString("hex")}`;
    const bytes = this.#objects.encode(objectKind.slot, name, mark, { firstIndex: this.#cursor.index + 1 }, entries);
    const created = await this.#objects.create(name, bytes, mark, signal);
    this.#pass(created.own ? entries : decodeEntriesOf(name, created.found, this.#cursor.epoch));
  }

  #pass(entries: readonly Entry[]): void {
    const { epoch, slot, index } = this.#cursor;
    this.#cursor = { epoch, slot: slot + 1, index: entries.at(-1)?.index ?? index };
  }

  #behindCursor(entries: readonly Entry[]): readonly Entry[] {
    const from = entries.findIndex(({ index }) => index > this.#cursor.index);
    if (from < 0) return [];
    const first = entries[from]?.index;
    if (first !== this.#cursor.index + 1) {
      throw new HeadpondError("unavailable", `the copy ends at ${this.#cursor.index}, the next entry is ${first}`);
    }
    return entries.slice(from);
  }
}

function firstOf(entries: readonly Entry[]): readonly Entry[] {
  let bytes = 0;
  let count = 0;
  for (const { payload } of entries) {
    bytes += payload.length;
    if (count > 0 && (bytes > slotBytesMax || count >= slotEntriesMax)) break;
    count++;
  }
  return entries.slice(0, count);
}

/** Throws `unavailable` for a seal: the new journal has begun already, without what was to be written. */
function decodeEntriesOf(name: string, content: Parameters<typeof decodeEntries>[1], epoch: number): readonly Entry[] {
  if (content.kind === objectKind.slot) return decodeEntries(name, content, epoch);
  throw new HeadpondError(
    "unavailable",
    `${name}: the copy is sealed already, by ${content.head.mark} (${epochName(epoch)})`,
  );
}
