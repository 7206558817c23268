/**
 * Looks into a journal at rest, without a running master: `journal status|dump|verify --dir`. Changes nothing, and
 * takes no lock: on a journal in use it sees some moment of it, and its newest batch may look torn.
 */

import { type HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Disk } from "../io/disk.ts";
import { type Checkpoint, parseManifestName, readManifest, verifyCheckpoint } from "./checkpoints.ts";
import type { Entry } from "./journal.ts";
import { checkpointDirectory, type JournalMeta, readMeta, walDirectory } from "./journal-meta.ts";
import { describeFinding, type Finding, readWal, readWhole, throwFinding } from "./read-wal.ts";
import { isEntryType, type RecordType, recordType } from "./record.ts";
import { walkSegment } from "./segment.ts";

export type DumpedRecord = {
  readonly type: "entry" | "hard-state" | "truncate" | "seal" | "mark" | "configuration";
  readonly index: number;
  readonly term: number;
  /** Of the payload. */
  readonly bytes: number;
  readonly file: string;
  readonly offset: number;
  readonly payload: Uint8Array;
};

export type VerifyReport = {
  /** No damage; what a crash may leave is allowed. */
  readonly ok: boolean;
  readonly clusterId: string | undefined;
  readonly segments: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
  readonly entries: number;
  readonly bytes: number;
  readonly checkpoints: readonly Checkpoint[];
  /** Each names file, offset and, where known, index. */
  readonly findings: readonly string[];
  /** The same for programs. */
  readonly details: readonly Finding[];
};

const typeNames: Readonly<Record<RecordType, DumpedRecord["type"]>> = {
  [recordType.entry]: "entry",
  [recordType.hardState]: "hard-state",
  [recordType.truncate]: "truncate",
  [recordType.seal]: "seal",
  [recordType.mark]: "mark",
  [recordType.configuration]: "configuration",
};

/** What can be said without reading the whole log. Throws `not-found`, `corrupt`. */
export async function journalStatusAtRest(
  disk: Disk,
  directory: string,
): Promise<{
  readonly meta: JournalMeta;
  readonly term: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly checkpointIndex: number;
  readonly bytes: number;
}> {
  const meta = await readMeta(disk, directory);
  const onFinding = throwFinding;
  const wal = await readWal({
    disk,
    directory: walDirectory(directory),
    clusterId: meta.clusterId,
    walkBytes: 0,
    onFinding,
  });
  const checkpoints = await manifests(disk, directory, onFinding);
  return {
    meta,
    term: Math.max(wal.index.hardState.term, wal.index.lastTerm),
    firstIndex: wal.index.firstIndex,
    lastIndex: wal.index.lastIndex,
    checkpointIndex: checkpoints.at(-1)?.index ?? 0,
    bytes: wal.segments.reduce((sum, { header }) => sum + header.segmentBytes, 0),
  };
}

/**
 * Every record of the log in the order of writing, from the segment on that holds `fromIndex`; entries that a later
 * truncation made void are among them. Throws `corrupt` at damage, after what stands before it.
 */
export async function* dumpJournal(
  disk: Disk,
  directory: string,
  fromIndex = 1,
): AsyncGenerator<DumpedRecord, void, void> {
  const { clusterId } = await readMeta(disk, directory);
  const findings: Finding[] = [];
  const onFinding = (finding: Finding): void => {
    if (finding.severity === "damage") findings.push(finding);
  };
  const { segments } = await readWal({ disk, directory: walDirectory(directory), clusterId, walkBytes: 0, onFinding });
  for (const [at, segment] of segments.entries()) {
    const { header, path } = segment;
    if ((segments[at + 1]?.header.firstIndex ?? Number.POSITIVE_INFINITY) <= fromIndex) continue;
    const source = await readWhole(disk, path, header.segmentBytes, undefined);
    const records: DumpedRecord[] = [];
    const walk = walkSegment(source, header, ({ type, index, term, payload }, offset) => {
      if (index >= fromIndex)
        records.push({ type: typeNames[type], index, term, bytes: payload.length, file: path, offset, payload });
    });
    yield* records;
    const found = findings.find(({ file }) => file === path);
    if (found !== undefined) throwFinding(found);
    if (!walk.sealed && at < segments.length - 2) {
      throwFinding({
        severity: "damage",
        file: path,
        offset: walk.end,
        message: "the records end before the segment does",
      });
    }
  }
  for (const finding of findings) throwFinding(finding);
}

/** As the manifests say, oldest first; damaged manifests are left out. */
export async function checkpointsAtRest(disk: Disk, directory: string): Promise<readonly Checkpoint[]> {
  return manifests(disk, directory, () => {});
}

/**
 * The entries that hold, from `fromIndex` on, in pieces: what a later truncation made void is left out, memberships are empty.
 * Read twice, because a truncation stands behind what it makes void. Throws `corrupt` at damage.
 */
export async function* effectiveEntries(
  disk: Disk,
  directory: string,
  fromIndex: number,
): AsyncGenerator<readonly Entry[], void, void> {
  const truncations: { readonly at: number; readonly index: number }[] = [];
  let position = 0;
  for await (const { type, index } of dumpJournal(disk, directory, fromIndex)) {
    position++;
    if (type === "truncate") truncations.push({ at: position, index });
  }
  position = 0;
  let piece: Entry[] = [];
  let bytes = 0;
  for await (const { type, index, term, payload } of dumpJournal(disk, directory, fromIndex)) {
    position++;
    while (truncations[0] !== undefined && truncations[0].at <= position) truncations.shift();
    if ((type !== "entry" && type !== "configuration") || truncations.some((cut) => cut.index <= index)) continue;
    piece.push({ index, term, payload: type === "entry" ? payload : new Uint8Array(0) });
    bytes += payload.length;
    if (bytes < pieceBytes && piece.length < pieceEntriesMax) continue;
    yield piece;
    piece = [];
    bytes = 0;
  }
  if (piece.length > 0) yield piece;
}

const pieceBytes = 1024 * 1024;
const pieceEntriesMax = 16_384;

/** The entries among the records of `dumpJournal`. */
export async function* inspectJournal(
  disk: Disk,
  directory: string,
  fromIndex = 1,
): AsyncGenerator<DumpedRecord, void, void> {
  for await (const record of dumpJournal(disk, directory, fromIndex)) if (record.type === "entry") yield record;
}

/**
 * Checks every byte that matters, of segments and checkpoints, and lists all that is wrong. Throws `not-found` only. On
 * a journal in use, what was being written during the first look is gone in the second: only what both see is damage.
 */
export async function verifyJournal(disk: Disk, directory: string): Promise<VerifyReport> {
  const first = await verifyOnce(disk, directory);
  if (first.ok) return first;
  const second = await verifyOnce(disk, directory);
  const seen = new Set(first.findings);
  const details = second.details.filter((finding) => finding.severity === "note" || seen.has(describeFinding(finding)));
  return withFindings(second, details);
}

async function verifyOnce(disk: Disk, directory: string): Promise<VerifyReport> {
  const findings: Finding[] = [];
  const onFinding = (finding: Finding): void => {
    findings.push(finding);
  };
  let clusterId: ClusterId | undefined;
  try {
    clusterId = (await readMeta(disk, directory)).clusterId;
  } catch (error) {
    if (!isHeadpondError(error, "corrupt", "unsupported")) throw error;
    onFinding(findingOf(error, directory));
  }
  let entries = 0;
  const wal = await readWal({
    disk,
    directory: walDirectory(directory),
    clusterId,
    walkBytes: Number.POSITIVE_INFINITY,
    onFinding,
    onRecord: ({ type }) => {
      if (isEntryType(type)) entries++;
    },
  });
  const { firstIndex, lastIndex, lastTerm } = wal.index;
  const checkpoints = await manifests(disk, directory, onFinding);
  for (const checkpoint of checkpoints) {
    try {
      await verifyCheckpoint(disk, checkpoint);
    } catch (error) {
      if (!isHeadpondError(error, "corrupt")) throw error;
      onFinding(findingOf(error, checkpoint.path));
    }
  }
  const newest = checkpoints.at(-1);
  const oldestIndex = checkpoints[0]?.index ?? 0;
  const gap = (index: number, message: string): void =>
    onFinding({ severity: "damage", file: walDirectory(directory), offset: 0, index, message });
  if (firstIndex > oldestIndex + 1)
    gap(oldestIndex + 1, `the log begins at ${firstIndex}, the oldest checkpoint ends at ${oldestIndex}`);
  if (newest !== undefined && newest.index > lastIndex) {
    gap(lastIndex + 1, `the log ends at ${lastIndex}, the newest checkpoint holds entries up to ${newest.index}`);
  }
  const report = {
    clusterId,
    segments: wal.segments.length,
    firstIndex,
    lastIndex,
    lastTerm,
    entries,
    bytes: wal.segments.reduce((sum, { header }) => sum + header.segmentBytes, 0),
    checkpoints,
  };
  return withFindings(report, findings);
}

function withFindings(
  report: Omit<VerifyReport, "ok" | "findings" | "details">,
  details: readonly Finding[],
): VerifyReport {
  const ok = details.every(({ severity }) => severity === "note");
  return { ...report, ok, findings: details.map(describeFinding), details };
}

/** Oldest first; damaged ones are findings. */
async function manifests(disk: Disk, directory: string, onFinding: (finding: Finding) => void): Promise<Checkpoint[]> {
  const folder = checkpointDirectory(directory);
  const found: Checkpoint[] = [];
  for (const name of [...(await disk.list(folder))].sort()) {
    const index = parseManifestName(name);
    if (index === undefined) continue;
    try {
      found.push(await readManifest(disk, folder, name, index));
    } catch (error) {
      if (!isHeadpondError(error, "corrupt")) throw error;
      onFinding(findingOf(error, `${folder}/${name}`));
    }
  }
  return found;
}

function findingOf(error: HeadpondError, about: string): Finding {
  const named = error.details?.["file"];
  const file = typeof named === "string" ? named : about;
  return { severity: "damage", file, offset: 0, message: error.message.replace(`${file}: offset 0: `, "") };
}
