/**
 * One connection to one server of the ensemble: the handshake, frames, and the order of requests. Answers come in the order of
 * the requests, except those with a reserved number. Knows no session rules; the session (session.ts) does.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Connection } from "../io/network.ts";
import { JuteReader, JuteWriter } from "./jute.ts";

/** An answer larger than this is refused (the servers' own limit of a node is 1 MiB; listings may be larger). */
const frameBytesMax = 64 * 1024 * 1024;

export type Handshake = {
  readonly lastZxid: bigint;
  readonly sessionTimeoutMs: number;
  /** 0: a new session. */
  readonly sessionId: bigint;
  readonly password: Uint8Array;
};

/** `sessionTimeoutMs` 0: the server does not know the session. */
export type Welcome = {
  readonly sessionTimeoutMs: number;
  readonly sessionId: bigint;
  readonly password: Buffer;
};

export type ServerReply = { readonly xid: number; readonly zxid: bigint; readonly error: number };

export interface ServerConnectionEvents {
  onWelcome(welcome: Welcome): void;
  onReply(reply: ServerReply, body: JuteReader): void;
  /** Called once. */
  onClose(error: Error | undefined): void;
}

export class ServerConnection {
  readonly #connection: Connection;
  readonly #events: ServerConnectionEvents;
  #held: Buffer = Buffer.alloc(0);
  #isWelcomed = false;
  #isClosed = false;

  constructor(connection: Connection, handshake: Handshake, events: ServerConnectionEvents) {
    this.#connection = connection;
    this.#events = events;
    connection.onData = (chunk) => this.#take(chunk);
    connection.onClose = (error) => this.#close(error);
    const hello = new JuteWriter()
      .int(0)
      .long(handshake.lastZxid)
      .int(handshake.sessionTimeoutMs)
      .long(handshake.sessionId)
      .buffer(handshake.password)
      .boolean(false);
    connection.write(hello.frame());
  }

  get remote(): string {
    return this.#connection.remote;
  }

  send(frame: Buffer): void {
    if (!this.#isClosed) this.#connection.write(frame);
  }

  /** What was sent still goes out. */
  end(): void {
    this.#connection.end();
  }

  destroy(error: Error | undefined): void {
    this.#connection.destroy();
    this.#close(error);
  }

  #take(chunk: Uint8Array): void {
    this.#held = this.#held.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#held, chunk]);
    let at = 0;
    while (!this.#isClosed && this.#held.length - at >= 4) {
      const length = this.#held.readInt32BE(at);
      if (length < 0 || length > frameBytesMax) {
        this.destroy(new HeadpondError("corrupt", `${this.remote} sent a frame of ${length} bytes`));
        return;
      }
      if (this.#held.length - at - 4 < length) break;
      const frame = this.#held.subarray(at + 4, at + 4 + length);
      at += 4 + length;
      try {
        this.#frame(new JuteReader(frame));
      } catch (error) {
        this.destroy(error as Error);
        return;
      }
    }
    this.#held = at === this.#held.length ? Buffer.alloc(0) : Buffer.from(this.#held.subarray(at));
  }

  #frame(reader: JuteReader): void {
    if (this.#isWelcomed) {
      this.#events.onReply({ xid: reader.int(), zxid: reader.long(), error: reader.int() }, reader);
      return;
    }
    this.#isWelcomed = true;
    reader.int();
    this.#events.onWelcome({
      sessionTimeoutMs: reader.int(),
      sessionId: reader.long(),
      password: reader.buffer(),
    });
  }

  #close(error: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#events.onClose(error);
  }
}
