/**
 * The thread behind `file-sender.ts`: sends ranges of files to sockets by `sendfile`, many at once, each at the pace of
 * who reads. While there is something to send it waits for the sockets by epoll; else it is an ordinary thread of Node that
 * waits for a message.
 *
 * It does not wait for the disk as long as it can avoid it: before each piece it looks whether its end is in memory, else
 * asks the kernel to read ahead and turns to the others.
 */

import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { present } from "../base/assert.ts";
import { MiB } from "../base/units.ts";
import type { SenderReport, SenderRequest, SenderThreadData, SendOutcome } from "./file-sender-messages.ts";
import { epollIn, epollOut, errorNumbers, type SystemCalls, systemCalls } from "./system-calls.ts";

/** One call to the kernel: after it comes the turn of the next socket. */
const pieceBytes = MiB;
/** Asked of the disk at once for a stream whose file is not in memory. */
const readAheadBytes = 8 * MiB;
const coldRetryMs = 1;
/** A file system that never says "in memory" must not stop a stream: then the thread waits for the disk. */
const coldRetriesMax = 300;
const progressEveryMs = 200;
const waitMs = 200;
/** After the last stream the thread waits so long for another one, which is sooner heard of here than by a thread that sleeps in Node. */
const lingerMs = 20;
const wakeKey = 0;

type Stream = {
  readonly id: number;
  readonly socket: number;
  readonly file: number;
  readonly end: number;
  readonly begin: number;
  readonly stallTimeoutMs: number;
  at: number;
  reportedAt: number;
  reportedMs: number;
  progressMs: number;
  advisedTo: number;
  coldRetries: number;
};

class SenderLoop {
  readonly #calls: SystemCalls;
  readonly #counter: number;
  readonly #port: MessagePort;
  readonly #epoll: number;
  /** By id, which is also the key for epoll. */
  readonly #streams = new Map<number, Stream>();
  readonly #cold = new Set<Stream>();
  readonly #keys = new Uint32Array(64);
  #checkedMs = 0;

  constructor(calls: SystemCalls, port: MessagePort, counter: number) {
    this.#calls = calls;
    this.#port = port;
    this.#counter = counter;
    this.#epoll = calls.epoll();
    calls.watch(this.#epoll, "add", counter, epollIn, wakeKey);
  }

  /** Takes a request, and returns when nothing has been left to send for a while. */
  run(request: SenderRequest): void {
    this.#obey(request);
    for (;;) {
      const isIdle = this.#streams.size === 0;
      const timeoutMs = this.#cold.size > 0 ? coldRetryMs : isIdle ? lingerMs : waitMs;
      const count = this.#calls.wait(this.#epoll, this.#keys, timeoutMs);
      if (isIdle && count === 0) return;
      const nowMs = performance.now();
      for (let i = 0; i < count; i++) {
        const key = this.#keys[i] as number;
        const stream = this.#streams.get(key);
        if (key === wakeKey) this.#receive();
        else if (stream !== undefined) this.#advance(stream, nowMs);
      }
      for (const stream of this.#cold) this.#advance(stream, nowMs);
      if (nowMs - this.#checkedMs > waitMs) this.#check(nowMs);
    }
  }

  #receive(): void {
    this.#calls.reset(this.#counter);
    for (;;) {
      const received = receiveMessageOnPort(this.#port) as { message: SenderRequest } | undefined;
      if (received === undefined) return;
      this.#obey(received.message);
    }
  }

  #obey(request: SenderRequest): void {
    if (request.kind === "cancel") {
      const stream = this.#streams.get(request.id);
      if (stream !== undefined) this.#end(stream, "cancelled");
      return;
    }
    const { id, socket, file, position, lengthBytes, stallTimeoutMs } = request;
    const nowMs = performance.now();
    const stream: Stream = {
      id,
      socket,
      file,
      begin: position,
      end: position + lengthBytes,
      stallTimeoutMs,
      at: position,
      reportedAt: position,
      reportedMs: nowMs,
      progressMs: nowMs,
      advisedTo: -1,
      coldRetries: 0,
    };
    this.#streams.set(id, stream);
    if (this.#calls.watch(this.#epoll, "add", socket, epollOut, id) < 0) this.#end(stream, "gone");
  }

  #advance(stream: Stream, nowMs: number): void {
    const calls = this.#calls;
    const count = Math.min(pieceBytes, stream.end - stream.at);
    if (!this.#isWarm(stream, count)) return;
    const sent = calls.sendFile(stream.socket, stream.file, stream.at, count);
    if (sent > 0) {
      stream.at += sent;
      stream.progressMs = nowMs;
      if (stream.at === stream.end) this.#end(stream, "sent");
      else if (nowMs - stream.reportedMs > progressEveryMs) this.#report(stream, nowMs);
      return;
    }
    if (sent === -errorNumbers.EAGAIN || sent === -errorNumbers.EINTR) return;
    const isFiles = sent === 0 || sent === -errorNumbers.EIO || sent === -errorNumbers.EINVAL;
    this.#end(stream, isFiles ? "sent" : "gone");
  }

  /** False: the disk is asked, and the stream waits without holding up the others. */
  #isWarm(stream: Stream, count: number): boolean {
    const calls = this.#calls;
    const { file, at, end } = stream;
    // Once a file has been found cold it is read ahead of all the way.
    if (stream.advisedTo >= 0 && stream.advisedTo < end && stream.advisedTo - at < readAheadBytes / 2) {
      const from = Math.max(at, stream.advisedTo);
      stream.advisedTo = Math.min(end, from + readAheadBytes);
      calls.willNeed(file, from, stream.advisedTo - from);
    }
    const isWarm = calls.isInMemory(file, at + count - 1);
    if (isWarm || stream.coldRetries >= coldRetriesMax) {
      stream.coldRetries = 0;
      if (this.#cold.delete(stream)) calls.watch(this.#epoll, "modify", stream.socket, epollOut, stream.id);
      return true;
    }
    stream.coldRetries++;
    if (stream.advisedTo < at + count) {
      stream.advisedTo = Math.min(end, at + readAheadBytes);
      calls.willNeed(file, at, stream.advisedTo - at);
    }
    if (!this.#cold.has(stream)) {
      this.#cold.add(stream);
      calls.watch(this.#epoll, "modify", stream.socket, 0, stream.id);
    }
    return false;
  }

  #check(nowMs: number): void {
    this.#checkedMs = nowMs;
    for (const stream of this.#streams.values()) {
      if (nowMs - stream.progressMs > stream.stallTimeoutMs) this.#end(stream, "stalled");
    }
  }

  #report(stream: Stream, nowMs: number): void {
    stream.reportedMs = nowMs;
    this.#tell({ kind: "progress", id: stream.id, sentBytes: stream.at - stream.begin });
  }

  #end(stream: Stream, outcome: SendOutcome): void {
    this.#streams.delete(stream.id);
    this.#cold.delete(stream);
    // Its last number but the owner's: epoll would go on watching the socket otherwise.
    this.#calls.watch(this.#epoll, "delete", stream.socket, 0, 0);
    this.#calls.close(stream.socket);
    this.#tell({ kind: "done", id: stream.id, sentBytes: stream.at - stream.begin, outcome });
  }

  #tell(report: SenderReport): void {
    this.#port.postMessage(report);
  }
}

const port = present(parentPort, "the main thread");
const calls = present(await systemCalls(), "system calls, which the main thread has found");
const loop = new SenderLoop(calls, port, (workerData as SenderThreadData).counter);
port.on("message", (request: SenderRequest) => loop.run(request));
