import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import type { Network } from "../io/network.ts";
import type { ClusterClient } from "./cluster-client.ts";
import { Ledger, latencyMs, ledgerService } from "./cluster-failover.test-support.ts";

const { put, who } = ledgerService.methods;
const roundTripMs = 2 * latencyMs;
/** A push of the news, then one round trip; and a connection that may have to be made for it. */
const afterNewsMs = latencyMs + 2 * roundTripMs;
const quietMs = 300;

/** A change with session and sequence, as far as these masters know of such things. */
function change(client: ClusterClient, key: string): Promise<{ readonly index: number }> {
  return client.call(put, { key, text: key }, { retryUnknown: true });
}

/** Has a client that listens to all masters, with one change done. */
async function warm(ledger: Ledger, options: Parameters<Ledger["client"]>[0] = {}): Promise<ClusterClient> {
  const client = ledger.client(options);
  await ledger.settle(change(client, "first"), 100);
  await ledger.clock.advance(500);
  return client;
}

test("after a kill the next change is acknowledged a round trip after the election", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  await ledger.master(1).kill();
  const next = change(client, "next");
  await ledger.clock.advance(450);
  ledger.elect(ledger.master(3));
  assert.ok((await ledger.settle(next, 1000)) <= afterNewsMs);
  assert.deepEqual(ledger.log, ["first", "next"]);
});

test("a leader that takes long to take over is asked again the moment it has, and not much before", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  await ledger.master(1).kill();
  const next = change(client, "next");
  await ledger.clock.advance(450);
  const elected = ledger.master(3);
  elected.takesOver = true;
  ledger.elect(elected);
  await ledger.clock.advance(700);
  const asked = elected.asked;
  assert.ok(asked <= 12, `asked ${asked} times`);
  elected.takesOver = false;
  elected.changed();
  assert.ok((await ledger.settle(next, 1000)) <= afterNewsMs);
});

test("a leader that hangs keeps nobody waiting once another one leads, though its connections stay", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  ledger.master(1).hang();
  const next = change(client, "next");
  await ledger.clock.advance(450);
  ledger.elect(ledger.master(2));
  assert.ok((await ledger.settle(next, 1000)) <= afterNewsMs);
  // What was on its way to the old leader arrives when it thaws, and changes nothing.
  ledger.network.heal();
  await ledger.clock.advance(1000);
  assert.deepEqual(ledger.log, ["first", "next"]);
});

test("many changes that wait at a hung leader all move, each takes effect once", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  const keys = Array.from({ length: 300 }, (_, n) => `k${n}`);
  ledger.master(1).onApplied = () => new Promise(() => {});
  const changes = Promise.all(keys.map((key) => change(client, key)));
  await ledger.clock.advance(20);
  assert.equal(ledger.log.length, 301, "all were applied, and none was answered");
  ledger.master(1).hang();
  await ledger.clock.advance(400);
  ledger.elect(ledger.master(2));
  await ledger.settle(changes, 100);
  assert.deepEqual(ledger.log, ["first", ...keys]);
  assert.deepEqual(
    (await changes).map(({ index }) => index),
    keys.map((_, n) => n + 2),
  );
});

test("a change that was applied and whose answer was lost takes effect once, and gets the first answer", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  ledger.master(1).onApplied = async () => {
    await ledger.master(1).kill();
    await new Promise(() => {});
  };
  const next = change(client, "next");
  await ledger.clock.advance(100);
  assert.deepEqual(ledger.log, ["first", "next"]);
  ledger.elect(ledger.master(3));
  await ledger.settle(next, 50);
  assert.deepEqual(await next, { index: 2 });
  assert.deepEqual(ledger.log, ["first", "next"]);
});

test("a change without a session is unknown when its leader dies, and is not sent again", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  ledger.master(1).onApplied = async () => {
    await ledger.master(1).kill();
    await new Promise(() => {});
  };
  const next = client.call(put, { text: "once" });
  const rejects = assert.rejects(next, { code: "unknown-outcome", outcome: "unknown" });
  assert.ok((await ledger.settle(next, 1000)) <= 3 * roundTripMs);
  await rejects;
  ledger.elect(ledger.master(2));
  await ledger.clock.advance(1000);
  assert.deepEqual(ledger.log, ["first", "once"]);
});

test("a change without a session at a hung leader is unknown as soon as another one leads", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  ledger.master(1).hang();
  const next = client.call(put, { text: "late" });
  const rejects = assert.rejects(next, { code: "unknown-outcome", outcome: "unknown" });
  await ledger.clock.advance(quietMs + 200);
  ledger.elect(ledger.master(2));
  assert.ok((await ledger.settle(next, 1000)) <= latencyMs);
  await rejects;
});

test("one whose leader hands over is answered by the old leader; it is alive", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  let answer = (): void => {};
  ledger.master(1).onApplied = () => new Promise((resolve) => (answer = resolve));
  const next = client.call(put, { text: "slow" });
  await ledger.clock.advance(5);
  ledger.elect(ledger.master(2), ledger.masters);
  await ledger.clock.advance(1500);
  answer();
  await ledger.settle(next, 10);
  assert.deepEqual(await next, { index: 2 });
  assert.deepEqual(client.target, { host: "m2", port: 7070 });
});

test("when a leader hands over no change fails, and those under way take effect once", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  const keys: string[] = [];
  const changes: Promise<unknown>[] = [];
  for (let ms = 0; ms < 60; ms++) {
    keys.push(`k${ms}`);
    changes.push(change(client, `k${ms}`));
    await ledger.clock.advance(1);
    if (ms % 20 === 10) ledger.elect(ledger.master(1 + ((ms / 10) % 3)), ledger.masters);
  }
  await ledger.settle(Promise.all(changes), 100);
  assert.deepEqual(new Set(ledger.log), new Set(["first", ...keys]));
  assert.equal(ledger.log.length, keys.length + 1);
});

test("an old leader that is cut off from the others is left, although it answers", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  // It waits for acknowledgements that do not come; the others have elected another.
  ledger.master(1).onApplied = () => new Promise(() => {});
  const next = change(client, "next");
  await ledger.clock.advance(100);
  ledger.elect(ledger.master(2), [ledger.master(2), ledger.master(3)]);
  assert.ok((await ledger.settle(next, 100)) <= afterNewsMs);
  ledger.master(1).onApplied = () => {};
  const { asked } = ledger.master(1);
  for (let n = 0; n < 5; n++) await ledger.settle(change(client, `more${n}`), 100);
  assert.equal(ledger.master(1).asked, asked, "nobody asks it any more");
});

test("a client that strayed from its leader to a standby that hangs comes back in a moment", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  ledger.master(2).hang();
  ledger.master(1).onApplied = () => {
    ledger.master(1).onApplied = () => {};
    ledger.network.cut("client", "m1");
    return new Promise(() => {});
  };
  const next = change(client, "next");
  assert.ok((await ledger.settle(next, 3000)) <= quietMs + 200);
  assert.deepEqual(await next, { index: 2 });
});

test("a master that still names the old leader is not believed", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger, { seeds: ["m2", "m1"] });
  await ledger.master(1).kill();
  ledger.elect(ledger.master(3), []);
  await ledger.clock.advance(500);
  await ledger.settle(change(client, "next"), 100);
  assert.deepEqual(client.target, { host: "m3", port: 7070 });
  const { asked } = ledger.master(2);
  for (let n = 0; n < 5; n++) await ledger.settle(change(client, `more${n}`), 100);
  assert.equal(ledger.master(2).asked, asked);
});

test("masters that name each other are asked with waits between, until the deadline", async () => {
  await using ledger = await Ledger.start(3);
  const [first, second, third] = [ledger.master(1), ledger.master(2), ledger.master(3)];
  first.hear(second, 5);
  second.hear(third, 5);
  third.hear(first, 5);
  const client = ledger.client();
  const call = client.call(put, { text: "x" }, { timeoutMs: 5000 });
  const rejects = assert.rejects(call, { code: "not-leader", outcome: "none" });
  await ledger.settle(call, 5001);
  await rejects;
  const asked = first.asked + second.asked + third.asked;
  assert.ok(asked >= 6 && asked <= 100, `${asked} attempts`);
});

test("leaders that come and go lose and repeat nothing", async (t) => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  t.diagnostic(`seed ${seed}`);
  const random = new Random(seed);
  await using ledger = await Ledger.start(5);
  const clients = [1, 2, 3].map((number) => ledger.client({ seed: seed + number, seeds: [`m${number}`] }));
  const keys: string[] = [];
  const changes: Promise<unknown>[] = [];
  for (let term = 0; term < 60; term++) {
    for (const [c, client] of clients.entries()) {
      for (let n = 0; n < 4; n++) {
        keys.push(`t${term}-c${c}-${n}`);
        changes.push(change(client, keys.at(-1) as string));
      }
    }
    await ledger.clock.advance(Math.floor(random.float() * 40));
    const leader = ledger.master(1 + Math.floor(random.float() * 5));
    // Some hear of it, some later.
    ledger.elect(
      leader,
      ledger.masters.filter(() => random.float() < 0.5),
    );
    await ledger.clock.advance(Math.floor(random.float() * 40));
    for (const master of ledger.masters) if (random.float() < 0.7) master.hear(leader, ledger.term);
  }
  const last = ledger.master(1);
  ledger.elect(last, ledger.masters);
  await ledger.settle(Promise.all(changes), 5000);
  assert.deepEqual(ledger.log.toSorted(), keys.toSorted());
});

test("a client needs to be given one master, which need not lead, and may die", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger, { seeds: ["m2"] });
  await ledger.master(2).kill();
  await ledger.settle(change(client, "second"), 10);
  await ledger.master(1).kill();
  ledger.elect(ledger.master(3));
  await ledger.settle(change(client, "third"), 100);
  assert.deepEqual(ledger.log, ["first", "second", "third"]);
});

test("addresses where nobody is, or nobody answers, cost at most a moment at the start", async () => {
  await using ledger = await Ledger.start(3);
  ledger.network.partition("client", "m9");
  let attempts = 0;
  const network: Network = {
    connect: (address, signal) => {
      attempts++;
      return ledger.network.connect(address, signal);
    },
    listen: (address, accept) => ledger.network.listen(address, accept),
  };
  const client = ledger.client({ seeds: ["m9", "m8", "m3"], network });
  assert.ok((await ledger.settle(change(client, "first"), 2000)) <= quietMs + 50);
  await ledger.clock.advance(500);
  assert.ok((await ledger.settle(change(client, "second"), 100)) <= roundTripMs);
  await ledger.clock.advance(2_000);
  attempts = 0;
  await ledger.clock.advance(20_000);
  assert.equal(attempts, 0, "what is no master is left alone");
});

test("when all masters that it knows have gone, a client asks those that it was given", async () => {
  await using ledger = await Ledger.start(1);
  await ledger.add("seed");
  ledger.members = [ledger.master(1)];
  ledger.elect(ledger.master(1), ledger.masters);
  const client = await warm(ledger, { seeds: ["seed"] });
  assert.deepEqual(client.target, { host: "m1", port: 7070 });
  await ledger.master(1).kill();
  ledger.members = [ledger.master(2)];
  const next = change(client, "next");
  await ledger.clock.advance(200);
  ledger.elect(ledger.master(2));
  await ledger.settle(next, 3000);
  assert.deepEqual(client.target, { host: "seed", port: 7070 });
});

test("a master that joined is known, and followed when it leads; one that was removed is asked no more", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  const joined = await ledger.add("m4");
  joined.hear(ledger.master(1), ledger.term);
  await ledger.clock.advance(100);
  await ledger.master(1).kill();
  ledger.members = ledger.members.filter((member) => member !== ledger.master(1));
  ledger.elect(joined);
  await ledger.settle(change(client, "second"), 100);
  assert.deepEqual(client.target, { host: "m4", port: 7070 });
  await assert.rejects(settled(ledger, client.call(who, {}, { from: { master: "m1" } })), {
    code: "unavailable",
    message: /m1 is no master of this cluster: there are m2, m3, m4$/,
  });
});

test("reads that any master may answer go to all in turn; one that hangs is passed over", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  const count = async (reads: number): Promise<Record<string, number>> => {
    const counts: Record<string, number> = {};
    for (let n = 0; n < reads; n++) {
      const { id } = await settled(ledger, client.call(who, {}, { from: "any" }));
      counts[id] = (counts[id] ?? 0) + 1;
    }
    return counts;
  };
  assert.deepEqual(await count(30), { m1: 10, m2: 10, m3: 10 });
  ledger.master(3).hang();
  const startMs = ledger.clock.monotonicMs();
  assert.deepEqual(Object.keys(await count(10)).sort(), ["m1", "m2"]);
  const tookMs = ledger.clock.monotonicMs() - startMs;
  assert.ok(tookMs <= quietMs + 150 + 10 * roundTripMs, `${tookMs} ms`);
  ledger.network.heal();
  await ledger.clock.advance(2000);
  assert.deepEqual(Object.keys(await count(9)).sort(), ["m1", "m2", "m3"]);
});

test("a read of one master by its id is answered by that one, also when it does not lead", async () => {
  await using ledger = await Ledger.start(3);
  const client = ledger.client();
  for (const id of ["m3", "m1", "m2"]) {
    assert.deepEqual(await settled(ledger, client.call(who, {}, { from: { master: id } })), { id });
  }
});

test("what only a leader answers goes to it, also when any master would do", async () => {
  await using ledger = await Ledger.start(3);
  const client = await warm(ledger);
  for (let n = 0; n < 6; n++) await settled(ledger, client.call(put, { key: "k", text: "k" }, { from: "any" }));
  assert.deepEqual(ledger.log, ["first", "k"]);
});

test("a client that does not follow asks its master only, listens to none, and takes its word", async () => {
  await using ledger = await Ledger.start(3);
  const client = ledger.client({ seeds: ["m2", "m1"], follow: false });
  await assert.rejects(settled(ledger, client.call(put, { text: "x" })), { code: "not-leader" });
  assert.deepEqual(await settled(ledger, client.call(who, {}, { from: "any" })), { id: "m2" });
  await ledger.clock.advance(10_000);
  assert.equal(ledger.network.connectionCount, 2, "one connection, both its ends");
});

async function settled<T>(ledger: Ledger, promise: Promise<T>): Promise<T> {
  await ledger.settle(promise, 10_000);
  return promise;
}
