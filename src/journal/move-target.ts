/**
 * The log of the new journal while it is made beside the old one: a checkpoint of the old journal, and the entries behind it. One in a
 * directory is here, for the local and the Raft journal; `shared-move-target.ts` is one in a shared store. What is in a target is what the old journal
 * committed, and nothing else.
 */

import { present } from "../base/assert.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { configurationOf } from "../raft/membership.ts";
import { Checkpoints } from "./checkpoints.ts";
import type { Entry, SavedCheckpoint } from "./journal.ts";
import { checkpointDirectory, readBootId, walDirectory, writeMeta } from "./journal-meta.ts";
import type { PreparedFile } from "./migration.ts";
import type { MoveCut } from "./move-gate.ts";
import { writeIdentity } from "./raft-identity.ts";
import { recordType, type WalRecord } from "./record.ts";
import { StateTrust } from "./state-trust.ts";
import { defaultWalLimits, Wal } from "./wal.ts";

export interface MoveTarget {
  /** It cannot begin at the beginning. */
  readonly needsBase: boolean;
  /** Begins anew behind a checkpoint of the old journal, or at the beginning. Resolves with the last index that it holds. */
  begin(base: SavedCheckpoint | undefined): Promise<number>;
  /** In order and without gaps, durable when it resolves. */
  append(entries: readonly Entry[]): Promise<void>;
  /** It holds all up to the cut: becomes what the new journal begins with, on this master. */
  finish(cut: MoveCut): Promise<void>;
  close(): Promise<void>;
}

export type MoveTargetOptions = {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Of the new journal on this master. */
  readonly directory: string;
  readonly clusterId: ClusterId;
  readonly id: string;
  readonly plan: PreparedFile;
  readonly bootId?: string | undefined;
  readonly segmentBytes?: number;
};

const noBytes = new Uint8Array(0);

export class DirectoryTarget implements MoveTarget {
  readonly needsBase = false;
  readonly #options: MoveTargetOptions;
  #wal: Wal | undefined;

  constructor(options: MoveTargetOptions) {
    this.#options = options;
  }

  async begin(base: SavedCheckpoint | undefined): Promise<number> {
    const { disk, clock, logger, directory, clusterId } = this.#options;
    const { segmentBytes = defaultWalLimits.segmentBytes } = this.#options;
    await this.close();
    await disk.removeTree(directory);
    await disk.makeDirectory(walDirectory(directory));
    await copyCheckpoint(disk, directory, base);
    const log = { disk, directory: walDirectory(directory), clusterId };
    await Wal.create({ ...log, segmentBytes }, (base?.index ?? 0) + 1, base?.term ?? 0);
    const limits = { ...defaultWalLimits, segmentBytes, reserveBytes: 0 };
    // A copy that fails is begun anew.
    this.#wal = await Wal.open({ ...log, clock, logger, limits, onFatal: () => {} });
    return base?.index ?? 0;
  }

  async append(entries: readonly Entry[]): Promise<void> {
    await this.#write(entries.map(({ index, term, payload }) => ({ type: recordType.entry, index, term, payload })));
  }

  async finish({ mark, index, term }: MoveCut): Promise<void> {
    const { disk, clock, logger, directory, clusterId, id, plan } = this.#options;
    // Whoever has this log has taken part up to that term, and voted for nobody in it: all of it was decided.
    await this.#write([{ type: recordType.hardState, index: index + 1, term, payload: noBytes }]);
    await this.close();
    if (plan.to === "raft") {
      const met = Object.fromEntries(
        Object.entries(mark.members).map(([name, { incarnation }]) => [name, incarnation]),
      );
      const founders = { ...configurationOf(Object.keys(mark.members)), members: mark.members };
      await writeIdentity(disk, directory, { id, incarnation: plan.incarnation, founders, met });
    }
    // The state goes on where it is: it is the one that this log has.
    const bootId = this.#options.bootId ?? (await readBootId(disk));
    await new StateTrust({ disk, directory, bootId, logger }).markInUse();
    await writeMeta(disk, directory, clusterId, clock.wallMs());
  }

  async close(): Promise<void> {
    const wal = this.#wal;
    this.#wal = undefined;
    await wal?.close();
  }

  async #write(records: readonly WalRecord[]): Promise<void> {
    const wal = present(this.#wal, "a target is begun before it is written");
    for (let done = 0; done < records.length; ) done += await wal.append(records.slice(done));
  }
}

/** The same file under another name: checkpoints are never changed. */
export async function copyCheckpoint(
  disk: Disk,
  directory: string,
  base: SavedCheckpoint | undefined,
): Promise<SavedCheckpoint | undefined> {
  const into = checkpointDirectory(directory);
  await disk.makeDirectory(into);
  if (base === undefined) return undefined;
  const linked = `${into}/linked`;
  await disk.link(base.path, linked);
  const { index, term, digest, bytes, xxh64 } = base;
  // Without a membership: the members of the new journal are others.
  return new Checkpoints({ disk, directory: into }).adopt(linked, {
    index,
    term,
    digest,
    bytes,
    xxh64,
    configuration: undefined,
  });
}
