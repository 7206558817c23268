import assert from "node:assert/strict";
import { test } from "node:test";
import type { WorkerAddress } from "../base/cluster.ts";
import type { FileVersionId, WorkerId } from "../base/ids.ts";
import type { Place } from "../base/place.ts";
import { candidatesMax, chooseWorkers } from "./worker-choice.ts";

const place = "c/r/z/me" as Place;

function worker(id: string, at: string): WorkerAddress {
  return { id: id as WorkerId, place: at as Place, data: `${id}:1`, http: "", gateways: {} };
}

function order(request: {
  readonly workers: readonly WorkerAddress[];
  readonly holders?: readonly string[];
  readonly preferred?: string;
  readonly avoided?: readonly string[];
  readonly file?: string;
}): readonly string[] {
  return chooseWorkers({
    file: (request.file ?? "7-1") as FileVersionId,
    holders: (request.holders ?? []) as WorkerId[],
    workers: request.workers,
    place,
    preferred: request.preferred as WorkerId | undefined,
    isAvoided: (id) => request.avoided?.includes(id) ?? false,
  }).map(({ id }) => id);
}

const mine = worker("mine", "c/r/z/me");
const near = worker("near", "c/r/z/other");
const region = worker("region", "c/r/z2/other");
const far = worker("far", "d/r/z/other");
const all = [far, region, near, mine];

test("the own host comes first, then holders by nearness, then the others by nearness", () => {
  assert.deepEqual(order({ workers: all }), ["mine", "near", "region", "far"]);
  assert.deepEqual(order({ workers: all, holders: ["far"] }), ["mine", "far", "near", "region"]);
  assert.deepEqual(order({ workers: all, holders: ["far", "region"] }), ["mine", "region", "far", "near"]);
});

test("a preferred worker comes before all, one that just failed after all", () => {
  assert.deepEqual(order({ workers: all, preferred: "far" })[0], "far");
  assert.deepEqual(order({ workers: all, avoided: ["mine"] }), ["near", "region", "far", "mine"]);
});

test("equal workers are asked in an order that differs by file and never by reader", () => {
  const equals = ["a", "b", "c", "d"].map((id) => worker(id, "c/r/z/x"));
  assert.deepEqual(order({ workers: equals }), order({ workers: equals.toReversed() }));
  const firsts = new Set(Array.from({ length: 50 }, (_, n) => order({ workers: equals, file: `${n + 1}-1` })[0]));
  assert.equal(firsts.size, 4);
});

test("of very many workers only a few are asked", () => {
  const many = Array.from({ length: 100 }, (_, n) => worker(`w${n}`, "c/r/z/x"));
  assert.equal(order({ workers: many }).length, candidatesMax);
  assert.deepEqual(order({ workers: [] }), []);
});
