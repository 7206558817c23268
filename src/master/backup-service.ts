/**
 * A backup of the journal as a stream, from any master: a checkpoint that it has, and what was committed behind it. Nothing waits for
 * it and nothing is copied first; a standby serves it as well as the leader.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ClusterId, MasterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Entry, SavedCheckpoint } from "../journal/journal.ts";
import type { BackupItem } from "../rpc/journal-schemas.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { RequestOf } from "../rpc/method.ts";
import type { Core } from "./core.ts";

export type BackupServiceDependencies = {
  readonly core: Core;
  readonly clusterId: ClusterId;
  readonly id: MasterId;
  readonly disk: Disk;
  readonly clock: Clock;
};

const chunkBytes = 256 * 1024;
const entriesPerItem = 1024;

export class BackupService {
  readonly #deps: BackupServiceDependencies;

  constructor(dependencies: BackupServiceDependencies) {
    this.#deps = dependencies;
  }

  /** Everything that was acknowledged before the call is in it. `compacted` if the log is cut meanwhile: try again. */
  async *backup(
    { history = false, local = false, stateOnly = false }: RequestOf<MasterMethods["journalBackup"]>,
    signal: AbortSignal,
  ): AsyncGenerator<BackupItem> {
    const { core, clusterId, id, disk, clock } = this.#deps;
    await this.#upToDate(local);
    // A journal whose log was cut for another master's checkpoint has none of its own that the log goes on from.
    if (core.journal.checkpoints.length === 0 && core.journal.status().firstIndex > 1) await core.journal.checkpoint();
    const { checkpoints } = core.journal;
    const checkpoint = history ? checkpoints[0] : checkpoints.at(-1);
    if (stateOnly && checkpoint === undefined) {
      throw new HeadpondError("not-found", `master ${id} has no checkpoint: make one with headpond journal checkpoint`);
    }
    // Opened before anything else is waited for: a file that is open outlives its name.
    const file = checkpoint === undefined ? undefined : await disk.open(checkpoint.path, "read");
    try {
      const from = (checkpoint?.index ?? 0) + 1;
      const toIndex = stateOnly ? from - 1 : Math.max(core.namespace.applied.index, from - 1);
      yield { about: { clusterId, master: id, createdMs: clock.wallMs(), toIndex, ...aboutOf(checkpoint) } };
      const total = file === undefined ? 0 : (checkpoint?.bytes ?? 0);
      for (let done = 0; done < total; ) {
        const buffer = new Uint8Array(Math.min(chunkBytes, total - done));
        const count = (await file?.read(buffer, done)) ?? 0;
        if (count === 0)
          throw new HeadpondError("corrupt", `${checkpoint?.path}: it ends at ${done} of ${total} bytes`);
        done += count;
        yield { state: buffer.subarray(0, count) };
      }
      if (toIndex >= from) yield* this.#entries(from, toIndex, signal);
    } finally {
      await file?.close();
    }
  }

  async #upToDate(local: boolean): Promise<void> {
    try {
      await this.#deps.core.journal.readBarrier();
    } catch (error) {
      // With no leader to ask, what is here may still be the best there is; only who says so gets it.
      if (!local || !isHeadpondError(error, "not-leader", "unavailable", "timeout")) throw error;
    }
  }

  async *#entries(from: number, toIndex: number, signal: AbortSignal): AsyncGenerator<BackupItem> {
    let entries: Entry[] = [];
    let bytes = 0;
    for await (const entry of this.#deps.core.journal.committed(from, signal)) {
      entries.push(entry);
      bytes += entry.payload.length;
      const isLast = entry.index >= toIndex;
      if (isLast || bytes >= chunkBytes || entries.length >= entriesPerItem) {
        yield { entries };
        entries = [];
        bytes = 0;
      }
      if (isLast) return;
    }
    signal.throwIfAborted();
    throw new HeadpondError("unavailable", "this master is closing: take the backup from another");
  }
}

function aboutOf(checkpoint: SavedCheckpoint | undefined) {
  if (checkpoint === undefined) return {};
  const { index, term, digest, bytes, xxh64, configuration } = checkpoint;
  const members = configuration === undefined ? {} : { configuration: JSON.stringify(configuration) };
  return { checkpoint: { index, term, digest, bytes, xxh64, ...members } };
}
