/**
 * Checkpoints of a Raft journal: every master makes its own, and cuts its log behind them; one that came from the leader
 * replaces state and log. One of these at a time.
 *
 * The log is kept from the older of two checkpoints on, and for followers that are a little behind: at least
 * `logKeepBytes`. It never grows beyond `logMaxBytes` for their sake: who needs what was cut gets the checkpoint.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Configuration, SnapshotPoint } from "../raft/types.ts";
import type { Checkpoint, Checkpoints } from "./checkpoints.ts";
import type { StateMachine } from "./journal.ts";
import type { CheckpointFile } from "./peers.ts";
import type { StateTrust } from "./state-trust.ts";
import type { Wal } from "./wal.ts";

export type RaftCheckpointerOptions = {
  readonly machine: StateMachine<unknown>;
  readonly wal: Wal;
  readonly checkpoints: Checkpoints;
  readonly trust: StateTrust;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly everyBytes: number;
  readonly everyEntries: number;
  readonly logKeepBytes: number;
  readonly logMaxBytes: number;
  /** In force at an index; `undefined` if that is not known any more. */
  readonly configurationAt: (index: number) => Configuration | undefined;
};

export type Made = { readonly index: number; readonly bytes: number; readonly durationMs: number };

export class RaftCheckpointer {
  readonly #options: RaftCheckpointerOptions;
  /** What runs, or waits for its turn, last. */
  #last: Promise<unknown> = Promise.resolve();
  #running = 0;
  readonly #closing = new AbortController();
  #bytes: number;
  #entries: number;

  constructor(options: RaftCheckpointerOptions) {
    this.#options = options;
    const { wal, checkpoints } = options;
    const behind = checkpoints.newest?.index ?? 0;
    this.#entries = wal.lastIndex - behind;
    this.#bytes = wal.bytesBehind(behind);
  }

  /** The newest that could be sent. */
  get newest(): Checkpoint | undefined {
    return this.#options.checkpoints.known.findLast(({ configuration }) => configuration !== undefined);
  }

  /** Of the newest, for whoever needs a snapshot. */
  get point(): SnapshotPoint | undefined {
    const { newest } = this;
    return newest?.configuration === undefined ? undefined : { ...newest, configuration: newest.configuration };
  }

  /** So much was applied; whether a checkpoint is due. */
  applied(entries: number, bytes: number): boolean {
    const { everyBytes, everyEntries, wal, logMaxBytes, checkpoints } = this.#options;
    this.#entries += entries;
    this.#bytes += bytes;
    if (this.#running > 0) return false;
    if (this.#bytes >= everyBytes || this.#entries >= everyEntries) return true;
    return wal.bytes > logMaxBytes && wal.bytesBehind(checkpoints.newest?.index ?? 0) > logMaxBytes / 2;
  }

  /** Begins after those that were asked for before. */
  make(): Promise<Made> {
    return this.#enqueue(() => this.#make());
  }

  /**
   * Replaces state and log by a checkpoint of the leader. Nothing else may write the log or the state meanwhile. A crash
   * at any moment leaves the old state and log, or leads to the new ones at the next start.
   */
  install(point: SnapshotPoint, file: CheckpointFile): Promise<void> {
    return this.#enqueue(() => this.#install(point, file));
  }

  /** Gives up what is being written, and waits for what must not be left half done. */
  async close(): Promise<void> {
    this.#closing.abort(new HeadpondError("cancelled", "the journal was closed while a checkpoint was made"));
    while (this.#running > 0) await this.#last.catch(() => {});
  }

  #enqueue<T>(task: () => Promise<T>): Promise<T> {
    this.#running++;
    const run = this.#last.then(task, task).finally(() => {
      this.#running--;
    });
    this.#last = run.catch(() => {});
    return run;
  }

  async #make(): Promise<Made> {
    const { checkpoints, machine, clock, logger, configurationAt } = this.#options;
    const startMs = clock.monotonicMs();
    this.#closing.signal.throwIfAborted();
    this.#bytes = 0;
    this.#entries = 0;
    const configured = (at: number): Configuration => {
      const configuration = configurationAt(at);
      if (configuration !== undefined) return configuration;
      throw new HeadpondError(
        "unavailable",
        `the state was replaced while its checkpoint at ${at} was made: try again`,
      );
    };
    const { index, bytes } = await checkpoints.write(machine, configured, this.#closing.signal);
    const cutIndex = await this.#cut();
    const durationMs = clock.monotonicMs() - startMs;
    logger.info("checkpoint", { index, bytes, durationMs, cutIndex });
    return { index, bytes, durationMs };
  }

  async #cut(): Promise<number> {
    const { checkpoints, wal, logKeepBytes, logMaxBytes } = this.#options;
    const older = await checkpoints.prune();
    await wal.cut(older, logKeepBytes);
    if (wal.bytes > logMaxBytes) await wal.cut(checkpoints.newest?.index ?? 0, logMaxBytes);
    return wal.firstIndex - 1;
  }

  async #install(point: SnapshotPoint, file: CheckpointFile): Promise<void> {
    const { checkpoints, machine, wal, trust, logger } = this.#options;
    const { index, term, configuration } = point;
    const { digest, bytes, xxh64 } = file;
    // From here on a crash leads to the new state: the next start finds the checkpoint and begins the log behind it.
    const checkpoint = await checkpoints.adopt(file.path, { index, term, configuration, digest, bytes, xxh64 });
    await trust.markRebuilding();
    await wal.restart(index, term);
    await machine.reset(checkpoint.path);
    const { applied } = machine;
    if (applied.index !== index || applied.term !== term || machine.digest() !== digest) {
      throw new HeadpondError(
        "corrupt",
        `${checkpoint.path}: the state in it is (${applied.index}, ${applied.term}) with digest ${machine.digest()}, its sender says (${index}, ${term}) with ${digest}`,
        { details: { file: checkpoint.path, offset: 0 } },
      );
    }
    await trust.markInUse();
    this.#bytes = 0;
    this.#entries = 0;
    await checkpoints.prune();
    logger.info("the state is a checkpoint of the leader", { index, term, bytes });
  }
}
