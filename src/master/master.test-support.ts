/** A whole master in one process for tests: local journal on a disk in memory, namespace, RPC on loopback, fake workers. */

import { blockCount } from "../base/blocks.ts";
import type { WorkerOrder } from "../base/cluster.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { ClusterId, FileVersionId, MasterId, WorkerId } from "../base/ids.ts";
import type { Place } from "../base/place.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { formatJournal } from "../journal/format.ts";
import { LocalJournal } from "../journal/local-journal.ts";
import type { CommandResult } from "../namespace/command.ts";
import { MemoryStore } from "../namespace/memory-store.ts";
import { Namespace } from "../namespace/namespace.ts";
import { RpcClient } from "../rpc/client.ts";
import { masterService } from "../rpc/master-service.ts";
import { FaultyUnderStore } from "../under-store/faulty.ts";
import { MemoryUnderStore } from "../under-store/memory.ts";
import { Master } from "./master.ts";
import type { MasterLimits } from "./master-limits.ts";

export const clusterId = "test-cluster" as ClusterId;
const self = { software: "test", role: "client", name: "test" };

export class TestMaster {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly memory: MemoryUnderStore;
  readonly store: FaultyUnderStore;
  master!: Master;
  namespace!: Namespace;
  journal!: LocalJournal<CommandResult>;
  client!: RpcClient;
  /** Why its state must not be relied on. */
  alarm: string | undefined;
  readonly #limits: Partial<MasterLimits>;

  constructor(options: { readonly limits?: Partial<MasterLimits>; readonly listPageMax?: number } = {}) {
    this.clock = new NodeClock();
    this.disk = new MemoryDisk();
    this.memory = new MemoryUnderStore({ clock: this.clock, listPageMax: options.listPageMax ?? 1000 });
    this.store = new FaultyUnderStore({ inner: this.memory, clock: this.clock });
    this.#limits = { settleMs: 10, listDelayMs: 1, ...options.limits };
  }

  static async start(options: ConstructorParameters<typeof TestMaster>[0] = {}): Promise<TestMaster> {
    const test = new TestMaster(options);
    await formatJournal({
      disk: test.disk,
      clock: test.clock,
      directory: "/journal",
      clusterId,
      segmentBytes: 1 << 20,
    });
    await test.open();
    return test;
  }

  async open(): Promise<void> {
    const { disk, clock } = this;
    this.namespace = new Namespace({ store: new MemoryStore() });
    this.journal = new LocalJournal<CommandResult>({
      disk,
      clock,
      logger: silentLogger,
      metrics: new Metrics(),
      directory: "/journal",
      clusterId,
      machine: this.namespace,
      limits: {},
      bootId: "boot",
      onFatal: (error) => {
        throw error;
      },
    });
    this.master = new Master({
      id: "m1" as MasterId,
      clusterId,
      clusterName: "test",
      version: "0",
      nodeVersion: "v0",
      directory: "/",
      disk,
      network: new TcpNetwork(),
      clock,
      logger: silentLogger,
      metrics: new Metrics(),
      rpcAddress: { host: "127.0.0.1", port: 0 },
      httpAddress: { host: "127.0.0.1", port: 0 },
      journal: this.journal,
      namespace: this.namespace,
      verifyJournal: () => Promise.resolve({ ok: true, entries: 0, bytes: 0, findings: [] }),
      alarm: () => this.alarm,
      openUnderStore: async () => this.store,
      storeNames: { normalise: (uri) => uri, redact: (_uri, options) => options },
      workerTimeoutMs: 300,
      limits: this.#limits,
    });
    await this.master.start();
    this.client = this.connect();
  }

  connect(): RpcClient {
    const { clock } = this;
    const address = this.master.rpcAddress;
    return new RpcClient({
      network: new TcpNetwork(),
      address,
      service: masterService,
      self,
      clock,
      logger: silentLogger,
    });
  }

  get http(): string {
    return `http://127.0.0.1:${this.master.httpAddress.port}`;
  }

  async mount(options: Record<string, string> = {}): Promise<void> {
    await this.client.call(masterService.methods.mount, { path: "/m", uri: "memory://test", options });
  }

  /** Ends as a stopped process does. */
  async close(): Promise<void> {
    await this.client.close();
    await this.master.close();
    await this.journal.close();
    await this.namespace.close();
  }

  /** Ends and starts again on the same disk. */
  async restart(): Promise<void> {
    await this.close();
    await this.open();
  }
}

export type FakeWorkerOptions = {
  readonly id: string;
  readonly place?: string;
  readonly capacityBytes?: number;
  /** What the worker does with a file that it is ordered to load; by default it has it at once. */
  readonly onLoad?: (file: FileDescriptor) => Verdict | Promise<Verdict>;
};
export type Verdict = {
  readonly ok: boolean;
  readonly code?: string;
  readonly message?: string;
  readonly originBytes?: number;
};

/** A worker as the master sees one: it attaches, reports, obeys. It holds no bytes. */
export class FakeWorker {
  readonly id: WorkerId;
  readonly orders: WorkerOrder[] = [];
  readonly held = new Map<FileVersionId, { readonly file: FileDescriptor; readonly originBytes: number }>();
  readonly #test: TestMaster;
  readonly #options: FakeWorkerOptions;
  incarnation: string;
  #sequence = 0;
  #stream = new AbortController();
  #client: RpcClient;
  #done: Promise<void> = Promise.resolve();

  constructor(test: TestMaster, options: FakeWorkerOptions) {
    this.#test = test;
    this.#options = options;
    this.id = options.id as WorkerId;
    this.incarnation = `incarnation-${options.id}-1`;
    this.#client = test.connect();
  }

  static async attach(test: TestMaster, options: FakeWorkerOptions): Promise<FakeWorker> {
    const worker = new FakeWorker(test, options);
    await worker.attach();
    return worker;
  }

  async attach(): Promise<void> {
    this.#stream = new AbortController();
    const items = this.#client
      .openStream(
        masterService.methods.attachWorker,
        {
          address: {
            id: this.id,
            place: (this.#options.place ?? "local/local/local/host") as Place,
            data: `127.0.0.1:${this.id}`,
            http: "127.0.0.1:1",
            gateways: {},
          },
          incarnation: this.incarnation,
          capacityBytes: this.#options.capacityBytes ?? 2 ** 40,
          version: "test",
        },
        { signal: this.#stream.signal },
      )
      [Symbol.asyncIterator]();
    const first = await items.next();
    if (first.done !== true) this.orders.push(first.value);
    await this.#reportAll();
    this.#done = (async () => {
      try {
        for (let next = await items.next(); next.done !== true; next = await items.next()) {
          this.orders.push(next.value);
          // What it was told to load may take for ever, or be reported to a master that is gone.
          if (next.value.kind === "load") this.#load(next.value).catch(() => {});
          if (next.value.kind === "report-all") await this.#reportAll();
          if (next.value.kind === "free") await this.drop(next.value.versions);
        }
      } catch {
        // The stream was cut, by the test or by the master.
      }
    })();
  }

  /** The process is gone. */
  async detach(): Promise<void> {
    this.#stream.abort();
    await this.#done;
  }

  /** The same life, at the master as it is now. */
  async reattach(): Promise<void> {
    await this.detach();
    await this.#client.close();
    this.#client = this.#test.connect();
    await this.attach();
  }

  /** A new life on the same disk, at the master as it is now. */
  async restart(): Promise<void> {
    await this.detach();
    await this.#client.close();
    this.#client = this.#test.connect();
    this.incarnation = `${this.incarnation}x`;
    await this.attach();
  }

  async close(): Promise<void> {
    await this.detach();
    await this.#client.close();
  }

  async drop(versions: readonly FileVersionId[]): Promise<void> {
    const held = versions.filter((version) => this.held.delete(version));
    if (held.length > 0) await this.#report(held, { full: false, last: false });
  }

  async have(file: FileDescriptor, originBytes = 0): Promise<void> {
    this.held.set(file.id, { file, originBytes });
    await this.#report([file.id], { full: false, last: false });
  }

  async #load(order: Extract<WorkerOrder, { kind: "load" }>): Promise<void> {
    for (const file of order.files) {
      const verdict = (await this.#options.onLoad?.(file)) ?? { ok: true, originBytes: file.sizeBytes };
      if (verdict.ok) await this.have(file, verdict.originBytes ?? 0);
      const { ok, code, message } = verdict;
      await this.#client.call(masterService.methods.reportLoad, {
        workerId: this.id,
        incarnation: this.incarnation,
        jobId: order.jobId,
        files: [
          { id: file.id, ok, ...(code === undefined ? {} : { code }), ...(message === undefined ? {} : { message }) },
        ],
      });
    }
  }

  async #reportAll(): Promise<void> {
    this.#sequence = 0;
    await this.#report([...this.held.keys()], { full: true, last: true });
  }

  async #report(versions: readonly FileVersionId[], kind: { full: boolean; last: boolean }): Promise<void> {
    await this.#client.call(masterService.methods.reportHoldings, {
      workerId: this.id,
      incarnation: this.incarnation,
      sequence: this.#sequence++,
      ...kind,
      holdings: versions.map((id) => {
        const held = this.held.get(id);
        if (held === undefined) return { id, blockCount: 0, complete: false, gone: true, originBytes: 0 };
        const { file, originBytes } = held;
        return { id, blockCount: blockCount(file.sizeBytes, file.blockSizeBytes), complete: true, originBytes };
      }),
    });
  }
}

/** Waits for something that must come, a bounded time. */
export async function eventually<T>(what: string, look: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const clock = new NodeClock();
  for (let waitedMs = 0; waitedMs < 10_000; waitedMs += 10) {
    const seen = await look();
    if (seen !== undefined && seen !== (false as unknown)) return seen;
    await clock.sleep(10);
  }
  throw new Error(`it never came: ${what}`);
}
