/**
 * Keeps one connection to a peer: dials, and dials again when it breaks, at once and then with growing pauses. Somebody
 * who hears of the peer by another way cuts the pause short: a master that was restarted is back as soon as it dials.
 */

import type { Random } from "../base/random.ts";
import type { Logger } from "../io/logger.ts";
import type { PeerConnection } from "./peer-connection.ts";
import { type DialEnd, type DialOptions, dialPeer } from "./peer-dial.ts";
import type { PeerIdentity } from "./peers.ts";

export type BackoffLimits = { readonly backoffMinMs: number; readonly backoffMaxMs: number };

/** A connection that lived so long was a good one: the pauses begin anew. */
const provenMs = 1_000;

export class PeerLane {
  readonly #dial: Omit<DialOptions, "onOpen">;
  readonly #backoff: BackoffLimits;
  readonly #random: Random;
  readonly #logger: Logger;
  readonly #onOpen: (connection: PeerConnection, peer: PeerIdentity) => void;
  readonly #onEnd: (end: DialEnd) => void;
  readonly #closing = new AbortController();
  readonly #loop: Promise<void>;
  #connection: PeerConnection | undefined;
  /** Ends the present pause. */
  #wake: (() => void) | undefined;

  constructor(options: {
    readonly dial: Omit<DialOptions, "onOpen">;
    readonly backoff: BackoffLimits;
    readonly random: Random;
    readonly logger: Logger;
    readonly onOpen: (connection: PeerConnection, peer: PeerIdentity) => void;
    /** After every attempt and every connection that ended, but not by `close`. */
    readonly onEnd: (end: DialEnd) => void;
  }) {
    this.#dial = options.dial;
    this.#backoff = options.backoff;
    this.#random = options.random;
    this.#logger = options.logger;
    this.#onOpen = options.onOpen;
    this.#onEnd = options.onEnd;
    this.#loop = this.#run();
  }

  /** `undefined`: there is none at the moment. */
  get connection(): PeerConnection | undefined {
    return this.#connection?.isClosed === false ? this.#connection : undefined;
  }

  /** The peer has just been heard of: it is worth an attempt now. */
  hurry(): void {
    this.#wake?.();
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error("closing"));
    this.#wake?.();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    const { clock } = this.#dial;
    let failures = 0;
    let lastReason: string | undefined;
    while (!signal.aborted) {
      const startedMs = clock.monotonicMs();
      const end = await dialPeer({ ...this.#dial, onOpen: (...open) => this.#opened(...open) }, signal);
      this.#connection = undefined;
      if (signal.aborted) return;
      // The same failure is told once, however often it is met.
      if (end.reason !== lastReason || end.wasOpen) this.#tell(end);
      lastReason = end.reason;
      this.#onEnd(end);
      failures = end.wasOpen && clock.monotonicMs() - startedMs >= provenMs ? 0 : failures + 1;
      await this.#pause(failures, end.refusal !== undefined);
    }
  }

  #opened(connection: PeerConnection, peer: PeerIdentity): void {
    this.#connection = connection;
    this.#onOpen(connection, peer);
  }

  #tell({ reason, wasOpen, refusal }: DialEnd): void {
    const { to, address, lane } = this.#dial;
    const fields = { peer: to, address: `${address.host}:${address.port}`, lane, reason };
    if (refusal !== undefined) this.#logger.warn("a master and a peer refuse each other", fields);
    else if (wasOpen) this.#logger.warn("the connection to a peer broke", fields);
    else this.#logger.info("a peer cannot be reached, and is tried again", fields);
  }

  /** The first attempt after a break is made almost at once; a refusal will not pass by itself soon. */
  #pause(failures: number, wasRefused: boolean): Promise<void> {
    const { backoffMinMs, backoffMaxMs } = this.#backoff;
    const growing = Math.min(backoffMaxMs, backoffMinMs * 2 ** Math.min(failures, 20));
    const pauseMs = (wasRefused ? backoffMaxMs : growing) * (0.5 + this.#random.float() / 2);
    return new Promise((resolve) => {
      const timer = this.#dial.clock.timer(pauseMs, () => this.#wake?.());
      this.#wake = () => {
        this.#wake = undefined;
        timer.clear();
        resolve();
      };
    });
  }
}
