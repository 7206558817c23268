/**
 * All of the replicated state: inodes and names, small rows, sessions, and the header with what is single. Apply changes it in
 * memory; a flush writes everything that changed up to one applied index in one atomic batch, header included, so the
 * store always holds the state as of exactly one index, and a restart goes on from there with the log.
 */

import { HeadpondError } from "../base/errors.ts";
import { type InodeId, rootInodeId } from "../base/ids.ts";
import { featureLevelMax, featureLevelMin, requireUnderstood } from "./feature-level.ts";
import { Digest, hashBytes, hashHigh, hashLow } from "./hash.ts";
import { Inode } from "./inode.ts";
import { InodeTable } from "./inode-table.ts";
import { RowTable } from "./row-table.ts";
import { SessionTable } from "./session-table.ts";
import { Batch, rowsTable, type Store } from "./store.ts";

/** Raised when software of before could not read the rows any more (docs/formats/namespace.md). */
export const stateFormat = 1;

export const headerKey = Buffer.of(0x00);

export type Header = {
  format: number;
  appliedIndex: number;
  appliedTerm: number;
  /** Counts applied commands; each inode's version is its value when the inode last changed. */
  version: number;
  /** The state's clock: the highest time of any command. */
  nowMs: number;
  featureLevel: number;
  nextInodeId: number;
  nextMountId: number;
  nextSessionId: number;
  nextJobId: number;
  nextIntentId: number;
  /** Inodes, also those of removed trees that are not reclaimed yet. */
  fileCount: number;
  directoryCount: number;
  /** Of files. */
  sizeBytes: number;
  requestIdCount: number;
  jobCount: number;
  /** Sums of the rows' hashes. */
  digests: { inodes: string; rows: string; sessions: string };
};

export class State {
  readonly #store: Store;
  readonly #inodesDigest: Digest;
  readonly #rowsDigest: Digest;
  readonly #sessionsDigest: Digest;
  readonly #batch = new Batch();
  /** The header of the batch that is being encoded. */
  #frozenHeader: Header | undefined;
  readonly header: Header;
  readonly inodes: InodeTable;
  readonly rows: RowTable;
  readonly sessions: SessionTable;
  /** Highest that this software understands. */
  readonly featureLevelMax: number;

  /** Reads what the store holds. Throws `corrupt` or `unsupported`. */
  constructor(
    store: Store,
    limits: { readonly cachedInodesMax: number; readonly cachedNamesMax: number; readonly cachedRowsBytesMax: number },
    understood: number = featureLevelMax,
  ) {
    this.#store = store;
    this.featureLevelMax = understood;
    const found = store.get(rowsTable, headerKey);
    this.header = found === undefined ? emptyHeader() : parseHeader(Buffer.from(found));
    requireUnderstood(this.header.featureLevel, understood, "the state");
    const { digests, nextInodeId } = this.header;
    this.#inodesDigest = Digest.parse(digests.inodes);
    this.#rowsDigest = Digest.parse(digests.rows);
    this.#sessionsDigest = Digest.parse(digests.sessions);
    this.inodes = new InodeTable({ ...limits, store, digest: this.#inodesDigest, nextInodeId });
    this.rows = new RowTable({ store, digest: this.#rowsDigest });
    this.sessions = new SessionTable({ store, digest: this.#sessionsDigest });
    if (found === undefined) this.#makeRoot();
  }

  get root(): Inode {
    const root = this.inodes.get(rootInodeId);
    if (root === undefined) throw new HeadpondError("corrupt", "the state has no root directory: restore a checkpoint");
    return root;
  }

  /** Rows that wait for a flush. */
  get dirtyCount(): number {
    return this.inodes.dirtyCount + this.rows.dirtyCount + this.sessions.dirtyCount;
  }

  newInodeId(): InodeId {
    return this.header.nextInodeId++ as InodeId;
  }

  /** Digest of the whole state as of now. Costs a hash per changed row since it was last asked for or flushed. */
  digest(): string {
    this.encode(Number.POSITIVE_INFINITY);
    this.inodes.count();
    this.sessions.count();
    return digestOf({ ...this.header, digests: this.#digests() });
  }

  /** Begins a flush of the state as it is now. */
  freeze(): void {
    this.#batch.clear();
    this.inodes.freeze();
    this.rows.freeze();
    this.rows.encode(this.#batch);
    this.sessions.encode(this.#batch);
    this.#frozenHeader = { ...this.header, digests: this.#digests() };
  }

  /** Encodes about `rows` rows of the flush; returns whether the batch is complete. */
  encode(rows: number): boolean {
    const header = this.#frozenHeader;
    if (header === undefined) return true;
    if (!this.inodes.encode(this.#batch, rows)) return false;
    // Only now are all frozen inodes counted. Small rows and sessions were counted at the freeze, and may have moved on since.
    header.digests = { ...header.digests, inodes: this.#inodesDigest.toString() };
    this.#batch.put(rowsTable, headerKey, Buffer.from(JSON.stringify(header)));
    this.#frozenHeader = undefined;
    return true;
  }

  /** Hands the encoded batch to the store. */
  async commit(): Promise<number> {
    await this.#store.commit(this.#batch);
    this.inodes.thaw();
    this.rows.thaw();
    return this.#batch.count;
  }

  #digests(): Header["digests"] {
    return {
      inodes: this.#inodesDigest.toString(),
      rows: this.#rowsDigest.toString(),
      sessions: this.#sessionsDigest.toString(),
    };
  }

  #makeRoot(): void {
    const root = new Inode(rootInodeId, true);
    root.mode = 0o755;
    root.owner = "root";
    root.group = "root";
    this.inodes.insertRoot(root);
  }
}

function emptyHeader(): Header {
  const none = "0000000000000000";
  return {
    format: stateFormat,
    appliedIndex: 0,
    appliedTerm: 0,
    version: 0,
    nowMs: 0,
    featureLevel: featureLevelMin,
    nextInodeId: rootInodeId + 1,
    nextMountId: 1,
    nextSessionId: 1,
    nextJobId: 1,
    nextIntentId: 1,
    fileCount: 0,
    directoryCount: 1,
    sizeBytes: 0,
    requestIdCount: 0,
    jobCount: 0,
    digests: { inodes: none, rows: none, sessions: none },
  };
}

/** Throws `corrupt` or `unsupported`. */
export function parseHeader(row: Buffer): Header {
  let header: Partial<Header>;
  try {
    header = JSON.parse(row.toString("utf8")) as Partial<Header>;
  } catch (cause) {
    throw new HeadpondError("corrupt", "the header row of the state is damaged: restore a checkpoint", { cause });
  }
  if (header.format !== stateFormat) {
    throw new HeadpondError(
      "unsupported",
      `the state has format ${header.format}, this software reads format ${stateFormat}: use the software that wrote it`,
    );
  }
  if (header.digests === undefined || typeof header.appliedIndex !== "number") {
    throw new HeadpondError("corrupt", "the header row of the state lacks fields: restore a checkpoint");
  }
  return { ...emptyHeader(), ...header };
}

/** Index, term and format are left out: they say where the state came from, not what it is. */
function digestOf(header: Header): string {
  const { format: _format, appliedIndex: _index, appliedTerm: _term, digests, ...logical } = header;
  const sum = Digest.parse(digests.inodes);
  for (const text of [digests.rows, digests.sessions]) {
    sum.add(Number.parseInt(text.slice(8), 16) | 0, Number.parseInt(text.slice(0, 8), 16) | 0);
  }
  const bytes = Buffer.from(JSON.stringify(logical));
  hashBytes(bytes, 0, bytes.length, 0);
  sum.add(hashLow, hashHigh);
  return sum.toString();
}

/** Applied index, term and digest of a state whose header row is `row`. Throws `corrupt` or `unsupported`. */
export function describeHeader(row: Buffer): {
  readonly index: number;
  readonly term: number;
  readonly digest: string;
} {
  const header = parseHeader(row);
  return { index: header.appliedIndex, term: header.appliedTerm, digest: digestOf(header) };
}
