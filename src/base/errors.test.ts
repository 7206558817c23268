import assert from "node:assert/strict";
import { test } from "node:test";
import { errorFromDocument, errorTable, HeadpondError, isHeadpondError, toHeadpondError } from "./errors.ts";

test("an error survives the way over a wire", () => {
  const error = new HeadpondError("overloaded", "try later", { details: { retryAfterMs: 500 } });
  const copy = errorFromDocument(JSON.parse(JSON.stringify(error)));
  assert.deepEqual(copy.toJSON(), error.toJSON());
  assert.equal(copy.retryable, true);
});

test("an unknown outcome stays unknown over a wire and by its code", () => {
  assert.equal(new HeadpondError("unknown-outcome", "who knows").outcome, "unknown");
  const error = new HeadpondError("unavailable", "gone", { outcome: "unknown" });
  assert.equal(errorFromDocument(error.toJSON()).outcome, "unknown");
});

test("what is not an error document becomes internal", () => {
  for (const document of [undefined, null, {}, { code: "toString", message: 3 }, "text"]) {
    assert.equal(errorFromDocument(document).code, "internal");
  }
});

test("every throwable becomes an error with a code", () => {
  assert.equal(toHeadpondError("text").code, "internal");
  assert.equal(toHeadpondError(new DOMException("stop", "AbortError")).code, "cancelled");
  assert.equal(toHeadpondError(new DOMException("late", "TimeoutError")).code, "timeout");
  const own = new HeadpondError("corrupt", "bad");
  assert.equal(toHeadpondError(own), own);
});

test("each code has an exit code and a status that say failure", () => {
  for (const [code, traits] of Object.entries(errorTable)) {
    assert.ok(traits.exitCode >= 1 && traits.exitCode <= 7, code);
    assert.ok(traits.httpStatus >= 400 && traits.httpStatus < 600, code);
  }
  assert.ok(isHeadpondError(new HeadpondError("denied", "no"), "denied", "invalid"));
  assert.ok(!isHeadpondError(new Error("no")));
});
