/**
 * What a master answers over RPC: to clients (namespace, data locations, jobs, models, status) and to workers
 * (registration, holdings). Mutations carry `origin` (session and sequence) and may carry `requestId`: a retry across any
 * failover is applied once. Paths in requests are plain strings; the master parses them.
 */

import Type, { type Static } from "typebox";
import {
  ClusterStatus,
  DrainStatus,
  Holding,
  JobStatus,
  LoadPlan,
  MasterStatus,
  ModelStatus,
  Revision,
  WorkerAddress,
  WorkerList,
  WorkerOrder,
} from "../base/cluster.ts";
import { Attributes, ContentDigest, FileDescriptor, FileStatus, MountInfo, TtlAction } from "../base/file.ts";
import { MasterList } from "../base/masters.ts";
import {
  ClusterIdSchema,
  Count,
  FileVersionIdSchema,
  InodeIdSchema,
  JobIdSchema,
  MountIdSchema,
  oneOf,
  PathSchema,
  SessionIdSchema,
  TimeMs,
  WorkerIdSchema,
} from "../base/schema.ts";
import { BackupItem, JournalMoveSchema, JournalStatusSchema, MoveReportSchema } from "./journal-schemas.ts";
import { service, stream, unary } from "./method.ts";

const PathText = Type.String({ minLength: 1, maxLength: 4096 });
const Empty = Type.Object({});
const MasterIdText = Type.String({ minLength: 1, maxLength: 63 });
const AddressText = Type.String({ minLength: 1, maxLength: 300 });
/** False: it was so already. */
const MembershipReply = Type.Object({ changed: Type.Boolean() });

/** Who asks for a change, and for the how-manieth time of his own: the state keeps results above `acknowledged`. */
export const Origin = Type.Object({
  sessionId: SessionIdSchema,
  /** From 1, one per mutation, never reused with other arguments. */
  sequence: Count,
  /** Every result up to here has reached the client and may be forgotten. */
  acknowledged: Count,
});
export type Origin = Static<typeof Origin>;

const mutation = {
  origin: Type.Optional(Origin),
  /** Unique in the cluster, kept for at least 10 minutes. */
  requestId: Type.Optional(Type.String({ minLength: 1, maxLength: 128 })),
};

export const Consistency = oneOf("linearizable", "stale", "local");
export type Consistency = Static<typeof Consistency>;
const read = {
  consistency: Type.Optional(Consistency),
  /** Of `stale`: how old the state that answers may be; the masters have a default. */
  maxStaleMs: Type.Optional(Count),
};
export type ReadOptions = { readonly consistency?: Consistency; readonly maxStaleMs?: number };

/** What a read of relaxed consistency was worth. */
const ReadInfo = Type.Object({
  appliedIndex: Count,
  /** The state held all that was acknowledged so long ago; absent: it is not known to have. */
  staleMs: Type.Optional(Count),
});
export type ReadInfo = Static<typeof ReadInfo>;
const readInfo = { read: Type.Optional(ReadInfo) };

/** The inode that a mutation made or changed. */
export const InodeRef = Type.Object({ inodeId: InodeIdSchema, version: Count, contentVersion: Count });
export type InodeRef = Static<typeof InodeRef>;

export const LoadRequest = Type.Object({
  path: PathText,
  /** `all`, a number of workers, or a place selector. */
  to: Type.String({ minLength: 1, maxLength: 256 }),
  priority: Type.Optional(Type.Integer({ minimum: 0, maximum: 9 })),
  pin: Type.Optional(Type.Boolean()),
});
export type LoadRequest = Static<typeof LoadRequest>;

export const SyncProgress = Type.Object({
  directories: Count,
  files: Count,
  added: Count,
  changed: Count,
  removed: Count,
  /** Names that the namespace cannot express, e.g. `a//b`. */
  skipped: Count,
  done: Type.Boolean(),
});
export type SyncProgress = Static<typeof SyncProgress>;

/** One applied change, for watchers. */
export const ChangeEvent = Type.Object({
  index: Count,
  timeMs: TimeMs,
  /** `created`, `completed`, `changed`, `removed`, `renamed`, `mounted`, `unmounted`. */
  kind: Type.String(),
  path: PathSchema,
  /** Of `renamed`: where it went. */
  to: Type.Optional(PathSchema),
  inodeId: Type.Optional(InodeIdSchema),
});
export type ChangeEvent = Static<typeof ChangeEvent>;

export const masterService = service("headpond.master", 1, {
  // Sessions.
  openSession: unary(
    "openSession",
    Type.Object({ client: Type.String({ maxLength: 256 }) }),
    Type.Object({ sessionId: SessionIdSchema, expiresAfterMs: Count }),
  ),
  keepSession: unary(
    "keepSession",
    Type.Object({ sessionId: SessionIdSchema, acknowledged: Count }),
    Type.Object({ expiresAfterMs: Count }),
  ),
  closeSession: unary("closeSession", Type.Object({ sessionId: SessionIdSchema }), Empty),

  // Changes of the namespace.
  create: unary(
    "create",
    Type.Object({
      path: PathText,
      /** Fail with `already-exists` if there is one. */
      exclusive: Type.Optional(Type.Boolean()),
      /** Make missing parents. */
      recursive: Type.Optional(Type.Boolean()),
      mode: Type.Optional(Count),
      attributes: Type.Optional(Attributes),
      /** Bytes follow (under a mount): the file stays incomplete until `complete`. Absent: an empty complete file. */
      forWriting: Type.Optional(Type.Boolean()),
      ...mutation,
    }),
    Type.Object({
      inodeId: InodeIdSchema,
      version: Count,
      contentVersion: Count,
      /** False: it existed (and `exclusive` was not asked for). */
      created: Type.Boolean(),
      /** For writing: where the bytes go. */
      target: Type.Optional(Type.Object({ mountId: MountIdSchema, key: Type.String() })),
    }),
  ),
  complete: unary(
    "complete",
    Type.Object({
      inodeId: InodeIdSchema,
      contentVersion: Count,
      sizeBytes: Count,
      etag: Type.String({ maxLength: 1024 }),
      modifiedMs: TimeMs,
      digest: Type.Optional(ContentDigest),
      ...mutation,
    }),
    InodeRef,
  ),
  /**
   * The bytes of a `create` for writing will not come, and none of them can still reach the under store: as if it had not
   * been asked for. Without effect when that content is complete or given up already; may be repeated.
   */
  abandon: unary("abandon", Type.Object({ inodeId: InodeIdSchema, contentVersion: Count }), Empty),
  mkdir: unary(
    "mkdir",
    Type.Object({
      path: PathText,
      recursive: Type.Optional(Type.Boolean()),
      mode: Type.Optional(Count),
      attributes: Type.Optional(Attributes),
      ...mutation,
    }),
    InodeRef,
  ),
  remove: unary(
    "remove",
    Type.Object({ path: PathText, recursive: Type.Optional(Type.Boolean()), ...mutation }),
    Empty,
  ),
  rename: unary(
    "rename",
    Type.Object({
      from: PathText,
      to: PathText,
      /** Default true. */
      replace: Type.Optional(Type.Boolean()),
      ...mutation,
    }),
    InodeRef,
  ),
  setAttributes: unary(
    "setAttributes",
    Type.Object({
      path: PathText,
      set: Type.Optional(Attributes),
      remove: Type.Optional(Type.Array(Type.String(), { maxItems: 1000 })),
      mode: Type.Optional(Count),
      owner: Type.Optional(Type.String({ maxLength: 256 })),
      group: Type.Optional(Type.String({ maxLength: 256 })),
      modifiedMs: Type.Optional(TimeMs),
      ifVersion: Type.Optional(Count),
      ...mutation,
    }),
    InodeRef,
  ),
  pin: unary("pin", Type.Object({ path: PathText, pinned: Type.Boolean(), ...mutation }), InodeRef),
  ttl: unary(
    "ttl",
    Type.Object({
      path: PathText,
      /** From now; absent: no TTL any more. */
      ttlMs: Type.Optional(Count),
      action: Type.Optional(TtlAction),
      ...mutation,
    }),
    InodeRef,
  ),
  replicas: unary("replicas", Type.Object({ path: PathText, min: Count, max: Count, ...mutation }), InodeRef),
  mount: unary(
    "mount",
    Type.Object({
      path: PathText,
      uri: Type.String({ minLength: 1, maxLength: 4096 }),
      readOnly: Type.Optional(Type.Boolean()),
      options: Type.Optional(Type.Record(Type.String(), Type.String())),
      ...mutation,
    }),
    MountInfo,
  ),
  unmount: unary("unmount", Type.Object({ path: PathText, ...mutation }), Empty),

  // Reads of the namespace.
  stat: unary("stat", Type.Object({ path: PathText, ...read }), Type.Object({ status: FileStatus, ...readInfo })),
  /** Children in the order of their names (UTF-8), or the whole tree, depth first. The stream's flow control pages it. */
  list: stream(
    "list",
    Type.Object({
      path: PathText,
      recursive: Type.Optional(Type.Boolean()),
      afterName: Type.Optional(Type.String()),
      limit: Type.Optional(Count),
      ...read,
    }),
    Type.Object({ entries: Type.Array(FileStatus), ...readInfo }),
  ),
  mounts: unary("mounts", Type.Object(read), Type.Object({ mounts: Type.Array(MountInfo), ...readInfo })),
  /** Of any master. Namespace changes from `fromIndex` on (absent: from now). `compacted` when they have been cut. */
  watch: stream(
    "watch",
    Type.Object({ path: PathText, fromIndex: Type.Optional(Count) }),
    Type.Object({ events: Type.Array(ChangeEvent), index: Count }),
  ),
  sync: stream("sync", Type.Object({ path: PathText, recursive: Type.Optional(Type.Boolean()) }), SyncProgress),

  // Data: which content, and where.
  open: unary(
    "open",
    Type.Object({ path: PathText, ...read }),
    Type.Object({ file: FileDescriptor, holders: Type.Array(WorkerIdSchema), workers: WorkerList, ...readInfo }),
  ),
  describe: unary(
    "describe",
    Type.Object({ id: FileVersionIdSchema, ...read }),
    Type.Object({ file: FileDescriptor, holders: Type.Array(WorkerIdSchema), ...readInfo }),
  ),
  location: unary(
    "location",
    Type.Object({ path: PathText, ...read }),
    Type.Object({
      file: FileDescriptor,
      holders: Type.Array(
        Type.Object({ worker: WorkerAddress, blocks: Count, bytes: Count, complete: Type.Boolean() }),
      ),
      ...readInfo,
    }),
  ),
  workers: unary("workers", Empty, WorkerList),
  /** The files of a directory tree now (`main`, `HEAD`) or at a commit that is still known; else `not-found`. */
  revision: unary("revision", Type.Object({ path: PathText, revision: Type.String({ maxLength: 256 }) }), Revision),

  // Jobs and models.
  planLoad: unary("planLoad", LoadRequest, LoadPlan),
  load: unary(
    "load",
    Type.Object({ ...LoadRequest.properties, ...mutation }),
    Type.Object({ job: JobStatus, plan: LoadPlan }),
  ),
  free: unary(
    "free",
    Type.Object({ path: PathText }),
    Type.Object({ files: Count, bytes: Count, skippedPinned: Count }),
  ),
  jobs: unary("jobs", Type.Object({ limit: Type.Optional(Count) }), Type.Object({ jobs: Type.Array(JobStatus) })),
  job: unary("job", Type.Object({ id: JobIdSchema }), JobStatus),
  watchJob: stream("watchJob", Type.Object({ id: JobIdSchema, intervalMs: Type.Optional(Count) }), JobStatus),
  cancelJob: unary("cancelJob", Type.Object({ id: JobIdSchema }), JobStatus),
  retryJob: unary("retryJob", Type.Object({ id: JobIdSchema }), JobStatus),
  /** Empties a worker, or (`cancel`) lets it be filled again; asking again says how far it is. */
  drain: unary("drain", Type.Object({ worker: WorkerIdSchema, cancel: Type.Optional(Type.Boolean()) }), DrainStatus),
  drains: unary("drains", Empty, Type.Object({ drains: Type.Array(DrainStatus) })),
  models: unary(
    "models",
    Type.Object({ path: Type.Optional(PathText), limit: Type.Optional(Count) }),
    Type.Object({ models: Type.Array(ModelStatus) }),
  ),

  // Status.
  clusterStatus: unary("clusterStatus", Empty, ClusterStatus),
  journalStatus: unary("journalStatus", Empty, JournalStatusSchema),
  journalCheckpoint: unary(
    "journalCheckpoint",
    Empty,
    Type.Object({ index: Count, bytes: Count, durationMs: Type.Number() }),
  ),
  journalVerify: unary(
    "journalVerify",
    Empty,
    Type.Object({
      ok: Type.Boolean(),
      entries: Count,
      bytes: Count,
      digest: Type.String(),
      findings: Type.Array(Type.String()),
    }),
  ),
  /** A step of a move to another journal, of the master that is asked (docs/migration.md). `settings` and `members` are JSON objects. */
  journalMove: unary("journalMove", JournalMoveSchema, MoveReportSchema),
  /**
   * Of any master. `history`: from its oldest checkpoint instead of its newest; `local`: what it has, if no leader can be asked how much
   * there is; `stateOnly`: the checkpoint alone.
   */
  journalBackup: stream(
    "journalBackup",
    Type.Object({
      history: Type.Optional(Type.Boolean()),
      local: Type.Optional(Type.Boolean()),
      stateOnly: Type.Optional(Type.Boolean()),
    }),
    BackupItem,
  ),
  /** Of any master: who the masters are and who leads, as it sees them; at once, and again whenever that changes. */
  masters: stream("masters", Empty, MasterList),
  // Membership. All but `members` are for the leader; each may be repeated.
  /** The masters, as the one that is asked knows them. */
  members: unary(
    "members",
    Empty,
    Type.Object({ clusterId: ClusterIdSchema, members: Type.Array(MasterStatus), commitIndex: Count }),
  ),
  /** Lets a master join as a learner, which receives the log and does not vote; it must have an empty disk, and its id be new. */
  addMember: unary("addMember", Type.Object({ id: MasterIdText, address: AddressText }), MembershipReply),
  /** Lets a learner vote, once it has caught up: waits for that. */
  promoteMember: unary("promoteMember", Type.Object({ id: MasterIdText }), MembershipReply),
  removeMember: unary("removeMember", Type.Object({ id: MasterIdText }), MembershipReply),
  /** Hands leadership to a voter, the most advanced one if none is named; answers when it leads. */
  transferLeadership: unary(
    "transferLeadership",
    Type.Object({ id: Type.Optional(MasterIdText) }),
    Type.Object({ leader: Type.Optional(Type.String()) }),
  ),
  /** Effective configuration of the master, secrets left out: what `doctor` compares. */
  serverInfo: unary(
    "serverInfo",
    Empty,
    Type.Object({
      version: Type.String(),
      node: Type.String(),
      startedMs: TimeMs,
      wallMs: TimeMs,
      http: Type.String(),
      directory: Type.String(),
      freeBytes: Count,
    }),
  ),

  // Workers.
  /** Registers the worker and streams orders to it; the worker is lost some time after the stream has broken. */
  attachWorker: stream(
    "attachWorker",
    Type.Object({
      address: WorkerAddress,
      /** Drawn at random at each start of the process. */
      incarnation: Type.String({ minLength: 8, maxLength: 64 }),
      capacityBytes: Count,
      version: Type.String({ maxLength: 64 }),
    }),
    WorkerOrder,
  ),
  /** Batches of what the worker holds: first everything (`last` ends it), then changes. At most 1,000 versions a batch. */
  reportHoldings: unary(
    "reportHoldings",
    Type.Object({
      workerId: WorkerIdSchema,
      incarnation: Type.String(),
      /** From 0 in each full report; a gap is answered by the order `report-all`. */
      sequence: Count,
      full: Type.Boolean(),
      last: Type.Boolean(),
      holdings: Type.Array(Holding, { maxItems: 1000 }),
    }),
    Empty,
  ),
  heartbeat: unary(
    "heartbeat",
    Type.Object({
      workerId: WorkerIdSchema,
      incarnation: Type.String(),
      usedBytes: Count,
      capacityBytes: Count,
      /** Of the cache: reserved for what no eviction may take as things are (pinned, read, being loaded). */
      keptBytes: Type.Optional(Count),
      originBytes: Count,
      /** Measured lately, 0 if not: bytes per second from under stores, and from peers. */
      originRate: Type.Number(),
      peerRate: Type.Number(),
      problems: Type.Array(Type.String(), { maxItems: 100 }),
    }),
    Type.Object({ workersVersion: Count }),
  ),
  reportLoad: unary(
    "reportLoad",
    Type.Object({
      workerId: WorkerIdSchema,
      incarnation: Type.String(),
      jobId: JobIdSchema,
      files: Type.Array(
        Type.Object({
          id: FileVersionIdSchema,
          ok: Type.Boolean(),
          code: Type.Optional(Type.String()),
          message: Type.Optional(Type.String()),
        }),
        { maxItems: 1000 },
      ),
    }),
    Empty,
  ),
});
export type MasterMethods = typeof masterService.methods;
