import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { type HeadpondError, isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { Disk } from "../io/disk.ts";
import { FaultyDisk } from "../io/faulty-disk.ts";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { SharedDirectory, type SharedDirectoryLimits } from "./shared-directory.ts";
import { rejectsWith, type SharedStoreHarness, sharedStoreContract } from "./shared-store-contract.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));

async function realHarness(): Promise<SharedStoreHarness> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "headpond-shared-"));
  fs.mkdirSync(path.join(directory, "store"));
  fs.mkdirSync(path.join(directory, "local"));
  const disk = new NodeDisk();
  return {
    open: () =>
      SharedDirectory.open({ root: path.join(directory, "store"), disk, clock: new NodeClock(), logger: silentLogger }),
    localDisk: disk,
    localDirectory: path.join(directory, "local"),
    dispose: async () => fs.rmSync(directory, { recursive: true, force: true }),
  };
}

async function memoryHarness(): Promise<SharedStoreHarness> {
  const { disk, open } = await memoryStore();
  await disk.makeDirectory("/local");
  return {
    open,
    localDisk: disk,
    localDirectory: "/local",
    crash: async (random) => disk.crash({ random }),
    dispose: async () => {},
  };
}

type MemoryStore = {
  readonly disk: MemoryDisk;
  readonly faulty: FaultyDisk;
  readonly clock: ManualClock;
  readonly open: (limits?: Partial<SharedDirectoryLimits>) => Promise<SharedDirectory>;
};

async function memoryStore(): Promise<MemoryStore> {
  const clock = new ManualClock();
  const disk = new MemoryDisk({ wallMs: () => clock.wallMs() });
  await disk.makeDirectory("/mnt/store");
  for (const at of ["/", "/mnt"]) await disk.syncDirectory(at);
  const faulty = new FaultyDisk({ disk, clock });
  const open = (limits: Partial<SharedDirectoryLimits> = {}): Promise<SharedDirectory> =>
    SharedDirectory.open({ root: "/mnt/store", disk: faulty, clock, logger: silentLogger, limits });
  return { disk, faulty, clock, open };
}

for (const { name, run } of sharedStoreContract("shared directory on the real disk", realHarness, seed))
  test(name, run);
for (const { name, run } of sharedStoreContract("shared directory in memory", memoryHarness, seed, { crashes: true }))
  test(name, run);

function claim(name: string, body: (store: MemoryStore) => Promise<void>): void {
  test(`shared directory: ${name}`, async () => body(await memoryStore()));
}

/** `disk` with one operation of its own. */
function overriding<K extends keyof Disk>(disk: Disk, operation: K, body: Disk[K]): Disk {
  return new Proxy<Disk>(disk, {
    get: (target, key) => {
      const method = Reflect.get(target, key) as (...values: unknown[]) => unknown;
      return key === operation ? body : method.bind(target);
    },
  });
}

const bytes = new TextEncoder().encode("content");

async function failure(call: Promise<unknown>): Promise<HeadpondError> {
  try {
    await call;
  } catch (error) {
    assert.ok(isHeadpondError(error), String(error));
    return error;
  }
  return assert.fail("no error");
}

claim("a full disk refuses a create, without a trace and with the outcome none", async ({ disk, open }) => {
  const store = await open();
  disk.capacityBytes = disk.usedBytes + 4096;
  const error = await failure(store.create("log/1/1", new Uint8Array(100_000)));
  assert.deepEqual([error.code, error.outcome, error.retryable], ["no-space", "none", true]);
  disk.capacityBytes = 2 ** 40;
  assert.equal(await store.read("log/1/1"), undefined);
  assert.equal(await store.create("log/1/1", bytes), "created");
});

claim("a write or flush that fails before the name is given has the outcome none", async ({ faulty, open }) => {
  const store = await open();
  for (const operation of ["open", "write", "datasync", "makeDirectory"] as const) {
    faulty.inject({ operation, times: 1, effect: { kind: "error", code: "EIO" } });
    const error = await failure(store.create("log/1/1", bytes));
    assert.deepEqual([operation, error.code, error.outcome], [operation, "unavailable", "none"]);
    assert.equal(await store.read("log/1/1"), undefined);
  }
});

claim(
  "a create that was done, but said that the name exists, is told as it was said and reads back",
  async ({ faulty, open }) => {
    const store = await open();
    faulty.inject({ operation: "link", path: "log/1/1", times: 1, effect: { kind: "error-after", code: "EEXIST" } });
    assert.equal(await store.create("log/1/1", bytes), "exists");
    assert.deepEqual(await store.read("log/1/1"), bytes);
  },
);

claim("a link whose answer is an error of the server has the outcome unknown", async ({ faulty, open }) => {
  const store = await open();
  faulty.inject({ operation: "link", path: "log/1/1", times: 1, effect: { kind: "error-after", code: "EIO" } });
  const error = await failure(store.create("log/1/1", bytes));
  assert.deepEqual([error.code, error.outcome], ["unavailable", "unknown"]);
  assert.deepEqual(await store.read("log/1/1"), bytes);
});

claim(
  "a flush of the directory that fails leaves the outcome unknown, and a read back waits for one that succeeds",
  async ({ disk, faulty, open }) => {
    const store = await open();
    await store.create("log/1/1", bytes);
    const heal = faulty.inject({ operation: "syncDirectory", path: "log/1", effect: { kind: "error", code: "EIO" } });
    const error = await failure(store.create("log/1/2", bytes));
    assert.deepEqual([error.code, error.outcome], ["unavailable", "unknown"]);
    // The name can be seen, but a loss of power could take it away: it must not be taken for written.
    assert.equal((await failure(store.read("log/1/2"))).code, "unavailable");
    heal();
    assert.deepEqual(await store.read("log/1/2"), bytes);
    for (const n of [1, 2, 3, 4, 5]) {
      disk.crash({ random: new Random(seed + n) });
      const again = await open();
      assert.deepEqual(await again.read("log/1/2"), bytes, `seed ${seed + n}`);
    }
  },
);

claim("what was read of others is durable before what is created behind it", async ({ disk, faulty, open }) => {
  for (let n = 0; n < 20; n++) {
    const [dying, next] = [await open(), await open()];
    // The name is there, its maker dies before it has flushed the directory.
    faulty.inject({ operation: "syncDirectory", path: `log/${n}`, times: 1, effect: { kind: "error", code: "EIO" } });
    await failure(dying.create(`log/${n}/1`, bytes));
    assert.deepEqual(await next.read(`log/${n}/1`), bytes);
    assert.equal(await next.create(`epochs/${n}`, bytes), "created");
    disk.crash({ random: new Random(seed + n) });
    const after = await open();
    assert.deepEqual(await after.read(`epochs/${n}`), bytes);
    assert.deepEqual(await after.read(`log/${n}/1`), bytes, `seed ${seed + n}`);
  }
});

claim("a name that exists is durable before anybody is told", async ({ disk, faulty, open }) => {
  for (let n = 0; n < 20; n++) {
    const [dying, next] = [await open(), await open()];
    await dying.create(`log/${n}/0`, bytes);
    faulty.inject({ operation: "syncDirectory", path: `log/${n}`, times: 1, effect: { kind: "error", code: "EIO" } });
    await failure(dying.create(`log/${n}/1`, bytes));
    assert.equal(await next.create(`log/${n}/1`, bytes), "exists");
    disk.crash({ random: new Random(seed + n) });
    assert.deepEqual(await (await open()).read(`log/${n}/1`), bytes, `seed ${seed + n}`);
  }
});

claim("creates under way at once share the flushes of their directory", async ({ disk, clock }) => {
  let flushes = 0;
  let release = (): void => {};
  let until = Promise.resolve();
  const counting = overriding(disk, "syncDirectory", async (path: string) => {
    flushes++;
    await until;
    await disk.syncDirectory(path);
  });
  const store = await SharedDirectory.open({ root: "/mnt/store", disk: counting, clock, logger: silentLogger });
  await store.create("log/1/0", bytes);
  until = new Promise<void>((resolve) => {
    release = resolve;
  });
  const creates = Array.from({ length: 50 }, (_, n) => store.create(`log/1/${n + 1}`, bytes));
  for (let n = 0; n < 200; n++) await Promise.resolve();
  flushes = 0;
  release();
  assert.ok((await Promise.all(creates)).every((answer) => answer === "created"));
  assert.ok(flushes <= 1, `50 creates took ${flushes} flushes beside the first`);
});

claim(
  "a disk that hangs ends in unavailable after the timeout, and too many hung calls in a refusal at once",
  async ({ faulty, clock, open }) => {
    const store = await open({ callTimeoutMs: 1000, hungCallsMax: 2 });
    let release = (): void => {};
    const until = new Promise<void>((resolve) => {
      release = resolve;
    });
    faulty.inject({ operation: "open", path: "log/", effect: { kind: "hang", until } });
    const calls = [failure(store.read("log/1/1")), failure(store.read("log/1/2"))];
    await clock.advance(999);
    await clock.advance(1);
    for (const call of calls) assert.match((await call).message, /nothing happened for 1000 ms/);
    assert.match((await failure(store.read("log/1/3"))).message, /2 earlier calls still hang/);
    faulty.heal();
    release();
    for (let n = 0; n < 50; n++) await Promise.resolve();
    assert.equal(await store.read("log/1/1"), undefined);
  },
);

claim(
  "a create that hangs before its name is given is never done, one that hangs later may be",
  async ({ faulty, clock, open }) => {
    const store = await open({ callTimeoutMs: 1000 });
    for (const [operation, directory, outcome] of [
      ["datasync", "log/1", "none"],
      ["syncDirectory", "log/2", "unknown"],
    ] as const) {
      await store.create(`${directory}/0`, bytes);
      let release = (): void => {};
      const until = new Promise<void>((resolve) => {
        release = resolve;
      });
      faulty.inject({ operation, times: 1, effect: { kind: "hang", until } });
      const call = failure(store.create(`${directory}/1`, bytes));
      for (let n = 0; n < 50; n++) await Promise.resolve();
      await clock.advance(1000);
      const error = await call;
      assert.deepEqual([operation, error.code, error.outcome], [operation, "unavailable", outcome]);
      faulty.heal();
      release();
      for (let n = 0; n < 50; n++) await Promise.resolve();
      assert.deepEqual(await store.read(`${directory}/1`), outcome === "none" ? undefined : bytes);
    }
  },
);

claim("an absence is not believed when the directory is another one by now", async ({ disk, open }) => {
  const store = await open();
  await store.create("epochs/1", bytes);
  await disk.rename("/mnt/store", "/mnt/unmounted");
  await disk.makeDirectory("/mnt/store");
  const error = await failure(store.read("epochs/2"));
  assert.equal(error.code, "unavailable");
  assert.match(error.message, /unmounted, mounted over or replaced/);
  assert.equal((await failure(store.create("epochs/2", bytes))).outcome, "none");
  await rejectsWith("unavailable", () => store.list("epochs", "", 10), "a listing");
  assert.deepEqual(await disk.list("/mnt/store"), [], "nothing was written into the wrong directory");
});

claim(
  "what processes that died have left is collected a day later, and nothing younger",
  async ({ disk, clock, open }) => {
    const store = await open();
    await disk.open("/mnt/store/.headpond/old-1", "create");
    await clock.advance(20 * 3600_000);
    await disk.open("/mnt/store/.headpond/young-1", "create");
    await clock.advance(5 * 3600_000);
    for (let n = 0; n < 100; n++) await Promise.resolve();
    const left = (await disk.list("/mnt/store/.headpond")).filter((name) => /old|young/.test(name));
    assert.deepEqual(left, ["young-1"]);
    // Its own marker has been kept fresh for other collectors.
    const other = await open();
    for (let n = 0; n < 100; n++) await Promise.resolve();
    assert.equal(await store.read("epochs/1"), undefined);
    await Promise.all([store.close(), other.close()]);
    assert.deepEqual(await disk.list("/mnt/store/.headpond"), ["young-1"]);
  },
);

claim("a directory that does not exist, or is a file, is refused", async ({ disk }) => {
  const opening = (root: string): Promise<unknown> =>
    SharedDirectory.open({ root, disk, clock: new ManualClock(), logger: silentLogger });
  assert.match((await failure(opening("/mnt/none"))).message, /make the directory, or mount/);
  await disk.open("/mnt/file", "create");
  assert.equal((await failure(opening("/mnt/file"))).code, "not-a-directory");
});

claim("a file system whose links are not exclusive is refused", async ({ disk }) => {
  const overwriting = overriding(disk, "link", (from, to) => disk.link(from, to).catch(() => {}));
  const opening = SharedDirectory.open({
    root: "/mnt/store",
    disk: overwriting,
    clock: new ManualClock(),
    logger: silentLogger,
  });
  assert.match((await failure(opening)).message, /two hard links to one name gave done, done/);
});

const mounts: readonly (readonly [table: string, refusal: RegExp | undefined])[] = [
  ["30 1 8:1 / / rw - ext4 /dev/vda rw", undefined],
  [
    "30 1 8:1 / / rw - ext4 /dev/vda rw\n31 30 0:40 / /mnt rw - nfs4 nas:/x rw,vers=4.2,hard",
    /lookupcache=all.*-o lookupcache=positive/s,
  ],
  ["31 30 0:40 / /mnt rw,noatime shared:9 - nfs4 nas:/x rw,vers=4.2,lookupcache=pos,local_lock=none", undefined],
  ["31 30 0:40 / /mnt/store rw - nfs nas:/x rw,lookupcache=none", undefined],
  ["31 30 0:40 / /mnt/stor rw - nfs nas:/x rw", undefined],
  ["31 30 0:40 / /mnt rw - nfs nas:/x rw\n32 31 8:2 / /mnt rw - ext4 /dev/vdb rw", undefined],
  ["31 30 0:40 / /mnt rw - cifs //nas/x rw", /not known that every machine/],
  ["31 30 0:40 / /mnt rw - fuse.sshfs host:/x rw", /not known that every machine/],
  ["31 30 0:40 / /mnt rw - ceph mon:/ rw", undefined],
];

for (const [table, refusal] of mounts) {
  claim(
    `with the mounts ${JSON.stringify(table)} it is ${refusal === undefined ? "used" : "refused"}`,
    async ({ disk, open }) => {
      await disk.makeDirectory("/proc/self");
      const file = await disk.open("/proc/self/mountinfo", "create");
      await file.write(new TextEncoder().encode(`${table}\n`), 0);
      if (refusal === undefined) {
        await (await open()).close();
        return;
      }
      const error = await failure(open());
      assert.equal(error.code, "unsupported");
      assert.match(error.message, refusal);
      const trusting = { root: "/mnt/store", disk, clock: new ManualClock(), logger: silentLogger, trusted: true };
      await (await SharedDirectory.open(trusting)).close();
    },
  );
}
