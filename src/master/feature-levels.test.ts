/** Masters of two versions: one is pretended to be newer than this software, which is the older one. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import type { Journal, JournalCluster, JournalMember } from "../journal/journal.ts";
import type { Command, CommandResult } from "../namespace/command.ts";
import { encodeCommand } from "../namespace/command-codec.ts";
import { featureLevelMax } from "../namespace/feature-level.ts";
import { MemoryStore } from "../namespace/memory-store.ts";
import { Namespace } from "../namespace/namespace.ts";
import { FeatureLevels } from "./feature-levels.ts";
import { LeaderClock } from "./leader-clock.ts";
import { Proposer } from "./proposer.ts";

const newer = featureLevelMax + 1;
const setting: Command = { kind: "set-setting", key: "a", value: "1", timeMs: 1 };

/** A leader of the newer software, whose journal applies what is proposed at once, and other members that say what they understand. */
class TestLeader {
  readonly clock = new ManualClock();
  readonly namespace: Namespace;
  readonly features: FeatureLevels;
  readonly proposer: Proposer;
  readonly #members = new Map<string, number | undefined>();
  #changed: () => void = () => {};

  constructor(members: Readonly<Record<string, number | undefined>>) {
    this.namespace = new Namespace({ store: new MemoryStore(), backgroundFlush: false, featureLevelMax: newer });
    for (const [id, level] of Object.entries({ m1: newer, ...members })) this.#members.set(id, level);
    const cluster: Partial<JournalCluster> = {
      members: () => [...this.#members].map(([id, featureLevel]) => ({ id, featureLevel }) as JournalMember),
      onMembersChange: (listener) => {
        this.#changed = listener;
      },
    };
    const journal = {
      cluster: cluster as JournalCluster,
      propose: (payload: Uint8Array) =>
        Promise.resolve({ index: this.namespace.applied.index, result: this.apply(payload) }),
    } as unknown as Journal<CommandResult>;
    const { clock, namespace } = this;
    const levelOf = (command: Command): number => (command.kind === "set-setting" ? newer : 1);
    this.features = new FeatureLevels({ namespace, journal, clock, logger: silentLogger, understood: newer, levelOf });
    this.proposer = new Proposer({ journal, clock: new LeaderClock({ clock }), features: this.features });
    this.features.start((level) => this.proposer.propose({ kind: "set-feature-level", level, timeMs: 1 }));
  }

  apply(payload: Uint8Array): CommandResult {
    const index = this.namespace.applied.index + 1;
    return this.namespace.apply([{ index, term: 1, payload }])[0] as CommandResult;
  }

  async member(id: string, level: number | undefined): Promise<void> {
    this.#members.set(id, level);
    this.#changed();
    await this.clock.advance(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.features.stop();
    await this.namespace.close();
  }
}

test("what an older member does not understand is refused, and nothing of it is in the log", async () => {
  await using leader = new TestLeader({ m2: newer, m3: featureLevelMax });
  await leader.clock.advance(60_000);
  assert.equal(leader.namespace.featureLevel, featureLevelMax);
  await assert.rejects(leader.proposer.propose(setting), {
    code: "unsupported",
    outcome: "none",
    message: `set-setting needs feature level ${newer}, the cluster has ${featureLevelMax}: m3 has ${featureLevelMax}: update or remove it`,
  });
  assert.equal(leader.namespace.applied.index, 0);
});

test("the level is raised by itself when the last older member was updated", async () => {
  await using leader = new TestLeader({ m2: featureLevelMax, m3: newer });
  await leader.clock.advance(10_000);
  assert.equal(leader.namespace.featureLevel, featureLevelMax);
  await leader.member("m2", newer);
  assert.equal(leader.namespace.featureLevel, newer);
  assert.deepEqual(await leader.proposer.propose(setting), { ok: true });
  // Once is enough.
  const { index } = leader.namespace.applied;
  await leader.clock.advance(60_000);
  assert.equal(leader.namespace.applied.index, index);
});

test("a member that was never heard of holds the level back, and is named", async () => {
  await using leader = new TestLeader({ m2: undefined });
  await leader.clock.advance(60_000);
  await assert.rejects(leader.proposer.propose(setting), { message: /: m2 was not heard of: update or remove it$/ });
  await leader.member("m2", newer);
  assert.equal(leader.namespace.featureLevel, newer);
});

test("an older master that meets the raised level in the log stops, with its state as it was", async () => {
  await using leader = new TestLeader({ m2: newer });
  const older = new Namespace({ store: new MemoryStore(), backgroundFlush: false });
  const raise = encodeCommand({ kind: "set-feature-level", level: newer, timeMs: 5 });
  const before = { digest: older.digest(), version: older.version };
  assert.throws(() => older.apply([{ index: 1, term: 1, payload: raise }]), {
    code: "unsupported",
    message: `a command has feature level ${newer}, this software understands ${featureLevelMax}: update it before it joins the cluster`,
  });
  assert.deepEqual({ digest: older.digest(), version: older.version }, before);
  assert.deepEqual(leader.apply(raise), { ok: true, level: newer });
});

test("a state of a newer level is not opened by older software", async () => {
  const store = new MemoryStore();
  const updated = new Namespace({ store, backgroundFlush: false, featureLevelMax: newer });
  updated.apply([
    { index: 1, term: 1, payload: encodeCommand({ kind: "set-feature-level", level: newer, timeMs: 5 }) },
  ]);
  await updated.flush();
  assert.throws(() => new Namespace({ store, backgroundFlush: false }), { code: "unsupported" });
  const again = new Namespace({ store, backgroundFlush: false, featureLevelMax: newer });
  assert.equal(again.featureLevel, newer);
});
