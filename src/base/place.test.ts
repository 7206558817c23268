import assert from "node:assert/strict";
import { test } from "node:test";
import { egressDomain, matchesPlace, nearness, parsePlace, parsePlaceSelector } from "./place.ts";

const gpu = parsePlace("gcp/us-central1/a/gpu-17");

test("a place has four parts; the first two are its egress domain", () => {
  assert.equal(egressDomain(gpu), "gcp/us-central1");
  for (const wrong of ["", "gcp", "a/b/c", "a/b/c/d/e", "a//c/d", "a/b/c/d e"]) {
    assert.throws(() => parsePlace(wrong), /cloud\/region\/zone\/host/);
  }
});

test("nearness counts shared leading parts", () => {
  assert.equal(nearness(gpu, gpu), 4);
  assert.equal(nearness(gpu, parsePlace("gcp/us-central1/a/gpu-18")), 3);
  assert.equal(nearness(gpu, parsePlace("gcp/eu-west1/a/gpu-17")), 1);
  assert.equal(nearness(gpu, parsePlace("aws/us-central1/a/gpu-17")), 0);
});

test("selectors choose all, a number, or matching parts", () => {
  assert.deepEqual(parsePlaceSelector("all"), { kind: "all" });
  assert.deepEqual(parsePlaceSelector("12"), { kind: "count", count: 12 });
  assert.ok(matchesPlace(gpu, parsePlaceSelector("zone=a,cloud=gcp")));
  assert.ok(!matchesPlace(gpu, parsePlaceSelector("zone=b")));
  for (const wrong of ["", "0", "zone", "zone=", "planet=mars", "zone=a=b"]) {
    assert.throws(() => parsePlaceSelector(wrong), /selects no places/, wrong);
  }
});
