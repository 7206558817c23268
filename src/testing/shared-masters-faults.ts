/**
 * Faults at masters whose journal is in a shared directory and whose primary is elected by a real ensemble, as a program inside
 * `runInNamespaces`: of processes, of ZooKeeper, of the store, and of what is between them. As in masters-faults.ts clients work all the
 * time, and what they saw must be linearizable.
 *
 *   shared-masters-faults.ts SCENARIO SEED DIRECTORY
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../base/random.ts";
import type { MasterNode } from "./master-group.ts";
import { fillDisk, mountDisk, recoveryMsMax, runScenario, type Scenario, Stage, say } from "./masters-stage.ts";
import type { HostNetwork } from "./network-namespaces.ts";
import { withZooKeeper, type ZooKeeperEnsemble } from "./zookeeper-ensemble.ts";

const sessionTimeoutMs = 1000;
const storeMiB = 512;
/** The host of all three servers. */
const zookeeperHost = "zk";
const killRounds = 12;

/** What the masters share. */
type Shared = {
  readonly ensemble: ZooKeeperEnsemble;
  /** Where the store is mounted, and where each master sees it. */
  readonly store: string;
  /** The same, where nobody can write. */
  readonly readOnly: string;
  readonly storeOf: (node: MasterNode) => string;
  readonly end: () => Promise<void>;
};

let shared: Shared;

async function open(count: number, random: Random, directory: string): Promise<Stage> {
  return Stage.open({
    count,
    random,
    directory,
    hosts: [zookeeperHost],
    prepare: async (network) => {
      const ensemble = await startEnsemble(network, directory);
      const store = join(directory, "store");
      mountDisk(store, storeMiB);
      // Each has a mount of its own, so that one can lose it alone.
      const views = Array.from({ length: count }, (_, i) => join(directory, `store-of-m${i + 1}`));
      for (const view of views) {
        mkdirSync(view);
        mount("--bind", store, view);
      }
      const readOnly = join(directory, "store-read-only");
      mkdirSync(readOnly);
      mount("--bind", store, readOnly);
      mount("-o", "remount,bind,ro", readOnly);
      shared = { ...ensemble, store, readOnly, storeOf: ({ index }) => views[index] as string };
      const servers = ensemble.ensemble.servers.map(({ host, port }) => `${host}:${port}`);
      return {
        zookeeper: { servers, root: "/headpond", sessionTimeout: `${sessionTimeoutMs}ms`, store: `file://${store}` },
        storeOf: (index) => `file://${views[index]}`,
      };
    },
  });
}

async function startEnsemble(network: HostNetwork, directory: string): Promise<Pick<Shared, "ensemble" | "end">> {
  const running = Promise.withResolvers<void>();
  const host = network.address(zookeeperHost);
  return new Promise((resolve, reject) => {
    const ended = withZooKeeper(
      directory,
      async (ensemble) => {
        const end = async (): Promise<void> => {
          running.resolve();
          await ended;
        };
        resolve({ ensemble, end });
        await running.promise;
      },
      { host, prefix: network.prefix(zookeeperHost) },
    );
    ended.catch(reject);
  });
}

const scenarios: Readonly<Record<string, Scenario>> = {
  processes: { masters: 3, run: processFaults },
  zookeeper: { masters: 3, run: zookeeperFaults },
  store: { masters: 3, run: storeFaults },
  kills: { masters: 3, run: killsInARow },
};

async function processFaults(stage: Stage): Promise<void> {
  const { group } = stage;
  let node = await stage.leader();
  await stage.fault(
    "primary killed",
    () => node.kill(),
    () => group.start(node),
  );
  node = await stage.leader();
  await stage.fault(
    "primary frozen past its session",
    () => node.pause(),
    () => node.resume(),
    3 * sessionTimeoutMs,
  );
  node = await stage.leader();
  await stage.fault(
    "primary frozen for a moment",
    async () => {
      node.pause();
      await sleep(sessionTimeoutMs / 4);
      node.resume();
    },
    () => {},
  );
  [node] = (await stage.followers()) as [MasterNode];
  await stage.fault(
    "standby killed",
    () => node.kill(),
    () => group.start(node),
  );
  [node] = (await stage.followers()) as [MasterNode];
  await stage.fault(
    "standby frozen past its session",
    () => node.pause(),
    () => node.resume(),
    3 * sessionTimeoutMs,
  );
  for (const each of group.nodes) {
    await stage.fault(
      `${each.id} stopped and started again, in turn`,
      () => each.role?.process.stop("SIGTERM"),
      () => group.start(each),
      0,
    );
  }
  await stage.fault(
    "all killed at once",
    async () => {
      await Promise.all(group.nodes.map((each) => each.kill()));
      await Promise.all(group.nodes.map((each) => group.start(each)));
    },
    () => {},
  );
}

async function zookeeperFaults(stage: Stage): Promise<void> {
  const { network, group, clients } = stage;
  const { ensemble } = shared;
  const heal = (): void => network.heal();
  const servers = [0, 1, 2];
  let leader = await stage.leader();
  let term = (await leader.status())?.term;
  await stage.fault(
    "ZooKeeper down, all of it",
    () => Promise.all(servers.map((i) => ensemble.stop(i))),
    async () => {
      // Long after every session is over in its owner's eyes.
      await sleep(4 * sessionTimeoutMs);
      const before = clients.acknowledged;
      await sleep(sessionTimeoutMs);
      assert.ok(clients.acknowledged > before, "the primary goes on without ZooKeeper");
      await Promise.all(servers.map((i) => ensemble.start(i)));
    },
  );
  assert.equal(await stage.leader(), leader, "it is still the primary");
  assert.equal((await leader.status())?.term, term, "nobody has claimed meanwhile");
  const first = await ensemble.leader();
  await stage.fault(
    "ZooKeeper's leader killed",
    () => ensemble.stop(first),
    () => ensemble.start(first),
    2000,
  );
  const second = await ensemble.leader();
  await stage.fault(
    "ZooKeeper's leader frozen",
    () => ensemble.freeze(second),
    () => ensemble.thaw(second),
    5000,
  );
  await stage.fault("ZooKeeper's link has 100 kbit/s", () => network.slow(zookeeperHost, 100), heal, 4000);
  await stage.fault("ZooKeeper's link loses 20 %", () => network.lose(zookeeperHost, 20), heal, 4000);
  leader = await stage.leader();
  term = (await leader.status())?.term ?? 0;
  await stage.fault(
    "primary cut off from ZooKeeper only",
    () => network.cut([leader.id, zookeeperHost]),
    heal,
    4 * sessionTimeoutMs,
  );
  const followers = await stage.followers();
  await stage.fault(
    "the standbys cut off from ZooKeeper only",
    () => network.cut(...followers.map(({ id }) => [id, zookeeperHost] as const)),
    heal,
    3 * sessionTimeoutMs,
  );
  leader = await stage.leader();
  await stage.fault(
    "primary cut off from the other masters only",
    () => network.cut(...group.nodes.filter((node) => node !== leader).map(({ id }) => [leader.id, id] as const)),
    heal,
    2000,
  );
  leader = await stage.leader();
  await stage.fault(
    "primary cut off from all but the store",
    () =>
      network.cut(
        [leader.id, "self"],
        [leader.id, zookeeperHost],
        ...group.nodes.filter((node) => node !== leader).map(({ id }) => [leader.id, id] as const),
      ),
    heal,
    3 * sessionTimeoutMs,
  );
  leader = await stage.leader();
  await stage.fault(
    "ZooKeeper down and the primary killed: nobody leads until it is back",
    async () => {
      await Promise.all(servers.map((i) => ensemble.stop(i)));
      await leader.kill();
      await sleep(3 * sessionTimeoutMs);
      for (const node of await running(stage)) assert.notEqual(await roleOf(node), "leader", "no new election");
      await Promise.all(servers.map((i) => ensemble.start(i)));
    },
    () => group.start(leader),
  );
}

async function storeFaults(stage: Stage): Promise<void> {
  const { clients, group } = stage;
  const { storeOf, store } = shared;
  const free = await fillDisk({ directory: store });
  const struckMs = performance.now();
  await sleep(3000);
  say(`store full: ${clients.counts.refused} calls were refused so far`);
  free();
  const ms = await clients.untilAcknowledged(performance.now(), recoveryMsMax);
  await stage.level();
  say(
    `store full: changes went on ${ms.toFixed(0)} ms after there was room, longest gap ${clients.longestGapMs(struckMs).toFixed(0)} ms`,
  );
  let node = await stage.leader();
  await stage.fault(
    "primary's mount of the store is read-only",
    () => forbidWrites(node),
    () => allowWrites(node),
    2000,
  );
  [node] = (await stage.followers()) as [MasterNode];
  await stage.fault(
    "a standby's mount of the store is read-only",
    () => forbidWrites(node),
    () => allowWrites(node),
    2000,
  );
  node = await stage.leader();
  await stage.fault(
    "primary's mount of the store is gone, and an empty directory in its place",
    () => run("nsenter", ...mountsOf(node), "umount", "-l", storeOf(node)),
    () => mountAt(node, "--bind", store, storeOf(node)),
    4000,
  );
  [node] = (await stage.followers()) as [MasterNode];
  await stage.fault(
    "a standby's mount of the store is gone, and an empty directory in its place",
    () => run("nsenter", ...mountsOf(node), "umount", "-l", storeOf(node)),
    () => mountAt(node, "--bind", store, storeOf(node)),
    2000,
  );
  const allMs = performance.now();
  for (const each of group.nodes) forbidWrites(each);
  await sleep(8000);
  for (const each of group.nodes) allowWrites(each);
  const backMs = await clients.untilAcknowledged(performance.now(), recoveryMsMax);
  await stage.level();
  say(
    `everybody's mount read-only for 8 s: changes went on ${backMs.toFixed(0)} ms after, longest gap ${clients.longestGapMs(allMs).toFixed(0)} ms`,
  );
}

/** kill -9 of the primary, again and again; sometimes of a standby as well, sometimes before the last one is back. */
async function killsInARow(stage: Stage): Promise<void> {
  const { group, random, clients } = stage;
  const gaps: number[] = [];
  for (let round = 0; round < killRounds; round++) {
    const primary = await stage.leader();
    const others = group.nodes.filter((node) => node !== primary);
    const alsoOne = random.chance(0.3) ? (others[random.between(0, 1)] as MasterNode) : undefined;
    await sleep(random.between(0, 700));
    const struckMs = performance.now();
    await Promise.all([primary.kill(), alsoOne?.kill()]);
    await clients.untilAcknowledged(struckMs, recoveryMsMax);
    await sleep(random.between(0, 300));
    gaps.push(clients.longestGapMs(struckMs));
    await Promise.all([primary, ...(alsoOne === undefined ? [] : [alsoOne])].map((node) => group.start(node)));
    if (random.chance(0.5)) await stage.level();
  }
  await stage.level();
  const sorted = gaps.toSorted((a, b) => a - b).map((gap) => Math.round(gap));
  say(`${killRounds} kills: gaps ${sorted.join(", ")} ms, median ${sorted[Math.floor(sorted.length / 2)]}`);
}

async function running({ group }: Stage): Promise<readonly MasterNode[]> {
  return group.nodes.filter((node) => node.isRunning);
}

async function roleOf(node: MasterNode): Promise<string | undefined> {
  return (await node.status())?.masters.find(({ id }) => id === node.id)?.role;
}

/** As the process of that master sees it: each runs with mounts of its own. */
function mountAt(node: MasterNode, ...args: readonly string[]): void {
  run("nsenter", ...mountsOf(node), "mount", ...args);
}

/** By a mount on top: one that is in use for writing cannot be made read-only. */
function forbidWrites(node: MasterNode): void {
  mountAt(node, "--bind", shared.readOnly, shared.storeOf(node));
}

function allowWrites(node: MasterNode): void {
  run("nsenter", ...mountsOf(node), "umount", "-l", shared.storeOf(node));
}

function mountsOf({ process, id }: MasterNode): readonly string[] {
  if (process === undefined) throw new Error(`${id} does not run`);
  return ["--target", String(process.pid), "--mount"];
}

function mount(...args: readonly string[]): void {
  run("mount", ...args);
}

function run(program: string, ...args: readonly string[]): void {
  const done = spawnSync(program, args);
  assert.equal(done.status, 0, `${program} ${args.join(" ")}: ${String(done.stderr)}`);
}

await runScenario(scenarios, open);
