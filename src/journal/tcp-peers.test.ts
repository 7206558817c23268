import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { NodeClock } from "../io/node-clock.ts";
import { TcpNetwork } from "../io/tcp-network.ts";
import { anyReport, append, heartbeat, TestMaster, until } from "./tcp-peers.test-support.ts";

const clock = new NodeClock();
const network = new TcpNetwork();
const running: TestMaster[] = [];

after(async () => {
  for (const { peers } of running) await peers.close();
});

async function master(
  id: string,
  options: Partial<ConstructorParameters<typeof TestMaster>[0]> = {},
): Promise<TestMaster> {
  const made = await new TestMaster({ id, network, clock, ...options }).start();
  running.push(made);
  return made;
}

async function cluster(ids: readonly string[]): Promise<TestMaster[]> {
  const masters: TestMaster[] = [];
  for (const id of ids) masters.push(await master(id));
  for (const one of masters) one.meet(masters);
  for (const one of masters)
    await until(`${one.id} is connected with all`, () => one.connected.length === ids.length - 1);
  return masters;
}

describe("masters over TCP", () => {
  it("three masters say who they are, and each gets what the others send, in order", async () => {
    const masters = await cluster(["m1", "m2", "m3"]);
    for (const one of masters) {
      const others = masters.filter(({ id }) => id !== one.id);
      assert.deepEqual(
        one.connected.map(({ incarnation }) => incarnation).sort(),
        others.map(({ id }) => `disk-of-${id}`),
      );
      for (let round = 1; round <= 100; round++)
        one.peers.send(
          others.flatMap(({ id }) => [
            heartbeat(one.id, id, round),
            append(one.id, id, round, [Buffer.from(`${one.id} ${round}`)]),
          ]),
        );
      one.peers.report({ ...anyReport, rpc: `${one.id}:7070` });
    }
    for (const one of masters) {
      await until(`${one.id} has everything`, () => one.messages.length === 400 && one.reports.length === 2);
      for (const { id } of masters.filter((other) => other.id !== one.id)) {
        const fromOne = one.messages.filter(({ from }) => from === id);
        assert.deepEqual(
          fromOne.filter(({ type }) => type === "heartbeat"),
          Array.from({ length: 100 }, (_, i) => heartbeat(id, one.id, i + 1)),
        );
        const appends = fromOne.filter((message) => message.type === "append");
        assert.deepEqual(
          appends.map(({ prevIndex }) => prevIndex),
          Array.from({ length: 100 }, (_, i) => i + 1),
        );
        assert.deepEqual(
          appends.map(({ entries }) => Buffer.from(entries[0]?.payload ?? []).toString()),
          Array.from({ length: 100 }, (_, i) => `${id} ${i + 1}`),
        );
        assert.equal(one.reports.find((report) => report.id === id)?.report.rpc, `${id}:7070`);
      }
    }
  });
});
