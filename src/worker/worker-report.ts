/** What a worker says about itself (`/v1/status`). */

import type { WorkerId } from "../base/ids.ts";
import type { Place } from "../base/place.ts";
import type { CacheUsage } from "./block-cache.ts";

export type WorkerReport = CacheUsage & {
  readonly id: WorkerId;
  readonly incarnation: string;
  readonly place: Place;
  readonly data: string;
  readonly http: string;
  readonly problems: readonly string[];
  readonly masters: readonly {
    readonly name: string;
    readonly attached: boolean;
    readonly leads: boolean;
    /** Why it is not attached. */
    readonly problem?: string;
  }[];
  readonly workersVersion: number;
  readonly originBytes: number;
  readonly peerReceivedBytes: number;
  readonly peerSentBytes: number;
  readonly servedBytes: number;
  readonly damaged: number;
  readonly activeFills: number;
  readonly loading: number;
  readonly openStreams: number;
  readonly connections: number;
};
