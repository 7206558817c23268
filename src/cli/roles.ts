/** `master` and `worker`: one role from a configuration file, until it is told to stop. */

import type { Config } from "../base/config.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";
import type { Served } from "./serve.ts";

export function addRoles({ program, signal }: Commands): void {
  leaf(program, "master", "run a master", "headpond master --config headpond.yaml").action(
    action(signal, async (context) =>
      serveRole(context, context.loadConfig().config, async (config) => {
        const { makeDoors, serveMaster } = await loadRoles();
        return serveMaster(config, makeDoors(config));
      }),
    ),
  );
  leaf(program, "worker", "run a worker with its gateways", "headpond worker --config headpond.yaml").action(
    action(signal, async (context) =>
      serveRole(context, context.loadConfig().config, async (config) => {
        const { makeDoors, serveWorker } = await loadRoles();
        return serveWorker(config, makeDoors(config));
      }),
    ),
  );
}

/** The code of the roles, with all its libraries, is loaded only by the commands that need it: `fs ls` starts sooner. */
export async function loadRoles(): Promise<
  typeof import("./serve.ts") & typeof import("./serve-master.ts") & typeof import("./serve-worker.ts")
> {
  return {
    ...(await import("./serve.ts")),
    ...(await import("./serve-master.ts")),
    ...(await import("./serve-worker.ts")),
  };
}

/** Starts, prints the ready line, waits for the signal, ends in order. */
async function serveRole(
  context: Context,
  config: Config,
  start: (config: Config) => Promise<Served>,
): Promise<number> {
  const served = await start(config);
  announce(context, served);
  await untilAborted(context.signal);
  await served.close();
  return 0;
}

/** The ready line (surface.md): the first one on stdout, JSON with `--json`. */
export function announce(context: Context, served: Served): void {
  const { masters, endpoints, workers, directory } = served;
  const document = { event: "ready", masters, endpoints, workers, dir: directory };
  context.output.result(document, () => {
    context.output.facts([
      ...(masters.length === 0 ? [] : [["masters", masters.join(", ")] as const]),
      ...Object.entries(endpoints).filter(([name]) => name !== "rpc"),
      ...workers.map((worker) => ["worker", `${worker.id} at ${worker.place}, ${worker.http}`] as const),
      ["files in", directory],
    ]);
    context.output.line("ready; Ctrl-C stops");
  });
}

export function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) done();
    else signal.addEventListener("abort", () => done(), { once: true });
  });
}
