import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { HeadpondError } from "../base/errors.ts";
import type { FileStatus } from "../base/file.ts";
import { masterService, type SyncProgress } from "../rpc/master-service.ts";
import { eventually, TestMaster } from "./master.test-support.ts";

const { methods } = masterService;
const bytes = (n: number): Uint8Array => new Uint8Array(n);

describe("metadata sync", () => {
  let test: TestMaster;
  afterEach(() => test.close());

  const stat = async (path: string): Promise<FileStatus> => (await test.client.call(methods.stat, { path })).status;
  const list = async (path: string, recursive = false): Promise<string[]> => {
    const names: string[] = [];
    for await (const { entries } of test.client.openStream(methods.list, { path, recursive })) {
      names.push(...entries.map((entry) => entry.path));
    }
    return names;
  };
  const sync = async (path: string, recursive = true): Promise<SyncProgress> => {
    let last: SyncProgress | undefined;
    for await (const progress of test.client.openStream(methods.sync, { path, recursive })) last = progress;
    assert.equal(last?.done, true);
    return last as SyncProgress;
  };

  it("a hundred thousand objects in one directory are taken in while stats and creates go on", async () => {
    test = await TestMaster.start();
    const count = 100_000;
    for (let n = 0; n < count; n++) test.memory.put(`big/${String(n).padStart(6, "0")}`, bytes(1));
    await test.mount();
    await test.client.call(methods.create, { path: "/outside" });
    let isOver = false;
    const synced = sync("/m").finally(() => {
      isOver = true;
    });
    let asked = 0;
    let created = 0;
    while (!isOver) {
      assert.equal((await stat("/outside")).kind, "file");
      await test.client.call(methods.create, { path: `/made-${created++}` });
      asked++;
    }
    const progress = await synced;
    assert.deepEqual([progress.files, progress.added, progress.directories], [count, count + 1, 2]);
    assert.ok(asked > 20, `${asked} stats were answered meanwhile`);
    assert.equal((await stat("/m/big")).childCount, count);
    const again = await sync("/m");
    assert.deepEqual([again.added, again.changed, again.removed], [0, 0, 0]);
  });

  it("what came, changed and went in the store comes, changes and goes with the next sync", async () => {
    test = await TestMaster.start();
    for (const name of ["keep", "change", "go"]) test.memory.put(`d/${name}`, bytes(1));
    test.memory.put("gone/sub/file", bytes(1));
    await test.mount({ sync: "never" });
    await sync("/m");
    const before = await stat("/m/d/change");
    test.memory.put("d/change", bytes(2));
    test.memory.put("d/new", bytes(1));
    await test.memory.remove("d/go");
    await test.memory.remove("gone/sub/file");
    await test.memory.removeDirectory("gone/sub");
    await test.memory.removeDirectory("gone");
    const progress = await sync("/m");
    assert.deepEqual([progress.added, progress.changed, progress.removed], [1, 1, 2]);
    const after = await stat("/m/d/change");
    assert.equal(after.inodeId, before.inodeId);
    assert.ok(after.contentVersion > before.contentVersion, "new bytes are a new content");
    assert.equal(after.sizeBytes, 2);
    assert.deepEqual(await list("/m", true), ["/m/d", "/m/d/change", "/m/d/keep", "/m/d/new"]);
  });

  it("names that are not there cost one head for a while, not one for each question", async () => {
    test = await TestMaster.start({ limits: { sync: { absentMs: 60_000 } } });
    await test.mount();
    for (let n = 0; n < 5; n++) await assert.rejects(stat("/m/nothing"), { code: "not-found" });
    assert.equal(test.store.requests("head"), 1);
    await sync("/m");
    test.memory.put("nothing", bytes(3));
    await sync("/m");
    assert.equal((await stat("/m/nothing")).sizeBytes, 3);
  });

  it("many questions for one unknown name at once are one head", async () => {
    test = await TestMaster.start();
    test.memory.put("a/b/c/file", bytes(7));
    await test.mount();
    test.store.inject({ operation: "head", times: 1, fault: { kind: "delay", durationMs: 50 } });
    const all = await Promise.all(Array.from({ length: 20 }, () => stat("/m/a/b/c/file")));
    assert.deepEqual(new Set(all.map(({ sizeBytes }) => sizeBytes)), new Set([7]));
    assert.equal(test.store.requests("head"), 1);
  });

  it("with the store down, what is known is served, and what is not says why", async () => {
    test = await TestMaster.start();
    test.memory.put("d/known", bytes(5));
    await test.mount();
    await list("/m/d");
    const error = new HeadpondError("under-store", "connection refused");
    for (const operation of ["head", "list"] as const)
      test.store.inject({ operation, fault: { kind: "error", error } });
    assert.equal((await stat("/m/d/known")).sizeBytes, 5);
    assert.deepEqual(await list("/m/d"), ["/m/d/known"]);
    await assert.rejects(stat("/m/d/unknown"), (thrown: HeadpondError) => {
      assert.equal(thrown.code, "under-store");
      assert.match(thrown.message, /\/m\/d\/unknown.*memory:\/\/test.*\/m.*connection refused/);
      return true;
    });
  });

  it("sync=always sees a change at once, sync=10ms soon, sync=never only when told", async () => {
    for (const [policy, sees] of [
      ["always", "at once"],
      ["10ms", "soon"],
      ["never", "told"],
    ] as const) {
      test = await TestMaster.start();
      test.memory.put("d/file", bytes(1));
      await test.mount({ sync: policy });
      await list("/m/d");
      test.memory.put("d/file", bytes(2));
      if (sees === "at once") assert.equal((await stat("/m/d/file")).sizeBytes, 2);
      if (sees === "soon") {
        await eventually("the new size", async () => ((await stat("/m/d/file")).sizeBytes === 2 ? true : undefined));
      }
      if (sees === "told") {
        assert.equal((await stat("/m/d/file")).sizeBytes, 1);
        await sync("/m/d");
        assert.equal((await stat("/m/d/file")).sizeBytes, 2);
      }
      if (policy !== "never") await test.close();
    }
  });

  it("a sync that nobody waits for any more stops listing", async () => {
    test = await TestMaster.start({ listPageMax: 10 });
    for (let n = 0; n < 1000; n++) test.memory.put(`d/${n}`, bytes(1));
    await test.mount();
    test.store.inject({ operation: "list", fault: { kind: "delay", durationMs: 5 } });
    for await (const progress of test.client.openStream(methods.sync, { path: "/m/d" })) {
      if (progress.files > 0) break;
    }
    let seen = -1;
    await eventually("the listing rests", async () => {
      const now = test.store.requests("list");
      const rests = now === seen;
      seen = now;
      if (!rests) await test.clock.sleep(50);
      return rests || undefined;
    });
    assert.ok(seen < 100, `${seen} of 100 pages were read`);
  });

  it("a mount of a store that cannot be reached is refused with what to do, and leaves nothing", async () => {
    test = await TestMaster.start();
    const error = new HeadpondError("not-found", "no bucket of that name");
    test.store.inject({ operation: "list", times: 1, fault: { kind: "error", error } });
    await assert.rejects(test.mount(), (thrown: HeadpondError) => {
      assert.equal(thrown.code, "not-found");
      assert.match(thrown.message, /cannot mount memory:\/\/test at \/m: no bucket/);
      return true;
    });
    await assert.rejects(test.mount({ sync: "often" }), { code: "invalid" });
    assert.deepEqual((await test.client.call(methods.mounts, {})).mounts, []);
  });

  it("a bucket that has vanished does not look like an empty one", async () => {
    test = await TestMaster.start();
    test.memory.put("file", bytes(1));
    await test.mount();
    await sync("/m");
    const error = new HeadpondError("not-found", "no such bucket");
    test.store.inject({ operation: "list", fault: { kind: "error", error } });
    await assert.rejects(sync("/m"), { code: "not-found" });
    assert.deepEqual(await list("/m"), ["/m/file"]);
  });
});
