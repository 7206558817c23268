/**
 * Three masters of ours on each journal, for benchmarks that compare them: Raft; ZooKeeper with a directory; ZooKeeper with a bucket of a
 * real S3 server. One after the other, each with servers and directories of its own.
 */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { MasterGroupOptions } from "../../src/testing/master-group.ts";
import { findS3Server, type S3Server, startS3Server } from "../../src/testing/s3-server.ts";
import { hasZooKeeper, withZooKeeper, type ZooKeeperEnsemble } from "../../src/testing/zookeeper-ensemble.ts";

export type JournalKind = "raft" | "zookeeper-directory" | "zookeeper-s3";

export const journalKinds: readonly JournalKind[] = ["raft", "zookeeper-directory", "zookeeper-s3"];

export type JournalParts = {
  readonly options: MasterGroupOptions;
  readonly ensemble: ZooKeeperEnsemble | undefined;
  readonly s3: S3Server | undefined;
};

const bucket = "journal";

/** Why `kind` cannot be had here; `undefined`: it can. */
export async function whyNoJournal(kind: JournalKind): Promise<string | undefined> {
  if (kind !== "raft" && !(await hasZooKeeper())) return "no ZooKeeper is installed";
  if (kind !== "zookeeper-s3") return undefined;
  const found = await findS3Server();
  return "missing" in found ? found.missing : undefined;
}

/** What masters on `kind` are started with; the servers that they need live for as long as `use` runs. */
export async function withJournal<T>(
  kind: JournalKind,
  directory: string,
  use: (parts: JournalParts) => Promise<T>,
): Promise<T> {
  await mkdir(directory, { recursive: true });
  if (kind === "raft") return use({ options: { directory }, ensemble: undefined, s3: undefined });
  return withZooKeeper(directory, async (ensemble) => {
    const servers = ensemble.servers.map(({ host, port }) => `${host}:${port}`);
    if (kind === "zookeeper-directory") {
      const path = join(directory, "shared");
      await mkdir(path);
      const zookeeper = { servers, sessionTimeout: "1s", store: `file://${path}` };
      return use({ options: { directory, zookeeper }, ensemble, s3: undefined });
    }
    const found = await findS3Server();
    if ("missing" in found) throw new Error(found.missing);
    const s3 = await startS3Server(found);
    try {
      s3.makeBucket(bucket);
      const { endpoint, region, accessKeyId, secretAccessKey } = s3;
      const storeOptions = { endpoint, region, accessKeyId, secretAccessKey };
      const zookeeper = { servers, sessionTimeout: "1s", store: `s3://${bucket}`, storeOptions };
      return await use({ options: { directory, zookeeper }, ensemble, s3 });
    } finally {
      await s3.close();
    }
  });
}
