/**
 * A cluster to test clients against, all in one process: a master that keeps names in a map, and workers that hold every
 * content in memory, behind the real RPC and HTTP servers. It has switches for what can go wrong. It is no model of the
 * real master's semantics beyond what clients of it need.
 */

import { createHash } from "node:crypto";
import type { Revision, WorkerAddress } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import type { FileDescriptor, FileStatus } from "../base/file.ts";
import {
  type FileVersionId,
  fileVersionId,
  type InodeId,
  type MountId,
  type SessionId,
  type WorkerId,
} from "../base/ids.ts";
import { type Path, parsePath } from "../base/path.ts";
import type { Place } from "../base/place.ts";
import { MiB } from "../base/units.ts";
import { silentLogger } from "../io/logger.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { masterService, type Origin } from "../rpc/master-service.ts";
import { type Handlers, RpcServer } from "../rpc/server.ts";
import { type FakeFile, FakeWorker } from "./fake-worker.ts";

type Inode = { readonly inodeId: InodeId; version: number; file: FakeFile | undefined; complete: boolean };

const clock = new NodeClock();
const network = new TcpNetwork();

export class FakeCluster {
  readonly workers: FakeWorker[] = [];
  /** By version: every content that there ever was. */
  readonly versions = new Map<FileVersionId, FakeFile>();
  /** Of every mutation that was applied, in order. */
  readonly origins: Origin[] = [];
  /** How many times each method was asked. */
  readonly asked = new Map<string, number>();
  masters: string[] = [];
  sessionLifeMs = 60_000;
  readonly sessions = new Set<SessionId>();
  /** Answers each mutation after it was applied; may throw or wait. */
  afterChange: (method: string, origin: Origin | undefined) => Promise<void> | void = () => {};
  readonly #inodes = new Map<Path, Inode>();
  readonly #commits = new Map<string, Revision>();
  readonly #blockSizeBytes: number;
  #server: RpcServer | undefined;
  #nextInode = 2;
  #nextSession = 1;

  private constructor(blockSizeBytes: number) {
    this.#blockSizeBytes = blockSizeBytes;
  }

  static async start(
    options: { readonly workers?: number; readonly blockSizeBytes?: number; readonly places?: readonly string[] } = {},
  ): Promise<FakeCluster> {
    const cluster = new FakeCluster(options.blockSizeBytes ?? 4 * MiB);
    await cluster.startMaster(0);
    for (let number = 1; number <= (options.workers ?? 1); number++) {
      const place = (options.places?.[number - 1] ?? `test/region/zone/host${number}`) as Place;
      cluster.workers.push(await FakeWorker.start({ id: `w${number}` as WorkerId, place, versions: cluster.versions }));
    }
    return cluster;
  }

  async startMaster(port: number): Promise<void> {
    const handlers = this.#handlers();
    this.#server = new RpcServer({
      service: masterService,
      handlers,
      self: { software: "test", role: "master", name: "m1" },
      clock,
      logger: silentLogger,
      limits: { closeGraceMs: 10 },
    }) as unknown as RpcServer;
    const address = await this.#server.listen(network, { host: "127.0.0.1", port });
    this.masters = [`${address.host}:${address.port}`];
  }

  async stopMaster(): Promise<void> {
    await this.#server?.close();
  }

  async close(): Promise<void> {
    await Promise.all([this.stopMaster(), ...this.workers.map((worker) => worker.close())]);
  }

  /** A new content at `path`, its parents made. */
  put(
    path: string,
    content: Uint8Array | string,
    options: { readonly sha256?: boolean; readonly etag?: string } = {},
  ): FakeFile {
    const parsed = parsePath(path);
    const bytes = typeof content === "string" ? Buffer.from(content) : content;
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const inode = this.#inode(parsed);
    const contentVersion = (inode.file?.descriptor.contentVersion ?? 0) + 1;
    const descriptor: FileDescriptor = {
      id: fileVersionId(inode.inodeId, contentVersion),
      inodeId: inode.inodeId,
      contentVersion,
      path: parsed,
      sizeBytes: bytes.length,
      blockSizeBytes: this.#blockSizeBytes,
      mountId: 1 as MountId,
      key: parsed.slice(1),
      etag: options.etag ?? `store-${sha256.slice(0, 16)}`,
      modifiedMs: 1_700_000_000_000 + contentVersion * 1000,
      pinned: false,
      ...(options.sha256 === true ? { digest: { algorithm: "sha256", value: sha256 } as const } : {}),
    };
    inode.file = { descriptor, bytes };
    inode.version++;
    inode.complete = true;
    this.versions.set(descriptor.id, inode.file);
    return inode.file;
  }

  /** A content whose bytes are made when they are read, e.g. a file of 60 GB. */
  putSized(path: string, sizeBytes: number): FileDescriptor {
    const { descriptor } = this.put(path, "");
    const inode = this.#inode(parsePath(path));
    const sized = { ...descriptor, sizeBytes };
    inode.file = { descriptor: sized, bytes: new Uint8Array(0) };
    this.versions.set(sized.id, inode.file);
    return sized;
  }

  remove(path: string): void {
    const parsed = parsePath(path);
    for (const other of [...this.#inodes.keys()]) {
      if (other === parsed || other.startsWith(`${parsed}/`)) this.#inodes.delete(other);
    }
  }

  get addresses(): readonly WorkerAddress[] {
    return this.workers.map((worker) => worker.address);
  }

  #inode(path: Path): Inode {
    let inode = this.#inodes.get(path);
    if (inode === undefined) {
      inode = { inodeId: this.#nextInode++ as InodeId, version: 0, file: undefined, complete: true };
      this.#inodes.set(path, inode);
    }
    return inode;
  }

  #isDirectory(path: Path): boolean {
    if (path === "/") return true;
    const inode = this.#inodes.get(path);
    if (inode !== undefined) return inode.file === undefined && inode.complete;
    return [...this.#inodes.keys()].some((other) => other.startsWith(`${path}/`));
  }

  #file(text: string): FakeFile {
    const path = parsePath(text);
    const file = this.#inodes.get(path)?.file;
    if (file !== undefined) return file;
    if (this.#isDirectory(path)) throw new HeadpondError("is-a-directory", `${path} is a directory`);
    throw new HeadpondError("not-found", `${path} does not exist`);
  }

  #status(path: Path): FileStatus {
    const inode = this.#inodes.get(path);
    const descriptor = inode?.file?.descriptor;
    if (descriptor === undefined && !this.#isDirectory(path)) {
      throw new HeadpondError("not-found", `${path} does not exist`);
    }
    return {
      path,
      kind: descriptor === undefined ? "directory" : "file",
      inodeId: inode?.inodeId ?? (1 as InodeId),
      version: inode?.version ?? 1,
      sizeBytes: descriptor?.sizeBytes ?? 0,
      mode: 0o644,
      owner: "",
      group: "",
      createdMs: 0,
      modifiedMs: descriptor?.modifiedMs ?? 0,
      attributes: {},
      cachedBytes: 0,
      contentVersion: descriptor?.contentVersion ?? 0,
      complete: inode?.complete ?? true,
      pinned: false,
      ...(descriptor === undefined ? {} : { etag: descriptor.etag }),
    };
  }

  #children(path: Path): FileStatus[] {
    if (!this.#isDirectory(path)) {
      throw new HeadpondError(this.#inodes.has(path) ? "not-a-directory" : "not-found", `${path} is no directory`);
    }
    const prefix = path === "/" ? "/" : `${path}/`;
    const names = new Set<string>();
    for (const other of this.#inodes.keys()) {
      if (other.startsWith(prefix)) names.add(other.slice(prefix.length).split("/")[0] as string);
    }
    return [...names].sort().map((name) => this.#status(`${prefix}${name}` as Path));
  }

  #revision(text: string, revision: string): Revision {
    const path = parsePath(text);
    if (!this.#isDirectory(path)) throw new HeadpondError("not-found", `${path} does not exist`);
    const files = [...this.#inodes]
      .filter(([other, { file }]) => other.startsWith(`${path}/`) && file !== undefined)
      .map(([other, { file }]) => ({ path: other.slice(path.length + 1), file: (file as FakeFile).descriptor }))
      .sort((a, b) => (a.path < b.path ? -1 : 1));
    const identity = files.map(({ path: name, file }) => [name, file.sizeBytes, file.etag]);
    const commit = createHash("sha1").update(JSON.stringify(identity)).digest("hex");
    const current: Revision = { path, commit, current: true, files };
    this.#commits.set(`${path}@${commit}`, current);
    if (revision === "main" || revision === "HEAD" || revision === commit) return current;
    const older = this.#commits.get(`${path}@${revision}`);
    if (older === undefined) throw new HeadpondError("not-found", `${path} has no revision ${revision}`);
    return { ...older, current: false };
  }

  async #changed<T>(method: string, origin: Origin | undefined, apply: () => T): Promise<T> {
    if (origin !== undefined && !this.sessions.has(origin.sessionId)) {
      throw new HeadpondError("unknown-outcome", `session ${origin.sessionId} has expired`);
    }
    const result = apply();
    if (origin !== undefined) this.origins.push(origin);
    await this.afterChange(method, origin);
    return result;
  }

  #handlers(): Handlers<typeof masterService.methods> {
    const handlers: Partial<Handlers<typeof masterService.methods>> = {
      openSession: () => {
        const sessionId = this.#nextSession++ as SessionId;
        this.sessions.add(sessionId);
        return { sessionId, expiresAfterMs: this.sessionLifeMs };
      },
      keepSession: ({ sessionId }) => {
        if (!this.sessions.has(sessionId)) throw new HeadpondError("not-found", `session ${sessionId} has expired`);
        return { expiresAfterMs: this.sessionLifeMs };
      },
      closeSession: ({ sessionId }) => {
        this.sessions.delete(sessionId);
        return {};
      },
      create: ({ path, exclusive, forWriting, origin }) =>
        this.#changed("create", origin, () => {
          const parsed = parsePath(path);
          const known = this.#inodes.get(parsed);
          if (known !== undefined && exclusive === true) throw new HeadpondError("already-exists", `${path} exists`);
          if (forWriting !== true) {
            if (known === undefined) this.put(path, "");
          } else if (!parsed.startsWith("/models") && !parsed.startsWith("/data")) {
            throw new HeadpondError("no-mount", `${path} lies under no mount`);
          }
          const inode = this.#inode(parsed);
          inode.version++;
          if (forWriting === true && inode.file === undefined) inode.complete = false;
          const contentVersion = (inode.file?.descriptor.contentVersion ?? 0) + (forWriting === true ? 1 : 0);
          const target = { mountId: 1 as MountId, key: parsed.slice(1) };
          const reply = {
            inodeId: inode.inodeId,
            version: inode.version,
            contentVersion,
            created: known === undefined,
          };
          return forWriting === true ? { ...reply, target } : reply;
        }),
      complete: ({ inodeId, contentVersion, sizeBytes, etag, origin }) =>
        this.#changed("complete", origin, () => {
          const found = [...this.#inodes].find(([, inode]) => inode.inodeId === inodeId);
          if (found === undefined) throw new HeadpondError("not-found", `inode ${inodeId} does not exist`);
          const [path, inode] = found;
          const written = this.workers.flatMap((worker) => worker.written).findLast(({ key }) => key === path.slice(1));
          if (written?.bytes.length !== sizeBytes) throw new HeadpondError("invalid", "nothing was written");
          const { descriptor } = this.put(path, written.bytes, { etag });
          if (descriptor.contentVersion !== contentVersion) throw new HeadpondError("version-mismatch", "another won");
          return { inodeId, version: inode.version, contentVersion };
        }),
      abandon: ({ inodeId }) => {
        for (const [path, inode] of this.#inodes) {
          if (inode.inodeId === inodeId && !inode.complete) this.#inodes.delete(path);
        }
        return {};
      },
      mkdir: ({ path, origin }) =>
        this.#changed("mkdir", origin, () => {
          const inode = this.#inode(parsePath(path));
          inode.version++;
          return { inodeId: inode.inodeId, version: inode.version, contentVersion: 0 };
        }),
      remove: ({ path, origin }) =>
        this.#changed("remove", origin, () => {
          this.#status(parsePath(path));
          this.remove(path);
          return {};
        }),
      stat: ({ path }) => ({ status: this.#status(parsePath(path)) }),
      list: (request) => this.#listing(request.path),
      open: ({ path }) => ({
        file: this.#file(path).descriptor,
        holders: [],
        workers: { version: 1, workers: [...this.addresses] },
      }),
      describe: ({ id }) => {
        const file = this.versions.get(id);
        if (file === undefined) throw new HeadpondError("not-found", `${id} is not known`);
        const holders = this.workers.filter((worker) => worker.holds(id)).map((worker) => worker.address.id);
        return { file: file.descriptor, holders };
      },
      workers: () => ({ version: 1, workers: [...this.addresses] }),
      revision: ({ path, revision }) => this.#revision(path, revision),
    };
    const counted = Object.keys(masterService.methods).map((name) => [name, this.#counted(name, handlers)]);
    return Object.fromEntries(counted) as Handlers<typeof masterService.methods>;
  }

  #counted(name: string, handlers: Partial<Handlers<typeof masterService.methods>>): unknown {
    const handler = handlers[name as keyof typeof handlers] as ((...args: unknown[]) => unknown) | undefined;
    return (...args: unknown[]): unknown => {
      this.asked.set(name, (this.asked.get(name) ?? 0) + 1);
      if (handler === undefined) throw new HeadpondError("unsupported", `the fake master has no ${name}`);
      return handler(...args);
    };
  }

  async *#listing(path: string): AsyncGenerator<{ entries: FileStatus[] }> {
    const children = this.#children(parsePath(path));
    for (let start = 0; start < children.length; start += 100) yield { entries: children.slice(start, start + 100) };
  }
}
