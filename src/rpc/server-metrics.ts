/**
 * The metrics of all RPC servers of a process. A labelled counter costs a third of a microsecond, which is much for a
 * request that costs two: so requests are counted in plain numbers, and given to the registry when it is read.
 */

import type { Metrics } from "../io/metrics.ts";

type Observed = { readonly connectionCount: number; readonly requestsUnderWay: number };

const registered = new WeakMap<Metrics, RpcServerMetrics>();

/** The metrics in one registry: made once, however many servers use it. */
export function rpcServerMetrics(metrics: Metrics): RpcServerMetrics {
  let result = registered.get(metrics);
  if (result === undefined) {
    result = new RpcServerMetrics(metrics);
    registered.set(metrics, result);
  }
  return result;
}

export class RpcServerMetrics {
  readonly #servers: { readonly service: string; readonly server: Observed }[] = [];
  readonly #counts = new Map<string, Map<string, Map<string, number>>>();

  constructor(metrics: Metrics) {
    metrics.gaugeVector("headpond_rpc_connections", "Open RPC connections", ["service"], () =>
      this.#servers.map(({ service, server }) => ({ labels: { service }, value: server.connectionCount })),
    );
    metrics.gaugeVector("headpond_rpc_requests_under_way", "RPC requests whose handlers run", ["service"], () =>
      this.#servers.map(({ service, server }) => ({ labels: { service }, value: server.requestsUnderWay })),
    );
    metrics.gaugeVector(
      "headpond_rpc_requests_total",
      "RPC requests answered, by result (ok or an error code)",
      ["service", "method", "result"],
      () => this.#readCounts(),
    );
  }

  /** Observes a server; returns what it calls per answer. */
  add(service: string, server: Observed): (method: string, result: string) => void {
    this.#servers.push({ service, server });
    const methods = this.#counts.get(service) ?? new Map<string, Map<string, number>>();
    this.#counts.set(service, methods);
    return (method, result) => {
      let results = methods.get(method);
      if (results === undefined) methods.set(method, (results = new Map()));
      results.set(result, (results.get(result) ?? 0) + 1);
    };
  }

  *#readCounts(): Iterable<{ labels: { service: string; method: string; result: string }; value: number }> {
    for (const [service, methods] of this.#counts) {
      for (const [method, results] of methods) {
        for (const [result, value] of results) yield { labels: { service, method, result }, value };
      }
    }
  }
}
