/**
 * TCP between simulated processes: streams in order, with delays, stalls (a lost packet that is sent again), cuts that hold bytes
 * back until they end, resets, hosts that lose power without a word, and sockets that the kernel closes behind a killed process.
 */

import type { Random } from "../base/random.ts";
import type { Address, Connection, Listener, Network } from "../io/network.ts";
import type { SimProcess, SimWorld } from "./sim-world.ts";

/** What is wrong with the network; may be changed at any time. */
export class NetworkTroubles {
  /** One way, at most. */
  delayMs = 1;
  /** Probability that a piece stalls its direction for `stallMs`. */
  stall = 0;
  stallMs = 200;
  /** Directions that are interrupted, as `from>to` of hosts. */
  readonly cuts = new Set<string>();
}

type Place = { readonly process: SimProcess; readonly accept: (connection: Connection) => void };

const windowBytes = 256 * 1024;
/** How often a connection that is not answered is asked for again. */
const connectAgainMs = 100;

export class SimNetwork {
  readonly world: SimWorld;
  readonly troubles = new NetworkTroubles();
  readonly #listeners = new Map<string, Place>();
  readonly #pairs = new Set<Pair>();
  readonly #withoutPower = new Set<string>();
  #nextPort = 40_000;

  constructor(world: SimWorld) {
    this.world = world;
  }

  /** The network as a process on `host` sees it. */
  at(host: string, process: SimProcess): Network {
    process.onDeath(() => this.#died(process));
    return {
      connect: (address, signal) => this.#connect(host, process, address, signal),
      listen: (address, onConnection) => this.#listen(host, process, address, onConnection),
    };
  }

  passes(from: string, to: string): boolean {
    return !this.troubles.cuts.has(`${from}>${to}`) && !this.#withoutPower.has(from) && !this.#withoutPower.has(to);
  }

  /** Call before the process is killed: then nobody hears of its death. */
  losePower(host: string): void {
    this.#withoutPower.add(host);
  }

  hasPower(host: string): boolean {
    return !this.#withoutPower.has(host);
  }

  regainPower(host: string): void {
    this.#withoutPower.delete(host);
    this.wake();
  }

  /** What was held back goes on, as far as it can: call after cuts have changed. */
  wake(): void {
    for (const pair of this.#pairs) pair.wake();
  }

  /** Breaks some connections between hosts that chance picks. */
  reset(probability: number): number {
    let count = 0;
    for (const pair of [...this.#pairs]) {
      if (!this.world.random.chance(probability)) continue;
      pair.break();
      count++;
    }
    return count;
  }

  forget(pair: Pair): void {
    this.#pairs.delete(pair);
  }

  get connectionCount(): number {
    return this.#pairs.size;
  }

  #died(process: SimProcess): void {
    for (const [key, listener] of this.#listeners) if (listener.process === process) this.#listeners.delete(key);
    for (const pair of [...this.#pairs]) pair.died(process);
  }

  #listen(
    host: string,
    process: SimProcess,
    address: Address,
    accept: (connection: Connection) => void,
  ): Promise<Listener> {
    return new Promise((resolve, reject) => {
      const port = address.port === 0 ? this.#nextPort++ : address.port;
      const key = `${host}:${port}`;
      process.after(0, () => {
        if (this.#listeners.has(key)) {
          reject(networkError("EADDRINUSE", key));
          return;
        }
        const place: Place = { process, accept };
        this.#listeners.set(key, place);
        resolve({
          address: { host, port },
          close: async () => {
            if (this.#listeners.get(key) === place) this.#listeners.delete(key);
          },
        });
      });
    });
  }

  #connect(from: string, process: SimProcess, address: Address, signal: AbortSignal | undefined): Promise<Connection> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      let isOver = false;
      const end = (run: () => void): void => {
        if (isOver) return;
        isOver = true;
        signal?.removeEventListener("abort", onAbort);
        run();
      };
      const onAbort = (): void => end(() => reject(signal?.reason as Error));
      signal?.addEventListener("abort", onAbort, { once: true });
      const attempt = (): void => {
        if (isOver || !process.isAlive) return;
        if (!this.passes(from, address.host) || !this.passes(address.host, from)) {
          this.world.events.after(connectAgainMs, attempt);
          return;
        }
        const key = `${address.host}:${address.port}`;
        const place = this.#listeners.get(key);
        if (place === undefined) {
          process.enter(() => end(() => reject(networkError("ECONNREFUSED", key))));
          return;
        }
        const pair = new Pair(this, { host: from, process }, { host: address.host, process: place.process });
        this.#pairs.add(pair);
        place.process.enter(() => place.accept(pair.called));
        process.after(this.delay(), () => {
          if (isOver) pair.calling.destroy();
          else end(() => resolve(pair.calling));
        });
      };
      this.world.events.after(this.delay(), attempt);
    });
  }

  delay(): number {
    const { delayMs, stall, stallMs } = this.troubles;
    const random: Random = this.world.random;
    return random.float() * delayMs + (random.chance(stall) ? stallMs : 0);
  }
}

type Side = { readonly host: string; readonly process: SimProcess };

/** Both ends of one connection. */
class Pair {
  readonly calling: SimConnection;
  readonly called: SimConnection;
  readonly #network: SimNetwork;

  constructor(network: SimNetwork, caller: Side, callee: Side) {
    this.#network = network;
    this.calling = new SimConnection(network, caller, callee.host);
    this.called = new SimConnection(network, callee, caller.host);
    this.calling.attach(this.called, () => this.#closed());
    this.called.attach(this.calling, () => this.#closed());
  }

  wake(): void {
    this.calling.wake();
    this.called.wake();
  }

  break(): void {
    for (const end of [this.calling, this.called]) end.fail("ECONNRESET");
  }

  /** The kernel of a process that was killed says so to the other end, unless it has no power either. */
  died(process: SimProcess): void {
    for (const end of [this.calling, this.called]) if (end.side.process === process) end.abandon();
  }

  #closed(): void {
    if (this.calling.isClosed && this.called.isClosed) this.#network.forget(this);
  }
}

type Parcel = { readonly bytes: Uint8Array } | { readonly end: "fin" | "reset" };

class SimConnection implements Connection {
  readonly side: Side;
  readonly remote: string;
  onClose: (error: Error | undefined) => void = () => {};
  onDrain: () => void = () => {};
  readonly #network: SimNetwork;
  readonly #to: string;
  #peer: SimConnection | undefined;
  #onPairClosed: () => void = () => {};
  #onData: ((chunk: Uint8Array) => void) | undefined;
  /** Of our own: sent, and not with the other end's kernel yet. */
  #underWay: Parcel[] = [];
  #underWayBytes = 0;
  #isMoving = false;
  /** Of the other end: arrived, and not taken by the process yet. */
  #arrived: Parcel[] = [];
  #isPaused = false;
  #needsDrain = false;
  #hasEnded = false;
  #isClosed = false;

  constructor(network: SimNetwork, side: Side, to: string) {
    this.#network = network;
    this.side = side;
    this.#to = to;
    this.remote = to;
  }

  attach(peer: SimConnection, onPairClosed: () => void): void {
    this.#peer = peer;
    this.#onPairClosed = onPairClosed;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get pendingBytes(): number {
    return Math.max(0, this.#underWayBytes - windowBytes);
  }

  get onData(): (chunk: Uint8Array) => void {
    return this.#onData ?? ((): void => {});
  }

  set onData(consumer: (chunk: Uint8Array) => void) {
    const isFirst = this.#onData === undefined;
    this.#onData = consumer;
    if (isFirst && this.#arrived.length > 0) this.side.process.after(0, () => this.#take());
  }

  write(bytes: Uint8Array): boolean {
    if (this.#isClosed || this.#hasEnded) return false;
    this.#underWayBytes += bytes.length;
    this.#send({ bytes: new Uint8Array(bytes) });
    this.#needsDrain ||= this.#underWayBytes > windowBytes;
    return !this.#needsDrain;
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    if (this.#arrived.length > 0) this.side.process.after(0, () => this.#take());
  }

  end(): void {
    if (this.#isClosed || this.#hasEnded) return;
    this.#hasEnded = true;
    this.#send({ end: "fin" });
  }

  destroy(error?: Error): void {
    if (this.#isClosed) return;
    // What was queued is lost, and the other end learns that it was the end.
    this.#underWay = [];
    this.#hasEnded = true;
    this.#send({ end: "fin" });
    this.#close(error);
  }

  fail(code: string): void {
    this.side.process.after(0, () => this.#close(networkError(code, this.remote)));
  }

  /** Its process is dead. */
  abandon(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#underWay = [];
    // Without power nothing is said: who goes on sending is told when the machine is back.
    if (this.#network.hasPower(this.side.host)) this.#send({ end: "reset" });
    this.#onPairClosed();
  }

  wake(): void {
    this.#move();
  }

  #send(parcel: Parcel): void {
    this.#underWay.push(parcel);
    this.#move();
  }

  /** One parcel after the other crosses the network. */
  #move(): void {
    if (this.#isMoving || this.#underWay.length === 0) return;
    if (!this.#network.passes(this.side.host, this.#to)) return;
    this.#isMoving = true;
    this.#network.world.events.after(this.#network.delay(), () => {
      this.#isMoving = false;
      if (!this.#network.passes(this.side.host, this.#to)) return;
      // All that was written in one turn arrives in one piece.
      const parcels = this.#underWay.splice(0);
      for (const parcel of parcels) this.#peer?.arrive(parcel);
      this.#underWayBytes = 0;
      if (!this.#needsDrain) return;
      this.#needsDrain = false;
      this.side.process.enter(() => !this.#isClosed && this.onDrain());
    });
  }

  arrive(parcel: Parcel): void {
    if (this.#isClosed) {
      // Of a process that is no more: the kernel answers for it.
      if ("bytes" in parcel) this.#peer?.answerForTheDead();
      return;
    }
    this.#arrived.push(parcel);
    this.side.process.enter(() => this.#take());
  }

  answerForTheDead(): void {
    if (this.#isClosed) return;
    this.#network.world.events.after(this.#network.delay(), () => this.fail("ECONNRESET"));
  }

  #take(): void {
    while (!this.#isPaused && !this.#isClosed && this.#onData !== undefined) {
      const parcel = this.#arrived.shift();
      if (parcel === undefined) return;
      if ("bytes" in parcel) {
        this.#onData(parcel.bytes);
      } else if (parcel.end === "fin") {
        this.end();
        this.#close(undefined);
      } else {
        this.#close(networkError("ECONNRESET", this.remote));
      }
    }
  }

  #close(error: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#arrived = [];
    this.#onPairClosed();
    queueMicrotask(() => this.side.process.enter(() => this.onClose(error)));
  }
}

function networkError(code: string, what: string): Error {
  return Object.assign(new Error(`${code}: ${what}`), { code });
}
