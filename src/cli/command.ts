/** What the files of this folder share to add a command: where it goes, and how it is run. */

import type { Command } from "commander";
import { errorTable, toHeadpondError } from "../base/errors.ts";
import { Context, withCommonFlags } from "./context.ts";

/** Where the files of this folder add their commands. */
export type Commands = { readonly program: Command; readonly fs: Command; readonly signal: AbortSignal };

/** Wraps an action: makes its context, prints its error, sets the exit code, closes what it opened. */
export function action<Args extends readonly unknown[]>(
  signal: AbortSignal,
  run: (context: Context, flags: Readonly<Record<string, unknown>>, ...args: Args) => Promise<number | undefined>,
): (...words: readonly unknown[]) => Promise<void> {
  return async (...words) => {
    const command = words[words.length - 1] as Command;
    const args = words.slice(0, -2) as unknown as Args;
    const context = new Context(command.optsWithGlobals(), signal);
    try {
      process.exitCode = (await run(context, command.optsWithGlobals(), ...args)) ?? 0;
    } catch (error) {
      context.output.error(error);
      if (context.flags.verbose === true && error instanceof Error) context.output.note(String(error.stack));
      process.exitCode = exitCodeOf(error);
    } finally {
      await context.close();
    }
  };
}

export function exitCodeOf(error: unknown): number {
  const known = toHeadpondError(error);
  return known.outcome === "unknown" ? errorTable["unknown-outcome"].exitCode : errorTable[known.code].exitCode;
}

/**
 * A command with the common flags and an example in its help; `isDefault`: what its group does when no verb is given; `isCluster`: it
 * starts masters and is not told where they are.
 */
export function leaf(
  parent: Command,
  usage: string,
  description: string,
  example: string,
  options: { readonly isDefault?: boolean; readonly isCluster?: boolean } = {},
): Command {
  const { isDefault, isCluster = false } = options;
  const command = parent.command(usage, isDefault === undefined ? {} : { isDefault }).description(description);
  return withCommonFlags(command, { asksMasters: !isCluster }).addHelpText("after", `\nExample:\n  ${example}\n`);
}
