/** A majority that has lost its disks: what it forgot must not be decided anew without those who remember. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { isHeadpondError } from "../base/errors.ts";
import { connect } from "../client/client.ts";
import { withMasters } from "./cluster.ts";

/** Longer than any election or founding takes. */
const watchMs = 6000;

test("two of three masters whose disks were wiped elect nobody, and what was acknowledged is still there when a disk is back", {
  timeout: 180_000,
}, async () => {
  await withMasters(3, async ({ masters }) => {
    await using client = connect({ masters: masters.addresses });
    await Promise.all(Array.from({ length: 50 }, (_, n) => client.create(`/kept-${n}`)));
    await masters.settled();
    const [one, two, three] = masters.nodes;
    assert.ok(one !== undefined && two !== undefined && three !== undefined);

    await Promise.all(masters.nodes.map((node) => node.kill()));
    await masters.hide(two);
    await masters.wipe(three);
    // The wiped ones come first: alone they could be taken for a new cluster, together for a majority of the old one.
    await Promise.all([two, three].map((node) => masters.start(node)));
    await assert.rejects(masters.leader({ timeoutMs: watchMs }), /nobody leads/);
    await masters.start(one);
    await sleep(watchMs);
    await assert.rejects(masters.leader({ timeoutMs: 1 }), /nobody leads/);
    await assert.rejects(client.create("/forgotten", { timeoutMs: 3000 }), (error) => {
      assert.ok(isHeadpondError(error), String(error));
      return error.retryable && error.outcome === "none";
    });

    // The disk of one of them is found again: with it there is a majority that remembers.
    await two.kill();
    await masters.restore(two);
    await masters.start(two);
    await masters.leader();
    for (let n = 0; n < 50; n++) assert.equal((await client.stat(`/kept-${n}`)).kind, "file");
    await client.create("/after");
    await assert.rejects(client.stat("/forgotten"), { code: "not-found" });
  });
});
