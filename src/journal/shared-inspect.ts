/**
 * Looks into the log in a shared store, without a running master: what `journal status|dump|verify|diff --store` show. Changes nothing. Masters may run
 * meanwhile: what they take away is not missed, and what they add may be seen or not.
 */

import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { type Checkpoint, sumFile } from "./checkpoints.ts";
import type { LogAtRest } from "./compare.ts";
import type { DumpedRecord, VerifyReport } from "./inspect.ts";
import type { Entry } from "./journal.ts";
import { describeFinding, type Finding } from "./read-wal.ts";
import { readSharedCluster } from "./shared-format.ts";
import {
  type Cursor,
  checkpointsPrefix,
  epochName,
  epochPrefix,
  epochsPrefix,
  isAtOrBefore,
  numberOf,
  type Place,
  recordName,
  slotName,
} from "./shared-names.ts";
import { objectKind, type SharedObjectContent } from "./shared-object.ts";
import { defaultRetryLimits, SharedObjects } from "./shared-objects.ts";
import { checkSeal, slotOf } from "./shared-reader.ts";
import { cursorBehind, recordOf, type SharedRecord, SharedRecords } from "./shared-records.ts";
import type { SharedStore } from "./shared-store.ts";

const listedAtOnce = 1000;

export type SharedLogOptions = {
  readonly store: SharedStore;
  readonly clock: Clock;
  readonly signal: AbortSignal;
};

export type SharedLogStatus = {
  readonly clusterId: ClusterId;
  /** The newest in which something was written. */
  readonly epoch: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly checkpointIndex: number;
  /** Of the slots that were read. */
  readonly bytes: number;
};

/** One object of the log, in its order. */
type Step = { readonly at: Cursor; readonly name: string; readonly content: SharedObjectContent };

export class SharedLogAtRest {
  readonly clusterId: ClusterId;
  readonly #options: SharedLogOptions;
  readonly #objects: SharedObjects;
  readonly #records: SharedRecords;

  private constructor(options: SharedLogOptions, clusterId: ClusterId) {
    this.#options = options;
    this.clusterId = clusterId;
    const { store, clock } = options;
    // What chance decides here are waits.
    const random = new Random(1);
    this.#objects = new SharedObjects({
      store,
      clusterId,
      clock,
      random,
      limits: defaultRetryLimits,
      onTrouble: () => {},
    });
    this.#records = new SharedRecords(this.#objects);
  }

  /** Throws `not-found` if there is no journal in the store. */
  static async open(options: SharedLogOptions): Promise<SharedLogAtRest> {
    const { store, signal } = options;
    const clusterId = await readSharedCluster(store, signal);
    if (clusterId === undefined) {
      throw new HeadpondError("not-found", `${store.uri}: no journal here (its object "cluster" is missing)`);
    }
    const log = new SharedLogAtRest(options, clusterId);
    await log.#records.open(signal);
    return log;
  }

  /** Newest two, oldest first. `path`: name of the state's object. */
  get checkpoints(): readonly Checkpoint[] {
    const { before, newest } = this.#records;
    return [before, newest].flatMap((record) => (record === undefined ? [] : [checkpointOf(record)]));
  }

  async status(): Promise<SharedLogStatus> {
    const { before, newest, beginning } = this.#records;
    let bytes = 0;
    let at = this.#start(newest?.index ?? 0);
    let { epoch } = at;
    for await (const step of this.#walk(at)) {
      bytes += step.content.body.length;
      at = behind(step);
      ({ epoch } = step.at);
    }
    return {
      clusterId: this.clusterId,
      epoch: Math.max(epoch, newest?.term ?? 0),
      firstIndex: (before?.index ?? beginning?.index ?? 0) + 1,
      lastIndex: at.index,
      checkpointIndex: newest?.index ?? 0,
      bytes,
    };
  }

  /** Entries and seals from the slot on that holds `fromIndex`. Throws `compacted`, and `corrupt` at damage, after what stands before it. */
  async *dump(fromIndex = 1): AsyncGenerator<DumpedRecord, void, void> {
    for await (const step of this.#walk(this.#start(fromIndex - 1))) {
      const { name: file, at, content } = step;
      if (content.kind === objectKind.seal) {
        if (at.index + 1 < fromIndex) continue;
        yield {
          ...{ type: "seal", index: at.index + 1, term: at.epoch, bytes: 0, file, offset: 0 },
          payload: new Uint8Array(0),
        };
        continue;
      }
      for (const { index, term, payload } of slotOf(content, at).entries) {
        if (index < fromIndex) continue;
        yield { type: "entry", index, term, bytes: payload.length, file, offset: 0, payload };
      }
    }
  }

  /** From `fromIndex` on, in pieces. Throws `compacted`, `corrupt`. */
  async *entries(fromIndex: number): AsyncGenerator<readonly Entry[], void, void> {
    for await (const { content, at } of this.#walk(this.#start(fromIndex - 1))) {
      if (content.kind === objectKind.seal) continue;
      const entries = slotOf(content, at).entries.filter(({ index }) => index >= fromIndex);
      if (entries.length > 0) yield entries;
    }
  }

  /** For comparisons. */
  async atRest(): Promise<LogAtRest> {
    const { clusterId, firstIndex, lastIndex } = await this.status();
    const { checkpoints } = this;
    return { clusterId, firstIndex, lastIndex, checkpoints, entries: (fromIndex) => this.entries(fromIndex) };
  }

  /** Checks every object that matters, and lists all that is wrong. `scratch`: a path on `disk` for states, one after the other. */
  async verify(disk: Disk, scratch: string): Promise<VerifyReport> {
    const { signal } = this.#options;
    const findings: Finding[] = [];
    const damage = (error: unknown, file: string): void => {
      if (!isHeadpondError(error, "corrupt", "unsupported", "invalid")) throw toHeadpondError(error);
      const named = String(error.details?.["file"] ?? file);
      findings.push({
        severity: "damage",
        file: named,
        offset: Number(error.details?.["offset"] ?? 0),
        message: error.message,
      });
    };
    await this.#verifyEpochs(findings, damage);
    await this.#verifyRecords(damage);
    for (const checkpoint of this.checkpoints) {
      await this.#verifyState(checkpoint, disk, scratch).catch((error: unknown) => damage(error, checkpoint.path));
    }
    const start = this.#start(this.#records.before?.index ?? this.#records.beginning?.index ?? 0);
    let at = start;
    let slots = 0;
    let entries = 0;
    let bytes = 0;
    let lastTerm = this.#records.before?.term ?? 0;
    try {
      for await (const step of this.#walk(start)) {
        await this.#verifyMark(step, damage);
        slots++;
        bytes += step.content.body.length;
        const next = behind(step);
        if (next.index > at.index) lastTerm = step.at.epoch;
        entries += next.index - at.index;
        at = next;
      }
    } catch (error) {
      damage(error, slotName(at));
    }
    signal.throwIfAborted();
    const newest = this.#records.newest;
    if (newest !== undefined && at.index < newest.index) {
      findings.push({
        severity: "damage",
        file: slotName(at),
        offset: 0,
        index: at.index + 1,
        message: `the log ends at ${at.index}, the newest checkpoint holds entries up to ${newest.index}`,
      });
    }
    findings.push(...(await this.#leftovers(at)));
    return {
      ok: findings.every(({ severity }) => severity === "note"),
      clusterId: this.clusterId,
      segments: slots,
      firstIndex: start.index + 1,
      lastIndex: at.index,
      lastTerm,
      entries,
      bytes,
      checkpoints: this.checkpoints,
      findings: findings.map(describeFinding),
      details: findings,
    };
  }

  /** The nearest known place at or before the one behind `index`. Throws `compacted`. */
  #start(index: number): Cursor {
    const { newest, before, beginning } = this.#records;
    if (newest !== undefined && newest.index <= index) return cursorBehind(newest);
    if (before !== undefined && before.index <= index) return cursorBehind(before);
    if (beginning !== undefined && beginning.index <= index) return beginning;
    const firstIndex = (before?.index ?? beginning?.index ?? 0) + 1;
    throw new HeadpondError("compacted", `entry ${index + 1} was cut from the log, which begins at ${firstIndex}`);
  }

  /** Until nothing is there. Throws `compacted` when the log was cut meanwhile. */
  async *#walk(from: Cursor): AsyncGenerator<Step, void, void> {
    const { signal } = this.#options;
    for (let at = from; ; ) {
      const name = slotName(at);
      const content = await this.#objects.read(name, signal);
      await this.#records.look(signal);
      if (this.#records.mayBeGone(at)) {
        throw new HeadpondError("compacted", `${name} was cut from the log meanwhile: begin anew`);
      }
      if (content === undefined) return;
      if (content.kind === objectKind.seal) checkSeal(content, at);
      const step = { at, name, content };
      yield step;
      at = behind(step);
    }
  }

  async #verifyEpochs(findings: Finding[], damage: (error: unknown, file: string) => void): Promise<void> {
    const numbers = await this.#numbersBelow(epochsPrefix);
    for (const epoch of numbers) {
      const name = epochName(epoch);
      try {
        await this.#objects.read(name, this.#options.signal);
      } catch (error) {
        damage(error, name);
      }
    }
    const first = numbers[0] ?? 1;
    const missing = numbers.findIndex((epoch, at) => epoch !== first + at);
    if (missing < 0) return;
    const name = epochName(first + missing);
    // A listing is a hint: what it does not show may be there.
    if ((await this.#objects.read(name, this.#options.signal)) !== undefined) return;
    const message = `no claim of epoch ${first + missing}, which later ones follow: a deposed primary could take itself for the newest`;
    findings.push({ severity: "damage", file: name, offset: 0, message });
  }

  async #verifyRecords(damage: (error: unknown, file: string) => void): Promise<void> {
    const numbers = await this.#numbersBelow(checkpointsPrefix);
    for (const number of numbers) {
      const name = recordName(number);
      try {
        const found = await this.#objects.read(name, this.#options.signal);
        if (found !== undefined) recordOf(name, number, found);
      } catch (error) {
        damage(error, name);
      }
    }
  }

  async #verifyState(checkpoint: Checkpoint, disk: Disk, scratch: string): Promise<void> {
    const { store, signal } = this.#options;
    const { path: name, bytes, xxh64 } = checkpoint;
    await disk.removeTree(scratch);
    try {
      const arrived = await this.#objects.repeat(() => store.download(name, scratch, signal), signal);
      if (arrived === undefined) {
        await this.#records.look(signal);
        if (!this.checkpoints.some(({ path }) => path === name)) return;
        throw new HeadpondError("corrupt", `${name}: the state is missing, its record is there`);
      }
      const sum = await sumFile(disk, scratch);
      if (sum.bytes === bytes && sum.xxh64 === xxh64) return;
      const says = `it has ${sum.bytes} bytes with xxh64 ${sum.xxh64}, its record says ${bytes} with ${xxh64}`;
      throw new HeadpondError("corrupt", `${name}: ${says}`, { details: { file: name, offset: 0 } });
    } finally {
      await disk.removeTree(scratch);
    }
  }

  /** Slots are written by who holds their epoch. */
  async #verifyMark({ at, name, content }: Step, damage: (error: unknown, file: string) => void): Promise<void> {
    if (content.kind === objectKind.seal || at.slot !== 1) return;
    const claim = await this.#objects.read(epochName(at.epoch), this.#options.signal);
    if (claim !== undefined && claim.head.mark === content.head.mark) return;
    const who = claim === undefined ? "nobody" : claim.head.mark;
    damage(
      new HeadpondError("corrupt", `${name}: written by ${content.head.mark}, its epoch is claimed by ${who}`, {
        details: { file: name, offset: 0 },
      }),
      name,
    );
  }

  /** What is behind seals, of deposed primaries: no part of the log, and nobody's harm. */
  async #leftovers(end: Place): Promise<Finding[]> {
    const found: Finding[] = [];
    const { before } = this.#records;
    for (
      let { epoch } = before?.upTo ?? { epoch: Math.max(1, end.epoch - leftoverEpochs) };
      epoch < end.epoch;
      epoch++
    ) {
      const slots = await this.#numbersBelow(epochPrefix(epoch));
      const kept = slots.filter((slot) => before === undefined || !isAtOrBefore({ epoch, slot }, before.upTo));
      const last = kept.at(-1);
      if (last === undefined) continue;
      const sealed = await this.#sealOf(epoch, kept);
      if (sealed !== undefined && sealed < last) {
        const file = slotName({ epoch, slot: last });
        const message = `behind the seal ${slotName({ epoch, slot: sealed })}: no part of the log`;
        found.push({ severity: "note", file, offset: 0, message });
      }
    }
    return found;
  }

  async #sealOf(epoch: number, slots: readonly number[]): Promise<number | undefined> {
    for (const slot of slots) {
      const content = await this.#objects.read(slotName({ epoch, slot }), this.#options.signal);
      if (content?.kind === objectKind.seal) return slot;
    }
    return undefined;
  }

  async #numbersBelow(prefix: string): Promise<number[]> {
    const { store, signal } = this.#options;
    const numbers: number[] = [];
    for (let after = ""; ; ) {
      const page = await this.#objects.repeat(() => store.list(prefix, after, listedAtOnce, signal), signal);
      for (const { name } of page) numbers.push(numberOf(name) ?? 0);
      if (page.length < listedAtOnce) return numbers;
      after = page.at(-1)?.name ?? "";
    }
  }
}

/** Of a log without checkpoints the last so many epochs are looked at for leftovers. */
const leftoverEpochs = 100;

function behind({ at, content }: Step): Cursor {
  if (content.kind === objectKind.seal) return { epoch: at.epoch + 1, slot: 1, index: at.index };
  const { entries } = slotOf(content, at);
  return { epoch: at.epoch, slot: at.slot + 1, index: entries.at(-1)?.index ?? at.index };
}

function checkpointOf({ index, term, digest, bytes, xxh64, state }: SharedRecord): Checkpoint {
  return { index, term, digest, bytes, xxh64, path: state };
}
