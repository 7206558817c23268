/**
 * The SDK: what a program does with a Headpond cluster. `connect` gives a client that finds the leader, retries safely
 * and reads bytes from the nearest worker. Nothing is sent before the first call.
 *
 * Promises: a change is made exactly once, however often it is sent; one whose fate is not known fails with
 * `unknown-outcome` and nothing else; reads are linearizable unless asked otherwise; a read never mixes two contents.
 * Leaves out: TLS and tokens (refused, not ignored).
 */

import type {
  ClusterStatus,
  DrainStatus,
  JobStatus,
  LoadPlan,
  ModelStatus,
  Revision,
  WorkerAddress,
  WorkerList,
} from "../base/cluster.ts";
import type { Attributes, FileDescriptor, FileStatus, MountInfo, TtlAction } from "../base/file.ts";
import type { FileVersionId, InodeId, JobId, WorkerId } from "../base/ids.ts";
import type { BackupItem } from "../rpc/journal-schemas.ts";
import { type ChangeEvent, type InodeRef, masterService, type SyncProgress } from "../rpc/master-service.ts";
import type { Method, ReplyOf, RequestOf } from "../rpc/method.ts";
import { type ClientParts, type ConnectOptions, connectParts } from "./connect-parts.ts";
import { HeadpondFile } from "./file.ts";
import { FileSource, type Whereabouts } from "./file-source.ts";
import { LoadJob, watchJob } from "./job.ts";
import { listRows } from "./listing.ts";
import type { CallOptions, MasterCallOptions, MasterCalls } from "./master-calls.ts";
import { Membership } from "./membership.ts";
import { MetadataCache } from "./metadata-cache.ts";
import { type ReadOptions, readFields, told } from "./read-options.ts";
import { Session } from "./session.ts";
import { type WatchOptions, watchChanges } from "./watch.ts";
import { chooseWorkers } from "./worker-choice.ts";
import { WorkerHealth } from "./worker-health.ts";
import { type WriteBody, writeFile } from "./writer.ts";

// What a program needs to name what it gets: this file is the package's entry.
export { HeadpondError, isHeadpondError } from "../base/errors.ts";
export type { FileDescriptor, FileStatus, MountInfo } from "../base/file.ts";
export type { ConnectOptions } from "./connect-parts.ts";
export type { HeadpondFile } from "./file.ts";
export type { LoadJob } from "./job.ts";
export type { ReadOptions } from "./read-options.ts";
export type { WatchOptions } from "./watch.ts";
export type { WriteBody } from "./writer.ts";
export type { CallOptions };

const methods = masterService.methods;

export type ChangeOptions = CallOptions & {
  /** Unique in the cluster; a retry with it, also by another process, is applied once and gets the first result. */
  readonly requestId?: string;
};
export type ListOptions = ReadOptions & {
  readonly recursive?: boolean;
  /** Children whose names come after this one (UTF-8 order). */
  readonly afterName?: string;
  readonly limit?: number;
};
export type CreateOptions = ChangeOptions & {
  readonly exclusive?: boolean;
  readonly recursive?: boolean;
  readonly mode?: number;
  readonly attributes?: Attributes;
};
export type MakeDirectoryOptions = Omit<CreateOptions, "exclusive">;
export type AttributeChanges = {
  readonly set?: Attributes;
  readonly remove?: readonly string[];
  readonly mode?: number;
  readonly owner?: string;
  readonly group?: string;
  readonly modifiedMs?: number;
};
export type WriteOptions = ChangeOptions & {
  /** Of a body that comes in pieces; a body of another length is refused. */
  readonly sizeBytes?: number;
  /** Fail with `already-exists` if there is such a file. */
  readonly exclusive?: boolean;
  /** Make missing parents; default true. */
  readonly recursive?: boolean;
};
export type LoadOptions = ChangeOptions & {
  /** `all`, a number of workers, or a place selector such as `zone=a`. Default `all`. */
  readonly to?: string;
  readonly priority?: number;
  readonly pin?: boolean;
};

/** Nothing is sent before the first call. Throws `invalid` or `unsupported` when the options cannot be followed. */
export function connect(options: ConnectOptions): HeadpondClient {
  return new HeadpondClient(connectParts(options));
}

export class HeadpondClient implements AsyncDisposable {
  readonly #masters: MasterCalls;
  readonly #parts: ClientParts;
  readonly #session: Session;
  readonly #health: WorkerHealth;
  readonly #lastAnswers: MetadataCache | undefined;
  /** As last told by a master. */
  #workers: WorkerList = { version: 0, workers: [] };

  constructor(parts: ClientParts) {
    this.#parts = parts;
    this.#masters = parts.masters;
    this.#session = new Session({ ...parts, clientName: parts.clientName ?? "headpond-sdk" });
    this.#health = new WorkerHealth(parts);
    if (parts.staleOnUnavailable === true) this.#lastAnswers = new MetadataCache(parts);
  }

  // Mounts.

  mount(
    path: string,
    uri: string,
    options: ChangeOptions & { readonly readOnly?: boolean; readonly options?: Readonly<Record<string, string>> } = {},
  ): Promise<MountInfo> {
    const { readOnly, options: storeOptions } = options;
    return this.#session.change(
      methods.mount,
      { path, uri, ...defined({ readOnly, options: storeOptions }), ...requested(options) },
      options,
    );
  }

  async unmount(path: string, options: ChangeOptions = {}): Promise<void> {
    await this.#session.change(methods.unmount, { path, ...requested(options) }, options);
  }

  async mounts(options: ReadOptions = {}): Promise<readonly MountInfo[]> {
    return told(await this.#read(methods.mounts, readFields(options), options), options).mounts;
  }

  // The namespace.

  /** An empty file, or (without `exclusive`) the one that is there. */
  create(path: string, options: CreateOptions = {}): Promise<ReplyOf<typeof methods.create>> {
    const { exclusive, recursive, mode, attributes } = options;
    const fields = defined({ exclusive, recursive, mode, attributes });
    return this.#session.change(methods.create, { path, ...fields, ...requested(options) }, options);
  }

  stat(path: string, options: ReadOptions = {}): Promise<FileStatus> {
    const request = { path, ...readFields(options) };
    const ask = (): Promise<FileStatus> =>
      this.#read(methods.stat, request, options).then((reply) => told(reply, options).status);
    return this.#lastAnswers === undefined ? ask() : this.#lastAnswers.answer(`stat ${path}`, ask);
  }

  /** Children in the order of their names, or the whole tree, depth first. */
  async *list(path: string, options: ListOptions = {}): AsyncGenerator<FileStatus, void, undefined> {
    const { recursive, afterName, limit } = options;
    const request = { path, ...defined({ recursive, afterName, limit }), ...readFields(options) };
    yield* listRows(this.#masters, request, options);
  }

  mkdir(path: string, options: MakeDirectoryOptions = {}): Promise<InodeRef> {
    const { recursive, mode, attributes } = options;
    const fields = defined({ recursive, mode, attributes });
    return this.#session.change(methods.mkdir, { path, ...fields, ...requested(options) }, options);
  }

  async remove(path: string, options: ChangeOptions & { readonly recursive?: boolean } = {}): Promise<void> {
    const fields = defined({ recursive: options.recursive });
    await this.#session.change(methods.remove, { path, ...fields, ...requested(options) }, options);
  }

  /** Replaces a file at `to` unless `replace` is false. */
  rename(from: string, to: string, options: ChangeOptions & { readonly replace?: boolean } = {}): Promise<InodeRef> {
    const fields = defined({ replace: options.replace });
    return this.#session.change(methods.rename, { from, to, ...fields, ...requested(options) }, options);
  }

  /** With `ifVersion`: only if the inode's version is this one, else `version-mismatch`. */
  setAttributes(
    path: string,
    changes: AttributeChanges,
    options: ChangeOptions & { readonly ifVersion?: number } = {},
  ): Promise<InodeRef> {
    const { set, remove, mode, owner, group, modifiedMs } = changes;
    const fields = defined({ set, mode, owner, group, modifiedMs, ifVersion: options.ifVersion });
    const removed = remove === undefined ? {} : { remove: [...remove] };
    return this.#session.change(methods.setAttributes, { path, ...fields, ...removed, ...requested(options) }, options);
  }

  /** Pinned bytes are not evicted. */
  pin(path: string, pinned = true, options: ChangeOptions = {}): Promise<InodeRef> {
    return this.#session.change(methods.pin, { path, pinned, ...requested(options) }, options);
  }

  /** After `ttlMs` the cached bytes are freed (default), or the file is deleted. `undefined` takes the TTL away. */
  ttl(
    path: string,
    ttlMs: number | undefined,
    options: ChangeOptions & { readonly action?: TtlAction } = {},
  ): Promise<InodeRef> {
    const fields = defined({ ttlMs, action: options.action });
    return this.#session.change(methods.ttl, { path, ...fields, ...requested(options) }, options);
  }

  replicas(
    path: string,
    bounds: { readonly min: number; readonly max: number },
    options: ChangeOptions = {},
  ): Promise<InodeRef> {
    const { min, max } = bounds;
    return this.#session.change(methods.replicas, { path, min, max, ...requested(options) }, options);
  }

  // Bytes.

  /** The present content of a file. It stays readable through this object when the path gets another one. */
  async open(path: string, options: ReadOptions = {}): Promise<HeadpondFile> {
    const request = { path, ...readFields(options) };
    const { file, holders, workers } = await this.#lastKnown(`open ${path}`, async () =>
      told(await this.#read(methods.open, request, options), options),
    );
    this.#workers = workers;
    return this.#file(file, { holders, workers: workers.workers });
  }

  /** A content that is known already, e.g. from a `revision`. No master is asked as long as a worker can serve it. */
  openVersion(file: FileDescriptor): HeadpondFile {
    return this.#file(file, { holders: [], workers: this.#workers.workers });
  }

  /** Which live workers hold anything of this content. `not-found` when the masters do not know it any more. */
  async holders(id: FileVersionId, options: CallOptions = {}): Promise<readonly WorkerId[]> {
    const reply = await this.#lastKnown(`describe ${id}`, () => this.#read(methods.describe, { id }, options));
    return reply.holders;
  }

  /** Writes a file through to the under store that is mounted there. */
  write(path: string, body: WriteBody, options: WriteOptions = {}): Promise<InodeRef> {
    const { sizeBytes, exclusive, recursive, requestId } = options;
    return writeFile(
      {
        session: this.#session,
        dataPort: this.#parts.dataPort,
        workers: (id, signal) => this.#workersFor(id, signal),
        failed: (worker) => this.#health.failed(worker),
        abandon: (inodeId, contentVersion) => this.#abandon(inodeId, contentVersion),
      },
      { path, body, sizeBytes, exclusive, recursive, requestId, call: options },
    );
  }

  async location(path: string, options: ReadOptions = {}): Promise<ReplyOf<typeof methods.location>> {
    return told(await this.#read(methods.location, { path, ...readFields(options) }, options), options);
  }

  async workers(options: CallOptions = {}): Promise<WorkerList> {
    this.#workers = await this.#read(methods.workers, {}, options);
    return this.#workers;
  }

  // Jobs and models.

  planLoad(path: string, options: LoadOptions = {}): Promise<LoadPlan> {
    const { to = "all", priority, pin } = options;
    return this.#read(methods.planLoad, { path, to, ...defined({ priority, pin }) }, options);
  }

  /** Starts to bring a tree onto workers; `job.progress()` tells how it goes. */
  async load(path: string, options: LoadOptions = {}): Promise<LoadJob> {
    const { to = "all", priority, pin } = options;
    const fields = defined({ priority, pin });
    const reply = await this.#session.change(methods.load, { path, to, ...fields, ...requested(options) }, options);
    return new LoadJob(this.#masters, reply.job, reply.plan);
  }

  /** Drops the cached bytes of a tree from all workers, pinned ones excepted. */
  free(path: string, options: CallOptions = {}): Promise<ReplyOf<typeof methods.free>> {
    // Freed twice is freed once.
    return this.#masters.call(methods.free, { path }, { ...options, retryUnknown: true });
  }

  /** The newest first. */
  async jobs(options: CallOptions & { readonly limit?: number } = {}): Promise<readonly JobStatus[]> {
    return (await this.#read(methods.jobs, defined({ limit: options.limit }), options)).jobs;
  }

  job(id: JobId, options: CallOptions = {}): Promise<JobStatus> {
    return this.#read(methods.job, { id }, options);
  }

  watchJob(
    id: JobId,
    options: { readonly intervalMs?: number; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<JobStatus> {
    return watchJob(this.#masters, id, options);
  }

  cancelJob(id: JobId, options: CallOptions = {}): Promise<JobStatus> {
    return this.#masters.call(methods.cancelJob, { id }, options);
  }

  retryJob(id: JobId, options: CallOptions = {}): Promise<JobStatus> {
    return this.#masters.call(methods.retryJob, { id }, options);
  }

  /** Empties a worker without losing what is whole on it only; asking again tells how far that is. `cancel`: it is filled again. */
  drain(worker: string, options: CallOptions & { readonly cancel?: boolean } = {}): Promise<DrainStatus> {
    const { cancel } = options;
    return this.#masters.call(
      methods.drain,
      { worker: worker as WorkerId, ...defined({ cancel }) },
      { ...options, retryUnknown: true },
    );
  }

  async drains(options: CallOptions = {}): Promise<readonly DrainStatus[]> {
    return (await this.#read(methods.drains, {}, options)).drains;
  }

  async models(
    options: CallOptions & { readonly path?: string; readonly limit?: number } = {},
  ): Promise<readonly ModelStatus[]> {
    const { path, limit } = options;
    return this.#lastKnown(
      `models ${path ?? ""} ${limit ?? ""}`,
      async () => (await this.#read(methods.models, defined({ path, limit }), options)).models,
      (models) => models.length,
    );
  }

  /** The files of a tree now (`main`), or at a commit that is still known; else `not-found`. */
  async revision(path: string, revision = "main", options: CallOptions = {}): Promise<Revision> {
    return this.#lastKnown(
      `revision ${revision} ${path}`,
      () => this.#read(methods.revision, { path, revision }, options),
      (answer) => answer.files.length,
    );
  }

  // Changes, and the cluster.

  /**
   * Changes below `path` from `fromIndex` on; without it from now. Goes on by index when a master fails. `compacted` when the
   * changes are not kept any more.
   */
  watch(path: string, options: WatchOptions = {}): AsyncGenerator<ChangeEvent, void, undefined> {
    return watchChanges(this.#parts, path, options);
  }

  /** Brings the namespace below `path` up to date with its under store; the last item says what was done. */
  sync(path: string, options: CallOptions & { readonly recursive?: boolean } = {}): AsyncIterable<SyncProgress> {
    return this.#masters.openStream(methods.sync, { path, ...defined({ recursive: options.recursive }) }, options);
  }

  cluster(options: CallOptions = {}): Promise<ClusterStatus> {
    return this.#read(methods.clusterStatus, {}, options);
  }

  /** The masters, and what operators do with them. */
  get membership(): Membership {
    return new Membership(this.#masters);
  }

  serverInfo(options: CallOptions = {}): Promise<ReplyOf<typeof methods.serverInfo>> {
    return this.#read(methods.serverInfo, {}, options);
  }

  journalStatus(options: CallOptions = {}): Promise<ReplyOf<typeof methods.journalStatus>> {
    return this.#read(methods.journalStatus, {}, options);
  }

  journalCheckpoint(options: CallOptions = {}): Promise<ReplyOf<typeof methods.journalCheckpoint>> {
    // Once more makes one more checkpoint, and does no harm.
    return this.#masters.call(methods.journalCheckpoint, {}, { ...options, retryUnknown: true, isLong: true });
  }

  journalVerify(options: CallOptions = {}): Promise<ReplyOf<typeof methods.journalVerify>> {
    return this.#masters.call(methods.journalVerify, {}, { ...options, readOnly: true, isLong: true });
  }

  /** A backup of the journal in pieces (`journal/backup.ts` keeps it); from a master of one's choice. */
  journalBackup(
    request: RequestOf<typeof methods.journalBackup>,
    options: CallOptions & Pick<ReadOptions, "from"> = {},
  ): AsyncIterable<BackupItem> {
    return this.#masters.openStream(methods.journalBackup, request, options);
  }

  /** Ends the session and all connections. */
  async close(): Promise<void> {
    await this.#session.close();
    await Promise.all([this.#parts.dataPort.close(), this.#masters.close()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #read<Request, Reply>(
    method: Method<Request, Reply>,
    request: NoInfer<Request>,
    options: ReadOptions,
  ): Promise<Reply> {
    const { signal, timeoutMs, from } = options;
    const isPlain = signal === undefined && timeoutMs === undefined && from === undefined;
    const callOptions = isPlain ? readOnly : { ...defined({ signal, timeoutMs, from }), readOnly: true };
    return this.#masters.call(method, request, callOptions);
  }

  #file(file: FileDescriptor, whereabouts: Whereabouts): HeadpondFile {
    const { dataPort, clock, place, preferredWorker } = this.#parts;
    const source = new FileSource({
      file,
      whereabouts,
      locate: (signal) => this.#locate(file.id, signal),
      gone: () => this.#lookAgain(file.path),
      dataPort,
      health: this.#health,
      clock,
      place,
      preferred: preferredWorker,
    });
    return new HeadpondFile(source);
  }

  /** The under store has other bytes than the masters know of: they look at it now, and not in some minutes. */
  async #lookAgain(path: string): Promise<void> {
    const signal = AbortSignal.timeout(locateTimeoutMs);
    try {
      for await (const _ of this.sync(path, { timeoutMs: locateTimeoutMs, signal }));
    } catch (error) {
      this.#parts.logger.debug("the masters could not look at a changed file again", { path, error });
    }
  }

  async #locate(id: FileVersionId, signal: AbortSignal | undefined): Promise<Whereabouts> {
    const options = { timeoutMs: locateTimeoutMs, ...defined({ signal }) };
    const [{ holders }, { workers }] = await Promise.all([
      this.#read(methods.describe, { id }, options),
      this.workers(options),
    ]);
    return { holders, workers };
  }

  async #workersFor(file: FileVersionId, signal: AbortSignal | undefined): Promise<readonly WorkerAddress[]> {
    const { workers } = await this.workers(defined({ signal }));
    return chooseWorkers({
      file,
      holders: [],
      workers,
      place: this.#parts.place,
      preferred: this.#parts.preferredWorker?.id,
      isAvoided: (worker) => this.#health.isAvoided(worker),
    });
  }

  /** An intent that is left open is given up by the masters in time. */
  async #abandon(inodeId: InodeId, contentVersion: number): Promise<void> {
    const options = { timeoutMs: locateTimeoutMs, retryUnknown: true };
    try {
      await this.#masters.call(methods.abandon, { inodeId, contentVersion }, options);
    } catch (error) {
      this.#parts.logger.debug("a write that failed could not be given up", { inodeId, contentVersion, error });
    }
  }

  #lastKnown<T>(key: string, ask: () => Promise<T>, weigh?: (value: T) => number): Promise<T> {
    return this.#lastAnswers === undefined ? ask() : this.#lastAnswers.answer(key, ask, weigh);
  }
}

const readOnly: MasterCallOptions = Object.freeze({ readOnly: true });

/** For questions on the way of something else, which goes on without the answer. */
const locateTimeoutMs = 3000;

type Defined<T> = { [Key in keyof T]?: Exclude<T[Key], undefined> };

/** Without the fields that are `undefined`: a message has no such thing. */
function defined<T extends Record<string, unknown>>(fields: T): Defined<T> {
  const result: Record<string, unknown> = {};
  for (const name in fields) {
    const value = fields[name];
    if (value !== undefined) result[name] = value;
  }
  return result as Defined<T>;
}

function requested(options: ChangeOptions): { requestId?: string } {
  return options.requestId === undefined ? {} : { requestId: options.requestId };
}
