/**
 * Where a master's peers come in: listens, looks at whoever knocks, and lets in those that belong here. Of one peer it
 * keeps one connection of each kind: who dials again has given the former one up, whatever it still believes itself.
 */

import type { Clock, Timer } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Address, Connection, Listener, Network } from "../io/network.ts";
import { PeerConnection } from "./peer-connection.ts";
import { frameKind, peerFrameLimits, strangerFrameLimits } from "./peer-frame.ts";
import { type Hello, type LaneKind, laneKinds, readHello, refusalOfHello, welcomeDocument } from "./peer-hello.ts";
import type { PeerIdentity } from "./peers.ts";

export type DoorLimits = {
  /** Connections that have not said who they are; more are closed at once. */
  readonly strangersMax: number;
  /** Connections in all. */
  readonly connectionsMax: number;
  /** For the hello, and for a refused one to go away. */
  readonly helloTimeoutMs: number;
};

export class PeerDoor {
  readonly #network: Network;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #self: PeerIdentity;
  readonly #limits: DoorLimits;
  readonly #silentTicksMax: Readonly<Record<LaneKind, number>>;
  readonly #refuses: (peer: PeerIdentity) => string | undefined;
  readonly #onOpen: (connection: PeerConnection, hello: Hello) => void;
  readonly #onClosed: (id: string, lane: LaneKind) => void;
  readonly #strangers = new Map<PeerConnection, Timer>();
  /** By `lane id`. */
  readonly #guests = new Map<string, PeerConnection>();
  #listener: Listener | undefined;
  #isClosing = false;

  constructor(options: {
    readonly network: Network;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly self: PeerIdentity;
    readonly limits: DoorLimits;
    readonly silentTicksMax: Readonly<Record<LaneKind, number>>;
    readonly refuses: (peer: PeerIdentity) => string | undefined;
    /** Called in the turn in which the hello came: handlers of frames are set here. */
    readonly onOpen: (connection: PeerConnection, hello: Hello) => void;
    readonly onClosed: (id: string, lane: LaneKind) => void;
  }) {
    this.#network = options.network;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#self = options.self;
    this.#limits = options.limits;
    this.#silentTicksMax = options.silentTicksMax;
    this.#refuses = options.refuses;
    this.#onOpen = options.onOpen;
    this.#onClosed = options.onClosed;
  }

  async listen(address: Address): Promise<Address> {
    this.#listener = await this.#network.listen(address, (stream) => this.#accept(stream));
    return this.#listener.address;
  }

  /** The connection that the peer `id` has dialled for `lane`. */
  guest(id: string, lane: LaneKind): PeerConnection | undefined {
    return this.#guests.get(`${lane} ${id}`);
  }

  /** Peers that have dialled for small messages. */
  guestIds(): string[] {
    return [...this.#guests.keys()].filter((key) => key.startsWith("control ")).map((key) => key.slice(8));
  }

  tick(): void {
    for (const connection of this.#guests.values()) connection.tick();
  }

  /** The peer is not to be talked to any more. */
  disconnect(id: string, reason: string): void {
    for (const lane of laneKinds) this.guest(id, lane)?.destroy(reason);
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    await this.#listener?.close();
    for (const connection of [...this.#strangers.keys(), ...this.#guests.values()]) connection.destroy("closing");
  }

  #accept(stream: Connection): void {
    const { strangersMax, connectionsMax, helloTimeoutMs } = this.#limits;
    const count = this.#strangers.size + this.#guests.size;
    if (this.#isClosing || this.#strangers.size >= strangersMax || count >= connectionsMax) {
      stream.destroy();
      return;
    }
    const connection = new PeerConnection({
      connection: stream,
      isDialer: false,
      limits: strangerFrameLimits,
      silentTicksMax: this.#silentTicksMax.control,
    });
    const timer = this.#clock.timer(helloTimeoutMs, () => {
      // After a pause of the own process the timer comes before what arrived meanwhile.
      void this.#clock.nextTurn().then(() => {
        if (this.#strangers.has(connection)) connection.destroy(`no hello within ${helloTimeoutMs} ms`);
      });
    });
    this.#strangers.set(connection, timer);
    connection.onClose = (reason) => {
      if (!this.#forget(connection) || this.#isClosing) return;
      this.#logger.info("a connection ended before it said who it is", { remote: connection.remote, reason });
    };
    connection.onFrame = ({ kind, head }) => {
      if (kind === frameKind.hello) this.#greet(connection, readHello(head));
      else connection.destroy(`frame of kind ${kind} instead of a hello`);
    };
  }

  #greet(connection: PeerConnection, hello: Hello): void {
    const { peer, lane } = hello;
    const reason = refusalOfHello(this.#self, hello) ?? this.#refuses(peer);
    if (reason !== undefined) {
      this.#logger.warn("a master is refused", { peer: peer.id, remote: connection.remote, reason });
      connection.onClose = () => void this.#forget(connection);
      connection.writeJson(frameKind.refusal, { reason });
      connection.end(reason);
      return;
    }
    this.#forget(connection);
    const key = `${lane} ${peer.id}`;
    this.#guests.get(key)?.destroy("it has dialled again");
    this.#guests.set(key, connection);
    connection.limits = peerFrameLimits;
    connection.silentTicksMax = this.#silentTicksMax[lane];
    connection.onFrame = () => {};
    connection.onClose = () => {
      if (this.#guests.get(key) !== connection) return;
      this.#guests.delete(key);
      if (!this.#isClosing) this.#onClosed(peer.id, lane);
    };
    connection.writeJson(frameKind.welcome, welcomeDocument(this.#self));
    connection.flush();
    this.#onOpen(connection, hello);
  }

  #forget(connection: PeerConnection): boolean {
    this.#strangers.get(connection)?.clear();
    return this.#strangers.delete(connection);
  }
}
