/** Compares two journals at rest: their logs entry by entry, and the digests of checkpoints that both have. */

import { HeadpondError } from "../base/errors.ts";
import type { Disk } from "../io/disk.ts";
import { checkpointsAtRest, effectiveEntries, journalStatusAtRest } from "./inspect.ts";
import type { Entry } from "./journal.ts";

export type JournalDifference = {
  readonly index: number;
  readonly what: "term" | "command" | "digest";
  readonly left: string;
  readonly right: string;
};

export type JournalComparison = {
  readonly sameCluster: boolean;
  /** Entries that both logs hold; `undefined`: they share none. */
  readonly compared: { readonly fromIndex: number; readonly toIndex: number } | undefined;
  /** Checkpoints at the same index. */
  readonly checkpoints: readonly number[];
  /** The first of each kind. Behind it nothing was compared. */
  readonly differences: readonly JournalDifference[];
};

/** A journal at rest, wherever it is. */
export type LogAtRest = {
  readonly clusterId: string;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly checkpoints: readonly { readonly index: number; readonly digest: string }[];
  readonly entries: (fromIndex: number) => AsyncIterable<readonly Entry[]>;
};

/** A journal's directory. Throws `not-found`, `corrupt`. */
export async function directoryAtRest(disk: Disk, directory: string): Promise<LogAtRest> {
  const { meta, firstIndex, lastIndex } = await journalStatusAtRest(disk, directory);
  return {
    clusterId: meta.clusterId,
    firstIndex,
    lastIndex,
    checkpoints: await checkpointsAtRest(disk, directory),
    entries: (fromIndex) => effectiveEntries(disk, directory, fromIndex),
  };
}

/** `describe` says what is in a payload, for people. Throws `not-found`, `corrupt`. */
export async function compareJournals(
  disk: Disk,
  leftDirectory: string,
  rightDirectory: string,
  describe: (payload: Uint8Array) => string,
): Promise<JournalComparison> {
  const left = await directoryAtRest(disk, leftDirectory);
  return compareLogs(left, await directoryAtRest(disk, rightDirectory), describe);
}

/** As `compareJournals`, of any two logs. */
export async function compareLogs(
  left: LogAtRest,
  right: LogAtRest,
  describe: (payload: Uint8Array) => string,
): Promise<JournalComparison> {
  const fromIndex = Math.max(left.firstIndex, right.firstIndex);
  const toIndex = Math.min(left.lastIndex, right.lastIndex);
  const differences: JournalDifference[] = [];
  if (fromIndex <= toIndex) {
    const found = await firstDifference(
      singly(left.entries(fromIndex)),
      singly(right.entries(fromIndex)),
      toIndex,
      describe,
    );
    if (found !== undefined) differences.push(found);
  }
  const ofRight = new Map(right.checkpoints.map((each) => [each.index, each.digest]));
  const shared = left.checkpoints.filter(({ index }) => ofRight.has(index));
  const different = shared.find(({ index, digest }) => ofRight.get(index) !== digest);
  if (different !== undefined) {
    const { index, digest } = different;
    differences.push({ index, what: "digest", left: digest, right: String(ofRight.get(index)) });
  }
  return {
    sameCluster: left.clusterId === right.clusterId,
    compared: fromIndex <= toIndex ? { fromIndex, toIndex } : undefined,
    checkpoints: shared.map(({ index }) => index),
    differences,
  };
}

async function firstDifference(
  left: AsyncGenerator<Entry>,
  right: AsyncGenerator<Entry>,
  toIndex: number,
  describe: (payload: Uint8Array) => string,
): Promise<JournalDifference | undefined> {
  try {
    for (;;) {
      const [a, b] = [await left.next(), await right.next()];
      if (a.done === true || b.done === true || a.value.index > toIndex) return undefined;
      const { index, term, payload } = a.value;
      if (b.value.index !== index) {
        throw new HeadpondError("corrupt", `one log has entry ${index} where the other has ${b.value.index}`);
      }
      if (b.value.term !== term) return { index, what: "term", left: String(term), right: String(b.value.term) };
      if (Buffer.compare(payload, b.value.payload) !== 0) {
        return { index, what: "command", left: describe(payload), right: describe(b.value.payload) };
      }
    }
  } finally {
    await left.return(undefined);
    await right.return(undefined);
  }
}

async function* singly(pieces: AsyncIterable<readonly Entry[]>): AsyncGenerator<Entry, void, void> {
  for await (const piece of pieces) yield* piece;
}
