/** The metadata services that ours is measured beside: each started, used and ended, one after the other; what cannot be had is named and left out. */

import { type Alluxio, startAlluxio } from "./alluxio.ts";
import type { BenchmarkContext } from "./benchmark.ts";
import { startEtcd, tunedTimings } from "./etcd.ts";
import type { Peer } from "./peer.ts";
import { startZooKeeper } from "./zookeeper.ts";

export type PeerName = "etcd" | "etcd-tuned" | "zookeeper" | "alluxio-raft" | "alluxio-zookeeper";

/** It takes most of a minute to start and to warm up, and half a minute for each failover. */
const fullOnly: readonly PeerName[] = ["alluxio-raft", "alluxio-zookeeper"];

export async function withEachPeer(
  { size, note }: Pick<BenchmarkContext, "size" | "note">,
  directory: string,
  names: readonly PeerName[],
  use: (peer: Peer, name: PeerName) => Promise<void>,
): Promise<void> {
  for (const name of names) {
    if (fullOnly.includes(name) && size !== "full") {
      note(`${name} is measured in full runs only`);
      continue;
    }
    note(`${name}: starting`);
    const peer = await start(name, directory, note);
    if (peer === undefined) {
      note(`${name} skipped: it cannot be had here`);
      continue;
    }
    try {
      await use(peer, name);
    } finally {
      await peer.close();
    }
  }
}

export function isAlluxio(name: PeerName): boolean {
  return fullOnly.includes(name);
}

function start(name: PeerName, directory: string, note: (text: string) => void): Promise<Peer | Alluxio | undefined> {
  switch (name) {
    case "etcd":
      return startEtcd(directory, 3);
    case "etcd-tuned":
      return startEtcd(directory, 3, tunedTimings);
    case "zookeeper":
      return startZooKeeper(directory);
    case "alluxio-raft":
      return startAlluxio(directory, note);
    case "alluxio-zookeeper":
      return startAlluxio(directory, note, "zookeeper");
  }
}
