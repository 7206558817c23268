/**
 * A cluster of real masters on hosts of their own, and clients that never stop and whose history is checked at the end: what the
 * programs with scenarios of faults stand on (masters-faults.ts, shared-masters-faults.ts). Inside `runInNamespaces` only.
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { toHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { HistoryClients } from "./history-clients.ts";
import { MasterGroup, type MasterGroupOptions, type MasterNode } from "./master-group.ts";
import { HostNetwork } from "./network-namespaces.ts";

/** A fault that leaves a majority has to be over for clients after so long, whatever the machine does beside. */
export const recoveryMsMax = 20_000;
const levelTimeoutMs = 60_000;
const diskMiB = 1024;
const ballastRounds = 3;

export type StageOptions = {
  readonly count: number;
  readonly random: Random;
  readonly directory: string;
  /** Names of hosts beside those of the masters. */
  readonly hosts?: readonly string[];
  readonly prepare?: (network: HostNetwork) => Promise<Partial<MasterGroupOptions>>;
};

/** One cluster, its network, and the clients that never stop. */
export class Stage {
  readonly network: HostNetwork;
  readonly group: MasterGroup;
  readonly clients: HistoryClients;
  readonly random: Random;
  readonly directory: string;

  private constructor(parts: Pick<Stage, "network" | "group" | "clients" | "random" | "directory">) {
    this.network = parts.network;
    this.group = parts.group;
    this.clients = parts.clients;
    this.random = parts.random;
    this.directory = parts.directory;
  }

  /** `prepare` makes what the masters need beside their disks. */
  static async open(options: StageOptions): Promise<Stage> {
    const { count, random, directory, hosts = [], prepare } = options;
    const ids = Array.from({ length: count }, (_, i) => `m${i + 1}`);
    const network = HostNetwork.create([...ids, ...hosts]);
    for (const id of ids) mountDisk(join(directory, id));
    const group = new MasterGroup({
      ...(await prepare?.(network)),
      directory,
      host: (index) => network.address(ids[index] as string),
      prefix: (index) => network.prefix(ids[index] as string),
    });
    await group.found(count);
    const clients = await HistoryClients.start({ masters: group.addresses, ids, random: new Random(random.uint32()) });
    await sleep(500);
    return new Stage({ network, group, clients, random, directory });
  }

  async leader(): Promise<MasterNode> {
    return this.group.leader();
  }

  async followers(): Promise<readonly MasterNode[]> {
    return this.group.standbys();
  }

  /**
   * A fault that a majority survives: strikes, waits until changes are acknowledged again, lets them go on for a while, heals, and
   * waits until all masters are level.
   */
  async fault(name: string, strike: () => unknown, heal: () => unknown, holdMs = 1000): Promise<void> {
    const struckMs = performance.now();
    await strike();
    const firstMs = await this.clients.untilAcknowledged(struckMs, recoveryMsMax);
    await sleep(holdMs);
    await heal();
    await this.level();
    const gapMs = this.clients.longestGapMs(struckMs);
    say(`${name}: first acknowledged after ${firstMs.toFixed(0)} ms, longest gap ${gapMs.toFixed(0)} ms`);
  }

  /** Every master runs, knows a leader and has nearly all that is committed, by its own word: clients go on meanwhile. */
  async level(): Promise<void> {
    const endMs = performance.now() + levelTimeoutMs;
    for (;;) {
      const leader = await this.leader();
      const committed = (await leader.status())?.masters.find(({ id }) => id === leader.id)?.appliedIndex;
      const statuses = await Promise.all(this.group.nodes.map((node) => node.status()));
      const isLevel = this.group.nodes.every(({ id }, i) => {
        const own = statuses[i]?.masters.find((master) => master.id === id);
        const knowsAll = statuses[i]?.masters.every(({ reachable }) => reachable !== false) === true;
        return committed !== undefined && own !== undefined && knowsAll && committed - own.appliedIndex < 2000;
      });
      if (isLevel) return;
      if (performance.now() > endMs) throw new Error(`masters are not level: ${JSON.stringify(statuses)}`);
      await sleep(100);
    }
  }

  /** Ends the clients, compares the masters' states, and checks the history. */
  async judge(): Promise<void> {
    await this.clients.stop();
    const { appliedIndex, digest } = await this.group.settled(levelTimeoutMs);
    const { counts, violations } = this.clients;
    say(`all masters have ${appliedIndex} entries and the digest ${digest}`);
    assert.deepEqual(violations, []);
    const beganMs = performance.now();
    const verdict = this.clients.check();
    const tookMs = (performance.now() - beganMs).toFixed(0);
    say(
      `${counts.returned} calls returned, ${counts.refused} were refused, ${counts.unknown} unknown; checked in ${tookMs} ms`,
    );
    if (verdict.kind === "violation") assert.fail(verdict.explanation);
    assert.equal(verdict.kind, "linearizable", JSON.stringify(verdict));
    assert.ok(counts.returned > 1000, "the clients did next to nothing");
  }

  async close(): Promise<void> {
    await this.group.close();
  }
}

export type Scenario = { readonly masters: number; readonly run: (stage: Stage) => Promise<void> };

/** The scenario, seed and directory that the process was started with: plays it, judges, and ends the process, with 1 if a promise was broken. */
export async function runScenario(
  scenarios: Readonly<Record<string, Scenario>>,
  open: (count: number, random: Random, directory: string) => Promise<Stage>,
): Promise<never> {
  const [name = "", seed = "", directory = ""] = process.argv.slice(2);
  const scenario = scenarios[name];
  assert.ok(scenario !== undefined, `no scenario ${name}: there are ${Object.keys(scenarios).join(", ")}`);
  const stage = await open(scenario.masters, new Random(Number(seed)), directory);
  try {
    await scenario.run(stage);
    await stage.judge();
  } catch (thrown) {
    process.stderr.write(`${thrown instanceof Error ? thrown.stack : toHeadpondError(thrown).message}\n`);
    for (const { id, log } of stage.group.nodes) process.stderr.write(`== ${id}\n${log.slice(-2500)}\n`);
    process.exitCode = 1;
  } finally {
    await stage.close();
  }
  process.exit();
}

/** A small disk in memory: full when it is to be. */
export function mountDisk(path: string, sizeMiB = diskMiB): void {
  mkdirSync(path);
  const done = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${sizeMiB}m`, "tmpfs", path]);
  assert.equal(done.status, 0, String(done.stderr));
}

/** Leaves nothing free; the answer makes room again. */
export async function fillDisk({ directory }: Pick<MasterNode, "directory">): Promise<() => void> {
  const ballast: string[] = [];
  // A master that is about to make a file takes some of the space meanwhile, and gives it back when it finds no more.
  for (let round = 0; round < ballastRounds; round++) {
    const { bavail, bsize } = statfsSync(directory);
    const path = join(directory, `ballast-${round}`);
    ballast.push(path);
    try {
      writeFileSync(path, Buffer.alloc(bavail * bsize));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    }
    await sleep(300);
  }
  return () => {
    for (const path of ballast) rmSync(path, { force: true });
  };
}

export function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
