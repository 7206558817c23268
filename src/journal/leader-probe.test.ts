/** The probe of a leader over a network and a clock that the test moves. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLogger } from "../io/logger.ts";
import { ManualClock } from "../io/manual-clock.ts";
import { MemoryNetwork } from "../io/memory-network.ts";
import type { Connection, Listener } from "../io/network.ts";
import { LeaderProbe } from "./leader-probe.ts";

const address = { host: "leader", port: 7070 };
const limits = { pingEveryMs: 100, silenceMs: 700 };

class Stage {
  readonly clock = new ManualClock();
  readonly network = new MemoryNetwork({ clock: this.clock });
  readonly hints: boolean[] = [];
  readonly accepted: Connection[] = [];
  answers = true;
  heardBytes = 0;
  #listener: Listener | undefined;
  probe: LeaderProbe | undefined;

  async listen(): Promise<void> {
    this.#listener = await this.network.at("leader").listen(address, (connection) => {
      this.accepted.push(connection);
      connection.onData = (chunk) => {
        this.heardBytes += chunk.length;
        if (this.answers) connection.write(Buffer.from([1]));
      };
    });
  }

  async die(): Promise<void> {
    await this.#listener?.close();
    for (const connection of this.accepted.splice(0)) connection.destroy();
  }

  begin(): void {
    const { clock, network } = this;
    const self = { software: "test", role: "master", name: "m2" };
    const onHint = (isGone: boolean): number => this.hints.push(isGone);
    this.probe = new LeaderProbe({
      network: network.at("next"),
      clock,
      logger: silentLogger,
      address,
      self,
      limits,
      onHint,
    });
  }

  async pass(durationMs: number): Promise<void> {
    await this.clock.advance(durationMs);
  }
}

test("a leader that answers gives no hint, however long", async () => {
  const stage = new Stage();
  await stage.listen();
  stage.begin();
  await stage.pass(10_000);
  assert.deepEqual(stage.hints, []);
  assert.equal(stage.accepted.length, 1, "over one connection");
  assert.ok(stage.heardBytes > 900, "it is asked");
  stage.probe?.close();
});

test("a leader whose port is closed is a hint in the same moment, and none any more when it listens again", async () => {
  const stage = new Stage();
  await stage.listen();
  stage.begin();
  await stage.pass(300);
  await stage.die();
  await stage.pass(1);
  assert.deepEqual(stage.hints, [true]);
  await stage.listen();
  await stage.pass(300);
  assert.deepEqual(stage.hints, [true, false]);
  stage.probe?.close();
});

test("a leader that hangs is a hint after the silence that was named, and not before", async () => {
  const stage = new Stage();
  await stage.listen();
  stage.begin();
  await stage.pass(300);
  stage.answers = false;
  await stage.pass(600);
  assert.deepEqual(stage.hints, []);
  await stage.pass(300);
  assert.deepEqual(stage.hints, [true]);
  stage.answers = true;
  await stage.pass(200);
  assert.deepEqual(stage.hints, [true, false]);
  stage.probe?.close();
});

test("a connection that breaks while somebody listens is no hint", async () => {
  const stage = new Stage();
  await stage.listen();
  stage.begin();
  for (let i = 0; i < 5; i++) {
    await stage.pass(300);
    for (const connection of stage.accepted.splice(0)) connection.destroy();
  }
  await stage.pass(1000);
  assert.deepEqual(stage.hints, []);
  stage.probe?.close();
});

test("a probe that was closed connects no more and gives no hint", async () => {
  const stage = new Stage();
  await stage.listen();
  stage.begin();
  await stage.pass(300);
  stage.probe?.close();
  await stage.die();
  await stage.pass(2000);
  assert.deepEqual(stage.hints, []);
});
