/**
 * A master: the namespace driven by its journal, the workers that report to it, and the RPC and HTTP doors. This file wires
 * the parts together and moves them with the journal's role: a leader runs jobs, intents and housekeeping; a
 * standby only listens to the workers, so that it knows what they hold the moment it leads.
 */

import { blockSizeBytesDefault } from "../base/blocks.ts";
import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { ClusterId, MasterId, MountId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { HttpServer } from "../io/http-server.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import type { Address, Network } from "../io/network.ts";
import type { Journal, Role } from "../journal/journal.ts";
import type { CommandResult } from "../namespace/command.ts";
import type { Namespace } from "../namespace/namespace.ts";
import { type MasterMethods, masterService } from "../rpc/master-service.ts";
import { type Handlers, RpcServer } from "../rpc/server.ts";
import { normaliseUnderStoreUri, redactUnderStoreOptions } from "../under-store/open.ts";
import type { UnderStore } from "../under-store/under-store.ts";
import { Admin } from "./admin.ts";
import { BackupService } from "./backup-service.ts";
import { BlockMap } from "./block-map.ts";
import { Core } from "./core.ts";
import { DataService } from "./data-service.ts";
import { DeadVersions } from "./dead-versions.ts";
import { EventLog } from "./events.ts";
import { FeatureLevels } from "./feature-levels.ts";
import { masterHandlers } from "./handlers.ts";
import { Housekeeping, housekeepingLimits } from "./housekeeping.ts";
import { Intents } from "./intents.ts";
import type { StoredJob } from "./job-document.ts";
import { Drains } from "./job-drain.ts";
import { Upkeep } from "./job-upkeep.ts";
import { Jobs } from "./jobs.ts";
import { LeaderClock } from "./leader-clock.ts";
import type { LoadRates } from "./load-planner.ts";
import { type MasterLimits, masterLimits } from "./master-limits.ts";
import { MasterLists } from "./master-lists.ts";
import { addMasterMetrics } from "./master-metrics.ts";
import { MemberService } from "./member-service.ts";
import { Models } from "./models.ts";
import { MountService, type StoreNames } from "./mount-service.ts";
import { NamespaceService } from "./namespace-service.ts";
import { Proposer } from "./proposer.ts";
import { Revisions } from "./revisions.ts";
import { catchUp, handOver } from "./role-change.ts";
import { SessionService } from "./session-service.ts";
import { StatusService, type VerifyJournal } from "./status-service.ts";
import { MetadataSync } from "./sync.ts";
import { NamespaceSyncView } from "./sync-view.ts";
import { TimeSlices } from "./time-slices.ts";
import { TreeFiles } from "./tree-files.ts";
import { type OpenUnderStore, UnderStores } from "./under-stores.ts";
import { WorkerRegistry } from "./worker-registry.ts";
import { WorkerService } from "./worker-service.ts";

export type MasterOptions = {
  readonly id: MasterId;
  readonly clusterId: ClusterId;
  readonly clusterName: string;
  readonly version: string;
  readonly nodeVersion: string;
  readonly directory: string;
  readonly disk: Disk;
  readonly network: Network;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly rpcAddress: Address;
  readonly httpAddress: Address;
  /** In place of the HTTP server: simulations have none. */
  readonly http?: Pick<HttpServer, "listen" | "close">;
  /** By which others reach this machine; the host that is listened on, if absent. */
  readonly advertisedHost?: string;
  /** Not started yet, over `namespace`. Whoever made them closes both, after the master. */
  readonly journal: Journal<CommandResult>;
  readonly namespace: Namespace;
  readonly verifyJournal: VerifyJournal;
  /** Why the journal or the state must not be relied on, e.g. because it differs from the other masters'; undefined: it can. */
  readonly alarm?: () => string | undefined;
  readonly openUnderStore: OpenUnderStore;
  /** How URIs are written and which options are secret; that of `under-store/open.ts` if absent. */
  readonly storeNames?: StoreNames;
  /** A worker whose stream has broken is lost after this. */
  readonly workerTimeoutMs?: number;
  readonly rates?: LoadRates;
  readonly limits?: Partial<MasterLimits>;
};

export class Master {
  readonly #options: MasterOptions;
  readonly #limits: MasterLimits;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #leaderClock: LeaderClock;
  readonly #registry: WorkerRegistry;
  readonly #core: Core;
  readonly #stores: UnderStores;
  readonly #sync: MetadataSync;
  readonly #intents: Intents;
  readonly #jobs: Jobs;
  readonly #upkeep: Upkeep;
  readonly #housekeeping: Housekeeping;
  readonly #events: EventLog;
  readonly #workers: WorkerService;
  readonly #lists: MasterLists;
  readonly #features: FeatureLevels;
  readonly #rpc: RpcServer<MasterMethods>;
  readonly #http: Pick<HttpServer, "listen" | "close">;
  readonly #closing = new AbortController();
  #listensSinceMs: number | undefined;
  #state: "new" | "starting" | "open" | "closed" = "new";
  #rpcAddress: Address;
  #httpAddress: Address;
  #leading = false;
  /** Steps of the role run one after the other. */
  #roleChange: Promise<void> = Promise.resolve();
  #settled: Promise<void> = Promise.resolve();
  #ticking: Promise<void> = Promise.resolve();
  /** One handler for each method, as the RPC server calls them: for those in the same process. */
  readonly handlers: Handlers<MasterMethods>;

  constructor(options: MasterOptions) {
    this.#options = options;
    this.#limits = { ...masterLimits, ...options.limits };
    const limits = this.#limits;
    const { clock, namespace, journal, metrics } = options;
    const logger = options.logger.child({ part: "master" });
    this.#clock = clock;
    this.#logger = logger;
    this.#rpcAddress = options.rpcAddress;
    this.#httpAddress = options.httpAddress;
    const blockSizeBytes = blockSizeBytesDefault;
    this.#leaderClock = new LeaderClock({ clock });
    this.#events = new EventLog({
      pathOf: (inodeId) => namespace.get(inodeId)?.path,
      limits: limits.events,
    });
    this.#events.begin(namespace.applied.index);
    namespace.observe({
      applied: (index, command, result, intent) => this.#events.applied(index, command, result, intent),
      reset: () => this.#events.begin(namespace.applied.index),
    });
    this.#features = new FeatureLevels({ namespace, journal, clock, logger });
    const proposer = new Proposer({ journal, clock: this.#leaderClock, features: this.#features });
    const slices = new TimeSlices({ clock });
    const blockMap = new BlockMap({ isKnown: (inodeId) => inodeId < namespace.nextInodeId });
    const lossTimeoutMs = options.workerTimeoutMs === undefined ? {} : { lossTimeoutMs: options.workerTimeoutMs };
    this.#registry = new WorkerRegistry({ blockMap, clock, logger, limits: { ...lossTimeoutMs, ...limits.workers } });
    this.#stores = new UnderStores({ open: options.openUnderStore, clock, logger });
    const storeOf = (id: MountId): Promise<UnderStore> => {
      const mount = namespace.mountWithSecrets(id);
      if (mount === undefined) throw new HeadpondError("not-found", `mount ${id} is not there any more`);
      return this.#stores.of(mount);
    };
    this.#sync = new MetadataSync({
      view: new NamespaceSyncView(namespace),
      proposer,
      storeOf: (mount) => this.#stores.of(mount),
      slices,
      clock,
      logger,
      limits: limits.sync,
    });
    this.#intents = new Intents({
      intent: (id) => namespace.intent(id),
      openIntents: () => namespace.openIntents(),
      sizeOf: ({ inodeId }) => (inodeId === undefined ? undefined : namespace.get(inodeId)?.sizeBytes),
      storeOf: async (id) => storeOf(id),
      hasSession: (id) => namespace.hasSession(id),
      proposer,
      onDone: (intent) => {
        // A copy under another name may have another etag: readers would be told that the content has changed. Of a
        // writer who is gone, the bytes may be there.
        const path = intent.kind === "create" ? intent.path : intent.toPath;
        const mount = namespace.mountWithSecrets(intent.mountId);
        if (path === undefined || intent.isDirectory || mount === undefined) return;
        this.#sync.refreshLater(path, mount);
      },
      clock,
      logger,
      limits: limits.intents,
    });
    this.#core = new Core({
      id: options.id,
      namespace,
      journal,
      proposer,
      sync: this.#sync,
      intents: this.#intents,
      clock,
      takesOver: () => !this.#leading,
      alarm: options.alarm ?? (() => undefined),
    });
    const core = this.#core;
    const files = new TreeFiles({ core, slices, blockSizeBytes });
    const stored = (): StoredJob[] =>
      namespace.documents
        .jobs(storedJobsMax)
        .map(({ jobId, document, progress }) => ({ id: jobId, document, progress }));
    this.#jobs = new Jobs({
      proposer,
      blockMap,
      registry: this.#registry,
      files,
      stored,
      pushWorkerList: () => this.#workers.pushWorkerList(),
      settled: () => this.#settled,
      slices,
      ...(options.rates === undefined ? {} : { rates: options.rates }),
      clock,
      logger,
      limits: limits.jobs,
      runLimits: limits.jobRuns,
    });
    this.#lists = new MasterLists({
      journal,
      id: options.id,
      leads: () => core.leads,
      rpc: () => this.addresses.rpc,
    });
    this.#workers = new WorkerService({
      core,
      registry: this.#registry,
      jobs: this.#jobs,
      clusterId: options.clusterId,
      lists: this.#lists,
      clock,
      listDelayMs: limits.listDelayMs,
    });
    this.#lists.onChange((list) => this.#workers.pushMasters(list));
    const revisions = new Revisions({ core, files, logger, blockSizeBytes });
    const data = new DataService({
      core,
      files,
      revisions,
      blockMap,
      registry: this.#registry,
      free: (orders) => this.#workers.free(orders),
      pin: (orders, pinned) => this.#workers.pin(orders, pinned),
    });
    this.#housekeeping = new Housekeeping({
      namespace,
      proposer,
      intents: this.#intents,
      deadVersions: new DeadVersions({ namespace, blockMap, clock, limits: limits.deadVersions }),
      free: (orders) => this.#workers.free(orders),
      freePath: (path, signal) => data.freePath(path, signal),
      clock,
      logger,
      limits: limits.housekeeping,
    });
    this.#upkeep = new Upkeep({
      drains: new Drains({ stored, proposer }),
      jobs: this.#jobs,
      registry: this.#registry,
      blockMap,
      files,
      slices,
      settled: () => this.#settled,
      free: (orders) => this.#workers.free(orders),
      pin: (orders, pinned) => this.#workers.pin(orders, pinned),
      namespaceVersion: () => namespace.version,
      clock,
      logger,
      limits: limits.upkeep,
    });
    const addresses = (): { rpc: string; http: string } => this.addresses;
    const members = new MemberService({ core, clusterId: options.clusterId, id: options.id, clock, addresses });
    const status = new StatusService({
      core,
      registry: this.#registry,
      members,
      clusterId: options.clusterId,
      clusterName: options.clusterName,
      version: options.version,
      nodeVersion: options.nodeVersion,
      directory: options.directory,
      disk: options.disk,
      clock,
      verifyJournal: options.verifyJournal,
      addresses,
    });
    const sessionTimeoutMs = limits.housekeeping.sessionTimeoutMs ?? housekeepingLimits.sessionTimeoutMs;
    this.handlers = masterHandlers({
      core,
      namespace: new NamespaceService({
        core,
        blockMap,
        blockSizeBytes,
        onPinned: (path, pinned) => {
          data.pinned(path, pinned, this.#closing.signal).catch((error: unknown) => {
            if (!this.#closing.signal.aborted) logger.warn("workers were not told of a pin", { path, error });
          });
        },
        onRemoved: () => this.#housekeeping.removed(),
      }),
      data,
      mounts: new MountService({
        core,
        stores: this.#stores,
        names: options.storeNames ?? { normalise: normaliseUnderStoreUri, redact: redactUnderStoreOptions },
        onChanged: () => this.#mountsChanged(),
      }),
      sessions: new SessionService({ core, timeoutMs: sessionTimeoutMs }),
      jobs: this.#jobs,
      upkeep: this.#upkeep,
      models: new Models({ core, files, blockMap, registry: this.#registry, clock }),
      events: this.#events,
      workers: this.#workers,
      backups: new BackupService({ ...options, core }),
      status,
      members,
      lists: this.#lists,
    });
    this.#registry.listen({
      onLive: (worker) => {
        this.#workers.pushListSoon();
        this.#jobs.workerLive(worker);
        this.#upkeep.workerLive(worker);
      },
      onLost: (worker) => {
        this.#workers.pushListSoon();
        this.#jobs.workerLost(worker);
        this.#upkeep.workerLost();
      },
    });
    this.#rpc = new RpcServer({
      service: masterService,
      handlers: this.handlers,
      self: { software: options.version, role: "master", name: options.id, clusterId: options.clusterId },
      clock,
      logger,
      metrics,
    });
    const admin = new Admin({
      handlers: this.handlers,
      metrics,
      clock,
      version: options.version,
      notReady: () => this.notReady,
    });
    this.#http =
      options.http ?? new HttpServer({ handler: (request, response) => admin.serve(request, response), clock, logger });
    addMasterMetrics(metrics, {
      namespace,
      blockMap,
      registry: this.#registry,
      sync: this.#sync,
      jobs: this.#jobs,
      intents: this.#intents,
      events: this.#events,
      isLeader: () => this.#leading,
      heldBackMs: () => this.#leaderClock.heldBackMs,
    });
    journal.onRoleChange((role) => this.#roleChanged(role));
  }

  /** `host:port` of both doors, as others should use them. */
  get addresses(): { readonly rpc: string; readonly http: string } {
    const host = this.#options.advertisedHost;
    const at = (address: Address): string => hostPort(host === undefined ? address : { ...address, host });
    return { rpc: at(this.#rpcAddress), http: at(this.#httpAddress) };
  }

  /** Where it listens; with the real ports once it has started. */
  get rpcAddress(): Address {
    return this.#rpcAddress;
  }

  get httpAddress(): Address {
    return this.#httpAddress;
  }

  /** Why it cannot serve; undefined: it can. */
  get notReady(): string | undefined {
    if (this.#state !== "open") return `the master is ${this.#state === "closed" ? "closing" : "starting"}`;
    const { flushError } = this.#options.namespace;
    if (flushError !== undefined) return `the state cannot be written: ${toHeadpondError(flushError).message}`;
    const alarm = this.#options.alarm?.();
    if (alarm !== undefined) return alarm;
    const { journal } = this.#options;
    if (journal.noSpace !== undefined) return `the log cannot be written, there is no space: ${journal.noSpace}`;
    if (journal.role === "leader") return this.#leading ? undefined : "this master was elected and takes over";
    return journal.leaderAddress === undefined ? "no leader is known" : undefined;
  }

  /** Starts the journal, and resolves when the master serves. */
  async start(): Promise<void> {
    this.#state = "starting";
    // Health can be asked while a long log is read.
    this.#httpAddress = await this.#http.listen(this.#options.httpAddress);
    await this.#options.journal.start();
    await this.#roleChange;
    this.#rpcAddress = await this.#rpc.listen(this.#options.network, this.#options.rpcAddress);
    this.#listensSinceMs = this.#clock.monotonicMs();
    this.#ticking = this.#tick();
    this.#state = "open";
    this.#lists.refresh();
    this.#logger.info("master serves", {
      rpc: hostPort(this.#rpcAddress),
      http: hostPort(this.#httpAddress),
      role: this.#options.journal.role,
    });
  }

  /** A leader lets another master take over before it is closed. Never throws. */
  async handOver(): Promise<void> {
    const { journal } = this.#options;
    await handOver({ journal, clock: this.#clock, logger: this.#logger }, this.#limits.handOverMs);
  }

  /** Ends requests, loops and connections. The journal and the namespace are left to whoever made them. */
  async close(): Promise<void> {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#closing.abort(new HeadpondError("cancelled", "this master is closing"));
    this.#lists.close();
    this.#events.end(new HeadpondError("unavailable", "this master is closing: watch at another"));
    for (const { sink } of this.#registry.all()) sink?.end();
    await Promise.all([this.#rpc.close(), this.#http.close()]);
    this.#workers.close();
    await this.#ticking;
    await this.#roleChange;
    await this.#stopLeading();
    this.#sync.close();
    await this.#stores.close();
  }

  #roleChanged(role: Role): void {
    this.#roleChange = this.#roleChange
      .then(() => (role === "leader" ? this.#startLeading() : this.#stopLeading()))
      .catch((error: unknown) => this.#logger.error("a change of role failed", { role, error }));
  }

  async #startLeading(): Promise<void> {
    const { journal, namespace } = this.#options;
    if (this.#leading || this.#state === "closed") return;
    if (!(await catchUp({ journal, clock: this.#clock, logger: this.#logger }, this.#closing.signal))) return;
    this.#leading = true;
    this.#leaderClock.begin(namespace.nowMs);
    this.#registry.beginTerm(journal.status().term);
    this.#lists.refresh();
    this.#workers.pushRole();
    this.#workers.pushMounts();
    // One that stood by for a while knows the workers already: they report to all masters.
    const nowMs = this.#clock.monotonicMs();
    this.#settled = this.#workers.settleIn(this.#limits.settleMs - (nowMs - (this.#listensSinceMs ?? nowMs)));
    const { proposer } = this.#core;
    this.#features.start((level) => proposer.propose({ kind: "set-feature-level", level, timeMs: proposer.nowMs() }));
    this.#intents.start();
    this.#jobs.start();
    this.#upkeep.start();
    this.#housekeeping.start();
  }

  async #stopLeading(): Promise<void> {
    if (!this.#leading) return;
    this.#leading = false;
    this.#workers.unsettle();
    this.#sync.close();
    this.#workers.pushRole();
    const parts = [this.#upkeep, this.#jobs, this.#housekeeping, this.#intents, this.#features];
    await Promise.all(parts.map((part) => part.stop()));
  }

  async #tick(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await this.#clock.sleep(workerTickMs, signal).catch(() => {});
      if (signal.aborted) return;
      this.#registry.tick();
      // News come by events; this is for a term that changed without any.
      this.#lists.refresh();
    }
  }

  #mountsChanged(): void {
    this.#stores.retain(this.#core.mounts());
    this.#workers.pushMounts();
    this.#housekeeping.removed();
  }
}

const workerTickMs = 250;
const storedJobsMax = 10_000;

function hostPort({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
