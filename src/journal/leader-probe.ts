/**
 * Whether the leader's process still answers, seen by the next in line: a connection to its RPC port on which nothing is asked for but
 * signs of life. A refused connection, or none of these signs for a while, is a hint that it is gone, long before its session has
 * expired. A hint proves nothing: it lets the next one try, and storage decides.
 */

import type { Clock, Timer } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Address, Connection, Network } from "../io/network.ts";
import { frameKinds } from "../rpc/frame.ts";
import { type PeerInfo, preface, protocolVersions, writeHello } from "../rpc/hello.ts";
import { masterService } from "../rpc/master-service.ts";
import { Outbox } from "../rpc/outbox.ts";

export type LeaderProbeLimits = {
  /** A sign of life is asked for so often. */
  readonly pingEveryMs: number;
  /** After so long without any, connected or not, the leader seems gone. */
  readonly silenceMs: number;
};

export type LeaderProbeOptions = {
  readonly network: Network;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly address: Address;
  readonly self: PeerInfo;
  readonly limits: LeaderProbeLimits;
  /** True: it seems gone. False: it was heard again. */
  readonly onHint: (isGone: boolean) => void;
};

/** Of what the server may send at once; it is not looked at. */
const frameBytesMax = 64 * 1024;

export class LeaderProbe {
  readonly #options: LeaderProbeOptions;
  readonly #closing = new AbortController();
  #connection: { readonly outbox: Outbox; readonly end: () => void; wasHeard: boolean } | undefined;
  #attempt: AbortController | undefined;
  #timer: Timer | undefined;
  #isHeard = false;
  /** Counted in ticks: while this process itself stands still, its silence says nothing of the other. */
  #silentMs = 0;
  #isGone = false;

  constructor(options: LeaderProbeOptions) {
    this.#options = options;
    this.#connect();
    this.#tick();
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  close(): void {
    this.#closing.abort(new Error("the probe was closed"));
    this.#timer?.clear();
    this.#attempt?.abort(new Error("the probe was closed"));
    this.#connection?.end();
  }

  #tick(): void {
    const { clock, limits } = this.#options;
    this.#timer = clock.timer(limits.pingEveryMs, () => {
      this.#silentMs = this.#isHeard ? 0 : this.#silentMs + limits.pingEveryMs;
      this.#isHeard = false;
      if (this.#silentMs >= limits.silenceMs) {
        this.#tell(true, `no sign of life for ${this.#silentMs} ms`);
        // What hangs is left; the next attempt may be answered by whoever listens there then.
        this.#attempt?.abort(new Error("no connection in time"));
        if (this.#silentMs >= 2 * limits.silenceMs) this.#connection?.end();
      }
      if (this.#connection !== undefined) this.#connection.outbox.emptyFrame(frameKinds.ping, 0);
      else if (this.#attempt === undefined) this.#connect();
      this.#tick();
    });
  }

  #connect(): void {
    const { network, address } = this.#options;
    const attempt = new AbortController();
    this.#attempt = attempt;
    void network.connect(address, attempt.signal).then(
      (connection) => {
        this.#attempt = undefined;
        if (this.#closing.signal.aborted) connection.destroy();
        else this.#converse(connection);
      },
      (error: unknown) => {
        this.#attempt = undefined;
        const code = (error as NodeJS.ErrnoException | undefined)?.code;
        if (code === "ECONNREFUSED" || code === "ECONNRESET") this.#tell(true, "nobody listens");
      },
    );
  }

  #converse(connection: Connection): void {
    const outbox = new Outbox(connection);
    const current = { outbox, end: () => connection.destroy(), wasHeard: false };
    this.#connection = current;
    connection.onData = () => {
      current.wasHeard = true;
      this.#isHeard = true;
      this.#tell(false, "");
    };
    connection.onClose = () => {
      outbox.close();
      if (this.#connection !== current) return;
      this.#connection = undefined;
      // It was good and broke: whether anybody is there, the next attempt tells at once.
      if (current.wasHeard && !this.#closing.signal.aborted) this.#connect();
    };
    outbox.ensure(preface.length);
    outbox.position += preface.copy(outbox.buffer, outbox.position);
    outbox.beginFrame(frameKinds.hello, 0);
    writeHello(outbox, {
      protocolMin: protocolVersions.min,
      protocolMax: protocolVersions.max,
      service: masterService.name,
      serviceVersion: masterService.version,
      frameBytesMax,
      peer: this.#options.self,
    });
    outbox.endFrame();
  }

  #tell(isGone: boolean, why: string): void {
    if (this.#isGone === isGone || this.#closing.signal.aborted) return;
    this.#isGone = isGone;
    const { address, logger, onHint } = this.#options;
    const leader = `${address.host}:${address.port}`;
    if (isGone) logger.warn("the leader does not answer", { leader, why });
    else logger.info("the leader answers again", { leader });
    onHint(isGone);
  }
}
