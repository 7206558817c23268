import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadpondError } from "../base/errors.ts";
import { silentLogger } from "../io/logger.ts";
import type { Address } from "../io/network.ts";
import { formatAddress, parseAddress } from "./address.ts";
import { ClusterClient, type ClusterClientLimits } from "./cluster-client.ts";
import {
  clientSelf,
  clock,
  loopback,
  network,
  SilentableNetwork,
  startServer,
  type TestHandlers,
  testService,
  until,
} from "./test-service.ts";

const { echo, add, wait, count } = testService.methods;

function clusterClient(
  addresses: readonly Address[],
  options: {
    readonly limits?: Partial<ClusterClientLimits>;
    readonly follow?: boolean;
    readonly network?: SilentableNetwork;
  } = {},
): ClusterClient & AsyncDisposable {
  const client = new ClusterClient({
    network,
    addresses,
    service: testService,
    self: clientSelf,
    clock,
    logger: silentLogger,
    ...options,
  });
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.close() });
}

/** Three masters of which one leads, or none; each counts what it is asked, and what it did. */
class TestCluster {
  leader: number | undefined;
  /** Whether followers know who leads. */
  hints = true;
  readonly asked = [0, 0, 0];
  readonly done: string[] = [];
  /** Runs at the leader before it answers. */
  onAdd: (to: string) => void | Promise<void> = () => {};
  readonly #servers: Awaited<ReturnType<typeof startServer>>[] = [];

  static async start(leader: number | undefined): Promise<TestCluster> {
    const cluster = new TestCluster();
    cluster.leader = leader;
    for (let i = 0; i < 3; i++) cluster.#servers.push(await startServer(cluster.#handlers(i)));
    return cluster;
  }

  get addresses(): Address[] {
    return this.#servers.map(({ address }) => address);
  }

  #handlers(i: number): Partial<TestHandlers> {
    const lead = (): void => {
      this.asked[i] = (this.asked[i] ?? 0) + 1;
      if (this.leader === i) return;
      const known = this.hints && this.leader !== undefined ? this.addresses[this.leader] : undefined;
      const details = known === undefined ? {} : { details: { leader: formatAddress(known) } };
      throw new HeadpondError("not-leader", `m${i} does not lead`, details);
    };
    const deposed = (): Promise<void> => until(() => this.leader !== i, "it is deposed");
    return {
      echo: () => {
        lead();
        return { text: `m${i}` };
      },
      add: async ({ to, amount }) => {
        lead();
        this.done.push(to);
        await this.onAdd(to);
        return { count: amount };
      },
      count: async function* ({ until: end }) {
        lead();
        for (let n = 0; n < end; n++) {
          if (n === 3) {
            await deposed();
            throw new HeadpondError("not-leader", "deposed");
          }
          yield { count: n };
        }
      },
    };
  }

  async stop(i: number): Promise<void> {
    await this.#servers[i]?.server.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#servers.map(({ server }) => server.close()));
  }
}

test("a client that asks a follower is sent to the leader, and remembers it", async () => {
  await using cluster = await TestCluster.start(2);
  await using client = clusterClient(cluster.addresses);
  for (let i = 0; i < 5; i++) assert.deepEqual(await client.call(echo, { text: "" }), { text: "m2" });
  assert.deepEqual(cluster.asked, [1, 0, 5]);
  assert.deepEqual(client.target, cluster.addresses[2]);
});

test("a leader outside the addresses given is followed too", async () => {
  await using cluster = await TestCluster.start(2);
  await using client = clusterClient(cluster.addresses.slice(0, 1));
  assert.deepEqual(await client.call(echo, { text: "" }), { text: "m2" });
});

test("without a hint every master is asked in turn", async () => {
  await using cluster = await TestCluster.start(2);
  cluster.hints = false;
  await using client = clusterClient(cluster.addresses);
  assert.deepEqual(await client.call(echo, { text: "" }), { text: "m2" });
  assert.deepEqual(cluster.asked, [1, 1, 1]);
});

test("an election is waited out, until the deadline and no longer", async () => {
  await using cluster = await TestCluster.start(undefined);
  await using client = clusterClient(cluster.addresses);
  await assert.rejects(client.call(add, { to: "a", amount: 1 }, { timeoutMs: 100 }), {
    code: "not-leader",
    outcome: "none",
  });
  const call = client.call(add, { to: "a", amount: 1 });
  await until(() => cluster.asked.reduce((sum, asked) => sum + asked) > 9, "all were asked several times");
  cluster.leader = 1;
  assert.deepEqual(await call, { count: 1 });
  assert.deepEqual(cluster.done, ["a"]);
});

test("masters that cannot be reached are passed over", async () => {
  await using cluster = await TestCluster.start(2);
  await cluster.stop(0);
  await using client = clusterClient(cluster.addresses);
  assert.deepEqual(await client.call(echo, { text: "" }), { text: "m2" });
  await cluster.stop(2);
  cluster.leader = 1;
  assert.deepEqual(await client.call(echo, { text: "" }, { readOnly: true }), { text: "m1" });
});

test("a change that may have happened is not repeated unless the caller allows it", async () => {
  await using cluster = await TestCluster.start(0);
  cluster.onAdd = () => {
    if (cluster.done.length > 1) return;
    throw new HeadpondError("unknown-outcome", "m0 lost the lead");
  };
  await using client = clusterClient(cluster.addresses);
  await assert.rejects(client.call(add, { to: "once", amount: 1 }), { code: "unknown-outcome", outcome: "unknown" });
  assert.deepEqual(cluster.done, ["once"]);
  cluster.done.length = 0;
  assert.deepEqual(await client.call(add, { to: "again", amount: 1 }, { retryUnknown: true }), { count: 1 });
  assert.deepEqual(cluster.done, ["again", "again"]);
});

test("a refusal does not tell what became of an earlier attempt", async () => {
  await using cluster = await TestCluster.start(1);
  await using client = clusterClient(cluster.addresses);
  for (const code of ["no-space", "under-store", "internal"] as const) {
    let attempts = 0;
    cluster.onAdd = () => {
      throw new HeadpondError(attempts++ === 0 ? "unknown-outcome" : code, "the disk is full");
    };
    const twice = client.call(add, { to: "x", amount: 1 }, { retryUnknown: true });
    await assert.rejects(twice, { code: "unknown-outcome", outcome: "unknown" });
    // Without an earlier attempt it is what it says.
    await assert.rejects(client.call(add, { to: "x", amount: 1 }, { retryUnknown: true }), { code, outcome: "none" });
  }
  // What the state says is the stored answer of the first attempt.
  let attempts = 0;
  cluster.onAdd = () => {
    throw new HeadpondError(attempts++ === 0 ? "unknown-outcome" : "already-exists", "x");
  };
  const again = client.call(add, { to: "x", amount: 1 }, { retryUnknown: true });
  await assert.rejects(again, { code: "already-exists", outcome: "none" });
});

test("a connection lost after the request was sent is an unknown outcome; before, it is tried elsewhere", async () => {
  await using cluster = await TestCluster.start(0);
  cluster.onAdd = async () => {
    cluster.leader = 1;
    cluster.onAdd = () => {};
    void cluster.stop(0);
    await new Promise(() => {});
  };
  await using client = clusterClient(cluster.addresses);
  await assert.rejects(client.call(add, { to: "x", amount: 1 }), {
    code: "unknown-outcome",
    message: /^add: it is not known whether it took effect: /,
  });
  assert.deepEqual(await client.call(add, { to: "y", amount: 2 }), { count: 2 });
  assert.deepEqual(cluster.done, ["x", "y"]);
});

test("an attempt at a master that hangs is given up, and a read goes to another", async () => {
  await using hung = await startServer({ echo: () => new Promise(() => {}) });
  await using cluster = await TestCluster.start(0);
  await using client = clusterClient([hung.address, ...cluster.addresses], { limits: { attemptTimeoutMs: 50 } });
  assert.deepEqual(await client.call(echo, { text: "" }, { readOnly: true }), { text: "m0" });
});

test("long work is given the time of the whole call, and asked for once", async () => {
  let asked = 0;
  await using slow = await startServer({
    echo: async ({ text }) => {
      asked++;
      await clock.sleep(150);
      return { text };
    },
  });
  await using client = clusterClient([slow.address], { limits: { attemptTimeoutMs: 20 } });
  assert.deepEqual(await client.call(echo, { text: "done" }, { readOnly: true, isLong: true }), { text: "done" });
  assert.equal(asked, 1);
});

test("a leader is not looked for as long as long work may take", async () => {
  const gone = await startServer({});
  await gone[Symbol.asyncDispose]();
  await using client = clusterClient([gone.address], { limits: { timeoutMs: 100 } });
  const asked = client.call(echo, { text: "" }, { readOnly: true, isLong: true, timeoutMs: 3_600_000 });
  await assert.rejects(asked, { code: "unavailable" });
});

test("a deadline that passes is a timeout for a read and an unknown outcome for a change", async () => {
  await using hung = await startServer({ wait: () => new Promise(() => {}) });
  await using client = clusterClient([hung.address]);
  const timeoutMs = 60;
  await assert.rejects(client.call(wait, { text: "" }, { timeoutMs, readOnly: true }), {
    code: "timeout",
    outcome: "none",
  });
  await assert.rejects(client.call(wait, { text: "" }, { timeoutMs, retryUnknown: true }), { code: "unknown-outcome" });
  await assert.rejects(client.call(wait, { text: "" }, { timeoutMs }), { code: "unknown-outcome" });
});

test("an overloaded master is asked again, not before the time it named", async () => {
  const askedMs: number[] = [];
  await using server = await startServer({
    echo: ({ text }) => {
      askedMs.push(clock.monotonicMs());
      if (askedMs.length < 3) throw new HeadpondError("overloaded", "busy", { details: { retryAfterMs: 40 } });
      return { text };
    },
  });
  await using client = clusterClient([server.address]);
  await client.call(echo, { text: "" });
  const [first = 0, second = 0, third = 0] = askedMs;
  // Timers may fire a millisecond early.
  assert(second - first >= 39 && third - second >= 39, `asked at ${askedMs.join(", ")}`);
  askedMs.length = 0;
  await assert.rejects(client.call(echo, { text: "" }, { timeoutMs: 30 }), { code: "overloaded" });
  assert.equal(askedMs.length, 1);
});

test("an answer that no retry would change is given at once", async () => {
  let asked = 0;
  await using server = await startServer({
    add: () => {
      asked++;
      throw new HeadpondError("not-empty", "/a: has children");
    },
  });
  await using client = clusterClient([server.address]);
  await assert.rejects(client.call(add, { to: "/a", amount: 1 }, { retryUnknown: true }), { code: "not-empty" });
  assert.equal(asked, 1);
});

test("a leader is not looked for as long as long work may take", async () => {
  const gone = await startServer({});
  await gone[Symbol.asyncDispose]();
  await using client = clusterClient([gone.address], { limits: { timeoutMs: 100 } });
  const asked = client.call(echo, { text: "" }, { readOnly: true, isLong: true, timeoutMs: 3_600_000 });
  await assert.rejects(asked, { code: "unavailable" });
});

test("a client that does not follow asks the first address only", async () => {
  await using cluster = await TestCluster.start(2);
  await using client = clusterClient(cluster.addresses, { follow: false });
  await assert.rejects(client.call(echo, { text: "" }), { code: "not-leader" });
  assert.deepEqual(cluster.asked, [1, 0, 0]);
});

test("a signal ends a call that is waiting for a leader", async () => {
  await using cluster = await TestCluster.start(undefined);
  await using client = clusterClient(cluster.addresses, { limits: { retryMinMs: 20_000, retryMaxMs: 20_000 } });
  const controller = new AbortController();
  const call = client.call(add, { to: "a", amount: 1 }, { signal: controller.signal });
  await until(() => cluster.asked.every((asked) => asked === 1), "all were asked");
  // The last answer is on its way; once it is here, the client waits for ten seconds and more.
  await clock.sleep(300);
  controller.abort();
  await assert.rejects(call, { code: "cancelled", outcome: "none" });
  assert.deepEqual(cluster.asked, [1, 1, 1]);
});

test("masters that name each other as leader are asked with waits between, until the deadline", async () => {
  const addresses: Address[] = [];
  let asked = 0;
  const blame = (other: number) => ({
    echo: () => {
      asked++;
      throw new HeadpondError("not-leader", "not me", {
        details: { leader: formatAddress(addresses[other] as Address) },
      });
    },
  });
  await using first = await startServer(blame(1));
  await using second = await startServer(blame(0));
  addresses.push(first.address, second.address);
  await using client = clusterClient(addresses);
  await assert.rejects(client.call(echo, { text: "" }, { timeoutMs: 200 }), { code: "not-leader" });
  assert(asked > 3 && asked < 30, `${asked} attempts`);
});

test("a stream is opened at the leader; what fails after its first item is the caller's", async () => {
  await using cluster = await TestCluster.start(1);
  await using client = clusterClient(cluster.addresses);
  const items: number[] = [];
  for await (const item of client.openStream(count, { until: 3 })) items.push(item.count);
  assert.deepEqual(items, [0, 1, 2]);
  const read = async (): Promise<void> => {
    for await (const item of client.openStream(count, { until: 10 })) {
      items.push(item.count);
      cluster.leader = 2;
    }
  };
  await assert.rejects(read(), { code: "not-leader", message: "deposed" });
  assert.deepEqual(items, [0, 1, 2, 0, 1, 2]);
});

test("a leader that vanished without a word is given up in time for another", async () => {
  const silentable = new SilentableNetwork();
  await using cluster = await TestCluster.start(0);
  await using client = clusterClient(cluster.addresses.slice(0, 1), {
    network: silentable,
    limits: { busyPingIntervalMs: 30, pingTimeoutMs: 30 },
  });
  await client.call(echo, { text: "" });
  silentable.silent = true;
  const call = client.call(echo, { text: "" }, { readOnly: true });
  await clock.sleep(20);
  await until(() => silentable.connects > 1, "it connects again");
  silentable.silent = false;
  assert.deepEqual(await call, { text: "m0" });
});

test("addresses are read and written with IPv6 in brackets", () => {
  for (const text of ["h1:7070", "10.0.0.1:1", "[::1]:7070"]) assert.equal(formatAddress(parseAddress(text)), text);
  for (const text of ["h1", "h1:", ":7070", "::1:7070", "h1:70700", "a b:1"])
    assert.throws(() => parseAddress(text), { code: "invalid" });
  assert.deepEqual(parseAddress("[::1]:80"), { host: "::1", port: 80 });
  assert.notDeepEqual(loopback, parseAddress("[::1]:80"));
});
