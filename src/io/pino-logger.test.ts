/** What a log line says, what it hides, and that its level can be changed while it runs. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createLogger, type LeveledLogger, type PinoLoggerOptions } from "./pino-logger.ts";

type Line = Record<string, unknown>;

function capture(options: PinoLoggerOptions = {}): { logger: LeveledLogger; lines: () => Line[] } {
  const lines: string[] = [];
  const logger = createLogger({ ...options, write: (line) => lines.push(line) });
  return { logger, lines: () => lines.map((line) => JSON.parse(line) as Line) };
}

test("a line is one JSON object with time, level, message and the fields of all its ancestors", () => {
  const { logger, lines } = capture({ fields: { role: "worker" } });
  logger.child({ part: "cache" }).warn("the disk is full", { freeBytes: 0, objectKey: "models/a", big: 7n });
  const [line] = lines();
  assert.ok(!Number.isNaN(Date.parse(String(line?.["time"]))));
  delete line?.["time"];
  assert.deepEqual(line, {
    level: "warn",
    role: "worker",
    part: "cache",
    freeBytes: 0,
    objectKey: "models/a",
    big: "7",
    message: "the disk is full",
  });
});

test("fields that sound secret are replaced at any depth, in children, too", () => {
  const { logger, lines } = capture();
  logger.child({ accessKey: "AAA" }).info("mounted", {
    options: { secretAccessKey: "BBB", nested: [{ apiToken: "CCC", Authorization: "DDD" }] },
    password: "EEE",
    key: "FFF",
  });
  assert.doesNotMatch(JSON.stringify(lines()), /AAA|BBB|CCC|DDD|EEE|FFF/);
});

test("a change of level reaches children that exist already", () => {
  const { logger, lines } = capture({ level: "info" });
  const child = logger.child({ part: "a" });
  child.debug("unheard");
  logger.level = "debug";
  child.debug("heard");
  logger.level = "error";
  child.warn("unheard");
  assert.deepEqual(
    lines().map((line) => line["message"]),
    ["heard"],
  );
});

test("errors are spelt out with code and cause, and cycles end", () => {
  const { logger, lines } = capture();
  const cause = Object.assign(new Error("no room"), { code: "ENOSPC" });
  const loop: Record<string, unknown> = {};
  loop["self"] = loop;
  logger.error("write failed", { error: new Error("flush", { cause }), loop });
  const error = lines()[0]?.["error"] as { message: string; cause: { code: string } };
  assert.equal(error.message, "flush");
  assert.equal(error.cause.code, "ENOSPC");
});
