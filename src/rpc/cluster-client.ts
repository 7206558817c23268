/**
 * The client of a group of masters, of which one leads. It finds the leader, follows it, and tries again what may be tried
 * again, until the call's deadline. It needs to be given one master only: the masters tell who they are (master-group.ts).
 *
 * A request whose outcome is unknown is only repeated when the caller says `retryUnknown`: for reads, and for changes that
 * carry a session and sequence, so that the same request takes effect once however often it is sent. For others the call
 * ends as `unknown-outcome`. Streams are opened at the leader, and are the caller's to open again once items have come.
 */

import { type ErrorCode, HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { MasterList } from "../base/masters.ts";
import { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Address, Network } from "../io/network.ts";
import { formatAddress, parseAddress } from "./address.ts";
import { Attempts } from "./attempts.ts";
import type { CallOptions, ClientLimits } from "./client.ts";
import type { PeerInfo } from "./hello.ts";
import { MasterGroup, type MasterGroupLimits } from "./master-group.ts";
import type { Method, Service, StreamMethod } from "./method.ts";

export type ClusterClientLimits = ClientLimits &
  MasterGroupLimits & {
    /** One attempt at one master; beyond, it is asked no longer and its outcome is unknown. */
    readonly attemptTimeoutMs: number;
    /** The wait between attempts doubles from the first to the second, with jitter; news of a leader end it. */
    readonly retryMinMs: number;
    readonly retryMaxMs: number;
  };

const defaultClusterLimits = {
  attemptTimeoutMs: 10_000,
  retryMinMs: 10,
  retryMaxMs: 500,
  mastersMax: 16,
  watchDelayMs: 100,
  restMs: 1_000,
  connectTimeoutMs: 1_000,
  busyPingIntervalMs: 100,
  quietMs: 300,
};

const noOptions: ClusterCallOptions = Object.freeze({});

/** Redirects followed at once; a longer chain means that the masters disagree, and needs a moment. */
const promptRedirectsMax = 3;
/** A read that any master may answer waits so long to hear who they are, then asks one of those that were given. */
const membersWaitMs = 200;

/** Which master answers: the one that leads, whichever, or one by its id. */
export type ReadFrom = "leader" | "any" | { readonly master: string };

export type ClusterCallOptions = Omit<CallOptions, "repeatable"> & {
  /** Whether the same request may be sent again when it is not known whether it took effect. Default: no. */
  readonly retryUnknown?: boolean;
  /** The request changes nothing: it is repeated as with `retryUnknown`, and its outcome is never unknown. */
  readonly readOnly?: boolean;
  /** Of reads. Default: the leader. What only a leader can answer is asked of the leader also with `any`. */
  readonly from?: ReadFrom;
  /**
   * The work itself takes long: one attempt may take all the time of the call. A master that hangs is noticed all the same, and a leader
   * is looked for no longer than otherwise.
   */
  readonly isLong?: boolean;
};

export type ClusterStreamOptions = Omit<CallOptions, "repeatable"> & { readonly from?: ReadFrom };

export type ClusterClientOptions = {
  readonly network: Network;
  /** At least one master. */
  readonly addresses: readonly Address[];
  readonly service: Service;
  readonly self: PeerInfo;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random?: Random;
  readonly limits?: Partial<ClusterClientLimits>;
  /** False: asks only the first address and takes `not-leader` for an answer. */
  readonly follow?: boolean;
  /** How the masters tell who they are; absent: only those that are given, or named by others, are known. */
  readonly mastersMethod?: StreamMethod<object, MasterList>;
};

export class ClusterClient {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #limits: Partial<ClusterClientLimits> & typeof defaultClusterLimits;
  readonly #timeoutMs: number;
  readonly #follow: boolean;
  readonly #group: MasterGroup;

  constructor(options: ClusterClientOptions) {
    const [first, ...others] = options.addresses.map(formatAddress);
    if (first === undefined) throw new HeadpondError("invalid", "no address of a master was given");
    const { network, service, self, clock, logger } = options;
    this.#clock = clock;
    this.#random = options.random ?? new Random(clock.wallMs());
    this.#limits = { ...defaultClusterLimits, ...options.limits };
    this.#timeoutMs = this.#limits.timeoutMs ?? 30_000;
    this.#follow = options.follow ?? true;
    this.#group = new MasterGroup({
      network,
      seeds: this.#follow ? [first, ...others] : [first],
      service,
      self,
      clock,
      logger,
      random: this.#random,
      limits: this.#limits,
      clientLimits: { backoffMaxMs: this.#limits.retryMaxMs, ...this.#limits },
      mastersMethod: this.#follow ? options.mastersMethod : undefined,
    });
  }

  /** The master that is asked first: the leader, as far as is known. */
  get target(): Address {
    return parseAddress(this.#group.target);
  }

  call<Request, Reply>(
    method: Method<Request, Reply>,
    request: NoInfer<Request>,
    options: ClusterCallOptions = noOptions,
  ): Promise<Reply> {
    const startMs = this.#clock.monotonicMs();
    const timeoutMs = options.timeoutMs ?? this.#timeoutMs;
    this.#group.listenSoon();
    if (options.from !== undefined && options.from !== "leader" && this.#follow) {
      return this.#callFrom(options.from, startMs, timeoutMs, method, request, options);
    }
    // Nearly all calls succeed at once, so what further attempts need is made after the first has failed.
    const { target } = this.#group;
    const attemptMs = this.#attemptMs(timeoutMs, options);
    return this.#attempt(target, method, request, options, attemptMs).catch((error: unknown) => {
      const patienceMs = options.isLong === true ? Math.min(timeoutMs, this.#timeoutMs) : timeoutMs;
      const attempts = new Attempts(this.#clock, startMs, patienceMs, options);
      return this.#callAgain(attempts, target, error, method, request, options);
    });
  }

  async #callAgain<Request, Reply>(
    attempts: Attempts,
    asked: string,
    failure: unknown,
    method: Method<Request, Reply>,
    request: NoInfer<Request>,
    options: ClusterCallOptions,
  ): Promise<Reply> {
    let target = asked;
    let error = failure;
    for (;;) {
      await this.#recover(attempts, target, method.name, toHeadpondError(error), options.signal);
      target = this.#group.target;
      try {
        const attemptMs = this.#attemptMs(attempts.remainingMs(), options);
        return await this.#attempt(target, method, request, options, attemptMs);
      } catch (again) {
        error = again;
      }
    }
  }

  /** A read that need not go to the leader. */
  async #callFrom<Request, Reply>(
    from: Exclude<ReadFrom, "leader">,
    startMs: number,
    timeoutMs: number,
    method: Method<Request, Reply>,
    request: NoInfer<Request>,
    options: ClusterCallOptions,
  ): Promise<Reply> {
    const read = { ...options, readOnly: true };
    const attempts = new Attempts(this.#clock, startMs, timeoutMs, read);
    for (;;) {
      const address = await this.#choose(from, attempts, method.name, options.signal);
      try {
        const attemptMs = this.#attemptMs(attempts.remainingMs(), options);
        return await this.#attempt(address, method, request, read, attemptMs);
      } catch (thrown) {
        const error = toHeadpondError(thrown);
        if (error.code === "not-leader" && from === "any") {
          return this.#callAgain(attempts, address, error, method, request, read);
        }
        await this.#recoverElsewhere(attempts, address, method.name, error, options.signal);
      }
    }
  }

  #attemptMs(remainingMs: number, { isLong, timeoutMs }: ClusterCallOptions): number {
    if (isLong === true) return timeoutMs ?? this.#timeoutMs;
    return Math.min(remainingMs, this.#limits.attemptTimeoutMs);
  }

  #attempt<Request, Reply>(
    address: string,
    method: Method<Request, Reply>,
    request: NoInfer<Request>,
    options: ClusterCallOptions,
    timeoutMs: number,
  ): Promise<Reply> {
    if (this.#group.isClosed) return Promise.reject(clientClosed());
    const { signal, retryUnknown, readOnly } = options;
    const repeatable = retryUnknown === true || readOnly === true;
    return this.#group.client(address).call(method, request, { signal, timeoutMs, repeatable });
  }

  /** `timeoutMs` bounds how long a master is looked for, and the stream itself only when it is given. */
  async *openStream<Request, Item>(
    method: StreamMethod<Request, Item>,
    request: NoInfer<Request>,
    options: ClusterStreamOptions = {},
  ): AsyncGenerator<Item, void, undefined> {
    const { signal } = options;
    const startMs = this.#clock.monotonicMs();
    const attempts = new Attempts(this.#clock, startMs, options.timeoutMs ?? this.#timeoutMs, { readOnly: true });
    let from: ReadFrom = this.#follow ? (options.from ?? "leader") : "leader";
    for (;;) {
      this.#group.listenSoon();
      const address = from === "leader" ? this.#group.target : await this.#choose(from, attempts, method.name, signal);
      let begun = false;
      try {
        if (this.#group.isClosed) throw clientClosed();
        const timeoutMs = options.timeoutMs === undefined ? Number.POSITIVE_INFINITY : attempts.remainingMs();
        for await (const item of this.#group.client(address).openStream(method, request, { signal, timeoutMs })) {
          begun = true;
          yield item;
        }
        return;
      } catch (thrown) {
        if (begun) throw thrown;
        const error = toHeadpondError(thrown);
        if (error.code === "not-leader" && from === "any") from = "leader";
        if (from === "leader") await this.#recover(attempts, address, method.name, error, signal);
        else await this.#recoverElsewhere(attempts, address, method.name, error, signal);
      }
    }
  }

  async close(): Promise<void> {
    await this.#group.close();
  }

  /** Returns when the call is to be tried again, at the target; throws what the caller is to be told otherwise. */
  async #recover(
    attempts: Attempts,
    asked: string,
    methodName: string,
    error: HeadpondError,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (this.#group.isClosed || isAborted(signal)) throw attempts.final(error, methodName);
    attempts.note(error);
    let waitMs = 0;
    const { code } = error;
    switch (code) {
      case "not-leader":
        if (!this.#follow) throw error;
        this.#group.listen();
        this.#group.redirect(asked, error);
        waitMs = this.#moveOn(attempts, asked);
        break;
      case "overloaded":
        waitMs = Math.max(Number(error.details?.["retryAfterMs"] ?? 0), this.#backoff(attempts));
        break;
      case "unavailable":
      case "timeout":
      case "unknown-outcome":
        if (!error.retryable) throw attempts.final(error, methodName);
        if (error.outcome === "unknown" && !attempts.retryUnknown) throw attempts.final(error, methodName);
        this.#group.listen();
        waitMs = this.#moveOn(attempts, asked);
        break;
      default:
        // What the state answers is the answer of the first attempt, too. A master that could not even ask it knows nothing of that one.
        throw error.retryable || isDefect(code) ? attempts.final(error, methodName) : error;
    }
    if (attempts.remainingMs() <= waitMs) throw attempts.final(error, methodName);
    if (waitMs > 0 && (await this.#group.untilLeader(waitMs, signal))) attempts.startAnew();
    if (isAborted(signal)) throw cancelled(attempts, methodName, signal);
  }

  /** To whom another call has moved already, or to the next one. Returns how long to wait first. */
  #moveOn(attempts: Attempts, asked: string): number {
    if (this.#group.target !== asked) return attempts.redirects++ < promptRedirectsMax ? 0 : this.#backoff(attempts);
    this.#group.moveOn(asked);
    return attempts.triedAll(this.#group.directory.addresses.length) ? this.#backoff(attempts) : 0;
  }

  /** As `#recover`, for reads that are not bound to the leader. */
  async #recoverElsewhere(
    attempts: Attempts,
    asked: string,
    methodName: string,
    error: HeadpondError,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (this.#group.isClosed || isAborted(signal)) throw attempts.final(error, methodName);
    attempts.note(error);
    if (!error.retryable || error.code === "not-leader") throw attempts.final(error, methodName);
    this.#group.rest(asked);
    this.#group.listen();
    const retryAfterMs = error.code === "overloaded" ? Number(error.details?.["retryAfterMs"] ?? 0) : 0;
    const isRound = attempts.triedAll(this.#group.directory.addresses.length);
    const waitMs = Math.max(retryAfterMs, isRound ? this.#backoff(attempts) : 0);
    if (attempts.remainingMs() <= waitMs) throw attempts.final(error, methodName);
    if (waitMs > 0 && (await this.#group.untilLeader(waitMs, signal))) attempts.startAnew();
    if (isAborted(signal)) throw cancelled(attempts, methodName, signal);
  }

  /** Where to read: in turn at those that answered, or at the one that was named, once it is known where that is. */
  async #choose(
    from: Exclude<ReadFrom, "leader">,
    attempts: Attempts,
    methodName: string,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const { directory } = this.#group;
    const isAny = from === "any";
    const waitMs = isAny ? Math.min(membersWaitMs, attempts.remainingMs()) : attempts.remainingMs();
    await this.#group.untilMembersKnown(waitMs, signal, isAny ? undefined : from.master);
    if (isAborted(signal)) throw cancelled(attempts, methodName, signal);
    if (isAny) return this.#group.next();
    const address = directory.members.get(from.master);
    if (address !== undefined) return address;
    const known = [...directory.members.keys()].join(", ");
    // Not `not-found`: who asks for a path would take it for the answer of a master.
    throw directory.isComplete
      ? new HeadpondError("unavailable", `${from.master} is no master of this cluster: there are ${known}`)
      : new HeadpondError("unavailable", `no master told where ${from.master} is: check the addresses of the masters`);
  }

  #backoff(attempts: Attempts): number {
    const { retryMinMs, retryMaxMs } = this.#limits;
    const backoffMs = Math.min(retryMaxMs, retryMinMs * 2 ** Math.min(attempts.backoffs++, 20));
    return backoffMs * (0.5 + this.#random.float() / 2);
  }
}

function cancelled(attempts: Attempts, methodName: string, signal: AbortSignal | undefined): HeadpondError {
  const error = new HeadpondError("cancelled", `${methodName}: cancelled`, { cause: signal?.reason });
  return attempts.final(error, methodName);
}

function clientClosed(): HeadpondError {
  return new HeadpondError("unavailable", "the client is closed", { retryable: false });
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function isDefect(code: ErrorCode): boolean {
  return code === "internal" || code === "corrupt" || code === "cancelled";
}
