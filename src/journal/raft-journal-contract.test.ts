import { test } from "node:test";
import { present } from "../base/assert.ts";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { RaftGroup } from "../testing/raft-group.ts";
import { RunningClock } from "../testing/running-clock.ts";
import { type JournalHarness, journalContract } from "./contract.ts";
import type { Role } from "./journal.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);
const random = new Random(seed);

/** All masters start and crash together; the one that is elected is the journal under test. */
async function harnessOf(ids: readonly string[]): Promise<JournalHarness> {
  const clock = new RunningClock();
  const limits = { logKeepBytes: 0, feed: { maxEntries: 64, maxBytes: 8 * KiB } };
  const group = new RaftGroup({ clock, random, ids, limits });
  for (const id of ids) await group.format(id);
  return {
    async open(onRole) {
      await group.closeAll();
      const roles = new Map<string, Role[]>();
      const chosen: { id?: string } = {};
      await Promise.all(
        ids.map((id) =>
          group.open(id, {
            onRole: (role) => {
              if (chosen.id === id) onRole?.(role);
              else roles.set(id, [...(roles.get(id) ?? []), role]);
            },
          }),
        ),
      );
      const { id, journal, machine } = await group.described();
      chosen.id = id;
      for (const role of present(roles.get(id), "the leader became one")) onRole?.(role);
      return { journal, machine };
    },
    async crash() {
      await Promise.all(ids.map((id) => group.kill(id, true)));
    },
    async dispose() {
      await group.closeAll();
      clock.stop();
    },
  };
}

for (const ids of [["m1"], ["m1", "m2", "m3"]]) {
  for (const { name, run } of journalContract(`raft journal of ${ids.length}`, () => harnessOf(ids), random)) {
    test(name, run);
  }
}
