/**
 * Ranges of files on their way to sockets, by `sendfile` on threads of their own: no copy of the bytes passes through this process, the
 * thread of the caller does nothing per piece, and a stream costs no memory here. What decides who gets what stays with the caller.
 *
 * Only for plain TCP sockets, on Linux, with the optional package `koffi` (`FileSender.open` says whether).
 * docs/decisions/0170 has the hazards and how each is met.
 */

import { Worker } from "node:worker_threads";
import { HeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import type { SenderReport, SenderRequest, SenderThreadData } from "./file-sender-messages.ts";
import type { Logger } from "./logger.ts";
import { type SystemCalls, systemCalls } from "./system-calls.ts";

export type FileSend = {
  /** Of the socket, which must have nothing queued; nobody writes to it until the send has ended. */
  readonly socket: number;
  /** Of the file; stays open until the send has ended. */
  readonly file: number;
  readonly position: number;
  readonly lengthBytes: number;
  /** How long the reader may take no bytes. */
  readonly stallTimeoutMs: number;
  readonly signal?: AbortSignal;
  /** Of bytes that have left, a few times a second. */
  readonly onSent: (bytes: number) => void;
};

type Pending = {
  readonly thread: SenderThread;
  readonly onSent: (bytes: number) => void;
  readonly settle: (report: SenderReport & { readonly kind: "done" }) => void;
  readonly fail: (error: Error) => void;
  countedBytes: number;
};

type SenderThread = { readonly worker: Worker; readonly counter: number; streams: number };

/** Sends at once, over all threads; more wait for none, they are refused: readers are bounded before they come here. */
const sendsMax = 16_384;

/** A short range that a socket takes at once is not worth the way to another thread and back. */
const atOnceBytesMax = 4 * MiB;
const atOncePieceBytes = MiB;
/** The share of the caller's thread that may go there: of each window so much. */
const atOnceWindowMs = 100;
const atOnceShareMs = 40;

export class FileSender {
  readonly #calls: SystemCalls;
  readonly #logger: Logger;
  readonly #threads: SenderThread[] = [];
  readonly #pending = new Map<number, Pending>();
  /** Keys of epoll: from 1, because 0 is the wake-up. */
  #lastId = 0;
  #failure: Error | undefined;
  #windowBeganMs = 0;
  #windowUsedMs = 0;
  #onIdle: () => void = () => {};

  private constructor(calls: SystemCalls, logger: Logger) {
    this.#calls = calls;
    this.#logger = logger;
  }

  /** Undefined where the system, or the package, is not there. */
  static async open(options: { readonly threads: number; readonly logger: Logger }): Promise<FileSender | undefined> {
    const calls = await systemCalls();
    if (calls === undefined) return undefined;
    const sender = new FileSender(calls, options.logger);
    for (let i = 0; i < options.threads; i++) sender.#start();
    return sender;
  }

  /** False after a thread has failed, which is a defect: files then go the long way. */
  get isUsable(): boolean {
    return this.#failure === undefined;
  }

  get activeSends(): number {
    return this.#pending.size;
  }

  /**
   * Resolves with how many bytes were sent: fewer than asked for if the file did not give more. Rejects with `cancelled` (the reader has
   * left), `timeout` (it takes nothing), `overloaded`, or the signal's reason.
   */
  send(request: FileSend): Promise<number> {
    const { signal } = request;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error);
      if (this.#failure !== undefined) return reject(this.#failure);
      if (this.#pending.size >= sendsMax) {
        return reject(new HeadpondError("overloaded", `${sendsMax} files are being sent already`));
      }
      const atOnceBytes = this.#sendAtOnce(request);
      if (atOnceBytes > 0) request.onSent(atOnceBytes);
      if (atOnceBytes === request.lengthBytes) return resolve(atOnceBytes);
      const thread = this.#leastBusy();
      // A number of our own: the owner may close the socket meanwhile, and its number would be somebody else's.
      const socket = this.#calls.duplicate(request.socket);
      if (socket < 0) return reject(new HeadpondError("cancelled", "the reader's connection is closed"));
      const id = this.#nextId();
      const onAbort = (): void => this.#tell(thread, { kind: "cancel", id });
      const ended = (): void => {
        this.#pending.delete(id);
        thread.streams--;
        signal?.removeEventListener("abort", onAbort);
      };
      this.#pending.set(id, {
        thread,
        onSent: request.onSent,
        countedBytes: 0,
        fail: (error) => {
          ended();
          reject(error);
        },
        settle: ({ outcome, sentBytes }) => {
          ended();
          if (outcome === "sent") resolve(atOnceBytes + sentBytes);
          else if (signal?.aborted) reject(signal.reason as Error);
          else if (outcome === "stalled") {
            const message = `the reader took no bytes for ${request.stallTimeoutMs} ms`;
            reject(new HeadpondError("timeout", message));
          } else reject(new HeadpondError("cancelled", "the reader left before the end"));
        },
      });
      thread.streams++;
      signal?.addEventListener("abort", onAbort, { once: true });
      const { file, stallTimeoutMs } = request;
      const position = request.position + atOnceBytes;
      const lengthBytes = request.lengthBytes - atOnceBytes;
      this.#tell(thread, { kind: "send", id, socket, file, position, lengthBytes, stallTimeoutMs });
      return undefined;
    });
  }

  /** Cuts what is still being sent. */
  async close(): Promise<void> {
    this.#failure ??= new HeadpondError("cancelled", "the worker is stopping");
    for (const [id, { thread }] of this.#pending) this.#tell(thread, { kind: "cancel", id });
    while (this.#pending.size > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()));
    for (const { counter } of this.#threads.splice(0)) this.#calls.close(counter);
  }

  #start(): void {
    const counter = this.#calls.eventCounter();
    const data: SenderThreadData = { counter };
    // The file that runs lies beside this one, in the same language: TypeScript, or what was built of it.
    const suffix = import.meta.url.slice(import.meta.url.lastIndexOf("."));
    const worker = new Worker(new URL(`./file-sender-thread${suffix}`, import.meta.url), { workerData: data });
    worker.unref();
    worker.on("message", (report: SenderReport) => this.#take(report));
    worker.on("error", (error) => this.#fail(error as Error));
    this.#threads.push({ worker, counter, streams: 0 });
  }

  #take(report: SenderReport): void {
    const pending = this.#pending.get(report.id);
    if (pending === undefined) return;
    if (report.sentBytes > pending.countedBytes) {
      pending.onSent(report.sentBytes - pending.countedBytes);
      pending.countedBytes = report.sentBytes;
    }
    if (report.kind === "done") pending.settle(report);
    if (this.#pending.size === 0) this.#onIdle();
  }

  #fail(error: Error): void {
    this.#logger.error("a thread that sends files has failed: files go the long way now", { error });
    this.#failure ??= new HeadpondError("internal", "a thread that sends files has failed", { cause: error });
    for (const { fail } of this.#pending.values()) fail(this.#failure);
    this.#onIdle();
  }

  /** What the socket takes without anybody waiting, neither for it nor for the disk. Returns how many bytes. */
  #sendAtOnce({ socket, file, position, lengthBytes }: FileSend): number {
    if (lengthBytes > atOnceBytesMax) return 0;
    const beganMs = performance.now();
    if (beganMs - this.#windowBeganMs > atOnceWindowMs) {
      this.#windowBeganMs = beganMs;
      this.#windowUsedMs = 0;
    }
    if (this.#windowUsedMs > atOnceShareMs) return 0;
    let done = 0;
    while (done < lengthBytes) {
      const count = Math.min(atOncePieceBytes, lengthBytes - done);
      if (!this.#calls.isInMemory(file, position + done + count - 1)) break;
      const sent = this.#calls.sendFile(socket, file, position + done, count);
      if (sent <= 0) break;
      done += sent;
    }
    this.#windowUsedMs += performance.now() - beganMs;
    return done;
  }

  #leastBusy(): SenderThread {
    return this.#threads.reduce((least, thread) => (thread.streams < least.streams ? thread : least));
  }

  #tell(thread: SenderThread, request: SenderRequest): void {
    thread.worker.postMessage(request);
    this.#calls.raise(thread.counter);
  }

  #nextId(): number {
    do this.#lastId = (this.#lastId % 0x7fff_ffff) + 1;
    while (this.#pending.has(this.#lastId));
    return this.#lastId;
  }
}
