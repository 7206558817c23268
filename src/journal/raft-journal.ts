/**
 * The journal of several masters (docs/raft-journal.md): drives the consensus core with the log, the state, the clock and
 * the other masters. What comes in is given to the core as it comes; once per turn of the event loop the core is asked
 * what there is to do, so what came together travels together: one write to the disk, one message to each peer.
 *
 * Promises: what `propose` resolved with is on the disks of a majority and applied on all masters in the same order. It
 * leaves out the protocol (raft/), how bytes travel (peers.ts), and what commands mean (the state machine).
 */

import { assert } from "../base/assert.ts";
import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Timer } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Raft } from "../raft/raft.ts";
import type { AppendWork, Configuration, Ready, RefusalReason } from "../raft/types.ts";
import { CommittedFeed } from "./committed-feed.ts";
import type { Entry, Journal, JournalCluster, JournalStatus, Proposed, Role, SavedCheckpoint } from "./journal.ts";
import { MessageSender } from "./message-sender.ts";
import type { PeerEvents } from "./peers.ts";
import { withoutConfiguration } from "./raft-applier.ts";
import { RaftBarriers } from "./raft-barriers.ts";
import type { Made } from "./raft-checkpointer.ts";
import type { RaftJournalOptions } from "./raft-journal-options.ts";
import { defaultRaftJournalLimits, type RaftJournalLimits } from "./raft-limits.ts";
import { toEntry } from "./raft-log.ts";
import { type RaftCounts, raftMetrics } from "./raft-metrics.ts";
import { assembleRaft, type RaftParts } from "./raft-parts.ts";
import { raftPeerEvents } from "./raft-peer-events.ts";
import { RaftProposals } from "./raft-proposals.ts";
import { openRaftPlace, type RaftPlace } from "./raft-recovery.ts";
import * as refusals from "./raft-refusals.ts";

type State = "new" | "starting" | "open" | "closing" | "closed";

export class RaftJournal<Result> implements Journal<Result> {
  readonly #options: RaftJournalOptions<Result>;
  readonly #limits: RaftJournalLimits;
  readonly #raftConfig: typeof defaultRaftJournalLimits.raft;
  readonly #logger: Logger;
  readonly #proposals = new RaftProposals<Result>();
  readonly #sender: MessageSender;
  readonly #barriers = new RaftBarriers();
  readonly #feed: CommittedFeed;
  readonly #counts: RaftCounts;
  readonly #roleListeners: ((role: Role) => void)[] = [];
  readonly #memberListeners: (() => void)[] = [];
  #parts: RaftParts<Result> | undefined;
  #state: State = "new";
  #role: Role = "standby";
  /** As a leader: the state holds all that was committed before when it has this entry. */
  #leadsFromIndex = 0;
  #failure: HeadpondError | undefined;
  #isAwake = false;
  #isAdmitted = false;
  #founding = false;
  #tickTimer: Timer | undefined;
  #restTimer: Timer | undefined;

  constructor(options: RaftJournalOptions<Result>) {
    this.#options = options;
    this.#limits = { ...defaultRaftJournalLimits, ...options.limits };
    this.#raftConfig = { ...defaultRaftJournalLimits.raft, ...options.limits?.raft };
    this.#logger = options.logger.child({ part: "journal" });
    this.#sender = new MessageSender(options.peers);
    this.#feed = new CommittedFeed(this.#limits.feed, {
      committedIndex: () => options.machine.applied.index,
      read: async (fromIndex) => (await this.#open().wal.read(fromIndex)).map(toEntry).map(withoutConfiguration),
    });
    this.#counts = raftMetrics(options.metrics, {
      queuedBytes: () => this.#proposals.bytes,
      status: () => this.status(),
    });
  }

  get role(): Role {
    return this.#role;
  }

  onRoleChange(listener: (role: Role) => void): void {
    this.#roleListeners.push(listener);
  }

  get noSpace(): string | undefined {
    return this.#parts?.writer.noSpace?.message;
  }
  get leaderAddress(): string | undefined {
    return this.#parts?.members.rpcOf(this.#parts.core.leader);
  }

  readonly cluster: JournalCluster = {
    members: () => this.#parts?.members.members() ?? [],
    onMembersChange: (listener) => void this.#memberListeners.push(listener),
    changeMembers: async (change, signal) => this.#open().members.changeMembers(change, signal),
    transferLeadership: async (id, signal) => this.#open().members.transferLeadership(id, signal),
    freshnessMs: () => (this.mayRead ? 0 : this.#barriers.freshnessMs(this.#options.clock.monotonicMs())),
  };

  /** Who the members are, committed or not. */
  get configuration(): Configuration {
    return this.#open().core.configuration.configuration;
  }

  async start(): Promise<void> {
    assert(this.#state === "new", "a journal is started once");
    this.#state = "starting";
    let place: RaftPlace | undefined;
    try {
      place = await openRaftPlace({
        ...this.#options,
        logger: this.#logger,
        clusterId: this.#options.clusterId,
        bootId: this.#options.bootId,
        wal: this.#limits.wal,
        onFatal: (error) => this.#fail(error),
      });
      this.#parts = this.#assemble(place);
      await this.#options.peers.start(place.identity.self, this.#peerEvents(this.#parts));
      this.#state = "open";
    } catch (error) {
      this.#state = "closed";
      if (this.#parts !== undefined) await this.#options.peers.close();
      await place?.wal.close();
      await place?.lock.release();
      throw error;
    }
    if (place.diverged !== undefined) this.#parts.divergence.raise(place.diverged, true);
    this.#parts.members.turn();
    if (place.identity.hasMetAll) this.#found(this.#parts);
    this.#tickLater();
  }

  propose(payload: Uint8Array): Promise<Proposed<Result>> {
    const refusal = this.#refusal(payload.length);
    if (refusal !== undefined) return Promise.reject(refusal);
    this.#wake();
    return this.#proposals.add(payload);
  }

  get mayRead(): boolean {
    const core = this.#parts?.core;
    if (core === undefined || this.#state !== "open" || this.#diverged !== undefined || this.#failure !== undefined) {
      return false;
    }
    const { clock, machine } = this.#options;
    return core.leaseIndex(clock.monotonicMs()) !== undefined && machine.applied.index >= core.commitIndex;
  }

  readBarrier(): Promise<void> {
    if (this.mayRead) return Promise.resolve();
    const refusal = this.#readRefusal();
    if (refusal !== undefined) return Promise.reject(refusal);
    this.#wake();
    return this.#barriers.add(this.#options.clock.monotonicMs());
  }

  committed(fromIndex: number, signal: AbortSignal): AsyncIterable<Entry> {
    return this.#feed.stream(fromIndex, signal);
  }

  get checkpoints(): readonly SavedCheckpoint[] {
    return this.#parts?.checkpoints.known ?? [];
  }

  async checkpoint(): Promise<Made> {
    if (this.#diverged !== undefined) throw new HeadpondError("unavailable", this.#diverged);
    return this.#open().checkpointer.make();
  }

  status(): JournalStatus {
    const { index } = this.#options.machine.applied;
    const parts = this.#parts;
    return {
      type: "raft",
      role: this.#role,
      term: parts?.core.term ?? 0,
      firstIndex: parts?.wal.firstIndex ?? index + 1,
      lastIndex: parts?.core.lastIndex ?? index,
      commitIndex: parts?.core.commitIndex ?? index,
      appliedIndex: index,
      checkpointIndex: parts?.checkpoints.newest?.index ?? 0,
      bytes: parts?.wal.bytes ?? 0,
    };
  }

  async close(): Promise<void> {
    const parts = this.#parts;
    if (this.#state !== "open" || parts === undefined) return;
    this.#state = "closing";
    const { members, core, writer, applier, checkpointer, wal, lock, trust } = parts;
    const { machine, peers } = this.#options;
    if (this.#failure === undefined) {
      const patienceMs = this.#raftConfig.electionTimeoutMs * 2;
      await members.until(() => this.#proposals.count === 0 || this.#failure !== undefined, patienceMs);
      // A leader that goes leaves nobody without one.
      if (core.role === "leader") await members.handOver(this.#raftConfig.electionTimeoutMs);
    }
    this.#state = "closed";
    this.#tickTimer?.clear();
    this.#restTimer?.clear();
    const closed = new HeadpondError("unavailable", "the journal was closed");
    this.#proposals.endAll(closed, new HeadpondError("unknown-outcome", closed.message));
    this.#barriers.endAll(closed);
    members.close();
    this.#feed.close();
    this.#setRole("standby");
    await peers.close();
    await applier.close();
    await writer.close();
    await checkpointer.close();
    await parts.divergence.drained();
    try {
      if (this.#failure === undefined && machine.flush !== undefined) {
        await machine.flush();
        await trust.markClean();
      }
      await wal.close();
    } finally {
      await lock.release();
    }
  }

  /** Ends at once and answers nobody, as the end of the process would: after `onFatal`, and in tests. */
  abandon(): void {
    this.#state = "closed";
    this.#tickTimer?.clear();
    this.#restTimer?.clear();
    this.#feed.close();
    this.#parts?.members.close();
    this.#parts?.applier.close().catch(() => {});
    this.#parts?.writer.close().catch(() => {});
  }

  #assemble(place: RaftPlace): RaftParts<Result> {
    const parts = assembleRaft<Result>({
      options: this.#options,
      limits: this.#limits,
      config: this.#raftConfig,
      logger: this.#logger,
      place,
      wake: () => this.#wake(),
      onWritten: (...done) => this.#onWritten(...done),
      onNoSpace: () => this.#giveUpFullDisk(),
      onApplied: (...done) => this.#onApplied(...done),
      onInstalled: (index) => {
        this.#proposals.lost(0, index);
        this.#feed.jumped();
        this.#barriers.applied(index);
      },
      onDiverged: (details) => this.#onDiverged(details),
      onFatal: (error) => this.#fail(error),
    });
    this.#isAdmitted = parts.isAdmitted;
    parts.members.onMembersChange(() => this.#memberListeners.forEach((listener) => listener()));
    return parts;
  }

  // What comes in.

  #peerEvents(parts: RaftParts<Result>): PeerEvents {
    return raftPeerEvents({
      parts,
      clock: this.#options.clock,
      logger: this.#logger,
      tell: (run) => {
        if (this.#state !== "open" && this.#state !== "closing") return;
        this.#guard(run);
        this.#wake();
      },
      onFound: () => this.#found(parts),
      onRefused: (id, reason) => this.#options.onRefused?.(id, reason),
    });
  }

  /** The founders have met: this is written down, and from then on the disk may promise something. */
  #found({ identity, core }: RaftParts<Result>): void {
    if (this.#founding || identity.isFounded) return;
    this.#founding = true;
    identity.found().then(
      () => {
        this.#logger.info("the founders have met", { id: this.#options.id });
        this.#isAdmitted = true;
        core.admit();
        this.#wake();
      },
      (error: unknown) => this.#fail(toHeadpondError(error)),
    );
  }

  #onWritten(works: readonly AppendWork[], durationMs: number): void {
    // A last write may end while the journal closes: nobody waits for it any more.
    if (this.#parts === undefined || this.#state === "closed") return;
    const { core, storage } = this.#parts;
    this.#guard(() => {
      let entries = 0;
      for (const work of works) entries += work.entries.length;
      this.#counts.flushed(entries, durationMs);
      storage.wrote(works);
      core.appended((works.at(-1) as AppendWork).token, this.#options.clock.monotonicMs());
    });
    this.#wake();
    this.#rest();
  }

  /** Those who wait are told at once, and ask again with the same request at whoever has room (docs/decisions/0154). */
  #giveUpFullDisk(): void {
    this.#proposals.endAll(refusals.fullDisk("no-space"), refusals.fullDisk("unknown-outcome"));
    this.#parts?.members.giveUpLeading();
    this.#wake();
  }

  #onApplied(entries: readonly Entry[], results: readonly Result[]): void {
    this.#proposals.applied(entries, results);
    this.#barriers.applied((entries.at(-1) as Entry).index);
    let bytes = 0;
    for (const { payload } of entries) bytes += payload.length;
    this.#feed.add(entries, bytes);
    this.#counts.applied(bytes);
    const isDue = this.#parts?.checkpointer.applied(entries.length, bytes) === true;
    if (isDue && this.#state === "open" && this.#diverged === undefined) this.#checkpointLater();
  }

  #checkpointLater(): void {
    // The log goes on growing and the next threshold tries again; nothing is lost.
    this.checkpoint().catch((error: unknown) => {
      if (this.#state === "open") this.#logger.error("checkpoint failed", { error: toHeadpondError(error).message });
    });
  }

  #tickLater(): void {
    this.#tickTimer = this.#options.clock.timer(this.#raftConfig.tickMs, () => {
      // What came in while the process stood still is given first.
      this.#nextTurn(() => {
        const parts = this.#parts;
        if (parts === undefined || this.#state === "closed" || this.#failure !== undefined) return;
        const nowMs = this.#options.clock.monotonicMs();
        this.#guard(() => {
          parts.core.tick(nowMs);
          parts.members.tick();
          parts.digests.judge();
          if (this.#diverged !== undefined || parts.writer.noSpace !== undefined) parts.members.giveUpLeading();
          this.#proposals.tick(parts.core.role === "leader", this.#raftConfig.electionTimeoutMs, nowMs);
          this.#turn(parts);
          this.#sender.tick();
        });
        this.#tickLater();
      });
    });
  }

  #wake(): void {
    if (this.#isAwake) return;
    this.#isAwake = true;
    this.#nextTurn(() => {
      this.#isAwake = false;
      const parts = this.#parts;
      if (parts === undefined || this.#state === "closed" || this.#failure !== undefined) return;
      this.#guard(() => this.#turn(parts));
    });
  }

  #nextTurn(run: () => void): void {
    this.#options.clock.nextTurn().then(run, (error: unknown) => this.#fail(toHeadpondError(error)));
  }

  /** What the core finds impossible ends the process: going on would spread it. */
  #guard(run: () => void): void {
    if (this.#failure !== undefined) return;
    try {
      run();
    } catch (cause) {
      this.#fail(
        new HeadpondError("internal", `the journal met what cannot be: ${toHeadpondError(cause).message}`, { cause }),
      );
    }
  }

  #turn(parts: RaftParts<Result>): void {
    const { core, writer, applier, installer, members } = parts;
    const nowMs = this.#options.clock.monotonicMs();
    this.#proposals.offer(core, nowMs, this.#limits.portionBytes, (reason) => this.#refusalFor(reason));
    const context = this.#barriers.takeQuestion();
    if (context !== undefined) core.readIndex(context, nowMs);
    const ready = core.ready();
    if (ready.roleChange !== undefined) this.#logger.info("role", ready.roleChange);
    if (ready.roleChange?.role === "leader") this.#leadsFromIndex = core.lastIndex;
    if (ready.unknown !== undefined) this.#proposals.lost(ready.unknown.firstIndex, ready.unknown.lastIndex);
    // Before the own disk is asked: it works while the others' do.
    this.#sender.send(parts, ready.messages);
    if (ready.append !== undefined) writer.write(ready.append);
    if (ready.install !== undefined) this.#barriers.forgetPassed();
    installer.turn(ready.install);
    if (ready.committed.length > 0) applier.apply(ready.committed);
    this.#answerReads(ready);
    if (ready.snapshotWanted && this.#state === "open") this.#checkpointLater();
    this.#admitIfNamed(parts);
    this.#updateRole(core);
    members.turn();
  }

  #answerReads({ reads, refusedReads }: Ready): void {
    const { index: appliedIndex } = this.#options.machine.applied;
    for (const { context, index } of reads) this.#barriers.granted(context, index, appliedIndex);
    for (const refusal of refusedReads) {
      const overloaded = refusal.reason === "overloaded";
      const error = overloaded ? refusals.overloadedReads(this.#barriers.count) : this.#refusalFor(refusal.reason);
      this.#barriers.refused(refusal.context, error);
    }
  }

  /**
   * A leader that names this disk knows of no other that had promised something in its name. Committed or not: who waits to hear of
   * that may wait for a leader that cannot be elected without it (docs/decisions/0140).
   */
  #admitIfNamed({ core, identity }: RaftParts<Result>): void {
    if (this.#isAdmitted || !identity.isNamedBy(core.configuration.configuration)) return;
    this.#isAdmitted = true;
    core.admit();
  }

  // Roles.

  /** A leader acts as one when its state holds all that was committed before it. */
  #updateRole(core: Raft): void {
    const { index } = this.#options.machine.applied;
    const leads = core.role === "leader" && core.hasCommitted && this.#diverged === undefined;
    this.#setRole(leads && (this.#role === "leader" || index >= this.#leadsFromIndex) ? "leader" : "standby");
  }

  #setRole(role: Role): void {
    if (this.#role === role) return;
    this.#role = role;
    for (const listener of this.#roleListeners) listener(role);
  }

  #onDiverged(details: string): void {
    this.#barriers.endAll(new HeadpondError("unavailable", details));
    this.#options.onDiverged?.(details);
    this.#wake();
  }

  get #diverged(): string | undefined {
    return this.#parts?.divergence.details;
  }

  #refusal(payloadBytes: number): HeadpondError | undefined {
    const parts = this.#parts;
    if (parts === undefined || this.#state !== "open" || this.#failure !== undefined) return this.#unavailable();
    if (this.#diverged !== undefined) return new HeadpondError("unavailable", this.#diverged);
    const { maxQueuedEntries, maxQueuedBytes } = this.#limits;
    const maxPayloadBytes = Math.min(this.#limits.maxPayloadBytes, parts.wal.maxPayloadBytes);
    if (payloadBytes === 0 || payloadBytes > maxPayloadBytes) return refusals.wrongSize(payloadBytes, maxPayloadBytes);
    if (parts.writer.noSpace !== undefined) return new HeadpondError("no-space", parts.writer.noSpace.message);
    if (parts.core.role !== "leader") return parts.members.notLeader();
    if (parts.members.isShortOfSpace) return refusals.fullMajority();
    const { count, bytes } = this.#proposals;
    const isOver = count >= maxQueuedEntries || bytes + payloadBytes > maxQueuedBytes;
    return isOver ? refusals.overloadedProposals(count, bytes) : undefined;
  }

  #refusalFor(reason: RefusalReason): HeadpondError {
    if (reason === "overloaded") return refusals.overloadedProposals(this.#proposals.count, this.#proposals.bytes);
    if (reason === "transferring") return refusals.handingOver();
    return reason === "timeout" ? refusals.slowLeader() : this.#open().members.notLeader();
  }

  #readRefusal(): HeadpondError | undefined {
    if (this.#state !== "open" || this.#failure !== undefined) return this.#unavailable();
    if (this.#diverged !== undefined) return new HeadpondError("unavailable", this.#diverged);
    const { count } = this.#barriers;
    return count < this.#limits.maxQueuedReads ? undefined : refusals.overloadedReads(count);
  }

  #unavailable(): HeadpondError {
    return refusals.closed(this.#failure, this.#state === "new" || this.#state === "starting");
  }

  #open(): RaftParts<Result> {
    if (this.#parts === undefined || this.#state === "closed") throw this.#unavailable();
    return this.#parts;
  }

  #fail(error: HeadpondError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#logger.error("the journal failed", { error: error.message });
    this.#setRole("standby");
    this.#proposals.endAll(this.#unavailable(), new HeadpondError("unknown-outcome", error.message));
    this.#barriers.endAll(this.#unavailable());
    this.#options.onFatal(error);
  }

  /** Nothing is being written: soon the last batch gets its witness. */
  #rest(): void {
    this.#restTimer ??= this.#options.clock.timer(this.#limits.restMs, () => {
      this.#restTimer = undefined;
      const parts = this.#parts;
      if (parts?.writer.isIdle === true && this.#state === "open" && parts.installer.isIdle) parts.wal.witness();
    });
  }
}
