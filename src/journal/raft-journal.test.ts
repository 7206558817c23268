import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { NodeClock } from "../io/node-clock.ts";
import { RaftGroup } from "../testing/raft-group.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);
const random = new Random(seed);
const clock = new NodeClock();

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

test("three masters elect one, and what it acknowledged is applied on all in the same order", async () => {
  const group = await RaftGroup.start({ clock, random });
  try {
    const leader = await group.leader();
    const proposed = await Promise.all(
      Array.from({ length: 500 }, (_, n) => leader.journal.propose(encode(`command ${n}`))),
    );
    assert.deepEqual(
      proposed.map(({ result }) => result),
      proposed.map((_, n) => `result of command ${n}`),
    );
    await group.settled();
    const [first, ...others] = group.masters;
    for (const other of others) assert.deepEqual(other.machine.list, first?.machine.list);
    for (const { fatal } of group.masters) assert.deepEqual(fatal, []);
  } finally {
    await group.closeAll();
  }
});

test("a leader that is killed is replaced, and nothing that it acknowledged is lost", async () => {
  const group = await RaftGroup.start({ clock, random });
  try {
    const first = await group.leader();
    const acknowledged: string[] = [];
    for (let n = 0; n < 50; n++) {
      await first.journal.propose(encode(`first ${n}`));
      acknowledged.push(`first ${n}`);
    }
    await group.kill(first.id, true);
    const second = await group.leader();
    assert.notEqual(second.id, first.id);
    await second.journal.propose(encode("second"));
    acknowledged.push("second");
    await group.open(first.id);
    await group.settled();
    for (const { machine } of group.masters) {
      const texts = machine.list.map(({ text }) => text).filter((text) => text !== "");
      assert.deepEqual(texts, acknowledged);
    }
    for (const { fatal } of group.masters) assert.deepEqual(fatal, []);
  } finally {
    await group.closeAll();
  }
});
