/**
 * The other masters, over the network (docs/formats/peers.md): each master dials every other one for what it has to say,
 * with one connection for small messages and one for entries. Who is dialled by a master that it does not know yet (it is
 * about to join) answers by the connection that it was dialled by.
 *
 * Promises: what arrives is what was sent, in the order of its connection, from the one whose name it bears; a broken or
 * silent connection is told at once and dialled again; memory is bounded. What cannot be sent is dropped.
 * It leaves out encryption: a `Network` that speaks TLS can take the place of the plain one.
 */

import { assert, present } from "../base/assert.ts";
import type { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import type { Address, Network } from "../io/network.ts";
import type { Message, NodeId } from "../raft/types.ts";
import { decodeMessages } from "./peer-codec.ts";
import type { PeerConnection } from "./peer-connection.ts";
import type { DialEnd, DialOptions } from "./peer-dial.ts";
import { type DoorLimits, PeerDoor } from "./peer-door.ts";
import { type Frame, frameKind } from "./peer-frame.ts";
import { type Hello, type LaneKind, readRefusal } from "./peer-hello.ts";
import { type BackoffLimits, PeerLane } from "./peer-lane.ts";
import { readReport } from "./peer-report.ts";
import { defaultSenderLimits, EntriesCache, PeerSender, type SenderLimits } from "./peer-sender.ts";
import type { CheckpointFile, PeerEvents, PeerIdentity, PeerReport, Peers, SnapshotMessage } from "./peers.ts";
import { SnapshotReceiver } from "./snapshot-receiver.ts";
import { SnapshotSending, Throttle } from "./snapshot-stream.ts";

export type TcpPeersLimits = DoorLimits &
  BackoffLimits &
  SenderLimits & {
    readonly connectTimeoutMs: number;
    readonly keepAliveMs: number;
    /** Beats of the keep-alive without a sound frame after which a connection is given up. */
    readonly silentTicksMax: Readonly<Record<LaneKind, number>>;
    readonly snapshotBytesPerSecond: number;
    /** Beats without progress after which the transfer of a checkpoint has failed. */
    readonly stalledTicksMax: number;
  };

export const defaultTcpPeersLimits: TcpPeersLimits = {
  ...defaultSenderLimits,
  strangersMax: 64,
  connectionsMax: 256,
  helloTimeoutMs: 3_000,
  connectTimeoutMs: 1_000,
  backoffMinMs: 10,
  backoffMaxMs: 1_000,
  keepAliveMs: 250,
  // Longer than a peer stands still that has work for its CPU, shorter than TCP takes to repeat itself after a partition.
  // A pong may wait behind megabytes of entries on a slow link; that of the control connection does not.
  silentTicksMax: { control: 8, log: 40, snapshot: 40 },
  snapshotBytesPerSecond: 256 * MiB,
  stalledTicksMax: 120,
};

/** Of one member: how it is reached, and what it has been sent by which connection. */
type Link = {
  readonly address: Address;
  readonly lanes: Readonly<Record<"control" | "log", PeerLane>>;
};

export class TcpPeers implements Peers {
  readonly #network: Network;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #random: Random;
  readonly #listen: Address;
  readonly #limits: TcpPeersLimits;
  readonly #snapshots: { readonly disk: Disk; readonly directory: string };
  readonly #throttle: Throttle;
  /** Checkpoints that are being sent, one to each peer. */
  readonly #sendings = new Map<NodeId, SnapshotSending>();
  readonly #links = new Map<NodeId, Link>();
  readonly #senders = new Map<PeerConnection, PeerSender>();
  readonly #entries = new EntriesCache();
  /** Connections and transfers that were given up and are not over yet. */
  readonly #ending = new Set<Promise<void>>();
  #self: PeerIdentity | undefined;
  #events: PeerEvents | undefined;
  #door: PeerDoor | undefined;
  #receiver: SnapshotReceiver | undefined;
  #report: PeerReport | undefined;
  #beat: Timer | undefined;
  #isClosed = false;

  constructor(options: {
    readonly network: Network;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly random: Random;
    readonly listen: Address;
    /** Checkpoints are read from this disk, and received into this directory, which is nobody else's. */
    readonly snapshots: { readonly disk: Disk; readonly directory: string };
    readonly limits?: Partial<TcpPeersLimits>;
  }) {
    this.#network = options.network;
    this.#clock = options.clock;
    this.#logger = options.logger.child({ part: "peers" });
    this.#random = options.random;
    this.#listen = options.listen;
    this.#snapshots = options.snapshots;
    this.#limits = { ...defaultTcpPeersLimits, ...options.limits };
    this.#throttle = new Throttle({ clock: this.#clock, bytesPerSecond: this.#limits.snapshotBytesPerSecond });
  }

  async start(self: PeerIdentity, events: PeerEvents): Promise<Address> {
    assert(this.#self === undefined, "peers are started once");
    this.#self = self;
    this.#events = events;
    const door = new PeerDoor({
      network: this.#network,
      clock: this.#clock,
      logger: this.#logger,
      self,
      limits: this.#limits,
      silentTicksMax: this.#limits.silentTicksMax,
      refuses: (peer) => events.refuses(peer),
      onOpen: (connection, hello) => this.#letIn(connection, hello),
      onClosed: (id, lane) => this.#guestLeft(id, lane),
    });
    this.#door = door;
    this.#receiver = new SnapshotReceiver({
      ...this.#snapshots,
      self: self.id,
      logger: this.#logger,
      onReceived: (message, file) => events.onSnapshotReceived(message, file),
    });
    await this.#receiver.start();
    const address = await door.listen(this.#listen);
    this.#plan();
    return address;
  }

  setMembers(members: ReadonlyMap<NodeId, Address>): void {
    const self = present(this.#self, "peers are started before they are told of members");
    if (this.#isClosed) return;
    for (const [id, link] of this.#links) {
      const address = members.get(id);
      if (address !== undefined && address.host === link.address.host && address.port === link.address.port) continue;
      this.#links.delete(id);
      this.#giveUp(link);
      if (address === undefined) this.#door?.disconnect(id, `${id} is no member any more`);
    }
    for (const [id, address] of members) {
      if (id !== self.id && !this.#links.has(id)) this.#links.set(id, this.#link(id, address));
    }
  }

  send(messages: readonly Message[]): void {
    const dirty = new Set<PeerSender>();
    const overflowed = new Set<NodeId>();
    for (const message of messages) {
      assert(message.from === this.#self?.id, () => `a message of ${message.from} is not sent by ${this.#self?.id}`);
      assert(message.type !== "snapshot", "a snapshot is sent with its checkpoint");
      const sender = this.#path(message.to, laneOf(message));
      if (sender === undefined) continue;
      if (sender.add(message)) dirty.add(sender);
      else overflowed.add(message.to);
    }
    // Now, so that the others' disks begin to work before the own one does.
    for (const sender of dirty) sender.flush(this.#entries);
    this.#entries.clear();
    // Whoever sends is not interrupted by what became of it.
    if (overflowed.size > 0) queueMicrotask(() => overflowed.forEach((id) => this.#events?.onUnreachable(id)));
  }

  report(report: PeerReport): void {
    this.#report = report;
    for (const connection of this.#controls()) connection.writeJson(frameKind.report, report);
    for (const connection of this.#controls()) connection.flush();
  }

  sendSnapshot(message: SnapshotMessage, file: CheckpointFile): void {
    const { to } = message;
    const address = this.#links.get(to)?.address;
    const before = this.#sendings.get(to);
    if (this.#isClosed || before?.renew(message, file) === true) return;
    if (before !== undefined) this.#await(before.cancel());
    this.#sendings.delete(to);
    if (address === undefined) {
      queueMicrotask(() => this.#events?.onSnapshotFailed(to, `${to} is no member whose address is known`));
      return;
    }
    const events = present(this.#events, "peers are started before they send");
    const over = (): void => {
      if (this.#sendings.get(to) === sending) this.#sendings.delete(to);
    };
    const sending: SnapshotSending = new SnapshotSending({
      dial: { ...this.#dialOptions(to, address), silentTicksMax: this.#limits.silentTicksMax.snapshot },
      disk: this.#snapshots.disk,
      throttle: this.#throttle,
      message,
      file,
      stalledTicksMax: this.#limits.stalledTicksMax,
      events: {
        onProgress: (id) => events.onSnapshotProgress(id),
        onSent: (id) => {
          over();
          events.onSnapshotSent(id);
        },
        onFailed: (id, reason) => {
          over();
          this.#logger.warn("a checkpoint could not be sent", { peer: id, index: file.index, reason });
          events.onSnapshotFailed(id, reason);
        },
      },
    });
    this.#sendings.set(to, sending);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#beat?.clear();
    for (const link of this.#links.values()) this.#giveUp(link);
    this.#links.clear();
    for (const sending of this.#sendings.values()) this.#await(sending.cancel());
    this.#sendings.clear();
    await this.#door?.close();
    await this.#receiver?.close();
    await Promise.all(this.#ending);
  }

  #link(id: NodeId, address: Address): Link {
    return { address, lanes: { control: this.#lane(id, address, "control"), log: this.#lane(id, address, "log") } };
  }

  #dialOptions(to: NodeId, address: Address): Omit<DialOptions, "onOpen" | "lane" | "silentTicksMax"> {
    const events = present(this.#events, "started");
    return {
      network: this.#network,
      clock: this.#clock,
      self: present(this.#self, "started"),
      to,
      address,
      connectTimeoutMs: this.#limits.connectTimeoutMs,
      helloTimeoutMs: this.#limits.helloTimeoutMs,
      refuses: (peer) => events.refuses(peer),
    };
  }

  #lane(id: NodeId, address: Address, kind: "control" | "log"): PeerLane {
    const silentTicksMax = this.#limits.silentTicksMax[kind];
    const lane: PeerLane = new PeerLane({
      dial: { ...this.#dialOptions(id, address), lane: kind, silentTicksMax },
      backoff: this.#limits,
      random: this.#random,
      logger: this.#logger,
      onOpen: (connection, peer) => this.#opened(connection, peer, kind),
      onEnd: (end) => {
        if (this.#links.get(id)?.lanes[kind] === lane) this.#ended(id, kind, end);
      },
    });
    return lane;
  }

  #giveUp({ lanes }: Link): void {
    this.#await(lanes.control.close());
    this.#await(lanes.log.close());
  }

  /** Something that was given up and ends soon: `close` waits for it. */
  #await(ending: Promise<void>): void {
    this.#ending.add(ending);
    void ending.then(() => this.#ending.delete(ending));
  }

  #opened(connection: PeerConnection, peer: PeerIdentity, kind: "control" | "log"): void {
    this.#serve(connection, peer.id);
    if (kind === "control") this.#tellReport(connection);
    const link = this.#links.get(peer.id);
    if (link === undefined || !isOpen(link)) return;
    this.#logger.info("connected with a peer", { peer: peer.id, remote: connection.remote });
    this.#events?.onConnected(peer);
  }

  #ended(id: NodeId, kind: "control" | "log", end: DialEnd): void {
    if (end.refusal === "theirs" && kind === "control") this.#events?.onRefused(id, end.reason);
    if (!end.wasOpen) return;
    // Without the one the other is of no use, and of a silent peer it would be noticed later.
    if (kind === "control") this.#links.get(id)?.lanes.log.connection?.destroy("the control connection broke");
    this.#events?.onUnreachable(id);
  }

  #letIn(connection: PeerConnection, { peer, lane }: Hello): void {
    if (lane === "snapshot") {
      this.#receiver?.accept(connection, peer.id);
      return;
    }
    this.#serve(connection, peer.id);
    if (lane !== "control") return;
    const link = this.#links.get(peer.id);
    if (link === undefined) this.#tellReport(connection);
    else for (const own of Object.values(link.lanes)) own.hurry();
  }

  #guestLeft(id: NodeId, lane: LaneKind): void {
    // If we have a connection of our own, it tells: nothing of ours was lost by the peer's.
    if (lane === "control" && this.#links.get(id)?.lanes.control.connection === undefined)
      this.#events?.onUnreachable(id);
  }

  /** From here on the peer is believed: its frames are taken. */
  #serve(connection: PeerConnection, id: NodeId): void {
    const self = present(this.#self, "started").id;
    const events = present(this.#events, "started");
    let received: Message[] = [];
    connection.onFrame = (frame: Frame): void => {
      switch (frame.kind) {
        case frameKind.messages:
          received.push(...decodeMessages(frame.head, frame.body, id, self));
          return;
        case frameKind.report:
          events.onReport(id, readReport(frame.head));
          return;
        case frameKind.refusal: {
          const reason = readRefusal(frame.head);
          events.onRefused(id, reason);
          connection.destroy(reason);
          return;
        }
        default:
          connection.destroy(`frame of kind ${frame.kind} does not belong here`);
      }
    };
    connection.onPieceEnd = () => {
      if (received.length === 0) return;
      const messages = received;
      received = [];
      events.onMessages(messages);
    };
  }

  /** By which connection `id` gets this: our own, else the one by which it has dialled us. */
  #path(id: NodeId, lane: "control" | "log"): PeerSender | undefined {
    const link = this.#links.get(id);
    let connection = link?.lanes[lane].connection;
    connection ??= link?.lanes.control.connection === undefined ? this.#door?.guest(id, "control") : undefined;
    if (connection === undefined || connection.isClosed) return undefined;
    let sender = this.#senders.get(connection);
    if (sender === undefined) {
      for (const known of this.#senders.keys()) if (known.isClosed) this.#senders.delete(known);
      sender = new PeerSender({ connection, limits: this.#limits });
      this.#senders.set(connection, sender);
    }
    return sender;
  }

  /** One connection to each peer by which small things are told. */
  *#controls(): Generator<PeerConnection> {
    const ids = new Set([...this.#links.keys(), ...(this.#door?.guestIds() ?? [])]);
    for (const id of ids) {
      const sender = this.#path(id, "control");
      if (sender !== undefined) yield sender.connection;
    }
  }

  #tellReport(connection: PeerConnection): void {
    if (this.#report === undefined) return;
    connection.writeJson(frameKind.report, this.#report);
    connection.flush();
  }

  #plan(): void {
    this.#beat = this.#clock.timer(this.#limits.keepAliveMs, () => {
      this.#plan();
      this.#door?.tick();
      for (const { lanes } of this.#links.values()) for (const lane of Object.values(lanes)) lane.connection?.tick();
      for (const sending of this.#sendings.values()) sending.tick();
    });
  }
}

/** Appends keep their order among each other, and news of a commit must not overtake the entries that it is about. */
function laneOf({ type }: Message): "control" | "log" {
  return type === "append" || type === "commit" ? "log" : "control";
}

function isOpen({ lanes }: Link): boolean {
  return lanes.control.connection !== undefined && lanes.log.connection !== undefined;
}
