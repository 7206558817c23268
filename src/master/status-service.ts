/** What masters say about themselves, their journal and the cluster. */

import type { ClusterStatus } from "../base/cluster.ts";
import { toHeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { ReplyOf } from "../rpc/method.ts";
import type { Core } from "./core.ts";
import type { MemberService } from "./member-service.ts";
import type { WorkerRegistry } from "./worker-registry.ts";

type Reply<K extends keyof MasterMethods> = ReplyOf<MasterMethods[K]>;

/** What reads the whole log and says what is wrong with it. */
export type VerifyJournal = () => Promise<{
  readonly ok: boolean;
  readonly entries: number;
  readonly bytes: number;
  readonly findings: readonly string[];
}>;

export type StatusServiceDependencies = {
  readonly core: Core;
  readonly registry: WorkerRegistry;
  readonly members: Pick<MemberService, "statuses">;
  readonly clusterId: ClusterId;
  readonly clusterName: string;
  readonly version: string;
  readonly nodeVersion: string;
  readonly directory: string;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly verifyJournal: VerifyJournal;
  /** `host:port`, known once the master listens. */
  readonly addresses: () => { readonly rpc: string; readonly http: string };
};

export class StatusService {
  readonly #deps: StatusServiceDependencies;
  readonly #startedMs: number;

  constructor(dependencies: StatusServiceDependencies) {
    this.#deps = dependencies;
    this.#startedMs = dependencies.clock.wallMs();
  }

  clusterStatus(): ClusterStatus {
    const { core, registry, clusterId, clusterName, addresses, members } = this.#deps;
    const { type, role, term } = core.journal.status();
    const { files, directories } = core.namespace.counters;
    const leader = role === "leader" ? addresses().rpc : core.journal.leaderAddress;
    return {
      clusterId,
      name: clusterName,
      journal: type,
      ...(leader === undefined ? {} : { leader }),
      term,
      masters: members.statuses(),
      workers: registry.statuses(),
      files,
      directories,
    };
  }

  journalStatus(): Reply<"journalStatus"> {
    return { ...this.#deps.core.journal.status() };
  }

  async journalCheckpoint(): Promise<Reply<"journalCheckpoint">> {
    return this.#deps.core.journal.checkpoint();
  }

  async journalVerify(): Promise<Reply<"journalVerify">> {
    const digest = this.#deps.core.namespace.digest();
    try {
      const { ok, entries, bytes, findings } = await this.#deps.verifyJournal();
      return { ok, entries, bytes, digest, findings: [...findings] };
    } catch (error) {
      return { ok: false, entries: 0, bytes: 0, digest, findings: [toHeadpondError(error).message] };
    }
  }

  async serverInfo(): Promise<Reply<"serverInfo">> {
    const { version, nodeVersion, directory, disk, clock, addresses } = this.#deps;
    const { freeBytes } = await disk.space(directory);
    return {
      version,
      node: nodeVersion,
      startedMs: this.#startedMs,
      wallMs: clock.wallMs(),
      http: addresses().http,
      directory,
      freeBytes,
    };
  }
}
