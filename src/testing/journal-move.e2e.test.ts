/**
 * Moves of a running cluster from one journal to another (docs/migration.md), on real processes, with clients at work all the time: nothing that
 * was acknowledged is lost, their history is linearizable, and whoever is killed finds the way.
 */

import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { freePortBlock, type StartedRole, startConfiguredRole } from "../cli/role-process.ts";
import { HistoryClients } from "./history-clients.ts";
import { move, pausesText, requireLinearizable } from "./journal-move.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);

test("one master goes from the local journal to Raft, back and again while clients work, and is killed in between", {
  timeout: 240_000,
}, async () => {
  const directory = await mkdtemp(join(tmpdir(), "headpond-move-"));
  const port = await freePortBlock(3);
  const rpc = `127.0.0.1:${port}`;
  const journal = `127.0.0.1:${port + 2}`;
  const start = (type: string): Promise<StartedRole> =>
    startConfiguredRole("m1", "master", directory, {
      master: { id: "m1", dir: join(directory, "m1"), rpc, http: `127.0.0.1:${port + 1}` },
      journal: { type, raft: { listen: journal } },
    });
  let role = await start("local");
  let clients: HistoryClients | undefined;
  try {
    clients = await HistoryClients.start({ masters: [rpc], ids: ["m1"], random: new Random(seed) });
    const pauses: string[] = [];
    for (const to of ["raft", "local", "raft"]) {
      await clients.untilAcknowledged(performance.now(), 30_000);
      const sinceMs = performance.now();
      const moved = await move([rpc], to, to === "raft" ? [["m1", journal]] : []);
      assert.equal(moved.to, to);
      await clients.untilAcknowledged(performance.now(), 30_000);
      pauses.push(pausesText(moved, clients.longestGapMs(sinceMs)));
    }
    // The configuration is still that of before the last move: the directory knows better.
    await role.process.stop("SIGKILL");
    role = await start("local");
    assert.match(role.process.log, /the configuration is older than the last move/);
    await clients.untilAcknowledged(performance.now(), 30_000);
    const names = await readdir(join(directory, "m1"));
    assert.deepEqual(
      names.filter((name) => name.startsWith("journal")),
      ["journal"],
    );
    await role.process.stop("SIGTERM");
    role = await start("raft");
    assert.doesNotMatch(role.process.log, /the configuration is older/);
    await clients.untilAcknowledged(performance.now(), 30_000);
    await requireLinearizable(clients, pauses);
  } finally {
    await clients?.stop();
    await role.process.stop("SIGKILL");
    await rm(directory, { recursive: true, force: true });
  }
});
