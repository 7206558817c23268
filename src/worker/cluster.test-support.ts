/** Several workers in one process over loopback, a master that a test plays, and an under store that counts. */

import type { WorkerAddress, WorkerList, WorkerOrder } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { ClusterId, FileVersionId, InodeId, MountId, WorkerId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import type { Place } from "../base/place.ts";
import { Random } from "../base/random.ts";
import type { Disk } from "../io/disk.ts";
import type { FileSender } from "../io/file-sender.ts";
import { digestHex } from "../io/hash.ts";
import { HttpClient } from "../io/http-client.ts";
import type { HttpClientResponse } from "../io/http-client-response.ts";
import { type Logger, silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { FaultyUnderStore } from "../under-store/faulty.ts";
import { MemoryUnderStore } from "../under-store/memory.ts";
import type { DescribeReply, LoadReport, MasterConnection } from "./master-link.ts";
import { Worker } from "./worker.ts";
import { type WorkerLimits, workerLimits } from "./worker-limits.ts";

export const mountId = 1 as MountId;
export const testBlockBytes = 64 * 1024;
const place = "local/test/a/host" as Place;

/** Records log lines, so that tests can ask what was named. */
export class RecordingLogger implements Logger {
  readonly lines: string[] = [];
  debug(): void {}
  info(message: string, fields: object = {}): void {
    this.#add("info", message, fields);
  }
  warn(message: string, fields: object = {}): void {
    this.#add("warn", message, fields);
  }
  error(message: string, fields: object = {}): void {
    this.#add("error", message, fields);
  }
  child(): Logger {
    return this;
  }
  #add(level: string, message: string, fields: object): void {
    this.lines.push(`${level} ${message} ${JSON.stringify(fields)}`);
  }
}

type Held = Map<FileVersionId, { complete: boolean; readonly blocks: Set<number> }>;

/** The master of a test: knows descriptors, hands out lists and orders, remembers reports. */
export class FakeMaster {
  readonly descriptors = new Map<FileVersionId, FileDescriptor>();
  readonly loadReports: LoadReport[] = [];
  readonly holdings = new Map<WorkerId, Held>();
  clusterId = "cluster-1" as ClusterId;
  reachable = true;
  describes = 0;
  #list: WorkerList = { version: 1, workers: [] };
  readonly #attached = new Map<WorkerId, { push: (order: WorkerOrder) => void; end: () => void }>();

  connection(): MasterConnection {
    const check = (): void => {
      if (!this.reachable) throw new HeadpondError("unavailable", "the fake master is away");
    };
    return {
      name: "fake:1",
      attach: (request, signal) => this.#attach(request, signal),
      reportHoldings: async (report) => {
        check();
        if (report.full && report.sequence === 0) this.holdings.set(report.workerId, new Map());
        const held: Held = this.holdings.get(report.workerId) ?? new Map();
        for (const holding of report.holdings) {
          const known = held.get(holding.id) ?? { complete: false, blocks: new Set<number>() };
          if (holding.gone) held.delete(holding.id);
          else held.set(holding.id, known);
          known.complete = holding.complete;
          if (holding.bitmap !== undefined) {
            known.blocks.clear();
            for (let i = 0; i < holding.blockCount; i++)
              if ((holding.bitmap[i >> 3] ?? 0) & (1 << (i & 7))) known.blocks.add(i);
          }
          for (const block of holding.added ?? []) known.blocks.add(block);
          for (const block of holding.removed ?? []) known.blocks.delete(block);
        }
      },
      heartbeat: async () => {
        check();
        return { workersVersion: this.#list.version };
      },
      reportLoad: async (report) => {
        check();
        this.loadReports.push(report);
      },
      describe: async ({ id }): Promise<DescribeReply> => {
        check();
        this.describes++;
        const file = this.descriptors.get(id);
        if (file === undefined) throw new HeadpondError("not-found", `no version ${id}`);
        const holders = [...this.holdings].filter(([, held]) => held.has(id)).map(([worker]) => worker);
        return { file, holders };
      },
      close: async () => {},
    };
  }

  async *#attach({ address }: { readonly address: WorkerAddress }, signal: AbortSignal): AsyncGenerator<WorkerOrder> {
    if (!this.reachable) throw new HeadpondError("unavailable", "the fake master is away");
    const { id } = address;
    const queue: WorkerOrder[] = [{ kind: "welcome", clusterId: this.clusterId, leader: true }];
    let wake = (): void => {};
    let ended = false;
    this.#attached.set(id, {
      push: (order) => {
        queue.push(order);
        wake();
      },
      end: () => {
        ended = true;
        wake();
      },
    });
    signal.addEventListener("abort", () => wake());
    queue.push({
      kind: "mounts",
      mounts: [{ id: mountId, path: "/m" as Path, uri: "memory://test", readOnly: false, options: {} }],
    });
    this.#list = {
      version: this.#list.version + 1,
      workers: [...this.#list.workers.filter((worker) => worker.id !== id), address],
    };
    this.push({ kind: "workers", list: this.#list });
    while (!signal.aborted && !ended) {
      const order = queue.shift();
      if (order !== undefined) yield order;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
    if (ended) throw new HeadpondError("unavailable", "the fake master went away");
  }

  get list(): WorkerList {
    return this.#list;
  }

  push(order: WorkerOrder): void {
    for (const { push } of this.#attached.values()) push(order);
  }

  /** A worker is lost: the others hear of it. */
  lose(id: WorkerId): void {
    this.#attached.get(id)?.end();
    this.#attached.delete(id);
    this.#list = { version: this.#list.version + 1, workers: this.#list.workers.filter((worker) => worker.id !== id) };
    this.push({ kind: "workers", list: this.#list });
  }

  goAway(): void {
    this.reachable = false;
    for (const { end } of this.#attached.values()) end();
    this.#attached.clear();
  }
}

export type TestWorkerOptions = {
  readonly disk?: Disk;
  readonly capacityBytes?: number;
  readonly directories?: readonly { readonly path: string; readonly capacityBytes: number }[];
  readonly limits?: Partial<WorkerLimits>;
  readonly logger?: Logger;
  readonly place?: Place;
  readonly sender?: FileSender | undefined;
};

export const testLimits: WorkerLimits = {
  ...workerLimits,
  cache: { ...workerLimits.cache, blockSizeBytesMax: testBlockBytes, markDelayMs: 20, markBlocks: 16 },
  peer: { connectTimeoutMs: 500, quietMs: 400, probeTimeoutMs: 400, blockTimeoutMs: 20_000 },
  origin: { ...workerLimits.origin, backoffMs: 10, stallTimeoutMs: 2000 },
  masterLink: { heartbeatMs: 200, reportDelayMs: 20, backoffMinMs: 10, backoffMaxMs: 50, withdrawTimeoutMs: 500 },
  loads: { ...workerLimits.loads, retryDelaysMs: [20, 50] },
  reader: { ...workerLimits.reader, prefetchBytes: 8 * testBlockBytes },
  pieceBytes: 64 * 1024,
  closeGraceMs: 500,
};

export class TestCluster {
  readonly clock = new NodeClock();
  readonly memory = new MemoryUnderStore({ clock: this.clock, chunkSizeBytes: 16 * 1024 });
  readonly origin = new FaultyUnderStore({ inner: this.memory, clock: this.clock });
  readonly master = new FakeMaster();
  readonly workers: Worker[] = [];
  readonly http = new HttpClient({ clock: this.clock, limits: { connectionsPerOriginMax: 512 } });
  readonly directory: string;
  #inode = 1;

  /** `directory`: an empty one of the test's own. */
  constructor(directory: string) {
    this.directory = directory;
  }

  /** A file with random bytes in the under store, known to the master. */
  addFile(
    sizeBytes: number,
    options: { readonly seed?: number; readonly digest?: boolean; readonly pinned?: boolean } = {},
  ): {
    readonly file: FileDescriptor;
    readonly bytes: Uint8Array;
  } {
    const inode = ++this.#inode;
    const bytes = new Random(options.seed ?? inode).bytes(sizeBytes);
    const key = `file-${inode}`;
    const { etag, modifiedMs } = this.memory.put(key, bytes);
    const file: FileDescriptor = {
      id: `${inode}-1` as FileVersionId,
      inodeId: inode as InodeId,
      contentVersion: 1,
      path: `/m/${key}` as Path,
      sizeBytes,
      blockSizeBytes: testBlockBytes,
      mountId,
      key,
      etag,
      modifiedMs,
      pinned: options.pinned ?? false,
      ...(options.digest ? { digest: { algorithm: "sha256" as const, value: digestHex("sha256", bytes) } } : {}),
    };
    this.master.descriptors.set(file.id, file);
    return { file, bytes };
  }

  async addWorker(name: string, options: TestWorkerOptions = {}): Promise<Worker> {
    const worker = await this.startWorker(name, options);
    this.workers.push(worker);
    // A worker answers before a master has told it anything; these tests are of workers that know their cluster.
    await this.until(`${name} knows the others`, () => worker.members.version === this.master.list.version);
    return worker;
  }

  startWorker(name: string, options: TestWorkerOptions = {}): Promise<Worker> {
    const capacityBytes = options.capacityBytes ?? 1024 * 1024 * 1024;
    return Worker.start({
      id: name as WorkerId,
      incarnation: `incarnation-${name}-${Math.floor(this.clock.monotonicMs())}`,
      place: options.place ?? place,
      directories: options.directories ?? [{ path: `${this.directory}/${name}`, capacityBytes }],
      disk: options.disk ?? new NodeDisk(),
      clock: this.clock,
      random: new Random(1),
      logger: options.logger ?? silentLogger,
      metrics: new Metrics(),
      masters: [this.master.connection()],
      openUnderStore: async () => this.origin,
      data: { host: "127.0.0.1", port: 0 },
      http: { host: "127.0.0.1", port: 0 },
      software: "test",
      sender: options.sender,
      limits: { ...testLimits, ...options.limits },
    });
  }

  /** `count` workers that all know each other. */
  async addWorkers(count: number, options: TestWorkerOptions = {}): Promise<readonly Worker[]> {
    for (let i = 1; i <= count; i++) await this.addWorker(`w${i}`, options);
    await this.until("all workers know each other", () =>
      this.workers.every((worker) => worker.members.version === this.master.list.version),
    );
    return this.workers;
  }

  /** A GET of a file, or a part of it, as readers do. */
  get(worker: Worker, id: string, headers: Readonly<Record<string, string>> = {}): Promise<HttpClientResponse> {
    return this.request(worker, "GET", `/v1/files/${id}`, headers);
  }

  request(
    worker: Worker,
    method: string,
    target: string,
    headers: Readonly<Record<string, string>> = {},
    body?: Uint8Array,
  ): Promise<HttpClientResponse> {
    const { host, port } = worker.dataAddress;
    const url = `http://${host}:${port}${target}`;
    return this.http.request({ method, url, headers, ...(body === undefined ? {} : { body }) });
  }

  async getBytes(worker: Worker, id: string, headers: Readonly<Record<string, string>> = {}): Promise<Buffer> {
    const response = await this.get(worker, id, headers);
    const body = await response.bytes(1024 * 1024 * 1024);
    if (response.status >= 300) throw new Error(`${response.status}: ${body.toString("utf8")}`);
    return body;
  }

  async until(what: string, condition: () => boolean, timeoutMs = 20_000): Promise<void> {
    const deadlineMs = this.clock.monotonicMs() + timeoutMs;
    while (!condition()) {
      if (this.clock.monotonicMs() > deadlineMs) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
      await this.clock.sleep(5);
    }
  }

  async close(): Promise<void> {
    await this.http.close();
    await Promise.all(this.workers.map((worker) => worker.close()));
  }
}

/** A cluster in a fresh directory of its own, which is gone afterwards. */
export async function withCluster(run: (cluster: TestCluster) => Promise<void>): Promise<void> {
  const disk = new NodeDisk();
  const temporary = process.env["TMPDIR"] ?? "/tmp";
  const directory = `${temporary}/headpond-worker-${crypto.randomUUID()}`;
  await disk.makeDirectory(directory);
  const cluster = new TestCluster(directory);
  try {
    await run(cluster);
  } finally {
    await cluster.close();
    await disk.removeTree(directory);
  }
}
