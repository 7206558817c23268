/** `cluster drain`: empties a worker before it goes, so that what is whole on it only is on another one first. */

import type { Command } from "commander";
import type { DrainStatus } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import { formatBytes } from "../base/units.ts";
import { action, leaf } from "./command.ts";
import type { Context } from "./context.ts";

const pollMs = 300;

export function addDrain(cluster: Command, signal: AbortSignal): void {
  leaf(
    cluster,
    "drain <worker>",
    "copy what is whole on a worker only to others, and bring nothing new to it",
    "headpond cluster drain gpu-17",
  )
    .option("--cancel", "let it be filled again")
    .option("--detach", "do not wait until it is drained")
    .action(
      action<[string]>(signal, async (context, flags, worker) => {
        const begun = await context.client().drain(worker, { cancel: flags["cancel"] === true, signal });
        const waits = flags["cancel"] !== true && flags["detach"] !== true;
        const status = waits ? await untilDrained(context, begun) : begun;
        context.output.result(status, () => show(context, status));
        return 0;
      }),
    );
}

/** Says now and then how far it is. Throws `unavailable` when the worker goes before it is drained. */
async function untilDrained(context: Context, begun: DrainStatus): Promise<DrainStatus> {
  let status = begun;
  let told = "";
  while (status.state === "draining") {
    const problems = status.problems.join("; ");
    const text =
      `${status.worker}: ${status.files} files (${formatBytes(status.bytes)}) are whole on it only` +
      `${problems === "" ? "" : `; ${problems}`}`;
    if (text !== told) context.output.note(text);
    told = text;
    await context.clock.sleep(pollMs, context.signal);
    const drains = await context.client().drains({ signal: context.signal });
    status = drains.find(({ worker }) => worker === status.worker) ?? { ...status, state: "live" };
  }
  if (status.state === "away") {
    throw new HeadpondError(
      "unavailable",
      `${status.worker} cannot be reached, and may hold what no other worker has: bring it back, or take the drain back by --cancel`,
    );
  }
  return status;
}

function show(context: Context, { worker, state, files, bytes }: DrainStatus): void {
  const { output } = context;
  if (state === "drained") output.line(`${worker} is drained: nothing is lost when it is stopped`);
  else if (state === "live") output.line(`${worker} is not drained (any more): it is filled as all others`);
  else output.line(`${worker} is ${state}: ${files} files (${formatBytes(bytes)}) are whole on it only`);
}
