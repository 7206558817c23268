/**
 * One connection of a client to a server: introduces itself, writes requests, hands answers to those who wait, pings
 * when it is quiet. When it breaks, each request learns whether it may have reached the server.
 */

import { errorFromDocument, HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Clock, Timer } from "../io/clock.ts";
import type { Connection } from "../io/network.ts";
import { type CallCarrier, type ClientCall, UnaryCall } from "./client-call.ts";
import { ClientStream } from "./client-stream.ts";
import { Deadlines } from "./deadlines.ts";
import { FrameParser, frameHeadBytes, frameKinds } from "./frame.ts";
import { type ClientHello, preface, readServerHello, type ServerHello, writeHello } from "./hello.ts";
import { Reader } from "./message-reader.ts";
import { Outbox } from "./outbox.ts";

export type ClientConnectionLimits = {
  /** Answers larger than this break the connection. */
  readonly replyFrameBytesMax: number;
  /** Bytes that wait to be sent; beyond, requests wait in the client. */
  readonly queuedBytesMax: number;
  /** After so long without a byte from the server it is asked for a sign of life ... */
  readonly pingIntervalMs: number;
  /** ... after so long while a unary request waits for its answer ... */
  readonly busyPingIntervalMs: number;
  /** ... and given up when none comes within this. */
  readonly pingTimeoutMs: number;
  /** After so long without a byte while a unary request waits, whoever has another server to ask is told (`onQuiet`). */
  readonly quietMs: number;
};

export type ClientConnectionEvents = {
  /** The server has introduced itself: requests can be sent. */
  readonly onReady: (hello: ServerHello) => void;
  /** More requests can be sent than before. */
  readonly onRoom: () => void;
  /** The server takes no new requests; those under way go on. */
  readonly onFarewell: () => void;
  /** Nothing has come for `quietMs` though a request waits and a sign of life was asked for. Again after it was heard. */
  readonly onQuiet: () => void;
  /** It is over. Called once. */
  readonly onBroken: (error: HeadpondError) => void;
};

const reader = new Reader();
const maxTimeoutMs = 0xffff_ffff;

export class ClientConnection implements CallCarrier {
  /** Whether it has been of use. */
  hasAnswered = false;
  readonly #connection: Connection;
  readonly #limits: ClientConnectionLimits;
  readonly #clock: Clock;
  readonly #events: ClientConnectionEvents;
  readonly #parser: FrameParser;
  readonly #outbox: Outbox;
  readonly #deadlines: Deadlines;
  readonly #calls = new Map<number, ClientCall>();
  /** Cancelled, and still held by the server until its handler has noticed: they keep their slots. */
  readonly #cancelled = new Map<number, ClientCall["kind"]>();
  #hello: ServerHello | undefined;
  #nextId = 0;
  #unaryCount = 0;
  #streamCount = 0;
  #farewell = false;
  #broken = false;
  #heard = false;
  /** Short while requests wait. */
  #tickMs: number;
  readonly #busyTickMs: number;
  readonly #idleTickMs: number;
  #tickTimer: Timer;
  #quietForMs = 0;
  /** Since when, in the same measure, a sign of life was asked for; undefined: it was not. */
  #pingedForMs: number | undefined;
  #quietTold = false;
  /** Streams, too, wait for a server that may be gone: as if requests did, until it is heard. */
  #isSuspected = false;

  constructor(options: {
    readonly connection: Connection;
    readonly hello: ClientHello;
    readonly limits: ClientConnectionLimits;
    readonly clock: Clock;
    readonly events: ClientConnectionEvents;
  }) {
    const { connection, limits, clock } = options;
    this.#connection = connection;
    this.#limits = limits;
    this.#clock = clock;
    this.#events = options.events;
    this.#parser = new FrameParser({ onFrame: this.#onFrame, maxFrameBytes: limits.replyFrameBytesMax });
    this.#outbox = new Outbox(connection);
    this.#outbox.onDrain = () => this.#events.onRoom();
    this.#deadlines = new Deadlines({ clock, expire: (nowMs) => this.#expire(nowMs) });
    this.#idleTickMs = Math.min(limits.pingIntervalMs, limits.pingTimeoutMs);
    this.#busyTickMs = Math.min(this.#idleTickMs, limits.busyPingIntervalMs, limits.quietMs);
    this.#tickMs = this.#idleTickMs;
    this.#tickTimer = clock.timer(this.#tickMs, this.#onTick);
    connection.onClose = (error) => {
      this.break(
        new HeadpondError(
          "unavailable",
          `the connection ${error === undefined ? "was closed" : `broke: ${error.message}`}`,
        ),
      );
    };
    connection.onData = (chunk) => this.#onData(chunk);
    this.#outbox.ensure(preface.length);
    this.#outbox.position += preface.copy(this.#outbox.buffer, this.#outbox.position);
    this.#outbox.beginFrame(frameKinds.hello, 0);
    writeHello(this.#outbox, options.hello);
    this.#outbox.endFrame();
  }

  /** Requests and streams under way. */
  get callCount(): number {
    return this.#calls.size;
  }

  /** Whether a request can be written now. */
  hasRoom(kind: ClientCall["kind"]): boolean {
    if (this.#hello === undefined || this.#farewell || this.#broken) return false;
    if (kind === "unary" ? this.#unaryCount >= this.#hello.requestsMax : this.#streamCount >= this.#hello.streamsMax)
      return false;
    return !this.#outbox.full || this.#outbox.queuedBytes < this.#limits.queuedBytesMax;
  }

  /** Whether any byte of a call may have reached the server. */
  mayHaveSent(call: ClientCall): boolean {
    return call.writtenAt < this.#outbox.handedOverBytes;
  }

  /** Writes a request; fails it when it cannot be written. Only while `hasRoom`. */
  send(call: ClientCall, nowMs: number): void {
    const hello = this.#hello as ServerHello;
    const method = hello.methods[call.methodName];
    const remainingMs = Math.ceil(call.deadlineMs - nowMs);
    if (method === undefined) {
      const { software, role, name } = hello.peer;
      call.fail(
        new HeadpondError("unsupported", `${role} ${name} (${software}) has no method ${call.methodName}: upgrade it`),
      );
      return;
    }
    if (remainingMs <= 0) {
      call.timeOut();
      return;
    }
    const outbox = this.#outbox;
    call.id = this.#newId();
    call.writtenAt = outbox.writtenBytes;
    call.connection = this;
    outbox.beginFrame(call.kind === "unary" ? frameKinds.request : frameKinds.open, call.id);
    try {
      outbox.ensure(14);
      let position = outbox.buffer.writeUInt16BE(method, outbox.position);
      position = outbox.buffer.writeUInt32BE(remainingMs > maxTimeoutMs ? 0 : remainingMs, position);
      if (call instanceof ClientStream) {
        position = outbox.buffer.writeUInt32BE(call.window.items, position);
        position = outbox.buffer.writeUInt32BE(call.window.bytes, position);
      }
      outbox.position = position;
      call.requestCodec.encode(outbox, call.request);
      if (outbox.frameBytes > hello.frameBytesMax) {
        throw new HeadpondError(
          "invalid",
          `${call.methodName}: a request of ${outbox.frameBytes} bytes is larger than the limit of ${hello.frameBytesMax} bytes`,
        );
      }
    } catch (error) {
      outbox.abandonFrame();
      call.connection = undefined;
      call.fail(toHeadpondError(error));
      return;
    }
    outbox.endFrame();
    this.#calls.set(call.id, call);
    if (call.kind === "unary") {
      this.#unaryCount++;
      if (this.#tickMs !== this.#busyTickMs) this.#tickFaster();
    } else {
      this.#streamCount++;
    }
    this.#deadlines.expect(call.deadlineMs);
  }

  /** Whether nothing has come for so long that `onQuiet` was called. */
  get isQuiet(): boolean {
    return this.#quietTold;
  }

  /** Somebody else is asked from now on. What can be sent there again need not wait here; the rest waits as long as the server gives signs of life. */
  retreat(error: HeadpondError): void {
    for (const call of [...this.#calls.values()]) if (call.repeatable) call.abandonWith(error);
    if (this.#calls.size === 0) return;
    this.#isSuspected = true;
    if (this.#tickMs !== this.#busyTickMs) this.#tickFaster();
  }

  /** The caller no longer waits: the answer will be ignored. */
  cancel(call: ClientCall): void {
    if (this.#calls.get(call.id) !== call) return;
    this.#calls.delete(call.id);
    this.#cancelled.set(call.id, call.kind);
    this.#outbox.emptyFrame(frameKinds.cancel, call.id);
  }

  grant(stream: ClientCall, items: number, bytes: number): void {
    if (this.#broken) return;
    const outbox = this.#outbox;
    outbox.beginFrame(frameKinds.credit, stream.id);
    outbox.ensure(8);
    outbox.position = outbox.buffer.writeUInt32BE(bytes, outbox.buffer.writeUInt32BE(items, outbox.position));
    outbox.endFrame();
  }

  /** Ends the connection; what is under way fails with `error`, each with the outcome that is true for it. */
  break(error: HeadpondError): void {
    if (this.#broken) return;
    this.#broken = true;
    this.#tickTimer.clear();
    this.#deadlines.close();
    const calls = [...this.#calls.values()];
    const outcomes = calls.map((call) => call.outcome);
    this.#calls.clear();
    this.#outbox.close();
    this.#connection.destroy();
    this.#events.onBroken(error);
    for (const [i, call] of calls.entries()) {
      const outcome = outcomes[i] ?? "unknown";
      const { code, details } = error;
      const options = { cause: error, outcome, ...(details === undefined ? {} : { details }) };
      call.fail(new HeadpondError(code, `${call.methodName}: ${error.message}`, options));
    }
  }

  #forget(call: ClientCall): void {
    this.#calls.delete(call.id);
    this.#freeSlot(call.kind);
  }

  #freeSlot(kind: ClientCall["kind"]): void {
    if (kind === "unary") this.#unaryCount--;
    else this.#streamCount--;
  }

  /** The server is done with a request that was cancelled. */
  #forgetCancelled(id: number): void {
    const kind = this.#cancelled.get(id);
    if (kind === undefined) return;
    this.#cancelled.delete(id);
    this.#freeSlot(kind);
    this.#events.onRoom();
  }

  #newId(): number {
    do this.#nextId = this.#nextId === 0xffff_ffff ? 1 : this.#nextId + 1;
    while (this.#calls.has(this.#nextId) || (this.#cancelled.size > 0 && this.#cancelled.has(this.#nextId)));
    return this.#nextId;
  }

  #onData(chunk: Uint8Array): void {
    if (this.#broken) return;
    this.#heard = true;
    try {
      this.#parser.push(chunk);
    } catch (error) {
      const { message } = toHeadpondError(error);
      this.break(new HeadpondError("unavailable", `the server broke the protocol: ${message}`, { retryable: false }));
    }
  }

  readonly #onFrame = (kind: number, id: number, buffer: Buffer, start: number, end: number): boolean => {
    if (this.#broken) return false;
    const call = this.#calls.get(id);
    switch (kind) {
      case frameKinds.reply:
        if (call instanceof UnaryCall) {
          this.hasAnswered = true;
          this.#forget(call);
          this.#onReply(call, buffer, start, end);
          this.#events.onRoom();
        } else if (call === undefined) {
          this.#forgetCancelled(id);
        }
        return true;
      case frameKinds.item:
        if (call instanceof ClientStream) this.#onItem(call, buffer, start, end);
        return true;
      case frameKinds.end:
        if (call instanceof ClientStream) {
          this.#forget(call);
          call.finish();
          this.#events.onRoom();
        } else if (call === undefined) {
          this.#forgetCancelled(id);
        }
        return true;
      case frameKinds.error:
        this.#onError(id, call, buffer, start, end);
        return !this.#broken;
      case frameKinds.hello:
        this.#onHello(buffer, start, end);
        return true;
      case frameKinds.ping:
        this.#outbox.emptyFrame(frameKinds.pong, id);
        return true;
      case frameKinds.pong:
        return true;
      case frameKinds.farewell:
        this.#farewell = true;
        this.#events.onFarewell();
        return true;
      default:
        throw new HeadpondError("invalid", `a server sent a frame of kind ${kind}`);
    }
  };

  #onReply(call: UnaryCall, buffer: Buffer, start: number, end: number): void {
    let reply: unknown;
    try {
      reply = call.replyCodec.decode(reader.reset(buffer, start, end));
      reader.finish();
      call.replyCodec.check(reply, `reply to ${call.methodName}`);
    } catch (error) {
      call.fail(badAnswer(error));
      return;
    }
    call.succeed(reply);
  }

  #onItem(stream: ClientStream, buffer: Buffer, start: number, end: number): void {
    let item: unknown;
    try {
      item = stream.itemCodec.decode(reader.reset(buffer, start, end));
      reader.finish();
      stream.itemCodec.check(item, `item of ${stream.methodName}`);
    } catch (error) {
      stream.abandon(badAnswer(error));
      return;
    }
    stream.push(item, frameHeadBytes + end - start);
  }

  #onError(id: number, call: ClientCall | undefined, buffer: Buffer, start: number, end: number): void {
    reader.reset(buffer, start, end);
    const error = errorFromDocument(reader.value());
    reader.finish();
    if (call !== undefined) {
      this.#forget(call);
      call.fail(error);
      this.#events.onRoom();
    } else if (id === 0) {
      // About the connection: the server refuses it.
      this.break(error);
    } else {
      this.#forgetCancelled(id);
    }
  }

  #onHello(buffer: Buffer, start: number, end: number): void {
    if (this.#hello !== undefined) throw new HeadpondError("invalid", "a second hello came");
    this.#hello = readServerHello(reader.reset(buffer, start, end));
    this.#events.onReady(this.#hello);
  }

  #expire(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const call of this.#calls.values()) {
      if (call.deadlineMs <= nowMs) call.timeOut();
      else nextMs = Math.min(nextMs, call.deadlineMs);
    }
    return nextMs;
  }

  /** The first request after a while without any: from now on silence means something. */
  #tickFaster(): void {
    this.#tickTimer.clear();
    this.#tickMs = this.#busyTickMs;
    this.#quietForMs = 0;
    this.#pingedForMs = undefined;
    this.#tickTimer = this.#clock.timer(this.#tickMs, this.#onTick);
  }

  /**
   * Silence is counted in ticks, not in time: after a pause of this process one tick has passed, and what came meanwhile
   * is read before the next.
   */
  readonly #onTick = (): void => {
    const { pingIntervalMs, busyPingIntervalMs, pingTimeoutMs, quietMs } = this.#limits;
    const passedMs = this.#tickMs;
    if (this.#heard) this.#isSuspected = false;
    const isBusy = this.#unaryCount > 0 || this.#isSuspected;
    this.#quietForMs = this.#heard ? 0 : this.#quietForMs + passedMs;
    if (this.#heard) this.#quietTold = false;
    this.#heard = false;
    // One at a time, requests leave gaps between them: only after a whole tick without any it ticks slower.
    if (!isBusy && this.#quietForMs > 0) this.#tickMs = this.#idleTickMs;
    this.#tickTimer = this.#clock.timer(this.#tickMs, this.#onTick);
    if (this.#quietForMs < (isBusy ? busyPingIntervalMs : pingIntervalMs)) {
      this.#pingedForMs = undefined;
      return;
    }
    if (this.#pingedForMs === undefined) {
      this.#pingedForMs = 0;
      if (!isBusy) {
        this.#outbox.trim();
        this.#parser.trim();
      }
      this.#outbox.emptyFrame(frameKinds.ping, 0);
    } else {
      this.#pingedForMs += passedMs;
    }
    if (this.#pingedForMs >= pingTimeoutMs) {
      this.break(new HeadpondError("unavailable", `no sign of life from the server for ${this.#quietForMs} ms`));
      return;
    }
    if (!isBusy || this.#quietTold || this.#quietForMs < quietMs) return;
    this.#quietTold = true;
    this.#events.onQuiet();
  };
}

function badAnswer(error: unknown): HeadpondError {
  const { message } = toHeadpondError(error);
  return new HeadpondError("internal", `the server's answer is of no use: ${message}`, {
    cause: error,
    outcome: "unknown",
  });
}
