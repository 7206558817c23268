/** A worker's data port over contents in memory, with switches for what can go wrong. Part of the fake cluster. */

import type { WorkerAddress } from "../base/cluster.ts";
import { errorTable, HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { FileVersionId, WorkerId } from "../base/ids.ts";
import type { Place } from "../base/place.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpResponse } from "../io/http-response.ts";
import { HttpServer } from "../io/http-server.ts";
import { silentLogger } from "../io/logger.ts";
import type { Listener } from "../io/network.ts";
import { NodeClock } from "../io/node-clock.ts";
import { listenShared } from "../io/shared-port.ts";
import { RpcServer } from "../rpc/server.ts";
import { workerService } from "../rpc/worker-service.ts";

/** A content, and its bytes. */
export type FakeFile = { readonly descriptor: FileDescriptor; readonly bytes: Uint8Array };

const clock = new NodeClock();
const pieceBytes = 256 * 1024;

export type WorkerFaults = {
  /** Cut the connection after so many bytes of each body, so many times. */
  cut?: { afterBytes: number; times: number } | undefined;
  /** Refuse every read with this, or so many of them. */
  refuse?: HeadpondError | undefined;
  refuseTimes?: number | undefined;
  /** Before the first byte of a body. */
  delayMs?: number;
};

export class FakeWorker {
  readonly address: WorkerAddress;
  readonly faults: WorkerFaults = {};
  readonly written: { readonly key: string; readonly bytes: Uint8Array }[] = [];
  /** Versions that it does not have and cannot get. */
  readonly gone = new Set<FileVersionId>();
  /** Every range that was asked over HTTP: `id first-last` or `id whole`. */
  readonly ranges: string[] = [];
  smallReads = 0;
  readonly #versions: ReadonlyMap<FileVersionId, FakeFile>;
  readonly #http: HttpServer;
  readonly #rpc: RpcServer;
  readonly #listener: Listener;

  private constructor(
    address: WorkerAddress,
    versions: ReadonlyMap<FileVersionId, FakeFile>,
    http: HttpServer,
    rpc: RpcServer,
    listener: Listener,
  ) {
    this.address = address;
    this.#versions = versions;
    this.#http = http;
    this.#rpc = rpc;
    this.#listener = listener;
  }

  static async start(options: {
    readonly id: WorkerId;
    readonly place: Place;
    readonly versions: ReadonlyMap<FileVersionId, FakeFile>;
  }): Promise<FakeWorker> {
    // The servers come before the worker, which their handlers belong to.
    const made: { worker?: FakeWorker } = {};
    const self = (): FakeWorker => made.worker as FakeWorker;
    const http = new HttpServer({
      handler: (request, response) => self().#handle(request, response),
      clock,
      logger: silentLogger,
    });
    const rpc = new RpcServer({
      service: workerService,
      handlers: {
        read: ({ id, position, length }) => {
          self().smallReads++;
          return {
            bytes: self()
              .#bytes(id)
              .subarray(position, position + length),
          };
        },
        free: () => ({ bytes: 0 }),
        verify: () => ({ blocks: 0, bytes: 0, damaged: 0 }),
      },
      self: { software: "test", role: "worker", name: options.id },
      clock,
      logger: silentLogger,
      limits: { closeGraceMs: 10 },
    });
    const listener = await listenShared(
      { host: "127.0.0.1", port: 0 },
      { http, clock, onConnection: (connection) => rpc.accept(connection) },
    );
    const { host, port } = listener.address;
    const address = { id: options.id, place: options.place, data: `${host}:${port}`, http: "", gateways: {} };
    made.worker = new FakeWorker(address, options.versions, http, rpc as unknown as RpcServer, listener);
    return made.worker;
  }

  holds(id: FileVersionId): boolean {
    return this.#versions.has(id) && !this.gone.has(id);
  }

  async close(): Promise<void> {
    await this.#listener.close();
    await Promise.all([this.#http.close(10), this.#rpc.close()]);
  }

  #refuse(): void {
    const { refuse, refuseTimes } = this.faults;
    if (refuse === undefined || refuseTimes === 0) return;
    if (refuseTimes !== undefined) this.faults.refuseTimes = refuseTimes - 1;
    throw refuse;
  }

  #bytes(id: FileVersionId): Uint8Array {
    this.#refuse();
    const file = this.#versions.get(id);
    if (file === undefined) throw new HeadpondError("not-found", `${id} is not known`);
    if (this.gone.has(id)) throw new HeadpondError("compacted", `${id} is no longer to be had`);
    return file.bytes;
  }

  async #handle(request: HttpRequest, response: HttpResponse): Promise<void> {
    try {
      const [, version, kind, name] = request.path.split("/");
      if (version === "v1" && kind === "files") await this.#get(name as FileVersionId, request, response);
      else if (version === "v1" && kind === "objects") await this.#put(request, response);
      else throw new HeadpondError("not-found", request.path);
    } catch (thrown) {
      if (response.headSent) return response.destroy();
      const error = toHeadpondError(thrown);
      response.error(error, error.code === "compacted" ? 410 : errorTable[error.code].httpStatus);
    }
  }

  async #get(id: FileVersionId, request: HttpRequest, response: HttpResponse): Promise<void> {
    const bytes = this.#bytes(id);
    const range = /^bytes=([0-9]+)-([0-9]+)$/.exec(request.headers["range"] ?? "");
    const position = Number(range?.[1] ?? 0);
    const end = range === null ? bytes.length : Number(range[2]) + 1;
    this.ranges.push(range === null ? `${id} whole` : `${id} ${position}-${end - 1}`);
    if (this.faults.delayMs !== undefined) await clock.sleep(this.faults.delayMs, request.signal);
    response.head(range === null ? 200 : 206, {
      "content-length": end - position,
      etag: `"${id}"`,
      ...(range === null ? {} : { "content-range": `bytes ${position}-${end - 1}/${bytes.length}` }),
    });
    const { cut } = this.faults;
    const stopAt = cut !== undefined && cut.times > 0 ? Math.min(position + cut.afterBytes, end) : end;
    for (let at = position; at < stopAt; at += pieceBytes) {
      await response.write(bytes.subarray(at, Math.min(at + pieceBytes, stopAt)));
    }
    if (stopAt < end && cut !== undefined) {
      cut.times--;
      response.destroy();
    } else response.end();
  }

  async #put(request: HttpRequest, response: HttpResponse): Promise<void> {
    this.#refuse();
    const key = request.query.get("key") as string;
    if (request.query.get("ifAbsent") === "true" && this.written.some((object) => object.key === key)) {
      throw new HeadpondError("already-exists", `${key} exists`);
    }
    const bytes = await request.bytes(1 << 30);
    this.written.push({ key, bytes });
    const etag = `written-${this.written.length}`;
    response.json(200, { sizeBytes: bytes.length, etag, modifiedMs: 1_700_000_000_000 });
  }
}
