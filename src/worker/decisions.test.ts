import assert from "node:assert/strict";
import { test } from "node:test";
import type { Holding } from "../base/cluster.ts";
import type { BlockIndex, FileVersionId, WorkerId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { checkConditions, parseRange } from "./byte-range.ts";
import { ChangeSet } from "./change-set.ts";
import { Crc32c } from "./crc32c.ts";
import { chooseEvictions, unevictableBytes } from "./eviction.ts";
import { loadUrgency, readerUrgency, Slots } from "./slots.ts";
import { chooseSource, takesItselfForOwner } from "./source-choice.ts";

const ids = (...names: string[]): WorkerId[] => names as WorkerId[];

test("the first live worker of the order is asked, and only the first reads the origin", () => {
  const ask = (self: string, avoid: string[] = [], originOnly = false) =>
    chooseSource({ self: self as WorkerId, order: ids("a", "b", "c"), avoid: new Set(ids(...avoid)), originOnly });
  assert.deepEqual(ask("a"), { kind: "origin", firstOwner: true });
  assert.deepEqual(ask("b"), { kind: "peer", worker: "a", skipped: [] });
  assert.deepEqual(ask("c", ["a"]), { kind: "peer", worker: "b", skipped: ["a"] });
  assert.deepEqual(ask("b", ["a"]), { kind: "origin", firstOwner: false });
  assert.deepEqual(ask("new", ["a", "b", "c"]), { kind: "origin", firstOwner: false });
  assert.deepEqual(ask("c", [], true), { kind: "origin", firstOwner: true });
});

test("a worker takes itself for the owner only when all before it are named as unreachable", () => {
  const order = ids("a", "b", "c");
  assert.ok(takesItselfForOwner("a" as WorkerId, order, new Set()));
  assert.ok(!takesItselfForOwner("b" as WorkerId, order, new Set()));
  assert.ok(takesItselfForOwner("b" as WorkerId, order, new Set(ids("a"))));
  assert.ok(!takesItselfForOwner("c" as WorkerId, order, new Set(ids("b"))));
  assert.ok(takesItselfForOwner("alone" as WorkerId, [], new Set()));
});

test("ranges: satisfiable ones are cut to the file, hostile ones are ignored or refused", () => {
  const whole = { kind: "whole" };
  assert.deepEqual(parseRange("bytes=0-0", 10), { kind: "part", position: 0, length: 1 });
  assert.deepEqual(parseRange("bytes=3-", 10), { kind: "part", position: 3, length: 7 });
  assert.deepEqual(parseRange("bytes=3-999999", 10), { kind: "part", position: 3, length: 7 });
  assert.deepEqual(parseRange("bytes=-4", 10), { kind: "part", position: 6, length: 4 });
  assert.deepEqual(parseRange("bytes=-400", 10), { kind: "part", position: 0, length: 10 });
  assert.deepEqual(parseRange("bytes=10-", 10), { kind: "unsatisfiable" });
  assert.deepEqual(parseRange("bytes=-0", 10), { kind: "unsatisfiable" });
  assert.deepEqual(parseRange("bytes=0-", 0), { kind: "unsatisfiable" });
  for (const odd of [
    undefined,
    "",
    "bytes=-",
    "bytes=5-3",
    "bytes=1-2,4-5",
    "lines=1-2",
    "bytes=-1-2",
    "bytes=0x1-2",
  ]) {
    assert.deepEqual(parseRange(odd, 10), whole, String(odd));
  }
  assert.deepEqual(parseRange(`bytes=${"9".repeat(400)}-`, 10), whole);
});

test("conditions compare strong etags", () => {
  const none = { ifMatch: undefined, ifNoneMatch: undefined, ifRange: undefined };
  assert.equal(checkConditions(none, '"a"'), "go-on");
  assert.equal(checkConditions({ ...none, ifNoneMatch: 'W/"x", W/"a"' }, '"a"'), "not-modified");
  assert.equal(checkConditions({ ...none, ifMatch: '"x", "y"' }, '"a"'), "precondition-failed");
  assert.equal(checkConditions({ ...none, ifMatch: "*" }, '"a"'), "go-on");
  assert.equal(checkConditions({ ...none, ifRange: '"x"' }, '"a"'), "ignore-range");
});

test("a waiting reader goes before load jobs, urgent ones before others, equals in their order", async () => {
  const slots = new Slots({ name: "tests", limit: 1, waitersMax: 4 });
  const gate = Promise.withResolvers<void>();
  const ran: string[] = [];
  const first = slots.run(
    () => readerUrgency,
    undefined,
    () => gate.promise,
  );
  const cancel = new AbortController();
  const late = (name: string, urgency: number, signal?: AbortSignal) =>
    slots.run(
      () => urgency,
      signal,
      async () => void ran.push(name),
    );
  const work = [
    late("load 0", loadUrgency(0)),
    late("load 9", loadUrgency(9)),
    late("reader", readerUrgency),
    late("cancelled", readerUrgency, cancel.signal).catch(() => {}),
  ];
  await assert.rejects(late("too many", readerUrgency), /in use/);
  cancel.abort(new Error("no longer"));
  gate.resolve();
  await Promise.all([first, ...work]);
  assert.deepEqual(ran, ["reader", "load 9", "load 0"]);
  assert.equal(slots.takenCount, 0);
});

test("eviction throws nobody out in vain, and no more than it must", () => {
  const candidate = (id: string, lastAccessMs: number, extra: object = {}) => ({
    id: id as FileVersionId,
    model: undefined,
    reservedBytes: 10,
    lastAccessMs,
    complete: true,
    pinned: false,
    open: false,
    protected: false,
    ...extra,
  });
  const all = [
    candidate("new", 9),
    candidate("old", 1),
    candidate("pinned", 0, { pinned: true }),
    candidate("middle", 5),
    candidate("open", 0, { open: true }),
  ];
  assert.deepEqual(chooseEvictions(all, 11), ["old", "middle"]);
  assert.deepEqual(chooseEvictions(all, 0), []);
  assert.equal(chooseEvictions(all, 31), undefined);
});

test("changes of a version are one entry, and what was added and removed again is removed", () => {
  const id = "5-1" as FileVersionId;
  let held: Holding | undefined = {
    id,
    blockCount: 2000,
    bitmap: new Uint8Array(250),
    complete: false,
    originBytes: 7,
  };
  const changes = new ChangeSet(() => held);
  changes.note(id, { added: 1 as BlockIndex });
  changes.note(id, { added: 2 as BlockIndex });
  changes.note(id, { removed: 1 as BlockIndex });
  assert.deepEqual(changes.take(10), [
    { id, blockCount: 2000, complete: false, originBytes: 7, added: [2], removed: [1] },
  ]);
  assert.ok(changes.isEmpty);
  for (let block = 0; block < 1000; block++) changes.note(id, { added: block as BlockIndex });
  assert.deepEqual(changes.take(10), [held]);
  changes.noteGone(id);
  held = undefined;
  assert.equal(changes.take(10)[0]?.gone, true);
});

test("CRC-32C gives the check values of RFC 3720, however the bytes are cut", () => {
  const of = (bytes: Uint8Array): string => {
    const crc = new Crc32c();
    crc.update(bytes);
    return crc.hex();
  };
  assert.equal(of(Buffer.from("123456789")), "e3069283");
  assert.equal(of(new Uint8Array(32)), "8a9136aa");
  assert.equal(of(new Uint8Array(32).fill(255)), "62a8ab43");
  const random = new Random(3);
  const bytes = random.bytes(1000);
  const parts = new Crc32c();
  for (let at = 0; at < bytes.length; ) {
    const length = random.between(1, 50);
    parts.update(bytes.subarray(at, at + length));
    at += length;
  }
  assert.equal(parts.hex(), of(bytes));
});

test("what may be READY goes as a whole or not at all; of a model that is not, each file goes for itself", () => {
  const file = (id: string, model: string | undefined, lastAccessMs: number, extra: object = {}) => ({
    id: id as FileVersionId,
    model,
    reservedBytes: 10,
    lastAccessMs,
    complete: true,
    pinned: false,
    open: false,
    protected: false,
    ...extra,
  });
  const ready = [file("r1", "/m/ready", 1), file("r2", "/m/ready", 7)];
  const read = [file("o1", "/m/read", 0), file("o2", "/m/read", 0, { open: true })];
  const filling = [file("f1", "/m/filling", 2), file("f2", "/m/filling", 8, { complete: false })];
  const stray = file("s", undefined, 6);
  const all = [...ready, ...read, ...filling, stray];
  assert.deepEqual(chooseEvictions(all, 10), ["f1"]);
  assert.deepEqual(chooseEvictions(all, 20), ["f1", "s"]);
  assert.deepEqual(chooseEvictions(all, 30), ["f1", "s", "r1", "r2"], "a model is as young as its youngest file");
  assert.equal(chooseEvictions(all, 60), undefined, "a model of which one file is read stays whole");
  assert.equal(unevictableBytes(all), 20);
});
