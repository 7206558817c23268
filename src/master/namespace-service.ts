/**
 * Changes and reads of the namespace over RPC. A change: its form is checked, what the under store has at its path is looked
 * up, the leader's time is stamped, it is proposed, and (under a mount) its intent is driven before the answer. `create` and
 * `stat` outside mounts are the hot paths: no await before the proposal, no object that is not needed.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { FileStatus } from "../base/file.ts";
import { type Path, parsePath } from "../base/path.ts";
import type { CommandResults, Create, InodeDone, Origin } from "../namespace/command.ts";
import type { InodeRef, MasterMethods, ReadOptions } from "../rpc/master-service.ts";
import type { ItemOf, ReplyOf, RequestOf } from "../rpc/method.ts";
import type { RequestContext } from "../rpc/server.ts";
import type { BlockMap } from "./block-map.ts";
import { type Core, stampOf } from "./core.ts";

type Request<K extends keyof MasterMethods> = RequestOf<MasterMethods[K]>;
type Reply<K extends keyof MasterMethods> = ReplyOf<MasterMethods[K]>;

/** Its last fields are set when it has them. */
type CreateUnderWay = Omit<Create, "origin" | "requestId"> & { origin?: Origin; requestId?: string };

const listPageRows = 500;
/** Of new inodes, when a request does not say. */
const fileMode = 0o644;
const directoryMode = 0o755;
const noAttributes = Object.freeze({});
const defaultOwner = "root";

export type NamespaceServiceDependencies = {
  readonly core: Core;
  readonly blockMap: BlockMap;
  readonly blockSizeBytes: number;
  /** After inodes have gone or were pinned: workers are told. */
  readonly onPinned: (path: Path, pinned: boolean) => void;
  readonly onRemoved: () => void;
};

export class NamespaceService {
  readonly #core: Core;
  readonly #blockMap: BlockMap;
  readonly #blockSizeBytes: number;
  readonly #onPinned: (path: Path, pinned: boolean) => void;
  readonly #onRemoved: () => void;

  constructor(dependencies: NamespaceServiceDependencies) {
    this.#core = dependencies.core;
    this.#blockMap = dependencies.blockMap;
    this.#blockSizeBytes = dependencies.blockSizeBytes;
    this.#onPinned = dependencies.onPinned;
    this.#onRemoved = dependencies.onRemoved;
  }

  create(request: Request<"create">, context: RequestContext): Promise<Reply<"create">> {
    const core = this.#core;
    core.requireLeader();
    const path = parsePath(request.path);
    const wait = core.mountCount === 0 ? core.backPressure() : (core.beforeChange(path) ?? core.backPressure());
    if (wait !== undefined || core.mountCount > 0) return this.#createSlowly(request, path, wait, context);
    return core.proposer.proposeWith(this.#createCommand(request, path), createdReply);
  }

  async complete(request: Request<"complete">): Promise<Reply<"complete">> {
    const { inodeId, contentVersion, sizeBytes, etag, modifiedMs, digest } = request;
    const { proposer } = this.#leading();
    const done = await proposer.propose({
      kind: "complete",
      inodeId,
      contentVersion,
      sizeBytes,
      etag,
      modifiedMs,
      ...(digest === undefined ? {} : { digest }),
      ...stampOf(request, proposer.nowMs()),
    });
    return { inodeId, version: done.version, contentVersion };
  }

  /** A writer whose bytes did not get anywhere gives its intent up, so that nobody has to wait until it is old. */
  async abandon(request: Request<"abandon">): Promise<Reply<"abandon">> {
    const { namespace, proposer } = this.#leading();
    const { inodeId, contentVersion } = request;
    const intent = namespace
      .openIntents()
      .find((open) => open.kind === "create" && open.inodeId === inodeId && open.contentVersion === contentVersion);
    if (intent === undefined) return {};
    const error = new HeadpondError("cancelled", `the writer of ${intent.path} gave up`).toJSON();
    const timeMs = proposer.nowMs();
    try {
      await proposer.propose({ kind: "finish-intent", intentId: intent.id, outcome: "undone", error, timeMs });
    } catch (ended) {
      if (!isHeadpondError(ended, "not-found")) throw ended;
    }
    return {};
  }

  async mkdir(request: Request<"mkdir">, context: RequestContext): Promise<InodeRef> {
    const core = this.#leading();
    const path = parsePath(request.path);
    await (core.beforeChange(path) ?? core.backPressure());
    const recursive = request.recursive ?? false;
    const done = await core.proposer.propose({
      kind: "mkdir",
      path,
      recursive,
      exclusive: !recursive,
      mode: request.mode ?? directoryMode,
      owner: defaultOwner,
      group: defaultOwner,
      attributes: request.attributes ?? noAttributes,
      ...stampOf(request, core.proposer.nowMs()),
    });
    if (done.intentId === undefined) return { inodeId: done.inodeId, version: done.version, contentVersion: 0 };
    await core.intents.settle(done.intentId, context.remainingMs());
    core.sync.nameMade(path);
    return refOf(core.namespace.stat(path));
  }

  async remove(request: Request<"remove">, context: RequestContext): Promise<Reply<"remove">> {
    const core = this.#leading();
    const path = parsePath(request.path);
    const status = core.namespace.find(path);
    const mount = core.mountOf(path);
    if (mount !== undefined) {
      await core.sync.beforeRead(path, mount, status);
      // Whether a directory is empty is only known once it was listed.
      if (request.recursive !== true && core.namespace.find(path)?.kind === "directory") {
        await core.sync.beforeList(path, mount);
      }
    }
    const done = await core.proposer.propose({
      kind: "remove",
      path,
      recursive: request.recursive ?? false,
      ...stampOf(request, core.proposer.nowMs()),
    });
    if (done.intentId !== undefined) await core.intents.settle(done.intentId, context.remainingMs());
    this.#onRemoved();
    return {};
  }

  async rename(request: Request<"rename">, context: RequestContext): Promise<InodeRef> {
    const core = this.#leading();
    const from = parsePath(request.from);
    const to = parsePath(request.to);
    await core.beforeChange(from);
    await core.beforeChange(to);
    const done = await core.proposer.propose({
      kind: "rename",
      from,
      to,
      replace: request.replace ?? true,
      ...stampOf(request, core.proposer.nowMs()),
    });
    if (done.intentId !== undefined) await core.intents.settle(done.intentId, context.remainingMs());
    core.sync.nameMade(to);
    return this.#refOf(done);
  }

  async setAttributes(request: Request<"setAttributes">): Promise<InodeRef> {
    const core = this.#leading();
    const path = parsePath(request.path);
    await core.beforeChange(path);
    const { mode, owner, group, modifiedMs, ifVersion } = request;
    const done = await core.proposer.propose({
      kind: "set-attributes",
      path,
      set: request.set ?? noAttributes,
      remove: request.remove ?? [],
      ...(mode === undefined ? {} : { mode }),
      ...(owner === undefined ? {} : { owner }),
      ...(group === undefined ? {} : { group }),
      ...(modifiedMs === undefined ? {} : { modifiedMs }),
      ...(ifVersion === undefined ? {} : { ifVersion }),
      ...stampOf(request, core.proposer.nowMs()),
    });
    return this.#refOf(done);
  }

  async pin(request: Request<"pin">): Promise<InodeRef> {
    const core = this.#leading();
    const path = parsePath(request.path);
    await core.beforeChange(path);
    const { pinned } = request;
    const done = await core.proposer.propose({ kind: "pin", path, pinned, ...stampOf(request, core.proposer.nowMs()) });
    this.#onPinned(path, pinned);
    return this.#refOf(done);
  }

  async ttl(request: Request<"ttl">): Promise<InodeRef> {
    const core = this.#leading();
    const path = parsePath(request.path);
    await core.beforeChange(path);
    const done = await core.proposer.propose({
      kind: "ttl",
      path,
      ttlMs: request.ttlMs ?? null,
      action: request.action ?? "free",
      ...stampOf(request, core.proposer.nowMs()),
    });
    return this.#refOf(done);
  }

  async replicas(request: Request<"replicas">): Promise<InodeRef> {
    const core = this.#leading();
    const path = parsePath(request.path);
    await core.beforeChange(path);
    const { min, max } = request;
    if (min > max) throw new HeadpondError("invalid", `${path}: at least ${min} replicas are more than at most ${max}`);
    const done = await core.proposer.propose({
      kind: "replicas",
      path,
      min,
      max,
      ...stampOf(request, core.proposer.nowMs()),
    });
    return this.#refOf(done);
  }

  stat(request: Request<"stat">): Reply<"stat"> | Promise<Reply<"stat">> {
    const core = this.#core;
    const path = parsePath(request.path);
    const barrier = core.barrier(request);
    if (barrier !== undefined) return barrier.then(() => this.#statNow(path, request));
    return this.#statNow(path, request);
  }

  async *list(request: Request<"list">, context: RequestContext): AsyncGenerator<ListPage> {
    const core = this.#core;
    const path = parsePath(request.path);
    await core.barrier(request);
    let left = request.limit ?? Number.POSITIVE_INFINITY;
    const relaxed = isRelaxed(request);
    const status = relaxed ? core.namespace.stat(path) : await core.statFresh(path);
    const read = core.readInfo(request);
    if (read !== undefined) yield { entries: [], read };
    if (status.kind === "file") {
      yield { entries: [this.#withCached(status)] };
      return;
    }
    let afterName = request.afterName;
    if (request.recursive === true) {
      if (!relaxed) await this.#syncTree(path, context.signal);
      yield* this.#listTree(path, left, context.signal);
      return;
    }
    if (!relaxed) await this.#syncDirectory(path, context.signal);
    while (left > 0) {
      const limit = Math.min(left, listPageRows);
      const rows = core.namespace.list(path, { limit, ...(afterName === undefined ? {} : { afterName }) });
      const last = rows.at(-1);
      if (last === undefined) return;
      yield { entries: rows.map((row) => this.#withCached(row)) };
      if (rows.length < limit) return;
      left -= rows.length;
      afterName = last.path.slice(last.path.lastIndexOf("/") + 1);
    }
  }

  async mounts(request: Request<"mounts">): Promise<Reply<"mounts">> {
    await this.#core.barrier(request);
    const read = this.#core.readInfo(request);
    return { mounts: this.#core.namespace.mounts(), ...(read === undefined ? {} : { read }) };
  }

  async *sync(
    request: Request<"sync">,
    context: RequestContext,
  ): AsyncIterable<{
    directories: number;
    files: number;
    added: number;
    changed: number;
    removed: number;
    skipped: number;
    done: boolean;
  }> {
    const core = this.#leading();
    const path = parsePath(request.path);
    const mount = core.mountOf(path);
    if (mount !== undefined) {
      yield* core.sync.sync(path, mount, request.recursive ?? false, context.signal);
      return;
    }
    // Of a directory outside mounts: all mounts below it.
    core.namespace.stat(path);
    const below = core.mounts().filter((each) => path === "/" || each.path.startsWith(`${path}/`));
    if (below.length === 0) {
      throw new HeadpondError(
        "no-mount",
        `${path} is under no mount, and no mount is below it: there is nothing to sync`,
      );
    }
    const sum = { directories: 0, files: 0, added: 0, changed: 0, removed: 0, skipped: 0 };
    for (const each of below) {
      let last = { ...sum, done: false };
      for await (const progress of core.sync.sync(each.path, each, request.recursive ?? false, context.signal)) {
        last = { ...addUp(sum, progress), done: false };
        yield last;
      }
      Object.assign(sum, last);
    }
    yield { ...pick(sum), done: true };
  }

  #leading(): Core {
    this.#core.requireLeader();
    return this.#core;
  }

  /** One object of one shape: the spread of a stamp into it made three quarters of a kilobyte of garbage a create. */
  #createCommand(request: Request<"create">, path: Path): Create {
    const { origin, requestId } = request;
    const command: CreateUnderWay = {
      kind: "create",
      timeMs: this.#core.proposer.nowMs(),
      path,
      exclusive: request.exclusive ?? false,
      recursive: request.recursive ?? false,
      forWriting: request.forWriting ?? false,
      mode: request.mode ?? fileMode,
      owner: defaultOwner,
      group: defaultOwner,
      attributes: request.attributes ?? noAttributes,
    };
    if (origin !== undefined) command.origin = origin;
    if (requestId !== undefined) command.requestId = requestId;
    return command;
  }

  async #createSlowly(
    request: Request<"create">,
    path: Path,
    wait: Promise<void> | undefined,
    context: RequestContext,
  ): Promise<Reply<"create">> {
    await wait;
    const core = this.#core;
    const done = await core.proposer.propose(this.#createCommand(request, path));
    core.sync.nameMade(path);
    const { mountId, key, intentId } = done;
    if (intentId === undefined || mountId === undefined || key === undefined || request.forWriting === true) {
      return createdReply(done);
    }
    // An empty file under a mount: nobody else will write it.
    const info = await this.#core.intents.writeEmpty(intentId, context.remainingMs());
    const completed = await core.proposer.propose({
      kind: "complete",
      inodeId: done.inodeId,
      contentVersion: done.contentVersion,
      sizeBytes: 0,
      etag: info.etag,
      modifiedMs: Math.floor(info.modifiedMs),
      timeMs: core.proposer.nowMs(),
    });
    return { ...createdReply(done), version: completed.version };
  }

  #statNow(path: Path, request: Request<"stat">): Reply<"stat"> | Promise<Reply<"stat">> {
    const core = this.#core;
    const status = core.namespace.find(path);
    const relaxed = isRelaxed(request);
    if (status !== undefined && (status.mount === undefined || relaxed)) return this.#statReply(status, request);
    if (relaxed) return this.#statReply(core.namespace.stat(path), request);
    const mount = status === undefined ? core.mountOf(path) : core.mountOfStatus(status);
    const wait = mount === undefined ? undefined : core.beforeRead(path, mount, status);
    if (wait !== undefined) return wait.then(() => this.#statReply(core.namespace.stat(path), request));
    return this.#statReply(status ?? core.namespace.stat(path), request);
  }

  #statReply(status: FileStatus, request: Request<"stat">): Reply<"stat"> {
    const read = this.#core.readInfo(request);
    const withCached = this.#withCached(status);
    return read === undefined ? { status: withCached } : { status: withCached, read };
  }

  #withCached(status: FileStatus): FileStatus {
    if (status.kind === "file" && status.sizeBytes > 0) {
      const { inodeId, contentVersion, sizeBytes } = status;
      status.cachedBytes = this.#blockMap.cachedBytes(inodeId, contentVersion, sizeBytes, this.#blockSizeBytes);
    }
    return status;
  }

  async *#listTree(path: Path, limit: number, signal: AbortSignal): AsyncGenerator<ListPage> {
    const core = this.#core;
    let left = limit;
    for (const page of core.namespace.walk(path, listPageRows)) {
      const rows = page.slice(0, left);
      yield { entries: rows.map((row) => this.#withCached(row)) };
      left -= rows.length;
      if (left <= 0) return;
      signal.throwIfAborted();
    }
  }

  async #syncDirectory(path: Path, signal: AbortSignal): Promise<void> {
    const mount = this.#core.mountOf(path);
    if (mount !== undefined) await this.#core.beforeList(path, mount, signal);
  }

  /** Directories that were never listed are, before their children are shown. Of trees with mounts only the leader knows. */
  async #syncTree(path: Path, signal: AbortSignal): Promise<void> {
    const core = this.#core;
    const mount = core.mountOf(path);
    const below = core.mounts().filter((each) => path === "/" || each.path.startsWith(`${path}/`));
    if (mount === undefined && below.length === 0) return;
    core.requireLeader();
    await this.#syncDirectory(path, signal);
    if (mount !== undefined) await core.sync.ensureTree(path, mount, signal);
    else for (const each of below) await core.sync.ensureTree(each.path, each, signal);
  }

  /**
   * With the version that the change itself made: others may have changed the inode since, and who was told their version could
   * undo their change with `ifVersion`. Only a change that waited for its under store made its last version later.
   */
  #refOf({ inodeId, version, intentId }: InodeDone): InodeRef {
    const status = this.#core.namespace.get(inodeId);
    const own = intentId === undefined ? version : (status?.version ?? version);
    return { inodeId, version: own, contentVersion: status?.contentVersion ?? 0 };
  }
}

type ListPage = ItemOf<MasterMethods["list"]>;

function isRelaxed({ consistency }: ReadOptions): boolean {
  return consistency !== undefined && consistency !== "linearizable";
}

function createdReply(done: CommandResults["create"]): Reply<"create"> {
  const { inodeId, version, contentVersion, created, mountId, key } = done;
  const reply: Reply<"create"> = { inodeId, version, contentVersion, created };
  if (mountId !== undefined && key !== undefined && done.intentId !== undefined) reply.target = { mountId, key };
  return reply;
}

function refOf({ inodeId, version, contentVersion }: FileStatus): InodeRef {
  return { inodeId, version, contentVersion };
}

type Sum = { directories: number; files: number; added: number; changed: number; removed: number; skipped: number };

function addUp(a: Sum, b: Sum): Sum {
  return {
    directories: a.directories + b.directories,
    files: a.files + b.files,
    added: a.added + b.added,
    changed: a.changed + b.changed,
    removed: a.removed + b.removed,
    skipped: a.skipped + b.skipped,
  };
}

function pick({ directories, files, added, changed, removed, skipped }: Sum): Sum {
  return { directories, files, added, changed, removed, skipped };
}
