/** A master's side of the traffic between masters, for tests: what it was told, in order, and a way to wait for it. */

import { Random } from "../base/random.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { type LogFields, type Logger, silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import type { Address, Network } from "../io/network.ts";
import type { Message, NodeId } from "../raft/types.ts";
import type { CheckpointFile, PeerEvents, PeerIdentity, PeerReport, SnapshotMessage } from "./peers.ts";
import { TcpPeers, type TcpPeersLimits } from "./tcp-peers.ts";

export const anyReport: PeerReport = {
  rpc: "h1:7070",
  http: "h1:7071",
  appliedIndex: 41,
  digestIndex: 40,
  digest: "00ff00ff00ff00ff",
  software: "0.1.0",
  featureLevel: 1,
};

export class TestMaster implements PeerEvents {
  readonly id: NodeId;
  readonly peers: TcpPeers;
  readonly messages: Message[] = [];
  readonly connected: PeerIdentity[] = [];
  readonly unreachable: NodeId[] = [];
  readonly refused: { readonly id: NodeId; readonly reason: string }[] = [];
  readonly reports: { readonly id: NodeId; readonly report: PeerReport }[] = [];
  readonly sent: NodeId[] = [];
  readonly progressed: NodeId[] = [];
  readonly failed: { readonly to: NodeId; readonly reason: string }[] = [];
  readonly received: { readonly message: SnapshotMessage; readonly file: CheckpointFile }[] = [];
  readonly logLines: { readonly text: string; readonly fields: LogFields | undefined }[] = [];
  readonly identity: PeerIdentity;
  refusal: (peer: PeerIdentity) => string | undefined = () => undefined;
  address: Address = { host: "127.0.0.1", port: 0 };

  constructor(options: {
    readonly id: NodeId;
    readonly network: Network;
    readonly clock: Clock;
    readonly listen?: Address;
    readonly limits?: Partial<TcpPeersLimits>;
    readonly identity?: Partial<PeerIdentity>;
    readonly seed?: number;
    readonly disk?: Disk;
  }) {
    const { id, network, clock, limits, listen = { host: "127.0.0.1", port: 0 } } = options;
    this.id = id;
    this.identity = { clusterId: "c1", id, incarnation: `disk-of-${id}`, ...options.identity };
    const random = new Random(options.seed ?? 1);
    const logger: Logger = {
      ...silentLogger,
      info: (text, fields) => void this.logLines.push({ text, fields }),
      warn: (text, fields) => void this.logLines.push({ text, fields }),
      child: () => logger,
    };
    const snapshots = { disk: options.disk ?? new MemoryDisk(), directory: `/${id}/incoming` };
    this.peers = new TcpPeers({
      network,
      clock,
      logger,
      random,
      listen,
      snapshots,
      ...(limits === undefined ? {} : { limits }),
    });
  }

  async start(): Promise<this> {
    this.address = await this.peers.start(this.identity, this);
    return this;
  }

  /** Whom it is to be connected with; it may be told of itself, too. */
  meet(others: readonly { readonly id: NodeId; readonly address: Address }[]): void {
    this.peers.setMembers(new Map(others.map(({ id, address }) => [id, address])));
  }

  refuses(peer: PeerIdentity): string | undefined {
    return this.refusal(peer);
  }

  onConnected(peer: PeerIdentity): void {
    this.connected.push(peer);
  }

  onMessages(messages: readonly Message[]): void {
    this.messages.push(...messages);
  }

  onReport(id: NodeId, report: PeerReport): void {
    this.reports.push({ id, report });
  }

  onUnreachable(id: NodeId): void {
    this.unreachable.push(id);
  }

  onRefused(id: NodeId, reason: string): void {
    this.refused.push({ id, reason });
  }

  onSnapshotProgress(to: NodeId): void {
    this.progressed.push(to);
  }

  onSnapshotSent(to: NodeId): void {
    this.sent.push(to);
  }

  onSnapshotFailed(to: NodeId, reason: string): void {
    this.failed.push({ to, reason });
  }

  onSnapshotReceived(message: SnapshotMessage, file: CheckpointFile): void {
    this.received.push({ message, file });
  }
}

/** Waits until `isTrue`, and names what it waited for if that takes longer than anything here may take. */
export async function until(what: string, isTrue: () => boolean): Promise<void> {
  const giveUpMs = performance.now() + 20_000;
  while (!isTrue()) {
    if (performance.now() > giveUpMs) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export function heartbeat(from: NodeId, to: NodeId, round: number): Message {
  return { type: "heartbeat", from, to, term: 3, round, commit: 7, sentAtMs: 12.5 };
}

export function append(from: NodeId, to: NodeId, prevIndex: number, payloads: readonly Uint8Array[]): Message {
  const entries = payloads.map((payload, i) => ({
    index: prevIndex + 1 + i,
    term: 3,
    kind: "command" as const,
    payload,
  }));
  return { type: "append", from, to, term: 3, prevIndex, prevTerm: 3, entries, commit: 7, sentAtMs: 12.5 };
}
