import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Holding, WorkerOrder } from "../base/cluster.ts";
import type { FileVersionId, WorkerId } from "../base/ids.ts";
import type { Place } from "../base/place.ts";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { BlockMap } from "./block-map.ts";
import { type Attach, type OrderSink, WorkerRegistry } from "./worker-registry.ts";

const welcome: WorkerOrder = { kind: "welcome", clusterId: "c" as never, leader: true };

class Sink implements OrderSink {
  readonly orders: WorkerOrder[] = [];
  ended: Error | "ended" | undefined;
  push(order: WorkerOrder): boolean {
    this.orders.push(order);
    return true;
  }
  end(error?: Error): void {
    this.ended = error ?? "ended";
  }
}

function attachOf(id: string, { incarnation = "incarnation-1", data = `${id}:7080` } = {}): Attach {
  return {
    address: { id: id as WorkerId, place: "a/b/c/d" as Place, data, http: `${id}:7081`, gateways: {} },
    incarnation,
    capacityBytes: 1000,
    version: "0",
  };
}

function setUp(): { clock: ManualClock; map: BlockMap; registry: WorkerRegistry; events: string[] } {
  const clock = new ManualClock();
  const map = new BlockMap({ isKnown: () => true });
  const registry = new WorkerRegistry({
    blockMap: map,
    clock,
    logger: silentLogger,
    limits: { lossTimeoutMs: 5000, silenceTimeoutMs: 30_000, workersMax: 3 },
  });
  const events: string[] = [];
  registry.listen({
    onLive: ({ id }) => events.push(`live ${id}`),
    onLost: ({ id }) => events.push(`lost ${id}`),
  });
  return { clock, map, registry, events };
}

function report(registry: WorkerRegistry, id: string, ids: readonly string[], more: object = {}): void {
  registry.report({
    workerId: id as WorkerId,
    incarnation: "incarnation-1",
    sequence: 0,
    full: true,
    last: true,
    holdings: ids.map((version): Holding => {
      return { id: version as FileVersionId, blockCount: 2, complete: true, originBytes: 0 };
    }),
    ...more,
  });
}

describe("worker registry", () => {
  it("a worker counts once it has reported everything, not before", () => {
    const { registry, events } = setUp();
    registry.beginTerm(3);
    registry.attach(attachOf("w1"), new Sink(), welcome);
    assert.deepEqual(registry.list.workers, []);
    const before = registry.list.version;
    report(registry, "w1", ["1-1"], { last: false });
    assert.deepEqual(events, []);
    report(registry, "w1", ["2-1"], { sequence: 1 });
    assert.deepEqual(events, ["live w1"]);
    assert.deepEqual(
      registry.list.workers.map(({ id }) => id),
      ["w1"],
    );
    assert.ok(registry.list.version > before);
    assert.equal(registry.statuses()[0]?.files, 2);
  });

  it("no two terms share a version of the list", () => {
    const { registry } = setUp();
    registry.beginTerm(1);
    registry.attach(attachOf("w1"), new Sink(), welcome);
    report(registry, "w1", []);
    const first = registry.list.version;
    registry.beginTerm(2);
    assert.ok(registry.list.version - first > 1_000_000);
  });

  it("a worker is lost some time after its stream has broken, and what it held is forgotten", () => {
    const { clock, map, registry, events } = setUp();
    const sink = new Sink();
    registry.attach(attachOf("w1"), sink, welcome);
    report(registry, "w1", ["1-1"]);
    clock.advanceSync(10_000);
    registry.tick();
    assert.equal(registry.get("w1" as WorkerId)?.state, "live", "the stream is there, silence is no loss yet");
    registry.detach("w1" as WorkerId, sink);
    clock.advanceSync(4999);
    registry.tick();
    assert.equal(map.versionCount, 1);
    clock.advanceSync(2);
    registry.tick();
    assert.deepEqual(events, ["live w1", "lost w1"]);
    assert.equal(map.versionCount, 0);
    assert.equal(registry.list.workers.length, 0);
    assert.throws(() => report(registry, "w1", []), { code: "not-found" });
  });

  it("a wall clock that jumps loses nobody", () => {
    const { clock, registry } = setUp();
    const sink = new Sink();
    registry.attach(attachOf("w1"), sink, welcome);
    report(registry, "w1", []);
    registry.detach("w1" as WorkerId, sink);
    clock.jumpWall(86_400_000);
    registry.tick();
    assert.equal(registry.get("w1" as WorkerId)?.state, "live");
  });

  it("a worker that comes back in time keeps what it holds; a new life of it starts from nothing", () => {
    const { map, registry, events } = setUp();
    const first = new Sink();
    registry.attach(attachOf("w1"), first, welcome);
    report(registry, "w1", ["1-1"]);
    const second = new Sink();
    registry.attach(attachOf("w1"), second, welcome);
    assert.ok(first.ended, "the old stream ends");
    registry.detach("w1" as WorkerId, first);
    assert.equal(registry.get("w1" as WorkerId)?.sink, second, "the end of the old stream does not count any more");
    assert.equal(map.versionCount, 1);
    report(registry, "w1", ["1-1"]);
    assert.deepEqual(events, ["live w1", "live w1"], "orders on the old stream are lost, so it is announced again");
    registry.attach(attachOf("w1", { incarnation: "incarnation-2" }), new Sink(), welcome);
    assert.equal(map.versionCount, 0);
    assert.equal(registry.get("w1" as WorkerId)?.state, "registering");
    assert.throws(() => report(registry, "w1", []), { code: "not-found" }, "a late report of the old life");
  });

  it("a second worker under the same id is refused with both addresses, until the first has gone", () => {
    const { registry } = setUp();
    const sink = new Sink();
    registry.attach(attachOf("w1", { data: "h1:1" }), sink, welcome);
    const other = attachOf("w1", { data: "h2:2", incarnation: "incarnation-2" });
    assert.throws(
      () => registry.attach(other, new Sink(), welcome),
      (error: Error & { code?: string }) => {
        assert.equal(error.code, "already-exists");
        assert.match(error.message, /w1.*h1:1.*h2:2/);
        return true;
      },
    );
    registry.detach("w1" as WorkerId, sink);
    registry.attach(other, new Sink(), welcome);
    assert.equal(registry.get("w1" as WorkerId)?.address.data, "h2:2");
  });

  it("a gap in the reports is answered by one order to report all, and what is known stays meanwhile", () => {
    const { map, registry } = setUp();
    const sink = new Sink();
    registry.attach(attachOf("w1"), sink, welcome);
    report(registry, "w1", ["1-1"]);
    report(registry, "w1", ["2-1"], { sequence: 2, full: false });
    report(registry, "w1", ["3-1"], { sequence: 3, full: false });
    assert.deepEqual(
      sink.orders.map(({ kind }) => kind),
      ["welcome", "report-all"],
    );
    assert.equal(map.versionCount, 1);
    report(registry, "w1", ["2-1", "3-1"]);
    assert.deepEqual(map.holders(2 as never, 1), ["w1"]);
    assert.deepEqual(map.holders(1 as never, 1), []);
  });

  it("there are never more workers than the limit", () => {
    const { registry } = setUp();
    for (const id of ["w1", "w2", "w3"]) registry.attach(attachOf(id), new Sink(), welcome);
    assert.throws(() => registry.attach(attachOf("w4"), new Sink(), welcome), { code: "overloaded" });
  });
});
