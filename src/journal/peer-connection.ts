/**
 * One connection between two masters: frames over a byte stream, in both directions. It gathers what is written in one
 * turn, notices damage and silence, and ends by itself when either is met; it does not know what frames mean.
 *
 * Silence is counted in ticks, and each must be a real one: after a pause of the own process the first tick comes before
 * what arrived meanwhile, and proves nothing. TCP's own keep-alive is not trusted: it takes half a minute.
 */

import { HeadpondError } from "../base/errors.ts";
import { KiB } from "../base/units.ts";
import type { Connection } from "../io/network.ts";
import {
  type Frame,
  type FrameBody,
  type FrameKind,
  type FrameLimits,
  FrameReader,
  FrameWriter,
  frameKind,
  peerPreface,
} from "./peer-frame.ts";

/** Parts up to this are copied together into one write; larger ones are written as they are. */
const gatheredBytesMax = 64 * KiB;

export class PeerConnection {
  readonly remote: string;
  /** Called with each frame but pings; the head is only valid during the call. */
  onFrame: (frame: Frame) => void = () => {};
  /** Called when all frames of what came in one piece have been handed out. */
  onPieceEnd: () => void = () => {};
  onDrain: () => void = () => {};
  /** Called once. `reason` is for people. */
  onClose: (reason: string) => void = () => {};
  /** So many ticks without a sound frame end it. */
  silentTicksMax: number;
  readonly #connection: Connection;
  readonly #isDialer: boolean;
  readonly #reader: FrameReader;
  readonly #writer = new FrameWriter();
  #prefaceBytes = 0;
  #gathered: Uint8Array[] = [];
  #gatheredBytes = 0;
  #silentTicks = 0;
  #wasHeard = true;
  #reason: string | undefined;
  #isClosed = false;

  constructor(options: {
    readonly connection: Connection;
    readonly isDialer: boolean;
    readonly limits: FrameLimits;
    readonly silentTicksMax: number;
  }) {
    this.#connection = options.connection;
    this.remote = options.connection.remote;
    this.#isDialer = options.isDialer;
    this.silentTicksMax = options.silentTicksMax;
    this.#reader = new FrameReader({ limits: options.limits, onFrame: (frame) => this.#take(frame) });
    this.#connection.onClose = (error) => this.#close(error?.message ?? "it ended the connection");
    this.#connection.onDrain = () => this.onDrain();
    this.#connection.onData = (chunk) => this.#read(chunk);
    this.#gather(peerPreface);
  }

  set limits(limits: FrameLimits) {
    this.#reader.limits = limits;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Given to it and not yet to the kernel. */
  get pendingBytes(): number {
    return this.#gatheredBytes + this.#connection.pendingBytes;
  }

  /** Leaves with the next `flush`. The head is copied, the body must not be changed any more. */
  write(kind: FrameKind, head: Uint8Array, body?: FrameBody): void {
    if (this.#isClosed) return;
    this.#gather(this.#writer.encode(kind, head, body));
    if (body !== undefined && body.bytes.length > 0) this.#gather(body.bytes);
  }

  writeJson(kind: FrameKind, value: unknown): void {
    this.write(kind, new TextEncoder().encode(JSON.stringify(value)));
  }

  /** False: wait for `onDrain` before more bulk. */
  flush(): boolean {
    if (this.#isClosed) return false;
    let mayGoOn = true;
    for (const part of joined(this.#gathered)) mayGoOn = this.#connection.write(part);
    this.#gathered = [];
    this.#gatheredBytes = 0;
    return mayGoOn;
  }

  pause(): void {
    this.#connection.pause();
  }

  resume(): void {
    this.#connection.resume();
  }

  /** Called at every beat of the owner's keep-alive timer. */
  tick(): void {
    this.#silentTicks = this.#wasHeard ? 0 : this.#silentTicks + 1;
    this.#wasHeard = false;
    if (this.#silentTicks >= this.silentTicksMax) {
      this.destroy("nothing was heard of it");
      return;
    }
    if (!this.#isDialer) return;
    this.write(frameKind.ping, new Uint8Array(0));
    this.flush();
  }

  /** Sends what is queued, then ends. Nothing is read any more; whoever calls it has a timer for a peer that does not end. */
  end(reason: string): void {
    this.#reason ??= reason;
    this.flush();
    this.onFrame = () => {};
    this.#connection.end();
  }

  destroy(reason: string): void {
    if (this.#isClosed) return;
    this.#reason ??= reason;
    this.#connection.destroy();
    this.#close(reason);
  }

  #read(chunk: Uint8Array): void {
    if (this.#isClosed) return;
    try {
      const rest = this.#withoutPreface(chunk);
      if (rest.length > 0) this.#reader.push(rest);
    } catch (error) {
      // Damage is the world's; anything else is a defect and ends the process.
      if (!(error instanceof HeadpondError)) throw error;
      this.destroy(error.message);
      return;
    }
    this.onPieceEnd();
  }

  #withoutPreface(chunk: Uint8Array): Uint8Array {
    let at = 0;
    for (; at < chunk.length && this.#prefaceBytes < peerPreface.length; at++, this.#prefaceBytes++) {
      if (chunk[at] === peerPreface[this.#prefaceBytes]) continue;
      throw new HeadpondError("invalid", `${this.remote} does not speak the protocol of masters among each other`);
    }
    return chunk.subarray(at);
  }

  #take(frame: Frame): void {
    // Whoever took an earlier frame of this piece may have ended the connection.
    if (this.#isClosed) return;
    this.#wasHeard = true;
    if (frame.kind === frameKind.pong) return;
    if (frame.kind === frameKind.ping) {
      this.write(frameKind.pong, new Uint8Array(0));
      this.flush();
      return;
    }
    this.onFrame(frame);
  }

  #gather(bytes: Uint8Array): void {
    this.#gathered.push(bytes);
    this.#gatheredBytes += bytes.length;
  }

  #close(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    this.onClose(this.#reason ?? reason);
  }
}

/** Small neighbours in one buffer each: a write costs more than a copy. */
function joined(parts: readonly Uint8Array[]): Uint8Array[] {
  const result: Uint8Array[] = [];
  let run: Uint8Array[] = [];
  let runBytes = 0;
  const endRun = (): void => {
    if (run.length > 0) result.push(run.length === 1 ? (run[0] as Uint8Array) : Buffer.concat(run, runBytes));
    run = [];
    runBytes = 0;
  };
  for (const part of parts) {
    if (runBytes + part.length > gatheredBytesMax) endRun();
    run.push(part);
    runBytes += part.length;
  }
  endRun();
  return result;
}
