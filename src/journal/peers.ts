/**
 * What the Raft journal needs of the other masters: messages of the consensus go and come, checkpoints are streamed, and each says
 * who it is and how far it has come. `tcp-peers.ts` does it over the network, a simulator in memory (docs/raft-journal.md).
 *
 * Messages may be lost, and are never delivered twice or out of order by one connection; the consensus bears worse.
 */

import type { Address } from "../io/network.ts";
import type { Message, NodeId } from "../raft/types.ts";

/** Who a master is, said at the beginning of every connection. */
export type PeerIdentity = {
  readonly clusterId: string;
  readonly id: NodeId;
  /** Random, made by `format`: one disk, one incarnation. */
  readonly incarnation: string;
  /** `host:port` where it can be reached by the other masters, if it knows: it may have moved since the configuration was made. */
  readonly address?: string;
};

/** What a master tells the others about itself, once a second and when it changes. */
export type PeerReport = {
  /** `host:port` for clients and workers. */
  readonly rpc: string;
  readonly http: string;
  readonly appliedIndex: number;
  /** Digest of the state at a multiple of `digestEveryEntries`; index 0: none yet. */
  readonly digestIndex: number;
  readonly digest: string;
  /** Release, and the highest feature level that it understands. */
  readonly software: string;
  readonly featureLevel: number;
  /** The log is empty and the term 0: this disk has promised nothing yet. Absent: false. Founders wait for it (docs/raft-journal.md). */
  readonly fresh?: boolean;
  /** The log's disk has no room for more. Absent: false. */
  readonly full?: boolean;
};

export type SnapshotMessage = Extract<Message, { readonly type: "snapshot" }>;

/** A checkpoint as a file, with what proves that it arrived whole. */
export type CheckpointFile = {
  readonly path: string;
  readonly index: number;
  readonly term: number;
  /** The state machine's digest. */
  readonly digest: string;
  readonly bytes: number;
  readonly xxh64: string;
};

/** Called by the transport. None of them throws. */
export interface PeerEvents {
  /** Why this peer must not be talked to, or `undefined`. Asked before anything else of it is believed. */
  refuses(peer: PeerIdentity): string | undefined;
  onConnected(peer: PeerIdentity): void;
  /** All that came in one chunk, in order. */
  onMessages(messages: readonly Message[]): void;
  onReport(id: NodeId, report: PeerReport): void;
  /** The connection to this peer broke: what was sent may be lost. */
  onUnreachable(id: NodeId): void;
  /** The peer refused us, e.g. because it knows another incarnation of us. */
  onRefused(id: NodeId, reason: string): void;
  onSnapshotProgress(to: NodeId): void;
  onSnapshotSent(to: NodeId): void;
  onSnapshotFailed(to: NodeId, reason: string): void;
  /** A checkpoint has arrived whole, is durable at `file.path` and verified. */
  onSnapshotReceived(message: SnapshotMessage, file: CheckpointFile): void;
}

export interface Peers {
  /** Begins to listen and to connect. Resolves with where it listens. */
  start(self: PeerIdentity, events: PeerEvents): Promise<Address>;
  /** Whom to be connected with, and where: the members but this one. Others are disconnected. */
  setMembers(members: ReadonlyMap<NodeId, Address>): void;
  /** Sends at once, so it is called once for all that there is to say in a turn. Drops what cannot be sent: queues are bounded. */
  send(messages: readonly Message[]): void;
  /** The newest report goes to all, now and at every new connection. */
  report(report: PeerReport): void;
  /** Streams a checkpoint, then hands `message` to the peer. One at a time to each peer; a newer order replaces an older one. */
  sendSnapshot(message: SnapshotMessage, file: CheckpointFile): void;
  close(): Promise<void>;
}
