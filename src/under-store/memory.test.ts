import assert from "node:assert/strict";
import { test } from "node:test";
import { NodeClock } from "../io/node-clock.ts";
import {
  bodyOf,
  bytesOf,
  fileAt,
  holdsUnderStoreContract,
  readBytes,
  rejectsWith,
} from "../testing/under-store-contract.ts";
import { FaultyUnderStore } from "./faulty.ts";
import { MemoryUnderStore } from "./memory.ts";

holdsUnderStoreContract({
  name: "memory",
  writable: true,
  open: async () => {
    const store = new MemoryUnderStore({ clock: new NodeClock() });
    return { store, seed: async (key, bytes) => void store.put(key, bytes), close: () => store.close() };
  },
});

holdsUnderStoreContract({
  name: "faulty without faults",
  writable: true,
  open: async () => {
    const clock = new NodeClock();
    const inner = new MemoryUnderStore({ clock });
    const store = new FaultyUnderStore({ inner, clock });
    return { store, seed: async (key, bytes) => void inner.put(key, bytes), close: () => store.close() };
  },
});

function openFaulty(): { store: FaultyUnderStore; inner: MemoryUnderStore } {
  const clock = new NodeClock();
  const inner = new MemoryUnderStore({ clock, chunkSizeBytes: 4 });
  return { store: new FaultyUnderStore({ inner, clock }), inner };
}

test("faulty: bytes and requests are counted, by key and in all", async () => {
  const { store, inner } = openFaulty();
  const a = inner.put("a", bytesOf("0123456789"));
  const b = inner.put("b", bytesOf("01234"));
  await readBytes(store, "a", { position: 2, length: 6, etag: a.etag });
  await readBytes(store, "b", { position: 0, length: 5, etag: b.etag });
  assert.deepEqual([store.originBytes(), store.originBytes("a"), store.requests("read")], [11, 6, 2]);
  store.resetCounts();
  assert.deepEqual([store.originBytes(), store.requests("read")], [0, 0]);
});

test("faulty: a rule harms the calls it names, as often as it says", async () => {
  const { store, inner } = openFaulty();
  inner.put("a", bytesOf("x"));
  store.inject({ operation: "head", key: "a", skip: 1, times: 2, fault: { kind: "throttle", retryAfterMs: 70 } });
  await store.head("a");
  await store.head("other");
  const error = await rejectsWith("overloaded", store.head("a"));
  assert.deepEqual(error.details, { retryAfterMs: 70 });
  await rejectsWith("overloaded", store.head("a"));
  await store.head("a");
});

test("faulty: bodies break off, come short, change and flip as told", async () => {
  const { store, inner } = openFaulty();
  const { etag } = inner.put("a", bytesOf("0123456789"));
  const read = (): Promise<Buffer> => readBytes(store, "a", { position: 0, length: 10, etag });
  store.inject({ operation: "read", times: 1, fault: { kind: "truncate", afterBytes: 3 } });
  await rejectsWith("under-store", read());
  store.inject({ operation: "read", times: 1, fault: { kind: "short", afterBytes: 3 } });
  assert.equal(String(await read()), "012");
  store.inject({ operation: "read", times: 1, fault: { kind: "change", afterBytes: 3 } });
  await rejectsWith("version-mismatch", read());
  store.inject({ operation: "read", times: 1, fault: { kind: "flip", atByte: 9 } });
  assert.equal(String(await read()), "0123456788");
  assert.equal(String(await read()), "0123456789");
  store.inject({ operation: "head", times: 1, fault: { kind: "wrong-size", deltaBytes: 5 } });
  assert.equal((await fileAt(store, "a")).sizeBytes, 15);
});

test("faulty: a hanging call ends when it is aborted, a lost answer took effect", async () => {
  const { store, inner } = openFaulty();
  store.inject({ operation: "list", fault: { kind: "hang" } });
  const controller = new AbortController();
  const listing = store.list("", { signal: controller.signal });
  controller.abort();
  await rejectsWith("cancelled", listing);
  store.inject({ operation: "write", fault: { kind: "lost-answer" } });
  assert.equal((await rejectsWith("under-store", store.write("w", { body: bodyOf("done") }))).outcome, "unknown");
  assert.equal(Buffer.from(inner.peek("w") ?? []).toString(), "done");
});

test("memory: a file in the way of a directory is refused", async () => {
  const { store } = openFaulty();
  await store.write("x", { body: bodyOf("x") });
  await rejectsWith("not-a-directory", store.write("x/y", { body: bodyOf("x") }));
  await rejectsWith("not-a-directory", store.makeDirectory("x/y"));
});
