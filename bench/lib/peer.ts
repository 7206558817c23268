/**
 * What a peer is: another metadata service of several nodes on this machine, asked to do the same as our masters: small durable
 * writes, linearizable reads, and to go on when its leader is killed.
 */

import type { ServerProcess } from "../../src/cli/role-process.ts";
import { median, percentile } from "./benchmark.ts";
import { cpuSeconds } from "./processes.ts";

export type LoadResult = {
  readonly count: number;
  readonly perSecond: number;
  readonly medianUs: number;
  readonly p99Us: number;
  /** CPU of all nodes together, and of what asks, for one operation. */
  readonly serversCpuUs: number;
  readonly clientCpuUs: number;
};

export type FailoverResult = {
  /** From the signal to the first acknowledgement of a write that began after it. */
  readonly ms: number;
  /** Writes that were answered with an error, from the signal on. */
  readonly failed: number;
};

export interface Peer {
  readonly system: string;
  /** Version and settings, for the reader of a result. */
  readonly conditions: string;
  /** Names of directories and files are drawn from `outstanding` lanes' common counter. */
  writes(outstanding: number, seconds: number): Promise<LoadResult>;
  /** Of what `writes` made. */
  reads(outstanding: number, seconds: number): Promise<LoadResult>;
  /** Kills the leader under load, waits until the others go on, and brings it back. */
  failover(): Promise<FailoverResult>;
  close(): Promise<void>;
}

/** Closed loop: `outstanding` lanes, each asking anew when it was answered. */
export async function measureLoad(options: {
  readonly outstanding: number;
  readonly seconds: number;
  readonly servers: readonly ServerProcess[];
  readonly task: () => Promise<unknown>;
}): Promise<LoadResult> {
  const { outstanding, seconds, servers, task } = options;
  const serversNow = (): number => servers.reduce((sum, server) => sum + cpuSeconds(server), 0);
  const latencies: number[] = [];
  const serversBegan = serversNow();
  const clientBegan = process.cpuUsage();
  const began = performance.now();
  const endMs = began + seconds * 1000;
  const lane = async (): Promise<void> => {
    for (;;) {
      const askedMs = performance.now();
      if (askedMs >= endMs) return;
      await task();
      latencies.push((performance.now() - askedMs) * 1000);
    }
  };
  await Promise.all(Array.from({ length: outstanding }, lane));
  const count = latencies.length;
  const client = process.cpuUsage(clientBegan);
  return {
    count,
    perSecond: count / ((performance.now() - began) / 1000),
    medianUs: median(latencies),
    p99Us: percentile(latencies, 0.99),
    serversCpuUs: ((serversNow() - serversBegan) / count) * 1e6,
    clientCpuUs: (client.user + client.system) / count,
  };
}

/** Lanes that always write, and one write more every few milliseconds, whatever became of the others: the one that finds the end of an outage. */
export type FailoverLoad = {
  /** Rejects when the write was not acknowledged. */
  readonly write: () => Promise<unknown>;
  readonly lanes: number;
  readonly everyMs: number;
  readonly settleMs: number;
  readonly timeoutMs: number;
};

/** Paced writes that are under way at once. */
const pacedMax = 4000;
const failedPauseMs = 20;

export const usualFailoverLoad = { lanes: 16, everyMs: 5, settleMs: 700, timeoutMs: 90_000 };

/**
 * Runs the load, strikes once, and resolves when a write that began after the blow is acknowledged. The time counts from the
 * beginning of the blow, the write from its end: a disk may take a moment to hang.
 */
export async function measureFailover(
  load: FailoverLoad,
  strike: () => unknown,
  /** Just before the blow; its time does not count. */
  prepare: () => Promise<void> = async () => {},
): Promise<FailoverResult> {
  const { settleMs, timeoutMs } = load;
  let struckMs = Number.POSITIVE_INFINITY;
  const acknowledged = Promise.withResolvers<number>();
  // Awaited at the end only, when it may have failed long before.
  acknowledged.promise.catch(() => {});
  const running = new RunningLoad(load, (beganMs, endedMs) => {
    if (beganMs > struckMs) acknowledged.resolve(endedMs - struckMs);
  });
  const timer = setTimeout(
    () => acknowledged.reject(new Error(`no write was acknowledged within ${timeoutMs} ms after the signal`)),
    settleMs + timeoutMs,
  );
  try {
    await pause(settleMs);
    const failedBefore = running.failed;
    await prepare();
    const beganMs = performance.now();
    await strike();
    struckMs = performance.now();
    const ms = (await acknowledged.promise) + struckMs - beganMs;
    return { ms, failed: running.failed - failedBefore };
  } finally {
    clearTimeout(timer);
    await running.stop();
  }
}

/** The longest time without an acknowledgement, from the beginning of `act` until a write is acknowledged that began after its end. */
export async function measureGap(load: FailoverLoad, act: () => Promise<unknown>): Promise<FailoverResult> {
  let lastMs = Number.POSITIVE_INFINITY;
  let gapMs = 0;
  let actedMs = Number.POSITIVE_INFINITY;
  const goesOn = Promise.withResolvers<void>();
  const running = new RunningLoad(load, (beganMs, endedMs) => {
    gapMs = Math.max(gapMs, endedMs - lastMs);
    lastMs = endedMs;
    if (beganMs > actedMs) goesOn.resolve();
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    await pause(load.settleMs);
    const failedBefore = running.failed;
    gapMs = 0;
    await act();
    actedMs = performance.now();
    const late = new Error(`no write was acknowledged within ${load.timeoutMs} ms afterwards`);
    timer = setTimeout(() => goesOn.reject(late), load.timeoutMs);
    await goesOn.promise;
    await pause(load.settleMs);
    return { ms: gapMs, failed: running.failed - failedBefore };
  } finally {
    clearTimeout(timer);
    await running.stop();
  }
}

/** The load while it runs. */
class RunningLoad {
  readonly #load: FailoverLoad;
  readonly #onAcknowledged: (beganMs: number, endedMs: number) => void;
  readonly #lanes: Promise<void>[];
  readonly #paced = new Set<Promise<unknown>>();
  readonly #timer: NodeJS.Timeout;
  #ended = false;
  failed = 0;

  constructor(load: FailoverLoad, onAcknowledged: (beganMs: number, endedMs: number) => void) {
    this.#load = load;
    this.#onAcknowledged = onAcknowledged;
    this.#lanes = Array.from({ length: load.lanes }, () => this.#lane());
    this.#timer = setInterval(() => {
      if (this.#paced.size >= pacedMax) return;
      const attempt = this.#attempt().finally(() => this.#paced.delete(attempt));
      this.#paced.add(attempt);
    }, load.everyMs);
  }

  /** Resolves when every write under way has come to an end. */
  async stop(): Promise<void> {
    this.#ended = true;
    clearInterval(this.#timer);
    await Promise.all([...this.#lanes, ...this.#paced]);
  }

  async #lane(): Promise<void> {
    while (!this.#ended) if (!(await this.#attempt())) await pause(failedPauseMs);
  }

  async #attempt(): Promise<boolean> {
    const beganMs = performance.now();
    try {
      await this.#load.write();
      this.#onAcknowledged(beganMs, performance.now());
      return true;
    } catch {
      this.failed++;
      return false;
    }
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}
