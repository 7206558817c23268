/** Joining where the log does not reach back any more. Real processes, a log of more than one segment. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../client/client.ts";
import { withMasters } from "../testing/cluster.ts";

test("a master joins a cluster whose log was cut: by a checkpoint, then by the log", { timeout: 240_000 }, async () => {
  await withMasters(
    3,
    async ({ masters }) => {
      await using client = connect({ masters: masters.addresses });
      // One inode that changes: the log fills two segments, the state stays small.
      const set = Object.fromEntries(Array.from({ length: 15 }, (_, i) => [`k${i}`, String(i % 10).repeat(4000)]));
      await client.create("/changing");
      for (let round = 0; round < 23; round++) {
        const changes = Array.from({ length: 100 }, (_, i) => ({ set: { ...set, n: `${round}-${i}` } }));
        await Promise.all(changes.map((change) => client.setAttributes("/changing", change)));
      }
      await masters.settled();
      for (const node of masters.nodes) {
        const own = connect({ masters: [node.rpc], follow: false });
        // The log is cut behind the older of two checkpoints.
        for (let made = 0; made < 2; made++) {
          await own.journalCheckpoint();
          await client.create(`/between-${node.id}-${made}`);
          // A standby hears of it a moment later, and makes no second checkpoint of the same state.
          await masters.settled();
        }
        const { firstIndex } = await own.journalStatus();
        assert.ok(firstIndex > 1000, `the log of ${node.id} begins at ${firstIndex}`);
        await own.close();
      }
      const joined = await masters.join();
      assert.match(joined.log, /the state is a checkpoint of the leader/);
      await client.create("/after");
      await masters.settled();
    },
    { raft: { logKeep: "1MiB" } },
  );
});
