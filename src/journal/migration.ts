/**
 * The words of a move from one journal to another while the masters run (docs/migration.md): the mark that ends the old one, what a master
 * reports, and the small files that remember a move. `switching-journal.ts` does it.
 */

import type { Disk } from "../io/disk.ts";
import { readCheckedJson, writeCheckedJson } from "./journal-meta.ts";

export type JournalType = "local" | "raft" | "zookeeper";

/** Raw values of the configuration by full key, for the new journal. */
export type MoveSettings = Readonly<Record<string, unknown>>;

export type MoveMember = { readonly address: string; readonly incarnation: string };

/** What all masters agree on: the entry at which the old journal ends. */
export type MoveMark = {
  readonly move: string;
  /** Of the new journal. */
  readonly generation: number;
  readonly from: JournalType;
  readonly to: JournalType;
  /** Who led when the mark was proposed, and should lead next. */
  readonly leader: string;
  /** With whom the new journal begins. */
  readonly members: Readonly<Record<string, MoveMember>>;
};

/** The first entry of the new journal: the old one's last index and the digest of the state there. */
export type MoveArrival = { readonly move: string; readonly index: number; readonly digest: string };

/** What a master is asked to prepare. */
export type MovePlan = {
  readonly move: string;
  readonly to: JournalType;
  readonly settings: MoveSettings;
  /** By which the other masters will reach this one's journal; empty if it has no traffic of its own. */
  readonly address: string;
};

export type MovePhase = "none" | "preparing" | "ready" | "moving" | "moved" | "left-behind";

export type MoveReport = {
  readonly id: string;
  readonly type: JournalType;
  readonly generation: number;
  readonly leads: boolean;
  readonly phase: MovePhase;
  /** Of the move that is prepared, or that brought this journal. */
  readonly move: string | undefined;
  readonly from: JournalType | undefined;
  readonly to: JournalType | undefined;
  readonly appliedIndex: number;
  readonly copiedIndex: number;
  readonly member: MoveMember | undefined;
  /** Where the last move cut, and the digest of the state there. */
  readonly cut: { readonly index: number; readonly digest: string } | undefined;
  /** What keeps it from being ready. */
  readonly problem: string | undefined;
};

/** How marks are written into commands and found in the state; the journal does not know what commands mean. */
export interface MoveMarks {
  /** The mark that this command is; cheap for all others. */
  read(payload: Uint8Array): MoveMark | undefined;
  encode(mark: MoveMark): Uint8Array;
  encodeArrival(arrival: MoveArrival): Uint8Array;
  /** The newest in the state. */
  newest(): MoveMark | undefined;
  newestArrival(): MoveArrival | undefined;
}

// Files. `move.json` and `current.json` are in the master's directory, `moved.json` in that of a journal that a move brought.

const preparedName = "move.json";
const currentName = "current.json";
const movedName = "moved.json";

/** A move that this master prepares. */
export type PreparedFile = MovePlan & { readonly generation: number; readonly incarnation: string };

/** How a journal came to be where it is. */
export type MovedFile = {
  readonly move: string;
  readonly generation: number;
  readonly from: JournalType;
  readonly to: JournalType;
  readonly settings: MoveSettings;
  readonly address: string;
  readonly incarnation: string;
  readonly index: number;
  readonly term: number;
  readonly digest: string;
};

export async function readPrepared(disk: Disk, master: string): Promise<PreparedFile | undefined> {
  return (await readCheckedJson(disk, `${master}/${preparedName}`)) as PreparedFile | undefined;
}

export async function writePrepared(disk: Disk, master: string, file: PreparedFile): Promise<void> {
  await writeCheckedJson(disk, master, preparedName, file);
}

export async function forgetPrepared(disk: Disk, master: string): Promise<void> {
  await disk.removeTree(`${master}/${preparedName}`);
  await disk.syncDirectory(master);
}

export async function readMoved(disk: Disk, journal: string): Promise<MovedFile | undefined> {
  return (await readCheckedJson(disk, `${journal}/${movedName}`)) as MovedFile | undefined;
}

export async function writeMoved(disk: Disk, journal: string, file: MovedFile): Promise<void> {
  await writeCheckedJson(disk, journal, movedName, file);
}

/** From here on the journal in `directory`, a name in the master's directory, is the one in force. */
export async function writeCurrent(disk: Disk, master: string, directory: string): Promise<void> {
  await writeCheckedJson(disk, master, currentName, { directory });
}

export function targetDirectory(move: string): string {
  return `journal-${move}`;
}

/**
 * Before a start, of a locked master's directory: the journal in force gets its usual name, and those of before and unfinished copies go.
 * A crash at any step leaves something that the next call finishes.
 */
export async function settleMoves(disk: Disk, master: string): Promise<void> {
  const current = (await readCheckedJson(disk, `${master}/${currentName}`))?.["directory"];
  const names = await disk.list(master);
  if (typeof current === "string" && names.includes(current)) {
    await disk.removeTree(`${master}/journal`);
    await disk.rename(`${master}/${current}`, `${master}/journal`);
    await disk.syncDirectory(master);
  }
  if (typeof current === "string") {
    await disk.removeTree(`${master}/${currentName}`);
    await disk.syncDirectory(master);
    // What was prepared led here.
    await forgetPrepared(disk, master);
  }
  for (const name of names) {
    if (name.startsWith("journal-") && name !== current) await disk.removeTree(`${master}/${name}`);
  }
}
