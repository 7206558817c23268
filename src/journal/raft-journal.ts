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
import type { ClusterId } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import { formatBytes } from "../base/units.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import { Raft } from "../raft/raft.ts";
import type {
  AppendWork,
  Configuration,
  Message,
  NodeId,
  ReadRefusal,
  Ready,
  RefusalReason,
  SnapshotPoint,
} from "../raft/types.ts";
import { CommittedFeed } from "./committed-feed.ts";
import type { Entry, Journal, JournalCluster, JournalStatus, Proposed, Role, StateMachine } from "./journal.ts";
import type { CheckpointFile, PeerEvents, Peers, SnapshotMessage } from "./peers.ts";
import { RaftApplier, withoutConfiguration } from "./raft-applier.ts";
import { RaftBarriers } from "./raft-barriers.ts";
import { type Made, RaftCheckpointer } from "./raft-checkpointer.ts";
import { defaultRaftJournalLimits, type RaftJournalLimits } from "./raft-limits.ts";
import { RaftLogStorage, toEntry } from "./raft-log.ts";
import { RaftMembers } from "./raft-members.ts";
import { type RaftCounts, raftMetrics } from "./raft-metrics.ts";
import { type Pending, RaftProposals } from "./raft-proposals.ts";
import { configurationsOf, openRaftPlace, type RaftPlace } from "./raft-recovery.ts";
import { RaftWriter, toHardState } from "./raft-writer.ts";

export type RaftJournalOptions<Result> = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** As made by `formatJournal` with `raft`. */
  readonly directory: string;
  /** If given, the journal must be this cluster's. */
  readonly clusterId?: ClusterId;
  /** Must be the one that the directory was formatted for. */
  readonly id: NodeId;
  readonly machine: StateMachine<Result>;
  readonly peers: Peers;
  readonly random: Random;
  /** Where clients and workers find this master; empty while that is not known. */
  readonly addresses: () => { readonly rpc: string; readonly http: string };
  readonly limits?: Partial<RaftJournalLimits>;
  /** Told to the other masters. */
  readonly software?: string;
  readonly featureLevel?: number;
  /** The id of this boot of the computer; by default the kernel is asked. */
  readonly bootId?: string;
  /** Called once, when the log or the state can no longer be trusted: the process should end, and not by `close`. */
  readonly onFatal: (error: HeadpondError) => void;
  /** The state differs from the other masters': this one serves and leads no more, until it is repaired. */
  readonly onDiverged?: (details: string) => void;
};

type State = "new" | "starting" | "open" | "closing" | "closed";

/** What there is between `start` and `close`. */
type Parts<Result> = RaftPlace & {
  readonly core: Raft;
  readonly storage: RaftLogStorage;
  readonly writer: RaftWriter;
  readonly applier: RaftApplier<Result>;
  readonly checkpointer: RaftCheckpointer;
  readonly members: RaftMembers;
};

export class RaftJournal<Result> implements Journal<Result> {
  readonly #options: RaftJournalOptions<Result>;
  readonly #limits: RaftJournalLimits;
  readonly #raftConfig: typeof defaultRaftJournalLimits.raft;
  readonly #logger: Logger;
  readonly #proposals = new RaftProposals<Result>();
  readonly #barriers = new RaftBarriers();
  readonly #feed: CommittedFeed;
  readonly #counts: RaftCounts;
  readonly #roleListeners: ((role: Role) => void)[] = [];
  readonly #memberListeners: (() => void)[] = [];
  /** Checkpoints that came from the leader and were not installed yet, by index. */
  readonly #received = new Map<number, CheckpointFile>();
  #parts: Parts<Result> | undefined;
  #state: State = "new";
  #role: Role = "standby";
  /** As a leader: the state holds all that was committed before when it has this entry. */
  #leadsFromIndex = 0;
  #failure: HeadpondError | undefined;
  #diverged: string | undefined;
  #digest = { digestIndex: 0, digest: "" };
  #isAwake = false;
  #isAdmitted = false;
  #founding = false;
  #installing = false;
  #tickTimer: Timer | undefined;
  #restTimer: Timer | undefined;

  constructor(options: RaftJournalOptions<Result>) {
    this.#options = options;
    this.#limits = { ...defaultRaftJournalLimits, ...options.limits };
    this.#raftConfig = { ...defaultRaftJournalLimits.raft, ...options.limits?.raft };
    this.#logger = options.logger.child({ part: "journal" });
    this.#feed = new CommittedFeed(this.#limits.feed, {
      committedIndex: () => options.machine.applied.index,
      read: async (fromIndex) => (await this.#open().wal.read(fromIndex)).map(toEntry).map(withoutConfiguration),
    });
    this.#counts = raftMetrics(options.metrics, {
      queuedBytes: () => this.#proposals.bytes,
      term: () => this.#parts?.core.term ?? 0,
      isLeader: () => this.#role === "leader",
      commitIndex: () => this.#parts?.core.commitIndex ?? 0,
      appliedIndex: () => options.machine.applied.index,
    });
  }

  get role(): Role {
    return this.#role;
  }

  onRoleChange(listener: (role: Role) => void): void {
    this.#roleListeners.push(listener);
  }

  get leaderAddress(): string | undefined {
    return this.#parts?.members.rpcOf(this.#parts.core.leader);
  }

  readonly cluster: JournalCluster = {
    members: () => this.#parts?.members.members() ?? [],
    onMembersChange: (listener) => void this.#memberListeners.push(listener),
    changeMembers: async (change, signal) => this.#open().members.changeMembers(change, signal),
    transferLeadership: async (id, signal) => this.#open().members.transferLeadership(id, signal),
    freshnessMs: () => this.#freshnessMs(),
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
      await place?.wal.close();
      await place?.lock.release();
      throw error;
    }
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

  async checkpoint(): Promise<Made> {
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
    await checkpointer.drained();
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

  #assemble(place: RaftPlace): Parts<Result> {
    const { clock, id, machine, random, peers, addresses } = this.#options;
    const { wal, checkpoints, trust, identity } = place;
    const limits = this.#limits;
    const onFatal = (error: HeadpondError): void => this.#fail(error);
    const wake = (): void => this.#wake();
    const checkpointer = new RaftCheckpointer({
      machine,
      wal,
      checkpoints,
      trust,
      clock,
      logger: this.#logger,
      everyBytes: limits.checkpointEveryBytes,
      everyEntries: limits.checkpointEveryEntries,
      logKeepBytes: limits.logKeepBytes,
      logMaxBytes: limits.logMaxBytes,
      configurationAt: (index) => core.configurationAt(index),
    });
    const storage = new RaftLogStorage({
      wal,
      memoryBytes: limits.logMemoryBytes,
      snapshot: () => checkpointer.point,
      onLoaded: wake,
      onFatal,
    });
    const appliedIndex = machine.applied.index;
    const configurations = configurationsOf(place, appliedIndex);
    const committed = configurations.findLast(({ index }) => index <= appliedIndex)?.configuration;
    this.#isAdmitted = identity.isFounded || (committed !== undefined && identity.isNamedBy(committed));
    const core = new Raft({
      id,
      config: this.#raftConfig,
      limits: { ...defaultRaftJournalLimits.core, ...limits.core },
      random,
      storage,
      hardState: toHardState(wal.hardState),
      configurations,
      appliedIndex,
      restartedAtMs: clock.monotonicMs(),
      admitted: this.#isAdmitted,
    });
    const { noSpaceRetryMs: retryMs, applySliceEntries: sliceEntries, digestEveryEntries } = limits;
    const writer = new RaftWriter({ wal, clock, retryMs, onFatal, onWritten: (...done) => this.#onWritten(...done) });
    const applier = new RaftApplier<Result>({
      machine,
      clock,
      sliceEntries,
      digestEveryEntries,
      onApplied: (entries, results) => this.#onApplied(entries, results),
      onDone: (lastIndex) => {
        core.applied(lastIndex);
        this.#wake();
      },
      onDigest: (digestIndex, digest) => {
        this.#digest = { digestIndex, digest };
      },
      onFatal,
    });
    const members = new RaftMembers({
      core,
      peers,
      identity,
      clock,
      logger: this.#logger,
      software: this.#options.software ?? "",
      featureLevel: this.#options.featureLevel ?? 1,
      limits: { ...defaultRaftJournalLimits.members, ...limits.members },
      addresses,
      state: () => ({
        appliedIndex: machine.applied.index,
        ...this.#digest,
        fresh: core.lastIndex === 0 && core.term === 0,
        full: writer.noSpace !== undefined,
      }),
      wake,
    });
    members.onMembersChange(() => {
      for (const listener of this.#memberListeners) listener();
    });
    return { ...place, core, storage, writer, applier, checkpointer, members };
  }

  // What comes in.

  #peerEvents(parts: Parts<Result>): PeerEvents {
    const { core, identity, members } = parts;
    const tell = (run: () => void): void => {
      if (this.#state !== "open" && this.#state !== "closing") return;
      this.#guard(run);
      this.#wake();
    };
    const { clock } = this.#options;
    return {
      refuses: (peer) => identity.refuses(peer, core.configuration.configuration),
      onConnected: (peer) => {
        identity.connected(peer);
        members.connected(peer);
      },
      onMessages: (messages) =>
        tell(() => {
          const nowMs = clock.monotonicMs();
          for (const message of messages) core.step(message, nowMs);
        }),
      onReport: (id, report) => {
        members.reported(id, report);
        if (identity.reported(id, report.fresh === true)) this.#found(parts);
      },
      onUnreachable: (id) => {
        members.disconnected(id);
        tell(() => core.unreachable(id));
      },
      onRefused: (id, reason) => this.#logger.error("refused by another master", { id, reason }),
      onSnapshotProgress: (to) => tell(() => core.snapshotProgressed(to)),
      onSnapshotSent: (to) => tell(() => core.snapshotSent(to)),
      onSnapshotFailed: (to, reason) => {
        this.#logger.warn("a checkpoint was not taken over", { to, reason });
        tell(() => core.snapshotFailed(to));
      },
      onSnapshotReceived: (message, file) =>
        tell(() => {
          assert(
            message.snapshot.index === file.index,
            `a checkpoint at ${file.index} came for ${message.snapshot.index}`,
          );
          this.#received.set(file.index, file);
          core.step(message, clock.monotonicMs());
        }),
    };
  }

  /** The founders have met: this is written down, and from then on the disk may promise something. */
  #found({ identity, core }: Parts<Result>): void {
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
    const { core, storage } = this.#open();
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

  #onApplied(entries: readonly Entry[], results: readonly Result[]): void {
    this.#proposals.applied(entries, results);
    this.#barriers.applied((entries.at(-1) as Entry).index);
    let bytes = 0;
    for (const { payload } of entries) bytes += payload.length;
    this.#feed.add(entries, bytes);
    this.#counts.applied(bytes);
    const isDue = this.#parts?.checkpointer.applied(entries.length, bytes) === true;
    if (isDue && this.#state === "open") this.#checkpointLater();
  }

  #checkpointLater(): void {
    // The log goes on growing and the next threshold tries again; nothing is lost.
    this.checkpoint().catch((error: unknown) =>
      this.#logger.error("checkpoint failed", { error: toHeadpondError(error).message }),
    );
  }

  // Turns.

  #tickLater(): void {
    this.#tickTimer = this.#options.clock.timer(this.#raftConfig.tickMs, () => {
      // What came in while the process stood still is given first.
      this.#nextTurn(() => {
        const parts = this.#parts;
        if (parts === undefined || this.#state === "closed" || this.#failure !== undefined) return;
        this.#guard(() => {
          parts.core.tick(this.#options.clock.monotonicMs());
          parts.members.tick();
          this.#turn(parts);
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

  #turn(parts: Parts<Result>): void {
    const { core, writer, applier, members } = parts;
    this.#offer(core);
    const context = this.#barriers.takeQuestion();
    if (context !== undefined) core.readIndex(context, this.#options.clock.monotonicMs());
    const ready = core.ready();
    if (ready.roleChange !== undefined) this.#onCoreRole(core, ready.roleChange);
    if (ready.unknown !== undefined) this.#answerUnknown(ready.unknown.firstIndex, ready.unknown.lastIndex);
    // Before the own disk is asked: it works while the others' do.
    if (ready.messages.length > 0) this.#send(parts, ready.messages);
    if (ready.append !== undefined) writer.write(ready.append);
    if (ready.install !== undefined) this.#install(parts, ready.install);
    if (this.#received.size > 0) this.#dropReceived();
    if (ready.committed.length > 0) applier.apply(ready.committed);
    this.#answerReads(ready);
    if (ready.snapshotWanted && this.#state === "open") this.#checkpointLater();
    this.#admitIfNamed(parts);
    this.#updateRole(core);
    members.turn();
  }

  /** Gives the core what was proposed. */
  #offer(core: Raft): void {
    const all = this.#proposals.takeQueued();
    const { portionBytes } = this.#limits;
    for (let from = 0; from < all.length; ) {
      let to = from;
      for (let bytes = 0; to < all.length && (to === from || bytes < portionBytes); to++) {
        bytes += (all[to] as Pending<Result>).payload.length;
      }
      const portion = from === 0 && to === all.length ? all : all.slice(from, to);
      const proposal = core.propose(
        portion.map(({ payload }) => payload),
        this.#options.clock.monotonicMs(),
      );
      if (!proposal.accepted) return this.#proposals.refused(all.slice(from), this.#refusalFor(proposal.reason));
      this.#proposals.appended(portion, proposal.term, proposal.firstIndex);
      from = to;
    }
  }

  #send({ core, checkpointer }: Parts<Result>, messages: readonly Message[]): void {
    const { peers } = this.#options;
    if (!messages.some(isSnapshot)) return peers.send(messages);
    peers.send(messages.filter((message) => !isSnapshot(message)));
    for (const message of messages.filter(isSnapshot)) {
      const { newest } = checkpointer;
      if (newest?.index === message.snapshot.index) peers.sendSnapshot(message, newest);
      else core.snapshotFailed(message.to);
    }
  }

  #install(parts: Parts<Result>, point: SnapshotPoint): void {
    const { core, storage, writer, applier, checkpointer } = parts;
    const file = this.#received.get(point.index);
    assert(file !== undefined, `no checkpoint has arrived at ${point.index}`);
    this.#received.delete(point.index);
    this.#installing = true;
    const install = async (): Promise<void> => {
      await applier.drained();
      await writer.pausedFor(async () => {
        await checkpointer.install(point, file);
        storage.restarted(point.index);
        this.#answerUnknown(0, point.index);
        this.#guard(() => core.snapshotInstalled(point.index, this.#options.clock.monotonicMs()));
      });
      this.#installing = false;
      this.#barriers.applied(point.index);
      this.#wake();
    };
    install().catch((error: unknown) => this.#fail(toHeadpondError(error)));
  }

  /** Checkpoints that the core has no use for. */
  #dropReceived(): void {
    for (const { path } of this.#received.values()) {
      this.#options.disk.removeTree(path).catch(() => {});
    }
    this.#received.clear();
  }

  #answerReads({ reads, refusedReads }: Ready): void {
    const { index: appliedIndex } = this.#options.machine.applied;
    for (const { context, index } of reads) this.#barriers.granted(context, index, appliedIndex);
    for (const refusal of refusedReads) this.#barriers.refused(refusal.context, this.#readError(refusal));
  }

  /** A committed configuration that names this disk proves that it forgot nothing. */
  #admitIfNamed({ core, identity }: Parts<Result>): void {
    if (this.#isAdmitted) return;
    const committed = core.configurationAt(this.#options.machine.applied.index);
    if (committed === undefined || !identity.isNamedBy(committed)) return;
    this.#isAdmitted = true;
    core.admit();
  }

  // Roles.

  #onCoreRole(core: Raft, change: NonNullable<Ready["roleChange"]>): void {
    const { role, term, leader } = change;
    this.#logger.info("role", { role, term, leader });
    if (role === "leader") this.#leadsFromIndex = core.lastIndex;
  }

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

  // Refusals.

  #refusal(payloadBytes: number): HeadpondError | undefined {
    const parts = this.#parts;
    if (parts === undefined || this.#state !== "open" || this.#failure !== undefined) return this.#unavailable();
    if (this.#diverged !== undefined) return new HeadpondError("unavailable", this.#diverged);
    const { maxQueuedEntries, maxQueuedBytes } = this.#limits;
    const maxPayloadBytes = Math.min(this.#limits.maxPayloadBytes, parts.wal.maxPayloadBytes);
    if (payloadBytes === 0 || payloadBytes > maxPayloadBytes) {
      return new HeadpondError(
        "invalid",
        `a command of ${payloadBytes} bytes: between 1 and ${maxPayloadBytes} are allowed`,
      );
    }
    if (parts.writer.noSpace !== undefined) return new HeadpondError("no-space", parts.writer.noSpace.message);
    if (parts.core.role !== "leader") return parts.members.notLeader();
    const { count, bytes } = this.#proposals;
    if (count >= maxQueuedEntries || bytes + payloadBytes > maxQueuedBytes) return this.#overloaded();
    return undefined;
  }

  #refusalFor(reason: RefusalReason): HeadpondError {
    if (reason === "overloaded") return this.#overloaded();
    if (reason === "transferring") {
      return new HeadpondError("not-leader", "leadership is being handed over: ask again in a moment");
    }
    return this.#open().members.notLeader();
  }

  #overloaded(): HeadpondError {
    const { count, bytes } = this.#proposals;
    return new HeadpondError(
      "overloaded",
      `the journal has ${count} commands (${formatBytes(bytes)}) that are not answered: retry later`,
      { details: { retryAfterMs: 100 } },
    );
  }

  #readRefusal(): HeadpondError | undefined {
    if (this.#state !== "open" || this.#failure !== undefined) return this.#unavailable();
    if (this.#diverged !== undefined) return new HeadpondError("unavailable", this.#diverged);
    if (this.#barriers.count < this.#limits.maxQueuedReads) return undefined;
    return new HeadpondError("overloaded", `${this.#barriers.count} reads wait for the leader: retry later`, {
      details: { retryAfterMs: 100 },
    });
  }

  #readError({ reason }: ReadRefusal): HeadpondError {
    if (reason === "overloaded") {
      return new HeadpondError("overloaded", "too many reads wait for the leader: retry later", {
        details: { retryAfterMs: 100 },
      });
    }
    if (reason === "timeout")
      return new HeadpondError("timeout", "the leader did not answer a read in time: ask again");
    return this.#open().members.notLeader();
  }

  #answerUnknown(firstIndex: number, lastIndex: number): void {
    const message = "leadership was lost before the command was decided: it may be applied or not";
    this.#proposals.unknown(firstIndex, lastIndex, new HeadpondError("unknown-outcome", message));
  }

  #unavailable(): HeadpondError {
    const why =
      this.#failure?.message ?? (this.#state === "new" || this.#state === "starting" ? "not started yet" : "closed");
    return new HeadpondError("unavailable", `the journal takes no commands: ${why}`);
  }

  #open(): Parts<Result> {
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
      if (parts?.writer.isIdle === true && this.#state === "open" && !this.#installing) parts.wal.witness();
    });
  }

  #freshnessMs(): number | undefined {
    if (this.mayRead) return 0;
    const { passedAtMs } = this.#barriers;
    return passedAtMs === undefined ? undefined : this.#options.clock.monotonicMs() - passedAtMs;
  }
}

function isSnapshot(message: Message): message is SnapshotMessage {
  return message.type === "snapshot";
}
