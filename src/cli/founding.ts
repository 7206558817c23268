/**
 * What a master's journal is made as, by the configuration: a local one, a Raft founder, or one that joins. A cluster's id must never
 * be used for a second cluster, because workers tell by it whose blocks they hold: it is random, or what an operator drew.
 */

import { randomUUID } from "node:crypto";
import { type Config, formatHostPort } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import type { ClusterId, MasterId } from "../base/ids.ts";
import { parseClusterId } from "../base/ids.ts";
import type { NewJournal } from "./master-directory.ts";

/** By `headpond format`: `clusterId` as given on the command line. Throws `invalid` when the founders could not agree on an id. */
export function journalToFormat(config: Config, clusterId: string | undefined): NewJournal {
  const id = clusterId ?? config["cluster.id"];
  const given = id === undefined ? undefined : parseClusterId(id);
  if (config["journal.type"] !== "raft") return { type: "local", clusterId: given ?? newClusterId() };
  const founders = foundersOf(config);
  if (given === undefined && Object.keys(founders).length > 1) {
    throw new HeadpondError(
      "invalid",
      `the founders ${Object.keys(founders).join(", ")} need one cluster id: run \`headpond format --cluster-id ${newClusterId()}\` ` +
        "with this id for each of them, or set cluster.id",
    );
  }
  return { type: "raft", id: config["master.id"] as MasterId, founders, clusterId: given ?? newClusterId() };
}

/**
 * By the first start on an empty directory: only when nothing can be lost by it. With `cluster.id` the cluster may have been there before, and
 * masters whose disks were all wiped would found it anew, empty, under the id by which workers know whose blocks they hold.
 */
export function journalOfFirstStart(config: Config): NewJournal {
  const expected = config["cluster.id"];
  if (expected !== undefined) {
    throw new HeadpondError(
      "not-found",
      `${config["master.dir"]} is empty, and a start does not found cluster ${expected} (cluster.id), which may have been there before. ` +
        "To found it, once and when it never was: `headpond format` for each of its founders. If this disk was lost: start with a new master.id and " +
        "--join HOST:PORT --replace ID. If all were lost: `headpond journal restore` from a backup, or format with a new cluster.id",
    );
  }
  if (config["journal.type"] !== "raft") return journalToFormat(config, undefined);
  const founders = foundersOf(config);
  if (Object.keys(founders).length === 1) return journalToFormat(config, undefined);
  throw new HeadpondError(
    "not-found",
    `${config["master.dir"]} is empty. To found a cluster run \`headpond format --cluster-id ${newClusterId()}\` with this id for each of ` +
      `${Object.keys(founders).join(", ")}; to join one that exists start with --join HOST:PORT of a master`,
  );
}

/** Throws `invalid` unless this master is one of them. */
function foundersOf(config: Config): Readonly<Record<string, string>> {
  const members = config["journal.raft.members"];
  const id = config["master.id"];
  if (Object.keys(members).length === 0) {
    throw new HeadpondError(
      "invalid",
      "journal.raft.members is empty: name the founders and where their journals are reached, e.g. { m1: h1:7072 }; " +
        "a master for a cluster that exists starts with --join HOST:PORT of a master",
    );
  }
  if (members[id] === undefined) {
    const known = Object.keys(members).join(", ");
    throw new HeadpondError(
      "invalid",
      `${id} (master.id) is not in journal.raft.members (${known}): a master for a cluster that exists starts with --join`,
    );
  }
  return Object.fromEntries(Object.entries(members).map(([name, address]) => [name, formatHostPort(address)]));
}

function newClusterId(): ClusterId {
  return randomUUID() as string as ClusterId;
}
