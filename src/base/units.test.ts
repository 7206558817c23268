import assert from "node:assert/strict";
import { test } from "node:test";
import { formatBytes, formatDuration, MiB, parseDurationMs, parseSizeBytes, TiB } from "./units.ts";

test("sizes are read in powers of two and of ten", () => {
  assert.equal(parseSizeBytes("3TiB"), 3 * TiB);
  assert.equal(parseSizeBytes("1.5MiB"), 1.5 * MiB);
  assert.equal(parseSizeBytes("10GB"), 10e9);
  assert.equal(parseSizeBytes(4096), 4096);
  for (const wrong of ["", "3 Tib", "-1MiB", "1e3", "MiB", "10 parsecs", "9007199254740993PiB"]) {
    assert.throws(() => parseSizeBytes(wrong), /is not a size/, wrong);
  }
});

test("a duration without a unit is refused, because its unit would be a guess", () => {
  assert.equal(parseDurationMs("300ms"), 300);
  assert.equal(parseDurationMs("1.5h"), 5_400_000);
  assert.equal(parseDurationMs(0), 0);
  assert.throws(() => parseDurationMs(30), /no unit of time/);
  assert.throws(() => parseDurationMs("30"), /no unit of time/);
  assert.throws(() => parseDurationMs("5 minutes"), /is not a duration/);
});

test("bytes and durations read well", () => {
  assert.equal(formatBytes(0), "0 B");
  assert.equal(formatBytes(1536 * MiB), "1.5 GiB");
  assert.equal(formatBytes(1023), "1023 B");
  assert.equal(formatDuration(420), "420 ms");
  assert.equal(formatDuration(83_000), "1m 23s");
  assert.equal(formatDuration(90_000_000), "1d 1h");
});
