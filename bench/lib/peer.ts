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

export const usualFailoverLoad = { lanes: 16, everyMs: 5, settleMs: 700, timeoutMs: 90_000 };

/** Runs the load, strikes once, and resolves when a write that began after the blow is acknowledged. */
export async function measureFailover(load: FailoverLoad, strike: () => void): Promise<FailoverResult> {
  const { write, lanes, everyMs, settleMs, timeoutMs } = load;
  const outstandingMax = 4000;
  let ended = false;
  let struckMs = Number.POSITIVE_INFINITY;
  let failed = 0;
  let outstanding = 0;
  const acknowledged = Promise.withResolvers<number>();
  const attempt = async (): Promise<boolean> => {
    const beganMs = performance.now();
    outstanding++;
    try {
      await write();
      if (beganMs > struckMs) acknowledged.resolve(performance.now() - struckMs);
      return true;
    } catch {
      if (performance.now() > struckMs && !ended) failed++;
      return false;
    } finally {
      outstanding--;
    }
  };
  const lane = async (): Promise<void> => {
    while (!ended) if (!(await attempt())) await new Promise((done) => setTimeout(done, 20));
  };
  const running = Array.from({ length: lanes }, lane);
  const pace = setInterval(() => {
    if (outstanding < outstandingMax) running.push(attempt().then(() => {}));
  }, everyMs);
  const timer = setTimeout(
    () => acknowledged.reject(new Error(`no write was acknowledged within ${timeoutMs} ms after the signal`)),
    settleMs + timeoutMs,
  );
  try {
    await new Promise((done) => setTimeout(done, settleMs));
    struckMs = performance.now();
    strike();
    return { ms: await acknowledged.promise, failed };
  } finally {
    ended = true;
    clearInterval(pace);
    clearTimeout(timer);
    await Promise.all(running);
  }
}
