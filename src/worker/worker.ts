/**
 * A worker: block cache, fetcher, data port and links to the masters, wired together. It goes on serving what it holds while no
 * master can be reached, and finishes the fetches that run.
 */

import type { Holding, WorkerAddress, WorkerOrder } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { FileVersionId, WorkerId } from "../base/ids.ts";
import { BufferPool } from "../io/aligned-buffer.ts";
import { HttpClient } from "../io/http-client.ts";
import { HttpServer } from "../io/http-server.ts";
import type { Logger } from "../io/logger.ts";
import type { Address } from "../io/network.ts";
import { formatAddress } from "../rpc/address.ts";
import { BackgroundScrub } from "./background-scrub.ts";
import { BlockCache } from "./block-cache.ts";
import type { CachedFile } from "./cached-file.ts";
import { Claims } from "./claims.ts";
import { DamageLog } from "./damage-log.ts";
import { DataServer } from "./data-server.ts";
import { Descriptors } from "./descriptors.ts";
import { Fetcher } from "./fetcher.ts";
import { FileDigests } from "./file-digest.ts";
import { FileRoutes } from "./file-routes.ts";
import { FillBuffers } from "./fill-buffers.ts";
import { hedged } from "./hedged.ts";
import { Holders } from "./holders.ts";
import { LoadReports } from "./load-reports.ts";
import { LoadRunner } from "./load-runner.ts";
import type { MasterConnection, MasterLink } from "./master-link.ts";
import { MasterLinks } from "./master-links.ts";
import { Members } from "./members.ts";
import { ObjectRoutes } from "./object-routes.ts";
import { PeerClient } from "./peer-client.ts";
import { PeerRoutes } from "./peer-routes.ts";
import { Reader } from "./reader.ts";
import { UnderStores } from "./under-stores.ts";
import { WorkerAdmin } from "./worker-admin.ts";
import { workerHandlers } from "./worker-handlers.ts";
import { type WorkerLimits, workerLimits } from "./worker-limits.ts";
import { WorkerMetrics } from "./worker-metrics.ts";
import { resolveId, type WorkerOptions } from "./worker-options.ts";
import type { WorkerReport } from "./worker-report.ts";

export class Worker {
  readonly id: WorkerId;
  readonly cache: BlockCache;
  readonly members: Members;
  readonly fetcher: Fetcher;
  readonly reader: Reader;
  readonly #options: WorkerOptions;
  readonly #limits: WorkerLimits;
  readonly #logger: Logger;
  readonly #metrics: WorkerMetrics;
  readonly #stores: UnderStores;
  readonly #descriptors: Descriptors;
  readonly #digests: FileDigests;
  readonly #claims: Claims;
  readonly #loads: LoadRunner;
  readonly #reports: LoadReports;
  readonly #damage = new DamageLog();
  #binding: Promise<void> = Promise.resolve();
  readonly #scrub: BackgroundScrub;
  readonly #files: FileRoutes;
  readonly #peers: PeerRoutes;
  readonly #server: DataServer;
  readonly #admin: HttpServer;
  readonly #http: HttpClient;
  readonly #controlHttp: HttpClient;
  /** Bytes of each version read from its under store since the start, whether it is still held or not. */
  readonly #originBytes = new Map<FileVersionId, number>();
  #links: MasterLinks | undefined;
  #dataAddress: Address | undefined;
  #httpAddress: Address | undefined;
  #clusterId: string | undefined;

  private constructor(options: WorkerOptions, id: WorkerId, cache: BlockCache, limits: WorkerLimits) {
    const { clock, place } = options;
    this.id = id;
    this.cache = cache;
    this.#options = options;
    this.#limits = limits;
    this.#logger = options.logger.child({ worker: id });
    const logger = this.#logger;
    this.members = new Members({ self: id, place, clock });
    this.#metrics = new WorkerMetrics(options.metrics, clock, {
      usedBytes: () => cache.usage().usedBytes,
      capacityBytes: () => cache.usage().capacityBytes,
      files: () => cache.usage().files,
      openStreams: () => this.#openStreams(),
      activeFills: () => this.fetcher.activeFills,
      mastersAttached: () => this.#links?.attached().length ?? 0,
    });
    this.#stores = new UnderStores({ open: options.openUnderStore, logger });
    this.#http = new HttpClient({ clock, limits: { connectionsPerOriginMax: limits.peerConnectionsMax } });
    const few = { connectionsPerOriginMax: limits.peerControlConnectionsMax };
    this.#controlHttp = new HttpClient({ clock, limits: few });
    const peerClient = new PeerClient({
      http: this.#http,
      control: this.#controlHttp,
      clock,
      limits: limits.peer,
      onBytes: (bytes) => this.#metrics.peerBytesIn(bytes),
    });
    const buffers = new FillBuffers({
      bufferBytes: cache.limits.blockSizeBytesMax,
      countMax:
        limits.fetcher.originReadsMax +
        limits.fetcher.peerReadsMax +
        limits.fetcher.diskReadsMax +
        limits.warmBlocksMax,
      lentMax: limits.warmBlocksMax,
    });
    const holders = new Holders({
      self: id,
      members: this.members,
      clock,
      ask: (file) => this.#askHolders(file),
      holdings: async (worker, file) => {
        const address = this.members.address(worker);
        return address === undefined ? undefined : peerClient.holdings(address, file);
      },
    });
    this.fetcher = new Fetcher({
      clock,
      logger,
      members: this.members,
      buffers,
      peers: peerClient,
      limits: limits.fetcher,
      writesBesideMax: limits.warmBlocksMax,
      holders,
      origin: {
        clock,
        limits: limits.origin,
        underStore: (mountId) => this.#stores.get(mountId),
        onBytes: ({ file }, bytes) => {
          this.#originBytes.set(file.id, (this.#originBytes.get(file.id) ?? 0) + bytes);
          this.#metrics.originBytes(bytes, this.#stores.path(file.descriptor.mountId));
        },
      },
      events: {
        onOriginBlock: () => this.#metrics.filled("origin"),
        onPeerBlock: () => this.#metrics.filled("peer"),
        onLie: () => this.#metrics.damaged("peer"),
        onStale: (file) => this.#noteStale(file),
      },
    });
    this.#digests = new FileDigests({
      clock,
      logger,
      fetcher: this.fetcher,
      onMismatch: () => this.#metrics.damaged("file"),
    });
    const pool = new BufferPool({ bufferBytes: limits.pieceBytes, countMax: limits.piecesMax });
    this.reader = new Reader({
      cache,
      fetcher: this.fetcher,
      digests: this.#digests,
      buffers,
      pool,
      limits: limits.reader,
      onRead: (_file, bytes, hit) => this.#metrics.readBytes(bytes, hit),
    });
    this.#descriptors = new Descriptors({ cache, describe: (file) => this.#describe(file) });
    this.#claims = new Claims({
      clock,
      logger,
      members: this.members,
      peers: peerClient,
      fetcher: this.fetcher,
      descriptors: this.#descriptors,
      incarnation: options.incarnation,
      limits: { ...limits.claims, firstListWaitMs: limits.fetcher.firstListWaitMs },
      holders: (file) => holders.all(file),
    });
    const identity = { workerId: id, incarnation: options.incarnation };
    this.#reports = new LoadReports({
      leader: () => this.#links?.inCharge()?.master,
      identity,
      logger,
    });
    this.#loads = new LoadRunner({
      cache,
      fetcher: this.fetcher,
      claims: this.#claims,
      digests: this.#digests,
      clock,
      logger,
      limits: limits.loads,
      onOutcome: (jobId, outcome) => {
        for (const link of this.#allLinks()) link.hurry();
        this.#reports.add(jobId, outcome);
      },
    });
    this.#files = new FileRoutes({
      descriptors: this.#descriptors,
      reader: this.reader,
      sender: options.sender,
      streamsMax: limits.readerStreamsMax,
    });
    this.#peers = new PeerRoutes({
      cache,
      fetcher: this.fetcher,
      members: this.members,
      descriptors: this.#descriptors,
      pool,
      clock,
      sender: options.sender,
      streamsMax: limits.peerStreamsMax,
      listWaitMs: limits.fetcher.listWaitMs,
      onSent: (bytes) => this.#metrics.peerBytesOut(bytes),
    });
    this.#server = new DataServer({
      workerId: id,
      software: options.software,
      clock,
      logger,
      files: this.#files,
      peers: this.#peers,
      claims: this.#claims,
      objects: new ObjectRoutes({ stores: this.#stores, writesMax: limits.writesMax }),
      rpc: workerHandlers({
        cache,
        fetcher: this.fetcher,
        buffers,
        reader: this.reader,
        descriptors: this.#descriptors,
      }),
      connectionsMax: limits.connectionsMax,
      httpLimits: limits.http,
    });
    const admin = new WorkerAdmin({ metrics: options.metrics, status: () => this.status() });
    this.#admin = new HttpServer({ clock, logger, handler: (request, response) => admin.serve(request, response) });
    cache.onChange = (file, change) => this.#noteChange(file, change);
    cache.onDamaged = (file, block) => {
      this.#metrics.damaged("disk");
      this.#damage.note(file, block);
      for (const link of this.#allLinks()) link.hurry();
    };
    cache.withdraw = () => this.#links?.reported() ?? Promise.resolve();
    const { fetcher } = this;
    this.#scrub = new BackgroundScrub({ cache, buffers, fetcher, clock, logger, limits: limits.scrub });
    cache.onEvicted = () => this.#metrics.evicted();
  }

  /** Recovers the cache, listens, and attaches to the masters, without waiting for them. */
  static async start(options: WorkerOptions): Promise<Worker> {
    const limits = { ...workerLimits, ...options.limits };
    const { disk, clock, logger, directories } = options;
    const cache = await BlockCache.open({ disk, clock, logger, directories, limits: limits.cache });
    let worker: Worker | undefined;
    try {
      const id = await resolveId(options, cache);
      worker = new Worker(options, id, cache, limits);
      await worker.#listen();
      return worker;
    } catch (error) {
      if (worker === undefined) await cache.close();
      else await worker.close();
      throw error;
    }
  }

  /** Where the data port really listens. */
  get dataAddress(): Address {
    return this.#dataAddress ?? this.#options.data;
  }

  get httpAddress(): Address {
    return this.#httpAddress ?? this.#options.http;
  }

  address(): WorkerAddress {
    const host = this.#options.advertisedHost;
    const at = (address: Address): string => formatAddress({ host: host ?? address.host, port: address.port });
    return {
      id: this.id,
      place: this.#options.place,
      data: at(this.dataAddress),
      http: at(this.httpAddress),
      gateways: { ...this.#options.gateways?.() },
    };
  }

  status(): WorkerReport {
    const { data, http, place } = this.address();
    return {
      id: this.id,
      incarnation: this.#options.incarnation,
      place,
      data,
      http,
      ...this.cache.usage(),
      problems: this.#problems(),
      masters: this.#allLinks().map((link) => ({
        name: link.master.name,
        attached: link.isAttached,
        leads: link.leads,
        ...(link.problem === undefined ? {} : { problem: link.problem }),
      })),
      workersVersion: this.members.version,
      originBytes: this.#metrics.origin.totalBytes,
      peerReceivedBytes: this.#metrics.peerIn.totalBytes,
      peerSentBytes: this.#metrics.peerOut.totalBytes,
      servedBytes: this.#metrics.served.totalBytes,
      damaged: this.#metrics.damagedBlocks,
      activeFills: this.fetcher.activeFills,
      loading: this.#loads.activeFiles + this.#loads.waitingFiles,
      openStreams: this.#openStreams(),
      connections: this.#server.connectionCount,
    };
  }

  /** Attaches anew, because `address()` has changed: masters learn it when a worker attaches. */
  announce(): void {
    for (const link of this.#allLinks()) link.reattach();
  }

  /** Finishes what readers wait for, within the limit `closeGraceMs`, then stops; what is held is made durable. */
  async close(): Promise<void> {
    await this.#links?.close();
    await this.#scrub.close();
    await this.#loads.close();
    await this.#claims.close();
    await this.#server.close(this.#limits.closeGraceMs);
    await this.#admin.close(0);
    await this.fetcher.close();
    await this.#digests.close();
    await this.#reports.settle();
    await this.#http.close();
    await this.#controlHttp.close();
    await this.#stores.close();
    await this.cache.close();
  }

  async #listen(): Promise<void> {
    const { options, limits } = { options: this.#options, limits: this.#limits };
    this.#dataAddress = await this.#server.listen(options.data);
    this.#httpAddress = await this.#admin.listen(options.http);
    this.#logger.info("the worker listens", {
      data: formatAddress(this.dataAddress),
      http: formatAddress(this.httpAddress),
    });
    this.#links = new MasterLinks({
      masters: options.masters,
      connect: options.connectMaster,
      clock: options.clock,
      random: options.random,
      logger: this.#logger,
      limits: limits.masterLink,
      onOrder: (order) => this.#obey(order),
      worker: {
        id: this.id,
        incarnation: options.incarnation,
        software: options.software,
        address: () => this.address(),
        heartbeat: () => this.#heartbeat(),
        holdings: () => this.#holdings(),
        holding: (id) => this.#holding(id),
      },
    });
  }

  #allLinks(): readonly MasterLink[] {
    return this.#links?.all() ?? [];
  }

  async #obey(order: WorkerOrder): Promise<void> {
    switch (order.kind) {
      case "welcome":
        await this.#bindCluster(order.clusterId);
        this.#reports.flush();
        return;
      case "workers":
        // Versions only grow, across leaders too: an older list is old news.
        if (order.list.version >= this.members.version) this.members.setList(order.list);
        return;
      case "mounts":
        this.#stores.setMounts(order.mounts);
        return;
      case "load":
        for (const file of order.files) this.#descriptors.learn(file);
        this.#loads.load(order);
        return;
      case "cancel-load":
        this.#loads.cancel(order.jobId);
        return;
      case "free": {
        const bytes = await this.cache.free(order.versions);
        this.#logger.info("freed by order", { versions: order.versions.length, bytes });
        return;
      }
      case "pin":
        for (const id of order.versions) this.cache.get(id)?.setPinned(order.pinned);
        return;
      case "report-all":
      case "masters":
        return;
      default:
        order satisfies never;
    }
  }

  /** One after the other: all masters say at about the same time who they are. */
  #bindCluster(clusterId: string): Promise<void> {
    const bound = this.#binding.then(() => this.#bindOnce(clusterId));
    this.#binding = bound.catch(() => {});
    return bound;
  }

  async #bindOnce(clusterId: string): Promise<void> {
    if (this.#clusterId === clusterId) return;
    if (this.#clusterId !== undefined) {
      throw new HeadpondError(
        "invalid",
        `this worker belongs to cluster ${this.#clusterId}, the master to ${clusterId}: check the addresses of the masters`,
      );
    }
    this.#descriptors.forgetAll();
    await this.cache.bindCluster(clusterId);
    this.#clusterId = clusterId;
  }

  #noteChange(file: CachedFile, change: Parameters<BlockCache["onChange"]>[1]): void {
    const isGone = "gone" in change;
    if (isGone) this.fetcher.forgetFile(file);
    this.#digests.noteChange(file, isGone || change.removed !== undefined);
    for (const link of this.#allLinks()) {
      if (isGone) link.changes.noteGone(file.id);
      else link.changes.note(file.id, change);
      link.wake();
    }
  }

  #noteStale(file: CachedFile): void {
    this.#metrics.stale();
    this.#logger.warn("the content changed in the under store: what is held of it is still served, the rest is gone", {
      id: file.id,
      path: file.descriptor.path,
      heldBytes: file.heldBytes,
    });
  }

  #heartbeat(): ReturnType<ConstructorParameters<typeof MasterLink>[0]["worker"]["heartbeat"]> {
    const { usedBytes, capacityBytes } = this.cache.usage();
    return {
      usedBytes,
      capacityBytes,
      keptBytes: this.cache.keptBytes(),
      originBytes: this.#metrics.origin.totalBytes,
      originRate: this.#metrics.origin.rate(),
      peerRate: this.#metrics.peerIn.rate(),
      problems: this.#problems().slice(0, 100),
    };
  }

  #problems(): readonly string[] {
    return [...this.cache.problems(), ...this.#damage.problems()];
  }

  *#holdings(): IterableIterator<Holding> {
    for (const { id } of this.cache.list()) {
      const holding = this.#holding(id);
      if (holding !== undefined) yield holding;
    }
  }

  #holding(id: FileVersionId): Holding | undefined {
    const file = this.cache.get(id);
    const originBytes = this.#originBytes.get(id) ?? 0;
    if (file === undefined || (file.heldBytes === 0 && file.blockCount > 0 && originBytes === 0)) return undefined;
    return { id, blockCount: file.blockCount, bitmap: file.bitmap(), complete: file.isComplete, originBytes };
  }

  async #describe(id: FileVersionId): Promise<FileDescriptor> {
    return (await this.#ask((master) => master.describe({ id }))).file;
  }

  async #askHolders(id: FileVersionId): Promise<readonly WorkerId[] | undefined> {
    try {
      return (await this.#ask((master) => master.describe({ id }))).holders;
    } catch {
      return undefined;
    }
  }

  /** The master in charge first, then the other attached ones; also when one does not answer soon. */
  async #ask<T>(question: (master: MasterConnection) => Promise<T>): Promise<T> {
    const attached = this.#links?.attached() ?? [];
    if (attached.length === 0) throw new HeadpondError("unavailable", "no master can be reached");
    const askers = attached.map((link) => () => question(link.master));
    return hedged(askers, { clock: this.#options.clock, afterMs: this.#limits.askNextMasterAfterMs });
  }

  #openStreams(): number {
    return this.#files.openStreams + this.#peers.openStreams;
  }
}
