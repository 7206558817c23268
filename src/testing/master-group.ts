/**
 * Several masters, with the Raft journal or one in shared storage, as processes of their own: started, killed, stopped and thawed, started again on the
 * same or an empty disk, joined by new ones. Tests and benchmarks of failover stand on it.
 */

import { randomUUID } from "node:crypto";
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClusterStatus } from "../base/cluster.ts";
import type { ClusterId, MasterId } from "../base/ids.ts";
import { formatMaster, isEmpty } from "../cli/master-directory.ts";
import { freePortBlock, type ServerProcess, type StartedRole, startConfiguredRole } from "../cli/role-process.ts";
import { silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { openSharedStore } from "../journal/open-shared-store.ts";

export type MasterGroupOptions = {
  readonly directory: string;
  /** Sections of the configuration, beside or instead of what every master here has. */
  readonly master?: Readonly<Record<string, unknown>>;
  readonly journal?: Readonly<Record<string, unknown>>;
  readonly raft?: Readonly<Record<string, unknown>>;
  /** The section of that name: the masters' journal is in shared storage then. */
  readonly zookeeper?: Readonly<Record<string, unknown>> & { readonly store: string };
  /** Where master `index` sees the store, if not all see it at one place. */
  readonly storeOf?: (index: number) => string;
  readonly environment?: NodeJS.ProcessEnv;
  /** Where master `index` (from 0) listens; 127.0.0.1 if absent. */
  readonly host?: (index: number) => string;
  /** What its process is started with: `ip netns exec NAME`. */
  readonly prefix?: (index: number) => readonly string[];
};

const askTimeoutMs = 1000;
const leaderTimeoutMs = 30_000;
const pollMs = 20;
const mastersMax = 24;
const portsPerMaster = 3;

/** One master: what stays of it when its process ends. */
export class MasterNode {
  readonly index: number;
  readonly id: string;
  /** `host:port`. */
  readonly rpc: string;
  readonly http: string;
  readonly journal: string;
  readonly directory: string;
  /** Once it has been ready. */
  role: StartedRole | undefined;
  /** From its start on. */
  process: ServerProcess | undefined;

  constructor(index: number, host: string, port: number, directory: string) {
    this.index = index;
    this.id = `m${index + 1}`;
    this.rpc = `${host}:${port}`;
    this.http = `${host}:${port + 1}`;
    this.journal = `${host}:${port + 2}`;
    this.directory = join(directory, this.id);
  }

  get isRunning(): boolean {
    return this.process !== undefined && !this.process.hasExited;
  }

  /** What it says of the cluster; `undefined`: no answer within a second. */
  async status(): Promise<ClusterStatus | undefined> {
    try {
      const response = await fetch(`http://${this.http}/api/v1/cluster`, { signal: AbortSignal.timeout(askTimeoutMs) });
      return response.ok ? ((await response.json()) as ClusterStatus) : undefined;
    } catch {
      return undefined;
    }
  }

  /** What `/readyz` says. */
  async readiness(): Promise<{ readonly status: number; readonly text: string }> {
    const response = await fetch(`http://${this.http}/readyz`, { signal: AbortSignal.timeout(2 * askTimeoutMs) });
    return { status: response.status, text: (await response.text()).trim() };
  }

  /** SIGKILL, and its end. */
  async kill(): Promise<void> {
    await this.process?.stop("SIGKILL");
  }

  /** Stands still as a hung machine does: connections stay, nothing is answered. */
  pause(): void {
    this.process?.child.kill("SIGSTOP");
  }

  resume(): void {
    this.process?.child.kill("SIGCONT");
  }

  /** The end of what it logged. */
  get log(): string {
    return this.process?.log ?? "";
  }
}

export class MasterGroup {
  readonly clusterId = randomUUID() as string as ClusterId;
  readonly nodes: MasterNode[] = [];
  readonly #options: MasterGroupOptions;
  #portBase: number | undefined;
  #founders: Readonly<Record<string, string>> = {};

  constructor(options: MasterGroupOptions) {
    this.#options = options;
  }

  /** The seeds for clients: the RPC addresses of all of them. */
  get addresses(): string[] {
    return this.nodes.map(({ rpc }) => rpc);
  }

  /** Founds a cluster of `count` masters; resolves when one leads. */
  async found(count: number): Promise<void> {
    for (let made = 0; made < count; made++) await this.addNode();
    this.#founders = Object.fromEntries(this.nodes.map(({ id, journal }) => [id, journal]));
    // All are waited for: one that is left starting would live on.
    const started = await Promise.allSettled(this.nodes.map((node) => this.start(node)));
    for (const outcome of started) if (outcome.status === "rejected") throw outcome.reason;
    await this.leader();
  }

  /** Starts a master that does not run; with what it has on its disk. */
  async start(node: MasterNode, args: readonly string[] = [], readyTimeoutMs?: number): Promise<void> {
    const { directory, master, journal, raft, environment = process.env, prefix } = this.#options;
    const zookeeper = this.#sharedBy(node.index);
    const replicated = {
      type: "raft",
      raft: {
        listen: node.journal,
        ...(this.#founders[node.id] === undefined ? {} : { members: this.#founders }),
        ...raft,
      },
    };
    const isFounder = this.#founders[node.id] !== undefined;
    if (isFounder) await this.#format(node);
    node.role = await startConfiguredRole(
      node.id,
      "master",
      directory,
      {
        cluster: { name: "test", ...(isFounder ? { id: this.clusterId } : {}) },
        master: {
          id: node.id,
          dir: node.directory,
          rpc: node.rpc,
          http: node.http,
          workerTimeout: "2s",
          ...master,
        },
        journal: { ...(zookeeper === undefined ? replicated : { type: "zookeeper", zookeeper }), ...journal },
      },
      {
        environment,
        args,
        prefix: prefix?.(node.index) ?? [],
        onSpawn: (process) => (node.process = process),
        ...(readyTimeoutMs === undefined ? {} : { readyTimeoutMs }),
      },
    );
  }

  /** What an operator does once, and a careless one again when the disk is lost. */
  async #format({ id, directory, index }: MasterNode): Promise<void> {
    const disk = new NodeDisk({ isPrivate: true });
    await disk.makeDirectory(directory);
    if (!(await isEmpty(disk, directory))) return;
    const clock = new NodeClock();
    const { clusterId } = this;
    const zookeeper = this.#sharedBy(index);
    if (zookeeper === undefined) {
      const journal = { type: "raft", id: id as MasterId, founders: this.#founders, clusterId } as const;
      await formatMaster({ disk, clock, directory, journal });
      return;
    }
    const { environment = process.env } = this.#options;
    const parts = { disk, clock, logger: silentLogger, metrics: new Metrics(), environment };
    const options = (zookeeper["storeOptions"] ?? {}) as Readonly<Record<string, string>>;
    const store = await openSharedStore(zookeeper.store, options, parts);
    await formatMaster({
      disk,
      clock,
      directory,
      journal: { type: "zookeeper", id: id as MasterId, clusterId, store },
    });
    await store.close();
  }

  /** Ends it by `signal` (default: kill -9), and starts it again. */
  async restart(node: MasterNode, signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    await node.process?.stop(signal);
    await this.start(node);
  }

  /** A new master, which joins; `replace`: the id of a dead one that it takes the place of. Resolves when it is what it shall be. */
  async join(
    options: { readonly replace?: string; readonly learner?: boolean; readonly readyTimeoutMs?: number } = {},
  ): Promise<MasterNode> {
    const seeds = this.addresses.join(",");
    const node = await this.addNode();
    const { replace, learner } = options;
    const args = [...(replace === undefined ? [] : ["--replace", replace]), ...(learner === true ? ["--learner"] : [])];
    await this.start(node, ["--join", seeds, ...args], options.readyTimeoutMs);
    return node;
  }

  /** Takes its disk away. It must not run. */
  async wipe(node: MasterNode): Promise<void> {
    await rm(node.directory, { recursive: true, force: true });
  }

  /** Puts its disk aside, until `restore` brings it back in place of the one that it has then. It must not run. */
  async hide(node: MasterNode): Promise<void> {
    await rename(node.directory, `${node.directory}.away`);
  }

  async restore(node: MasterNode): Promise<void> {
    await this.wipe(node);
    await rename(`${node.directory}.away`, node.directory);
  }

  /**
   * Who says that it leads, in the highest term that anybody tells of; waits for one. With `except`: another one than this,
   * for instance than the one that has just been killed.
   */
  async leader(options: { readonly except?: MasterNode; readonly timeoutMs?: number } = {}): Promise<MasterNode> {
    const { except, timeoutMs = leaderTimeoutMs } = options;
    const endMs = performance.now() + timeoutMs;
    for (;;) {
      const asked = this.nodes.filter((node) => node.isRunning && node !== except);
      const answers = await Promise.all(asked.map(async (node) => ({ node, status: await node.status() })));
      const leaders = answers
        .filter(({ node, status }) => status?.masters.find(({ id }) => id === node.id)?.role === "leader")
        .sort((a, b) => (b.status?.term ?? 0) - (a.status?.term ?? 0));
      const [found] = leaders;
      if (found !== undefined) return found.node;
      if (performance.now() > endMs) throw new Error(`nobody leads after ${timeoutMs} ms:\n${this.#logs()}`);
      await sleep(pollMs);
    }
  }

  async standbys(): Promise<MasterNode[]> {
    const leader = await this.leader();
    return this.nodes.filter((node) => node !== leader && node.isRunning);
  }

  /** Resolves when all that run have applied the same entries and have the same digest; throws if their states differ. */
  async settled(timeoutMs = leaderTimeoutMs): Promise<{ readonly appliedIndex: number; readonly digest: string }> {
    const endMs = performance.now() + timeoutMs;
    for (;;) {
      const running = this.nodes.filter((node) => node.isRunning);
      const rows = await Promise.all(
        running.map(async (node) => (await node.status())?.masters.find(({ id }) => id === node.id)),
      );
      const [first] = rows;
      const level = rows.every(
        (row) => row !== undefined && row.digestIndex === row.appliedIndex && row.appliedIndex === first?.appliedIndex,
      );
      if (level && first !== undefined) {
        const digests = rows.map((row) => `${row?.id}: ${row?.digest}`);
        if (new Set(rows.map((row) => row?.digest)).size > 1)
          throw new Error(`states differ at ${first.appliedIndex}: ${digests.join(", ")}`);
        return { appliedIndex: first.appliedIndex, digest: first.digest };
      }
      if (performance.now() > endMs) throw new Error(`not level after ${timeoutMs} ms: ${JSON.stringify(rows)}`);
      await sleep(pollMs);
    }
  }

  /** Kills all of them. */
  async close(): Promise<void> {
    for (const node of this.nodes) if (node.isRunning) node.resume();
    await Promise.all(this.nodes.map((node) => node.kill()));
  }

  /** One more, with an empty directory, which is not started. */
  async addNode(): Promise<MasterNode> {
    const index = this.nodes.length;
    const host = this.#options.host?.(index) ?? "127.0.0.1";
    if (index === mastersMax) throw new Error(`a group has at most ${mastersMax} masters in its life`);
    this.#portBase ??= await freePortBlock(mastersMax * portsPerMaster);
    const node = new MasterNode(index, host, this.#portBase + index * portsPerMaster, this.#options.directory);
    this.nodes.push(node);
    return node;
  }

  #sharedBy(index: number): MasterGroupOptions["zookeeper"] {
    const { zookeeper, storeOf } = this.#options;
    return zookeeper === undefined ? undefined : { ...zookeeper, store: storeOf?.(index) ?? zookeeper.store };
  }

  #logs(): string {
    return this.nodes.map(({ id, log }) => `== ${id}\n${log}`).join("\n");
  }
}
