/** What happens to a move of the journal when its driver, a standby or the leader dies before it is decided (docs/migration.md). */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "../base/random.ts";
import { headpondBin } from "../cli/role-process.ts";
import { withMasters } from "./cluster.ts";
import { HistoryClients } from "./history-clients.ts";
import { headpond, type MoveResult, requireLinearizable } from "./journal-move.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

type Driver = { readonly child: ChildProcess; readonly output: { out: string; err: string } };

function startMove(masters: readonly string[], to: string): Driver {
  const args = ["journal", "migrate", "--to", to, "--masters", masters.join(","), "--json"];
  const child = spawn(process.execPath, [headpondBin, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const output = { out: "", err: "" };
  child.stdout.on("data", (chunk: Buffer) => (output.out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output.err += chunk.toString()));
  return { child, output };
}

async function said({ child, output }: Driver, text: RegExp): Promise<void> {
  while (!text.test(output.err)) {
    assert.equal(child.exitCode, null, output.out + output.err);
    await sleep(20);
  }
}

test("a move whose driver dies is taken back or gone on with; a leader that dies meanwhile holds up nothing", {
  timeout: 300_000,
}, async () => {
  await withMasters(3, async ({ masters }) => {
    const { addresses } = masters;
    const ids = masters.nodes.map(({ id }) => id);
    const clients = await HistoryClients.start({ masters: addresses, ids, random: new Random(seed) });
    try {
      const [dead] = await masters.standbys();
      assert.ok(dead !== undefined);
      await dead.kill();
      const first = startMove(addresses, "local");
      await said(first, /does not answer/);
      first.child.kill("SIGKILL");
      await masters.start(dead);
      await headpond("journal", "migrate", "--abort", "--masters", addresses.join(","));
      await clients.untilAcknowledged(performance.now(), 30_000);
      const again = await headpond("journal", "migrate", "--abort", "--masters", addresses.join(","));
      assert.match(again, /no move is prepared/);

      const second = startMove(addresses, "local");
      await said(second, /move [0-9a-f]+ to local/);
      const leader = await masters.leader();
      await leader.kill();
      if (second.child.exitCode === null) second.child.kill("SIGKILL");
      await masters.start(leader);
      const third = startMove(addresses, "local");
      const [code] = (await once(third.child, "exit")) as [number | null];
      assert.equal(code, 0, third.output.err + third.output.out);
      const moved = JSON.parse(third.output.out) as MoveResult;
      assert.equal(moved.to, "local");
      await clients.untilAcknowledged(performance.now(), 30_000);
      await requireLinearizable(clients, [`raft to local at ${moved.index}, ${moved.leader} leads`]);
    } finally {
      await clients.stop();
      if (process.env["SHOW"] !== undefined) for (const node of masters.nodes) console.log(node.id, node.log);
    }
  });
});
