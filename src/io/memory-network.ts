/**
 * A network in memory, for tests and simulations: hosts by name, latency by a clock, and everything that real networks
 * do to connections. Bytes of one direction arrive in order or not at all; with a `ManualClock` and a seeded latency the
 * same test sees the same order.
 *
 * A partition holds bytes back, as TCP does, and delivers them when it heals; `cut` breaks connections for both sides;
 * `vanish` takes a host away without a word: its peers go on believing in their half of the connection.
 */

import { assert } from "../base/assert.ts";
import type { Clock } from "./clock.ts";
import type { MemoryConnection } from "./memory-connection.ts";
import { connectionPair } from "./memory-connection.ts";
import type { Address, Connection, Listener, Network } from "./network.ts";

export type MemoryNetworkOptions = {
  readonly clock: Clock;
  /** One way. Absent: bytes arrive in the next microtask. */
  readonly latencyMs?: number | (() => number);
  /** Bytes under way on one connection before `write` answers false. */
  readonly windowBytes?: number;
};

export class MemoryNetwork implements Network {
  readonly #clock: Clock;
  readonly #latencyMs: () => number;
  readonly #windowBytes: number;
  readonly #listeners = new Map<string, { readonly host: string; readonly accept: (connection: Connection) => void }>();
  readonly #connections = new Set<MemoryConnection>();
  /** Directions that are interrupted, as `from>to`. */
  readonly #partitions = new Set<string>();
  readonly #vanished = new Set<string>();
  readonly #waiting = new Set<() => void>();
  #nextPort = 40_000;

  constructor(options: MemoryNetworkOptions) {
    const { latencyMs = 0 } = options;
    this.#clock = options.clock;
    this.#latencyMs = typeof latencyMs === "number" ? () => latencyMs : latencyMs;
    this.#windowBytes = options.windowBytes ?? 256 * 1024;
  }

  /** The network as `host` sees it: it listens under that name and connects from it. */
  at(host: string): Network {
    return {
      connect: (address, signal) => this.#connect(host, address, signal),
      listen: (address, onConnection) => this.#listen({ host, port: address.port }, onConnection),
    };
  }

  connect(address: Address, signal?: AbortSignal): Promise<Connection> {
    return this.#connect("client", address, signal);
  }

  listen(address: Address, onConnection: (connection: Connection) => void): Promise<Listener> {
    return this.#listen(address, onConnection);
  }

  /** Nothing gets from one host to another, until `heal`. */
  partition(from: string, to: string, options: { readonly oneWay?: boolean } = {}): void {
    this.#partitions.add(`${from}>${to}`);
    if (!options.oneWay) this.#partitions.add(`${to}>${from}`);
  }

  /** Ends all partitions; what was held back arrives. */
  heal(): void {
    this.#partitions.clear();
    for (const wake of [...this.#waiting]) wake();
  }

  /** Breaks every connection between two hosts: both sides see `ECONNRESET`. */
  cut(a: string, b: string): void {
    for (const connection of [...this.#connections]) {
      const { from, to } = connection;
      if ((from === a && to === b) || (from === b && to === a))
        connection.fail(networkError("ECONNRESET", `${a} ${b}`));
    }
  }

  /** A host is gone without a word, with all that it had: half-open connections stay behind at its peers. */
  vanish(host: string): void {
    this.#vanished.add(host);
    for (const [key, listener] of this.#listeners) if (listener.host === host) this.#listeners.delete(key);
    for (const connection of [...this.#connections]) {
      if (connection.from !== host) continue;
      connection.mute();
      this.#connections.delete(connection);
    }
  }

  /** The host is back, as after a reboot: it must listen anew. */
  appear(host: string): void {
    this.#vanished.delete(host);
    for (const wake of [...this.#waiting]) wake();
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  async #listen(address: Address, accept: (connection: Connection) => void): Promise<Listener> {
    const port = address.port === 0 ? this.#nextPort++ : address.port;
    const key = `${address.host}:${port}`;
    if (this.#listeners.has(key)) throw networkError("EADDRINUSE", key);
    const listener = { host: address.host, accept };
    this.#listeners.set(key, listener);
    return {
      address: { host: address.host, port },
      close: async () => {
        if (this.#listeners.get(key) === listener) this.#listeners.delete(key);
      },
    };
  }

  #connect(from: string, address: Address, signal: AbortSignal | undefined): Promise<Connection> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = (): void => {
        this.#waiting.delete(attempt);
        reject(signal?.reason as Error);
      };
      const attempt = (): void => {
        if (signal?.aborted) return;
        // A lost request to connect is repeated until somebody loses patience: the caller.
        if (!this.#passes(from, address.host) || !this.#passes(address.host, from)) {
          this.#waiting.add(attempt);
          return;
        }
        this.#waiting.delete(attempt);
        signal?.removeEventListener("abort", onAbort);
        const key = `${address.host}:${address.port}`;
        const listener = this.#listeners.get(key);
        if (listener === undefined) {
          reject(networkError("ECONNREFUSED", key));
          return;
        }
        const [ours, theirs] = this.#pair(from, address.host);
        listener.accept(theirs);
        resolve(ours);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#later(attempt);
    });
  }

  #pair(from: string, to: string): readonly [Connection, Connection] {
    const pair = connectionPair(from, to, {
      windowBytes: this.#windowBytes,
      later: (callback) => this.#later(callback),
      passes: (source, target) => this.#passes(source, target),
      onHeal: (callback) => {
        const wake = (): void => {
          this.#waiting.delete(wake);
          callback();
        };
        this.#waiting.add(wake);
      },
      onClosed: (connection) => this.#connections.delete(connection),
    });
    for (const connection of pair) this.#connections.add(connection);
    assert(pair[0].to === to, "the first of a pair is the caller's");
    return pair;
  }

  #passes(from: string, to: string): boolean {
    return !this.#partitions.has(`${from}>${to}`) && !this.#vanished.has(from) && !this.#vanished.has(to);
  }

  #later(callback: () => void): void {
    const latencyMs = this.#latencyMs();
    if (latencyMs <= 0) queueMicrotask(callback);
    else this.#clock.timer(latencyMs, callback);
  }
}

function networkError(code: string, what: string): Error {
  return Object.assign(new Error(`${code}: ${what}`), { code });
}
