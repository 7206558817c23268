/**
 * Who a master is to the others, and whom it believes: `raft.json` beside the log (docs/formats/wal.md) ties an id to a
 * disk by a random incarnation. A disk that was wiped comes back with another one, and is told apart from the member
 * that had promised something.
 *
 * Founding: a disk that is fresh votes for nobody before it has met all founders while they were fresh too, or before a
 * committed configuration names its incarnation. Whoever promised something had a partner whose disk is not fresh any more, so a wiped founder
 * never meets all of them fresh again (docs/raft-journal.md).
 */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Disk } from "../io/disk.ts";
import { configurationFromJson, configurationToJson } from "../raft/membership.ts";
import type { Configuration, NodeId } from "../raft/types.ts";
import { readCheckedJson, writeCheckedJson } from "./journal-meta.ts";
import type { PeerIdentity } from "./peers.ts";

const fileName = "raft.json";

/** What `format` wrote, and what founding added. */
export type RaftIdentityFile = {
  readonly id: NodeId;
  readonly incarnation: string;
  /** The founders' configuration, in force at index 0; `undefined`: this master joins a cluster that exists. */
  readonly founders: Configuration | undefined;
  /** The incarnations of all founders, once they have met. */
  readonly met: Readonly<Record<NodeId, string>> | undefined;
};

export async function writeIdentity(disk: Disk, directory: string, identity: RaftIdentityFile): Promise<void> {
  const { id, incarnation, founders, met } = identity;
  await writeCheckedJson(disk, directory, fileName, {
    id,
    incarnation,
    founders: founders === undefined ? null : configurationToJson(founders),
    met: met ?? null,
  });
}

/** `undefined` if the journal was not formatted for Raft. Throws `corrupt`. */
export async function readIdentity(disk: Disk, directory: string): Promise<RaftIdentityFile | undefined> {
  const path = `${directory}/${fileName}`;
  const found = await readCheckedJson(disk, path);
  if (found === undefined) return undefined;
  const { id, incarnation, founders, met } = found as Partial<Record<keyof RaftIdentityFile, unknown>>;
  try {
    if (typeof id !== "string" || typeof incarnation !== "string") throw new Error("id or incarnation");
    return {
      id,
      incarnation,
      founders: founders === null ? undefined : configurationFromJson(founders),
      met: met === null ? undefined : (met as Record<NodeId, string>),
    };
  } catch (cause) {
    throw new HeadpondError("corrupt", `${path}: offset 0: it does not name a member of a cluster`, {
      cause,
      details: { file: path, offset: 0 },
    });
  }
}

/** Durable when it resolves: the journal is a local one again. */
export async function removeIdentity(disk: Disk, directory: string): Promise<void> {
  await disk.unlink(`${directory}/${fileName}`);
  await disk.syncDirectory(directory);
}

export class RaftIdentity {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #clusterId: ClusterId;
  #file: RaftIdentityFile;
  /** Incarnations of the peers as of their last connection. */
  readonly #seen = new Map<NodeId, string>();
  /** Founders that were fresh when they were met, with their incarnations. */
  readonly #fresh = new Map<NodeId, string>();

  constructor(options: {
    readonly disk: Disk;
    readonly directory: string;
    readonly clusterId: ClusterId;
    readonly file: RaftIdentityFile;
  }) {
    this.#disk = options.disk;
    this.#directory = options.directory;
    this.#clusterId = options.clusterId;
    this.#file = options.file;
  }

  get self(): PeerIdentity {
    return { clusterId: this.#clusterId, id: this.#file.id, incarnation: this.#file.incarnation };
  }

  get founders(): Configuration | undefined {
    return this.#file.founders;
  }

  /** Whether the founders have met: nothing that this disk ever promised can have been forgotten. */
  get isFounded(): boolean {
    return this.#file.met !== undefined;
  }

  /** Whether `configuration`, which is committed, names this very disk. */
  isNamedBy(configuration: Configuration): boolean {
    return configuration.members[this.#file.id]?.incarnation === this.#file.incarnation;
  }

  /** As the configuration has it, else as the founders met, else as it was seen last; empty: not known. */
  incarnationOf(id: NodeId, configuration: Configuration): string {
    return this.#known(id, configuration) ?? this.#seen.get(id) ?? "";
  }

  /** Why this peer must not be talked to. */
  refuses(peer: PeerIdentity, configuration: Configuration): string | undefined {
    const { clusterId, id, incarnation } = this.self;
    if (peer.clusterId !== clusterId) {
      return `${peer.id} belongs to cluster ${peer.clusterId}, ${id} to ${clusterId}: check journal.raft.members`;
    }
    if (peer.id === id) {
      return peer.incarnation === incarnation
        ? `${id} met itself: check the addresses in journal.raft.members`
        : `another master is called ${id} too: give each its own master.id`;
    }
    const known = this.#known(peer.id, configuration);
    if (known === undefined || known === peer.incarnation) return undefined;
    return `${peer.id} has another disk than the one that is a member: remove it and add it under a new id`;
  }

  connected(peer: PeerIdentity): void {
    if (this.#seen.get(peer.id) !== peer.incarnation) this.#fresh.delete(peer.id);
    this.#seen.set(peer.id, peer.incarnation);
  }

  /** `fresh`: as the peer says of itself. Whether all founders have been met now, for the first time. */
  reported(id: NodeId, fresh: boolean): boolean {
    const { founders, met } = this.#file;
    if (founders === undefined || met !== undefined) return false;
    const incarnation = this.#seen.get(id);
    if (fresh && incarnation !== undefined) this.#fresh.set(id, incarnation);
    else this.#fresh.delete(id);
    return this.hasMetAll;
  }

  /** Whether every other founder was fresh when it was heard of last. */
  get hasMetAll(): boolean {
    const { founders, id } = this.#file;
    return founders?.voters.every((voter) => voter === id || this.#fresh.has(voter)) ?? false;
  }

  /** Writes down that the founders have met. Durable when it resolves: only then this disk may promise something. */
  async found(): Promise<void> {
    const { id, incarnation } = this.#file;
    const file = { ...this.#file, met: { ...Object.fromEntries(this.#fresh), [id]: incarnation } };
    await writeIdentity(this.#disk, this.#directory, file);
    this.#file = file;
  }

  #known(id: NodeId, configuration: Configuration): string | undefined {
    const named = configuration.members[id]?.incarnation;
    if (named !== undefined && named !== "") return named;
    return this.#file.met?.[id];
  }
}
