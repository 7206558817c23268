/**
 * Faults at masters on hosts of their own, one after the other or all at once, as a program inside `runInNamespaces`; clients
 * work all the time, and what they saw must be linearizable. Prints what it does and how long each fault kept changes from being
 * acknowledged; ends with 1 and the reason when a promise was broken.
 *
 *   masters-faults.ts SCENARIO SEED DIRECTORY
 */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { isHeadpondError } from "../base/errors.ts";
import { connect } from "../client/client.ts";
import type { MasterNode } from "./master-group.ts";
import { fillDisk, recoveryMsMax, runScenario, type Scenario, Stage, say } from "./masters-stage.ts";

/** Of 16 changes of 60 KB each: more than a master keeps ready of its log. */
const largeRounds = 150;

const scenarios: Readonly<Record<string, Scenario>> = {
  processes: { masters: 3, run: processFaults },
  links: { masters: 3, run: linkFaults },
  disks: { masters: 3, run: diskFaults },
  five: { masters: 5, run: faultsOfFive },
  all: { masters: 5, run: (stage) => allAtOnce(stage, 50_000) },
};

async function processFaults(stage: Stage): Promise<void> {
  const { group } = stage;
  let node = await stage.leader();
  await stage.fault(
    "leader killed",
    () => node.kill(),
    () => group.start(node),
  );
  [node] = (await stage.followers()) as [MasterNode];
  await stage.fault(
    "follower killed",
    () => node.kill(),
    () => group.start(node),
  );
  node = await stage.leader();
  await stage.fault(
    "leader frozen",
    () => node.pause(),
    () => node.resume(),
    2000,
  );
  [node] = (await stage.followers()) as [MasterNode];
  await stage.fault(
    "follower frozen",
    () => node.pause(),
    () => node.resume(),
    2000,
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

async function linkFaults(stage: Stage): Promise<void> {
  const { network } = stage;
  const heal = (): void => network.heal();
  const leaderId = async (): Promise<string> => (await stage.leader()).id;
  const followerIds = async (): Promise<[string, string]> =>
    (await stage.followers()).map(({ id }) => id) as [string, string];

  let leader = await leaderId();
  await stage.fault("leader cut off from masters", () => network.split([leader]), heal);
  leader = await leaderId();
  await stage.fault(
    "leader cut off from masters and clients",
    () => {
      network.split([leader]);
      network.cut([leader, "self"]);
    },
    heal,
  );
  leader = await leaderId();
  let [one, other] = await followerIds();
  await stage.fault(
    "leader hears nobody, one way",
    () => {
      for (const from of [one, other]) network.cutOneWay(from, leader);
    },
    heal,
  );
  leader = await leaderId();
  [one, other] = await followerIds();
  await stage.fault(
    "nobody hears the leader, one way",
    () => {
      for (const to of [one, other]) network.cutOneWay(leader, to);
    },
    heal,
  );
  leader = await leaderId();
  [one, other] = await followerIds();
  await stage.fault("leader and one follower cut, both hear the other", () => network.cut([leader, one]), heal, 3000);
  [one, other] = await followerIds();
  await stage.fault("the followers cut from each other", () => network.cut([one, other]), heal, 2000);
  leader = await leaderId();
  await stage.fault("leader's link loses 10 %", () => network.lose(leader, 10), heal, 2000);
  leader = await leaderId();
  await stage.fault("leader's link has 1 Mbit/s", () => network.slow(leader, 1000), heal, 2000);
  [one] = await followerIds();
  await stage.fault(
    "a follower's link has 200 kbit/s and loses 5 %",
    () => {
      network.slow(one, 200);
      network.lose(one, 5);
    },
    heal,
    2000,
  );
}

async function diskFaults(stage: Stage): Promise<void> {
  const [follower] = (await stage.followers()) as [MasterNode];
  let free = await fillDisk(follower);
  await stage.fault("follower's disk full", () => writeUntilFull(stage, follower), free);
  const leader = await stage.leader();
  const struckMs = performance.now();
  free = await fillDisk(leader);
  const refused = await writeUntilFull(stage, leader);
  const isLeader = (await stage.leader()) === leader;
  say(
    `leader's disk full: ${refused} large changes were refused as no-space; it ${isLeader ? "still" : "no longer"} leads`,
  );
  await sleep(1000);
  free();
  const ms = await stage.clients.untilAcknowledged(performance.now(), recoveryMsMax);
  await stage.level();
  const gapMs = stage.clients.longestGapMs(struckMs);
  say(
    `leader's disk full: changes went on ${ms.toFixed(0)} ms after there was room, longest gap ${gapMs.toFixed(0)} ms`,
  );
}

async function faultsOfFive(stage: Stage): Promise<void> {
  const { group, network } = stage;
  const heal = (): void => network.heal();
  const victims = [await stage.leader(), (await stage.followers())[0] as MasterNode];
  await stage.fault(
    "leader and a follower killed",
    () => Promise.all(victims.map((node) => node.kill())),
    () => Promise.all(victims.map((node) => group.start(node))),
  );
  let leader = (await stage.leader()).id;
  let others = (await stage.followers()).map(({ id }) => id);
  await stage.fault("leader in the smaller half", () => network.split([leader, others[0] as string]), heal);
  leader = (await stage.leader()).id;
  others = (await stage.followers()).map(({ id }) => id);
  await stage.fault(
    "leader hears one of four",
    () => network.cut(...others.slice(1).map((id) => [leader, id] as const)),
    heal,
    2000,
  );
  leader = (await stage.leader()).id;
  others = (await stage.followers()).map(({ id }) => id);
  // Each hears its two neighbours only: nobody hears all, and everybody hears a majority with itself.
  const ring = [leader, ...others];
  const apart = ring.flatMap((one, i) =>
    ring.slice(i + 1).flatMap((other, k) => (k === 0 || (i === 0 && k === 3) ? [] : [[one, other] as const])),
  );
  await stage.fault("a ring: each hears its two neighbours", () => network.cut(...apart), heal, 2000);
  await stage.fault(
    "the network flaps",
    async () => {
      for (let round = 0; round < 8; round++) {
        network.split(stage.random.shuffle([...ring]).slice(0, 2));
        await sleep(stage.random.between(50, 400));
        network.heal();
        await sleep(stage.random.between(10, 200));
      }
    },
    heal,
  );
}

/** Whatever comes to mind, a majority or not, for so long; then all is healed, and it must go on. */
async function allAtOnce(stage: Stage, durationMs: number): Promise<void> {
  const { network, group, random } = stage;
  const endMs = performance.now() + durationMs;
  const frozen = new Set<MasterNode>();
  const dead = new Set<MasterNode>();
  const ids = group.nodes.map(({ id }) => id);
  const any = (): MasterNode => group.nodes[random.between(0, group.nodes.length - 1)] as MasterNode;
  const free: (() => void)[] = [];
  const began = stage.clients.acknowledged;
  let lastCount = began;
  while (performance.now() < endMs) {
    const node = any();
    const dice = random.between(0, 11);
    if (dice <= 1 && dead.size < 3 && !frozen.has(node)) {
      await node.kill();
      dead.add(node);
      say(`kill ${node.id}`);
    } else if (dice <= 3 && dead.size > 0) {
      const [back] = dead;
      await group.start(back as MasterNode);
      dead.delete(back as MasterNode);
      say(`start ${back?.id}`);
    } else if (dice === 4 && !dead.has(node)) {
      node.pause();
      frozen.add(node);
      say(`freeze ${node.id}`);
    } else if (dice === 5) {
      for (const each of frozen) each.resume();
      frozen.clear();
      say("thaw all");
    } else if (dice === 6) {
      const side = random.shuffle([...ids]).slice(0, random.between(1, 2));
      network.split(side);
      say(`split ${side.join(", ")}`);
    } else if (dice === 7) {
      const [from, to] = random.shuffle([...ids]) as [string, string];
      network.cutOneWay(from, to);
      say(`cut ${from} > ${to}`);
    } else if (dice === 8) {
      network.lose(node.id, random.between(1, 20));
      say(`loss at ${node.id}`);
    } else if (dice === 9) {
      network.slow(node.id, random.between(200, 5000));
      say(`slow ${node.id}`);
    } else if (dice === 10 && free.length === 0 && node.isRunning) {
      free.push(await fillDisk(node));
      say(`fill the disk of ${node.id}`);
    } else {
      network.heal();
      for (const one of free.splice(0)) one();
      say(`heal links and disks; ${stage.clients.acknowledged - lastCount} changes since the last time`);
      lastCount = stage.clients.acknowledged;
    }
    await sleep(random.between(200, 1800));
  }
  network.heal();
  for (const one of free.splice(0)) one();
  for (const each of frozen) each.resume();
  for (const each of dead) await group.start(each);
  const healedMs = performance.now();
  const ms = await stage.clients.untilAcknowledged(healedMs, recoveryMsMax);
  await stage.level();
  say(`healed: first acknowledged after ${ms.toFixed(0)} ms; ${stage.clients.acknowledged - began} changes in all`);
}

/** Large changes until one is refused, or the log must have met the end of the disk. How many were refused for want of space. */
async function writeUntilFull(stage: Stage, node: MasterNode): Promise<number> {
  const client = connect({ masters: stage.group.addresses });
  const attributes = Object.fromEntries(Array.from({ length: 15 }, (_, n) => [`k${n}`, "x".repeat(4000)]));
  await client.mkdir("/large", { recursive: true });
  let refused = 0;
  const change = async (n: number): Promise<void> => {
    try {
      await client.setAttributes("/large", { set: { ...attributes, n: String(n) } }, { timeoutMs: 3000 });
    } catch (error) {
      if (!isHeadpondError(error, "no-space", "unavailable", "overloaded", "timeout", "unknown-outcome")) throw error;
      if (error.code === "no-space") refused++;
    }
  };
  for (let round = 0; round < largeRounds && refused === 0; round++) {
    await Promise.all(Array.from({ length: 16 }, (_, n) => change(round * 16 + n)));
  }
  await client.close();
  const ready = await fetch(`http://${node.http}/readyz`, { signal: AbortSignal.timeout(5000) });
  const said = (await ready.text()).trim();
  assert.match(said, /no space/, `${node.id} does not say that its disk is full, but: ${said}`);
  say(`${node.id}: ${said}`);
  return refused;
}

await runScenario(scenarios, (count, random, directory) => Stage.open({ count, random, directory }));
