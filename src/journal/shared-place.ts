/**
 * The local directory of a master with a shared journal. Nothing in it is a promise: the log is in the store, and what is here is a state to
 * go on with, copies of checkpoints, and where the state stands in the log.
 */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Disk, DiskLock } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { Checkpoints } from "./checkpoints.ts";
import {
  checkpointDirectory,
  lockPath,
  readBootId,
  readCheckedJson,
  readMeta,
  writeCheckedJson,
} from "./journal-meta.ts";
import type { Cursor } from "./shared-names.ts";
import { StateTrust } from "./state-trust.ts";

const identityFile = "shared.json";
const positionFile = "position.json";

/** Where in the log a state is that has applied `index`, of `term`. */
export type Position = Cursor & { readonly term: number };

export type SharedPlaceOptions = {
  readonly disk: Disk;
  readonly directory: string;
  readonly clusterId: ClusterId | undefined;
  readonly id: string;
  readonly bootId: string | undefined;
  readonly logger: Logger;
};

export class SharedPlace {
  readonly clusterId: ClusterId;
  readonly trust: StateTrust;
  readonly checkpoints: Checkpoints;
  /** As of some earlier moment: the state may be further on. */
  readonly position: Position | undefined;
  /** An earlier life found that the state differs from the other masters'. */
  readonly diverged: string | undefined;
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #lock: DiskLock;

  private constructor(
    options: SharedPlaceOptions,
    parts: Pick<SharedPlace, "clusterId" | "trust" | "checkpoints" | "position" | "diverged">,
    lock: DiskLock,
  ) {
    this.#disk = options.disk;
    this.#directory = options.directory;
    this.#lock = lock;
    this.clusterId = parts.clusterId;
    this.trust = parts.trust;
    this.checkpoints = parts.checkpoints;
    this.position = parts.position;
    this.diverged = parts.diverged;
  }

  static async open(options: SharedPlaceOptions): Promise<SharedPlace> {
    const { disk, directory, clusterId, id, logger } = options;
    const meta = await readMeta(disk, directory);
    if (clusterId !== undefined && meta.clusterId !== clusterId) {
      throw new HeadpondError(
        "invalid",
        `${directory}: this journal belongs to cluster ${meta.clusterId}, not ${clusterId}`,
      );
    }
    const file = await readSharedIdentity(disk, directory);
    if (file === undefined) {
      throw new HeadpondError("invalid", `${directory}: this journal is no shared one: set journal.type to what it is`);
    }
    if (file.id !== id) {
      throw new HeadpondError(
        "invalid",
        `${directory}: this disk is the master ${file.id}, not ${id}: set master.id to ${file.id}, or use an empty directory`,
      );
    }
    const lock = await disk.lock(lockPath(directory));
    if (lock === undefined) {
      throw new HeadpondError(
        "unavailable",
        `${directory}: already in use by another process: stop it, or choose another directory`,
      );
    }
    try {
      const bootId = options.bootId ?? (await readBootId(disk));
      const trust = new StateTrust({ disk, directory, bootId, logger });
      const checkpoints = new Checkpoints({ disk, directory: checkpointDirectory(directory) });
      await checkpoints.open((error) => logger.warn("damaged copy of a checkpoint", { error: error.message }));
      const position = await readPosition(disk, directory, logger);
      const diverged = await trust.diverged();
      return new SharedPlace(options, { clusterId: meta.clusterId, trust, checkpoints, position, diverged }, lock);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Where a checkpoint arrives. */
  get incomingPath(): string {
    return `${checkpointDirectory(this.#directory)}/incoming`;
  }

  async clearIncoming(): Promise<void> {
    await this.#disk.removeTree(this.incomingPath);
  }

  async savePosition(position: Position): Promise<void> {
    await writePosition(this.#disk, this.#directory, position);
  }

  async release(): Promise<void> {
    await this.#lock.release();
  }
}

/** `undefined`: the directory is of another kind of journal. */
export async function readSharedIdentity(disk: Disk, directory: string): Promise<{ readonly id: string } | undefined> {
  const value = await readCheckedJson(disk, `${directory}/${identityFile}`);
  return value === undefined ? undefined : { id: String(value["id"]) };
}

export async function writeSharedIdentity(disk: Disk, directory: string, id: string): Promise<void> {
  await writeCheckedJson(disk, directory, identityFile, { id });
}

export async function writePosition(disk: Disk, directory: string, position: Position): Promise<void> {
  await writeCheckedJson(disk, directory, positionFile, position);
}

/** Not knowing it is no damage: then a checkpoint or the beginning of the log takes its place. */
async function readPosition(disk: Disk, directory: string, logger: Logger): Promise<Position | undefined> {
  try {
    const value = await readCheckedJson(disk, `${directory}/${positionFile}`);
    const { epoch, slot, index, term } = (value ?? {}) as Partial<Record<keyof Position, unknown>>;
    if (![epoch, slot, index, term].every((count) => Number.isSafeInteger(count))) return undefined;
    return { epoch, slot, index, term } as Position;
  } catch (error) {
    logger.warn("the state's place in the log is not known", { error: String(error) });
    return undefined;
  }
}
