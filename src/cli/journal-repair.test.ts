import assert from "node:assert/strict";
import { test } from "node:test";
import type { MasterStatus } from "../base/cluster.ts";
import { parseMasterId } from "../base/ids.ts";
import { compareDigests } from "./journal-repair.ts";

function master(id: string, digest: string, digestIndex: number, appliedIndex = 900): MasterStatus {
  const address = "127.0.0.1:1";
  return {
    id: parseMasterId(id),
    address,
    role: "standby",
    appliedIndex,
    digest,
    digestIndex,
    lagEntries: 0,
    voter: true,
  };
}

test("digests of different entries are no difference, however far the masters are", () => {
  assert.equal(compareDigests([master("m1", "aa", 900), master("m2", "bb", 800)]).verdict, "unknown");
});

test("a master without a digest leaves it open whether all are the same", () => {
  assert.equal(compareDigests([master("m1", "aa", 900), master("m2", "", 0)]).verdict, "unknown");
});

test("equal digests at one entry are the same, and one that differs there is found", () => {
  const two = [master("m1", "aa", 900), master("m2", "aa", 900, 950)];
  assert.equal(compareDigests(two).verdict, "same");
  assert.equal(compareDigests([...two, master("m3", "bb", 900)]).verdict, "different");
});
