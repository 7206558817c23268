/** Every limit of a worker in one place, with its default. */

import { claimLimits } from "../base/claim-table.ts";
import type { HttpLimits } from "../io/http-server.ts";
import { type ScrubLimits, scrubLimits } from "./background-scrub.ts";
import { type BlockCacheLimits, blockCacheLimits } from "./block-cache.ts";
import { claimServiceLimits } from "./claim-service.ts";
import { claimSessionLimits } from "./claim-session.ts";
import type { ClaimsLimits } from "./claims.ts";
import { type FetcherLimits, fetcherLimits } from "./fetcher.ts";
import { type LoadRunnerLimits, loadRunnerLimits } from "./load-runner.ts";
import { type MasterLinkLimits, masterLinkLimits } from "./master-link.ts";
import { type OriginLimits, originLimits } from "./origin-source.ts";
import { type PeerLimits, peerLimits } from "./peer-client.ts";
import { type ReaderLimits, readerLimits } from "./reader.ts";

export type WorkerLimits = {
  readonly cache: BlockCacheLimits;
  readonly fetcher: FetcherLimits;
  readonly origin: OriginLimits;
  readonly peer: PeerLimits;
  readonly reader: ReaderLimits;
  readonly loads: LoadRunnerLimits;
  readonly claims: Omit<ClaimsLimits, "firstListWaitMs">;
  readonly masterLink: MasterLinkLimits;
  readonly scrub: ScrubLimits;
  /** Of the data port. */
  readonly http: Partial<HttpLimits>;
  /** Stored blocks that stay in memory beside those on their way, so that who waited for them need not read the disk. */
  readonly warmBlocksMax: number;
  /** Pieces of all bodies on their way out, and the size of one; a stream that finds none uses 64 KiB of its own. */
  readonly piecesMax: number;
  readonly pieceBytes: number;
  /** Connections of the data port. */
  readonly connectionsMax: number;
  /** Connections to each other worker. */
  readonly peerConnectionsMax: number;
  /** The same for questions, which are short. */
  readonly peerControlConnectionsMax: number;
  readonly readerStreamsMax: number;
  readonly peerStreamsMax: number;
  /** Objects written through at once. */
  readonly writesMax: number;
  /** A question goes to the next master too when one has not answered for so long. */
  readonly askNextMasterAfterMs: number;
  /** How long `close` lets readers finish. */
  readonly closeGraceMs: number;
};

export const workerLimits: WorkerLimits = {
  cache: blockCacheLimits,
  fetcher: fetcherLimits,
  origin: originLimits,
  peer: peerLimits,
  reader: readerLimits,
  loads: loadRunnerLimits,
  claims: {
    isOn: false,
    service: { ...claimServiceLimits, table: claimLimits },
    session: claimSessionLimits,
    blocksMin: 4,
  },
  masterLink: masterLinkLimits,
  scrub: scrubLimits,
  http: { stallTimeoutMs: 60_000 },
  warmBlocksMax: 6,
  piecesMax: 48,
  pieceBytes: 1024 * 1024,
  connectionsMax: 10_000,
  peerConnectionsMax: 64,
  peerControlConnectionsMax: 8,
  readerStreamsMax: 2048,
  peerStreamsMax: 256,
  writesMax: 32,
  askNextMasterAfterMs: 300,
  closeGraceMs: 5000,
};
