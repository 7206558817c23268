/** What masters say about themselves, their journal and the cluster. */

import type { ClusterStatus } from "../base/cluster.ts";
import { toHeadpondError } from "../base/errors.ts";
import type { ClusterId, MasterId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { ReplyOf } from "../rpc/method.ts";
import type { Core } from "./core.ts";
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
  readonly id: MasterId;
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

/** A digest costs as much as has changed since the last one: pages that refresh themselves do not get a new one each time. */
const digestKeptMs = 2000;

export class StatusService {
  readonly #deps: StatusServiceDependencies;
  readonly #startedMs: number;
  #digest = { atMs: Number.NEGATIVE_INFINITY, index: -1, text: "" };

  constructor(dependencies: StatusServiceDependencies) {
    this.#deps = dependencies;
    this.#startedMs = dependencies.clock.wallMs();
  }

  clusterStatus(): ClusterStatus {
    const { core, registry, id, clusterId, clusterName, addresses } = this.#deps;
    const { type, role, term } = core.journal.status();
    const { files, directories } = core.namespace.counters;
    const { index, digest } = this.#digestNow();
    const { rpc } = addresses();
    const leader = role === "leader" ? rpc : core.journal.leaderAddress;
    return {
      clusterId,
      name: clusterName,
      journal: type,
      ...(leader === undefined ? {} : { leader }),
      term,
      masters: [{ id, address: rpc, role, appliedIndex: index, digest, lagEntries: 0, voter: true }],
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

  #digestNow(): { readonly index: number; readonly digest: string } {
    const { core, clock } = this.#deps;
    const { index } = core.namespace.applied;
    const nowMs = clock.monotonicMs();
    if (this.#digest.index !== index && nowMs - this.#digest.atMs >= digestKeptMs) {
      this.#digest = { atMs: nowMs, index, text: core.namespace.digest() };
    }
    return { index: this.#digest.index, digest: this.#digest.text };
  }
}
