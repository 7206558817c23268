/** How one gate is run and what comes of it: `{ passed, failed, skipped: [{ name, reason }] }`. */

import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { resultMark } from "./test-reporter.mjs";

/** How long after the last possible timeout of a test its file may live on. */
const silenceGraceMs = 5000;

const reporterPath = fileURLToPath(new URL("./test-reporter.mjs", import.meta.url));

/** A program that holds if it ends with 0: it counts as one. */
export async function runProgram({ command, args, cwd, env }) {
  const status = await spawned(command, args, { cwd, env, onLine: undefined });
  return { passed: status === 0 ? 1 : 0, failed: status === 0 ? 0 : 1, skipped: [] };
}

/** Test files, run by node's test runner, `concurrency` files at a time. `timeoutMs` is for a test and for a whole file. */
export async function runTests({ node, files, concurrency, timeoutMs, cwd, env }) {
  let result;
  const args = [
    "--test",
    `--test-concurrency=${concurrency}`,
    `--test-timeout=${timeoutMs}`,
    `--test-reporter=${reporterPath}`,
    "--test-reporter-destination=stdout",
    ...files,
  ];
  let stuck = false;
  const status = await spawned(node, args, {
    cwd,
    env,
    silenceMsMax: timeoutMs + silenceGraceMs,
    onStuck: () => {
      stuck = true;
      console.log(`\nno test has ended for ${(timeoutMs + silenceGraceMs) / 1000} s: a file keeps its process alive`);
    },
    onLine: (line) => {
      const at = line.indexOf(resultMark);
      if (at === -1) return `${line}\n`;
      result = JSON.parse(line.slice(at + resultMark.length));
      return line.slice(0, at);
    },
  });
  const { passed, failed, skipped, ended } = result ?? { passed: 0, failed: 0, skipped: [], ended: false };
  if (!ended && !stuck) console.log(`the test runner ended with ${status} before its last test`);
  // A runner that fails without a failed test has found something that no test owns, e.g. an error after the last one.
  const itself = !ended || stuck || (status !== 0 && failed === 0);
  return { passed, failed: failed + (itself ? 1 : 0), skipped };
}

/** Every file under `directory` whose path `matches`, sorted; none if the directory is absent. */
export function findFiles(root, directory, matches) {
  let entries;
  try {
    entries = readdirSync(join(root, directory), { withFileTypes: true, recursive: true });
  } catch {
    return [];
  }
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length + 1))
    .filter(matches)
    .sort();
}

/**
 * Runs a program with its output on ours, as `onLine` passes it on. Resolves with its status. If nothing is heard of it for `silenceMsMax`, it is asked to end, then made to.
 */
function spawned(command, args, { cwd, env, onLine, silenceMsMax, onStuck }) {
  return new Promise((resolve) => {
    const stdout = onLine === undefined ? "inherit" : "pipe";
    const child = spawn(command, args, { cwd, env, stdio: ["ignore", stdout, "inherit"] });
    let watch;
    const heard = () => {
      clearTimeout(watch);
      if (silenceMsMax === undefined) return;
      watch = setTimeout(() => {
        onStuck();
        child.kill("SIGTERM");
        watch = setTimeout(() => child.kill("SIGKILL"), silenceGraceMs);
      }, silenceMsMax);
    };
    heard();
    let held = "";
    child.stdout?.setEncoding("utf8");
    child.stdout?.on("data", (text) => {
      heard();
      const lines = (held + text).split("\n");
      held = lines.pop() ?? "";
      for (const line of lines) process.stdout.write(onLine(line));
    });
    child.on("error", (error) => {
      console.log(`cannot run ${command}: ${error.message}`);
      clearTimeout(watch);
      resolve(127);
    });
    child.on("close", (code, signal) => {
      clearTimeout(watch);
      if (held !== "") process.stdout.write(held);
      resolve(code ?? signal);
    });
  });
}
