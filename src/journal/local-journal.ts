/**
 * The journal of one master: the log of `wal.ts`, one member, no replication. It is the embedded default, and what a
 * cluster grows from.
 *
 * Group commit: while one batch is being flushed the next one gathers, and while that is being flushed the first one is
 * applied. A proposal is acknowledged when it is on the disk and applied, never before. Its order and index are fixed
 * when its batch is written; until then it can be refused without a trace.
 *
 * The state machine's own disk is behind the log or level with it, and is trusted as far as `state-trust.ts` says. A
 * trusted state that is ahead of its log proves that the log lost something: that is damage (docs/decisions/0011).
 */

import { assert } from "../base/assert.ts";
import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { formatBytes, GiB, MiB } from "../base/units.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Disk, DiskLock } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import { Checkpoints } from "./checkpoints.ts";
import { CommittedFeed, defaultFeedLimits, type FeedLimits } from "./committed-feed.ts";
import type { Entry, Journal, JournalStatus, Proposed, Role, SavedCheckpoint, StateMachine } from "./journal.ts";
import { checkpointDirectory, lockPath, readBootId, readMeta, walDirectory } from "./journal-meta.ts";
import { wrongSize } from "./raft-refusals.ts";
import { recordType, type WalRecord } from "./record.ts";
import { recoverState } from "./recover-state.ts";
import { StateTrust } from "./state-trust.ts";
import { defaultWalLimits, Wal, type WalLimits } from "./wal.ts";

export type LocalJournalLimits = {
  readonly maxPayloadBytes: number;
  /** Proposals that wait for their flush, beyond which new ones are refused with `overloaded`. */
  readonly maxQueuedEntries: number;
  readonly maxQueuedBytes: number;
  /** One flush takes at most so many. */
  readonly maxBatchEntries: number;
  /**
   * One call of `apply` takes at most so many; then others have their turn. Clients get their answers while the rest is
   * applied, and what they send next is flushed meanwhile: without it all clients move in step, and disk, state and clients wait
   * for each other (measured: 62,000 creates/s in slices of a whole batch).
   */
  readonly applySliceEntries: number;
  /** A checkpoint is made after so many bytes of payload or entries, whichever comes first. */
  readonly checkpointEveryBytes: number;
  readonly checkpointEveryEntries: number;
  /** The log rests so long before it is witnessed (`Wal.witness`). */
  readonly restMs: number;
  readonly feed: FeedLimits;
  readonly wal: WalLimits;
};

export const defaultLocalJournalLimits: LocalJournalLimits = {
  maxPayloadBytes: MiB,
  maxQueuedEntries: 65_536,
  maxQueuedBytes: 64 * MiB,
  maxBatchEntries: 4096,
  applySliceEntries: 64,
  checkpointEveryBytes: GiB,
  checkpointEveryEntries: 10_000_000,
  restMs: 20,
  feed: defaultFeedLimits,
  wal: defaultWalLimits,
};

export type LocalJournalOptions<Result> = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** As made by `formatJournal`. */
  readonly directory: string;
  /** If given, the journal must be this cluster's. */
  readonly clusterId?: ClusterId;
  readonly machine: StateMachine<Result>;
  readonly limits?: Partial<LocalJournalLimits>;
  /** The id of this boot of the computer; by default the kernel is asked. */
  readonly bootId?: string;
  /** Called once, when the log or the state can no longer be trusted: the process should end, and not by `close`. */
  readonly onFatal: (error: HeadpondError) => void;
};

type Pending<Result> = {
  readonly payload: Uint8Array;
  readonly resolve: (proposed: Proposed<Result>) => void;
  readonly reject: (error: HeadpondError) => void;
};

type Batch<Result> = {
  readonly pending: readonly Pending<Result>[];
  readonly records: readonly WalRecord[];
  /** How many of them are durable. */
  readonly flushed: Promise<number>;
};

type State = "new" | "starting" | "open" | "closing" | "closed";

export class LocalJournal<Result> implements Journal<Result> {
  readonly leaderAddress: string | undefined = undefined;
  readonly cluster: undefined = undefined;
  readonly #options: LocalJournalOptions<Result>;
  readonly #limits: LocalJournalLimits;
  readonly #machine: StateMachine<Result>;
  readonly #logger: Logger;
  readonly #checkpoints: Checkpoints;
  readonly #feed: CommittedFeed;
  readonly #roleListeners: ((role: Role) => void)[] = [];
  readonly #observeFlush: (entries: number, durationMs: number) => void;
  readonly #countBytes: (bytes: number) => void;
  #trust: StateTrust | undefined;
  #lock: DiskLock | undefined;
  #wal: Wal | undefined;
  #state: State = "new";
  #role: Role = "standby";
  #term = 0;
  #failure: HeadpondError | undefined;
  #queue: Pending<Result>[] = [];
  #queuedBytes = 0;
  /** The flush loop, while it runs. */
  #running: Promise<void> | undefined;
  #restTimer: Timer | undefined;
  readonly #closing = new AbortController();
  #checkpointing: Promise<{ readonly index: number; readonly bytes: number; readonly durationMs: number }> | undefined;
  #bytesSinceCheckpoint = 0;
  #entriesSinceCheckpoint = 0;

  constructor(options: LocalJournalOptions<Result>) {
    this.#options = options;
    this.#limits = { ...defaultLocalJournalLimits, ...options.limits };
    this.#machine = options.machine;
    this.#logger = options.logger.child({ part: "journal" });
    this.#checkpoints = new Checkpoints({ disk: options.disk, directory: checkpointDirectory(options.directory) });
    this.#feed = new CommittedFeed(this.#limits.feed, {
      committedIndex: () => this.#machine.applied.index,
      read: (fromIndex) => this.#openWal().read(fromIndex),
    });
    const { observeFlush, countBytes } = this.#registerMetrics(options.metrics);
    this.#observeFlush = observeFlush;
    this.#countBytes = countBytes;
  }

  get role(): Role {
    return this.#role;
  }

  onRoleChange(listener: (role: Role) => void): void {
    this.#roleListeners.push(listener);
  }

  async start(): Promise<void> {
    assert(this.#state === "new", "a journal is started once");
    this.#state = "starting";
    try {
      await this.#recover();
      this.#state = "open";
    } catch (error) {
      this.#state = "closed";
      await this.#wal?.close();
      await this.#lock?.release();
      throw error;
    }
    this.#setRole("leader");
  }

  propose(payload: Uint8Array): Promise<Proposed<Result>> {
    const refusal = this.#refusal(payload.length);
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      this.#queue.push({ payload, resolve, reject });
      this.#queuedBytes += payload.length;
      this.#running ??= this.#run();
    });
  }

  /** Nobody else can have committed anything. */
  get mayRead(): boolean {
    return this.#role === "leader";
  }

  async readBarrier(): Promise<void> {
    this.#requireOpen();
  }

  committed(fromIndex: number, signal: AbortSignal): AsyncIterable<Entry> {
    return this.#feed.stream(fromIndex, signal);
  }

  get checkpoints(): readonly SavedCheckpoint[] {
    return this.#checkpoints.known;
  }

  checkpoint(): Promise<{ readonly index: number; readonly bytes: number; readonly durationMs: number }> {
    // One at a time: who asks while one is being made gets one that begins afterwards, with what was applied till then.
    const before = this.#checkpointing;
    const made = (async () => {
      await before?.catch(() => {});
      this.#requireOpen();
      return this.#makeCheckpoint();
    })();
    this.#checkpointing = made;
    const clear = (): void => {
      if (this.#checkpointing === made) this.#checkpointing = undefined;
    };
    made.then(clear, clear);
    return made;
  }

  status(): JournalStatus {
    const { index } = this.#machine.applied;
    const lastIndex = this.#wal?.lastIndex ?? index;
    return {
      type: "local",
      role: this.#role,
      term: this.#term,
      firstIndex: this.#wal?.firstIndex ?? index + 1,
      lastIndex,
      commitIndex: lastIndex,
      appliedIndex: index,
      checkpointIndex: this.#checkpoints.newest?.index ?? 0,
      bytes: this.#wal?.bytes ?? 0,
    };
  }

  async close(): Promise<void> {
    if (this.#state !== "open") return;
    this.#state = "closing";
    while (this.#running !== undefined) await this.#running;
    this.#closing.abort(new HeadpondError("cancelled", "the journal was closed while a checkpoint was made"));
    await this.#checkpointing?.catch(() => {});
    this.#restTimer?.clear();
    this.#feed.close();
    this.#setRole("standby");
    try {
      if (this.#failure === undefined && this.#machine.flush !== undefined) {
        await this.#machine.flush();
        await this.#trust?.markClean();
      }
      await this.#wal?.close();
    } finally {
      this.#state = "closed";
      await this.#lock?.release();
    }
  }

  async #recover(): Promise<void> {
    const { disk, clock, directory, clusterId } = this.#options;
    const meta = await readMeta(disk, directory);
    if (clusterId !== undefined && meta.clusterId !== clusterId) {
      throw new HeadpondError(
        "invalid",
        `${directory}: this journal belongs to cluster ${meta.clusterId}, not ${clusterId}`,
      );
    }
    this.#lock = await disk.lock(lockPath(directory));
    if (this.#lock === undefined) {
      throw new HeadpondError(
        "unavailable",
        `${directory}: already in use by another process: stop it, or choose another directory`,
      );
    }
    const bootId = this.#options.bootId ?? (await readBootId(disk));
    this.#trust = new StateTrust({ disk, directory, bootId, logger: this.#logger });
    await this.#checkpoints.open((error) => this.#logger.error("damaged checkpoint", { error: error.message }));
    const wal = await Wal.open({
      disk,
      clock,
      logger: this.#logger,
      directory: walDirectory(directory),
      clusterId: meta.clusterId,
      limits: this.#limits.wal,
      onFatal: (error) => this.#fail(error),
    });
    this.#wal = wal;
    await recoverState({
      wal,
      checkpoints: this.#checkpoints,
      trust: this.#trust,
      machine: this.#machine,
      logger: this.#logger,
    });
    this.#term = wal.hardState.term + 1;
    await wal.append([
      { type: recordType.hardState, index: wal.lastIndex + 1, term: this.#term, payload: new Uint8Array(0) },
    ]);
    const behind = this.#checkpoints.newest?.index ?? 0;
    this.#entriesSinceCheckpoint = wal.lastIndex - behind;
    this.#bytesSinceCheckpoint = wal.bytesBehind(behind);
  }

  #refusal(payloadBytes: number): HeadpondError | undefined {
    if (this.#state !== "open" || this.#failure !== undefined) return this.#unavailable();
    const { maxQueuedEntries, maxQueuedBytes } = this.#limits;
    const maxPayloadBytes = Math.min(this.#limits.maxPayloadBytes, this.#openWal().maxPayloadBytes);
    if (payloadBytes === 0 || payloadBytes > maxPayloadBytes) return wrongSize(payloadBytes, maxPayloadBytes);
    if (this.#queue.length >= maxQueuedEntries || this.#queuedBytes + payloadBytes > maxQueuedBytes) {
      return new HeadpondError(
        "overloaded",
        `the journal has ${this.#queue.length} commands (${formatBytes(this.#queuedBytes)}) waiting for the disk: retry later`,
        { details: { retryAfterMs: 100 } },
      );
    }
    return undefined;
  }

  #unavailable(): HeadpondError {
    const why =
      this.#failure?.message ?? (this.#state === "new" || this.#state === "starting" ? "not started yet" : "closed");
    return new HeadpondError("unavailable", `the journal takes no commands: ${why}`);
  }

  #requireOpen(): void {
    if (this.#state !== "open" || this.#failure !== undefined) throw this.#unavailable();
  }

  #openWal(): Wal {
    if (this.#wal === undefined) throw this.#unavailable();
    return this.#wal;
  }

  /** Flushes and applies until nothing is waiting. Never throws. */
  async #run(): Promise<void> {
    // Everything that is proposed in the same turn goes into the first batch.
    await Promise.resolve();
    const { clock } = this.#options;
    let batch = this.#begin();
    while (batch !== undefined) {
      const startMs = clock.monotonicMs();
      let next: Batch<Result> | undefined;
      try {
        const count = await batch.flushed;
        if (count < batch.records.length) this.#queue = [...batch.pending.slice(count), ...this.#queue];
        this.#observeFlush(count, clock.monotonicMs() - startMs);
        next = await this.#complete(batch, count);
      } catch (error) {
        this.#reject(batch.pending, toHeadpondError(error));
      }
      batch = next ?? this.#begin();
    }
    this.#running = undefined;
    this.#rest();
  }

  /** Takes a batch from the queue and begins to flush it, in this turn. */
  #begin(): Batch<Result> | undefined {
    if (this.#failure !== undefined) {
      const left = this.#queue;
      this.#queue = [];
      this.#queuedBytes = 0;
      this.#reject(left, this.#unavailable());
      return undefined;
    }
    if (this.#queue.length === 0) return undefined;
    const { maxBatchEntries } = this.#limits;
    const all = this.#queue;
    const pending = all.length <= maxBatchEntries ? all : all.slice(0, maxBatchEntries);
    this.#queue = all.length <= maxBatchEntries ? [] : all.slice(maxBatchEntries);
    const wal = this.#openWal();
    const records = new Array<WalRecord>(pending.length);
    let index = wal.lastIndex;
    for (let at = 0; at < pending.length; at++) {
      const { payload } = pending[at] as Pending<Result>;
      records[at] = { type: recordType.entry, index: ++index, term: this.#term, payload };
    }
    const flushed = wal.append(records);
    // Whoever applies the batch before sees to it in time; until then a failure is not unheard.
    flushed.catch(() => {});
    return { pending, records, flushed };
  }

  /**
   * The first `count` of the batch are durable: applies and answers them, slice by slice. The next batch begins to be
   * flushed as soon as there is one; it is returned.
   */
  async #complete({ pending, records }: Batch<Result>, count: number): Promise<Batch<Result> | undefined> {
    const { applySliceEntries } = this.#limits;
    let next = this.#begin();
    for (let from = 0; from < count; from += applySliceEntries) {
      if (from > 0) await this.#options.clock.nextTurn();
      next ??= this.#begin();
      const to = Math.min(count, from + applySliceEntries);
      this.#applySlice(pending.slice(from, to), records.slice(from, to));
    }
    return next;
  }

  #applySlice(pending: readonly Pending<Result>[], entries: readonly WalRecord[]): void {
    let bytes = 0;
    for (const { payload } of entries) bytes += payload.length;
    this.#queuedBytes -= bytes;
    if (this.#failure !== undefined) {
      this.#reject(pending, new HeadpondError("unknown-outcome", this.#failure.message), false);
      return;
    }
    let results: Result[];
    try {
      results = this.#machine.apply(entries);
      assert(
        results.length === entries.length,
        `the state machine gave ${results.length} results for ${entries.length} entries`,
      );
    } catch (cause) {
      const first = entries[0]?.index;
      const error = new HeadpondError("internal", `the state machine failed at entries from ${first} on`, { cause });
      this.#fail(error);
      this.#reject(pending, new HeadpondError("unknown-outcome", error.message, { cause }), false);
      return;
    }
    for (let at = 0; at < entries.length; at++) {
      const { resolve } = pending[at] as Pending<Result>;
      resolve({ index: (entries[at] as WalRecord).index, result: results[at] as Result });
    }
    this.#feed.add(entries, bytes);
    this.#countBytes(bytes);
    this.#bytesSinceCheckpoint += bytes;
    this.#entriesSinceCheckpoint += entries.length;
    this.#checkpointIfDue();
  }

  #reject(pending: readonly Pending<Result>[], error: HeadpondError, counted = true): void {
    for (const { payload, reject } of pending) {
      if (counted) this.#queuedBytes = Math.max(0, this.#queuedBytes - payload.length);
      reject(error);
    }
  }

  #fail(error: HeadpondError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#logger.error("the journal failed", { error: error.message });
    this.#setRole("standby");
    this.#options.onFatal(error);
  }

  /** Nothing is being written: soon the last batch gets its witness. */
  #rest(): void {
    this.#restTimer ??= this.#options.clock.timer(this.#limits.restMs, () => {
      this.#restTimer = undefined;
      if (this.#running === undefined && this.#state === "open") this.#wal?.witness();
    });
  }

  #checkpointIfDue(): void {
    const { checkpointEveryBytes, checkpointEveryEntries } = this.#limits;
    if (this.#bytesSinceCheckpoint < checkpointEveryBytes && this.#entriesSinceCheckpoint < checkpointEveryEntries)
      return;
    if (this.#checkpointing !== undefined || this.#state !== "open") return;
    this.checkpoint().catch((error: unknown) => {
      // The log goes on growing and the next threshold tries again; nothing is lost.
      if (this.#state === "open") this.#logger.error("checkpoint failed", { error: toHeadpondError(error).message });
    });
  }

  async #makeCheckpoint(): Promise<{ readonly index: number; readonly bytes: number; readonly durationMs: number }> {
    const { clock } = this.#options;
    const startMs = clock.monotonicMs();
    this.#bytesSinceCheckpoint = 0;
    this.#entriesSinceCheckpoint = 0;
    const { index, bytes } = await this.#checkpoints.write(this.#machine, undefined, this.#closing.signal);
    const cutIndex = await this.#checkpoints.prune();
    await this.#openWal().cut(cutIndex);
    const durationMs = clock.monotonicMs() - startMs;
    this.#logger.info("checkpoint", { index, bytes, durationMs, cutIndex });
    return { index, bytes, durationMs };
  }

  #setRole(role: Role): void {
    if (this.#role === role) return;
    this.#role = role;
    for (const listener of this.#roleListeners) listener(role);
  }

  #registerMetrics(metrics: Metrics): {
    readonly observeFlush: (entries: number, durationMs: number) => void;
    readonly countBytes: (bytes: number) => void;
  } {
    const addEntries = metrics.counter("headpond_journal_entries_total", "Entries made durable.");
    const addBytes = metrics.counter("headpond_journal_bytes_total", "Bytes of commands made durable.");
    const buckets = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3];
    const observe = metrics.histogram(
      "headpond_journal_flush_seconds",
      "From the write of a batch until it is durable.",
      buckets,
    );
    metrics.gauge(
      "headpond_journal_queued_bytes",
      "Bytes of commands that wait for the disk.",
      () => this.#queuedBytes,
    );
    return {
      observeFlush: (entries, durationMs) => {
        addEntries(entries);
        observe(durationMs / 1000);
      },
      countBytes: (bytes) => addBytes(bytes),
    };
  }
}
