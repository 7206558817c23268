/** `node scripts/run.mjs FILE ARGS...`: installs what is missing, then runs a TypeScript file with the pinned Node. */

import { spawn } from "node:child_process";
import { constants } from "node:os";
import { pathToFileURL } from "node:url";
import { projectEnvironment, root, setup } from "./setup.mjs";

/** Runs `file` (relative to the repository) and ends as it ended. Signals reach it as they reach us. */
export function run(file, args) {
  const child = spawn(setup(), [file, ...args], { cwd: root, stdio: "inherit", env: projectEnvironment() });
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  // The terminal sends it to the child, too: we only wait for what the child makes of it.
  process.on("SIGINT", () => {});
  child.on("error", (error) => {
    console.error(`cannot run ${file}: ${error.message}`);
    process.exit(1);
  });
  child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [file, ...args] = process.argv.slice(2);
  if (file === undefined) {
    console.error("usage: node scripts/run.mjs FILE ARGS...");
    process.exit(2);
  }
  run(file, args);
}
