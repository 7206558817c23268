/**
 * The part of the failover benchmark that needs hosts and disks of its own, as a program inside `runInNamespaces`: a leader that
 * is cut off from the other masters (not from its clients), and one whose disk hangs. One JSON line a round.
 *
 *   failover-in-namespaces.ts cut|hang ROUNDS DIRECTORY
 */

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { MasterNode } from "../../src/testing/master-group.ts";
import { HostNetwork } from "../../src/testing/network-namespaces.ts";
import { type Blow, HeadpondMasters } from "./headpond-masters.ts";

const ids = ["m1", "m2", "m3"];
const imageMiB = 1024;

async function main(kind: string, rounds: number, directory: string): Promise<void> {
  const network = HostNetwork.create(ids);
  if (kind === "hang") for (const id of ids) await mountImage(join(directory, id), join(directory, `${id}.img`));
  const masters = await HeadpondMasters.start({
    directory,
    host: (index) => network.address(ids[index] as string),
    prefix: (index) => network.prefix(ids[index] as string),
  });
  const blow: Blow =
    kind === "cut"
      ? { strike: (leader) => network.split([leader.id]), relieve: () => network.heal() }
      : { strike: (leader) => freeze(leader, "--freeze"), relieve: (leader) => freeze(leader, "--unfreeze") };
  try {
    for (let round = 0; round < rounds; round++) {
      process.stdout.write(`${JSON.stringify(await masters.disabled(blow))}\n`);
    }
  } finally {
    await masters.close();
    if (kind === "hang") for (const id of ids) spawnSync("umount", [join(directory, id)]);
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
