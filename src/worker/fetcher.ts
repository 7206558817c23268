/**
 * Brings missing blocks in: one fetch of a block at a time, however many ask. The owner of a block within its egress
 * domain is the first live worker of its rendezvous order; only the owner reads the under store, and before that it asks
 * workers that hold the block already. Everybody else takes it from the owner while it arrives; an owner that is dead is
 * passed over for the next. While a file is loaded by several workers, claims take the place of owners (`claimed-fetch.ts`). Nothing counts
 * before its checksum matches.
 */

import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { BlockIndex, WorkerId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import { BlockSources, type SourceEvents, type SourceLimits } from "./block-sources.ts";
import type { CachedFile } from "./cached-file.ts";
import type { ClaimSession } from "./claim-session.ts";
import { fetchClaimed } from "./claimed-fetch.ts";
import { Fill } from "./fill.ts";
import { type FillBuffers, warmKey } from "./fill-buffers.ts";
import type { Holders } from "./holders.ts";
import type { Members } from "./members.ts";
import { changedContent, type OriginDependencies } from "./origin-source.ts";
import type { PeerClient } from "./peer-client.ts";
import type { Reception } from "./reception.ts";
import { Slots, type Urgency } from "./slots.ts";
import { chooseSource } from "./source-choice.ts";
import { untilAborted } from "./until-aborted.ts";

export type FetcherLimits = SourceLimits & {
  /** Blocks read back from the disk at once, to compare them with their checksums. */
  readonly diskReadsMax: number;
  /** Sources tried for one block before it counts as not to be had now. */
  readonly sourcesMax: number;
  /** How long a worker waits for a list of workers that a peer has and it has not. */
  readonly listWaitMs: number;
  /** How long a worker that has just started waits for its first list, once. */
  readonly firstListWaitMs: number;
};

export const fetcherLimits: FetcherLimits = {
  originReadsMax: 8,
  // As many as a load has claims under way.
  peerReadsMax: 12,
  diskReadsMax: 2,
  directWritesMax: 12,
  sourcesMax: 12,
  listWaitMs: 500,
  firstListWaitMs: 3000,
};

/** Times that a reader looks again for a block that came and went before it could copy it. */
const pieceAttemptsMax = 16;

export type FetcherEvents = SourceEvents & {
  /** The under store no longer has the content. Once a version. */
  readonly onStale: (file: CachedFile) => void;
};

export type FetcherDependencies = {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly members: Members;
  readonly buffers: FillBuffers;
  readonly holders: Holders;
  readonly peers: PeerClient;
  readonly origin: OriginDependencies;
  readonly limits: FetcherLimits;
  /** Checked blocks that are written outside of the slot they were read in, so that the next one can be read meanwhile. */
  readonly writesBesideMax: number;
  readonly events: FetcherEvents;
};

export type FetchOptions = {
  readonly urgency: Urgency;
  /** Workers that the asker found dead. */
  readonly after?: ReadonlySet<WorkerId>;
};

export class Fetcher {
  readonly #deps: FetcherDependencies;
  readonly #fills = new Map<string, Fill>();
  readonly #running = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  readonly #sources: BlockSources;
  readonly #diskSlots: Slots;
  readonly #originOnly = new Set<CachedFile>();
  /** Of the files that are being loaded. */
  readonly #claims = new Map<CachedFile, ClaimSession>();

  constructor(dependencies: FetcherDependencies) {
    this.#deps = dependencies;
    const { limits } = dependencies;
    this.#sources = new BlockSources(dependencies, this.#closing.signal);
    this.#diskSlots = new Slots({ name: "disk reads", limit: limits.diskReadsMax });
  }

  get activeFills(): number {
    return this.#fills.size;
  }

  /** The block on its way in, or just stored and still in memory. */
  current(file: CachedFile, block: BlockIndex): Fill | undefined {
    const warm = this.#deps.buffers.warm(file.id, block);
    return this.#fills.get(warmKey(file.id, block)) ?? (warm?.file === file ? warm : undefined);
  }

  /** Blocks of the file that arrive from the under store right now: who asks for one gets it as it comes. */
  arriving(file: CachedFile): BlockIndex[] {
    const fills = [...this.#fills.values()].filter((fill) => fill.file === file);
    return fills.filter((fill) => fill.readsOrigin && fill.filledBytes > 0).map(({ block }) => block);
  }

  /**
   * The fill of a block that is not present, or present and not yet compared with its checksum: the running one, or a new one. It
   * ends even if nobody waits any more.
   */
  start(file: CachedFile, block: BlockIndex, options: FetchOptions): Fill {
    const key = warmKey(file.id, block);
    const running = this.#fills.get(key);
    if (running !== undefined && running.file === file) {
      running.urgency = Math.min(running.urgency, options.urgency);
      return running;
    }
    const fill = new Fill({
      file,
      block,
      urgency: options.urgency,
      ...(options.after ? { after: options.after } : {}),
    });
    if (this.#closing.signal.aborted) {
      fill.fail(this.#closing.signal.reason);
      return fill;
    }
    if (file.isStale && !file.has(block)) {
      fill.fail(changedContent(fill));
      return fill;
    }
    this.#fills.set(key, fill);
    file.protect();
    const work = this.#run(fill).finally(() => {
      file.unprotect();
      if (this.#fills.get(key) === fill) this.#fills.delete(key);
      this.#running.delete(work);
    });
    this.#running.add(work);
    return fill;
  }

  /**
   * Checked bytes of one block from `offset` on, all of `target`: out of memory, off the disk, or after a fetch. Throws what the
   * fetch threw, or the signal's reason.
   */
  async readPiece(
    file: CachedFile,
    block: BlockIndex,
    offset: number,
    target: Uint8Array,
    options: FetchOptions & { readonly signal?: AbortSignal },
  ): Promise<void> {
    for (let attempt = 0; attempt < pieceAttemptsMax; attempt++) {
      const fill = this.current(file, block);
      if (fill?.isReadable && fill.copyTo(target, offset) === target.length) return;
      if (file.has(block) && file.isChecked(block)) {
        const count = await file.readAt(target, block * file.descriptor.blockSizeBytes + offset);
        if (count === target.length) return;
        // The disk did not give what it was given: the block comes from elsewhere.
        file.drop(block);
        continue;
      }
      await untilAborted(this.start(file, block, options).verified, options.signal);
    }
    throw new HeadpondError(
      "overloaded",
      `${file.descriptor.path}: block ${block} leaves memory faster than it is read`,
    );
  }

  /** Whether a reader gets the block without waiting for anybody. */
  isReady(file: CachedFile, block: BlockIndex): boolean {
    if (file.has(block) && file.isChecked(block)) return true;
    return this.current(file, block)?.isReadable ?? false;
  }

  /** The bytes of a block are not to be trusted: gone from disk and memory. */
  discard(file: CachedFile, block: BlockIndex): void {
    this.#deps.buffers.forget(file.id, block);
    file.drop(block);
  }

  /** While a file is loaded, its blocks come by claims. */
  useClaims(file: CachedFile, session: ClaimSession): void {
    this.#claims.set(file, session);
  }

  endClaims(file: CachedFile): void {
    this.#claims.delete(file);
  }

  /** A peer asks for a block that `claimant` brings in. False: the file is not being loaded here, or nobody claimed the block. */
  hearClaim(file: CachedFile, block: BlockIndex, claimant: WorkerId | undefined): boolean {
    const session = this.#claims.get(file);
    if (session === undefined || this.#originOnly.has(file)) return false;
    if (claimant !== undefined) session.view.hear(block, claimant);
    return true;
  }

  /** How far the blocks of a file are that are on their way in, and which of them come from the under store. */
  underWay(file: CachedFile): { readonly block: BlockIndex; readonly bytes: number; readonly fromOrigin: boolean }[] {
    const fills = [...this.#fills.values()].filter((fill) => fill.file === file && fill.phase === "filling");
    return fills.map(({ block, filledBytes, readsOrigin }) => ({ block, bytes: filledBytes, fromOrigin: readsOrigin }));
  }

  /** From now on this file comes only from its under store: peers gave bytes that fail the file's digest. */
  distrustPeers(file: CachedFile): void {
    this.#originOnly.add(file);
  }

  /** The file is right now, or gone: peers are trusted again. */
  forgetFile(file: CachedFile): void {
    this.#originOnly.delete(file);
  }

  /** Ends all fills; nothing new starts. */
  async close(): Promise<void> {
    this.#closing.abort(new HeadpondError("unavailable", "the worker is stopping"));
    await Promise.all(this.#running);
  }

  async #run(fill: Fill): Promise<void> {
    try {
      if (fill.file.has(fill.block) && (await this.#fromDisk(fill))) return;
      await this.#fromSources(fill);
    } catch (error) {
      if (isHeadpondError(error, "version-mismatch") && fill.file.isStale) this.#deps.events.onStale(fill.file);
      fill.fail(toHeadpondError(error));
    }
  }

  /** False: it was damaged, and is no longer present. */
  async #fromDisk(fill: Fill): Promise<boolean> {
    const { file, block } = fill;
    try {
      await this.#diskSlots.run(
        () => fill.urgency,
        this.#closing.signal,
        () =>
          this.#withBuffer(fill, async (buffer) => {
            await file.readBlock(block, buffer);
            fill.setFilled();
            fill.setVerified(Uint8Array.from(file.checksum(block)));
            fill.setStored();
          }),
      );
      return true;
    } catch (error) {
      if (isHeadpondError(error, "corrupt")) return false;
      throw error;
    }
  }

  async #fromSources(fill: Fill): Promise<void> {
    const { members, limits, logger, clock } = this.#deps;
    // A worker that has just started would take itself for the only one, and fetch what others hold.
    await members.waitForFirst(limits.firstListWaitMs);
    await this.#sources.with(fill, async (reception) => {
      for (;;) {
        const session = this.#originOnly.has(fill.file) ? undefined : this.#claims.get(fill.file);
        if (session === undefined) return this.#fromOwner(reception);
        try {
          const sources = this.#sources;
          return await fetchClaimed(reception, {
            session,
            members,
            clock,
            logger,
            sources,
            signal: this.#closing.signal,
          });
        } catch (error) {
          // Whoever waits for the block may not be the load, which may be over.
          if (!session.isClosed || this.#closing.signal.aborted || fill.phase !== "filling") throw error;
        }
      }
    });
  }

  async #fromOwner(reception: Reception): Promise<void> {
    const { members, limits } = this.#deps;
    const { fill } = reception;
    const { file, block } = fill;
    const failed = new Set<WorkerId>();
    let lastError: unknown;
    for (let tries = 0; tries < limits.sourcesMax; tries++) {
      if (file.isGone) throw file.goneError();
      const avoid = new Set([...failed, ...members.suspected(), ...(file.isPassing ? [members.self] : [])]);
      const choice = chooseSource({
        self: file.isPassing ? undefined : members.self,
        order: members.order(file.id, block),
        avoid,
        originOnly: this.#originOnly.has(file),
      });
      if (choice.kind === "origin") {
        if (!this.#originOnly.has(file) && (await this.#fromHolder(reception, failed, !choice.firstOwner))) return;
        fill.readsOrigin = true;
        await this.#sources.fromOrigin(reception);
        return;
      }
      const { worker, skipped } = choice;
      try {
        await this.#sources.fromPeer(reception, { worker, skipped, heldOnly: false });
        return;
      } catch (error) {
        lastError = await this.#afterPeerFailure(fill, worker, failed, error);
      }
    }
    throw lastError;
  }

  /** Decides what a peer's refusal means; returns the error to report should nothing else help. */
  async #afterPeerFailure(fill: Fill, worker: WorkerId, failed: Set<WorkerId>, thrown: unknown): Promise<unknown> {
    const { members, limits, clock } = this.#deps;
    const error = toHeadpondError(thrown);
    if (this.#closing.signal.aborted || fill.phase !== "filling") throw error;
    const itsVersion = error.details?.["workersVersion"];
    if (typeof itsVersion === "number" && itsVersion > members.version) {
      if (await members.waitForVersion(itsVersion, limits.listWaitMs)) return error;
    }
    const retryAfterMs = error.details?.["retryAfterMs"];
    if (error.code === "overloaded" && typeof retryAfterMs === "number") {
      await clock.sleep(Math.min(retryAfterMs, 1000), this.#closing.signal);
    }
    failed.add(worker);
    this.#deps.logger.debug("a peer did not give a block", {
      id: fill.file.id,
      block: fill.block,
      worker,
      error: error.message,
    });
    return error;
  }

  /** Somebody of the domain who has the block already. False: nobody, or none of them gave it. */
  async #fromHolder(reception: Reception, failed: Set<WorkerId>, urgent: boolean): Promise<boolean> {
    const { holders, members } = this.#deps;
    const { fill } = reception;
    for (const worker of await holders.find(fill.file, fill.block, urgent)) {
      if (failed.has(worker) || members.isSuspected(worker)) continue;
      try {
        await this.#sources.fromPeer(reception, { worker, skipped: [], heldOnly: true });
        return true;
      } catch (error) {
        if (this.#closing.signal.aborted || fill.phase !== "filling") throw error;
        failed.add(worker);
      }
    }
    return false;
  }

  async #withBuffer(fill: Fill, use: (buffer: Buffer) => Promise<void>): Promise<void> {
    const { buffers } = this.#deps;
    const buffer = await buffers.take(this.#closing.signal);
    fill.begin(buffer);
    try {
      await use(buffer);
    } catch (error) {
      fill.detach();
      buffers.give(buffer);
      throw error;
    }
    buffers.keepWarm(fill, buffer);
  }
}
