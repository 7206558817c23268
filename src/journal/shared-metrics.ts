/** What a shared journal counts. */

import type { Metrics } from "../io/metrics.ts";
import type { JournalStatus } from "./journal.ts";

export type SharedCounts = {
  readonly durable: (entries: number, durationMs: number) => void;
  readonly applied: (bytes: number) => void;
};

const slotBuckets = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];

export function sharedMetrics(
  metrics: Metrics,
  gauges: { readonly queuedBytes: () => number; readonly status: () => JournalStatus },
): SharedCounts {
  const addEntries = metrics.counter("headpond_journal_entries_total", "Entries made durable.");
  const addBytes = metrics.counter("headpond_journal_bytes_total", "Bytes of commands that were applied.");
  const addSlots = metrics.counter("headpond_journal_slots_total", "Slots of the shared log made durable.");
  const observe = metrics.histogram(
    "headpond_journal_flush_seconds",
    "From the sending of a slot until it is durable in the store.",
    slotBuckets,
  );
  const { queuedBytes, status } = gauges;
  metrics.gauge("headpond_journal_queued_bytes", "Bytes of proposals that are not answered.", queuedBytes);
  metrics.gauge("headpond_journal_term", "Epoch of the shared log.", () => status().term);
  metrics.gauge("headpond_journal_leader", "1 on the master that leads.", () => (status().role === "leader" ? 1 : 0));
  metrics.gauge("headpond_journal_commit_index", "Highest index known to be committed.", () => status().commitIndex);
  metrics.gauge("headpond_journal_applied_index", "Highest index in the state.", () => status().appliedIndex);
  return {
    durable: (entries, durationMs) => {
      addSlots();
      addEntries(entries);
      observe(durationMs / 1000);
    },
    applied: (bytes) => addBytes(bytes),
  };
}
