/** One handler for each method of the master's service: which part answers what, and who has to lead for it. */

import { parsePath, rootPath } from "../base/path.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { Handlers } from "../rpc/server.ts";
import type { BackupService } from "./backup-service.ts";
import type { Core } from "./core.ts";
import type { DataService } from "./data-service.ts";
import type { EventLog } from "./events.ts";
import type { Upkeep } from "./job-upkeep.ts";
import type { Jobs } from "./jobs.ts";
import type { MasterLists } from "./master-lists.ts";
import type { MemberService } from "./member-service.ts";
import type { Models } from "./models.ts";
import type { MountService } from "./mount-service.ts";
import { moveStep } from "./move-service.ts";
import type { NamespaceService } from "./namespace-service.ts";
import type { SessionService } from "./session-service.ts";
import type { StatusService } from "./status-service.ts";
import type { WorkerService } from "./worker-service.ts";

export type Services = {
  readonly core: Core;
  readonly namespace: NamespaceService;
  readonly data: DataService;
  readonly mounts: MountService;
  readonly sessions: SessionService;
  readonly jobs: Jobs;
  readonly upkeep: Upkeep;
  readonly models: Models;
  readonly events: EventLog;
  readonly workers: WorkerService;
  readonly status: StatusService;
  readonly backups: BackupService;
  readonly members: MemberService;
  readonly lists: MasterLists;
};

const jobsListedDefault = 100;
const modelsListedDefault = 1000;
const watchIntervalMsDefault = 500;

export function masterHandlers(services: Services): Handlers<MasterMethods> {
  const { upkeep } = services;
  const { core, namespace, data, mounts, sessions, jobs, models, events, workers, status, backups, members, lists } =
    services;
  return {
    openSession: (request) => sessions.openSession(request),
    keepSession: (request) => sessions.keepSession(request),
    closeSession: (request) => sessions.closeSession(request),

    create: (request, context) => namespace.create(request, context),
    complete: (request) => namespace.complete(request),
    abandon: (request) => namespace.abandon(request),
    mkdir: (request, context) => namespace.mkdir(request, context),
    remove: (request, context) => namespace.remove(request, context),
    rename: (request, context) => namespace.rename(request, context),
    setAttributes: (request) => namespace.setAttributes(request),
    pin: (request) => namespace.pin(request),
    ttl: (request) => namespace.ttl(request),
    replicas: (request) => namespace.replicas(request),
    mount: (request, context) => mounts.mount(request, context),
    unmount: (request) => mounts.unmount(request),

    stat: (request) => namespace.stat(request),
    list: (request, context) => namespace.list(request, context),
    mounts: (request) => namespace.mounts(request),
    watch: (request, context) => events.watch(parsePath(request.path), request.fromIndex, context.signal),
    sync: (request, context) => namespace.sync(request, context),

    open: (request) => data.open(request),
    describe: (request) => data.describe(request),
    location: (request) => data.location(request),
    workers: () => data.workers(),
    revision: (request, context) => data.revision(request, context),

    planLoad: (request, context) => {
      core.requireLeader();
      return jobs.plan(request, context.signal);
    },
    load: (request, context) => {
      core.requireLeader();
      return jobs.load(request, context.signal);
    },
    free: (request, context) => data.free(request, context),
    jobs: (request) => {
      core.requireLeader();
      return { jobs: jobs.list(request.limit ?? jobsListedDefault) };
    },
    job: (request) => {
      core.requireLeader();
      return jobs.status(request.id);
    },
    watchJob: (request, context) => {
      core.requireLeader();
      return jobs.watch(request.id, request.intervalMs ?? watchIntervalMsDefault, context.signal);
    },
    cancelJob: (request) => {
      core.requireLeader();
      return jobs.cancel(request.id);
    },
    retryJob: (request, context) => {
      core.requireLeader();
      return jobs.retry(request.id, context.signal);
    },
    drain: (request) => {
      core.requireLeader();
      return request.cancel === true ? upkeep.undrain(request.worker) : upkeep.drain(request.worker);
    },
    drains: () => {
      core.requireLeader();
      return { drains: upkeep.statuses() };
    },
    models: async (request) => {
      core.requireLeader();
      await core.barrier({});
      const path = request.path === undefined ? rootPath : parsePath(request.path);
      return { models: await models.list(path, request.limit ?? modelsListedDefault) };
    },

    masters: (_request, context) => lists.watch(context.signal),
    members: () => members.members(),
    addMember: (request, context) => members.addMember(request, context.signal),
    promoteMember: (request, context) => members.promoteMember(request, context.signal),
    removeMember: (request, context) => members.removeMember(request, context.signal),
    transferLeadership: (request, context) => members.transferLeadership(request, context.signal),

    clusterStatus: () => status.clusterStatus(),
    journalStatus: () => status.journalStatus(),
    journalCheckpoint: () => status.journalCheckpoint(),
    journalBackup: (request, { signal }) => backups.backup(request, signal),
    journalMove: (request) => moveStep(core.journal.moves, request),
    journalVerify: () => status.journalVerify(),
    serverInfo: () => status.serverInfo(),

    attachWorker: (request, context) => workers.attachWorker(request, context),
    reportHoldings: (request) => workers.reportHoldings(request),
    heartbeat: (request) => workers.heartbeat(request),
    reportLoad: (request) => workers.reportLoad(request),
  };
}
