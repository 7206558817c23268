/** The journal of a master by its configuration, and what its directory must be for that. */

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { Config } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import type { Logger } from "../io/logger.ts";
import type { Metrics } from "../io/metrics.ts";
import type { Journal, StateMachine } from "../journal/journal.ts";
import { LocalJournal } from "../journal/local-journal.ts";
import { readIdentity } from "../journal/raft-identity.ts";
import { RaftJournal } from "../journal/raft-journal.ts";
import type { RaftJournalOptions } from "../journal/raft-journal-options.ts";
import { readSharedIdentity } from "../journal/shared-place.ts";
import { TcpPeers } from "../journal/tcp-peers.ts";
import type { CommandResult } from "../namespace/command.ts";
import { featureLevelMax } from "../namespace/feature-level.ts";
import type { Namespace } from "../namespace/namespace.ts";
import { journalDirectory } from "./master-directory.ts";
import type { Doors } from "./serve.ts";
import { makeSharedJournal } from "./serve-shared-journal.ts";
import { version } from "./version.ts";

/** Part of the election timeout for which a quorum's answer is a lease. */
const leaseShare = 0.9;
/** So long a refusal by another master is believed to be why there is no leader; it is repeated when it lasts. */
const refusalMs = 60_000;
/** A tick is a third of a heartbeat, and not shorter than timers are exact. */
const tickMsMin = 5;

export type JournalParts = {
  readonly config: Config;
  readonly doors: Doors;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly clusterId: ClusterId;
  readonly namespace: Namespace;
  /** Of the master's own doors, once they are known. */
  readonly addresses: () => { readonly rpc: string; readonly http: string } | undefined;
  /** Of the journal; by default the usual one of the master's directory. */
  readonly directory?: string;
  /** In place of the namespace itself. */
  readonly machine?: StateMachine<CommandResult>;
  /** As `JournalPlace.succession`. */
  readonly succession?: RaftJournalOptions<unknown>["succession"];
};

export type MadeJournal = {
  readonly journal: Journal<CommandResult>;
  /** Why it must not be relied on; undefined: it can. */
  readonly alarm: () => string | undefined;
  /** What is to be closed after the journal. */
  readonly closeStore?: () => Promise<void>;
};

/** Not started. Throws `invalid` when the directory was made for another type of journal or another master. */
export async function makeJournal(parts: JournalParts): Promise<MadeJournal> {
  const { config, doors, logger, metrics, clusterId, namespace, addresses, succession } = parts;
  const { disk, clock, network, onFatal } = doors;
  const { directory = journalDirectory(config["master.dir"]), machine = namespace } = parts;
  const identity = await readIdentity(disk, directory);
  const shared = await readSharedIdentity(disk, directory);
  if (shared !== undefined && config["journal.type"] !== "zookeeper") {
    throw new HeadpondError(
      "invalid",
      `${directory} is of master ${shared.id} of a journal in shared storage: set journal.type to zookeeper and master.id to ${shared.id}`,
    );
  }
  const common = { disk, clock, logger, metrics, directory, clusterId, machine, onFatal };
  const checkpointEveryBytes = config["journal.checkpointEvery"];
  switch (config["journal.type"]) {
    case "local": {
      if (identity !== undefined) {
        throw new HeadpondError(
          "invalid",
          `${directory} is of member ${identity.id} of a Raft cluster: set journal.type to raft and master.id to ${identity.id}`,
        );
      }
      return { journal: new LocalJournal({ ...common, limits: { checkpointEveryBytes } }), alarm: () => undefined };
    }
    case "raft": {
      const id = config["master.id"];
      if (identity === undefined) {
        throw new HeadpondError(
          "invalid",
          `${directory} holds a local journal: \`headpond journal migrate --dir ${config["master.dir"]} --to raft --id ${id} --listen HOST:PORT\` makes it the first of several`,
        );
      }
      if (identity.id !== id) {
        throw new HeadpondError(
          "invalid",
          `${directory} is of member ${identity.id}, master.id is ${id}: an id belongs to one disk, for ever`,
        );
      }
      const random = new Random(randomBytes(4).readUInt32LE());
      const peers = new TcpPeers({
        network,
        clock,
        logger,
        random,
        listen: config["journal.raft.listen"],
        snapshots: { disk, directory: join(directory, "incoming") },
        limits: { snapshotBytesPerSecond: config["journal.raft.snapshotRate"] },
      });
      const electionTimeoutMs = config["journal.raft.electionTimeout"];
      const heartbeatMs = config["journal.raft.heartbeat"];
      let diverged: string | undefined;
      let refusal: { readonly reason: string; readonly atMs: number } | undefined;
      const journal: RaftJournal<CommandResult> = new RaftJournal<CommandResult>({
        ...common,
        id,
        peers,
        random,
        addresses: () => addresses() ?? { rpc: "", http: "" },
        software: version,
        featureLevel: featureLevelMax,
        succession,
        onDiverged: (details) => (diverged = details),
        onRefused: (_id, reason) => (refusal = { reason, atMs: clock.monotonicMs() }),
        limits: {
          checkpointEveryBytes,
          logKeepBytes: config["journal.raft.logKeep"],
          logMaxBytes: config["journal.raft.logMax"],
          raft: {
            electionTimeoutMs,
            heartbeatMs,
            leaseMs: Math.floor(electionTimeoutMs * leaseShare),
            tickMs: Math.max(tickMsMin, Math.floor(heartbeatMs / 3)),
          },
        },
      });
      const alarm = (): string | undefined => {
        if (diverged !== undefined) return diverged;
        // Who has a leader was refused by somebody who is behind, or is no member himself.
        if (refusal === undefined || journal.role === "leader" || journal.leaderAddress !== undefined) return undefined;
        if (clock.monotonicMs() - refusal.atMs > refusalMs) return undefined;
        return `${refusal.reason}: stop it, empty its directory, and start it with a new master.id and --join HOST:PORT --replace ${id}`;
      };
      return { journal, alarm };
    }
    case "zookeeper": {
      const random = new Random(randomBytes(4).readUInt32LE());
      return makeSharedJournal({
        config,
        doors,
        logger,
        metrics,
        random,
        clusterId,
        directory,
        machine,
        addresses,
      });
    }
    default:
      return config["journal.type"] satisfies never;
  }
}
