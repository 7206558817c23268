/**
 * Writes the slots of one epoch (docs/shared-journal.md, rule 4): in order, several at a time, each with all that was proposed since the one
 * before. A slot is committed when it and all before it are there and an epoch read that began after that found this epoch still the newest.
 */

import { assert } from "../base/assert.ts";
import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Entry } from "./journal.ts";
import type { SharedFence } from "./shared-fence.ts";
import { type Cursor, slotName } from "./shared-names.ts";
import { objectKind } from "./shared-object.ts";
import type { SharedObjects } from "./shared-objects.ts";
import type { SharedProposals } from "./shared-proposals.ts";

export type WriterLimits = {
  readonly slotEntriesMax: number;
  readonly slotBytesMax: number;
  readonly slotsUnderWayMax: number;
  readonly noSpaceRetryMs: number;
};

export type CommittedSlot = Cursor & { readonly entries: readonly Entry[]; readonly bytes: number };

export type SharedWriterOptions = {
  readonly objects: SharedObjects;
  readonly proposals: SharedProposals<unknown>;
  readonly fence: SharedFence;
  readonly clock: Clock;
  readonly limits: WriterLimits;
  readonly epoch: number;
  readonly mark: string;
  /** Of the log before this epoch. */
  readonly lastIndex: number;
  readonly signal: AbortSignal;
  /** In order. */
  readonly onCommitted: (slots: readonly CommittedSlot[]) => void;
  /** Slots became durable, after so long. */
  readonly onDurable: (entries: number, durationMs: number) => void;
  /** Something else is where a slot was to be: another master ended this epoch. */
  readonly onDeposed: (by: string) => void;
  readonly onNoSpace: (error: HeadpondError) => void;
  readonly onFatal: (error: HeadpondError) => void;
};

/** `index`: of the last entry before it. `refused`: nothing of it was written. */
type Slot = CommittedSlot & {
  readonly object: Uint8Array;
  readonly sentAtMs: number;
  state: "sent" | "durable" | HeadpondError;
};

export class SharedWriter {
  readonly #options: SharedWriterOptions;
  /** Not committed, in order. */
  #slots: Slot[] = [];
  #nextSlot = 1;
  #lastIndex: number;
  #sending = 0;
  #sentAtMs = Number.NEGATIVE_INFINITY;
  /** How long a slot takes, smoothed. */
  #latencyMs = 0;
  #timer: Timer | undefined;
  #resendTimer: Timer | undefined;
  #isEnding = false;
  /** Up to this slot a check is under way or over. */
  #checking = 0;
  #drained: (() => void)[] = [];

  constructor(options: SharedWriterOptions) {
    this.#options = options;
    this.#lastIndex = options.lastIndex;
  }

  /** Of what was sent. */
  get lastIndex(): number {
    return this.#lastIndex;
  }

  /** Since when the oldest slot that is not committed is under way. */
  get oldestSentAtMs(): number | undefined {
    return this.#slots[0]?.sentAtMs;
  }

  /** Sends what waits, as far as there is room. */
  pump(): void {
    const { proposals, limits, clock, signal } = this.#options;
    if (signal.aborted) return;
    while (proposals.queued > 0 && this.#sending < limits.slotsUnderWayMax && !this.#isHeldUp) {
      // Evenly over the time that one takes: then each gathers a fair share, and none of them waits for a turn.
      const dueMs = this.#sentAtMs + this.#latencyMs / limits.slotsUnderWayMax - clock.monotonicMs();
      if (this.#sending > 0 && dueMs > 0) {
        this.#timer ??= clock.timer(Math.max(1, dueMs), () => {
          this.#timer = undefined;
          this.pump();
        });
        return;
      }
      this.#begin();
    }
  }

  /** Resolves when all that was proposed is committed. */
  drained(): Promise<void> {
    if (this.#slots.length === 0 && this.#options.proposals.queued === 0) return Promise.resolve();
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  /** Ends the epoch behind the last slot; nothing may be under way. Whether it is ended for certain. */
  async seal(): Promise<boolean> {
    const { objects, epoch, mark, signal } = this.#options;
    assert(this.#slots.length === 0, "an epoch is ended behind its last slot");
    this.#isEnding = true;
    const name = slotName({ epoch, slot: this.#nextSlot });
    const bytes = objects.encode(objectKind.seal, name, mark, { lastIndex: this.#lastIndex });
    return (await objects.create(name, bytes, mark, signal)).own;
  }

  close(): void {
    this.#timer?.clear();
    this.#resendTimer?.clear();
    for (const resolve of this.#drained.splice(0)) resolve();
  }

  /** After a full store nothing more is sent until it is known where the log ends. */
  get #isHeldUp(): boolean {
    return this.#isEnding || this.#slots.some(({ state }) => typeof state === "object");
  }

  #begin(): void {
    const { objects, proposals, limits, clock, epoch, mark } = this.#options;
    const index = this.#lastIndex;
    const pending = proposals.take(index + 1, limits.slotEntriesMax, limits.slotBytesMax);
    const entries = pending.map(({ payload }, at) => ({ index: index + 1 + at, term: epoch, payload }));
    this.#lastIndex = index + entries.length;
    const sentAtMs = clock.monotonicMs();
    this.#sentAtMs = sentAtMs;
    const number = this.#nextSlot++;
    const name = slotName({ epoch, slot: number });
    const object = objects.encode(objectKind.slot, name, mark, { firstIndex: index + 1 }, entries);
    const bytes = object.length;
    const slot: Slot = { epoch, slot: number, index, entries, bytes, object, sentAtMs, state: "sent" };
    this.#slots.push(slot);
    void this.#send(slot);
  }

  async #send(slot: Slot): Promise<void> {
    const { objects, mark, signal, clock, onDurable, onDeposed, onFatal } = this.#options;
    const name = slotName(slot);
    this.#sending++;
    try {
      const created = await objects.create(name, slot.object, mark, signal, { waitsForSpace: false });
      if (signal.aborted) return;
      if (!created.own) return onDeposed(`the seal of ${created.found.head.mark}`);
      slot.state = "durable";
      const durationMs = clock.monotonicMs() - slot.sentAtMs;
      this.#latencyMs = this.#latencyMs === 0 ? durationMs : this.#latencyMs * 0.9 + durationMs * 0.1;
      onDurable(slot.entries.length, durationMs);
    } catch (cause) {
      if (signal.aborted) return;
      const error = toHeadpondError(cause);
      if (!isHeadpondError(error, "no-space", "denied")) return onFatal(error);
      slot.state = error;
    } finally {
      this.#sending--;
    }
    this.#settle();
    this.#check();
    this.pump();
  }

  /** Slots for which there was no room: they were never sent, or, if a later one is there, are sent again. */
  #settle(): void {
    const { proposals, clock, limits, onNoSpace } = this.#options;
    const first = this.#slots.findIndex(({ state }) => typeof state === "object");
    if (first < 0 || this.#sending > 0) return;
    const refused = this.#slots[first] as Slot & { state: HeadpondError };
    const error = refused.state;
    onNoSpace(error);
    if (this.#slots.some(({ state }, at) => at > first && state === "durable")) {
      this.#resendTimer ??= clock.timer(limits.noSpaceRetryMs, () => {
        this.#resendTimer = undefined;
        for (const slot of this.#slots) {
          if (typeof slot.state !== "object") continue;
          slot.state = "sent";
          void this.#send(slot);
        }
      });
      return;
    }
    this.#slots = this.#slots.slice(0, first);
    this.#nextSlot = refused.slot;
    this.#lastIndex = refused.index;
    proposals.unsent(refused.index + 1, asRefusal(error));
    proposals.refuseQueued(asRefusal(error));
  }

  /** What is there without a hole is committed if an epoch read that begins now finds no later epoch. */
  #check(): void {
    const { fence, signal, onCommitted, onFatal } = this.#options;
    const hole = this.#slots.findIndex(({ state }) => state !== "durable");
    const last = hole < 0 ? this.#slots.at(-1) : this.#slots[hole - 1];
    if (last === undefined || last.slot <= this.#checking) return;
    this.#checking = last.slot;
    fence.check().then(
      (isStill) => {
        if (!isStill || signal.aborted) return;
        const upTo = this.#slots.findIndex(({ slot }) => slot > last.slot);
        const committed = this.#slots.splice(0, upTo < 0 ? this.#slots.length : upTo);
        if (committed.length > 0) onCommitted(committed);
        if (this.#slots.length === 0 && this.#options.proposals.queued === 0) {
          for (const resolve of this.#drained.splice(0)) resolve();
        }
      },
      (error: unknown) => {
        if (!signal.aborted) onFatal(toHeadpondError(error));
      },
    );
  }
}

/** What the store refuses this master is not what whoever proposed something may not do: another master may be able to. */
export function asRefusal(error: HeadpondError): HeadpondError {
  if (error.code === "no-space") return error;
  return new HeadpondError("unavailable", `the journal cannot be written: ${error.message}`, { cause: error });
}
