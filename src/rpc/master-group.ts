/**
 * The masters as one client has them: a connection to each that is asked, what it believes about them, and the one that it asks
 * first. It listens to all of them, so it hears of a new leader from whoever hears of it first; at that moment all that
 * waits at the old one is let go, whether or not that one's connection still stands: a stopped process closes nothing.
 */

import type { HeadpondError } from "../base/errors.ts";
import type { MasterList } from "../base/masters.ts";
import type { Random } from "../base/random.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Network } from "../io/network.ts";
import { normaliseAddress, parseAddress } from "./address.ts";
import { type ClientLimits, RpcClient } from "./client.ts";
import type { PeerInfo } from "./hello.ts";
import { MasterDirectory } from "./master-directory.ts";
import { MastersWatch } from "./masters-watch.ts";
import type { Service, StreamMethod } from "./method.ts";

export type MasterGroupLimits = {
  /** Masters that connections are kept to. */
  readonly mastersMax: number;
  /** Masters are listened to from so long after the first call: a client that asks one thing and ends does not. */
  readonly watchDelayMs: number;
  /** A master that failed is passed over for so long by reads that any master may answer. */
  readonly restMs: number;
};

export type MasterGroupOptions = {
  readonly network: Network;
  /** `host:port`, at least one. */
  readonly seeds: readonly [string, ...string[]];
  readonly service: Service;
  readonly self: PeerInfo;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: Random;
  readonly limits: MasterGroupLimits;
  readonly clientLimits: Partial<ClientLimits>;
  /** How masters tell who they are; absent: they are not listened to. */
  readonly mastersMethod: StreamMethod<object, MasterList> | undefined;
};

export class MasterGroup {
  readonly directory: MasterDirectory;
  readonly #options: MasterGroupOptions;
  readonly #clock: Clock;
  /** By `host:port`. */
  readonly #clients = new Map<string, RpcClient>();
  readonly #watch: MastersWatch | undefined;
  #isWatching = false;
  /** Masters whose streams are open. */
  readonly #heard = new Set<string>();
  #watchTimer: Timer | undefined;
  /** Monotonic times up to which masters are passed over. */
  readonly #restingUntilMs = new Map<string, number>();
  #turn: number;
  #target: string;
  /** Called when something was learned. */
  readonly #waiting = new Set<() => void>();
  #closed = false;

  constructor(options: MasterGroupOptions) {
    const { seeds, clock, random, mastersMethod } = options;
    this.#options = options;
    this.#clock = clock;
    this.directory = new MasterDirectory(seeds);
    this.#target = seeds[0];
    this.#turn = Math.floor(random.float() * 1024);
    if (mastersMethod === undefined) return;
    this.#watch = new MastersWatch({
      open: (address, signal) => this.client(address).openStream(mastersMethod, {}, { signal }),
      onList: (from, list) => this.#learn(from, list),
      onLost: (from) => this.#onLost(from),
      clock,
      random,
    });
  }

  /** Who is asked first: the leader, as far as is known. */
  get target(): string {
    return this.#target;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** The connection to one of them, made when it is needed. Not after `close`. */
  client(address: string): RpcClient {
    let client = this.#clients.get(address);
    if (client === undefined) {
      this.#forgetOne();
      const { network, service, self, clock, logger, random, clientLimits: limits } = this.#options;
      const onQuiet = (): void => this.#onQuiet(address);
      const parts = { network, address: parseAddress(address), service, self, clock, logger, random, limits, onQuiet };
      client = new RpcClient(parts);
      this.#clients.set(address, client);
    }
    return client;
  }

  /** Something was asked: the masters are listened to soon. */
  listenSoon(): void {
    if (this.#isWatching || this.#watch === undefined || this.#watchTimer !== undefined || this.#closed) return;
    this.#watchTimer = this.#clock.timer(this.#options.limits.watchDelayMs, () => this.listen());
  }

  /** Something failed, or must be known: the masters are listened to now. */
  listen(): void {
    if (this.#watch === undefined || this.#closed) return;
    this.#isWatching = true;
    const { members, isComplete, addresses } = this.directory;
    // As long as a master tells who they are, addresses that were given and are none of theirs are not tried for ever.
    const known = isComplete && this.#heard.size > 0 ? members.values() : addresses;
    this.#watch.watch([...new Set([this.#target, ...known])]);
  }

  /** The one that was asked does not lead, it says. Whether somebody else is asked now. */
  redirect(asked: string, error: HeadpondError): boolean {
    const { leader, term } = error.details ?? {};
    const said = typeof term === "number" && Number.isSafeInteger(term) ? term : undefined;
    const named = typeof leader === "string" ? normaliseAddress(leader) : undefined;
    // One that names itself was elected and is about to lead; one that names no term may lead on in it: it wanted to hand over.
    if (named !== asked && said !== undefined) this.directory.deny(asked, said);
    if (named !== undefined && named !== asked && this.directory.hint(named, said)) this.#followLeader();
    if (this.#target === asked && this.directory.leader !== undefined) this.#target = this.directory.leader;
    return this.#target !== asked;
  }

  /** The one that was asked is of no use now: the next one is, unless somebody has moved on already. */
  moveOn(asked: string): void {
    if (this.#target !== asked) return;
    const { addresses } = this.directory;
    this.#target = addresses[(addresses.indexOf(asked) + 1) % addresses.length] as string;
  }

  /** Waits so long at most: less when another one leads than at the call, or has taken over (true), or the signal fires. */
  async untilLeader(waitMs: number, signal: AbortSignal | undefined): Promise<boolean> {
    const { directory } = this;
    const { leader, term, readyTerm } = directory;
    const isNew = (): boolean =>
      directory.leader !== undefined &&
      (directory.term !== term || directory.leader !== leader || directory.readyTerm !== readyTerm);
    await this.#until(isNew, waitMs, signal);
    return isNew();
  }

  /** Waits so long at most for masters to have told who they are. */
  async untilMembersKnown(waitMs: number, signal: AbortSignal | undefined, id?: string): Promise<void> {
    if (this.#watch === undefined) return;
    const { directory } = this;
    const isKnown = (): boolean =>
      directory.isComplete || (id === undefined ? directory.members.size > 0 : directory.members.has(id));
    if (isKnown()) return;
    this.listen();
    await this.#until(isKnown, waitMs, signal);
  }

  /** One after the other of those that have not failed lately. */
  next(): string {
    const nowMs = this.#clock.monotonicMs();
    const { members, addresses } = this.directory;
    const all = members.size > 0 ? [...members.values()] : addresses;
    const awake = all.filter((address) => (this.#restingUntilMs.get(address) ?? nowMs) <= nowMs);
    const candidates = awake.length > 0 ? awake : all;
    return candidates[this.#turn++ % candidates.length] as string;
  }

  /** It failed: `next` passes it over for a while. */
  rest(address: string): void {
    this.#restingUntilMs.set(address, this.#clock.monotonicMs() + this.#options.limits.restMs);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watchTimer?.clear();
    this.#wake();
    const watch = this.#watch?.close();
    await Promise.all([...this.#clients.values()].map((client) => client.close()));
    await watch;
  }

  #onLost(from: string): void {
    this.directory.unreachable(from);
    this.#heard.delete(from);
    if (this.#heard.size === 0) this.listen();
  }

  #learn(from: string, list: MasterList): void {
    if (this.#closed) return;
    this.#heard.add(from);
    const isNews = this.directory.note(from, list);
    this.#restingUntilMs.delete(from);
    this.listen();
    if (isNews) this.#followLeader();
    this.#wake();
  }

  #followLeader(): void {
    const { leader, term } = this.directory;
    if (leader === undefined) return;
    const old = this.#target;
    this.#target = leader;
    if (old !== leader) {
      this.#options.logger.debug("another master leads", { leader, before: old, term });
      this.#clients.get(old)?.retreat(`${old} leads no more: ${leader} does, in term ${term}`);
    }
    this.#wake();
  }

  /** Calls wait at a master that gives no sign of life. A leader may come back, or be replaced; another one is not waited for. */
  #onQuiet(address: string): void {
    if (this.#closed) return;
    this.listen();
    const { leader } = this.directory;
    if (address === this.#target) {
      if (leader === undefined || leader === address) return;
      this.#target = leader;
    }
    this.rest(address);
    this.#clients.get(address)?.retreat(`no sign of life from ${address}`);
  }

  /** Until what is waited for is there, the time is over, the signal fires, or the client is closed. */
  async #until(isThere: () => boolean, waitMs: number, signal: AbortSignal | undefined): Promise<void> {
    const endMs = this.#clock.monotonicMs() + waitMs;
    while (!this.#closed && signal?.aborted !== true && !isThere()) {
      const leftMs = endMs - this.#clock.monotonicMs();
      if (leftMs <= 0) return;
      const pause = new AbortController();
      const wake = (): void => pause.abort();
      this.#waiting.add(wake);
      signal?.addEventListener("abort", wake, { once: true });
      await this.#clock.sleep(leftMs, pause.signal).catch(() => {});
      this.#waiting.delete(wake);
      signal?.removeEventListener("abort", wake);
    }
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  /** Makes room for a master that this client was referred to; those it knows to be masters stay. */
  #forgetOne(): void {
    const { addresses } = this.directory;
    if (this.#clients.size < Math.max(this.#options.limits.mastersMax, addresses.length + 1)) return;
    for (const [address, client] of this.#clients) {
      if (addresses.includes(address) || address === this.#target) continue;
      this.#clients.delete(address);
      void client.close();
      return;
    }
  }
}
