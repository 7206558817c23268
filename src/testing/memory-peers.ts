/**
 * The other masters without a network, for tests and simulations: messages are handed over by the clock, so that the same
 * clock, seed and calls give the same history. Links can be slow, lose messages, and be cut in one direction or both.
 *
 * A link is there when one of two masters that run has the other as a member and neither refuses the other. The death of a master
 * breaks its links at once, a cut one is silent. Checkpoints travel in pieces and are written to the receiver's disk.
 */

import { present } from "../base/assert.ts";
import { KiB } from "../base/units.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk } from "../io/disk.ts";
import { Xxh64 } from "../io/hash.ts";
import type { Address } from "../io/network.ts";
import type { CheckpointFile, PeerEvents, PeerIdentity, PeerReport, Peers, SnapshotMessage } from "../journal/peers.ts";
import type { Message, NodeId } from "../raft/types.ts";

export type MemoryPeerNetworkOptions = {
  readonly clock: Clock;
  /** Of one message; 0: the next turn. By default 0. */
  readonly delayMs?: (from: NodeId, to: NodeId) => number;
  /** Whether this message gets lost. By default none does. */
  readonly loses?: (message: Message) => boolean;
  readonly chunkBytes?: number;
};

/** Where a master keeps what it receives. */
export type MemoryPeerPlace = { readonly disk: Disk; readonly directory: string };

export class MemoryPeerNetwork {
  readonly #options: MemoryPeerNetworkOptions;
  readonly #running = new Map<NodeId, MemoryPeers>();
  /** `from>to`. */
  readonly #cuts = new Set<string>();
  /** Sees each message when it arrives, e.g. to hold it up. */
  onDelivery: ((message: Message) => void) | undefined;

  constructor(options: MemoryPeerNetworkOptions) {
    this.#options = options;
  }

  get clock(): Clock {
    return this.#options.clock;
  }

  get chunkBytes(): number {
    return this.#options.chunkBytes ?? 16 * KiB;
  }

  /** For one life of a master. */
  peers(place: MemoryPeerPlace): MemoryPeers {
    return new MemoryPeers(this, place);
  }

  /** What `from` sends to `to` is lost until `heal`. */
  cut(from: NodeId, to: NodeId): void {
    this.#cuts.add(`${from}>${to}`);
  }

  /** Cuts a master off, in both directions, from all that run now. */
  isolate(id: NodeId): void {
    for (const other of this.#running.keys()) {
      if (other === id) continue;
      this.cut(id, other);
      this.cut(other, id);
    }
  }

  heal(): void {
    this.#cuts.clear();
    this.relink();
  }

  isCut(from: NodeId, to: NodeId): boolean {
    return this.#cuts.has(`${from}>${to}`);
  }

  delayMs(from: NodeId, to: NodeId): number {
    return this.#options.delayMs?.(from, to) ?? 0;
  }

  loses(message: Message): boolean {
    return this.#options.loses?.(message) ?? false;
  }

  running(id: NodeId): MemoryPeers | undefined {
    return this.#running.get(id);
  }

  started(id: NodeId, peers: MemoryPeers): void {
    this.#running.set(id, peers);
    this.relink();
  }

  ended(id: NodeId, peers: MemoryPeers): void {
    if (this.#running.get(id) === peers) this.#running.delete(id);
  }

  /** Connects those that want to be. */
  relink(): void {
    const all = [...this.#running.values()];
    for (const [at, a] of all.entries()) for (const b of all.slice(at + 1)) link(a, b);
  }
}

function link(a: MemoryPeers, b: MemoryPeers): void {
  const wanted = a.wants(b.id) || b.wants(a.id);
  if (!wanted) {
    a.unlink(b);
    b.unlink(a);
    return;
  }
  if (a.isLinked(b)) return;
  const [refusalOfB, refusalOfA] = [a.refusalOf(b), b.refusalOf(a)];
  if (refusalOfB !== undefined) b.later(a, (events) => events.onRefused(a.id, refusalOfB));
  if (refusalOfA !== undefined) a.later(b, (events) => events.onRefused(b.id, refusalOfA));
  if (refusalOfA !== undefined || refusalOfB !== undefined) return;
  a.link(b);
  b.link(a);
}

/** One master's end. */
export class MemoryPeers implements Peers {
  readonly #network: MemoryPeerNetwork;
  readonly #place: MemoryPeerPlace;
  #self: PeerIdentity | undefined;
  #events: PeerEvents | undefined;
  #members = new Set<NodeId>();
  readonly #links = new Set<MemoryPeers>();
  /** When the last message to each arrives: none overtakes it. */
  readonly #arrivalMs = new Map<MemoryPeers, number>();
  /** Handed over together. */
  readonly #waiting = new Map<MemoryPeers, Message[]>();
  readonly #sending = new Map<NodeId, AbortController>();
  #report: PeerReport | undefined;
  #closed = false;
  #incoming = 0;

  constructor(network: MemoryPeerNetwork, place: MemoryPeerPlace) {
    this.#network = network;
    this.#place = place;
  }

  get id(): NodeId {
    return present(this.#self, "peers were started").id;
  }

  async start(self: PeerIdentity, events: PeerEvents): Promise<Address> {
    this.#self = self;
    this.#events = events;
    this.#network.started(self.id, this);
    return { host: self.id, port: 1 };
  }

  setMembers(members: ReadonlyMap<NodeId, Address>): void {
    this.#members = new Set(members.keys());
    this.#network.relink();
  }

  send(messages: readonly Message[]): void {
    for (const message of messages) {
      const to = this.#network.running(message.to);
      if (to === undefined || !this.#links.has(to)) continue;
      if (this.#network.isCut(this.id, to.id) || this.#network.loses(message)) continue;
      const waiting = this.#waiting.get(to);
      if (waiting !== undefined) {
        waiting.push(message);
        continue;
      }
      const together = [message];
      this.#waiting.set(to, together);
      this.#after(to, () => {
        this.#waiting.delete(to);
        if (to.isLinked(this)) to.deliver(together);
      });
    }
  }

  report(report: PeerReport): void {
    this.#report = report;
    for (const to of this.#links) this.#sendReport(to, report);
  }

  sendSnapshot(message: SnapshotMessage, file: CheckpointFile): void {
    this.#sending.get(message.to)?.abort();
    const abort = new AbortController();
    this.#sending.set(message.to, abort);
    this.#stream(message, file, abort.signal).then(
      () => {},
      (error: unknown) => {
        if (!abort.signal.aborted && !this.#closed) this.#events?.onSnapshotFailed(message.to, String(error));
      },
    );
  }

  async close(): Promise<void> {
    this.kill();
  }

  /** As the end of the process: links break, nothing is sent or delivered any more. */
  kill(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const abort of this.#sending.values()) abort.abort();
    if (this.#self === undefined) return;
    this.#network.ended(this.id, this);
    for (const other of [...this.#links]) {
      this.#links.delete(other);
      other.unlink(this);
    }
  }

  // For the network.

  wants(id: NodeId): boolean {
    return this.#members.has(id);
  }

  isLinked(to: MemoryPeers): boolean {
    return this.#links.has(to) && !this.#closed;
  }

  refusalOf(peer: MemoryPeers): string | undefined {
    return this.#events?.refuses(present(peer.#self, "peers were started"));
  }

  link(to: MemoryPeers): void {
    this.#links.add(to);
    const identity = present(to.#self, "peers were started");
    this.later(to, (events) => {
      if (!this.isLinked(to)) return;
      events.onConnected(identity);
      if (to.#report !== undefined) events.onReport(to.id, to.#report);
    });
  }

  unlink(from: MemoryPeers): void {
    if (!this.#links.delete(from)) return;
    this.#waiting.delete(from);
    this.later(from, (events) => {
      if (!this.isLinked(from)) events.onUnreachable(from.id);
    });
  }

  deliver(messages: readonly Message[]): void {
    if (this.#closed) return;
    for (const message of messages) this.#network.onDelivery?.(message);
    this.#events?.onMessages(messages);
  }

  /** Tells this master something, by the clock. */
  later(from: MemoryPeers, tell: (events: PeerEvents) => void): void {
    this.#by(this.#network.delayMs(from.id, this.id), () => {
      if (!this.#closed && this.#events !== undefined) tell(this.#events);
    });
  }

  #sendReport(to: MemoryPeers, report: PeerReport): void {
    if (this.#network.isCut(this.id, to.id)) return;
    this.#after(to, () => {
      if (to.isLinked(this) && !to.#closed) to.#events?.onReport(this.id, report);
    });
  }

  /** After all that was sent there before. */
  #after(to: MemoryPeers, run: () => void): void {
    const nowMs = this.#network.clock.monotonicMs();
    const dueMs = Math.max(nowMs + this.#network.delayMs(this.id, to.id), this.#arrivalMs.get(to) ?? 0);
    this.#arrivalMs.set(to, dueMs);
    this.#by(dueMs - nowMs, () => {
      if (!this.#closed) run();
    });
  }

  #by(delayMs: number, run: () => void): void {
    const { clock } = this.#network;
    if (delayMs > 0) clock.timer(delayMs, run);
    else clock.nextTurn().then(run, () => {});
  }

  async #stream(message: SnapshotMessage, file: CheckpointFile, signal: AbortSignal): Promise<void> {
    const { disk } = this.#place;
    const { chunkBytes, clock } = this.#network;
    const source = await disk.open(file.path, "read");
    try {
      const to = this.#reachable(message.to);
      const target = await to.#beginIncoming(file.index);
      const hash = new Xxh64();
      for (let at = 0; at < file.bytes; ) {
        const chunk = new Uint8Array(Math.min(chunkBytes, file.bytes - at));
        const count = await source.read(chunk, at);
        if (count === 0) throw new Error(`${file.path} is shorter than ${file.bytes} bytes`);
        const delayMs = this.#network.delayMs(this.id, message.to);
        if (delayMs > 0) await clock.sleep(delayMs, signal);
        else await clock.nextTurn();
        signal.throwIfAborted();
        if (this.#reachable(message.to) !== to) throw new Error(`${message.to} was restarted`);
        hash.update(chunk.subarray(0, count));
        await target.file.write(chunk.subarray(0, count), at);
        at += count;
        this.#events?.onSnapshotProgress(message.to);
      }
      if (hash.hex() !== file.xxh64) throw new Error(`${file.path} is damaged`);
      await target.file.datasync();
      await target.file.close();
      signal.throwIfAborted();
      if (this.#reachable(message.to) !== to) throw new Error(`${message.to} was restarted`);
      to.#events?.onSnapshotReceived(message, { ...file, path: target.path });
      this.#events?.onSnapshotSent(message.to);
    } finally {
      await source.close();
    }
  }

  #reachable(id: NodeId): MemoryPeers {
    const to = this.#network.running(id);
    if (to === undefined || !to.isLinked(this) || this.#network.isCut(this.id, id)) {
      throw new Error(`${id} cannot be reached`);
    }
    return to;
  }

  async #beginIncoming(index: number): Promise<{ path: string; file: Awaited<ReturnType<Disk["open"]>> }> {
    const { disk, directory } = this.#place;
    await disk.makeDirectory(directory);
    const path = `${directory}/incoming-${index}-${++this.#incoming}`;
    await disk.removeTree(path);
    return { path, file: await disk.open(path, "create") };
  }
}
