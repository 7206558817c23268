/**
 * Masters in memory, as clients see them: a network that can hang and break, a clock that a test moves, and one shared log that
 * stands for all that consensus does. Who leads, who knows of it, and what becomes of a request is the test's to say.
 */

import Type from "typebox";
import { HeadpondError } from "../base/errors.ts";
import type { MasterId } from "../base/ids.ts";
import { MasterList } from "../base/masters.ts";
import { Random } from "../base/random.ts";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { MemoryNetwork } from "../io/memory-network.ts";
import type { Listener, Network } from "../io/network.ts";
import { ClusterClient, type ClusterClientOptions } from "./cluster-client.ts";
import { service, stream, unary } from "./method.ts";
import { type Handlers, RpcServer } from "./server.ts";

export const ledgerService = service("ledger", 1, {
  /** Once for each key; without one, as often as it comes. */
  put: unary(
    "put",
    Type.Object({ key: Type.Optional(Type.String()), text: Type.String() }),
    Type.Object({ index: Type.Integer() }),
  ),
  who: unary("who", Type.Object({}), Type.Object({ id: Type.String() })),
  masters: stream("masters", Type.Object({}), MasterList),
});
type LedgerHandlers = Handlers<typeof ledgerService.methods>;

export const latencyMs = 1;

export class Master {
  readonly id: MasterId;
  /** Also its host. */
  readonly address: string;
  /** What it knows of who leads; its own leadership included. */
  knows: { readonly leader: Master | undefined; readonly term: number } = { leader: undefined, term: 0 };
  asked = 0;
  /** A leader that was elected and does not answer as one yet. */
  takesOver = false;
  /** Runs at a leader when a request was applied and is not answered yet. */
  onApplied: () => Promise<void> | void = () => {};
  readonly #ledger: Ledger;
  readonly #wakes = new Set<() => void>();
  #server: RpcServer<typeof ledgerService.methods> | undefined;
  #listeners: Listener[] = [];

  constructor(ledger: Ledger, id: string) {
    this.#ledger = ledger;
    this.id = id as MasterId;
    this.address = `${id}:7070`;
  }

  async start(): Promise<void> {
    const inner = this.#ledger.network.at(this.id);
    const network: Network = {
      connect: (address, signal) => inner.connect(address, signal),
      listen: async (address, accept) => {
        const listener = await inner.listen(address, accept);
        this.#listeners.push(listener);
        return listener;
      },
    };
    const handlers = this.#handlers();
    const self = { software: "1", role: "master", name: this.id };
    const { clock } = this.#ledger;
    this.#server = new RpcServer({ service: ledgerService, handlers, self, clock, logger: silentLogger });
    await this.#server.listen(network, { host: this.id, port: 7070 });
  }

  /** As kill -9: connections break, and new ones are refused. */
  async kill(): Promise<void> {
    for (const listener of this.#listeners.splice(0)) await listener.close();
    this.#ledger.network.cut("client", this.id);
  }

  /** As SIGSTOP: connections stay and carry nothing; what is sent arrives after `thaw`. */
  hang(): void {
    this.#ledger.network.partition("client", this.id);
  }

  /** It hears of a leader (or that there is none any more), and tells who listens. */
  hear(leader: Master | undefined, term: number): void {
    this.knows = { leader, term };
    this.changed();
  }

  changed(): void {
    const wakes = [...this.#wakes];
    this.#wakes.clear();
    for (const wake of wakes) wake();
  }

  async close(): Promise<void> {
    await this.#server?.close();
  }

  #handlers(): LedgerHandlers {
    return {
      put: async (request) => {
        this.asked++;
        const { leader, term } = this.knows;
        if (leader !== this) {
          const details = leader === undefined ? { term } : { leader: leader.address, term };
          throw new HeadpondError("not-leader", `${this.id} does not lead`, { details });
        }
        if (this.takesOver) throw new HeadpondError("overloaded", "takes over", { details: { retryAfterMs: 5 } });
        if (term < this.#ledger.term) throw new HeadpondError("unknown-outcome", `${this.id} has lost the lead`);
        const index = this.#ledger.apply(request.key, request.text);
        await this.onApplied();
        return { index };
      },
      who: () => {
        this.asked++;
        return { id: this.id };
      },
      masters: (_request, context) => this.#lists(context.signal),
    };
  }

  async *#lists(signal: AbortSignal): AsyncGenerator<MasterList> {
    while (!signal.aborted) {
      yield this.#list();
      await new Promise<void>((resolve) => {
        this.#wakes.add(resolve);
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  #list(): MasterList {
    const { leader, term } = this.knows;
    const masters = this.#ledger.members.map(({ id, address }) => ({ id, rpc: address, voter: true }));
    const leads = leader === this && !this.takesOver ? { leads: true } : {};
    return { self: this.id, term, ...(leader === undefined ? {} : { leader: leader.id }), masters, ...leads };
  }
}

export class Ledger implements AsyncDisposable {
  readonly clock = new ManualClock();
  readonly network = new MemoryNetwork({ clock: this.clock, latencyMs });
  /** Whatever runs. */
  readonly masters: Master[] = [];
  /** Who belongs to the cluster. */
  members: Master[] = [];
  term = 0;
  readonly log: string[] = [];
  readonly #indexes = new Map<string, number>();
  readonly #clients: ClusterClient[] = [];

  static async start(count: number): Promise<Ledger> {
    const ledger = new Ledger();
    for (let number = 1; number <= count; number++) await ledger.add(`m${number}`);
    ledger.elect(ledger.master(1));
    return ledger;
  }

  /** By its number, from 1. */
  master(number: number): Master {
    return this.masters[number - 1] as Master;
  }

  async add(id: string): Promise<Master> {
    const master = new Master(this, id);
    await master.start();
    this.masters.push(master);
    this.members.push(master);
    for (const each of this.masters) each.changed();
    return master;
  }

  /** `leader` leads in a new term; those that `hear` know of it, by default everybody but who led before. */
  elect(leader: Master, hear: readonly Master[] = this.masters.filter((each) => each.knows.leader !== each)): void {
    this.term++;
    for (const master of new Set([leader, ...hear])) master.hear(leader, this.term);
  }

  apply(key: string | undefined, text: string): number {
    const known = key === undefined ? undefined : this.#indexes.get(key);
    if (known !== undefined) return known;
    this.log.push(text);
    if (key !== undefined) this.#indexes.set(key, this.log.length);
    return this.log.length;
  }

  client(
    options: Partial<ClusterClientOptions> & { readonly seeds?: readonly string[]; readonly seed?: number } = {},
  ): ClusterClient {
    const { seeds = ["m1"], seed = 1, ...rest } = options;
    const client = new ClusterClient({
      network: this.network,
      addresses: seeds.map((host) => ({ host, port: 7070 })),
      service: ledgerService,
      mastersMethod: ledgerService.methods.masters,
      self: { software: "1", role: "client", name: "c" },
      clock: this.clock,
      logger: silentLogger,
      random: new Random(seed),
      ...rest,
    });
    this.#clients.push(client);
    return client;
  }

  /** Moves the clock until `promise` has settled; returns how long it took. Fails after `maxMs`. */
  async settle(promise: Promise<unknown>, maxMs: number): Promise<number> {
    let isSettled = false;
    const settled = (): void => {
      isSettled = true;
    };
    promise.then(settled, settled);
    const startMs = this.clock.monotonicMs();
    await this.clock.advance(0);
    while (!isSettled) {
      if (this.clock.monotonicMs() - startMs >= maxMs) throw new Error(`not settled after ${maxMs} ms`);
      await this.clock.advance(1);
    }
    return this.clock.monotonicMs() - startMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closing = [...this.#clients.map((client) => client.close()), ...this.masters.map((master) => master.close())];
    await this.settle(Promise.all(closing), 60_000);
  }
}
