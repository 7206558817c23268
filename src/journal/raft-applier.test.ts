import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryDisk } from "../io/memory-disk.ts";
import { NodeClock } from "../io/node-clock.ts";
import type { Entry } from "../raft/types.ts";
import { ListMachine } from "./list-machine.ts";
import { RaftApplier } from "./raft-applier.ts";

const clock = new NodeClock();

/** Its own disk takes what is applied only when the test says so. */
class SlowMachine extends ListMachine {
  behind = 0;
  refusals = 0;
  #drained: (() => void)[] = [];

  override apply(entries: Parameters<ListMachine["apply"]>[0]): string[] {
    this.behind += entries.length;
    return super.apply(entries);
  }

  backPressure(): Promise<void> | undefined {
    if (this.behind < 10) return undefined;
    if (this.refusals > 0) return this.refusals-- > 0 ? Promise.reject(new Error("ENOSPC")) : undefined;
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  drain(): void {
    this.behind = 0;
    for (const resolve of this.#drained.splice(0)) resolve();
  }
}

function entries(count: number): Entry[] {
  return Array.from({ length: count }, (_, n) => ({
    index: n + 1,
    term: 1,
    kind: "command",
    payload: Buffer.from(`${n + 1}`),
  }));
}

function applier(machine: SlowMachine, isStandby: () => boolean, onDone: (index: number) => void): RaftApplier<string> {
  return new RaftApplier({
    machine,
    clock,
    sliceEntries: 4,
    digestEveryEntries: 1000,
    isStandby,
    retryMs: 1,
    onApplied: () => {},
    onDone,
    onDigest: () => {},
    onFatal: (error) => assert.fail(error),
  });
}

async function turns(count: number): Promise<void> {
  for (let n = 0; n < count; n++) await clock.nextTurn();
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await clock.sleep(1);
}

test("a standby whose state cannot follow waits for it, and goes on when it is level", async () => {
  const machine = new SlowMachine(new MemoryDisk());
  let done = 0;
  const applying = applier(
    machine,
    () => true,
    (index) => (done = index),
  );
  applying.apply(entries(100));
  for (let reached = 12; reached < 100; reached += 12) {
    await until(() => machine.list.length === reached);
    await turns(20);
    assert.equal(machine.list.length, reached, "it applies no more than its disk bears");
    assert.ok(!applying.isIdle);
    machine.drain();
  }
  await until(() => done === 100);
  assert.ok(applying.isIdle);
});

test("a state that refuses to be written is asked again, and a close does not wait for it", async () => {
  const machine = new SlowMachine(new MemoryDisk());
  machine.refusals = 3;
  const applying = applier(
    machine,
    () => true,
    () => {},
  );
  applying.apply(entries(40));
  await until(() => machine.refusals <= 0);
  assert.equal(machine.list.length, 12);
  await applying.close();
  assert.equal(machine.list.length, 12);
});

test("a leader's clients wait before they propose: what is committed then is applied without a pause", async () => {
  const machine = new SlowMachine(new MemoryDisk());
  let done = 0;
  applier(
    machine,
    () => false,
    (index) => (done = index),
  ).apply(entries(100));
  await until(() => done === 100);
  assert.equal(machine.behind, 100);
});
