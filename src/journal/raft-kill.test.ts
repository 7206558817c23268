import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { type Master, RaftGroup } from "../testing/raft-group.ts";
import { RunningClock } from "../testing/running-clock.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

const limits = {
  logKeepBytes: 0,
  logMemoryBytes: 8 * KiB,
  checkpointEveryEntries: 200,
  digestEveryEntries: 250,
};

/** What was acknowledged, and by whom that can be seen. */
class Writers {
  readonly acknowledged = new Map<number, string>();
  readonly #group: RaftGroup;
  #count = 0;
  #isOver = false;
  readonly #all: Promise<void>[];

  constructor(group: RaftGroup, count: number) {
    this.#group = group;
    this.#all = Array.from({ length: count }, () => this.#run());
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#all);
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      const leader = this.#group.masters.find(({ journal }) => journal.role === "leader");
      const text = `command ${++this.#count} ${"x".repeat(this.#count % 500)}`;
      const answer = leader?.journal.propose(new TextEncoder().encode(text)).then(
        ({ index }) => this.acknowledged.set(index, text),
        () => {},
      );
      // Whoever is killed answers nobody.
      await Promise.race([answer, this.#group.clock.sleep(300)]);
      // A refusal comes at once: without a pause nobody else would ever have a turn.
      await this.#group.clock.sleep(5);
    }
  }
}

function check(group: RaftGroup, writers: Writers, lost: (master: Master) => string): void {
  for (const master of group.masters) {
    const { list } = master.machine;
    for (const [index, text] of writers.acknowledged) assert.equal(list[index - 1]?.text, text, lost(master));
    const texts = list.map(({ text }) => text).filter((text) => text !== "");
    assert.equal(new Set(texts).size, texts.length, `nothing is there twice; seed ${seed}`);
    assert.deepEqual(master.diverged, []);
  }
}

for (const [power, powerFails] of [
  ["a process", false],
  ["the power", true],
] as const) {
  test(`${power} may end at any step on the disk, of any master: nothing acknowledged is lost or doubled`, async () => {
    const random = new Random(seed);
    const clock = new RunningClock();
    const group = await RaftGroup.start({ clock, random, limits });
    const writers = new Writers(group, 8);
    try {
      for (let round = 0; round < 25; round++) {
        const id = random.pick(group.ids);
        await group.kill(id, powerFails);
        // So many operations on its disk it lives to begin: it may die before it has started.
        const operations = random.between(5, 400);
        const life = await group.open(id, { operations }).catch(() => undefined);
        if (life !== undefined) {
          const endMs = clock.monotonicMs() + 400;
          await group.until("its end", 2000, () => life.fatal.length > 0 || clock.monotonicMs() > endMs);
        }
        await group.kill(id, powerFails);
        await group.open(id);
        await group.leader();
      }
      await writers.end();
      await group.leader();
      await group.settled();
      check(group, writers, ({ id }) => `acknowledged, and not on ${id}; seed ${seed}`);
      assert.ok(writers.acknowledged.size > 300, `only ${writers.acknowledged.size} commands were acknowledged`);
      for (const { id, fatal } of group.masters) assert.deepEqual(fatal, [], `${id} failed`);
    } finally {
      await writers.end();
      await group.killAll();
      clock.stop();
    }
  });
}

test("all masters may lose their power at once, again and again", async () => {
  const random = new Random(seed);
  const clock = new RunningClock();
  const group = await RaftGroup.start({ clock, random, limits });
  const writers = new Writers(group, 8);
  try {
    for (let round = 0; round < 12; round++) {
      await clock.sleep(random.between(200, 900));
      await Promise.all(group.ids.map((id) => group.kill(id, true)));
      await Promise.all(group.ids.map((id) => group.open(id)));
    }
    await group.leader();
    await writers.end();
    await group.settled();
    check(group, writers, ({ id }) => `acknowledged, and not on ${id}; seed ${seed}`);
    assert.ok(writers.acknowledged.size > 200, `only ${writers.acknowledged.size} commands were acknowledged`);
  } finally {
    await writers.end();
    await group.killAll();
    clock.stop();
  }
});
