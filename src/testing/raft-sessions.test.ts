import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import type { ClusterId, SessionId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { silentLogger } from "../io/logger.ts";
import { MemoryDisk } from "../io/memory-disk.ts";
import { Metrics } from "../io/metrics.ts";
import { formatJournal } from "../journal/format.ts";
import { RaftJournal } from "../journal/raft-journal.ts";
import { defaultWalLimits } from "../journal/wal.ts";
import type { Command, CommandResult } from "../namespace/command.ts";
import { encodeCommand } from "../namespace/command-codec.ts";
import { MemoryStore } from "../namespace/memory-store.ts";
import { Namespace } from "../namespace/namespace.ts";
import { MemoryPeerNetwork } from "./memory-peers.ts";
import { quickRaft } from "./raft-group.ts";
import { RunningClock } from "./running-clock.ts";

const ids = ["m1", "m2", "m3"];

type Life = { readonly id: string; readonly journal: RaftJournal<CommandResult>; readonly namespace: Namespace };

async function start(clock: RunningClock, network: MemoryPeerNetwork): Promise<Life[]> {
  const clusterId = "sessions" as ClusterId;
  const founders = Object.fromEntries(ids.map((id) => [id, `${id}:1`]));
  const segmentBytes = 64 * KiB;
  const lives: Life[] = [];
  for (const [at, id] of ids.entries()) {
    const disk = new MemoryDisk();
    const raft = { id, incarnation: `disk-${at}`, founders };
    await formatJournal({ disk, clock, directory: "/journal", clusterId, segmentBytes, raft });
    const namespace = new Namespace({ store: new MemoryStore() });
    const journal = new RaftJournal<CommandResult>({
      disk,
      clock,
      logger: silentLogger,
      metrics: new Metrics(),
      directory: "/journal",
      id,
      machine: namespace,
      peers: network.peers({ disk, directory: "/journal/incoming" }),
      random: new Random(at),
      addresses: () => ({ rpc: `${id}:7070`, http: `${id}:7071` }),
      limits: { raft: quickRaft, wal: { ...defaultWalLimits, segmentBytes, reserveBytes: 0 } },
      onFatal: (error) => assert.fail(error),
    });
    await journal.start();
    lives.push({ id, journal, namespace });
  }
  return lives;
}

async function leaderOf(lives: readonly Life[], clock: RunningClock, but?: Life): Promise<Life> {
  for (let n = 0; n < 5000; n++) {
    const leader = lives.find((life) => life !== but && life.journal.role === "leader");
    if (leader !== undefined) return leader;
    await clock.sleep(2);
  }
  throw new Error("nobody leads");
}

for (const [what, reaches] of [
  ["applied after all", true],
  ["lost", false],
] as const) {
  test(`hazard 30: a command of unknown outcome that was ${what} is retried under its sequence, and takes effect once`, async () => {
    const clock = new RunningClock();
    const network = new MemoryPeerNetwork({ clock });
    const lives = await start(clock, network);
    try {
      const first = await leaderOf(lives, clock);
      let timeMs = 1000;
      const run = async ({ journal }: Life, command: Command): Promise<CommandResult> => {
        const { result } = await journal.propose(encodeCommand({ ...command, timeMs: timeMs++ }));
        return result;
      };
      const opened = await run(first, { timeMs, kind: "open-session", timeoutMs: 60_000, client: "test" });
      const { sessionId } = opened as { readonly sessionId: SessionId };
      const create: Command = {
        timeMs,
        kind: "create",
        path: "/once" as Path,
        exclusive: true,
        recursive: false,
        forWriting: false,
        mode: 0o644,
        owner: "u",
        group: "g",
        attributes: {},
        origin: { sessionId, sequence: 1, acknowledged: 0 },
      };
      // The entry gets to the others, their answers do not get back; or it does not get anywhere.
      for (const id of ids) {
        if (id === first.id) continue;
        network.cut(id, first.id);
        if (!reaches) network.cut(first.id, id);
      }
      await assert.rejects(run(first, create), (error) => isHeadpondError(error, "unknown-outcome"));
      const next = await leaderOf(lives, clock, first);
      await next.journal.readBarrier();
      const isThere = (life: Life): boolean => {
        try {
          life.namespace.stat("/once" as Path);
          return true;
        } catch {
          return false;
        }
      };
      assert.equal(isThere(next), reaches);
      const retried = await run(next, create);
      assert.equal((retried as { ok: boolean }).ok, true, JSON.stringify(retried));
      assert.equal((retried as { created?: boolean }).created, true, JSON.stringify(retried));
      // A command of its own would find the file.
      const other: Command = { ...create, origin: { sessionId, sequence: 2, acknowledged: 1 } };
      assert.equal(((await run(next, other)) as { ok: boolean }).ok, false);
      network.heal();
      for (let n = 0; n < 1000 && !isThere(first); n++) await clock.sleep(5);
      assert.equal(first.namespace.stat("/once" as Path).inodeId, next.namespace.stat("/once" as Path).inodeId);
    } finally {
      await Promise.all(lives.map(({ journal }) => journal.close()));
      clock.stop();
    }
  });
}
