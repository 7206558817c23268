/** Masters, workers, jobs and models as the outside sees them (surface.md), and what masters and workers tell each other. */

import Type, { type Static } from "typebox";
import { FileDescriptor } from "./file.ts";
import { MasterList } from "./masters.ts";
import {
  BlockIndexSchema,
  BytesSchema,
  ClusterIdSchema,
  Count,
  FileVersionIdSchema,
  JobIdSchema,
  MasterIdSchema,
  MountIdSchema,
  oneOf,
  PathSchema,
  PlaceSchema,
  TimeMs,
  WorkerIdSchema,
} from "./schema.ts";

/** Where a worker is and where it listens. */
export const WorkerAddress = Type.Object({
  id: WorkerIdSchema,
  place: PlaceSchema,
  /** `host:port` of the data port: HTTP ranges and framed RPC. */
  data: Type.String(),
  /** `host:port` of health, metrics and status. */
  http: Type.String(),
  /** `host:port` of each gateway it serves: `hf`, `files`, `s3`. */
  gateways: Type.Record(Type.String(), Type.String()),
  /** It gives what it holds, but is about to go: nothing new is brought to it, and it owns no blocks. */
  draining: Type.Optional(Type.Boolean()),
});
export type WorkerAddress = Static<typeof WorkerAddress>;

/** The live workers, as versioned by a master: two views with one version never make two owners. */
export const WorkerList = Type.Object({ version: Count, workers: Type.Array(WorkerAddress) });
export type WorkerList = Static<typeof WorkerList>;

export const WorkerState = oneOf("registering", "live", "draining", "lost");
export type WorkerState = Static<typeof WorkerState>;

export const WorkerStatus = Type.Object({
  id: WorkerIdSchema,
  place: PlaceSchema,
  state: WorkerState,
  data: Type.String(),
  http: Type.String(),
  gateways: Type.Record(Type.String(), Type.String()),
  capacityBytes: Count,
  usedBytes: Count,
  /** File versions of which it holds at least one block. */
  files: Count,
  /** Bytes it read from under stores since it started. */
  originBytes: Count,
  lastSeenMs: TimeMs,
  /** Clear states of trouble, e.g. `/nvme1: no space, fills stopped`. */
  problems: Type.Array(Type.String()),
});
export type WorkerStatus = Static<typeof WorkerStatus>;

/** One master as the one that answers knows it: of others, as of their last report. */
export const MasterStatus = Type.Object({
  id: MasterIdSchema,
  /** `host:port` for clients and workers; of its journal while nothing else was heard of it. */
  address: Type.String(),
  role: oneOf("leader", "standby"),
  /** 0 while nothing was heard of it. */
  appliedIndex: Count,
  /** Of its state at `digestIndex`; empty while none is known. */
  digest: Type.String(),
  digestIndex: Type.Optional(Count),
  /** Entries that are committed and that it has not applied yet. */
  lagEntries: Count,
  /** False: a learner. */
  voter: Type.Boolean(),
  /** `host:port` of its journal's own traffic with the other masters; absent if there is none. */
  journalAddress: Type.Optional(Type.String()),
  http: Type.Optional(Type.String()),
  /** Heard of within the last seconds. */
  reachable: Type.Optional(Type.Boolean()),
});
export type MasterStatus = Static<typeof MasterStatus>;

export const ClusterStatus = Type.Object({
  clusterId: ClusterIdSchema,
  name: Type.String(),
  journal: oneOf("local", "raft", "zookeeper"),
  leader: Type.Optional(Type.String()),
  term: Count,
  masters: Type.Array(MasterStatus),
  workers: Type.Array(WorkerStatus),
  files: Count,
  directories: Count,
});
export type ClusterStatus = Static<typeof ClusterStatus>;

/** What a worker holds of one file version, or what changed since its last report. */
export const Holding = Type.Object({
  id: FileVersionIdSchema,
  blockCount: Count,
  /** The whole set (`BlockBitmap.toBytes`); absent: `added` and `removed` change the reported one. */
  bitmap: Type.Optional(BytesSchema),
  added: Type.Optional(Type.Array(BlockIndexSchema)),
  removed: Type.Optional(Type.Array(BlockIndexSchema)),
  /** Every block is there, verified and durable. */
  complete: Type.Boolean(),
  /** Nothing of it is held any more. */
  gone: Type.Optional(Type.Boolean()),
  /** Bytes of it that this worker read from the under store since it started; counts also what failed or was read twice. */
  originBytes: Count,
});
export type Holding = Static<typeof Holding>;

/** What a master tells a worker, in order, on the stream that the worker opened with `attachWorker`. */
export const WorkerOrder = Type.Union([
  /** `term`: in which it leads or stands by; orders of a master that led in an older term are not obeyed. */
  Type.Object({
    kind: Type.Literal("welcome"),
    clusterId: ClusterIdSchema,
    leader: Type.Boolean(),
    term: Type.Optional(Count),
  }),
  Type.Object({ kind: Type.Literal("workers"), list: WorkerList }),
  /** The whole mount table, options with their secrets: workers read under stores themselves. */
  Type.Object({
    kind: Type.Literal("mounts"),
    mounts: Type.Array(
      Type.Object({
        id: MountIdSchema,
        path: PathSchema,
        uri: Type.String(),
        readOnly: Type.Boolean(),
        options: Type.Record(Type.String(), Type.String()),
      }),
    ),
  }),
  /** Bring these in and keep them whole; each is answered by `reportLoad`. Repeating an order is harmless. */
  Type.Object({
    kind: Type.Literal("load"),
    jobId: JobIdSchema,
    priority: Type.Integer({ minimum: 0, maximum: 9 }),
    files: Type.Array(FileDescriptor),
  }),
  Type.Object({ kind: Type.Literal("cancel-load"), jobId: JobIdSchema }),
  Type.Object({ kind: Type.Literal("free"), versions: Type.Array(FileVersionIdSchema) }),
  Type.Object({
    kind: Type.Literal("pin"),
    versions: Type.Array(FileVersionIdSchema),
    pinned: Type.Boolean(),
  }),
  /** Report everything from the start. */
  Type.Object({ kind: Type.Literal("report-all") }),
  /** Who the masters are: of each of them, whoever leads. */
  Type.Object({ kind: Type.Literal("masters"), list: MasterList }),
]);
export type WorkerOrder = Static<typeof WorkerOrder>;

export const JobState = oneOf("planning", "running", "succeeded", "partial", "failed", "cancelled");
export type JobState = Static<typeof JobState>;

export const JobFailure = Type.Object({
  path: PathSchema,
  worker: Type.String(),
  code: Type.String(),
  message: Type.String(),
});
export type JobFailure = Static<typeof JobFailure>;

/** What a load would do, before it does. */
export const LoadPlan = Type.Object({
  path: PathSchema,
  files: Count,
  /** Bytes of the model, once. */
  bytes: Count,
  blocks: Count,
  /** Bytes that the chosen workers already hold, summed over workers. */
  cachedBytes: Count,
  /** Bytes that must leave the under store: held by no live worker of the chosen domains. */
  originBytes: Count,
  /** max(S/origin, S/link, ...) by the configured or measured rates; 0 when nothing has to move. */
  boundSeconds: Type.Number(),
  /** What the bound was computed from. */
  rates: Type.Object({ originBytesPerSecond: Type.Number(), linkBytesPerSecond: Type.Number(), source: Type.String() }),
  workers: Type.Array(WorkerIdSchema),
  /** Objects below the path that are left out because the namespace cannot express their names. Absent: none is known. */
  inexpressible: Type.Optional(Count),
  /** Reasons why it cannot be done, e.g. a worker that lacks the space. Empty: it can. */
  problems: Type.Array(Type.String()),
});
export type LoadPlan = Static<typeof LoadPlan>;

export const JobWorkerProgress = Type.Object({
  worker: WorkerIdSchema,
  bytesDone: Count,
  bytesTotal: Count,
  filesDone: Count,
  filesTotal: Count,
  ready: Type.Boolean(),
  /** When it became ready, as the leader saw it. */
  readyMs: Type.Optional(TimeMs),
  originBytes: Count,
});
export type JobWorkerProgress = Static<typeof JobWorkerProgress>;

export const JobStatus = Type.Object({
  id: JobIdSchema,
  kind: oneOf("load"),
  path: PathSchema,
  to: Type.String(),
  state: JobState,
  priority: Type.Integer(),
  createdMs: TimeMs,
  startedMs: Type.Optional(TimeMs),
  finishedMs: Type.Optional(TimeMs),
  /** Summed over workers. */
  bytesDone: Count,
  bytesTotal: Count,
  /** Bytes of the model, once. */
  uniqueBytes: Count,
  /** Bytes per second over the last seconds, summed over workers. */
  rate: Type.Number(),
  /** boundSeconds / (time so far or in all); 0 when there is no bound. */
  efficiency: Type.Number(),
  boundSeconds: Type.Number(),
  etaSeconds: Type.Optional(Type.Number()),
  originBytes: Count,
  /** originBytes / bytes that had to leave the under store; 1 when none had to and none did. */
  originAmplification: Type.Number(),
  workers: Type.Array(JobWorkerProgress),
  failed: Type.Array(JobFailure),
  /** Why it is in this state, when that is not plain. */
  reason: Type.Optional(Type.String()),
});
export type JobStatus = Static<typeof JobStatus>;

/** A worker that is being emptied, and what is still whole on it and on no worker that stays. */
export const DrainStatus = Type.Object({
  worker: WorkerIdSchema,
  /** `drained`: nothing is lost when it goes. `away`: it cannot be reached. `live`: it is not (no longer) drained. */
  state: oneOf("draining", "drained", "away", "live"),
  startedMs: Type.Optional(TimeMs),
  files: Count,
  bytes: Count,
  /** Loads that make the copies. */
  jobs: Type.Array(JobIdSchema),
  /** Why it does not get on. */
  problems: Type.Array(Type.String()),
});
export type DrainStatus = Static<typeof DrainStatus>;

export const ReadyState = oneOf("READY", "FILLING", "ABSENT");
export type ReadyState = Static<typeof ReadyState>;

/** A model is a directory that holds weights (`isWeightsName`), taken at the topmost such directory. */
export const ModelStatus = Type.Object({
  path: PathSchema,
  /** The commit of its content: 40 hexadecimal digits. */
  version: Type.String(),
  bytes: Count,
  files: Count,
  places: Type.Array(Type.Object({ worker: WorkerIdSchema, place: PlaceSchema, state: ReadyState, bytes: Count })),
});
export type ModelStatus = Static<typeof ModelStatus>;

/** All files of a directory tree at one moment: what the Hub calls a commit. */
export const Revision = Type.Object({
  path: PathSchema,
  /** 40 hexadecimal digits, derived from the files' relative paths, sizes and etags. */
  commit: Type.String(),
  /** Whether it is what the directory holds now. */
  current: Type.Boolean(),
  files: Type.Array(Type.Object({ path: Type.String(), file: FileDescriptor })),
});
export type Revision = Static<typeof Revision>;

const weightsName = /\.(safetensors|gguf|ggml|bin|pt|pth|onnx|h5|msgpack|npz|tflite|ot|mlmodel|engine)$/i;

/** Whether a file of this name holds weights: it makes its directory a model. */
export function isWeightsName(name: string): boolean {
  return weightsName.test(name);
}
