/**
 * The journal of several masters over shared storage (docs/shared-journal.md): an election says who should try to lead, and storage decides
 * whose writes count. One loop owns the master's part: it follows the log, or it reigns.
 *
 * Promises: what `propose` resolved with is in the store, and is applied on all masters in the same order. A primary that another one has
 * deposed can neither acknowledge nor answer a read, whatever clocks, sessions and watches say. It leaves out the storage (shared-store.ts),
 * the election (election.ts), and what commands mean (the state machine).
 */

import { assert } from "../base/assert.ts";
import { HeadpondError, isHeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Logger } from "../io/logger.ts";
import { CommittedFeed } from "./committed-feed.ts";
import type { Entry, Journal, JournalCluster, JournalStatus, Proposed, Role, SavedCheckpoint } from "./journal.ts";
import { overloadedProposals, overloadedReads } from "./raft-refusals.ts";
import { SharedBell } from "./shared-bell.ts";
import type { Made } from "./shared-checkpointer.ts";
import type { SharedJournalOptions } from "./shared-journal-options.ts";
import { defaultSharedJournalLimits, type SharedJournalLimits } from "./shared-limits.ts";
import { SharedMembers } from "./shared-members.ts";
import { type SharedCounts, sharedMetrics } from "./shared-metrics.ts";
import { openSharedParts, type SharedParts } from "./shared-parts.ts";
import { SharedProposals } from "./shared-proposals.ts";
import { SharedReads } from "./shared-reads.ts";
import { type ReignEnd, SharedReign } from "./shared-reign.ts";
import { SharedRoom } from "./shared-room.ts";

type State = "new" | "starting" | "open" | "closing" | "closed";

export class SharedJournal<Result> implements Journal<Result> {
  readonly #options: SharedJournalOptions<Result>;
  readonly #limits: SharedJournalLimits;
  readonly #logger: Logger;
  readonly #proposals = new SharedProposals<Result>();
  readonly #reads: SharedReads;
  readonly #room: SharedRoom;
  readonly #feed: CommittedFeed;
  readonly #counts: SharedCounts;
  readonly #members: SharedMembers;
  readonly #bell: SharedBell;
  readonly #abort = new AbortController();
  readonly #roleListeners: ((role: Role) => void)[] = [];
  #parts: SharedParts<Result> | undefined;
  #reign: SharedReign | undefined;
  #loop: Promise<void> | undefined;
  #state: State = "new";
  #role: Role = "standby";
  #failure: HeadpondError | undefined;
  #isAwake = false;
  /** Of the last epoch in which something was read or written. */
  #epoch = 0;
  /** No attempt to lead before. */
  #notBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(options: SharedJournalOptions<Result>) {
    this.#options = options;
    this.#limits = { ...defaultSharedJournalLimits, ...options.limits };
    this.#logger = options.logger.child({ part: "journal" });
    this.#bell = new SharedBell(options.clock);
    this.#members = new SharedMembers({
      id: options.id,
      election: options.election,
      clock: options.clock,
      timeoutMs: this.#limits.storePatienceMs,
      isLeading: () => this.#role === "leader",
      own: () => ({ appliedIndex: options.machine.applied.index, ...this.#parts?.digests.newest }),
    });
    this.#room = new SharedRoom({ clock: options.clock, limits: this.#limits });
    this.#reads = new SharedReads({
      clock: options.clock,
      logger: this.#logger,
      patienceMs: this.#limits.readPatienceMs,
      appliedIndex: () => options.machine.applied.index,
      notLeader: () => this.#members.notLeader(),
    });
    this.#feed = new CommittedFeed(this.#limits.feed, {
      committedIndex: () => options.machine.applied.index,
      read: (fromIndex) => this.#open().history.read(fromIndex),
    });
    this.#counts = sharedMetrics(options.metrics, {
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

  get leaderAddress(): string | undefined {
    return this.#members.leaderAddress;
  }

  readonly cluster: JournalCluster = {
    members: () => this.#members.members(),
    onMembersChange: (listener) => this.#members.onChange(listener),
    changeMembers: (change) => this.#members.change(change),
    transferLeadership: (id, signal) => this.#transfer(id, signal),
    freshnessMs: () => this.#reads.freshnessMs,
  };

  async start(): Promise<void> {
    assert(this.#state === "new", "a journal is started once");
    this.#state = "starting";
    try {
      const parts = await openSharedParts<Result>({
        options: this.#options,
        limits: this.#limits,
        logger: this.#logger,
        signal: this.#abort.signal,
        members: this.#members,
        onApplied: (...done) => this.#onApplied(...done),
        onJump: () => this.#onJump(),
        onDiverged: (details) => this.#onDiverged(details),
        onTrouble: (error) => this.#reads.onTrouble(error),
        onFatal: (error) => this.#fail(error),
      });
      this.#parts = parts;
      this.#options.election.onChange(() => {
        this.#members.changed();
        this.#bell.ring();
      });
      await parts.follower.open(this.#abort.signal);
      if (this.#failure !== undefined) throw this.#failure;
      if (parts.place.diverged !== undefined) parts.divergence.raise(parts.place.diverged, true);
      this.#state = "open";
      await this.#options.election.start();
    } catch (error) {
      this.#state = "closed";
      this.#abort.abort(error);
      await this.#parts?.place.release();
      throw error;
    }
    this.#parts.positions.begin();
    this.#loop = this.#run();
  }

  propose(payload: Uint8Array): Promise<Proposed<Result>> {
    const refusal = this.#refusal(payload.length);
    if (refusal !== undefined) return Promise.reject(refusal);
    this.#wake();
    return this.#proposals.add(payload);
  }

  /** Another master may have been acknowledging since a moment ago: only storage knows. */
  get mayRead(): boolean {
    return false;
  }

  readBarrier(): Promise<void> {
    const refusal = this.#readRefusal();
    if (refusal !== undefined) return Promise.reject(refusal);
    if (this.#reign === undefined) this.#bell.ring();
    else this.#wake();
    return this.#reads.add();
  }

  committed(fromIndex: number, signal: AbortSignal): AsyncIterable<Entry> {
    return this.#feed.stream(fromIndex, signal);
  }

  get checkpoints(): readonly SavedCheckpoint[] {
    const { place, records } = this.#parts ?? {};
    // One that ends before the log begins is nothing to go on from.
    return place?.checkpoints.known.filter(({ index }) => index >= (records?.before?.index ?? 0)) ?? [];
  }

  async checkpoint(): Promise<Made> {
    const { checkpointer, divergence } = this.#open();
    if (divergence.details !== undefined) throw new HeadpondError("unavailable", divergence.details);
    return checkpointer.make();
  }

  status(): JournalStatus {
    const { index } = this.#options.machine.applied;
    const parts = this.#parts;
    return {
      type: "zookeeper",
      role: this.#role,
      term: this.#epoch,
      firstIndex: ((parts?.records.before ?? parts?.records.beginning)?.index ?? 0) + 1,
      lastIndex: Math.max(this.#reign?.writer.lastIndex ?? 0, index),
      commitIndex: Math.max(parts?.follower.cursor.index ?? 0, index),
      appliedIndex: index,
      checkpointIndex: parts?.records.newest?.index ?? 0,
      bytes: parts?.history.bytes ?? 0,
      election: this.#members.election,
    };
  }

  async close(): Promise<void> {
    const parts = this.#parts;
    // Who starts may wait for the store; then `start` rejects.
    if (this.#state === "starting") this.#abort.abort(new HeadpondError("cancelled", "the journal was closed"));
    if (this.#state !== "open" || parts === undefined) return;
    this.#state = "closing";
    const { machine, election } = this.#options;
    const reign = this.#reign;
    if (reign !== undefined && this.#failure === undefined) {
      // What cannot be written in time is of unknown outcome; the next primary looks for the tail then.
      await reign
        .handOver()
        .catch((error: unknown) => this.#logger.warn("not ended cleanly", { error: String(error) }));
    }
    await election.close();
    await this.#stop();
    await parts.applier.close();
    await parts.checkpointer.close();
    await parts.digests.close();
    await parts.divergence.drained();
    try {
      if (this.#failure === undefined) {
        await parts.positions.save();
        if (machine.flush !== undefined) {
          await machine.flush();
          await parts.place.trust.markClean();
        }
      }
      await parts.positions.close();
    } finally {
      await parts.place.release();
    }
  }

  /** Ends at once and answers nobody, as the end of the process would: after `onFatal`, and in tests. */
  abandon(): void {
    this.#state = "closed";
    this.#abort.abort(new HeadpondError("cancelled", "the journal was abandoned"));
    this.#bell.ring();
    this.#feed.close();
    this.#parts?.positions.close().catch(() => {});
    this.#parts?.applier.close().catch(() => {});
  }

  async #stop(): Promise<void> {
    this.#state = "closed";
    const closed = new HeadpondError("unavailable", "the journal was closed");
    this.#abort.abort(new HeadpondError("cancelled", closed.message));
    this.#bell.ring();
    await this.#loop;
    this.#proposals.refuseQueued(closed);
    this.#proposals.endSent(new HeadpondError("unknown-outcome", closed.message));
    this.#reads.end(closed);
    this.#feed.close();
    this.#setRole("standby");
  }

  // The loop.

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    const { clock } = this.#options;
    let waitMs = this.#limits.pollMinMs;
    while (!signal.aborted) {
      try {
        if (this.#wantsToLead) {
          await this.#lead(signal);
          waitMs = this.#limits.pollMinMs;
          continue;
        }
        const startMs = clock.monotonicMs();
        const before = this.#options.machine.applied.index;
        await this.#follow(signal);
        const tookMs = clock.monotonicMs() - startMs;
        const hasMoved = this.#options.machine.applied.index > before;
        waitMs = hasMoved ? this.#limits.pollMinMs : Math.min(this.#limits.pollMaxMs, waitMs * 1.5);
        await this.#bell.wait(Math.max(waitMs, tookMs * this.#limits.pollShare));
      } catch (error) {
        if (signal.aborted) break;
        this.#fail(toHeadpondError(error));
        break;
      }
    }
  }

  get #wantsToLead(): boolean {
    const { election, clock } = this.#options;
    if (this.#state !== "open" || this.#parts?.divergence.details !== undefined) return false;
    return election.view.shouldLead && clock.monotonicMs() >= this.#notBeforeMs;
  }

  /** Until nothing new is there. */
  async #follow(signal: AbortSignal): Promise<void> {
    const { follower } = this.#open();
    for (let isAll = false; !isAll && !this.#wantsToLead; ) {
      isAll = await this.#reads.during(() => follower.step(signal));
      this.#epoch = Math.max(this.#epoch, this.#options.machine.applied.term);
    }
  }

  async #lead(signal: AbortSignal): Promise<void> {
    const parts = this.#open();
    const { objects, follower, marks } = parts;
    const { clock, election, id } = this.#options;
    const begun = SharedReign.begin(
      {
        objects,
        follower,
        proposals: this.#proposals as SharedProposals<unknown>,
        clock,
        limits: this.#limits,
        mark: marks.next(),
        about: { id, createdMs: clock.wallMs() },
        signal,
        onCommitted: (slots) => {
          for (const slot of slots) follower.committed(slot);
        },
        onDurable: (entries, durationMs) => {
          this.#room.clear();
          this.#counts.durable(entries, durationMs);
        },
        onNoSpace: (error) => {
          this.#reads.askAgain();
          this.#wake();
          if (this.#room.refused(error)) this.#reign?.end({ why: "unreachable", message: error.message });
        },
        onFatal: (error) => this.#fail(error),
      },
      () => this.#wantsToLead,
    );
    let reign: SharedReign | undefined;
    try {
      reign = await begun;
    } catch (error) {
      if (signal.aborted || !isHeadpondError(error, "denied")) throw error;
      this.#logger.error("this master may not lead: storage does not let it write", { error: error.message });
      return this.#stepBack("unreachable");
    }
    if (reign === undefined) return this.#pause();
    this.#epoch = reign.epoch;
    this.#reign = reign;
    this.#logger.info("leads", { epoch: reign.epoch, index: follower.cursor.index });
    election.announce(reign.epoch);
    this.#setRole("leader");
    this.#wake();
    const end = await reign.ended;
    this.#reign = undefined;
    this.#endReign(reign, end);
    await parts.applier.drained();
    if (end.why !== "closed") await this.#stepBack(end.why);
  }

  #endReign(reign: SharedReign, end: ReignEnd): void {
    const lost = new HeadpondError(
      "unknown-outcome",
      "leadership was lost before the command was decided: it may be applied or not",
    );
    this.#setRole("standby");
    this.#proposals.refuseQueued(this.#members.notLeader());
    this.#proposals.endSent(lost);
    // As a standby's, these reads may yet be answered.
    this.#reads.askAgain();
    this.#bell.ring();
    this.#logger.info("leads no more", { epoch: reign.epoch, ...end });
    this.#room.clear();
  }

  /** Storage has decided against this master, or it cannot reach storage: let another one try. */
  async #stepBack(why: ReignEnd["why"]): Promise<void> {
    this.#pause();
    const { election } = this.#options;
    if (why === "handed-over" || !election.view.shouldLead) return;
    // While the election's service is away nobody else could take its place.
    if (why === "unreachable" && !election.view.connected) return;
    await election.yieldTo(undefined, this.#abort.signal).catch((error: unknown) => {
      this.#logger.warn("the election goes on as it was", { error: toHeadpondError(error).message });
    });
  }

  #pause(): void {
    const { clock, random } = this.#options;
    this.#notBeforeMs = clock.monotonicMs() + this.#limits.reclaimDelayMs * (1 + random.float());
  }

  async #transfer(id: string | undefined, signal: AbortSignal | undefined): Promise<void> {
    const reign = this.#reign;
    if (reign === undefined || this.#role !== "leader") throw this.#members.notLeader();
    if (id === this.#options.id) return;
    this.#members.checkSuccessor(id);
    await reign.handOver(signal);
    this.#pause();
    try {
      await this.#options.election.yieldTo(id, signal);
    } finally {
      reign.end({ why: "handed-over" });
    }
    await this.#members.otherLeads(signal);
  }

  // Turns of a primary.

  #wake(): void {
    if (this.#isAwake) return;
    this.#isAwake = true;
    this.#options.clock.nextTurn().then(
      () => {
        this.#isAwake = false;
        const reign = this.#reign;
        if (reign === undefined || reign.isOver || this.#failure !== undefined) return;
        reign.writer.pump();
        this.#reads.answer(reign);
      },
      (error: unknown) => this.#fail(toHeadpondError(error)),
    );
  }

  #onApplied(entries: readonly Entry[], results: readonly Result[]): void {
    this.#proposals.applied(entries, results);
    this.#reads.applied(this.#options.machine.applied.index);
    let bytes = 0;
    for (const { payload } of entries) bytes += payload.length;
    this.#feed.add(entries, bytes);
    this.#counts.applied(bytes);
    if (this.#state === "open") this.#parts?.checkpointer.applied(entries.length, bytes);
  }

  #onJump(): void {
    this.#reads.forgetFreshness();
    this.#feed.jumped();
    this.#parts?.digests.reset();
    this.#parts?.divergence.heal();
  }

  #onDiverged(details: string): void {
    this.#reads.end(new HeadpondError("unavailable", details));
    this.#reign?.end({ why: "unreachable", message: details });
    this.#options.onDiverged?.(details);
    this.#bell.ring();
  }

  #setRole(role: Role): void {
    if (this.#role === role) return;
    this.#role = role;
    for (const listener of this.#roleListeners) listener(role);
    this.#members.changed();
  }

  // Refusals.

  #refusal(payloadBytes: number): HeadpondError | undefined {
    const unfit = this.#unfit();
    if (unfit !== undefined) return unfit;
    const { maxPayloadBytes, maxQueuedEntries, maxQueuedBytes } = this.#limits;
    if (payloadBytes === 0 || payloadBytes > maxPayloadBytes) {
      return new HeadpondError(
        "invalid",
        `a command of ${payloadBytes} bytes: between 1 and ${maxPayloadBytes} are allowed`,
      );
    }
    const reign = this.#reign;
    if (reign === undefined || reign.isOver || reign.isHandingOver) return this.#members.notLeader();
    if (this.#room.refusal !== undefined) return this.#room.refusal;
    const { count, bytes } = this.#proposals;
    if (count >= maxQueuedEntries || bytes + payloadBytes > maxQueuedBytes) return overloadedProposals(count, bytes);
    return undefined;
  }

  #readRefusal(): HeadpondError | undefined {
    const unfit = this.#unfit();
    if (unfit !== undefined || this.#reads.count < this.#limits.maxQueuedReads) return unfit;
    return overloadedReads(this.#reads.count);
  }

  #unfit(): HeadpondError | undefined {
    if (this.#state !== "open" || this.#failure !== undefined) return this.#unavailable();
    const diverged = this.#parts?.divergence.details;
    return diverged === undefined ? undefined : new HeadpondError("unavailable", diverged);
  }

  #unavailable(): HeadpondError {
    const why =
      this.#failure?.message ?? (this.#state === "new" || this.#state === "starting" ? "not started yet" : "closed");
    return new HeadpondError("unavailable", `the journal takes no commands: ${why}`);
  }

  #open(): SharedParts<Result> {
    if (this.#parts === undefined || this.#state === "closed") throw this.#unavailable();
    return this.#parts;
  }

  #fail(error: HeadpondError): void {
    if (this.#failure !== undefined || this.#abort.signal.aborted) return;
    this.#failure = error;
    this.#logger.error("the journal failed", { error: error.message });
    this.#abort.abort(error);
    this.#bell.ring();
    this.#setRole("standby");
    this.#proposals.refuseQueued(this.#unavailable());
    this.#proposals.endSent(new HeadpondError("unknown-outcome", error.message));
    this.#reads.end(this.#unavailable());
    this.#options.onFatal(error);
  }
}
