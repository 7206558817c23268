/** What tests of moves between journals share: the command that moves, and what is asked of the clients' history afterwards. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { headpondBin } from "../cli/role-process.ts";
import type { HistoryClients } from "./history-clients.ts";

const run = promisify(execFile);

export type MoveResult = {
  readonly move: string;
  readonly from: string;
  readonly to: string;
  readonly index: number;
  readonly digest: string;
  readonly leader: string;
  readonly masters: readonly string[];
};

/** Runs `headpond ARGS`; rejects with what it printed when it fails. */
export async function headpond(...args: readonly string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [headpondBin, ...args], { timeout: 120_000 });
  return stdout;
}

/** `headpond journal migrate`. `members`: ids and addresses of their journals. */
export async function move(
  masters: readonly string[],
  to: string,
  members: readonly (readonly [id: string, address: string])[],
  more: readonly string[] = [],
): Promise<MoveResult> {
  const words = [...members.flatMap(([id, address]) => ["--member", `${id}=${address}`]), ...more];
  const text = await headpond("journal", "migrate", "--to", to, ...words, "--masters", masters.join(","), "--json");
  return JSON.parse(text) as MoveResult;
}

export function pausesText({ from, to, index }: MoveResult, pauseMs: number): string {
  return `${from} to ${to} at ${index}: longest pause ${Math.round(pauseMs)} ms`;
}

/** Ends the clients' work. */
export async function requireLinearizable(clients: HistoryClients, notes: readonly string[]): Promise<void> {
  await clients.stop();
  const verdict = clients.check();
  const { returned, refused, unknown } = clients.counts;
  console.log(`${notes.join("; ")}; ${returned} calls answered, ${refused} refused, ${unknown} unknown`);
  assert.deepEqual(clients.violations, []);
  assert.equal(verdict.kind, "linearizable", JSON.stringify(verdict));
}
