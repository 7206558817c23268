/**
 * A reporter for node:test that says little while things go well: a dot per test, everything about a failure, what a
 * failing file printed (seeds!), and the counts so far as JSON, for `gates.mjs`, which takes that out again.
 */

import { resolve } from "node:path";
import { inspect } from "node:util";

/** Begins the counts, which end the line. */
export const resultMark = "@@gate-result ";
const dotsPerLine = 100;

export default async function* reporter(events) {
  const result = { passed: 0, failed: 0, skipped: [], ended: false };
  // After every test, because the runner may not live to say it at the end.
  const soFar = () => `${resultMark}${JSON.stringify(result)}\n`;
  const printed = new Map();
  const failedFiles = new Set();
  const filesWithTests = new Set();
  let dots = 0;
  for await (const { type, data } of events) {
    if (type === "test:stdout" || type === "test:stderr") {
      const before = printed.get(data.file) ?? "";
      // Enough for seeds and last words; a file that floods its output does not fill our memory.
      printed.set(data.file, (before + data.message).slice(-20_000));
      continue;
    }
    if (type !== "test:pass" && type !== "test:fail") continue;
    if (data.details?.type === "suite" && type === "test:pass") continue;
    // A failing suite repeats the failures of its tests, unless it failed by itself.
    if (data.details?.type === "suite" && data.details.error?.failureType === "subtestsFailed") continue;
    const isFile = data.file !== undefined && resolve(data.name) === data.file;
    if (!isFile) filesWithTests.add(data.file);
    if (data.skip !== undefined || data.todo !== undefined) {
      const why = data.skip ?? data.todo;
      result.skipped.push({ name: data.name, reason: why === true || why === "" ? "no reason given" : String(why) });
    } else if (type === "test:fail") {
      // The file that holds failing tests fails, too: that is not one more.
      if (isFile && failedFiles.has(data.file) && filesWithTests.has(data.file)) continue;
      if (data.details?.error?.failureType === "subtestsFailed" && !isFile) continue;
      result.failed++;
      failedFiles.add(data.file);
      yield `${dots > 0 ? "\n" : ""}✖ ${data.name}\n  ${relative(data.file)}${data.line === undefined ? "" : `:${data.line}`}\n`;
      yield `${indent(errorText(data.details?.error))}\n${soFar()}`;
      dots = 0;
    } else if (isFile) {
      if (filesWithTests.has(data.file)) continue;
      result.failed++;
      yield `${dots > 0 ? "\n" : ""}✖ ${relative(data.file)}: there is no test in it\n`;
      dots = 0;
    } else {
      result.passed++;
      yield `.${++dots % dotsPerLine === 0 ? "\n" : ""}${soFar()}`;
    }
  }
  if (dots % dotsPerLine !== 0) yield "\n";
  for (const file of failedFiles) {
    if (printed.has(file)) yield `${relative(file)} printed:\n${indent(printed.get(file).trimEnd())}\n`;
  }
  result.ended = true;
  yield soFar();
}

function errorText(error) {
  const cause = error?.cause ?? error;
  return cause instanceof Error ? (cause.stack ?? cause.message) : inspect(cause);
}

function relative(file) {
  return file?.startsWith(`${process.cwd()}/`) ? file.slice(process.cwd().length + 1) : (file ?? "");
}

function indent(text) {
  return text.replaceAll(/^/gm, "    ");
}
