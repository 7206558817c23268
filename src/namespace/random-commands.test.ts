import assert from "node:assert/strict";
import { test } from "node:test";
import type { SessionId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { Random } from "../base/random.ts";
import { code, NamespaceHarness, ok, Shell } from "../testing/namespace-harness.ts";
import { type ModelAnswer, NamespaceModel } from "../testing/namespace-model.ts";
import type { CommandResult } from "./command.ts";
import { MemoryStore } from "./memory-store.ts";
import { verifyStore } from "./verify.ts";

const names = ["a", "b", "c", "dd", "\u{1F600}", "\uffff"];
/** So small that everything is evicted, flushed in tiny slices and read back all the time. Half of the new files find no room as rows. */
const tinyLimits = {
  cachedInodesMax: 4,
  cachedNamesMax: 4,
  cachedDirectoriesMax: 4,
  cachedRowsBytesMax: 700,
  flush: { rowsTarget: 8, delayMs: 1, sliceRows: 2, rowsMax: 1000, retryMs: 1 },
};

function seedOf(name: string): number {
  const seed = Number(process.env["HEADPOND_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`${name}: HEADPOND_SEED=${seed}`);
  return seed;
}

function randomPath(random: Random): Path {
  const depth = random.between(random.chance(0.03) ? 0 : 1, 4);
  return `/${Array.from({ length: depth }, () => random.pick(names)).join("/")}` as Path;
}

/** One random command on both; asserts that the answers agree, unless other commands have led the real one elsewhere. */
function step(random: Random, shell: Shell, model: NamespaceModel, agree = true): void {
  const path = randomPath(random);
  const [flag, other] = [random.chance(0.5), random.chance(0.6)];
  let expected: ModelAnswer;
  let actual: CommandResult;
  let what: string;
  switch (random.between(0, 9)) {
    case 0:
    case 1:
    case 2:
      [what, expected, actual] = [
        `create ${flag} ${other}`,
        model.create(path, flag, other),
        shell.create(path, { exclusive: flag, recursive: other }),
      ];
      break;
    case 3:
    case 4:
      [what, expected, actual] = [
        `mkdir ${flag} ${other}`,
        model.mkdir(path, flag, other),
        shell.mkdir(path, { exclusive: flag, recursive: other }),
      ];
      break;
    case 5:
      [what, expected, actual] = [
        `remove ${other}`,
        model.remove(path, other),
        shell.remove(path, { recursive: other }),
      ];
      break;
    case 6:
    case 7: {
      const to = randomPath(random);
      [what, expected, actual] = [
        `rename to ${to} ${flag}`,
        model.rename(path, to, flag),
        shell.rename(path, to, flag),
      ];
      break;
    }
    case 8: {
      const value = String(random.between(0, 3));
      [what, expected, actual] = ["set", model.set(path, "k", value), shell.set(path, { set: { k: value } })];
      break;
    }
    default:
      ok(shell.harness.run("reclaim", { limit: random.between(1, 5) }));
      return;
  }
  if (!agree) return;
  const got = { code: code(actual), ...("inodeId" in actual ? { id: actual.inodeId } : {}) };
  assert.deepEqual(got, { ...expected }, `${what} ${path}: ${JSON.stringify(actual)}`);
}

function snapshot(harness: NamespaceHarness): string[] {
  return [...harness.namespace.walk("/" as Path, 7)]
    .flat()
    .map((row) => `${row.path} ${row.kind} ${row.inodeId} ${JSON.stringify(row.attributes)}`);
}

async function settle(random: Random, harness: NamespaceHarness): Promise<void> {
  if (random.chance(0.2)) await new Promise((resolve) => setImmediate(resolve));
  if (random.chance(0.02)) await harness.namespace.flush();
}

/** All new files wait as rows. */
const roomyLimits = { ...tinyLimits, cachedRowsBytesMax: 64 * 1024 };

for (const [kind, limits, name] of [
  ["memory", tinyLimits, "memory"],
  ["memory", roomyLimits, "memory, room for rows"],
  ["lmdb", roomyLimits, "lmdb"],
] as const) {
  test(`thousands of random commands answer as a plain tree would, across crashes (${name})`, async () => {
    const seed = seedOf(name);
    const random = new Random(seed);
    const harness = await NamespaceHarness.open(kind, { limits });
    const shell = new Shell(harness);
    const model = new NamespaceModel();
    const steps = kind === "memory" ? 6000 : 2500;
    for (let i = 0; i < steps; i++) {
      step(random, shell, model);
      await settle(random, harness);
      if (random.chance(0.005)) {
        const digest = harness.namespace.digest();
        await harness.crash();
        assert.equal(harness.namespace.digest(), digest, `digest after a crash at ${i}`);
      }
      if (random.chance(0.1)) {
        const path = randomPath(random);
        assert.equal(harness.namespace.find(path)?.inodeId, model.find(path)?.id, `${path} at ${i}`);
      }
      if (i % 500 === 0) assert.deepEqual(snapshot(harness), model.snapshot(), `trees at ${i}`);
    }
    assert.deepEqual(snapshot(harness), model.snapshot());
    await harness.namespace.flush();
    assert.deepEqual(verifyStore(harness.store), []);
    await harness.close();
  });
}

test("one log gives one digest and the same results however it is batched, flushed, crashed and restored", async () => {
  const seed = seedOf("digests");
  const random = new Random(seed);
  const first = await NamespaceHarness.open("memory", { backgroundFlush: false });
  const shell = new Shell(first);
  const model = new NamespaceModel();
  ok(first.run("open-session", { timeoutMs: 60_000, client: "c" }));
  for (let i = 0; i < 1500; i++) {
    step(random, shell, model, false);
    const origin = { sessionId: 1 as SessionId, sequence: i + 1, acknowledged: Math.max(0, i - random.between(0, 9)) };
    first.run("set-setting", {
      key: `k${i % 7}`,
      value: String(i),
      origin,
      ...(i % 3 === 0 ? { requestId: `r${i}` } : {}),
    });
    if (random.chance(0.1))
      first.run("ttl", {
        path: randomPath(random),
        ttlMs: random.between(0, 400),
        action: random.chance(0.5) ? "free" : "delete",
      });
    if (random.chance(0.1)) first.run("expire-ttl", { limit: 2 });
    if (random.chance(0.1)) first.run("pin", { path: randomPath(random), pinned: random.chance(0.7) });
  }
  const digest = first.namespace.digest();
  for (let variant = 0; variant < 6; variant++) {
    const kind = variant < 4 ? "memory" : "lmdb";
    const other = await NamespaceHarness.open(kind, { limits: [tinyLimits, {}, roomyLimits][variant % 3] as object });
    other.log.push(...first.log);
    let next = 0;
    while (next < first.log.length) {
      const size = random.between(1, 200);
      const entries = first.log
        .slice(next, next + size)
        .map((payload, i) => ({ index: next + i + 1, term: 1, payload }));
      other.namespace.apply(entries);
      next += entries.length;
      if (random.chance(0.3)) await new Promise((resolve) => setImmediate(resolve));
      if (random.chance(0.1)) other.namespace.digest();
      if (random.chance(0.1)) {
        const path = other.path(`checkpoint-${next}`);
        const copy = await other.namespace.writeCheckpoint(path);
        await other.namespace.reset(path);
        assert.deepEqual({ ...other.namespace.applied, digest: other.namespace.digest() }, copy);
        next = copy.index;
      }
      if (random.chance(0.1)) {
        await other.crash();
        next = first.log.length;
      }
    }
    assert.equal(other.namespace.digest(), digest, `variant ${variant}`);
    await other.namespace.flush();
    assert.deepEqual(verifyStore(other.store), [], `variant ${variant}`);
    await other.close();
  }
  await first.close();
});

test("a crash within a commit loses the batch as a whole, and the log brings it back", async () => {
  const seed = seedOf("crashes");
  const random = new Random(seed);
  let gate: Promise<void> | undefined;
  const store = new MemoryStore({ beforeCommit: () => gate });
  const harness = await NamespaceHarness.open("memory", { limits: tinyLimits, store });
  const shell = new Shell(harness);
  const model = new NamespaceModel();
  for (let round = 0; round < 60; round++) {
    for (let i = 0; i < 20; i++) {
      step(random, shell, model);
      if (random.chance(0.3)) await new Promise((resolve) => setImmediate(resolve));
    }
    // From now on a commit hangs until the process is dead.
    let release = (): void => undefined;
    gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    for (let i = 0; i < 20; i++) {
      step(random, shell, model);
      if (random.chance(0.3)) await new Promise((resolve) => setImmediate(resolve));
    }
    const digest = harness.namespace.digest();
    store.crash();
    release();
    gate = undefined;
    await harness.namespace.abandon();
    await harness.crash();
    assert.equal(harness.namespace.digest(), digest, `round ${round}`);
    assert.deepEqual(snapshot(harness), model.snapshot(), `round ${round}`);
  }
  assert.ok(harness.replayedEntries > 60, `only ${harness.replayedEntries} entries were lost`);
  await harness.namespace.flush();
  assert.deepEqual(verifyStore(store), []);
  await harness.close();
});

test("a store that refuses batches for a while gets them later, in order and complete", async () => {
  let refusals = 0;
  const store = new MemoryStore({
    beforeCommit: () => {
      if (refusals-- > 0) throw new Error("no space left on device");
    },
  });
  const harness = await NamespaceHarness.open("memory", { limits: tinyLimits, store });
  const shell = new Shell(harness);
  ok(shell.create("/a/f1", { recursive: true }));
  await harness.namespace.flush();
  refusals = 3;
  ok(shell.create("/a/f2"));
  await assert.rejects(harness.namespace.flush(), /no space/);
  assert.match(String(harness.namespace.flushError), /no space/);
  ok(shell.remove("/a/f1"));
  ok(shell.create("/a/f3"));
  assert.deepEqual(shell.names("/a"), ["f2", "f3"]);
  refusals = 0;
  await harness.namespace.flush();
  assert.equal(harness.namespace.flushError, undefined);
  assert.deepEqual(verifyStore(store), []);
  const digest = harness.namespace.digest();
  await harness.crash();
  assert.equal(harness.namespace.applied.index, harness.log.length);
  assert.equal(harness.namespace.digest(), digest);
  await harness.close();
});
