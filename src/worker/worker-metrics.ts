/** What a worker counts: `headpond_worker_*`. Totals are also kept here, for status and heartbeats. */

import type { Clock } from "../io/clock.ts";
import type { Metrics } from "../io/metrics.ts";
import { RateMeter } from "./rate-meter.ts";

export type WorkerGauges = {
  readonly usedBytes: () => number;
  readonly capacityBytes: () => number;
  readonly files: () => number;
  readonly openStreams: () => number;
  readonly activeFills: () => number;
  readonly mastersAttached: () => number;
};

export class WorkerMetrics {
  readonly origin: RateMeter;
  readonly peerIn: RateMeter;
  readonly peerOut: RateMeter;
  readonly served: RateMeter;
  damagedBlocks = 0;
  readonly originBytes: (bytes: number, mount: string) => void;
  readonly peerBytesIn: (bytes: number) => void;
  readonly peerBytesOut: (bytes: number) => void;
  readonly readBytes: (bytes: number, hit: boolean) => void;
  readonly filled: (source: "origin" | "peer") => void;
  readonly evicted: () => void;
  readonly damaged: (where: "disk" | "peer" | "file") => void;
  readonly stale: () => void;

  constructor(metrics: Metrics, clock: Clock, gauges: WorkerGauges) {
    this.origin = new RateMeter(clock);
    this.peerIn = new RateMeter(clock);
    this.peerOut = new RateMeter(clock);
    this.served = new RateMeter(clock);
    const name = (rest: string): string => `headpond_worker_${rest}`;
    const origin = metrics.counter(name("origin_bytes_total"), "Bytes read from under stores.", ["mount"]);
    const peerIn = metrics.counter(name("peer_received_bytes_total"), "Bytes taken from other workers.");
    const peerOut = metrics.counter(name("peer_sent_bytes_total"), "Bytes given to other workers.");
    const read = metrics.counter(
      name("read_bytes_total"),
      "Bytes given to readers: held already, or fetched for them.",
      ["result"],
    );
    const fills = metrics.counter(name("fills_total"), "Blocks brought in.", ["source"]);
    const evictions = metrics.counter(name("evictions_total"), "File versions dropped to make room.");
    const damaged = metrics.counter(
      name("damaged_total"),
      "Blocks that did not match their checksum, on disk or from a peer, and whole files that did not match their digest.",
      ["where"],
    );
    const stale = metrics.counter(name("stale_versions_total"), "Versions whose content changed in the under store.");
    this.originBytes = (bytes, mount) => {
      this.origin.add(bytes);
      origin(bytes, { mount });
    };
    this.peerBytesIn = (bytes) => {
      this.peerIn.add(bytes);
      peerIn(bytes);
    };
    this.peerBytesOut = (bytes) => {
      this.peerOut.add(bytes);
      peerOut(bytes);
    };
    this.readBytes = (bytes, hit) => {
      this.served.add(bytes);
      read(bytes, hit ? hitLabels : missLabels);
    };
    this.filled = (source) => fills(1, { source });
    this.evicted = () => evictions();
    this.damaged = (where) => {
      this.damagedBlocks++;
      damaged(1, { where });
    };
    this.stale = () => stale();
    metrics.gauge(name("used_bytes"), "Bytes held.", gauges.usedBytes);
    metrics.gauge(name("capacity_bytes"), "Capacity of the cache directories in service.", gauges.capacityBytes);
    metrics.gauge(name("files"), "File versions of which something is held.", gauges.files);
    metrics.gauge(name("open_streams"), "Bodies on their way to readers and peers.", gauges.openStreams);
    metrics.gauge(name("active_fills"), "Blocks on their way in.", gauges.activeFills);
    metrics.gauge(name("masters_attached"), "Masters that this worker is attached to.", gauges.mastersAttached);
  }
}

const hitLabels = { result: "hit" };
const missLabels = { result: "miss" };
