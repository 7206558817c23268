/** Which content a path has now, and who holds it: for readers, gateways and workers. */

import type { WorkerList } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { FileVersionId, WorkerId } from "../base/ids.ts";
import { type Path, parsePath } from "../base/path.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { ReplyOf, RequestOf } from "../rpc/method.ts";
import type { RequestContext } from "../rpc/server.ts";
import { type BlockMap, coverageBytes } from "./block-map.ts";
import type { Core } from "./core.ts";
import type { Revisions } from "./revisions.ts";
import type { TreeFiles } from "./tree-files.ts";
import type { WorkerRegistry } from "./worker-registry.ts";

type Request<K extends keyof MasterMethods> = RequestOf<MasterMethods[K]>;
type Reply<K extends keyof MasterMethods> = ReplyOf<MasterMethods[K]>;

/** Holders named in one answer: more are no use to a reader. */
const holdersMax = 64;
const filesMax = 200_000;

export type DataServiceDependencies = {
  readonly core: Core;
  readonly files: TreeFiles;
  readonly revisions: Revisions;
  readonly blockMap: BlockMap;
  readonly registry: WorkerRegistry;
  readonly free: (byWorker: ReadonlyMap<WorkerId, readonly FileVersionId[]>) => void;
  readonly pin: (byWorker: ReadonlyMap<WorkerId, readonly FileVersionId[]>, pinned: boolean) => void;
};

export class DataService {
  readonly #deps: DataServiceDependencies;

  constructor(dependencies: DataServiceDependencies) {
    this.#deps = dependencies;
  }

  async open(request: Request<"open">): Promise<Reply<"open">> {
    const { core } = this.#deps;
    const path = parsePath(request.path);
    await core.barrier(request);
    const read = core.readInfo(request);
    const relaxed = read !== undefined;
    const status = relaxed ? core.namespace.stat(path) : await core.statFresh(path);
    if (status.kind === "directory") throw new HeadpondError("is-a-directory", `${path} is a directory`);
    const file = this.#deps.files.describe(status);
    if (file === undefined)
      throw new HeadpondError("unavailable", `${path} is being written: it can be read when it is complete`);
    const reply = { file, holders: this.#holders(file), workers: this.#workers() };
    return read === undefined ? reply : { ...reply, read };
  }

  async describe(request: Request<"describe">): Promise<Reply<"describe">> {
    await this.#deps.core.barrier(request);
    const read = this.#deps.core.readInfo(request);
    const [inodeText, versionText] = request.id.split("-");
    const current = this.#deps.files.current(Number(inodeText) as never, Number(versionText));
    const file = current ?? this.#deps.core.namespace.describe(request.id);
    const reply = { file, holders: this.#holders(file) };
    return read === undefined ? reply : { ...reply, read };
  }

  async location(request: Request<"location">): Promise<Reply<"location">> {
    const { file, read } = await this.open(request);
    const holders: Reply<"location">["holders"] = [];
    this.#deps.blockMap.forEachHolder(file.inodeId, file.contentVersion, (id, coverage) => {
      const worker = this.#deps.registry.get(id);
      if (worker === undefined) return;
      holders.push({
        worker: worker.address,
        blocks: coverage.blocks,
        bytes: coverageBytes(coverage, file.sizeBytes, file.blockSizeBytes),
        complete: coverage.complete,
      });
    });
    return { file, holders, ...(read === undefined ? {} : { read }) };
  }

  workers(): Reply<"workers"> {
    return this.#workers();
  }

  async revision(request: Request<"revision">, context: RequestContext): Promise<Reply<"revision">> {
    const { core, revisions } = this.#deps;
    // It looks at stores, and records what it found.
    core.requireLeader();
    await core.barrier({});
    return revisions.find(parsePath(request.path), request.revision, context.signal);
  }

  /** Drops what the workers hold of all files at or below a path, save what is pinned. */
  async free(request: Request<"free">, context: RequestContext): Promise<Reply<"free">> {
    const { core, files, blockMap } = this.#deps;
    core.requireLeader();
    const path = parsePath(request.path);
    const all = await files.known(path, filesMax, context.signal);
    const orders = new Map<WorkerId, FileVersionId[]>();
    const reply = { files: 0, bytes: 0, skippedPinned: 0 };
    for (const file of all) {
      let bytes = 0;
      let isHeld = false;
      blockMap.forEachHolder(file.inodeId, file.contentVersion, (id, coverage) => {
        isHeld = true;
        if (file.pinned) return;
        bytes += coverageBytes(coverage, file.sizeBytes, file.blockSizeBytes);
        addTo(orders, id, file.id);
      });
      if (!isHeld) continue;
      if (file.pinned) {
        reply.skippedPinned++;
        continue;
      }
      reply.files++;
      reply.bytes += bytes;
    }
    this.#deps.free(orders);
    return reply;
  }

  /** Frees the cached bytes of one path, after its TTL. */
  async freePath(path: Path, signal: AbortSignal): Promise<void> {
    await this.free({ path }, { signal } as RequestContext);
  }

  /** Tells the holders of what is at or below a path that it is pinned, or is not any more. */
  async pinned(path: Path, pinned: boolean, signal: AbortSignal): Promise<void> {
    const orders = new Map<WorkerId, FileVersionId[]>();
    for (const file of await this.#deps.files.known(path, filesMax, signal)) {
      // What is below another pinned directory stays pinned.
      if (file.pinned !== pinned) continue;
      for (const id of this.#deps.blockMap.holders(file.inodeId, file.contentVersion)) addTo(orders, id, file.id);
    }
    this.#deps.pin(orders, pinned);
  }

  #holders(file: FileDescriptor): WorkerId[] {
    return this.#deps.blockMap.holders(file.inodeId, file.contentVersion).slice(0, holdersMax);
  }

  /** Only a leader's list has a version that workers accept. */
  #workers(): WorkerList {
    const { list } = this.#deps.registry;
    return this.#deps.core.leads ? list : { ...list, version: 0 };
  }
}

function addTo(orders: Map<WorkerId, FileVersionId[]>, id: WorkerId, version: FileVersionId): void {
  const versions = orders.get(id);
  if (versions === undefined) orders.set(id, [version]);
  else versions.push(version);
}
