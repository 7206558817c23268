/**
 * The client of a group of masters, of which one leads. It finds the leader by asking, follows `not-leader`, remembers it,
 * and tries again what may be tried again, until the call's deadline.
 *
 * A request whose outcome is unknown is only repeated when the caller says `retryUnknown`: for reads, and for changes that
 * carry a session and sequence, so that the same request takes effect once however often it is sent. For others the call
 * ends as `unknown-outcome`. Streams are opened at the leader, and are the caller's to open again once items have come.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Address, Network } from "../io/network.ts";
import { type CallOptions, type ClientLimits, RpcClient } from "./client.ts";
import type { PeerInfo } from "./hello.ts";
import type { Method, Service, StreamMethod } from "./method.ts";

export type ClusterClientLimits = ClientLimits & {
  /** One attempt at one master; beyond, it is asked no longer and its outcome is unknown. */
  readonly attemptTimeoutMs: number;
  /** The wait between attempts doubles from the first to the second, with jitter. */
  readonly retryMinMs: number;
  readonly retryMaxMs: number;
  /** Masters that this client keeps connections to: those it was given, and leaders that it was referred to. */
  readonly mastersMax: number;
};

const defaultClusterLimits = { attemptTimeoutMs: 10_000, retryMinMs: 10, retryMaxMs: 500, mastersMax: 16 };

const noOptions: ClusterCallOptions = Object.freeze({});

/** Redirects followed at once; a longer chain means that the masters disagree, and needs a moment. */
const promptRedirectsMax = 3;

export type ClusterCallOptions = CallOptions & {
  /** Whether the same request may be sent again when it is not known whether it took effect. Default: no. */
  readonly retryUnknown?: boolean;
  /** The request changes nothing: it is repeated as with `retryUnknown`, and its outcome is never unknown. */
  readonly readOnly?: boolean;
};

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
};

export class ClusterClient {
  readonly #options: ClusterClientOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #limits: Partial<ClusterClientLimits> & typeof defaultClusterLimits;
  readonly #timeoutMs: number;
  readonly #follow: boolean;
  /** By `host:port`, in the order in which they are tried. */
  readonly #masters = new Map<string, RpcClient>();
  readonly #given: readonly string[];
  /** Who answered last, or is said to lead. */
  #target: string;
  #closed = false;

  constructor(options: ClusterClientOptions) {
    const [first] = options.addresses;
    if (first === undefined) throw new HeadpondError("invalid", "no address of a master was given");
    this.#options = options;
    this.#clock = options.clock;
    this.#random = options.random ?? new Random(options.clock.wallMs());
    this.#limits = { ...defaultClusterLimits, connectTimeoutMs: 1_000, ...options.limits };
    this.#timeoutMs = this.#limits.timeoutMs ?? 30_000;
    this.#follow = options.follow ?? true;
    this.#given = (this.#follow ? options.addresses : [first]).map(formatAddress);
    this.#target = formatAddress(first);
  }

  /** The master that is asked first: the leader, as far as is known. */
  get target(): Address {
    return parseAddress(this.#target);
  }

  call<Request, Reply>(
    method: Method<Request, Reply>,
    request: NoInfer<Request>,
    options: ClusterCallOptions = noOptions,
  ): Promise<Reply> {
    // Nearly all calls succeed at once, so what further attempts need is made after the first has failed.
    const target = this.#target;
    const startMs = this.#clock.monotonicMs();
    const timeoutMs = Math.min(options.timeoutMs ?? this.#timeoutMs, this.#limits.attemptTimeoutMs);
    return this.#attempt(target, method, request, options.signal, timeoutMs).catch((error: unknown) => {
      const attempts = new Attempts(this.#clock, startMs, options.timeoutMs ?? this.#timeoutMs, options);
      return this.#callAgain(attempts, target, error, method, request, options.signal);
    });
  }

  async #callAgain<Request, Reply>(
    attempts: Attempts,
    asked: string,
    failure: unknown,
    method: Method<Request, Reply>,
    request: NoInfer<Request>,
    signal: AbortSignal | undefined,
  ): Promise<Reply> {
    let target = asked;
    let error = failure;
    for (;;) {
      await this.#recover(attempts, target, method.name, toHeadpondError(error), signal);
      target = this.#target;
      try {
        const timeoutMs = Math.min(attempts.remainingMs(), this.#limits.attemptTimeoutMs);
        return await this.#attempt(target, method, request, signal, timeoutMs);
      } catch (again) {
        error = again;
      }
    }
  }

  #attempt<Request, Reply>(
    target: string,
    method: Method<Request, Reply>,
    request: NoInfer<Request>,
    signal: AbortSignal | undefined,
    timeoutMs: number,
  ): Promise<Reply> {
    if (this.#closed) return Promise.reject(clientClosed());
    return this.#master(target).call(method, request, { signal, timeoutMs });
  }

  /** `timeoutMs` bounds how long a leader is looked for, and the stream itself only when it is given. */
  async *openStream<Request, Item>(
    method: StreamMethod<Request, Item>,
    request: NoInfer<Request>,
    options: CallOptions = {},
  ): AsyncGenerator<Item, void, undefined> {
    const startMs = this.#clock.monotonicMs();
    const attempts = new Attempts(this.#clock, startMs, options.timeoutMs ?? this.#timeoutMs, { readOnly: true });
    for (;;) {
      const target = this.#target;
      let begun = false;
      try {
        const timeoutMs = options.timeoutMs === undefined ? Number.POSITIVE_INFINITY : attempts.remainingMs();
        for await (const item of this.#master(target).openStream(method, request, {
          signal: options.signal,
          timeoutMs,
        })) {
          begun = true;
          yield item;
        }
        return;
      } catch (error) {
        if (begun) throw error;
        await this.#recover(attempts, target, method.name, toHeadpondError(error), options.signal);
      }
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#masters.values()].map((master) => master.close()));
  }

  /** Returns when the call is to be tried again, at `#target`; throws what the caller is to be told otherwise. */
  async #recover(
    attempts: Attempts,
    asked: string,
    methodName: string,
    error: HeadpondError,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (this.#closed || isAborted(signal)) throw attempts.final(error, methodName);
    attempts.note(error);
    let waitMs = 0;
    switch (error.code) {
      case "not-leader":
        if (!this.#follow) throw error;
        waitMs = this.#redirect(attempts, asked, error);
        break;
      case "overloaded":
        waitMs = Math.max(Number(error.details?.["retryAfterMs"] ?? 0), this.#backoff(attempts));
        break;
      case "unavailable":
      case "timeout":
      case "unknown-outcome":
        if (!error.retryable) throw attempts.final(error, methodName);
        if (error.outcome === "unknown" && !attempts.retryUnknown) throw attempts.final(error, methodName);
        this.#moveOn(asked);
        waitMs = attempts.triedAll(this.#given.length) ? this.#backoff(attempts) : 0;
        break;
      default:
        throw error;
    }
    if (attempts.remainingMs() <= waitMs) throw attempts.final(error, methodName);
    if (waitMs > 0) await this.#clock.sleep(waitMs, signal).catch(() => {});
    if (signal?.aborted === true) {
      throw attempts.final(
        new HeadpondError("cancelled", `${methodName}: cancelled`, { cause: signal.reason }),
        methodName,
      );
    }
  }

  /** Turns to the leader that was named, or to the next master. Returns how long to wait first. */
  #redirect(attempts: Attempts, asked: string, error: HeadpondError): number {
    const leader = error.details?.["leader"];
    const named = typeof leader === "string" ? tryFormat(leader) : undefined;
    if (named === undefined || named === asked) {
      this.#moveOn(asked);
      return attempts.triedAll(this.#given.length) ? this.#backoff(attempts) : 0;
    }
    if (this.#target === asked) this.#target = named;
    return attempts.redirects++ < promptRedirectsMax ? 0 : this.#backoff(attempts);
  }

  /** The master that was asked is of no use now: the next one is asked, unless another call has moved on already. */
  #moveOn(asked: string): void {
    if (this.#target !== asked) return;
    const next = (this.#given.indexOf(asked) + 1) % this.#given.length;
    this.#target = this.#given[next] as string;
  }

  #backoff(attempts: Attempts): number {
    const { retryMinMs, retryMaxMs } = this.#limits;
    const backoffMs = Math.min(retryMaxMs, retryMinMs * 2 ** Math.min(attempts.backoffs++, 20));
    return backoffMs * (0.5 + this.#random.float() / 2);
  }

  #master(key: string): RpcClient {
    if (this.#closed) throw clientClosed();
    let master = this.#masters.get(key);
    if (master === undefined) {
      this.#forgetOne();
      const { network, service, self, clock, logger } = this.#options;
      const limits: Partial<ClientLimits> = { backoffMaxMs: this.#limits.retryMaxMs, ...this.#limits };
      master = new RpcClient({
        network,
        address: parseAddress(key),
        service,
        self,
        clock,
        logger,
        random: this.#random,
        limits,
      });
      this.#masters.set(key, master);
    }
    return master;
  }

  /** Makes room for a master that this client was referred to; those it was given stay. */
  #forgetOne(): void {
    if (this.#masters.size < Math.max(this.#limits.mastersMax, this.#given.length + 1)) return;
    for (const [key, master] of this.#masters) {
      if (this.#given.includes(key) || key === this.#target) continue;
      this.#masters.delete(key);
      void master.close();
      return;
    }
  }
}

/** What one call has been through. */
class Attempts {
  readonly retryUnknown: boolean;
  readonly #readOnly: boolean;
  redirects = 0;
  backoffs = 0;
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  #failures = 0;
  /** Whether some attempt may have taken effect. */
  #unknown = false;

  constructor(clock: Clock, startMs: number, timeoutMs: number, options: ClusterCallOptions) {
    this.#clock = clock;
    this.#deadlineMs = startMs + timeoutMs;
    this.#readOnly = options.readOnly ?? false;
    this.retryUnknown = this.#readOnly || (options.retryUnknown ?? false);
  }

  remainingMs(): number {
    return this.#deadlineMs - this.#clock.monotonicMs();
  }

  note(error: HeadpondError): void {
    this.#failures++;
    if (error.outcome === "unknown") this.#unknown = true;
  }

  /** Whether every one of `count` masters has been asked since the last wait. */
  triedAll(count: number): boolean {
    return this.#failures % count === 0;
  }

  /** What the caller is told: an earlier attempt may have taken effect, whatever the last one says. */
  final(error: HeadpondError, methodName: string): HeadpondError {
    const { code, message, details } = error;
    const rest = { cause: error, ...(details === undefined ? {} : { details }) };
    if (this.#readOnly)
      return new HeadpondError(code === "unknown-outcome" ? "timeout" : code, message, { ...rest, outcome: "none" });
    if (!this.#unknown && error.outcome === "none") return error;
    if (code === "cancelled") return new HeadpondError(code, message, { ...rest, outcome: "unknown" });
    return new HeadpondError(
      "unknown-outcome",
      `${methodName}: it is not known whether it took effect: ${message}`,
      rest,
    );
  }
}

/** `host:port`, IPv6 in brackets. */
export function formatAddress(address: Address): string {
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/** Throws `invalid`. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^[\]:/\s]+)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port > 65_535) {
    throw new HeadpondError("invalid", `${JSON.stringify(text.slice(0, 256))} is not an address: write HOST:PORT`);
  }
  return { host, port };
}

function clientClosed(): HeadpondError {
  return new HeadpondError("unavailable", "the client is closed", { retryable: false });
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function tryFormat(text: string): string | undefined {
  try {
    return formatAddress(parseAddress(text));
  } catch {
    return undefined;
  }
}
