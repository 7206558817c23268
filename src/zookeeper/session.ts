/**
 * A session with a ZooKeeper ensemble, by the rules of the Java client: a server that is silent for two thirds of the session
 * timeout is given up, a ping goes out after half of that, and a client that reached nobody for four thirds of the timeout knows by itself
 * that its session is over. A lost connection is not a lost session: only `expired` is, and that is for ever.
 *
 * Requests go out in the order in which they were made and are answered in it. Those on a connection that breaks end as lost, with
 * an unknown outcome if they may have changed something; those that were made while there was no connection wait for the next one.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Address, Connection, Network } from "../io/network.ts";
import { ServerConnection, type ServerReply, type Welcome } from "./connection.ts";
import type { DigestMd5 } from "./digest-md5.ts";
import { type JuteReader, JuteWriter } from "./jute.ts";
import { connectionLoss, endError, operation, reservedXid, watchEventType, zookeeperError } from "./protocol.ts";
import { Watches } from "./watches.ts";

/** `connecting`: there is no connection now; the session may well be alive. The last three are final. */
export type SessionState = "connecting" | "connected" | "expired" | "closed" | "auth-failed";

export type SessionLimits = {
  /** Requests that are made and not answered. */
  readonly requestsMax: number;
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
};

const sessionLimits: SessionLimits = { requestsMax: 20_000, backoffMinMs: 20, backoffMaxMs: 1000 };

export type SessionOptions = {
  readonly network: Network;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: Random;
  readonly servers: readonly Address[];
  /** Wanted; the servers may decide otherwise. */
  readonly sessionTimeoutMs: number;
  /** Presented at each new connection, e.g. `{ scheme: "digest", auth: "user:password" }`. */
  readonly auth?: readonly { readonly scheme: string; readonly auth: string }[];
  /** Proves who we are before anything else is asked. */
  readonly sasl?: DigestMd5;
  readonly limits?: Partial<SessionLimits>;
  readonly onState: (state: SessionState) => void;
};

export type Request<Reply> = {
  /** Operation and arguments, for messages: `create /a`. */
  readonly what: string;
  readonly code: number;
  readonly changes: boolean;
  readonly write: (writer: JuteWriter) => void;
  /** `error`: ZooKeeper's number, 0 if none; throws for those that it does not expect. */
  readonly read: (reader: JuteReader, error: number) => Reply;
};

type Pending = {
  readonly xid: number;
  readonly what: string;
  readonly changes: boolean;
  readonly frame: Buffer;
  /** When it was made, then when it was sent. */
  sentAtMs: number;
  readonly answer: (reader: JuteReader, error: number) => void;
  readonly reject: (error: HeadpondError) => void;
};

export class Session {
  readonly #options: SessionOptions;
  readonly #limits: SessionLimits;
  readonly #logger: Logger;
  readonly #closing = new AbortController();
  readonly #servers: readonly Address[];
  readonly watches = new Watches();
  #state: SessionState = "connecting";
  #sessionId = 0n;
  #password: Uint8Array = new Uint8Array(16);
  #negotiatedMs: number;
  #lastZxid = 0n;
  #xid = 0;
  #connection: ServerConnection | undefined;
  /** Made while there was no connection, in order. */
  #waiting: Pending[] = [];
  /** Sent, in order. */
  #sent: Pending[] = [];
  /** When pings that are not answered were sent. */
  #pings: number[] = [];
  #lastSentMs = 0;
  #lastHeardMs = 0;
  #lastTouchMs: number | undefined;
  #timer: Timer | undefined;
  readonly #loop: Promise<void>;

  constructor(options: SessionOptions) {
    if (options.servers.length === 0) throw new HeadpondError("invalid", "ZooKeeper: no server was given");
    this.#options = options;
    this.#limits = { ...sessionLimits, ...options.limits };
    this.#logger = options.logger.child({ part: "zookeeper" });
    this.#negotiatedMs = options.sessionTimeoutMs;
    this.#servers = options.random.shuffle([...options.servers]);
    this.#loop = this.#run();
  }

  get state(): SessionState {
    return this.#state;
  }

  /** 0 before the first connection. */
  get sessionId(): bigint {
    return this.#sessionId;
  }

  /** What the servers agreed to, or what was wished before they were asked. */
  get timeoutMs(): number {
    return this.#negotiatedMs;
  }

  /**
   * When the youngest request or ping that has been answered was sent, by the monotonic clock: the session was alive in the servers' eyes
   * then, and stays so for the session timeout. `undefined`: never.
   */
  get lastTouchMs(): number | undefined {
    return this.#lastTouchMs;
  }

  get lastZxid(): bigint {
    return this.#lastZxid;
  }

  /** Rejects with what the reply reports; `unavailable` or `unknown-outcome` when the connection or the session is lost. */
  request<Reply>(request: Request<Reply>): Promise<Reply> {
    const { what, changes } = request;
    const refusal = this.#refusal(what);
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      const xid = this.#nextXid();
      const writer = new JuteWriter().int(xid).int(request.code);
      request.write(writer);
      const pending: Pending = {
        xid,
        what,
        changes,
        frame: writer.frame(),
        sentAtMs: this.#options.clock.monotonicMs(),
        reject,
        answer: (reader, error) => {
          try {
            resolve(request.read(reader, error));
          } catch (thrown) {
            reject(thrown as Error);
          }
        },
      };
      if (this.#state === "connected") this.#send(pending);
      else this.#waiting.push(pending);
    });
  }

  /** Ends the session at the servers, if they can be reached: ephemeral nodes go at once. */
  async close(): Promise<void> {
    if (this.#state === "connected") {
      const write = (): void => {};
      const request = { what: "close", code: operation.closeSession, changes: true, write, read: (): void => {} };
      const wait = this.#options.clock.sleep(Math.min(1000, this.#negotiatedMs / 3), this.#closing.signal);
      await Promise.race([this.request(request), wait]).catch(() => {});
    }
    this.#finish("closed");
    await this.#loop;
  }

  #refusal(what: string): HeadpondError | undefined {
    switch (this.#state) {
      case "expired":
        return endError("expired", what, false);
      case "closed":
        return new HeadpondError("unavailable", `ZooKeeper: ${what}: the session is closed`, { retryable: false });
      case "auth-failed":
        return new HeadpondError("denied", `ZooKeeper: ${what}: the servers did not accept who we say we are`);
      case "connecting":
      case "connected": {
        if (this.#waiting.length + this.#sent.length < this.#limits.requestsMax) return undefined;
        return new HeadpondError("overloaded", `ZooKeeper: ${what}: ${this.#limits.requestsMax} requests wait already`);
      }
      default:
        return this.#state satisfies never;
    }
  }

  /** So long after the last connection the session may still be alive at the servers. */
  get #graceMs(): number {
    return (4 / 3) * this.#negotiatedMs;
  }

  get #isOver(): boolean {
    return this.#state !== "connecting" && this.#state !== "connected";
  }

  // Connections, one after the other.

  async #run(): Promise<void> {
    const { clock, random } = this.#options;
    const { signal } = this.#closing;
    let lostMs = clock.monotonicMs();
    let failures = 0;
    while (!this.#isOver) {
      const server = this.#servers[failures % this.#servers.length] as Address;
      const leftMs = this.#sessionId === 0n ? Number.POSITIVE_INFINITY : lostMs + this.#graceMs - clock.monotonicMs();
      const wasConnected = await this.#connectTo(server, leftMs);
      if (this.#isOver) return;
      const nowMs = clock.monotonicMs();
      if (wasConnected) {
        lostMs = nowMs;
        failures = 0;
      }
      failures++;
      // Whoever reaches no server cannot be told that the session is over, and must not go on believing in it.
      if (this.#sessionId !== 0n && nowMs - lostMs >= this.#graceMs) {
        this.#logger.warn("no server was reached in time: the session is over", { sessionId: this.#sessionText });
        this.#finish("expired");
        return;
      }
      this.#giveUpWaiting(nowMs - this.#negotiatedMs);
      // The next server is tried at once; a pause comes when all have been.
      if (failures % this.#servers.length !== 0) continue;
      const { backoffMinMs, backoffMaxMs } = this.#limits;
      const rounds = failures / this.#servers.length - 1;
      const backoffMs = Math.min(backoffMaxMs, this.#negotiatedMs / 6, backoffMinMs * 2 ** Math.min(10, rounds));
      await clock.sleep(backoffMs * (0.5 + random.float() / 2), signal).catch(() => {});
    }
  }

  /** Resolves when the connection is over. Whether the session was confirmed on it. */
  async #connectTo(server: Address, leftMs: number): Promise<boolean> {
    const { network, clock } = this.#options;
    const connectMs = Math.min(leftMs, Math.max(50, this.#negotiatedMs / this.#servers.length));
    const deadline = new AbortController();
    const timer = clock.timer(connectMs, () => deadline.abort(new Error(`no connection within ${connectMs} ms`)));
    let connection: Connection;
    try {
      connection = await network.connect(server, AbortSignal.any([deadline.signal, this.#closing.signal]));
    } catch (error) {
      this.#logger.debug("a server cannot be reached", { server: `${server.host}:${server.port}`, error });
      return false;
    } finally {
      timer.clear();
    }
    if (this.#isOver) {
      connection.destroy();
      return false;
    }
    return this.#converse(connection);
  }

  #converse(connection: Connection): Promise<boolean> {
    const { clock } = this.#options;
    return new Promise((resolve) => {
      let wasConnected = false;
      const startedMs = clock.monotonicMs();
      this.#lastHeardMs = startedMs;
      this.#lastSentMs = startedMs;
      const handshake = {
        lastZxid: this.#lastZxid,
        sessionTimeoutMs: this.#options.sessionTimeoutMs,
        sessionId: this.#sessionId,
        password: this.#password,
      };
      const server = new ServerConnection(connection, handshake, {
        onWelcome: (welcome) => {
          this.#lastHeardMs = clock.monotonicMs();
          this.#welcome(server, welcome, startedMs);
          wasConnected = this.#state === "connected";
        },
        onReply: (reply, body) => this.#reply(reply, body),
        onClose: (error) => {
          this.#timer?.clear();
          if (this.#connection === server) this.#connection = undefined;
          this.#lost(error);
          resolve(wasConnected);
        },
      });
      this.#connection = server;
      this.#watchSilence(server);
    });
  }

  #welcome(server: ServerConnection, { sessionId, sessionTimeoutMs, password }: Welcome, askedMs: number): void {
    if (sessionTimeoutMs <= 0) {
      this.#logger.warn("the session has expired", { sessionId: this.#sessionText });
      this.#finish("expired");
      return;
    }
    this.#sessionId = sessionId;
    this.#password = password;
    this.#negotiatedMs = sessionTimeoutMs;
    this.#lastTouchMs = askedMs;
    this.#logger.info("connected to ZooKeeper", {
      server: server.remote,
      sessionId: this.#sessionText,
      sessionTimeoutMs,
    });
    // Who we are and what we watch goes before all that waits.
    if (this.#options.sasl !== undefined) {
      this.#authenticate(this.#options.sasl, server);
      return;
    }
    this.#begin();
  }

  #begin(): void {
    for (const { scheme, auth } of this.#options.auth ?? []) {
      const writer = new JuteWriter().int(reservedXid.auth).int(operation.auth);
      this.#write(writer.int(0).text(scheme).text(auth).frame());
    }
    for (const frame of this.watches.frames(this.#lastZxid)) this.#write(frame);
    this.#setState("connected");
    this.#timer?.clear();
    if (this.#connection !== undefined) this.#watchSilence(this.#connection);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const pending of waiting) this.#send(pending);
  }

  #authenticate(sasl: DigestMd5, server: ServerConnection): void {
    const ask = (token: Uint8Array, next: (challenge: Buffer) => void): void => {
      const xid = this.#nextXid();
      const frame = new JuteWriter().int(xid).int(operation.sasl).buffer(token).frame();
      const fail = (error: HeadpondError): void => server.destroy(error);
      this.#send({
        xid,
        what: "sasl",
        changes: false,
        frame,
        sentAtMs: 0,
        reject: fail,
        answer: (reader, error) => {
          if (error !== 0) return this.#refused(zookeeperError(error, "sasl"));
          next(reader.buffer());
        },
      });
    };
    ask(new Uint8Array(0), (challenge) => {
      let exchange: ReturnType<DigestMd5["respond"]>;
      try {
        exchange = sasl.respond(challenge.toString("utf8"));
      } catch (error) {
        return this.#refused(toHeadpondError(error));
      }
      ask(Buffer.from(exchange.response, "utf8"), (proof) => {
        if (exchange.isProof(proof.toString("utf8"))) return this.#begin();
        this.#refused(new HeadpondError("denied", "ZooKeeper: the server could not prove that it knows the password"));
      });
    });
  }

  #refused(error: HeadpondError): void {
    this.#logger.error("the servers do not accept who we are", { error });
    this.#finish("auth-failed");
  }

  // Talking.

  #send(pending: Pending): void {
    pending.sentAtMs = this.#options.clock.monotonicMs();
    this.#sent.push(pending);
    this.#write(pending.frame);
  }

  #write(frame: Buffer): void {
    this.#lastSentMs = this.#options.clock.monotonicMs();
    this.#connection?.send(frame);
  }

  #reply({ xid, zxid, error }: ServerReply, body: JuteReader): void {
    this.#lastHeardMs = this.#options.clock.monotonicMs();
    switch (xid) {
      case reservedXid.watchEvent: {
        const type = watchEventType(body.int());
        body.int();
        if (type !== undefined) this.watches.fire({ type, path: body.text() });
        return;
      }
      case reservedXid.ping: {
        const sentAtMs = this.#pings.shift();
        if (sentAtMs !== undefined) this.#touched(sentAtMs);
        return;
      }
      case reservedXid.auth:
        if (error !== 0) this.#refused(zookeeperError(error, "authenticate"));
        return;
      case reservedXid.setWatches:
        if (error !== 0) this.#connection?.destroy(zookeeperError(error, "set watches"));
        return;
      default: {
        const pending = this.#sent[0];
        if (pending?.xid !== xid) {
          throw new HeadpondError(
            "corrupt",
            `ZooKeeper answered request ${xid} when ${pending?.xid ?? "none"} was expected`,
          );
        }
        this.#sent.shift();
        if (zxid > this.#lastZxid) this.#lastZxid = zxid;
        this.#touched(pending.sentAtMs);
        pending.answer(body, error);
      }
    }
  }

  #touched(sentAtMs: number): void {
    this.#lastTouchMs = Math.max(this.#lastTouchMs ?? sentAtMs, sentAtMs);
  }

  /** Pings when nothing else was sent for a while, and gives up a server that says nothing. */
  #watchSilence(server: ServerConnection): void {
    const { clock } = this.#options;
    const readTimeoutMs = (2 / 3) * this.#negotiatedMs;
    const nowMs = clock.monotonicMs();
    const silentMs = nowMs - this.#lastHeardMs;
    if (silentMs >= readTimeoutMs) {
      const message = `${server.remote} has said nothing for ${Math.round(silentMs)} ms`;
      server.destroy(new HeadpondError("unavailable", `ZooKeeper: ${message}`));
      return;
    }
    const idleMs = nowMs - this.#lastSentMs;
    if (this.#state === "connected" && idleMs >= readTimeoutMs / 2) {
      this.#pings.push(nowMs);
      this.#write(new JuteWriter().int(reservedXid.ping).int(operation.ping).frame());
    }
    const untilPingMs = readTimeoutMs / 2 - (nowMs - this.#lastSentMs);
    const nextMs = Math.min(readTimeoutMs - silentMs, this.#state === "connected" ? untilPingMs : readTimeoutMs);
    this.#timer = clock.timer(Math.max(1, nextMs), () => {
      if (this.#connection === server) this.#watchSilence(server);
    });
  }

  // Endings.

  /** Nobody waits longer than a session lasts. */
  #giveUpWaiting(madeBeforeMs: number): void {
    const old = this.#waiting.filter(({ sentAtMs }) => sentAtMs < madeBeforeMs);
    if (old.length === 0) return;
    this.#waiting = this.#waiting.filter(({ sentAtMs }) => sentAtMs >= madeBeforeMs);
    for (const { what, reject } of old) {
      reject(new HeadpondError("unavailable", `ZooKeeper: ${what}: no server of ${this.#serversText} answers`));
    }
  }

  #lost(error: Error | undefined): void {
    const sent = this.#sent;
    this.#sent = [];
    this.#pings = [];
    if (!this.#isOver) {
      if (this.#state === "connected") this.#logger.warn("the connection to ZooKeeper was lost", { error });
      this.#setState("connecting");
    }
    for (const { what, changes, reject } of sent) reject(connectionLoss(what, changes ? "unknown" : "none"));
  }

  #finish(state: "expired" | "closed" | "auth-failed"): void {
    if (this.#isOver) return;
    const connection = this.#connection;
    const sent = this.#sent;
    const waiting = this.#waiting;
    this.#sent = [];
    this.#waiting = [];
    this.#setState(state);
    this.#closing.abort(new Error(`the session is ${state}`));
    connection?.destroy(undefined);
    for (const { what, changes, reject } of sent) reject(endError(state, what, changes));
    for (const { what, reject } of waiting) reject(endError(state, what, false));
  }

  #setState(state: SessionState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.onState(state);
  }

  #nextXid(): number {
    this.#xid = this.#xid >= 0x7fff_ffff ? 1 : this.#xid + 1;
    return this.#xid;
  }

  get #serversText(): string {
    return this.#options.servers.map(({ host, port }) => `${host}:${port}`).join(", ");
  }

  get #sessionText(): string {
    return `0x${BigInt.asUintN(64, this.#sessionId).toString(16)}`;
  }
}
