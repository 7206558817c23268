/** Our own masters as the others are measured: several processes on loopback, with either journal, asked through the SDK. */

import { connect, type HeadpondClient } from "../../src/client/client.ts";
import { MasterGroup, type MasterGroupOptions, type MasterNode } from "../../src/testing/master-group.ts";
import { runOutstanding } from "./benchmark.ts";
import { LostWriteProbe, type LostWrites } from "./lost-writes.ts";
import {
  type FailoverResult,
  type LoadResult,
  measureFailover,
  measureGap,
  measureLoad,
  usualFailoverLoad,
} from "./peer.ts";
import { cpuSeconds } from "./processes.ts";
import { StaleReadProbe, type StaleReads } from "./stale-reads.ts";

const directories = 1000;
/** A follower that far behind is not waited for any longer before the next blow. */
const levelTimeoutMs = 60_000;
/** So long a successor goes on before its predecessor comes back, and so long that one is then watched. */
const usefulMs = 500;
const attemptsMax = 5;

/** What happens to a leader, and what ends it. */
export type Blow = {
  readonly strike: (leader: MasterNode) => unknown;
  readonly relieve: (leader: MasterNode) => unknown;
};

export type CpuShares = { readonly leaderUs: number; readonly followerUs: number };

export class HeadpondMasters {
  /** `headpond-raft`, `headpond-zookeeper-directory`, `headpond-zookeeper-s3`. */
  readonly system: string;
  readonly group: MasterGroup;
  readonly client: HeadpondClient;
  #counter = 0;

  private constructor(group: MasterGroup, store: string | undefined) {
    const kind = store?.startsWith("s3:") === true ? "zookeeper-s3" : "zookeeper-directory";
    this.system = `headpond-${store === undefined ? "raft" : kind}`;
    this.group = group;
    this.client = connect({ masters: group.addresses });
  }

  /** `options`: what the group wants otherwise, e.g. other hosts. */
  static async start(options: MasterGroupOptions, count = 3): Promise<HeadpondMasters> {
    const group = new MasterGroup(options);
    try {
      await group.found(count);
      const masters = new HeadpondMasters(group, options.zookeeper?.store);
      await masters.prepare();
      return masters;
    } catch (error) {
      await group.close();
      throw error;
    }
  }

  /** The parents of what `writes` makes. */
  async prepare(): Promise<void> {
    for (let i = 0; i < directories; i += 100) {
      await Promise.all(Array.from({ length: 100 }, (_, k) => this.client.mkdir(`/d${i + k}`)));
    }
  }

  get conditions(): string {
    const durable = {
      "headpond-raft": "durable on a majority",
      "headpond-zookeeper-directory":
        "durable in one directory on a local disk, three ZooKeeper servers (tickTime 500) beside them",
      "headpond-zookeeper-s3":
        "stored by versitygw on loopback (posix backend, which does not fsync), three ZooKeeper servers (tickTime 500) beside them",
    }[this.system];
    return `${this.group.nodes.length} masters on loopback, ${durable}, one connection, parents at random among ${directories} directories`;
  }

  create(client: HeadpondClient = this.client): Promise<unknown> {
    return client.create(pathOf(this.#counter++));
  }

  writes(outstanding: number, seconds: number): Promise<LoadResult> {
    return measureLoad({ outstanding, seconds, task: () => this.create(), servers: this.#processes() });
  }

  /** So many creates, whatever time they take. */
  async writeMany(count: number, outstanding: number): Promise<void> {
    await runOutstanding(count, outstanding, () => this.create());
  }

  /** Linearizable, at the leader. */
  reads(outstanding: number, seconds: number): Promise<LoadResult> {
    const task = (): Promise<unknown> => this.client.stat(this.#somePath());
    return measureLoad({ outstanding, seconds, task, servers: this.#processes() });
  }

  /** Linearizable, of all masters in turn: the standbys ask the leader how far they have to be. */
  readsOfAll(outstanding: number, seconds: number): Promise<LoadResult> {
    const task = (): Promise<unknown> => this.client.stat(this.#somePath(), { from: "any" });
    return measureLoad({ outstanding, seconds, task, servers: this.#processes() });
  }

  /** CPU of the leader and of a follower (their mean) while `run` runs, over `count()` operations of it. */
  async cpuShares(run: () => Promise<LoadResult>): Promise<{ readonly load: LoadResult; readonly cpu: CpuShares }> {
    const leader = await this.group.leader();
    const followers = this.group.nodes.filter((node) => node !== leader && node.isRunning);
    const now = (nodes: readonly MasterNode[]): number =>
      nodes.reduce((sum, node) => sum + (node.role === undefined ? 0 : cpuSeconds(node.role.process)), 0);
    const began = { leader: now([leader]), followers: now(followers) };
    const load = await run();
    const us = (seconds: number): number => (seconds / load.count) * 1e6;
    return {
      load,
      cpu: {
        leaderUs: us(now([leader]) - began.leader),
        followerUs: us((now(followers) - began.followers) / followers.length),
      },
    };
  }

  /** Kills the leader under load and brings it back. */
  async killed(): Promise<FailoverResult> {
    let leader = await this.group.leader();
    const result = await this.struck(
      () => leader.role?.process.child.kill("SIGKILL"),
      async () => {
        leader = await this.group.leader();
      },
    );
    await this.group.restart(leader);
    await this.level();
    return result;
  }

  /**
   * Makes the leader useless under load by `strike`, without an end of its process, waits until another one acknowledges, and for
   * a while longer; then `relieve` lets it go on. Meanwhile it is asked for what it must not know.
   */
  async disabled(blow: Blow): Promise<FailoverResult & { readonly reads: StaleReads; readonly writes: LostWrites }> {
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const leader = await this.group.leader();
      const probe = await StaleReadProbe.start(this.client, leader.rpc, `/probe-${this.#counter++}`);
      const writeProbe = await LostWriteProbe.start(this.client, leader.rpc, `/writes-${this.#counter++}`);
      let result: FailoverResult;
      let reads: StaleReads;
      let writes: LostWrites;
      // On a starved machine another one may lead by now: then this round proves nothing.
      let isLeader = false;
      try {
        result = await this.struck(
          () => isLeader && blow.strike(leader),
          async () => {
            isLeader = (await this.group.leader()) === leader;
          },
        );
        // Its successor has gone on: now the old one comes back, with questions waiting.
        await pause(usefulMs);
      } finally {
        if (isLeader) await blow.relieve(leader);
        await pause(usefulMs);
        reads = await probe.stop();
        writes = await writeProbe.stop();
      }
      await this.level();
      if (isLeader) return { ...result, reads, writes };
    }
    throw new Error(`the leader changed by itself in each of ${attemptsMax} rounds`);
  }

  /**
   * Strikes the leader for `forMs` under load, whether it goes on or not. `ms`: the longest time without an acknowledgement. As in `disabled` it
   * is asked for what it may not know any more.
   */
  async interrupted(
    blow: Blow,
    forMs: number,
  ): Promise<FailoverResult & { readonly reads: StaleReads; readonly writes: LostWrites }> {
    const leader = await this.group.leader();
    const probe = await StaleReadProbe.start(this.client, leader.rpc, `/probe-${this.#counter++}`);
    const writeProbe = await LostWriteProbe.start(this.client, leader.rpc, `/writes-${this.#counter++}`);
    const result = await measureGap({ write: () => this.create(), ...usualFailoverLoad }, async () => {
      await blow.strike(leader);
      await pause(forMs);
      await blow.relieve(leader);
    });
    const reads = await probe.stop();
    const writes = await writeProbe.stop();
    await this.level();
    return { ...result, reads, writes };
  }

  /** Ends the leader by SIGTERM under load, as an operator does, and brings it back. */
  async closed(): Promise<FailoverResult> {
    let leader = await this.group.leader();
    const result = await this.struck(
      () => leader.role?.process.child.kill("SIGTERM"),
      async () => {
        leader = await this.group.leader();
      },
    );
    await this.group.restart(leader, "SIGTERM");
    await this.level();
    return result;
  }

  /** Hands over under load. `ms`: the longest time without an acknowledgement. */
  async transferred(): Promise<FailoverResult> {
    const { id } = await this.group.leader();
    let successor: string | undefined;
    const result = await measureGap({ write: () => this.create(), ...usualFailoverLoad }, async () => {
      successor = await this.client.membership.transfer(undefined);
    });
    if (successor === undefined || successor === id) throw new Error(`${id} handed over to ${successor ?? "nobody"}`);
    await this.level();
    return result;
  }

  /** The usual load, one blow, and the time until a write that began after it was acknowledged. */
  struck(strike: () => unknown, prepare: () => Promise<void>): Promise<FailoverResult> {
    return measureFailover({ write: () => this.create(), ...usualFailoverLoad }, strike, prepare);
  }

  /** Resolves when all masters that run know as much as who leads did at the call. */
  async level(): Promise<void> {
    const endMs = performance.now() + levelTimeoutMs;
    const leader = await this.group.leader();
    const wanted = await appliedBy(leader);
    for (;;) {
      const running = this.group.nodes.filter((node) => node.isRunning);
      const applied = await Promise.all(running.map(appliedBy));
      if (wanted !== undefined && applied.every((index) => index !== undefined && index >= wanted)) return;
      if (performance.now() > endMs) throw new Error(`masters are not level: ${applied.join(", ")}, not ${wanted}`);
      await pause(50);
    }
  }

  async close(): Promise<void> {
    await this.client.close();
    await this.group.close();
  }

  #somePath(): string {
    return pathOf(Math.floor(Math.random() * this.#counter));
  }

  #processes() {
    return this.group.nodes.flatMap(({ role }) => (role === undefined || role.process.hasExited ? [] : [role.process]));
  }
}

/** How far a master's own state is, as it says itself. */
export async function appliedBy(node: MasterNode): Promise<number | undefined> {
  return (await node.status())?.masters.find(({ id }) => id === node.id)?.appliedIndex;
}

function pause(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

function pathOf(i: number): string {
  return `/d${(Math.imul(i, 2654435761) >>> 0) % directories}/file-${i}`;
}
