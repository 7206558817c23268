import assert from "node:assert/strict";
import { test } from "node:test";
import { isHeadpondError } from "../base/errors.ts";
import { masterService } from "../rpc/master-service.ts";
import { TestMaster } from "./master.test-support.ts";

const methods = masterService.methods;

test("a master whose state differs from the others' is not ready, says why, and answers nothing from it", async () => {
  const master = await TestMaster.start();
  try {
    await master.client.call(methods.mkdir, { path: "/a" });
    assert.equal((await fetch(`${master.http}/readyz`)).status, 200);

    master.alarm = "the state of m1 differs from the others'";
    const ready = await fetch(`${master.http}/readyz`);
    assert.equal(ready.status, 503);
    assert.match(await ready.text(), /^the state of m1 differs/);
    const isRefused = (error: unknown): boolean =>
      isHeadpondError(error, "unavailable") && /differs from the others/.test(error.message);
    for (const consistency of ["linearizable", "stale", "local"] as const) {
      await assert.rejects(master.client.call(methods.stat, { path: "/a", consistency }), isRefused, consistency);
    }
    const status = await master.client.call(methods.clusterStatus, {});
    assert.equal(status.masters.length, 1, "how it is can still be asked");
    assert.equal((await fetch(`${master.http}/api/v1/members`)).status, 200);
    assert.match(await (await fetch(`${master.http}/`)).text(), /Not ready: the state of m1 differs/);
  } finally {
    master.alarm = undefined;
    await master.close();
  }
});
