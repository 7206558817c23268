/** What a Raft journal counts. */

import type { Metrics } from "../io/metrics.ts";
import type { JournalStatus } from "./journal.ts";

export type RaftGauges = {
  readonly queuedBytes: () => number;
  readonly status: () => JournalStatus;
};

export type RaftCounts = {
  readonly flushed: (entries: number, durationMs: number) => void;
  readonly applied: (bytes: number) => void;
};

const flushBuckets = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3];

export function raftMetrics(metrics: Metrics, gauges: RaftGauges): RaftCounts {
  const addEntries = metrics.counter("headpond_journal_entries_total", "Entries made durable.");
  const addBytes = metrics.counter("headpond_journal_bytes_total", "Bytes of commands that were applied.");
  const observe = metrics.histogram(
    "headpond_journal_flush_seconds",
    "From the write of a batch until it is durable.",
    flushBuckets,
  );
  const { queuedBytes, status } = gauges;
  metrics.gauge("headpond_journal_queued_bytes", "Bytes of proposals that are not answered.", queuedBytes);
  metrics.gauge("headpond_journal_term", "Raft's term.", () => status().term);
  metrics.gauge("headpond_journal_leader", "1 on the master that leads.", () => (status().role === "leader" ? 1 : 0));
  metrics.gauge("headpond_journal_commit_index", "Highest index known to be committed.", () => status().commitIndex);
  metrics.gauge("headpond_journal_applied_index", "Highest index in the state.", () => status().appliedIndex);
  return {
    flushed: (entries, durationMs) => {
      addEntries(entries);
      observe(durationMs / 1000);
    },
    applied: (bytes) => addBytes(bytes),
  };
}
