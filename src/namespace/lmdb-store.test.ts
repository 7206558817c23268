import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Path } from "../base/path.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { code, NamespaceHarness, ok, Shell } from "../testing/namespace-harness.ts";
import { encodeCommand } from "./command-codec.ts";
import { LmdbStore } from "./lmdb-store.ts";
import { Namespace } from "./namespace.ts";
import { verifyStore } from "./verify.ts";

const disk = new NodeDisk();

async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await fs.mkdtemp(join(tmpdir(), "headpond-lmdb-"));
  t.after(() => fs.rm(directory, { recursive: true, force: true }));
  return directory;
}

function mkdir(index: number): { index: number; term: number; payload: Buffer } {
  const path = `/d${index}` as Path;
  const fields = { recursive: false, exclusive: true, mode: 0o755, owner: "o", group: "g", attributes: {} };
  return { index, term: 3, payload: encodeCommand({ kind: "mkdir", timeMs: index, path, ...fields }) };
}

async function filled(directory: string, count: number, bootId?: string): Promise<void> {
  const store = await LmdbStore.open({ directory, disk, ...(bootId === undefined ? {} : { bootId }) });
  const namespace = new Namespace({ store });
  for (let index = 1; index <= count; index++) namespace.apply([mkdir(index)]);
  await namespace.close();
}

test("damaged, cut and foreign files are refused as corrupt, naming the file", async (t) => {
  const directory = await temporaryDirectory(t);
  await filled(directory, 3000);
  const whole = await fs.readFile(join(directory, "state.mdb"));
  const header = Buffer.from(whole);
  header.fill(0xff, 24, 32);
  const cases: [string, Buffer][] = [
    ["cut in half", whole.subarray(0, Math.floor(whole.length / 2))],
    ["first page only", whole.subarray(0, 4096)],
    ["both meta pages only", whole.subarray(0, 8192)],
    ["five bytes", Buffer.from("hello")],
    ["another format", Buffer.alloc(100_000, 7)],
    ["damaged meta page", header],
  ];
  for (const [what, bytes] of cases) {
    const other = await temporaryDirectory(t);
    await fs.writeFile(join(other, "state.mdb"), bytes);
    await assert.rejects(LmdbStore.open({ directory: other, disk }), (error: Error & { code?: string }) => {
      assert.equal(error.code, "corrupt", `${what}: ${error.message}`);
      assert.match(error.message, /state\.mdb/, what);
      return true;
    });
  }
});

test("a checkpoint that is missing or damaged leaves the state as it was", async (t) => {
  const directory = await temporaryDirectory(t);
  const store = await LmdbStore.open({ directory, disk });
  const namespace = new Namespace({ store });
  namespace.apply([mkdir(1)]);
  await namespace.flush();
  const digest = namespace.digest();
  await assert.rejects(namespace.reset(join(directory, "none")), { code: "not-found" });
  await fs.writeFile(join(directory, "junk"), Buffer.alloc(10_000, 1));
  await assert.rejects(namespace.reset(join(directory, "junk")), { code: "corrupt" });
  const again = new Namespace({ store });
  assert.equal(again.digest(), digest);
  await again.close();
});

test("a checkpoint is of one index, although applies go on while it is written", async (t) => {
  const directory = await temporaryDirectory(t);
  const store = await LmdbStore.open({ directory, disk });
  const limits = { flush: { rowsTarget: 50, delayMs: 1, sliceRows: 10, rowsMax: 100_000, retryMs: 1 } };
  const namespace = new Namespace({ store, limits });
  const digests = new Map<number, string>();
  let index = 0;
  const apply = (): void => {
    namespace.apply([mkdir(++index)]);
    digests.set(index, namespace.digest());
  };
  for (let i = 0; i < 500; i++) apply();
  for (let round = 0; round < 5; round++) {
    const path = join(directory, `checkpoint-${round}`);
    let written: Awaited<ReturnType<Namespace["writeCheckpoint"]>> | undefined;
    const before = namespace.applied.index;
    const done = namespace.writeCheckpoint(path).then((copy) => {
      written = copy;
    });
    while (written === undefined) {
      apply();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await done;
    assert.ok(written.index >= before);
    assert.equal(written.term, 3);
    assert.equal(written.digest, digests.get(written.index), `checkpoint of ${written.index}`);
    const other = await temporaryDirectory(t);
    const restored = new Namespace({ store: await LmdbStore.open({ directory: other, disk }) });
    await restored.reset(path);
    assert.deepEqual({ ...restored.applied, digest: restored.digest() }, written);
    await restored.close();
    assert.deepEqual(
      (await fs.readdir(directory)).filter((name) => name.includes("checkpoint") && name.endsWith("-lock")),
      [],
    );
  }
  await namespace.close();
});

test("a state that was in use when the machine went down is discarded, a clean one is kept", async (t) => {
  const directory = await temporaryDirectory(t);
  await filled(directory, 10, "boot-1");
  const second = await LmdbStore.open({ directory, disk, bootId: "boot-2" });
  assert.equal(second.discardedUnclean, false);
  assert.equal(new Namespace({ store: second }).applied.index, 10);
  // As the disk would be after a crash of the machine: copied while in use.
  const other = await temporaryDirectory(t);
  await fs.copyFile(join(directory, "state.mdb"), join(other, "state.mdb"));
  await second.close();
  const same = await LmdbStore.open({ directory: other, disk, bootId: "boot-2" });
  assert.equal(same.discardedUnclean, false, "the process died, the machine did not");
  await same.close();
  await fs.copyFile(join(directory, "state.mdb"), join(other, "state.mdb"));
  const unclean = await LmdbStore.open({ directory, disk, bootId: "boot-3" });
  await fs.copyFile(join(directory, "state.mdb"), join(other, "state.mdb"));
  await unclean.close();
  const third = await LmdbStore.open({ directory: other, disk, bootId: "boot-4" });
  assert.equal(third.discardedUnclean, true);
  assert.equal(new Namespace({ store: third }).applied.index, 0);
  await third.close();
});

const victim = `
  import { LmdbStore } from ${JSON.stringify(new URL("lmdb-store.ts", import.meta.url).href)};
  import { Namespace } from ${JSON.stringify(new URL("namespace.ts", import.meta.url).href)};
  import { encodeCommand } from ${JSON.stringify(new URL("command-codec.ts", import.meta.url).href)};
  import { NodeDisk } from ${JSON.stringify(new URL("../io/node-disk.ts", import.meta.url).href)};
  const store = await LmdbStore.open({ directory: process.argv[1], disk: new NodeDisk() });
  const flush = { rowsTarget: 100, delayMs: 2, sliceRows: 30, rowsMax: 1e6, retryMs: 10 };
  const namespace = new Namespace({ store, limits: { flush } });
  let { index } = namespace.applied;
  console.log(index);
  for (;;) {
    for (let i = 0; i < 20; i++) {
      index++;
      const fields = { recursive: true, exclusive: false, mode: 0o755, owner: "o", group: "g", attributes: {} };
      const path = index % 7 === 0 ? "/d" + ((index - 3) % 50) : "/d" + (index % 50) + "/e" + index;
      const command = index % 7 === 0
        ? { kind: "remove", timeMs: index, path, recursive: true }
        : { kind: "mkdir", timeMs: index, path, ...fields };
      namespace.apply([{ index, term: 1, payload: encodeCommand(command) }]);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
`;

test("a process killed at any moment leaves a whole batch behind, which can be continued", async (t) => {
  const directory = await temporaryDirectory(t);
  let last = 0;
  // On a slow machine the first ones are killed before anything reached the store: those that follow live longer.
  for (let round = 0; round < 6 || (last <= 100 && round < 40); round++) {
    const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", victim, directory], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(child, "exit");
    await once(child.stdout, "data");
    await new Promise((resolve) => setTimeout(resolve, 50 + round * 37));
    child.kill("SIGKILL");
    await exited;
    const store = await LmdbStore.open({ directory, disk });
    assert.deepEqual(verifyStore(store), [], `round ${round}`);
    const { index } = new Namespace({ store, backgroundFlush: false }).applied;
    assert.ok(index >= last, `index ${index} after ${last}`);
    last = index;
    await store.close();
  }
  assert.ok(last > 100, `only ${last} entries ever reached the store`);
});

test("the cache lets clean inodes go, and finds them in the store again", async () => {
  const harness = await NamespaceHarness.open("lmdb", {
    limits: { cachedInodesMax: 100, cachedNamesMax: 100, cachedDirectoriesMax: 100, cachedRowsBytesMax: 20_000 },
  });
  const shell = new Shell(harness);
  for (let i = 0; i < 5000; i++) ok(shell.create(`/d${i % 10}/f${i}`, { recursive: true }));
  await harness.namespace.flush();
  await harness.namespace.flush();
  for (let i = 0; i < 5000; i++) assert.equal(harness.namespace.stat(`/d${i % 10}/f${i}` as Path).kind, "file");
  const { inodes, hits, misses } = harness.namespace.cache;
  assert.ok(inodes <= 200, `${inodes} inodes are cached`);
  assert.ok(misses > 4000 && hits > 0, `${hits} hits, ${misses} misses`);
  assert.equal(code(shell.create("/d0/f0")), "already-exists");
  await harness.close();
});
