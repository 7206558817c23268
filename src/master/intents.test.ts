import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { HeadpondError } from "../base/errors.ts";
import { masterService } from "../rpc/master-service.ts";
import type { UnderStoreOperation } from "../under-store/faulty.ts";
import { eventually, TestMaster } from "./master.test-support.ts";

const { methods } = masterService;
const bytes = (n: number): Uint8Array => new Uint8Array(n);
const limits = { intents: { waitMs: 150, backoffMinMs: 5 } };

type Change = {
  readonly name: string;
  readonly operation: UnderStoreOperation;
  readonly make: (test: TestMaster) => Promise<unknown>;
  /** Whether the under store and the namespace have the change. */
  readonly isDone: (test: TestMaster) => Promise<boolean>;
};

async function exists(test: TestMaster, path: string): Promise<boolean> {
  try {
    await test.client.call(methods.stat, { path });
    return true;
  } catch (error) {
    assert.equal((error as HeadpondError).code, "not-found");
    return false;
  }
}

const changes: readonly Change[] = [
  {
    name: "mkdir",
    operation: "makeDirectory",
    make: (test) => test.client.call(methods.mkdir, { path: "/m/made" }),
    isDone: async (test) => (await exists(test, "/m/made")) && (await test.memory.head("made"))?.kind === "directory",
  },
  {
    name: "removal of a file",
    operation: "remove",
    make: (test) => test.client.call(methods.remove, { path: "/m/d/file" }),
    isDone: async (test) => !(await exists(test, "/m/d/file")) && test.memory.peek("d/file") === undefined,
  },
  {
    name: "removal of a tree",
    operation: "remove",
    make: (test) => test.client.call(methods.remove, { path: "/m/d", recursive: true }),
    isDone: async (test) => !(await exists(test, "/m/d")) && (await test.memory.head("d")) === undefined,
  },
  {
    name: "rename",
    operation: "rename",
    make: (test) => test.client.call(methods.rename, { from: "/m/d/file", to: "/m/d/other" }),
    isDone: async (test) =>
      !(await exists(test, "/m/d/file")) &&
      (await exists(test, "/m/d/other")) &&
      test.memory.peek("d/file") === undefined &&
      test.memory.peek("d/other")?.length === 7,
  },
];

describe("changes under a mount", () => {
  let test: TestMaster;
  afterEach(() => test.close());

  const begin = async (): Promise<void> => {
    test = await TestMaster.start({ limits });
    test.memory.put("d/file", bytes(7));
    test.memory.put("d/e/deep", bytes(1));
    await test.mount({ sync: "never" });
    for await (const _ of test.client.openStream(methods.sync, { path: "/m", recursive: true }));
  };

  for (const change of changes) {
    it(`${change.name}: the under store is changed before the answer`, async () => {
      await begin();
      await change.make(test);
      assert.equal(await change.isDone(test), true);
      assert.equal(test.namespace.counters.openIntents, 0);
    });

    it(`${change.name}: a crash before the store heard of it: unknown to the asker, done by the next leader`, async () => {
      await begin();
      const restore = test.store.inject({ operation: change.operation, fault: { kind: "hang" } });
      await assert.rejects(change.make(test), { code: "unknown-outcome", outcome: "unknown" });
      assert.equal(test.namespace.counters.openIntents, 1);
      await test.close();
      restore();
      await test.open();
      await eventually("the intent is driven", () => test.namespace.counters.openIntents === 0 || undefined);
      assert.equal(await change.isDone(test), true);
    });

    it(`${change.name}: a crash after the store did it and before that was journaled: done, once`, async () => {
      await begin();
      const lost = test.store.inject({ operation: change.operation, times: 1, fault: { kind: "lost-answer" } });
      const hang = test.store.inject({ operation: change.operation, fault: { kind: "hang" } });
      await assert.rejects(change.make(test), { code: "unknown-outcome", outcome: "unknown" });
      await test.close();
      lost();
      hang();
      await test.open();
      await eventually("the intent is driven", () => test.namespace.counters.openIntents === 0 || undefined);
      assert.equal(await change.isDone(test), true);
    });

    it(`${change.name}: a store that refuses undoes it, with the store's reason, and nothing has changed`, async () => {
      await begin();
      const error = new HeadpondError("denied", "access denied by policy");
      test.store.inject({ operation: change.operation, fault: { kind: "error", error } });
      await assert.rejects(change.make(test), (thrown: HeadpondError) => {
        assert.deepEqual([thrown.code, thrown.outcome], ["denied", "none"]);
        assert.match(thrown.message, /access denied by policy/);
        return true;
      });
      assert.equal(test.namespace.counters.openIntents, 0);
      assert.equal(await exists(test, "/m/d/file"), true);
      assert.equal(await exists(test, "/m/made"), false);
    });
  }

  it("a store that fails a few times is asked again until it has done it", async () => {
    await begin();
    const error = new HeadpondError("under-store", "reset by peer");
    test.store.inject({ operation: "makeDirectory", times: 3, fault: { kind: "error", error } });
    await test.client.call(methods.mkdir, { path: "/m/made" });
    assert.equal(test.store.requests("makeDirectory"), 4);
  });

  it("a retry of the same request waits for the same intent and gets its answer", async () => {
    await begin();
    const { sessionId } = await test.client.call(methods.openSession, { client: "test" });
    const request = { path: "/m/made", origin: { sessionId, sequence: 1, acknowledged: 0 } };
    const restore = test.store.inject({ operation: "makeDirectory", fault: { kind: "hang" } });
    await assert.rejects(test.client.call(methods.mkdir, request), { code: "unknown-outcome" });
    await test.close();
    restore();
    await test.open();
    const ref = await test.client.call(methods.mkdir, request);
    const { status } = await test.client.call(methods.stat, { path: "/m/made" });
    assert.equal(ref.inodeId, status.inodeId);
    assert.deepEqual(await test.client.call(methods.mkdir, request), ref);
  });

  it("a file for writing is incomplete until it is completed, then readers see the new content", async () => {
    await begin();
    const made = await test.client.call(methods.create, { path: "/m/d/new", forWriting: true });
    assert.equal(made.created, true);
    assert.equal(made.target?.key, "d/new");
    await assert.rejects(test.client.call(methods.open, { path: "/m/d/new" }));
    const info = test.memory.put("d/new", bytes(9));
    await test.client.call(methods.complete, {
      inodeId: made.inodeId,
      contentVersion: made.contentVersion,
      sizeBytes: 9,
      etag: info.etag,
      modifiedMs: info.modifiedMs,
    });
    const { file } = await test.client.call(methods.open, { path: "/m/d/new" });
    assert.deepEqual([file.sizeBytes, file.etag, file.contentVersion], [9, info.etag, made.contentVersion]);
  });

  it("an empty file never takes the place of an object that somebody else has just made", async () => {
    await begin();
    assert.equal(await exists(test, "/m/d/raced"), false);
    test.memory.put("d/raced", bytes(3));
    await assert.rejects(test.client.call(methods.create, { path: "/m/d/raced" }), { code: "already-exists" });
    assert.equal(test.memory.peek("d/raced")?.length, 3);
    assert.equal(test.namespace.counters.openIntents, 0);
  });

  it("an end that cannot be journaled at once is journaled later", async () => {
    await begin();
    const { journal } = test;
    const propose = journal.propose.bind(journal);
    let refusals = 0;
    journal.propose = (payload) => {
      if (test.namespace.counters.openIntents > 0 && refusals++ < 3) {
        return Promise.reject(new HeadpondError("overloaded", "the journal is full"));
      }
      return propose(payload);
    };
    await test.client.call(methods.mkdir, { path: "/m/made" });
    assert.ok(refusals > 3);
    assert.equal(await exists(test, "/m/made"), true);
  });

  it("an empty file under a mount is in the store when it is answered", async () => {
    await begin();
    const made = await test.client.call(methods.create, { path: "/m/d/empty" });
    assert.equal(made.created, true);
    assert.equal(test.memory.peek("d/empty")?.length, 0);
    const { status } = await test.client.call(methods.stat, { path: "/m/d/empty" });
    assert.deepEqual([status.complete, status.sizeBytes], [true, 0]);
  });
});
