/**
 * What a leader knows of one other member's log, and how much it sends ahead of the answers.
 *
 * - `probe`: where the logs part is not known. One append, then silence until it or a heartbeat is answered.
 * - `replicate`: the member follows. Appends go out ahead of answers, within a window of messages and bytes.
 * - `snapshot`: what it needs was cut away. Nothing but heartbeats until the snapshot is there, fails or times out.
 *
 * Every state can be left without the member's help, and `match` never falls: an answer that says less is old.
 */

import { assert } from "../base/assert.ts";

export type ProgressState = "probe" | "replicate" | "snapshot";

type Window = { readonly inflightMessages: number; readonly inflightBytes: number };

export class Progress {
  readonly #window: Window;
  #state: ProgressState = "probe";
  /** Highest index known to be durable there and the same as here. match < next. */
  #match = 0;
  /** The first entry that the next append carries. */
  #next: number;
  /** In `probe`: an append is on its way. */
  #probing = false;
  /** In `replicate`: send once even if there is nothing new, to find out what was lost. */
  #nudged = false;
  /** Of the appends under way: their last index and bytes. */
  #inflight: { readonly lastIndex: number; readonly bytes: number }[] = [];
  #inflightBytes = 0;
  #snapshotIndex = 0;
  #snapshotDelivered = false;
  #snapshotSinceMs = 0;
  /** The commit index that the member was told last. */
  sentCommit = 0;
  /** When it last answered, by the leader's count of ticks. */
  activeAtMs: number;
  /** When what it answered had been sent, by the leader's clock. */
  leasedAtMs = Number.NEGATIVE_INFINITY;
  /** Latest round of heartbeats that it answered. */
  round = 0;

  constructor(next: number, activeAtMs: number, window: Window) {
    this.#next = next;
    this.activeAtMs = activeAtMs;
    this.#window = window;
  }

  get state(): ProgressState {
    return this.#state;
  }

  get match(): number {
    return this.#match;
  }

  get next(): number {
    return this.#next;
  }

  get isPaused(): boolean {
    if (this.#state === "replicate") return this.#isFull;
    return this.#state === "snapshot" || this.#probing;
  }

  /** Whether to send when the log ends before `next`. */
  get wantsContact(): boolean {
    return this.#state === "probe" || this.#nudged;
  }

  /** An append with entries up to `lastIndex` (`next - 1`: none) is on its way. */
  sent(lastIndex: number, bytes: number): void {
    assert(!this.isPaused, "nothing is sent to a paused member");
    this.#nudged = false;
    if (this.#state === "probe") {
      this.#probing = true;
      return;
    }
    if (lastIndex < this.#next) return;
    this.#next = lastIndex + 1;
    this.#inflight.push({ lastIndex, bytes });
    this.#inflightBytes += bytes;
  }

  /** The member has all up to `index`. Whether that is new. */
  acknowledged(index: number, firstIndex: number): boolean {
    const isNew = index > this.#match;
    const found = this.#state === "probe" && index >= this.#match;
    this.#match = Math.max(this.#match, index);
    this.#next = Math.max(this.#next, this.#match + 1);
    while (this.#inflight[0] !== undefined && this.#inflight[0].lastIndex <= index) this.#freeOldest();
    // A snapshot is also over when the member got far enough by other means.
    const caughtUp = this.#state === "snapshot" && this.#match + 1 >= firstIndex;
    if (found || caughtUp) this.#become("replicate", this.#match + 1);
    return isNew;
  }

  /** The member lacks `prevIndex`; `hintIndex` is the last that may be shared. Whether to try again from there. */
  rejected(prevIndex: number, hintIndex: number): boolean {
    // Appends overtake each other: what is known to be there cannot be missing.
    if (prevIndex <= this.#match || this.#state === "snapshot") return false;
    if (this.#state === "replicate") {
      this.#become("probe", this.#match + 1);
      return true;
    }
    if (prevIndex !== this.#next - 1) return false;
    this.#become("probe", Math.max(this.#match + 1, Math.min(prevIndex, hintIndex + 1)));
    return true;
  }

  /** It is alive: what it did not answer before was lost. */
  answeredHeartbeat(lastIndex: number): void {
    this.#probing = false;
    if (this.#state !== "replicate" || this.#match >= lastIndex) return;
    if (this.#isFull) this.#freeOldest();
    this.#nudged = true;
  }

  /** What was sent since the last answer may be lost. */
  unreachable(): void {
    if (this.#state === "replicate") this.#become("probe", this.#match + 1);
  }

  snapshotStarted(index: number, nowMs: number): void {
    this.#become("snapshot", this.#next);
    this.#snapshotIndex = index;
    this.#snapshotSinceMs = nowMs;
  }

  snapshotProgressed(nowMs: number): void {
    this.#snapshotSinceMs = nowMs;
  }

  /** All of it is there; being installed. */
  snapshotSent(nowMs: number): void {
    if (this.#state !== "snapshot") return;
    this.#snapshotDelivered = true;
    this.#snapshotSinceMs = nowMs;
  }

  /** The next try waits for a sign of life. */
  snapshotFailed(): void {
    if (this.#state !== "snapshot") return;
    const next = this.#snapshotDelivered ? Math.max(this.#match, this.#snapshotIndex) + 1 : this.#match + 1;
    this.#become("probe", next);
    this.#probing = true;
  }

  isSnapshotOverdue(nowMs: number, timeoutMs: number): boolean {
    return this.#state === "snapshot" && nowMs - this.#snapshotSinceMs > timeoutMs;
  }

  /** `replicate match=7 next=9 inflight=1`. */
  describe(): string {
    const { state, match, next } = this;
    const more =
      state === "snapshot"
        ? ` snapshot=${this.#snapshotIndex}`
        : `${this.isPaused ? " paused" : ""}${this.#inflight.length > 0 ? ` inflight=${this.#inflight.length}` : ""}`;
    return `${state} match=${match} next=${next}${more}`;
  }

  get #isFull(): boolean {
    return this.#inflight.length >= this.#window.inflightMessages || this.#inflightBytes >= this.#window.inflightBytes;
  }

  #freeOldest(): void {
    this.#inflightBytes -= this.#inflight.shift()?.bytes ?? 0;
  }

  #become(state: ProgressState, next: number): void {
    this.#state = state;
    this.#next = next;
    this.#probing = false;
    this.#nudged = false;
    this.#inflight = [];
    this.#inflightBytes = 0;
    this.#snapshotDelivered = false;
  }
}
