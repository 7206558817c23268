/**
 * One client of a server: introduces itself, then has requests answered and streams served. Its memory is bounded: by
 * the requests and streams it may have under way, and by the bytes that wait for it. Beyond these bounds its requests
 * are no longer read. A peer that breaks the protocol loses its connection; the server lives on.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Connection } from "../io/network.ts";
import { Deadlines } from "./deadlines.ts";
import { FrameParser, frameKinds } from "./frame.ts";
import { helloBytesMax, type PeerInfo, preface, readClientHello, writeHello } from "./hello.ts";
import { Reader } from "./message-reader.ts";
import { Outbox } from "./outbox.ts";
import { ServerCall } from "./server-call.ts";
import type { ServerHost, ServerMethod } from "./server-host.ts";
import { ServerStream } from "./server-stream.ts";

/** Shared by all connections: a message is read in one go. */
const reader = new Reader();
const requestHeadBytes = 6;
const openHeadBytes = 14;
/** How long a peer may take to read the last words. */
const lingerMs = 1_000;

export class ServerConnection {
  readonly #connection: Connection;
  readonly #host: ServerHost;
  readonly #onGone: (connection: ServerConnection) => void;
  readonly #parser: FrameParser;
  readonly #outbox: Outbox;
  readonly #deadlines: Deadlines;
  readonly #requests = new Map<number, ServerCall>();
  readonly #streams = new Map<number, ServerStream>();
  readonly #openedMs: number;
  #prefaceBytes = 0;
  #peer: PeerInfo | undefined;
  #clientFrameBytesMax = 0;
  /** Requests whose handlers run, also those that were cancelled and have not noticed. */
  #requestsUnderWay = 0;
  #streamsUnderWay = 0;
  #stopped = false;
  #closed = false;
  #heard = false;
  #heardMs: number;
  #pendingBytes = 0;
  #movedMs: number;

  /** `onGone` is called once, when the connection is no longer served. */
  constructor(connection: Connection, host: ServerHost, onGone: (connection: ServerConnection) => void) {
    this.#onGone = onGone;
    this.#connection = connection;
    this.#host = host;
    this.#parser = new FrameParser({ onFrame: this.#onFrame, maxFrameBytes: host.limits.requestFrameBytesMax });
    this.#parser.maxFrameBytes = helloBytesMax;
    this.#outbox = new Outbox(connection);
    this.#outbox.onDrain = () => this.#drained();
    this.#deadlines = new Deadlines({ clock: host.clock, expire: (nowMs) => this.#expire(nowMs) });
    this.#openedMs = host.clock.monotonicMs();
    this.#heardMs = this.#openedMs;
    this.#movedMs = this.#openedMs;
    connection.onClose = (error) => this.#onClose(error);
    connection.onData = (chunk) => this.#onData(chunk);
  }

  get remote(): string {
    return this.#connection.remote;
  }

  #onData(chunk: Uint8Array): void {
    if (this.#closed) return;
    this.#heard = true;
    try {
      let frames = chunk;
      while (this.#prefaceBytes < preface.length && frames.length > 0) {
        if (frames[0] !== preface[this.#prefaceBytes])
          throw new HeadpondError("invalid", "the peer does not speak this protocol");
        this.#prefaceBytes++;
        frames = frames.subarray(1);
      }
      this.#parser.push(frames);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The peer broke the protocol, or we did: it is told why, and cut. */
  #fail(error: unknown): void {
    const failure = toHeadpondError(error);
    this.#host.logger.warn("rpc connection closed: bad input", {
      remote: this.remote,
      peer: this.#peer?.name,
      error: failure.message,
    });
    if (this.#closed) return;
    if (this.#prefaceBytes === preface.length) {
      this.#sendError(0, failure);
      this.#endSoon();
    } else {
      this.#connection.destroy();
    }
    this.#onClose(undefined);
  }

  readonly #onFrame = (kind: number, id: number, buffer: Buffer, start: number, end: number): boolean => {
    if (this.#closed) return false;
    if (kind === frameKinds.request) {
      this.#onRequest(id, buffer, start, end);
      return !this.#mustStop();
    }
    this.#onControl(kind, id, buffer, start, end);
    return !this.#closed && !this.#mustStop();
  };

  #onControl(kind: number, id: number, buffer: Buffer, start: number, end: number): void {
    if (kind === frameKinds.hello) {
      this.#onHello(buffer, start, end);
      return;
    }
    if (this.#peer === undefined) throw new HeadpondError("invalid", `a frame of kind ${kind} came before the hello`);
    switch (kind) {
      case frameKinds.open:
        this.#onOpen(id, buffer, start, end);
        return;
      case frameKinds.credit:
        if (end - start < 8) throw new HeadpondError("invalid", "a credit frame is too short");
        this.#streams.get(id)?.grant(buffer.readUInt32BE(start), buffer.readUInt32BE(start + 4));
        return;
      case frameKinds.cancel:
        this.#onCancel(id);
        return;
      case frameKinds.ping:
        this.#outbox.emptyFrame(frameKinds.pong, id);
        return;
      case frameKinds.pong:
        return;
      default:
        throw new HeadpondError("invalid", `a client sent a frame of kind ${kind}`);
    }
  }

  #onHello(buffer: Buffer, start: number, end: number): void {
    if (this.#peer !== undefined) throw new HeadpondError("invalid", "a second hello came");
    const hello = readClientHello(reader.reset(buffer, start, end));
    const answer = this.#host.welcome(hello);
    this.#peer = hello.peer;
    this.#clientFrameBytesMax = hello.frameBytesMax;
    this.#parser.maxFrameBytes = this.#host.limits.requestFrameBytesMax;
    this.#outbox.beginFrame(frameKinds.hello, 0);
    writeHello(this.#outbox, answer);
    this.#outbox.endFrame();
  }

  #onRequest(id: number, buffer: Buffer, start: number, end: number): void {
    const method = this.#methodOf("unary", id, buffer, start, end, requestHeadBytes);
    if (method === undefined) return;
    let call: ServerCall;
    let result: unknown;
    try {
      const request = this.#readRequest(method, buffer, start + requestHeadBytes, end);
      this.#host.admit("unary");
      call = this.#newCall(id, method, buffer.readUInt32BE(start + 2));
      try {
        result = method.handler(request, call);
      } finally {
        if (!(result instanceof Promise)) this.#host.release("unary");
      }
    } catch (error) {
      this.#answerError(id, method, error);
      return;
    }
    if (!(result instanceof Promise)) {
      this.#answer(id, method, result);
      return;
    }
    this.#requests.set(id, call);
    this.#requestsUnderWay++;
    this.#deadlines.expect(call.deadlineMs);
    result.then(
      (reply: unknown) => {
        if (this.#forget(call)) this.#answer(id, method, reply);
        this.#goOn();
      },
      (error: unknown) => {
        if (this.#forget(call)) this.#answerError(id, method, error);
        this.#goOn();
      },
    );
  }

  /** A handler has settled. Whether somebody still waits for its answer; if not, the client learns that its slot is free. */
  #forget(call: ServerCall): boolean {
    this.#requestsUnderWay--;
    this.#host.release("unary");
    if (this.#closed) return false;
    if (this.#requests.get(call.id) !== call) {
      this.#outbox.emptyFrame(frameKinds.end, call.id);
      return false;
    }
    this.#requests.delete(call.id);
    return true;
  }

  #onOpen(id: number, buffer: Buffer, start: number, end: number): void {
    const method = this.#methodOf("stream", id, buffer, start, end, openHeadBytes);
    if (method === undefined) return;
    let admitted = false;
    try {
      const request = this.#readRequest(method, buffer, start + openHeadBytes, end);
      const max = this.#host.limits.streamsPerConnectionMax;
      if (this.#streamsUnderWay >= max) {
        throw new HeadpondError(
          "overloaded",
          `${method.name}: this connection has its ${max} streams already: close some`,
        );
      }
      this.#host.admit("stream");
      admitted = true;
      const call = this.#newCall(id, method, buffer.readUInt32BE(start + 2));
      const sink = { send: (item: unknown) => this.#sendItem(id, method, item), hasRoom: () => !this.#outbox.full };
      const stream = new ServerStream(call, sink, buffer.readUInt32BE(start + 6), buffer.readUInt32BE(start + 10));
      const items = method.handler(request, call) as AsyncIterable<unknown>;
      this.#streams.set(id, stream);
      this.#streamsUnderWay++;
      this.#deadlines.expect(call.deadlineMs);
      stream.run(items).then(
        () => this.#streamSettled(stream, method, call.abortedWith),
        (error: unknown) => this.#streamSettled(stream, method, call.abortedWith ?? error),
      );
    } catch (error) {
      if (admitted) this.#host.release("stream");
      this.#answerError(id, method, error);
    }
  }

  #streamSettled(stream: ServerStream, method: ServerMethod, error: unknown): void {
    const { id } = stream.call;
    this.#streamsUnderWay--;
    this.#host.release("stream");
    if (this.#closed) return;
    if (this.#streams.get(id) !== stream) {
      this.#outbox.emptyFrame(frameKinds.end, id);
      return;
    }
    this.#streams.delete(id);
    if (error !== undefined) {
      this.#answerError(id, method, error);
      return;
    }
    this.#outbox.emptyFrame(frameKinds.end, id);
    this.#host.answered(method.name, "ok");
  }

  /** The method a request names, or nothing when it was refused. Throws when the frame cannot be one of a request. */
  #methodOf(
    kind: ServerMethod["kind"],
    id: number,
    buffer: Buffer,
    start: number,
    end: number,
    headBytes: number,
  ): ServerMethod | undefined {
    if (this.#peer === undefined) throw new HeadpondError("invalid", "a request came before the hello");
    if (end - start < headBytes) throw new HeadpondError("invalid", "a request frame is too short for its head");
    if (this.#requests.has(id) || this.#streams.has(id)) {
      throw new HeadpondError("invalid", `request id ${id} was used again while it was under way`);
    }
    const number = buffer.readUInt16BE(start);
    const method = this.#host.methods[number];
    if (method?.kind === kind) return method;
    this.#sendError(id, new HeadpondError("unsupported", `there is no ${kind} method with number ${number} here`));
    return undefined;
  }

  #readRequest(method: ServerMethod, buffer: Buffer, start: number, end: number): unknown {
    const request = method.request.decode(reader.reset(buffer, start, end));
    reader.finish();
    method.request.check(request, method.name);
    return request;
  }

  #newCall(id: number, method: ServerMethod, timeoutMs: number): ServerCall {
    const { clock } = this.#host;
    const deadlineMs = timeoutMs === 0 ? Number.POSITIVE_INFINITY : clock.monotonicMs() + timeoutMs;
    return new ServerCall(id, method.name, deadlineMs, this.remote, this.#peer as PeerInfo, clock);
  }

  #onCancel(id: number): void {
    const call = this.#requests.get(id) ?? this.#streams.get(id)?.call;
    if (call === undefined) return;
    const reason = new HeadpondError("cancelled", `${call.methodName}: the client cancelled it`, {
      outcome: "unknown",
    });
    this.#requests.delete(id);
    const stream = this.#streams.get(id);
    this.#streams.delete(id);
    if (stream === undefined) call.abort(reason);
    else stream.abort(reason);
    this.#host.answered(call.methodName, "cancelled");
  }

  #expire(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    const visit = (call: ServerCall, abort: (reason: HeadpondError) => void): void => {
      if (call.abortedWith !== undefined) return;
      if (call.deadlineMs > nowMs) {
        nextMs = Math.min(nextMs, call.deadlineMs);
        return;
      }
      abort(new HeadpondError("timeout", `${call.methodName}: not done by its deadline`, { outcome: "unknown" }));
    };
    for (const call of this.#requests.values()) visit(call, (reason) => call.abort(reason));
    for (const stream of this.#streams.values()) visit(stream.call, (reason) => stream.abort(reason));
    return nextMs;
  }

  #answer(id: number, method: ServerMethod, reply: unknown): void {
    try {
      this.#sendMessage(frameKinds.reply, id, method, reply);
      this.#host.answered(method.name, "ok");
    } catch (error) {
      this.#answerError(id, method, error);
    }
  }

  #sendItem(id: number, method: ServerMethod, item: unknown): number {
    return this.#sendMessage(frameKinds.item, id, method, item);
  }

  #sendMessage(kind: 3 | 6, id: number, method: ServerMethod, message: unknown): number {
    const outbox = this.#outbox;
    outbox.beginFrame(kind, id);
    try {
      method.answer.encode(outbox, message);
    } catch (error) {
      outbox.abandonFrame();
      throw error;
    }
    const bytes = outbox.frameBytes;
    if (bytes > this.#clientFrameBytesMax) {
      outbox.abandonFrame();
      throw new HeadpondError(
        "internal",
        `${method.name}: an answer of ${bytes} bytes is larger than the client's limit of ${this.#clientFrameBytesMax} bytes`,
        { outcome: "unknown" },
      );
    }
    outbox.endFrame();
    return bytes;
  }

  #answerError(id: number, method: ServerMethod, error: unknown): void {
    const failure = toHeadpondError(error);
    if (failure.code === "internal") {
      this.#host.logger.error("rpc handler failed", { method: method.name, remote: this.remote, error });
    }
    this.#host.answered(method.name, failure.code);
    this.#sendError(id, failure);
  }

  #sendError(id: number, error: HeadpondError): void {
    this.#outbox.beginFrame(frameKinds.error, id);
    this.#outbox.value(error.toJSON());
    this.#outbox.endFrame();
  }

  /** Whether the client has as much under way, or waiting to be read, as it may. It is then no longer read. */
  #mustStop(): boolean {
    const { limits } = this.#host;
    const stop =
      this.#requestsUnderWay > limits.requestsPerConnectionMax ||
      (this.#outbox.full && this.#outbox.queuedBytes >= limits.queuedBytesMax);
    if (stop && !this.#stopped) {
      this.#stopped = true;
      this.#connection.pause();
    }
    return stop;
  }

  #goOn(): void {
    if (!this.#stopped || this.#closed || this.#mustStop()) return;
    this.#stopped = false;
    try {
      this.#parser.resume();
    } catch (error) {
      this.#fail(error);
    }
    if (!this.#stopped && !this.#closed) this.#connection.resume();
  }

  #drained(): void {
    for (const stream of this.#streams.values()) stream.wake();
    this.#goOn();
  }

  /** Called every now and then: cuts a connection that is silent or does not read. */
  sweep(nowMs: number): void {
    const { limits } = this.#host;
    if (this.#heard || this.#stopped) {
      this.#heard = false;
      this.#heardMs = nowMs;
    } else {
      this.#outbox.trim();
      this.#parser.trim();
    }
    const { pendingBytes } = this.#connection;
    if (!this.#outbox.full || pendingBytes !== this.#pendingBytes) this.#movedMs = nowMs;
    this.#pendingBytes = pendingBytes;
    if (this.#peer === undefined && nowMs - this.#openedMs >= limits.helloTimeoutMs) {
      this.#cut(`no hello came within ${limits.helloTimeoutMs} ms`);
    } else if (nowMs - this.#heardMs >= limits.idleTimeoutMs) {
      this.#cut(`nothing came for ${limits.idleTimeoutMs} ms`);
    } else if (nowMs - this.#movedMs >= limits.slowClientTimeoutMs) {
      this.#cut(`it did not read for ${limits.slowClientTimeoutMs} ms while ${this.#outbox.queuedBytes} bytes waited`);
    }
  }

  #cut(reason: string): void {
    this.#host.logger.warn("rpc connection cut", { remote: this.remote, peer: this.#peer?.name, reason });
    this.#connection.destroy();
    this.#onClose(undefined);
  }

  /** Asks the client to send nothing new. */
  sayFarewell(): void {
    if (this.#peer !== undefined) this.#outbox.emptyFrame(frameKinds.farewell, 0);
  }

  /** Ends what is still under way with `unavailable`, and the connection when everything was sent. */
  end(): void {
    if (this.#closed) return;
    const reason = new HeadpondError("unavailable", "the server is closing", { outcome: "unknown" });
    for (const id of [...this.#requests.keys(), ...this.#streams.keys()]) this.#sendError(id, reason);
    this.#endSoon();
    this.#onClose(undefined);
  }

  /** Sends what waits and ends; a peer that does not take it is cut. */
  #endSoon(): void {
    this.#outbox.end();
    this.#host.clock.timer(lingerMs, () => this.#connection.destroy());
  }

  #onClose(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#deadlines.close();
    this.#outbox.close();
    const message = error === undefined ? "the connection was closed" : `the connection broke: ${error.message}`;
    const reason = new HeadpondError("cancelled", message, { outcome: "unknown" });
    for (const call of this.#requests.values()) call.abort(reason);
    for (const stream of this.#streams.values()) stream.abort(reason);
    this.#requests.clear();
    this.#streams.clear();
    this.#onGone(this);
  }
}
