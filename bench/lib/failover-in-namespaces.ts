/**
 * The part of the failover benchmark that needs hosts and disks of its own, as a program inside `runInNamespaces`: a leader that
 * is cut off from the other masters (not from its clients) or from ZooKeeper too, and one whose disk hangs. One JSON line a round.
 *
 *   failover-in-namespaces.ts cut|cut-zookeeper|hang ROUNDS DIRECTORY
 */

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { MasterGroupOptions, MasterNode } from "../../src/testing/master-group.ts";
import { HostNetwork } from "../../src/testing/network-namespaces.ts";
import { withZooKeeper } from "../../src/testing/zookeeper-ensemble.ts";
import { type Blow, HeadpondMasters } from "./headpond-masters.ts";
import type { FailoverResult } from "./peer.ts";

const ids = ["m1", "m2", "m3"];
/** Of all three servers. */
const zookeeperHost = "zk";
/** Three sessions. */
const cutMs = 3000;
const imageMiB = 1024;

async function main(kind: string, rounds: number, directory: string): Promise<void> {
  const network = HostNetwork.create([...ids, zookeeperHost]);
  const options: MasterGroupOptions = {
    directory,
    host: (index) => network.address(ids[index] as string),
    prefix: (index) => network.prefix(ids[index] as string),
  };
  if (kind !== "cut-zookeeper") {
    if (kind === "hang") for (const id of ids) await mountImage(join(directory, id), join(directory, `${id}.img`));
    const cut: Blow = { strike: (leader) => network.split([leader.id]), relieve: () => network.heal() };
    const hang: Blow = {
      strike: (leader) => freeze(leader, "--freeze"),
      relieve: (leader) => freeze(leader, "--unfreeze"),
    };
    await strikeOften(options, rounds, (masters) => masters.disabled(kind === "cut" ? cut : hang));
    if (kind === "hang") for (const id of ids) spawnSync("umount", [join(directory, id)]);
    return;
  }
  const host = { host: network.address(zookeeperHost), prefix: network.prefix(zookeeperHost) };
  await withZooKeeper(
    directory,
    async ({ servers }) => {
      const store = join(directory, "shared");
      await mkdir(store);
      const addresses = servers.map((server) => `${server.host}:${server.port}`);
      const zookeeper = { servers: addresses, sessionTimeout: "1s", store: `file://${store}` };
      const cut: Blow = {
        strike: ({ id }) => {
          const others = [...ids.filter((other) => other !== id), zookeeperHost];
          network.cut(...others.map((other) => [id, other] as const));
        },
        relieve: () => network.heal(),
      };
      // It goes on until its session is over for the servers, and another one claims.
      await strikeOften({ ...options, zookeeper }, rounds, (masters) => masters.interrupted(cut, cutMs));
    },
    host,
  );
}

async function strikeOften(
  options: MasterGroupOptions,
  rounds: number,
  strike: (masters: HeadpondMasters) => Promise<FailoverResult>,
): Promise<void> {
  const masters = await HeadpondMasters.start(options);
  try {
    for (let round = 0; round < rounds; round++) process.stdout.write(`${JSON.stringify(await strike(masters))}\n`);
  } finally {
    await masters.close();
  }
}

/** A disk of its own, which can be made to hang: nobody's write or flush ends while a file system is frozen. */
async function mountImage(path: string, image: string): Promise<void> {
  await mkdir(path);
  for (const command of [
    ["truncate", "--size", `${imageMiB}M`, image],
    ["mkfs.ext4", "-q", image],
    ["mount", "-o", "loop", image, path],
  ]) {
    const [program = "", ...args] = command;
    const done = spawnSync(program, args);
    if (done.status !== 0) throw new Error(`${command.join(" ")} ended with ${done.status}: ${String(done.stderr)}`);
  }
}

async function freeze({ directory }: MasterNode, how: "--freeze" | "--unfreeze"): Promise<void> {
  const child = spawn("fsfreeze", [how, directory], { stdio: "inherit" });
  const [code] = (await once(child, "close")) as [number];
  if (code !== 0) throw new Error(`fsfreeze ${how} ${directory} ended with ${code}`);
}

const [kind = "", rounds = "", directory = ""] = process.argv.slice(2);
await main(kind, Number(rounds), directory);
