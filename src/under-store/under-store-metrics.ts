/** What under stores count. One set of metrics a registry, shared by all stores of a process. */

import type { Labels, Metrics } from "../io/metrics.ts";

export type UnderStoreMetrics = {
  /** Labels: store, operation, outcome (`ok` or an error code). */
  readonly request: (labels: Labels) => void;
  /** Labels: store. Once a pause that a store asked for, however many requests it hit. */
  readonly throttled: (labels: Labels) => void;
  /** Labels: store. Bytes handed to readers, and bytes read and thrown away. */
  readonly readBytes: (bytes: number, labels: Labels) => void;
  readonly skippedNames: (count: number, labels: Labels) => void;
};

const known = new WeakMap<Metrics, UnderStoreMetrics>();

export function underStoreMetrics(metrics: Metrics): UnderStoreMetrics {
  const existing = known.get(metrics);
  if (existing !== undefined) return existing;
  const request = metrics.counter(
    "headpond_under_store_requests_total",
    "Requests to under stores, every attempt counted.",
    ["store", "operation", "outcome"],
  );
  const throttled = metrics.counter("headpond_under_store_pauses_total", "Pauses that under stores asked for.", [
    "store",
  ]);
  const readBytes = metrics.counter(
    "headpond_under_store_read_bytes_total",
    "Bytes that were read from under stores.",
    ["store"],
  );
  const skippedNames = metrics.counter(
    "headpond_under_store_skipped_names_total",
    "Names in listings that the namespace cannot express.",
    ["store"],
  );
  const result: UnderStoreMetrics = {
    request: (labels) => request(1, labels),
    throttled: (labels) => throttled(1, labels),
    readBytes,
    skippedNames,
  };
  known.set(metrics, result);
  return result;
}
