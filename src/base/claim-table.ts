/**
 * Who brings which block of one file version into one egress domain; pure, time comes as an argument. The coordinator of the file keeps
 * it while the file is loaded: workers report what they hold and what arrives, and are told their claims and those of the others.
 * A block is claimed by one worker at a time, and only the claimant reads the origin; claims go to whoever is ahead, a bounded number at
 * once. A block that somebody of the load holds belongs to him, and is never claimed again while he lives. A claim of a worker that is
 * gone goes to whoever has most of the block's bytes.
 *
 * Leaves out: that a table is lost with its coordinator. The next one starts empty and waits until the workers have reported.
 */

import { assert } from "./assert.ts";
import { BlockBitmap } from "./blocks.ts";
import { judge, type LagLimits, noteProgress, type Participant, ringOf } from "./claim-ring.ts";
import type { RingPlan } from "./claim-route.ts";
import type { BlockIndex, WorkerId } from "./ids.ts";

export type ClaimLimits = LagLimits & {
  /** Claimed blocks of one file that are not there yet, in all; with several rings more. */
  readonly claimsMax: number;
  /** The same of one worker. */
  readonly claimsPerWorkerMax: number;
  /** A worker that has not reported for so long is gone. */
  readonly silentMs: number;
  /** One that others cannot reach, after so long. */
  readonly suspectMs: number;
  /** A new table claims nothing for so long, or until all that are expected take part: the workers of a load begin at about the same time. */
  readonly settleMs: number;
  /** The same if it had a predecessor: all must have told what they hold and what they read. */
  readonly succeedMs: number;
};

export const claimLimits: ClaimLimits = {
  claimsMax: 12,
  claimsPerWorkerMax: 4,
  silentMs: 2000,
  suspectMs: 700,
  settleMs: 250,
  succeedMs: 500,
  lagMs: 500,
  lagBlocks: 1.5,
  apartMs: 1500,
};

/** With several rings a claimant gives several copies: so many claims at once at least, or its uplink holds them up. */
const claimsPerRing = 6;
/** A block that its living owner does not give counts as lost there when that was said so often. */
const complaintsMax = 4;

export type ClaimReport = {
  readonly worker: WorkerId;
  /** Grows with each report of one session. Reports overtake each other: what an older one holds is out of date. */
  readonly session: string;
  readonly sequence: number;
  /** What it holds, checked. */
  readonly have: BlockBitmap;
  /** Blocks that it reads from the origin now. */
  readonly reading: readonly number[];
  /** Blocks of which it has some bytes, and how many. */
  readonly arriving: readonly (readonly [block: number, bytes: number])[];
  /** Blocks that it could get from nobody, and who claimed them as far as it knows. */
  readonly lost: readonly (readonly [block: number, claimant: WorkerId])[];
  /** Blocks that somebody waits for. */
  readonly wanted: readonly number[];
  /** It has everything, and reports no more: what it holds stays there. */
  readonly done: boolean;
  /** It knows of an older table. */
  readonly succeeds: boolean;
};

/** What has changed since the version that the asker knew. */
export type ClaimNews = {
  /** Of everything. */
  readonly version: number;
  /** Of the claims alone: what the asker says next time. */
  readonly claimsVersion: number;
  /** Runs of blocks and their claimants, in the order of the claims. */
  readonly claims: readonly (readonly [first: number, count: number, claimant: WorkerId])[];
  readonly plan: RingPlan;
};

export class ClaimTable {
  readonly blockCount: number;
  readonly #blockSizeBytes: number;
  readonly #expected: number;
  readonly #rankOf: (worker: WorkerId) => string;
  readonly #limits: ClaimLimits;
  #settledMs: number;
  readonly #participants = new Map<WorkerId, Participant>();
  readonly #owners: (WorkerId | undefined)[];
  /** Blocks in the order in which their claims changed; the version is its length and what `#planChanges` adds. */
  #log: number[] = [];
  #planVersion = 0;
  #plan: RingPlan = { ring: [], rings: 1 };
  /** Everything before it has an owner, or is in `#again`. */
  #next = 0;
  /** Blocks that had an owner and lost it. */
  readonly #again = new Set<number>();
  readonly #wanted = new Set<number>();
  /** Blocks that somebody could not get from their owner, how often. */
  readonly #complaints = new Map<number, number>();
  #claimed = 0;
  #succeeds = false;

  constructor(options: {
    readonly blockCount: number;
    readonly blockSizeBytes: number;
    readonly limits: ClaimLimits;
    readonly nowMs: number;
    /** Workers that may take part. */
    readonly expected: number;
    /** Neighbours in this order feed each other: by place first, then at random. */
    readonly rankOf: (worker: WorkerId) => string;
  }) {
    assert(options.blockCount > 0, "a file without blocks needs no claims");
    this.blockCount = options.blockCount;
    this.#blockSizeBytes = options.blockSizeBytes;
    this.#rankOf = options.rankOf;
    this.#expected = options.expected;
    this.#limits = options.limits;
    this.#settledMs = options.nowMs + options.limits.settleMs;
    this.#owners = new Array<WorkerId | undefined>(options.blockCount).fill(undefined);
  }

  /** Grows with every change. */
  get version(): number {
    return this.#log.length + this.#planVersion;
  }

  get plan(): RingPlan {
    return this.#plan;
  }

  /** Claimed blocks that are not there yet. */
  get claimedCount(): number {
    return this.#claimed;
  }

  get participantCount(): number {
    return this.#participants.size;
  }

  owner(block: number): WorkerId | undefined {
    return this.#owners[block];
  }

  participants(): Iterable<Readonly<Participant>> {
    return this.#participants.values();
  }

  /** Everybody who takes part has everything, or is gone. */
  get isDone(): boolean {
    for (const { done } of this.#participants.values()) if (!done) return false;
    return true;
  }

  report(report: ClaimReport, nowMs: number): void {
    if (report.succeeds && !this.#succeeds && nowMs < this.#settledMs) {
      this.#succeeds = true;
      this.#settledMs += this.#limits.succeedMs - this.#limits.settleMs;
    }
    const participant = this.#join(report.worker, nowMs);
    for (const [block, claimant] of report.lost) this.#lost(block, claimant, participant, nowMs);
    const isOld = participant.session === report.session && report.sequence < participant.sequence;
    if (isOld) return this.tick(nowMs);
    participant.session = report.session;
    participant.sequence = report.sequence;
    participant.done = report.done;
    participant.arriving = new Map(report.arriving);
    this.#takeHoldings(participant, report.have);
    let arrivingBytes = 0;
    for (const [block, bytes] of report.arriving) if (!report.have.has(block as BlockIndex)) arrivingBytes += bytes;
    noteProgress(participant, report.have.count + arrivingBytes / this.#blockSizeBytes, nowMs);
    if (judge(this.#participants, this.#plan, participant, this.#limits, nowMs)) {
      this.#replan();
      this.#relieve(nowMs);
    }
    for (const block of report.reading) {
      if (block < this.blockCount && this.#owners[block] === undefined) this.#claim(block, participant, nowMs);
    }
    for (const block of report.wanted) {
      if (block < this.blockCount && this.#owners[block] === undefined) this.#wanted.add(block);
    }
    this.tick(nowMs);
  }

  /** To be called now and then: drops who is silent, hands out claims. */
  tick(nowMs: number): void {
    if (!this.#succeeds && this.#participants.size >= this.#expected)
      this.#settledMs = Math.min(this.#settledMs, nowMs);
    for (const participant of this.#participants.values()) {
      if (!participant.done && nowMs - participant.reportedMs > this.#limits.silentMs) this.drop(participant.worker);
    }
    if (nowMs >= this.#settledMs) this.#grant(nowMs);
  }

  /** The worker is gone: its claims are free, its neighbours are joined. */
  drop(worker: WorkerId): void {
    const participant = this.#participants.get(worker);
    if (participant === undefined) return;
    this.#participants.delete(worker);
    this.#claimed -= participant.claims.size;
    for (let block = 0; block < this.blockCount; block++) {
      if (this.#owners[block] !== worker) continue;
      const holder = this.#holder(block);
      if (holder === undefined) {
        this.#owners[block] = undefined;
        this.#again.add(block);
      } else {
        this.#setOwner(block, holder.worker);
      }
    }
    this.#replan();
  }

  /** What was claimed after the asker's version of the claims; 0: everything. */
  news(since: number): ClaimNews {
    const runs: [number, number, WorkerId][] = [];
    const seen = new Set<number>();
    for (let at = since; at < this.#log.length; at++) {
      const block = this.#log[at] as number;
      const owner = this.#owners[block];
      if (owner === undefined || seen.has(block)) continue;
      seen.add(block);
      const last = runs.at(-1);
      if (last !== undefined && last[2] === owner && last[0] + last[1] === block) last[1]++;
      else runs.push([block, 1, owner]);
    }
    return { version: this.version, claimsVersion: this.#log.length, claims: runs, plan: this.#plan };
  }

  #join(worker: WorkerId, nowMs: number): Participant {
    const known = this.#participants.get(worker);
    if (known !== undefined) return known;
    const participant: Participant = {
      worker,
      rank: this.#rankOf(worker),
      have: new BlockBitmap(this.blockCount),
      claims: new Map(),
      arriving: new Map(),
      session: "",
      sequence: 0,
      reportedMs: nowMs,
      done: false,
      granted: 0,
      // Who comes late would hold up those behind him until he has caught up.
      apart: nowMs > this.#settledMs,
      apartUntilMs: 0,
      apartCount: 0,
      progress: 0,
      rate: 0,
      fedBy: undefined,
      fedSinceMs: 0,
      gapMin: 0,
      victim: undefined,
    };
    this.#participants.set(worker, participant);
    this.#replan();
    return participant;
  }

  #takeHoldings(participant: Participant, have: BlockBitmap): void {
    for (let block = 0 as BlockIndex; block < this.blockCount; block++) {
      if (have.has(block) === participant.have.has(block)) continue;
      if (have.has(block)) {
        participant.have.add(block);
        if (participant.claims.delete(block)) this.#claimed--;
        if (this.#owners[block] === undefined) this.#setOwner(block, participant.worker);
      } else {
        // Damaged or freed: it must come again.
        participant.have.delete(block);
        if (this.#owners[block] !== participant.worker) continue;
        const holder = this.#holder(block);
        if (holder !== undefined) this.#setOwner(block, holder.worker);
        else this.#release(block);
      }
    }
  }

  #lost(block: number, claimant: WorkerId, asker: Participant, nowMs: number): void {
    if (block >= this.blockCount || this.#owners[block] !== claimant) return;
    const owner = this.#participants.get(claimant);
    if (owner === undefined) return;
    if (owner === asker) {
      if (owner.claims.delete(block)) this.#claimed--;
      return this.#release(block);
    }
    if (!owner.done && nowMs - owner.reportedMs > this.#limits.suspectMs) return this.drop(claimant);
    // It reports, so it lives. Once may be an accident; again and again, the block is not to be had from there.
    const complaints = (this.#complaints.get(block) ?? 0) + 1;
    this.#complaints.set(block, complaints);
    if (complaints < complaintsMax) return;
    if (owner.claims.delete(block)) this.#claimed--;
    else owner.have.delete(block as BlockIndex);
    const holder = this.#holder(block);
    if (holder !== undefined) this.#setOwner(block, holder.worker);
    else this.#claim(block, asker, nowMs);
  }

  #holder(block: number): Participant | undefined {
    for (const participant of this.#participants.values()) {
      if (participant.have.has(block as BlockIndex)) return participant;
    }
    return undefined;
  }

  #release(block: number): void {
    this.#owners[block] = undefined;
    this.#again.add(block);
  }

  #setOwner(block: number, worker: WorkerId): void {
    this.#owners[block] = worker;
    this.#again.delete(block);
    this.#wanted.delete(block);
    this.#complaints.delete(block);
    this.#log.push(block);
  }

  #claim(block: number, participant: Participant, nowMs: number): void {
    this.#setOwner(block, participant.worker);
    participant.claims.set(block, nowMs);
    participant.granted++;
    this.#claimed++;
  }

  #grant(nowMs: number): void {
    const { rings } = this.#plan;
    const claimsMax = rings === 1 ? this.#limits.claimsMax : Math.max(this.#limits.claimsMax, claimsPerRing * rings);
    while (this.#claimed < claimsMax) {
      const block = this.#nextBlock();
      if (block === undefined) return;
      const participant = this.#claimantFor(block, nowMs);
      if (participant === undefined) return;
      this.#claim(block, participant, nowMs);
    }
  }

  /** What somebody waits for, then what has been lost, then the first one that nobody has claimed. */
  #nextBlock(): number | undefined {
    for (const block of this.#wanted) return block;
    for (const block of this.#again) return block;
    while (this.#next < this.blockCount && this.#owners[this.#next] !== undefined) this.#next++;
    return this.#next < this.blockCount ? this.#next : undefined;
  }

  /** Who has most of the block's bytes already; else who has least to do. */
  #claimantFor(block: number, nowMs: number): Participant | undefined {
    let best: Participant | undefined;
    let bestRank: readonly number[] = [];
    for (const participant of this.#participants.values()) {
      if (participant.done || participant.claims.size >= this.#limits.claimsPerWorkerMax) continue;
      const isQuiet = nowMs - participant.reportedMs > this.#limits.silentMs / 2;
      const rank = [
        isQuiet ? 1 : 0,
        participant.apart ? 1 : 0,
        -(participant.arriving.get(block) ?? 0),
        participant.claims.size,
        participant.granted,
      ];
      if (best === undefined || isBefore(rank, bestRank)) [best, bestRank] = [participant, rank];
    }
    return best;
  }

  /** Claims of those who stand apart go to others, who go on where they are. */
  #relieve(nowMs: number): void {
    for (const slow of this.#participants.values()) {
      if (!slow.apart || slow.claims.size === 0) continue;
      for (const [block, sinceMs] of slow.claims) {
        // What is young or nearly there ends sooner by itself, and would be read twice.
        const bytes = slow.arriving.get(block) ?? 0;
        if (nowMs - sinceMs < this.#limits.lagMs || bytes > this.#blockSizeBytes * 0.7) continue;
        const better = this.#claimantFor(block, nowMs);
        if (better === undefined || better.apart) continue;
        slow.claims.delete(block);
        this.#claimed--;
        this.#claim(block, better, nowMs);
      }
    }
  }

  #replan(): void {
    this.#plan = ringOf(this.#participants.values());
    this.#planVersion++;
  }
}

function isBefore(a: readonly number[], b: readonly number[]): boolean {
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
