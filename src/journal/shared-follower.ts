/**
 * The own state's way along the shared log: reads what comes next, applies it, and where garbage collection was quicker goes on from a
 * checkpoint. The same way for a standby that follows and for a new primary that walks to the end of what others wrote; only that one seals.
 */

import type { StateMachine } from "./journal.ts";
import type { SharedApplier } from "./shared-applier.ts";
import type { SharedHistory } from "./shared-history.ts";
import { type Cursor, slotName } from "./shared-names.ts";
import { objectKind } from "./shared-object.ts";
import type { SharedObjects } from "./shared-objects.ts";
import type { SharedReader, SharedSlot } from "./shared-reader.ts";
import type { SharedRecords } from "./shared-records.ts";
import type { SharedState } from "./shared-state.ts";

export type SharedFollowerOptions = {
  readonly objects: SharedObjects;
  readonly records: SharedRecords;
  readonly reader: SharedReader;
  readonly state: SharedState;
  readonly history: SharedHistory;
  readonly applier: SharedApplier<unknown>;
  readonly machine: StateMachine<unknown>;
  /** The state was replaced by a later one: what lay between was not seen. */
  readonly onJump: () => void;
};

export class SharedFollower {
  readonly #options: SharedFollowerOptions;
  #cursor: Cursor = { epoch: 1, slot: 1, index: 0 };

  constructor(options: SharedFollowerOptions) {
    this.#options = options;
  }

  /** What comes next. All before it is in the state, or about to be. */
  get cursor(): Cursor {
    return this.#cursor;
  }

  /** Brings the state level with what is in the store. Throws `corrupt`, `cancelled`. */
  async open(signal: AbortSignal): Promise<void> {
    const { records, state, machine } = this.#options;
    await records.open(signal);
    this.#begin(await state.open(signal));
    while (!(await this.step(signal))) signal.throwIfAborted();
    const { index } = machine.applied;
    if (index <= this.#cursor.index) return;
    await this.#rebuild(`it has applied entries up to ${index}, the log ends at ${this.#cursor.index}`, signal);
    while (!(await this.step(signal))) signal.throwIfAborted();
  }

  /**
   * Reads and applies some of what is there. True: all that was there at the call is in the state, and, unless the state is ahead of the log,
   * nothing is at the cursor.
   */
  async step(signal: AbortSignal): Promise<boolean> {
    const { reader, applier, history } = this.#options;
    const ahead = await reader.read(this.#cursor, signal);
    if (ahead === "gone") {
      await this.#rebuild("the log that it needs was cut", signal);
      return false;
    }
    for (const slot of ahead.slots) {
      const misfit = this.#misfit(slot);
      if (misfit !== undefined) {
        await this.#rebuild(misfit, signal);
        return false;
      }
      history.add(slot, slot.bytes);
      applier.add(this.#newOf(slot));
    }
    this.#cursor = ahead.next;
    await applier.drained();
    return ahead.atEnd;
  }

  /** Ends, at the cursor, an epoch that is over. What is there already is left for the next step. */
  async seal(mark: string, signal: AbortSignal): Promise<void> {
    const { objects, records } = this.#options;
    const at = this.#cursor;
    const name = slotName(at);
    const bytes = objects.encode(objectKind.seal, name, mark, { lastIndex: at.index });
    const created = await objects.create(name, bytes, mark, signal);
    if (!created.own) return;
    await records.look(signal);
    if (records.mayBeGone(at)) await this.#rebuild("the log that it needs was cut", signal);
    else this.#cursor = { epoch: at.epoch + 1, slot: 1, index: at.index };
  }

  /** A slot of the own epoch is committed. */
  committed(slot: Omit<SharedSlot, "mark">): void {
    const { applier, history } = this.#options;
    const { epoch, slot: number, entries } = slot;
    history.add(slot, slot.bytes);
    this.#cursor = { epoch, slot: number + 1, index: entries.at(-1)?.index ?? slot.index };
    applier.add(entries);
  }

  /** Why the state is not of this log; it has applied entries that come again. */
  #misfit({ entries }: SharedSlot): string | undefined {
    const { index, term } = this.#options.machine.applied;
    const same = entries[index - (entries[0]?.index ?? 0)];
    if (index === 0 || same === undefined || same.term === term) return undefined;
    return `it has entry ${index} of epoch ${term}, the log has one of epoch ${same.term}`;
  }

  #newOf({ entries }: SharedSlot): SharedSlot["entries"] {
    const { index } = this.#options.machine.applied;
    const first = entries[0]?.index ?? 0;
    if (index < first) return entries;
    return entries.slice(index + 1 - first);
  }

  async #rebuild(reason: string, signal: AbortSignal): Promise<void> {
    const { state, applier, onJump } = this.#options;
    await applier.drained();
    this.#begin(await state.rebuild(reason, signal));
    onJump();
  }

  #begin(cursor: Cursor): void {
    this.#cursor = cursor;
    this.#options.history.restart(cursor);
  }
}
