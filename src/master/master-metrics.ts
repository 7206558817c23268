/** What a master shows to Prometheus beside what its RPC server, journal and namespace show themselves. */

import type { WorkerState } from "../base/cluster.ts";
import type { Metrics } from "../io/metrics.ts";
import type { Namespace } from "../namespace/namespace.ts";
import type { BlockMap } from "./block-map.ts";
import type { EventLog } from "./events.ts";
import type { Intents } from "./intents.ts";
import type { Jobs } from "./jobs.ts";
import type { MetadataSync } from "./sync.ts";
import type { WorkerRegistry } from "./worker-registry.ts";

export type MeasuredParts = {
  readonly namespace: Namespace;
  readonly blockMap: BlockMap;
  readonly registry: WorkerRegistry;
  readonly sync: MetadataSync;
  readonly jobs: Jobs;
  readonly intents: Intents;
  readonly events: EventLog;
  readonly isLeader: () => boolean;
  readonly heldBackMs: () => number;
};

const states: readonly WorkerState[] = ["registering", "live", "draining", "lost"];

export function addMasterMetrics(metrics: Metrics, parts: MeasuredParts): void {
  const { namespace, blockMap, registry, sync, jobs, intents, events } = parts;
  metrics.gauge("headpond_master_leader", "1 while this master leads", () => (parts.isLeader() ? 1 : 0));
  metrics.gauge("headpond_master_files", "Files in the namespace", () => namespace.counters.files);
  metrics.gauge("headpond_master_directories", "Directories in the namespace", () => namespace.counters.directories);
  metrics.gauge("headpond_master_sessions", "Open sessions of clients", () => namespace.counters.sessions);
  metrics.gauge(
    "headpond_master_open_intents",
    "Changes that wait for an under store",
    () => namespace.counters.openIntents,
  );
  metrics.gauge(
    "headpond_master_driven_intents",
    "Changes that are being made in an under store",
    () => intents.drivenCount,
  );
  metrics.gauge(
    "headpond_master_inode_cache_hits_total",
    "Inodes that were found in memory",
    () => namespace.cache.hits,
  );
  metrics.gauge(
    "headpond_master_inode_cache_misses_total",
    "Inodes and names that were looked up in the state's file",
    () => namespace.cache.misses,
  );
  metrics.gauge("headpond_master_inode_cache_bytes", "Memory of cached inodes", () => namespace.cache.rowBytes);
  metrics.gauge(
    "headpond_master_unflushed_rows",
    "Rows of the state that are not in its file yet",
    () => namespace.cache.unflushedRows,
  );
  metrics.gaugeVector("headpond_master_workers", "Workers by state", ["state"], () => {
    const counts = new Map<WorkerState, number>(states.map((state) => [state, 0]));
    for (const { state } of registry.all()) counts.set(state, (counts.get(state) ?? 0) + 1);
    return [...counts].map(([state, value]) => ({ labels: { state }, value }));
  });
  metrics.gauge("headpond_master_block_map_bytes", "Memory of the block map, estimated", () => blockMap.memoryBytes);
  metrics.gauge("headpond_master_block_map_versions", "File versions that workers hold", () => blockMap.versionCount);
  metrics.gauge(
    "headpond_master_block_map_parked",
    "Versions reported that the namespace did not know",
    () => blockMap.parkedCount,
  );
  metrics.gauge("headpond_master_block_map_refused_total", "Reports that found no room", () => blockMap.refusedCount);
  metrics.gauge("headpond_master_sync_rows_total", "Rows of under stores that were journaled", () => sync.rowCount);
  metrics.gauge(
    "headpond_master_sync_listings_total",
    "Listings of under stores that were begun",
    () => sync.listingCount,
  );
  metrics.gauge("headpond_master_running_jobs", "Load jobs that run", () => jobs.runningCount);
  metrics.gauge("headpond_master_watchers", "Watchers of namespace changes", () => events.watcherCount);
  metrics.gauge("headpond_master_clock_held_back_ms", "How far the wall clock is off what is stamped", () =>
    parts.heldBackMs(),
  );
}
