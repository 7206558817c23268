import assert from "node:assert/strict";
import { test } from "node:test";
import { type HeadpondError, isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { FaultyDisk } from "../io/faulty-disk.ts";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { FaultySharedStore, type StoreFault } from "../testing/faulty-shared-store.ts";
import { type LookupCache, NfsClientDisk } from "../testing/nfs-client-disk.ts";
import { SharedDirectory } from "./shared-directory.ts";
import type { SharedStore } from "./shared-store.ts";
import { rejectsWith, type SharedStoreHarness, sharedStoreContract } from "./shared-store-contract.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
const bytes = new TextEncoder().encode("content");

/** Each opened store is a machine of its own, with caches that are believed for an hour. */
async function nfsHarness(lookupCache: LookupCache): Promise<SharedStoreHarness> {
  const clock = new ManualClock();
  const server = new MemoryDisk({ wallMs: () => clock.wallMs() });
  for (const directory of ["/mnt", "/local"]) await server.makeDirectory(directory);
  await server.syncDirectory("/");
  let machines = 0;
  return {
    open: () => {
      const random = new Random(seed + machines++);
      const disk = new NfsClientDisk({ server, clock, random, lookupCache, cacheMs: 3600_000 });
      return SharedDirectory.open({ root: "/mnt", disk, localDisk: server, clock, logger: silentLogger });
    },
    localDisk: server,
    localDirectory: "/local",
    crash: async (random) => server.crash({ random }),
    dispose: async () => {},
  };
}

// A listing of an NFS client is as old as its cache, and a hint; what the contract says of it holds for one machine only.
for (const lookupCache of ["positive", "none"] as const) {
  const name = `shared directory on NFS with lookupcache=${lookupCache}`;
  const cases = sharedStoreContract(name, () => nfsHarness(lookupCache), seed, { crashes: true });
  for (const { name: claim, run } of cases) if (!claim.includes("a listing shows")) test(claim, run);
}

test("shared directory on NFS with lookupcache=all: an absence is remembered, which is why such mounts are refused", async () => {
  const cases = sharedStoreContract("all", () => nfsHarness("all"), seed);
  const claim = cases.find(({ name }) => name.includes("its absence is not remembered"));
  await assert.rejects(async () => claim?.run(), /epochs\/0/);
});

test("shared directory on NFS: an answer that was repeated by the network is EEXIST after success, and reads back", async () => {
  const clock = new ManualClock();
  const server = new MemoryDisk();
  await server.makeDirectory("/mnt");
  const random = new Random(seed);
  const client = new NfsClientDisk({ server, clock, random, lookupCache: "positive", cacheMs: 1000 });
  const disk = new FaultyDisk({ disk: client, clock });
  const store = await SharedDirectory.open({ root: "/mnt", disk, clock, logger: silentLogger });
  disk.inject({ operation: "link", path: "log/1/1", effect: { kind: "error-after", code: "EEXIST" } });
  assert.equal(await store.create("log/1/1", bytes), "exists");
  assert.deepEqual(await store.read("log/1/1"), bytes);
  await store.close();
});

async function faulty(
  fault?: StoreFault,
): Promise<{ readonly store: FaultySharedStore; readonly inner: SharedStore; readonly clock: ManualClock }> {
  const clock = new ManualClock();
  const disk = new MemoryDisk();
  await disk.makeDirectory("/mnt");
  const inner = await SharedDirectory.open({ root: "/mnt", disk, clock, logger: silentLogger });
  const store = new FaultySharedStore({ store: inner, clock });
  if (fault !== undefined) store.inject(fault);
  return { store, inner, clock };
}

async function failure(call: Promise<unknown>): Promise<HeadpondError> {
  try {
    await call;
  } catch (error) {
    assert.ok(isHeadpondError(error), String(error));
    return error;
  }
  return assert.fail("no error");
}

test("faulty shared store: a failed call is not done, a lost answer is of one that was", async () => {
  const { store, inner } = await faulty();
  store.inject({ operation: "create", name: "log/1/1", effect: { kind: "fail", code: "no-space" } });
  store.inject({ operation: "create", name: "log/1/2", effect: { kind: "lost-answer" } });
  const [none, unknown] = [
    await failure(store.create("log/1/1", bytes)),
    await failure(store.create("log/1/2", bytes)),
  ];
  assert.deepEqual(
    [none.code, none.outcome, unknown.code, unknown.outcome],
    ["no-space", "none", "unavailable", "unknown"],
  );
  assert.deepEqual([await inner.read("log/1/1"), await inner.read("log/1/2")], [undefined, bytes]);
});

test("faulty shared store: a create may land after its writer has given up, and may be lied about", async () => {
  let land = (): void => {};
  const until = new Promise<void>((resolve) => {
    land = resolve;
  });
  const { store, inner } = await faulty({ operation: "create", times: 1, effect: { kind: "lands-later", until } });
  assert.equal((await failure(store.create("log/1/1", bytes))).outcome, "unknown");
  assert.equal(await inner.read("log/1/1"), undefined);
  land();
  for (let n = 0; n < 100; n++) await Promise.resolve();
  assert.deepEqual(await inner.read("log/1/1"), bytes);
  store.inject({ operation: "create", effect: { kind: "lies-exists" } });
  assert.equal(await store.create("log/1/2", bytes), "exists");
  assert.deepEqual(await inner.read("log/1/2"), bytes);
});

test("faulty shared store: a stale listing shows what is gone and lacks what is there", async () => {
  const { store } = await faulty();
  await store.create("epochs/1", bytes);
  const before = await store.list("epochs", "", 10);
  await store.remove("epochs/1");
  await store.create("epochs/2", bytes);
  store.inject({ operation: "list", times: 1, effect: { kind: "stale" } });
  assert.deepEqual(await store.list("epochs", "", 10), before);
  assert.deepEqual(
    (await store.list("epochs", "", 10)).map(({ name }) => name),
    ["epochs/2"],
  );
});

test("faulty shared store: a call that hangs ends with its signal, a slow one when its time has come", async () => {
  const never = new Promise<void>(() => {});
  const { store, clock } = await faulty({ operation: "read", times: 1, effect: { kind: "hang", until: never } });
  const controller = new AbortController();
  const hung = rejectsWith("cancelled", () => store.read("log/1/1", controller.signal), "a hung read");
  controller.abort();
  await hung;
  store.inject({ operation: "read", times: 1, effect: { kind: "slow", delayMs: 500 } });
  let isDone = false;
  const slow = store.read("log/1/1").then(() => {
    isDone = true;
  });
  await clock.advance(499);
  assert.equal(isDone, false);
  await clock.advance(1);
  await slow;
});

test("faulty shared store: under chaos a writer that reads back knows the fate of each of its creates", async () => {
  const clock = new ManualClock();
  const disk = new MemoryDisk();
  await disk.makeDirectory("/mnt");
  const inner = await SharedDirectory.open({ root: "/mnt", disk, clock, logger: silentLogger });
  const store = new FaultySharedStore({ store: inner, clock });
  const random = new Random(seed);
  const chances = {
    fail: 0.1,
    lostAnswer: 0.1,
    landsLater: 0,
    liesExists: 0.1,
    staleList: 0.5,
    slow: 0,
    slowMsMax: 10,
  };
  store.chaos({ random, ...chances });
  let faults = 0;
  for (let n = 0; n < 300; n++) {
    const own = random.bytes(16);
    for (;;) {
      try {
        const answer = await store.create(`log/1/${n}`, own);
        const found = await store.read(`log/1/${n}`);
        assert.deepEqual(found, own, `seed ${seed}`);
        if (answer === "exists") faults++;
        break;
      } catch (error) {
        assert.ok(isHeadpondError(error, "unavailable"), `seed ${seed}: ${String(error)}`);
        faults++;
      }
    }
  }
  assert.ok(faults > 20, `seed ${seed}: only ${faults} faults`);
});
