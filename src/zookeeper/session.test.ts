/** The session's rules against a scripted server in memory, by a clock that the test moves. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { MemoryNetwork } from "../io/memory-network.ts";
import type { Connection } from "../io/network.ts";
import { JuteReader, JuteWriter } from "./jute.ts";
import { operation, reservedXid } from "./protocol.ts";
import { ZooKeeper } from "./zookeeper.ts";

const sessionTimeoutMs = 6000;

type Received = { readonly xid: number; readonly code: number; readonly atMs: number };

/** Answers handshakes and, unless it is mute, every request with success and an empty node. */
class ScriptedServer {
  readonly clock = new ManualClock();
  readonly network = new MemoryNetwork({ clock: this.clock });
  readonly received: Received[] = [];
  readonly handshakes: bigint[] = [];
  connections: Connection[] = [];
  isMute = false;
  /** Says that it does not know the session. */
  forgets = false;
  chunkBytes = Number.POSITIVE_INFINITY;

  async start(): Promise<this> {
    await this.network.at("zk").listen({ host: "zk", port: 2181 }, (connection) => this.#serve(connection));
    return this;
  }

  client(): ZooKeeper {
    return new ZooKeeper({
      network: this.network.at("client"),
      clock: this.clock,
      logger: silentLogger,
      random: new Random(1),
      servers: [{ host: "zk", port: 2181 }],
      sessionTimeoutMs,
    });
  }

  codes(): number[] {
    return this.received.map(({ code }) => code);
  }

  #serve(connection: Connection): void {
    let held = Buffer.alloc(0);
    let isWelcomed = false;
    this.connections.push(connection);
    connection.onData = (chunk) => {
      held = Buffer.concat([held, chunk]);
      while (held.length >= 4 && held.length >= 4 + held.readInt32BE(0)) {
        const reader = new JuteReader(held.subarray(4, 4 + held.readInt32BE(0)));
        held = held.subarray(4 + held.readInt32BE(0));
        if (isWelcomed) this.#request(connection, reader);
        else this.#welcome(connection, reader);
        isWelcomed = true;
      }
    };
  }

  #welcome(connection: Connection, reader: JuteReader): void {
    reader.int();
    reader.long();
    const timeoutMs = reader.int();
    const sessionId = reader.long();
    this.handshakes.push(sessionId);
    const answer = new JuteWriter().int(0);
    if (this.forgets) answer.int(0).long(0n).buffer(new Uint8Array(16));
    else answer.int(timeoutMs).long(77n).buffer(new Uint8Array(16));
    this.#write(connection, answer.boolean(false).frame());
  }

  #request(connection: Connection, reader: JuteReader): void {
    const xid = reader.int();
    const code = reader.int();
    this.received.push({ xid, code, atMs: this.clock.monotonicMs() });
    if (this.isMute) return;
    const answer = new JuteWriter().int(xid).long(5n).int(0);
    if (code === operation.getData) answer.buffer(Buffer.from("data"));
    if (code === operation.getData || code === operation.setData || code === operation.exists) writeStat(answer);
    this.#write(connection, answer.frame());
  }

  #write(connection: Connection, frame: Buffer): void {
    for (let at = 0; at < frame.length; at += this.chunkBytes) {
      connection.write(frame.subarray(at, Math.min(frame.length, at + this.chunkBytes)));
    }
  }
}

function writeStat(writer: JuteWriter): void {
  writer.long(1n).long(2n).long(3n).long(4n).int(9).int(0).int(0).long(0n).int(4).int(0).long(2n);
}

async function connected(server: ScriptedServer): Promise<ZooKeeper> {
  const client = server.client();
  await server.clock.advance(1);
  assert.equal(client.state, "connected");
  return client;
}

async function ended(server: ScriptedServer, client: ZooKeeper): Promise<void> {
  const closing = client.close();
  await server.clock.advance(sessionTimeoutMs);
  await closing;
}

test("a request is answered, however its bytes are cut", async () => {
  const server = await new ScriptedServer().start();
  server.chunkBytes = 1;
  const client = await connected(server);
  const asked = client.get("/a");
  await server.clock.advance(1);
  const { data, stat } = await asked;
  assert.equal(data.toString(), "data");
  assert.equal(stat.version, 9);
  await ended(server, client);
});

test("an idle session pings after a third of its timeout, and the lease counts from the sending", async () => {
  const server = await new ScriptedServer().start();
  const client = await connected(server);
  await server.clock.advance(sessionTimeoutMs);
  const pings = server.received.filter(({ xid }) => xid === reservedXid.ping);
  assert.ok(pings.length >= 2 && pings.length <= 3, `${pings.length} pings within one session timeout`);
  assert.equal(client.lastTouchMs, pings.at(-1)?.atMs);
  await ended(server, client);
});

test("a silent server is given up after two thirds of the timeout, with unknown outcome for changes", async () => {
  const server = await new ScriptedServer().start();
  const client = await connected(server);
  server.isMute = true;
  const change = client.set("/a", Buffer.from("x")).catch((error: unknown) => error);
  const read = client.get("/a").catch((error: unknown) => error);
  await server.clock.advance((2 / 3) * sessionTimeoutMs - 100);
  assert.equal(server.connections.length, 1);
  await server.clock.advance(200);
  const [lost, unread] = [await change, await read];
  assert.ok(isHeadpondError(lost, "unknown-outcome"), String(lost));
  assert.ok(isHeadpondError(unread, "unavailable") && unread.outcome === "none", String(unread));
  await server.clock.advance(200);
  assert.equal(server.connections.length, 2);
  assert.deepEqual(server.handshakes, [0n, 77n], "the session is taken up again");
  await ended(server, client);
});

test("who reaches no server for four thirds of the timeout knows that the session is over", async () => {
  const server = await new ScriptedServer().start();
  const client = await connected(server);
  server.network.partition("client", "zk");
  for (const connection of server.connections) connection.destroy();
  await server.clock.advance(sessionTimeoutMs);
  assert.notEqual(client.state, "expired");
  await server.clock.advance(sessionTimeoutMs * 1.5);
  assert.equal(client.state, "expired");
  const error = await client.get("/a").catch((thrown: unknown) => thrown);
  assert.ok(isHeadpondError(error, "unavailable") && !error.retryable, String(error));
});

test("a session that the servers have forgotten is over for ever", async () => {
  const server = await new ScriptedServer().start();
  const client = await connected(server);
  const states: string[] = [];
  client.onState((state) => states.push(state));
  server.forgets = true;
  for (const connection of server.connections) connection.destroy();
  await server.clock.advance(1000);
  server.forgets = false;
  await server.clock.advance(10_000);
  assert.deepEqual(states, ["connecting", "expired"]);
  assert.equal(server.handshakes.length, 2);
});

test("after a lost connection watches are set before what has waited is sent", async () => {
  const server = await new ScriptedServer().start();
  const client = await connected(server);
  const watching = client.addWatch("/a", "persistent", () => {});
  await server.clock.advance(1);
  await watching;
  server.received.length = 0;
  for (const connection of server.connections) connection.destroy();
  await server.clock.advance(0);
  assert.equal(client.state, "connecting");
  const asked = client.get("/b");
  await server.clock.advance(1000);
  await asked;
  assert.deepEqual(server.codes().slice(0, 2), [operation.setWatches2, operation.getData]);
  await ended(server, client);
});

test("an answer out of order or of absurd length ends the connection, not the session", async () => {
  const server = await new ScriptedServer().start();
  const client = await connected(server);
  server.isMute = true;
  const asked = client.get("/a").catch((error: unknown) => error);
  await server.clock.advance(1);
  server.connections[0]?.write(new JuteWriter().int(99).long(5n).int(0).frame());
  await server.clock.advance(1);
  assert.ok(isHeadpondError(await asked, "unavailable"));
  await server.clock.advance(1000);
  assert.equal(client.state, "connected");
  const absurd = Buffer.alloc(8);
  absurd.writeInt32BE(0x7fff_ffff, 0);
  server.connections[1]?.write(absurd);
  await server.clock.advance(1000);
  assert.equal(server.connections.length, 3);
  assert.equal(client.sessionId, 77n);
  await ended(server, client);
});

test("requests beyond the limit are refused, and those that find no server in time end", async () => {
  const server = await new ScriptedServer().start();
  server.network.vanish("zk");
  const client = new ZooKeeper({
    network: server.network.at("client"),
    clock: server.clock,
    logger: silentLogger,
    random: new Random(1),
    servers: [{ host: "zk", port: 2181 }],
    sessionTimeoutMs,
    limits: { requestsMax: 2 },
  });
  const waiting = [client.get("/a"), client.get("/b")].map((asked) => asked.catch((error: unknown) => error));
  const refused = await client.get("/c").catch((error: unknown) => error);
  assert.ok(isHeadpondError(refused, "overloaded"), String(refused));
  await server.clock.advance(3 * sessionTimeoutMs);
  for (const error of await Promise.all(waiting)) assert.ok(isHeadpondError(error, "unavailable"), String(error));
  await ended(server, client);
});

test("paths that no server would take are refused here", async () => {
  const server = await new ScriptedServer().start();
  const client = await connected(server);
  for (const path of ["a", "/a/", "//a", "/a/../b", "/a\u0000", "/.", "/🦆"]) {
    assert.throws(() => client.get(path), { code: "invalid" }, path);
  }
  await ended(server, client);
});
