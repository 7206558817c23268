/**
 * A client's session: what makes its changes happen exactly once. Every change carries the session and a sequence
 * number that is used for nothing else; sent again after a reconnect or a failover, it is applied once and answered with
 * the first result. The session tells the masters up to which number all answers have arrived, so that they can forget
 * the results below.
 *
 * It is opened by the first change and kept alive while the client lives. If it expires (the process slept, no master
 * could be reached for long), what was in flight has an unknown outcome and is never sent again; later changes get a new
 * session. Leaves out: finding the leader and resending, which is the business of the calls below it.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { SessionId } from "../base/ids.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import { masterService, type Origin } from "../rpc/master-service.ts";
import type { Method } from "../rpc/method.ts";
import type { CallOptions, MasterCallOptions, MasterCalls } from "./master-calls.ts";
import { Watermark } from "./watermark.ts";
import { within } from "./within.ts";

/** Results that the masters must remember for one client: further changes wait until the oldest is answered. */
export const outstandingChangesMax = 4096;
/** Part of a session's life after which it is prolonged, and checked before it is used again. */
const keepAlivePart = 1 / 3;

const noOptions: CallOptions = Object.freeze({});
const retryUnknown: MasterCallOptions = Object.freeze({ retryUnknown: true });

type Opened = {
  readonly id: SessionId;
  readonly sequences: Watermark;
  /** Monotonic time when the last answer's request was sent, and the life that the answer promised from then on. */
  provenMs: number;
  expiresAfterMs: number;
  ended: boolean;
};

export type SessionParts = {
  readonly masters: MasterCalls;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Shown by the masters: who this is. */
  readonly clientName: string;
};

/** A change as callers give it: its origin is the session's business. */
export type Change<Request> = Omit<Request, "origin">;

export class Session {
  readonly #masters: MasterCalls;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #clientName: string;
  #opened: Promise<Opened> | undefined;
  /** What `#opened` gave. */
  #current: Opened | undefined;
  #keepAlive: Timer | undefined;
  #checking: Promise<void> | undefined;
  #closed = false;

  constructor(parts: SessionParts) {
    this.#masters = parts.masters;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
    this.#clientName = parts.clientName;
  }

  /** Makes one change, exactly once. An error whose `outcome` is `unknown` may have taken effect; every other has not. */
  change<Request extends { readonly origin?: Origin }, Reply>(
    method: Method<Request, Reply>,
    request: Change<Request>,
    options: CallOptions = noOptions,
  ): Promise<Reply> {
    // Nearly always there is a session with room, and nothing to wait for.
    const current = this.#current;
    const number = current === undefined || !this.#isUsable(current) ? undefined : current.sequences.nextNow();
    return current !== undefined && number !== undefined
      ? this.#send(method, request, options, current, number)
      : this.#sendLater(method, request, options);
  }

  async #sendLater<Request extends { readonly origin?: Origin }, Reply>(
    method: Method<Request, Reply>,
    request: Change<Request>,
    options: CallOptions,
  ): Promise<Reply> {
    const { session, sequence } = await within(this.#number(), this.#clock, options, `session for ${method.name}`);
    return this.#send(method, request, options, session, sequence);
  }

  #send<Request extends { readonly origin?: Origin }, Reply>(
    method: Method<Request, Reply>,
    request: Change<Request>,
    options: CallOptions,
    session: Opened,
    sequence: number,
  ): Promise<Reply> {
    const origin: Origin = { sessionId: session.id, sequence, acknowledged: session.sequences.acknowledged };
    const isPlain = options.signal === undefined && options.timeoutMs === undefined;
    const callOptions = isPlain ? retryUnknown : { ...options, retryUnknown: true };
    // Answered or given up: either way nobody will ask for this result again, and a late copy of the request is refused.
    return this.#masters.call(method, { ...request, origin } as Request, callOptions).then(
      (reply) => {
        session.sequences.settle(sequence);
        return reply;
      },
      (error: unknown) => {
        // The masters answer `unknown` to a request of an expired session: find out before the next change is sent.
        if (isHeadpondError(error, "unknown-outcome")) this.#suspect(session);
        session.sequences.settle(sequence);
        throw error;
      },
    );
  }

  /** Ends the session; the masters forget its results. A master that cannot be reached lets it expire. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#keepAlive?.clear();
    const session = await this.#opened?.catch(() => undefined);
    if (session === undefined || session.ended) return;
    session.ended = true;
    await this.#masters
      .call(masterService.methods.closeSession, { sessionId: session.id }, { timeoutMs: 1000 })
      .catch((error: unknown) => this.#logger.debug("session left to expire", { error }));
  }

  async #number(): Promise<{ readonly session: Opened; readonly sequence: number }> {
    for (;;) {
      const session = await this.#usable();
      const sequence = await session.sequences.next();
      if (sequence !== undefined) return { session, sequence };
    }
  }

  /** A session that the masters still knew not long ago. */
  async #usable(): Promise<Opened> {
    for (;;) {
      if (this.#closed) throw new HeadpondError("cancelled", "the client is closed: connect again");
      this.#opened ??= this.#open();
      const opening = this.#opened;
      let session: Opened;
      try {
        session = await opening;
      } catch (error) {
        if (this.#opened === opening) this.#opened = undefined;
        throw error;
      }
      if (!session.ended && !this.#isUsable(session)) await this.#check(session);
      if (!session.ended) {
        this.#current = session;
        return session;
      }
      if (this.#opened === opening) this.#opened = undefined;
    }
  }

  /** After a pause of the whole process the timers are late: ask before a change is risked on a dead session. */
  #isUsable(session: Opened): boolean {
    if (session.ended || this.#closed) return false;
    return this.#clock.monotonicMs() - session.provenMs <= session.expiresAfterMs * 2 * keepAlivePart;
  }

  async #open(): Promise<Opened> {
    const provenMs = this.#clock.monotonicMs();
    const { openSession } = masterService.methods;
    const { sessionId, expiresAfterMs } = await this.#masters
      // A session that nobody knows of expires by itself.
      .call(openSession, { client: this.#clientName }, { retryUnknown: true })
      .catch((error: unknown) => {
        if (!isHeadpondError(error, "timeout", "unknown-outcome")) throw error;
        // What was wanted was never sent.
        throw new HeadpondError("unavailable", "no master answered in time: nothing was changed, try again", {
          cause: error,
        });
      });
    const session: Opened = {
      id: sessionId,
      sequences: new Watermark(outstandingChangesMax),
      provenMs,
      expiresAfterMs,
      ended: false,
    };
    this.#scheduleKeepAlive(session);
    return session;
  }

  #scheduleKeepAlive(session: Opened): void {
    if (this.#closed || session.ended) return;
    this.#keepAlive?.clear();
    this.#keepAlive = this.#clock.timer(session.expiresAfterMs * keepAlivePart, () => {
      this.#check(session)
        .catch((error: unknown) => this.#logger.debug("session could not be prolonged yet", { error }))
        .finally(() => this.#scheduleKeepAlive(session));
    });
  }

  #suspect(session: Opened): void {
    session.provenMs = Number.NEGATIVE_INFINITY;
  }

  /** Prolongs the session, or marks it ended when the masters do not know it any more. Throws when none can be asked. */
  async #check(session: Opened): Promise<void> {
    if (session.ended) return;
    this.#checking ??= this.#prolong(session).finally(() => {
      this.#checking = undefined;
    });
    await this.#checking;
  }

  async #prolong(session: Opened): Promise<void> {
    const sentMs = this.#clock.monotonicMs();
    try {
      const { expiresAfterMs } = await this.#masters.call(
        masterService.methods.keepSession,
        { sessionId: session.id, acknowledged: session.sequences.acknowledged },
        { timeoutMs: Math.max(1000, session.expiresAfterMs * keepAlivePart), readOnly: true },
      );
      session.provenMs = sentMs;
      session.expiresAfterMs = expiresAfterMs;
    } catch (error) {
      if (!isHeadpondError(error, "not-found", "unknown-outcome", "invalid", "compacted")) throw error;
      session.ended = true;
      session.sequences.end();
      this.#keepAlive?.clear();
      this.#logger.info("session has expired; the next change opens another", { sessionId: session.id });
    }
  }
}
