/** The contract of `Network`, held by TCP and memory alike, and what only the memory network does. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ManualClock } from "./manual-clock.ts";
import { MemoryNetwork } from "./memory-network.ts";
import type { Address, Connection, Listener, Network } from "./network.ts";
import { NodeClock } from "./node-clock.ts";
import { TcpNetwork } from "./tcp-network.ts";

const clock = new NodeClock();
const anyPort: Address = { host: "127.0.0.1", port: 0 };

/** A connection with everything that happens to it written down. */
class Recorder {
  readonly connection: Connection;
  received = "";
  closes: (Error | undefined)[] = [];
  drains = 0;

  constructor(connection: Connection) {
    this.connection = connection;
    connection.onData = (chunk) => {
      this.received += Buffer.from(chunk).toString("latin1");
    };
    connection.onClose = (error) => this.closes.push(error);
    connection.onDrain = () => this.drains++;
  }

  send(text: string): boolean {
    return this.connection.write(Buffer.from(text, "latin1"));
  }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await clock.sleep(1);
}

type Pair = { readonly client: Recorder; readonly server: Recorder; readonly listener: Listener };

async function connectPair(network: Network, address: Address = anyPort): Promise<Pair> {
  const accepted = Promise.withResolvers<Recorder>();
  const listener = await network.listen(address, (connection) => accepted.resolve(new Recorder(connection)));
  const client = new Recorder(await network.connect(listener.address));
  return { client, server: await accepted.promise, listener };
}

for (const [name, make] of Object.entries({
  TcpNetwork: (): Network => new TcpNetwork(),
  MemoryNetwork: (): Network => new MemoryNetwork({ clock }),
})) {
  describe(name, () => {
    const holds = (claim: string, body: (pair: Pair, network: Network) => Promise<void>): void => {
      test(claim, async () => {
        const network = make();
        const pair = await connectPair(network);
        try {
          await body(pair, network);
        } finally {
          pair.client.connection.destroy();
          pair.server.connection.destroy();
          await pair.listener.close();
        }
      });
    };

    holds("bytes arrive in order, both ways", async ({ client, server }) => {
      const text = Array.from({ length: 1000 }, (_, i) => `${i},`);
      for (const part of text) client.send(part);
      server.send("answer");
      await until(() => server.received.length === text.join("").length && client.received.length === 6);
      assert.equal(server.received, text.join(""));
      assert.equal(client.received, "answer");
    });

    holds(
      "what was written before the end arrives, then both sides close once, without error",
      async ({ client, server }) => {
        client.send("last words");
        client.connection.end();
        await until(() => client.closes.length > 0 && server.closes.length > 0);
        assert.equal(server.received, "last words");
        server.send("into the void");
        client.send("into the void");
        client.connection.end();
        client.connection.destroy();
        await clock.sleep(10);
        assert.deepEqual([client.closes, server.closes], [[undefined], [undefined]]);
      },
    );

    holds("destroy closes at once with its error here, and as an end there", async ({ client, server }) => {
      client.connection.destroy(new Error("mine"));
      assert.equal(client.closes.length, 0, "never within the call");
      await until(() => client.closes.length > 0 && server.closes.length > 0);
      assert.equal(client.closes[0]?.message, "mine");
      assert.equal(client.send("x"), false);
    });

    holds("a paused reader slows the writer down, and nothing is lost", async ({ client, server }) => {
      server.connection.pause();
      const piece = "x".repeat(64 * 1024);
      let sent = 0;
      while (client.send(piece)) {
        sent += piece.length;
        await clock.sleep(0);
        assert.ok(sent < 1e9, "back-pressure never came");
      }
      sent += piece.length;
      assert.ok(client.connection.pendingBytes > 0);
      assert.equal(client.drains, 0);
      server.connection.resume();
      await until(() => server.received.length === sent && client.drains === 1);
      assert.equal(client.connection.pendingBytes, 0);
    });

    holds(
      "closing a listener refuses new connections and keeps the old ones",
      async ({ client, server, listener }, network) => {
        await listener.close();
        await assert.rejects(network.connect(listener.address), { code: "ECONNREFUSED" });
        client.send("still here");
        await until(() => server.received === "still here");
      },
    );

    holds("a port has one listener", async ({ listener }, network) => {
      await assert.rejects(
        network.listen(listener.address, () => {}),
        { code: "EADDRINUSE" },
      );
    });

    holds("an aborted connect rejects with the signal's reason", async ({ listener }, network) => {
      await assert.rejects(network.connect(listener.address, AbortSignal.abort(new Error("no"))), /no/);
      const abort = new AbortController();
      const connecting = network.connect(listener.address, abort.signal);
      abort.abort(new Error("too late"));
      await assert.rejects(connecting, /too late/);
    });
  });
}

test("a TCP listener closes connections beyond its limit", async () => {
  const network = new TcpNetwork({ limits: { connectionsMax: 1 } });
  const { client, server, listener } = await connectPair(network);
  const second = new Recorder(await network.connect(listener.address));
  await until(() => second.closes.length > 0);
  client.send("alive");
  await until(() => server.received === "alive");
  client.connection.destroy();
  await listener.close();
});

test("latency is the clock's, and order is kept even when it varies", async () => {
  const manual = new ManualClock();
  const latencies = [1, 1, 50, 10, 30];
  const network = new MemoryNetwork({ clock: manual, latencyMs: () => latencies.shift() ?? 1 });
  const received: string[] = [];
  const listener = await network.at("b").listen({ host: "b", port: 7 }, (connection) => {
    connection.onData = (chunk) => received.push(`${Buffer.from(chunk).toString()}@${manual.monotonicMs()}`);
  });
  const connecting = network.at("a").connect({ host: "b", port: 7 });
  await manual.advance(1);
  const connection = await connecting;
  for (const text of ["1", "2", "3", "4"]) connection.write(Buffer.from(text));
  await manual.advance(100);
  assert.deepEqual(
    received.map((entry) => entry[0]),
    ["1", "2", "3", "4"],
  );
  await listener.close();
});

test("a partition holds bytes and connects back until it heals; one way, the other still passes", async () => {
  const network = new MemoryNetwork({ clock });
  const servers: Recorder[] = [];
  await network.at("b").listen({ host: "b", port: 7 }, (connection) => servers.push(new Recorder(connection)));
  const client = new Recorder(await network.at("a").connect({ host: "b", port: 7 }));
  network.partition("a", "b", { oneWay: true });
  client.send("held");
  servers[0]?.send("passes");
  await until(() => client.received === "passes");
  const connecting = network.at("a").connect({ host: "b", port: 7 });
  await clock.sleep(5);
  assert.equal(servers[0]?.received, "");
  assert.equal(servers.length, 1);
  network.heal();
  await connecting;
  await until(() => servers[0]?.received === "held");
});

test("a cut breaks both sides; a vanished host leaves its peer half open, and does not answer", async () => {
  const network = new MemoryNetwork({ clock });
  const servers: Recorder[] = [];
  const listen = () =>
    network.at("b").listen({ host: "b", port: 7 }, (connection) => servers.push(new Recorder(connection)));
  await listen();
  const first = new Recorder(await network.at("a").connect({ host: "b", port: 7 }));
  network.cut("a", "b");
  await until(() => first.closes.length > 0 && servers[0]?.closes.length === 1);
  assert.equal((first.closes[0] as NodeJS.ErrnoException).code, "ECONNRESET");
  const second = new Recorder(await network.at("a").connect({ host: "b", port: 7 }));
  network.vanish("b");
  second.send("anybody?");
  await assert.rejects(network.at("a").connect({ host: "b", port: 7 }, AbortSignal.timeout(10)));
  assert.deepEqual(second.closes, []);
  assert.equal(servers[1]?.received, "");
  network.appear("b");
  await assert.rejects(network.at("a").connect({ host: "b", port: 7 }), { code: "ECONNREFUSED" });
  await listen();
  await network.at("a").connect({ host: "b", port: 7 });
});
