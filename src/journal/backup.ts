/**
 * A backup of a journal (docs/formats/backup.md): one checkpoint and the committed entries behind it, in a directory of their
 * own. It begins a new cluster at any index from the checkpoint's to its last one. It counts once `backup.json` is there,
 * which is written last; every byte is checked when it is read.
 *
 * It holds what the journal holds, the secrets of mounts among it: keep it as you keep those.
 */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { MiB } from "../base/units.ts";
import type { Disk, DiskFile } from "../io/disk.ts";
import { Xxh64 } from "../io/hash.ts";
import type { Entry } from "./journal.ts";
import { readCheckedJson, writeCheckedJson } from "./journal-meta.ts";
import { decodeRecord, encodeRecord, type RecordBuffer, recordBuffer, recordBytes, recordType } from "./record.ts";

const aboutName = "backup.json";
const formatVersion = 1;
/** Read at once; a record is never larger (journals take commands up to 1 MiB). */
const readBytes = 4 * MiB;
const salt = 0;

export type BackupCheckpoint = {
  readonly index: number;
  readonly term: number;
  /** The state machine's digest at `index`. */
  readonly digest: string;
  readonly bytes: number;
  readonly xxh64: string;
};

export type BackupAbout = {
  /** The cluster that was backed up. What is begun from the backup is another one. */
  readonly clusterId: ClusterId;
  readonly master: string;
  readonly createdMs: number;
  /** `undefined`: the log is whole, from entry 1 on. */
  readonly checkpoint: BackupCheckpoint | undefined;
  /** Last entry. */
  readonly toIndex: number;
};

export type Backup = {
  readonly about: BackupAbout;
  /** The state file of the checkpoint. */
  readonly statePath: string;
  /** From the one behind the checkpoint on. Throws `corrupt`, naming file and offset. */
  readonly entries: () => AsyncGenerator<readonly Entry[], void, void>;
};

/** Used as `begin`, `state`..., `entries`..., `finish`; `close` at any time, after which what is there is no backup unless it was finished. */
export class BackupWriter {
  readonly #disk: Disk;
  readonly #directory: string;
  #about: BackupAbout | undefined;
  #state: DiskFile | undefined;
  #log: DiskFile | undefined;
  readonly #sum = new Xxh64();
  #stateBytes = 0;
  #logBytes = 0;
  #crc = 0;
  #lastIndex = 0;

  constructor(options: { readonly disk: Disk; readonly directory: string }) {
    this.#disk = options.disk;
    this.#directory = options.directory;
  }

  get bytes(): number {
    return this.#stateBytes + this.#logBytes;
  }

  /** Throws `already-exists` if the directory is not empty. */
  async begin(about: BackupAbout): Promise<void> {
    await this.#disk.makeDirectory(this.#directory);
    if ((await this.#disk.list(this.#directory)).length > 0) {
      throw new HeadpondError(
        "already-exists",
        `${this.#directory} is not empty: a backup gets a directory of its own`,
      );
    }
    this.#about = about;
    this.#lastIndex = about.checkpoint?.index ?? 0;
    this.#state = await this.#disk.open(statePath(this.#directory), "create");
    this.#log = await this.#disk.open(logPath(this.#directory), "create");
  }

  async state(bytes: Uint8Array): Promise<void> {
    await this.#state?.write(bytes, this.#stateBytes);
    this.#sum.update(bytes);
    this.#stateBytes += bytes.length;
  }

  async entries(entries: readonly Entry[]): Promise<void> {
    const buffer = recordBuffer(entries.reduce((sum, { payload }) => sum + recordBytes(payload.length), 0));
    let at = 0;
    for (const { index, term, payload } of entries) {
      if (index !== this.#lastIndex + 1) {
        throw new HeadpondError("internal", `entry ${index} came for the backup, expected ${this.#lastIndex + 1}`);
      }
      this.#lastIndex = index;
      this.#crc = encodeRecord(buffer, at, { type: recordType.entry, index, term, payload }, 0, salt, this.#crc);
      at += recordBytes(payload.length);
    }
    await this.#log?.write(buffer.bytes, this.#logBytes);
    this.#logBytes += at;
  }

  /** Throws `corrupt` if what came is not what was announced. */
  async finish(): Promise<void> {
    const about = this.#about;
    if (about === undefined) throw new HeadpondError("internal", "the backup was never begun");
    const { checkpoint, toIndex } = about;
    if (
      this.#stateBytes !== (checkpoint?.bytes ?? 0) ||
      (checkpoint !== undefined && this.#sum.hex() !== checkpoint.xxh64)
    ) {
      throw new HeadpondError(
        "corrupt",
        `the checkpoint at ${checkpoint?.index} did not arrive as it was sent: try again`,
      );
    }
    if (this.#lastIndex !== toIndex) {
      throw new HeadpondError(
        "corrupt",
        `entries up to ${this.#lastIndex} arrived, ${toIndex} was announced: try again`,
      );
    }
    await this.#state?.datasync();
    await this.#log?.datasync();
    await this.#disk.syncDirectory(this.#directory);
    const { checkpoint: _, ...rest } = about;
    const value = {
      formatVersion,
      ...rest,
      logBytes: this.#logBytes,
      ...(checkpoint === undefined ? {} : { checkpoint }),
    };
    await writeCheckedJson(this.#disk, this.#directory, aboutName, value);
  }

  async close(): Promise<void> {
    await this.#state?.close();
    await this.#log?.close();
  }
}

/** Throws `not-found` where there is no finished backup, `corrupt`, `unsupported`. */
export async function openBackup(disk: Disk, directory: string): Promise<Backup> {
  const path = `${directory}/${aboutName}`;
  const value = await readCheckedJson(disk, path);
  if (value === undefined) {
    throw new HeadpondError("not-found", `${directory}: no finished backup here (${aboutName} is missing)`);
  }
  if (value["formatVersion"] !== formatVersion) {
    const found = String(value["formatVersion"]);
    throw new HeadpondError("unsupported", `${path}: backup format ${found}, this program reads ${formatVersion}`);
  }
  const fields = value as unknown as BackupAbout & { readonly logBytes: number };
  const { clusterId, master, createdMs, checkpoint, toIndex, logBytes } = fields;
  const about = { clusterId, master, createdMs, checkpoint, toIndex };
  return {
    about,
    statePath: statePath(directory),
    entries: () => readEntries(disk, logPath(directory), about, logBytes),
  };
}

async function* readEntries(
  disk: Disk,
  path: string,
  { checkpoint, toIndex }: BackupAbout,
  logBytes: number,
): AsyncGenerator<readonly Entry[], void, void> {
  const file = await disk.open(path, "read");
  try {
    let crc = 0;
    let expected = (checkpoint?.index ?? 0) + 1;
    let offset = 0;
    while (offset < logBytes) {
      const source = await readPiece(file, offset, Math.min(readBytes, logBytes - offset));
      const entries: Entry[] = [];
      let at = 0;
      while (at < source.bytes.length) {
        const record = decodeRecord(source, at, salt, crc);
        if (typeof record === "string") break;
        if (record.index !== expected) throw damaged(path, offset + at, `entry ${record.index}, expected ${expected}`);
        expected++;
        crc = record.crc;
        at = record.end;
        entries.push({ index: record.index, term: record.term, payload: record.payload });
      }
      // A record that is cut by the end of the piece is whole in the next one.
      if (entries.length === 0) throw damaged(path, offset, "the record there is damaged");
      offset += at;
      yield entries;
    }
    if (expected !== toIndex + 1)
      throw damaged(path, offset, `it ends before entry ${expected}, ${toIndex} is the last`);
  } finally {
    await file.close();
  }
}

async function readPiece(file: DiskFile, offset: number, bytes: number): Promise<RecordBuffer> {
  const whole = recordBuffer(bytes);
  let done = 0;
  while (done < bytes) {
    const count = await file.read(whole.bytes.subarray(done), offset + done);
    if (count === 0) throw damaged(file.path, offset + done, "the file ends here");
    done += count;
  }
  return whole;
}

function statePath(directory: string): string {
  return `${directory}/state`;
}

function logPath(directory: string): string {
  return `${directory}/log`;
}

function damaged(path: string, offset: number, what: string): HeadpondError {
  return new HeadpondError("corrupt", `${path}: offset ${offset}: the backup is damaged: ${what}`, {
    details: { file: path, offset },
  });
}
