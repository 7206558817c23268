/**
 * The client's end of one request or stream: waits for a connection, is written, then gets its answer. It is settled
 * exactly once, whatever comes first: the answer, the deadline, its signal, or the loss of the connection.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Codec } from "./codec.ts";

export type MethodCodecs = { readonly request: Codec; readonly answer: Codec };

export interface CallOwner {
  onSettled(call: ClientCall): void;
}

/** What a call needs of the connection that it was written to. */
export interface CallCarrier {
  mayHaveSent(call: ClientCall): boolean;
  cancel(call: ClientCall): void;
  grant(call: ClientCall, items: number, bytes: number): void;
}

/** Until it is written, nothing can have happened at the server; after that, anything. */
export abstract class ClientCall {
  readonly methodName: string;
  readonly requestCodec: Codec;
  readonly request: unknown;
  /** On the monotonic clock; Infinity when there is none. */
  readonly deadlineMs: number;
  /** Set when it is written. */
  connection: CallCarrier | undefined;
  id = 0;
  /** The connection's `writtenBytes` when its frame began. */
  writtenAt = 0;
  /** Is told when it is settled and no longer counts. */
  owner: CallOwner | undefined;
  /** Its caller sends it again elsewhere when it is not known what became of it: no reason to wait for a server that is of no use. */
  repeatable = false;
  #settled = false;
  /** Most calls have no signal, and make no listener. */
  #unlisten: (() => void) | undefined;

  constructor(
    methodName: string,
    requestCodec: Codec,
    request: unknown,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ) {
    this.methodName = methodName;
    this.requestCodec = requestCodec;
    this.request = request;
    this.deadlineMs = deadlineMs;
    if (signal !== undefined) this.#listen(signal);
  }

  get settled(): boolean {
    return this.#settled;
  }

  abstract readonly kind: "unary" | "stream";
  protected abstract reject(error: HeadpondError): void;

  #listen(signal: AbortSignal): void {
    const onAbort = (): void => {
      const reason: unknown = signal.reason;
      const error = toHeadpondError(reason);
      const code = error.code === "internal" ? "cancelled" : error.code;
      this.abandon(
        new HeadpondError(code, `${this.methodName}: ${error.message}`, { cause: reason, outcome: this.outcome }),
      );
    };
    signal.addEventListener("abort", onAbort, { once: true });
    this.#unlisten = () => signal.removeEventListener("abort", onAbort);
  }

  /** Whether the server may know of it. */
  get outcome(): "none" | "unknown" {
    return this.connection !== undefined && this.connection.mayHaveSent(this) ? "unknown" : "none";
  }

  /** Ends it from this side; the server is told. */
  abandon(error: HeadpondError): void {
    if (this.#settled) return;
    this.connection?.cancel(this);
    this.fail(error);
  }

  /** As `abandon`, with the outcome that is true for it. */
  abandonWith({ code, message, details }: HeadpondError): void {
    const options = { outcome: this.outcome, ...(details === undefined ? {} : { details }) };
    this.abandon(new HeadpondError(code, `${this.methodName}: ${message}`, options));
  }

  timeOut(): void {
    const message = `${this.methodName}: no answer by the deadline`;
    this.abandon(new HeadpondError("timeout", message, { outcome: this.outcome }));
  }

  fail(error: HeadpondError): void {
    if (this.settle()) this.reject(error);
  }

  /** True the first time. */
  protected settle(): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    this.#unlisten?.();
    this.owner?.onSettled(this);
    return true;
  }
}

export class UnaryCall extends ClientCall {
  readonly kind = "unary";
  readonly #replyCodec: Codec;
  readonly #resolve: (reply: unknown) => void;
  readonly #reject: (error: HeadpondError) => void;

  constructor(
    methodName: string,
    codecs: MethodCodecs,
    request: unknown,
    deadlineMs: number,
    signal: AbortSignal | undefined,
    resolve: (reply: unknown) => void,
    reject: (error: HeadpondError) => void,
  ) {
    super(methodName, codecs.request, request, deadlineMs, signal);
    this.#replyCodec = codecs.answer;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  protected reject(error: HeadpondError): void {
    this.#reject(error);
  }

  get replyCodec(): Codec {
    return this.#replyCodec;
  }

  succeed(reply: unknown): void {
    if (this.settle()) this.#resolve(reply);
  }
}
