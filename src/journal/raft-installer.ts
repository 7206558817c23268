/**
 * Takes over checkpoints that came from the leader: they wait here until the core wants one installed or does not want it
 * at all. Before state and log are replaced, everything that was to be written is durable and everything that was to be
 * applied is; what comes meanwhile waits.
 */

import { assert } from "../base/assert.ts";
import { type HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Raft } from "../raft/raft.ts";
import type { SnapshotPoint } from "../raft/types.ts";
import type { CheckpointFile, SnapshotMessage } from "./peers.ts";
import type { RaftApplier } from "./raft-applier.ts";
import type { RaftCheckpointer } from "./raft-checkpointer.ts";
import type { RaftLogStorage } from "./raft-log.ts";
import type { RaftWriter } from "./raft-writer.ts";

export type RaftInstallerOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly core: Raft;
  readonly storage: RaftLogStorage;
  readonly writer: RaftWriter;
  readonly applier: Pick<RaftApplier<unknown>, "drained">;
  readonly checkpointer: RaftCheckpointer;
  /** State and log are those of the checkpoint; the core is told right after. */
  readonly onInstalled: (index: number) => void;
  readonly wake: () => void;
  readonly onFatal: (error: HeadpondError) => void;
};

export class RaftInstaller {
  readonly #options: RaftInstallerOptions;
  /** By index. */
  readonly #received = new Map<number, CheckpointFile>();
  #running: Promise<void> | undefined;

  constructor(options: RaftInstallerOptions) {
    this.#options = options;
  }

  get isIdle(): boolean {
    return this.#running === undefined;
  }

  /** A checkpoint has arrived; the core decides in this turn. */
  received(message: SnapshotMessage, file: CheckpointFile): void {
    const { core, clock } = this.#options;
    const { index } = message.snapshot;
    assert(index === file.index, `a checkpoint at ${file.index} came for ${index}`);
    this.#received.set(index, file);
    core.step(message, clock.monotonicMs());
  }

  /** Once per turn, with what the core wants. */
  turn(wanted: SnapshotPoint | undefined): void {
    if (wanted !== undefined) this.#install(wanted);
    for (const { path } of this.#received.values()) this.#options.disk.removeTree(path).catch(() => {});
    this.#received.clear();
  }

  async drained(): Promise<void> {
    await this.#running;
  }

  #install(point: SnapshotPoint): void {
    const { index } = point;
    const file = this.#received.get(index);
    assert(file !== undefined && this.#running === undefined, `no checkpoint has arrived at ${index}`);
    this.#received.delete(index);
    this.#running = this.#replace(point, file)
      .catch((error: unknown) => this.#options.onFatal(toHeadpondError(error)))
      .finally(() => {
        this.#running = undefined;
        this.#options.wake();
      });
  }

  async #replace(point: SnapshotPoint, file: CheckpointFile): Promise<void> {
    const { core, clock, storage, writer, applier, checkpointer, onInstalled } = this.#options;
    await applier.drained();
    await writer.pausedFor(async () => {
      await checkpointer.install(point, file);
      storage.restarted(point.index);
      onInstalled(point.index);
      core.snapshotInstalled(point.index, clock.monotonicMs());
    });
  }
}
