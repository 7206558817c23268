/**
 * The commands that change the namespace, and what each one answers. A command is what the journal records: the leader
 * checks only its form, stamps the time and proposes it; whether it succeeds is decided when it is applied, the same way
 * on every master. Their encoding is in command-codec.ts (docs/formats/command.md).
 *
 * A command never fails by throwing: its result is `{ ok: true, ... }` or `{ ok: false, error }`.
 */

import type { ErrorDocument } from "../base/errors.ts";
import type { Attributes, ContentDigest, FileKind, ListedRow, TtlAction } from "../base/file.ts";
import type { InodeId, JobId, MountId, SessionId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";

/**
 * Who asked, for exactly-once: the state keeps the results of a session above `acknowledged` (the highest sequence up
 * to which the client has every answer), and a sequence that comes again gets the first result.
 */
export type Origin = {
  readonly sessionId: SessionId;
  /** From 1, unique in the session; different arguments under one sequence are `invalid`. */
  readonly sequence: number;
  readonly acknowledged: number;
};

/** What every command carries beside its own fields. */
export type Stamp = {
  /** Wall clock of the leader when it proposed. The state's own clock is the highest one seen, so it never runs backwards. */
  readonly timeMs: number;
  readonly origin?: Origin;
  /** Unique in the cluster, kept for at least 10 minutes: at most 128 bytes. */
  readonly requestId?: string;
};

export type Ownership = { readonly mode: number; readonly owner: string; readonly group: string };

/** Outside mounts: an empty, complete file. Under a mount: content that is incomplete until `complete` (an intent). */
export type Create = Stamp &
  Ownership & {
    readonly kind: "create";
    readonly path: Path;
    /** An existing file is `already-exists`. */
    readonly exclusive: boolean;
    /** Makes missing parents. */
    readonly recursive: boolean;
    /**
     * Bytes follow: of an existing file, a new content begins, which replaces the old one at `complete`; outside mounts it
     * is `no-mount`. Otherwise an existing file is left as it is and answered with `created: false`.
     */
    readonly forWriting: boolean;
    readonly attributes: Attributes;
  };

/** The content begun by `create` is in the under store; from now on it is what readers see. */
export type Complete = Stamp & {
  readonly kind: "complete";
  readonly inodeId: InodeId;
  readonly contentVersion: number;
  readonly sizeBytes: number;
  readonly etag: string;
  readonly modifiedMs: number;
  readonly digest?: ContentDigest;
};

/** Under a mount: an intent; the directory appears with `finish-intent`. */
export type Mkdir = Stamp &
  Ownership & {
    readonly kind: "mkdir";
    readonly path: Path;
    /** Makes missing parents, and an existing directory is no error unless `exclusive`. */
    readonly recursive: boolean;
    readonly exclusive: boolean;
    readonly attributes: Attributes;
  };

/** Under a mount: an intent; the inode goes with `finish-intent`. */
export type Remove = Stamp & {
  readonly kind: "remove";
  readonly path: Path;
  /** A directory with children goes at once, as a whole; without: `not-empty`. */
  readonly recursive: boolean;
  /** What it must be (`unlink` and `rmdir`): else `is-a-directory` or `not-a-directory`. */
  readonly expect?: FileKind;
  readonly ifVersion?: number;
};

/** As POSIX: a file replaces a file, a directory an empty directory. Under a mount: an intent. Across mounts: `unsupported`. */
export type Rename = Stamp & {
  readonly kind: "rename";
  readonly from: Path;
  readonly to: Path;
  /** False: an existing target is `already-exists`. */
  readonly replace: boolean;
};

export type SetAttributes = Stamp & {
  readonly kind: "set-attributes";
  readonly path: Path;
  readonly set: Attributes;
  readonly remove: readonly string[];
  readonly mode?: number;
  readonly owner?: string;
  readonly group?: string;
  readonly modifiedMs?: number;
  /** Else `version-mismatch`, with `details.version`. */
  readonly ifVersion?: number;
};

/** Of a directory: all that is or comes below it counts as pinned, too. */
export type Pin = Stamp & { readonly kind: "pin"; readonly path: Path; readonly pinned: boolean };

/** `ttlMs` counts from the command's time; `null` takes the TTL away. */
export type SetTtl = Stamp & {
  readonly kind: "ttl";
  readonly path: Path;
  readonly ttlMs: number | null;
  readonly action: TtlAction;
};

/** Wanted number of holders, also for all below a directory that have no target of their own. `max: 0` takes it away. */
export type SetReplicas = Stamp & {
  readonly kind: "replicas";
  readonly path: Path;
  readonly min: number;
  readonly max: number;
};

/** At an empty directory, or a name that does not exist yet (its parents are made). Not at `/`. */
export type Mount = Stamp & {
  readonly kind: "mount";
  readonly path: Path;
  /** Without secrets. */
  readonly uri: string;
  readonly options: Readonly<Record<string, string>>;
  /** Names of `options` whose values are secret: they never leave through `mounts()`. */
  readonly secretOptions: readonly string[];
  readonly readOnly: boolean;
};

/** Takes the mount and all that was synced below it out of the namespace; the under store is not touched. */
export type Unmount = Stamp & {
  readonly kind: "unmount";
  readonly path: Path;
  /** Also when changes below it are still under way (open intents), which are then given up. */
  readonly force: boolean;
};

/**
 * A page of a listing of the under store. `listingBeganVersion` is `Namespace.version` from before the listing began: rows of what
 * has changed since are dropped (the next listing brings them), so a slow listing never undoes a newer change.
 */
export type SyncRows = Stamp & {
  readonly kind: "sync-rows";
  readonly mountId: MountId;
  readonly directoryInodeId: InodeId;
  readonly listingBeganVersion: number;
  /** At most `syncRowsMax`. */
  readonly rows: readonly ListedRow[];
};

/**
 * Ends a listing: `goneNames` are children that the listing did not show (the master compares, in slices); they are removed unless
 * they changed since it began. The last slice says `finished`, which marks the directory as synced.
 */
export type SyncEnd = Stamp & {
  readonly kind: "sync-end";
  readonly directoryInodeId: InodeId;
  readonly listingBeganVersion: number;
  /** At most `syncRowsMax`. */
  readonly goneNames: readonly string[];
  readonly finished: boolean;
};

/** The under store has been changed (`done`), or was not and will not be (`undone`, with the reason for the asker). */
export type FinishIntent = Stamp & {
  readonly kind: "finish-intent";
  readonly intentId: number;
  readonly outcome: "done" | "undone";
  readonly error?: ErrorDocument;
};

export type OpenSession = Stamp & {
  readonly kind: "open-session";
  /** A session that is not renewed for so long may be expired. */
  readonly timeoutMs: number;
  /** For people: host, process, version. */
  readonly client: string;
};

export type RenewSessions = Stamp & { readonly kind: "renew-sessions"; readonly sessionIds: readonly SessionId[] };
export type CloseSession = Stamp & { readonly kind: "close-session"; readonly sessionId: SessionId };
/** Expires sessions whose time is over by the command's time, at most `limit`. */
export type ExpireSessions = Stamp & { readonly kind: "expire-sessions"; readonly limit: number };
/** Frees at most `limit` rows of removed trees and of old request ids. */
export type Reclaim = Stamp & { readonly kind: "reclaim"; readonly limit: number };
/** Ends TTLs that are due by the command's time, at most `limit`. */
export type ExpireTtl = Stamp & { readonly kind: "expire-ttl"; readonly limit: number };

export type PutJob = Stamp & {
  readonly kind: "put-job";
  /** Absent: a new job, whose id is in the result. */
  readonly jobId?: JobId;
  /** JSON, at most 1 MiB. */
  readonly document: string;
};
export type JobProgress = Stamp & { readonly kind: "job-progress"; readonly jobId: JobId; readonly progress: string };
export type RemoveJob = Stamp & { readonly kind: "remove-job"; readonly jobId: JobId };

/** One file of a revision: enough to describe its version after the file has changed or gone. */
export type RevisionFile = {
  /** Relative to the directory. */
  readonly path: string;
  readonly inodeId: InodeId;
  readonly contentVersion: number;
  readonly sizeBytes: number;
  readonly mountId: MountId;
  readonly key: string;
  readonly etag: string;
  readonly modifiedMs: number;
  readonly digest?: ContentDigest;
};

/** Remembers what a directory held under a commit; the last `revisionsKeptMax` per directory are kept. */
export type RecordRevision = Stamp & {
  readonly kind: "record-revision";
  readonly directoryInodeId: InodeId;
  /** 40 hexadecimal digits. */
  readonly commit: string;
  readonly files: readonly RevisionFile[];
  /** JSON for whoever records it. */
  readonly metadata: string;
};

/** A small document by name (policies, hooks, cluster members ...); `null` removes it. */
export type SetSetting = Stamp & { readonly kind: "set-setting"; readonly key: string; readonly value: string | null };
/** Allows what only newer software understands; never goes down. */
export type SetFeatureLevel = Stamp & { readonly kind: "set-feature-level"; readonly level: number };

export type Command =
  | Create
  | Complete
  | Mkdir
  | Remove
  | Rename
  | SetAttributes
  | Pin
  | SetTtl
  | SetReplicas
  | Mount
  | Unmount
  | SyncRows
  | SyncEnd
  | FinishIntent
  | OpenSession
  | RenewSessions
  | CloseSession
  | ExpireSessions
  | Reclaim
  | ExpireTtl
  | PutJob
  | JobProgress
  | RemoveJob
  | RecordRevision
  | SetSetting
  | SetFeatureLevel;

export type CommandKind = Command["kind"];
export type CommandOf<K extends CommandKind> = Extract<Command, { readonly kind: K }>;

/** Of changes to one inode. */
export type InodeDone = {
  readonly ok: true;
  readonly inodeId: InodeId;
  readonly version: number;
  /**
   * Set when the change waits for an under store: drive `Namespace.intent(intentId)`, then propose `finish-intent` (or `complete`).
   * When that is applied, the stored result of the request becomes the final one.
   */
  readonly intentId?: number;
};

export type CreateDone = InodeDone & {
  /** False: the file was there already. */
  readonly created: boolean;
  /** The content to write and `complete`; of an existing file that is kept: its current one. */
  readonly contentVersion: number;
  /** Under a mount: where to write. */
  readonly mountId?: MountId;
  readonly key?: string;
};

/** An inode that a slice of work touched. */
export type TouchedInode = { readonly inodeId: InodeId; readonly path: Path };

export type SyncDone = {
  readonly ok: true;
  readonly added: number;
  readonly changed: number;
  readonly removed: number;
  /** Rows that were newer in the namespace than in the listing. */
  readonly dropped: number;
};

export type CommandResults = {
  create: CreateDone;
  complete: InodeDone;
  mkdir: InodeDone & { readonly created: boolean };
  /** `kind` and `inodeId` of what went. */
  remove: InodeDone & { readonly removed: FileKind };
  /** `replacedInodeId`: the file or empty directory that stood at the target. */
  rename: InodeDone & { readonly replacedInodeId?: InodeId };
  "set-attributes": InodeDone;
  pin: InodeDone;
  ttl: InodeDone;
  replicas: InodeDone;
  mount: InodeDone & { readonly mountId: MountId };
  unmount: { readonly ok: true; readonly mountId: MountId };
  "sync-rows": SyncDone;
  "sync-end": SyncDone;
  "finish-intent": { readonly ok: true; readonly inodeId?: InodeId };
  "open-session": { readonly ok: true; readonly sessionId: SessionId };
  /** `unknown`: sessions that are no more; their clients must open new ones. */
  "renew-sessions": { readonly ok: true; readonly unknown: readonly SessionId[] };
  "close-session": { readonly ok: true };
  "expire-sessions": { readonly ok: true; readonly expired: readonly SessionId[]; readonly more: boolean };
  /** `files`: file inodes that are gone for good, so that workers can be told to free them. */
  reclaim: {
    readonly ok: true;
    readonly reclaimed: number;
    readonly files: readonly InodeId[];
    readonly more: boolean;
  };
  /** `free`: cached bytes to drop; `intents`: removals under mounts that now wait for their under store. */
  "expire-ttl": {
    readonly ok: true;
    readonly free: readonly TouchedInode[];
    readonly removed: readonly TouchedInode[];
    readonly intents: readonly number[];
    readonly more: boolean;
  };
  "put-job": { readonly ok: true; readonly jobId: JobId };
  "job-progress": { readonly ok: true };
  "remove-job": { readonly ok: true };
  "record-revision": { readonly ok: true };
  "set-setting": { readonly ok: true };
  "set-feature-level": { readonly ok: true; readonly level: number };
};

export type Failed = { readonly ok: false; readonly error: ErrorDocument };
export type ResultOf<K extends CommandKind> = CommandResults[K] | Failed;
/** `none`: of an empty entry, which the journal writes for itself. */
export type CommandResult = CommandResults[CommandKind] | Failed | { readonly ok: true; readonly none: true };

/** Rows of one `sync-rows` or names of one `sync-end`: keeps one apply short. */
export const syncRowsMax = 1000;
export const revisionsKeptMax = 8;
export const revisionFilesMax = 20_000;
export const requestIdBytesMax = 128;
/** A request id is forgotten when this has passed by the state's clock, or when there are too many (`requestIdsMax`). */
export const requestIdKeptMs = 10 * 60_000;
