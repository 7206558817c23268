/**
 * When an attempt to get a claimed block from a neighbour is given up; pure. A neighbour that gives nothing for a while may wait for somebody who
 * waits for us, because all learn of a new order of the workers at different times; or it is stuck.
 */

export const attemptLimits = {
  /** How often an attempt is looked at. */
  lookMs: 100,
  /** So long without a byte, and the next neighbour is asked. */
  stallMs: 1000,
} as const;

export type AttemptVerdict = "go-on" | "stalled" | "reroute";

export type AttemptPlace = {
  /** The workers' order is as it was when the attempt began, or names the same neighbour first. */
  readonly isBest: boolean;
  /** Who is asked brings the block in himself, and is waited for as long as he lives. */
  readonly isClaimant: boolean;
  /** Who is asked feeds nobody any more, because he is slow. */
  readonly isApart: boolean;
};

export class AttemptWatch {
  #bytes: number;
  #changedMs: number;
  #lookedMs: number;

  constructor(bytes: number, nowMs: number) {
    this.#bytes = bytes;
    this.#changedMs = nowMs;
    this.#lookedMs = nowMs;
  }

  look(bytes: number, nowMs: number, { isBest, isClaimant, isApart }: AttemptPlace): AttemptVerdict {
    const { lookMs, stallMs } = attemptLimits;
    // A look that comes late tells of this process: the bytes may lie in the socket.
    if (nowMs - this.#lookedMs > 2 * lookMs) this.#changedMs = nowMs;
    this.#lookedMs = nowMs;
    if (isApart && !isBest && !isClaimant) return "reroute";
    if (bytes !== this.#bytes) {
      this.#bytes = bytes;
      this.#changedMs = nowMs;
      return "go-on";
    }
    const idleMs = nowMs - this.#changedMs;
    if (idleMs > stallMs && !isClaimant) return "stalled";
    return idleMs > lookMs && !isBest ? "reroute" : "go-on";
  }
}
