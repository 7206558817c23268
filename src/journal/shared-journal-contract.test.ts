import { test } from "node:test";
import { Random } from "../base/random.ts";
import { KiB } from "../base/units.ts";
import { RunningClock } from "../testing/running-clock.ts";
import { SharedGroup } from "../testing/shared-group.ts";
import { type JournalHarness, journalContract } from "./contract.ts";
import type { Role } from "./journal.ts";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
console.log(`seed ${seed}`);
const random = new Random(seed);

/** All masters start and crash together; the one that comes to lead is the journal under test. */
async function harnessOf(ids: readonly string[]): Promise<JournalHarness> {
  const clock = new RunningClock();
  const group = new SharedGroup({
    clock,
    random,
    ids,
    limits: { feed: { maxEntries: 64, maxBytes: 8 * KiB }, slotEntriesMax: 50, slotBytesMax: 16 * KiB },
  });
  for (const id of ids) await group.format(id);
  return {
    async open(onRole) {
      await group.closeAll();
      const roles = new Map<string, Role[]>();
      const chosen: { id?: string } = {};
      await Promise.all(
        ids.map((id) =>
          group.open(id, {
            bootId: `boot ${random.uint32()}`,
            onRole: (role) => {
              if (chosen.id === id) onRole?.(role);
              else roles.set(id, [...(roles.get(id) ?? []), role]);
            },
          }),
        ),
      );
      const { id, journal, machine } = await group.leader();
      chosen.id = id;
      for (const role of roles.get(id) ?? []) onRole?.(role);
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
  for (const { name, run } of journalContract(`shared journal of ${ids.length}`, () => harnessOf(ids), random)) {
    test(name, run);
  }
}
