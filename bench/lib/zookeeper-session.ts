/**
 * One pipelined session with a ZooKeeper server, as small as a benchmark needs it: create, set, get. It reads its own replies,
 * tells when the connection has ended, and leaves out watches, authentication and moving to another server.
 */

import { connect, type Socket } from "node:net";

const operations = { create: 1, getData: 4, setData: 5, ping: 11, close: -11 } as const;
const nodeExists = -110;
const sessionTimeoutMs = 10_000;
const passwordBytes = 16;

type Waiting = { readonly done: () => void; readonly fail: (error: Error) => void };

export class ZooKeeperSession {
  readonly #socket: Socket;
  /** Replies come in the order of the requests. */
  readonly #waiting: Waiting[] = [];
  readonly #pings: NodeJS.Timeout;
  #nextXid = 1;
  #held: Buffer = Buffer.alloc(0);
  #gathered: Buffer[] = [];
  #ended = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#pings = setInterval(() => this.#send(header(-2, operations.ping)), sessionTimeoutMs / 4);
  }

  /** Rejects when there is no server, or none that has a leader. */
  static async open(port: number): Promise<ZooKeeperSession> {
    const socket = connect(port, "127.0.0.1");
    socket.setNoDelay(true);
    const session = new ZooKeeperSession(socket);
    const opened = new Promise<void>((done, fail) => session.#waiting.push({ done, fail }));
    socket.on("error", () => {});
    socket.once("close", () => session.#end());
    let greeted = false;
    socket.on("data", (chunk: Buffer) => {
      session.#receive(chunk, (frame) => {
        if (greeted) return frame.readInt32BE(0) === -2 ? undefined : frame.readInt32BE(12);
        greeted = true;
        // A negotiated timeout of 0 refuses the session.
        return frame.readInt32BE(4) > 0 ? 0 : -112;
      });
    });
    const hello = Buffer.alloc(4 + 8 + 4 + 8 + 4 + passwordBytes + 1);
    hello.writeInt32BE(sessionTimeoutMs, 12);
    hello.writeInt32BE(passwordBytes, 24);
    session.#send(hello);
    await opened;
    return session;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Durable on a majority when it resolves; a node that is there already will do. */
  create(path: string, data: Buffer): Promise<void> {
    const acl = [int(1), int(31), text("world"), text("anyone")];
    return this.#ask(operations.create, [text(path), bytes(data), ...acl, int(0)]);
  }

  set(path: string, data: Buffer): Promise<void> {
    return this.#ask(operations.setData, [text(path), bytes(data), int(-1)]);
  }

  /** What this server knows: not linearizable unless it leads and nothing else happens. */
  get(path: string): Promise<void> {
    return this.#ask(operations.getData, [text(path), Buffer.of(0)]);
  }

  close(): void {
    this.#socket.destroy();
    this.#end();
  }

  #ask(operation: number, parts: readonly Buffer[]): Promise<void> {
    return new Promise((done, fail) => {
      if (this.#ended) {
        fail(new Error("the session has ended"));
        return;
      }
      this.#waiting.push({ done, fail });
      this.#send(Buffer.concat([header(this.#nextXid++, operation), ...parts]));
    });
  }

  /** All that is asked in one turn leaves in one write. */
  #send(frame: Buffer): void {
    if (this.#gathered.length === 0) {
      queueMicrotask(() => {
        this.#socket.write(Buffer.concat(this.#gathered));
        this.#gathered = [];
      });
    }
    this.#gathered.push(int(frame.length), frame);
  }

  /** `errorOf`: the error that a frame carries, 0 if none; undefined if it answers nothing. */
  #receive(chunk: Buffer, errorOf: (frame: Buffer) => number | undefined): void {
    let rest = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (rest.length >= 4) {
      const end = 4 + rest.readInt32BE(0);
      if (rest.length < end) break;
      const error = errorOf(rest.subarray(4, end));
      rest = rest.subarray(end);
      if (error === undefined) continue;
      const waiting = this.#waiting.shift();
      if (error === 0 || error === nodeExists) waiting?.done();
      else waiting?.fail(new Error(`ZooKeeper answered ${error}`));
    }
    this.#held = rest;
  }

  #end(): void {
    this.#ended = true;
    clearInterval(this.#pings);
    for (const waiting of this.#waiting.splice(0)) waiting.fail(new Error("the connection ended"));
  }
}

function int(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32BE(value);
  return buffer;
}

function bytes(value: Buffer): Buffer {
  return Buffer.concat([int(value.length), value]);
}

function text(value: string): Buffer {
  return bytes(Buffer.from(value));
}

function header(xid: number, operation: number): Buffer {
  return Buffer.concat([int(xid), int(operation)]);
}
