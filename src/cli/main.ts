/** The command line: runs the command tree and turns whatever happens into an exit code (surface.md). */

import { CommanderError } from "commander";
import { HeadpondError } from "../base/errors.ts";
import { buildProgram } from "./program.ts";

const usageExitCode = 2;

async function main(argv: readonly string[]): Promise<void> {
  const abort = new AbortController();
  let interrupts = 0;
  const onSignal = (): void => {
    interrupts++;
    if (interrupts > 1) process.exit(130);
    abort.abort(new HeadpondError("cancelled", "interrupted"));
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  // A reader that has seen enough (`headpond fs ls | head`) is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));
  try {
    await buildProgram(abort.signal).parseAsync([...argv]);
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    process.exitCode = error.exitCode === 0 ? 0 : usageExitCode;
    // The usage itself went to stderr; who parses JSON gets the error as a document.
    if (error.exitCode !== 0 && argv.includes("--json")) {
      process.stdout.write(`${JSON.stringify(new HeadpondError("invalid", error.message))}\n`);
    }
  }
  process.off("SIGINT", onSignal);
  process.off("SIGTERM", onSignal);
}

await main(process.argv);
