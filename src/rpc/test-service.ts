/** A small service, its two ends over real TCP, and a network that can go silent: for the tests of this folder only. */

import Type from "typebox";
import type { Clock } from "../io/clock.ts";
import { type LogFields, type Logger, silentLogger } from "../io/logger.ts";
import type { Address, Connection, Listener, Network } from "../io/network.ts";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { type ClientLimits, RpcClient } from "./client.ts";
import { type FrameKind, FrameParser, frameKinds } from "./frame.ts";
import { type ClientHello, type PeerInfo, preface, writeHello } from "./hello.ts";
import { bytes, service, stream, unary } from "./method.ts";
import { Outbox } from "./outbox.ts";
import { type Handlers, RpcServer, type ServerLimits } from "./server.ts";

const Text = Type.Object({ text: Type.String({ maxLength: 100_000 }) });
const Count = Type.Object({ count: Type.Integer({ minimum: 0 }) });

export const testService = service("test", 1, {
  echo: unary("echo", Text, Text),
  add: unary("add", Type.Object({ to: Type.String(), amount: Type.Integer() }), Count),
  wait: unary("wait", Text, Text),
  blob: unary("blob", Count, Type.Object({ data: bytes() })),
  count: stream("count", Type.Object({ until: Type.Integer(), padding: Type.Optional(Type.String()) }), Count),
});
export type TestMethods = typeof testService.methods;
export type TestHandlers = Handlers<TestMethods>;

export const loopback: Address = { host: "127.0.0.1", port: 0 };
export const network = new TcpNetwork();
export const clock: Clock = new NodeClock();
export const serverSelf: PeerInfo = { software: "1.0.0", role: "master", name: "m1" };
export const clientSelf: PeerInfo = { software: "1.0.0", role: "client", name: "c1" };

export const plainHandlers: TestHandlers = {
  echo: ({ text }) => ({ text }),
  add: ({ amount }) => ({ count: amount }),
  wait: async ({ text }) => ({ text }),
  blob: ({ count }) => ({ data: new Uint8Array(count) }),
  count: async function* ({ until }) {
    for (let count = 0; count < until; count++) yield { count };
  },
};

/** Keeps the messages and fields of warnings. */
export function recordingLogger(): { readonly logger: Logger; readonly lines: string[] } {
  const lines: string[] = [];
  const note = (message: string, fields?: LogFields): void => {
    lines.push(`${message} ${JSON.stringify(fields)}`);
  };
  return { lines, logger: { ...silentLogger, warn: note, error: note } };
}

export async function startServer(
  handlers: Partial<TestHandlers> = {},
  options: {
    readonly limits?: Partial<ServerLimits>;
    readonly self?: Partial<PeerInfo>;
    readonly logger?: Logger;
    readonly address?: Address;
  } = {},
): Promise<{
  readonly server: RpcServer<TestMethods>;
  readonly address: Address;
  [Symbol.asyncDispose](): Promise<void>;
}> {
  const server = new RpcServer({
    service: testService,
    handlers: { ...plainHandlers, ...handlers },
    self: { ...serverSelf, ...options.self },
    clock,
    logger: options.logger ?? silentLogger,
    limits: { closeGraceMs: 100, ...options.limits },
  });
  const address = await server.listen(network, options.address ?? loopback);
  return { server, address, [Symbol.asyncDispose]: () => server.close() };
}

export function startClient(
  address: Address,
  options: {
    readonly limits?: Partial<ClientLimits>;
    readonly self?: Partial<PeerInfo>;
    readonly network?: Network;
  } = {},
): RpcClient & AsyncDisposable {
  const client = new RpcClient({
    network: options.network ?? network,
    address,
    service: testService,
    self: { ...clientSelf, ...options.self },
    clock,
    logger: silentLogger,
    limits: options.limits ?? {},
  });
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.close() });
}

export async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 4000; i++) {
    if (condition()) return;
    await clock.sleep(5);
  }
  throw new Error(`waited in vain until ${what}`);
}

export const goodHello: ClientHello = {
  protocolMin: 1,
  protocolMax: 1,
  service: "test",
  serviceVersion: 1,
  frameBytesMax: 16 * 1024 * 1024,
  peer: clientSelf,
};

export type RawFrame = { readonly kind: number; readonly id: number; readonly payload: Buffer };

/** A client that writes whatever it is told to, and keeps what comes. */
export class RawClient {
  readonly connection: Connection;
  readonly outbox: Outbox;
  readonly frames: RawFrame[] = [];
  closed = false;

  private constructor(connection: Connection) {
    this.connection = connection;
    this.outbox = new Outbox(connection);
    const parser = new FrameParser({
      maxFrameBytes: 64 * 1024 * 1024,
      onFrame: (kind, id, buffer, start, end) => {
        this.frames.push({ kind, id, payload: Buffer.from(buffer.subarray(start, end)) });
        return true;
      },
    });
    connection.onClose = () => {
      this.closed = true;
    };
    connection.onData = (chunk) => parser.push(chunk);
  }

  static async connect(address: Address): Promise<RawClient> {
    return new RawClient(await network.connect(address));
  }

  write(bytes: Uint8Array): void {
    this.outbox.flush();
    this.connection.write(Buffer.from(bytes));
  }

  hello(hello: Partial<ClientHello> = {}): void {
    this.write(preface);
    this.frame(frameKinds.hello, 0, () => writeHello(this.outbox, { ...goodHello, ...hello }));
  }

  frame(kind: FrameKind, id: number, payload: () => void = () => {}): void {
    this.outbox.beginFrame(kind, id);
    payload();
    this.outbox.endFrame();
  }

  raw(...values: readonly number[]): void {
    this.outbox.ensure(values.length);
    for (const value of values) this.outbox.buffer[this.outbox.position++] = value;
  }
}

/** A network whose connections can be made to swallow everything, as a machine that vanished does. */
export class SilentableNetwork implements Network {
  silent = false;
  connects = 0;

  async connect(address: Address, signal?: AbortSignal): Promise<Connection> {
    this.connects++;
    const inner = await network.connect(address, signal);
    const isSilent = (): boolean => this.silent;
    return {
      remote: inner.remote,
      set onData(consumer: (chunk: Uint8Array) => void) {
        inner.onData = (chunk) => {
          if (!isSilent()) consumer(chunk);
        };
      },
      set onClose(consumer: (error: Error | undefined) => void) {
        inner.onClose = consumer;
      },
      set onDrain(consumer: () => void) {
        inner.onDrain = consumer;
      },
      write: (chunk) => isSilent() || inner.write(chunk),
      pause: () => inner.pause(),
      resume: () => inner.resume(),
      get pendingBytes() {
        return inner.pendingBytes;
      },
      end: () => inner.end(),
      destroy: (error) => inner.destroy(error),
    } as Connection;
  }

  listen(address: Address, onConnection: (connection: Connection) => void): Promise<Listener> {
    return network.listen(address, onConnection);
  }
}
