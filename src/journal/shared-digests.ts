/**
 * Compares the states of the masters: at every so many entries each puts the digest of its state into the store, under its own name, and reads
 * the others'. Who is the one that differs is judged as in the Raft journal (raft-digests.ts).
 */

import { toHeadpondError } from "../base/errors.ts";
import type { Clock, Timer } from "../io/clock.ts";
import { xxh64Hex } from "../io/hash.ts";
import type { Logger } from "../io/logger.ts";
import { configurationOf } from "../raft/membership.ts";
import { RaftDigests } from "./raft-digests.ts";
import { digestName } from "./shared-names.ts";
import { countIn, objectKind, textIn } from "./shared-object.ts";
import type { SharedObjects } from "./shared-objects.ts";

/** Until all have told theirs they are asked for so often, and after so many times no more. */
const askEveryMs = 1000;
const asksMax = 30;

export type SharedDigestsOptions = {
  readonly id: string;
  readonly objects: SharedObjects;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly waitMs: number;
  readonly signal: AbortSignal;
  /** Of all masters that take part. */
  readonly ids: () => readonly string[];
  readonly leaderId: () => string | undefined;
  readonly nextMark: () => string;
  readonly onDiverged: (details: string) => void;
};

export class SharedDigests {
  readonly #options: SharedDigestsOptions;
  readonly #judge: RaftDigests;
  #running: Promise<void> | undefined;
  /** The newest, not told yet. */
  #due: { readonly index: number; readonly digest: string } | undefined;
  #timer: Timer | undefined;
  /** The rounds that are left for the newest digest. */
  #asksLeft = 0;

  constructor(options: SharedDigestsOptions) {
    this.#options = options;
    const { id, clock, waitMs, ids, leaderId, onDiverged } = options;
    this.#judge = new RaftDigests({
      id,
      clock,
      waitMs,
      configuration: () => configurationOf([...new Set([id, ...ids()])]),
      leader: leaderId,
      onDiverged,
    });
  }

  get newest(): { readonly digestIndex: number; readonly digest: string } {
    return this.#judge.newest;
  }

  own(index: number, digest: string): void {
    this.#judge.own(index, digest);
    this.#due = { index, digest };
    this.#asksLeft = asksMax;
    this.#running ??= this.#run();
  }

  /** The state was replaced: what was said of the one before means nothing. */
  reset(): void {
    this.#judge.reset();
    this.#due = undefined;
    this.#asksLeft = 0;
  }

  async close(): Promise<void> {
    this.#timer?.clear();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal, logger } = this.#options;
    try {
      const { id } = this.#options;
      for (let due = this.#due; due !== undefined; due = this.#due) {
        this.#due = undefined;
        await this.#tell(id, due.index, due.digest);
      }
      await this.#ask();
    } catch (error) {
      // The next one is told and asked for in its turn.
      if (!signal.aborted) logger.warn("digests not compared", { error: toHeadpondError(error).message });
    }
    this.#running = undefined;
    if (signal.aborted) return;
    if (this.#due !== undefined) this.#running = this.#run();
    else this.#askLater();
  }

  #askLater(): void {
    if (this.#asksLeft-- <= 0) return;
    this.#timer?.clear();
    this.#timer = this.#options.clock.timer(askEveryMs, () => {
      this.#running ??= this.#run();
    });
  }

  async #tell(id: string, index: number, digest: string): Promise<void> {
    const { objects, signal, nextMark } = this.#options;
    const name = digestName(index, xxh64Hex(Buffer.from(id, "utf8")));
    const mark = nextMark();
    // There already: this master's former life has told its own.
    await objects.create(name, objects.encode(objectKind.digest, name, mark, { id, index, digest }), mark, signal);
  }

  async #ask(): Promise<void> {
    const { id, ids, objects, signal } = this.#options;
    const { digestIndex } = this.#judge.newest;
    if (digestIndex === 0) return;
    let missing = 0;
    for (const other of ids()) {
      if (other === id) continue;
      const name = digestName(digestIndex, xxh64Hex(Buffer.from(other, "utf8")));
      const found = await objects.read(name, signal);
      if (found === undefined) missing++;
      else this.#judge.reported(other, countIn(found.head, "index", name), textIn(found.head, "digest", name));
    }
    this.#judge.judge();
    // A difference may wait for the word of masters that are behind, but not for ever.
    if (missing === 0) this.#asksLeft = Math.min(this.#asksLeft, 6);
  }
}
