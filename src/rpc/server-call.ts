/** What a handler knows about its request beside the message, and how it hears that nobody waits any more. */

import type { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { PeerInfo } from "./hello.ts";

export interface RequestContext {
  /** Fires at the deadline, when the client cancels, and when the connection is lost; its reason is a `HeadpondError`. */
  readonly signal: AbortSignal;
  /** On the monotonic clock; Infinity when the client set none. */
  readonly deadlineMs: number;
  /** Until the deadline, never negative; Infinity when there is none. */
  remainingMs(): number;
  /** The address of the other end. */
  readonly remote: string;
  /** What the other end said about itself. */
  readonly peer: PeerInfo;
}

/** A request under way. Most never look at their signal, so it is made when asked for. */
export class ServerCall implements RequestContext {
  readonly id: number;
  readonly methodName: string;
  readonly deadlineMs: number;
  readonly remote: string;
  readonly peer: PeerInfo;
  readonly #clock: Clock;
  #controller: AbortController | undefined;
  #abortedWith: HeadpondError | undefined;

  constructor(id: number, methodName: string, deadlineMs: number, remote: string, peer: PeerInfo, clock: Clock) {
    this.id = id;
    this.methodName = methodName;
    this.deadlineMs = deadlineMs;
    this.remote = remote;
    this.peer = peer;
    this.#clock = clock;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#abortedWith !== undefined) this.#controller.abort(this.#abortedWith);
    }
    return this.#controller.signal;
  }

  get abortedWith(): HeadpondError | undefined {
    return this.#abortedWith;
  }

  remainingMs(): number {
    return this.deadlineMs === Number.POSITIVE_INFINITY
      ? this.deadlineMs
      : Math.max(0, this.deadlineMs - this.#clock.monotonicMs());
  }

  abort(reason: HeadpondError): void {
    if (this.#abortedWith !== undefined) return;
    this.#abortedWith = reason;
    this.#controller?.abort(reason);
  }
}
