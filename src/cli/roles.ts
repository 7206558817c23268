/** `master` and `worker`: one role from a configuration file, until it is told to stop. */

import type { Config } from "../base/config.ts";
import { type ErrorCode, HeadpondError } from "../base/errors.ts";
import { parseMasterId } from "../base/ids.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";
import type { JoinOptions } from "./joining.ts";
import type { Served } from "./serve.ts";

export function addRoles({ program, signal }: Commands): void {
  leaf(program, "master", "run a master", "headpond master --config headpond.yaml")
    .option("--join <addresses>", "become a member of the cluster of these masters (host:port, comma separated)")
    .option("--replace <id>", "with --join: a dead master that goes out in the same breath")
    .option("--learner", "with --join: receive the log, but do not vote")
    .action(
      action(signal, async (context, flags) =>
        serveRole(context, context.loadConfig().config, async (config) => {
          const { makeDoors, serveMaster } = await loadRoles();
          return serveMaster(config, makeDoors(config), { join: joinOptions(flags, signal) });
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

function joinOptions(flags: Readonly<Record<string, unknown>>, signal: AbortSignal): JoinOptions | undefined {
  const { join, replace, learner = false } = flags;
  if (join === undefined) {
    const [alone] = ["replace", "learner"].filter((name) => flags[name] !== undefined);
    if (alone !== undefined) throw new HeadpondError("invalid", `--${alone} goes with --join HOST:PORT of a master`);
    return undefined;
  }
  return {
    seeds: String(join)
      .split(",")
      .map((seed) => seed.trim()),
    replace: replace === undefined ? undefined : parseMasterId(replace),
    learner: learner === true,
    signal,
  };
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
  const served = await start(config).catch((error: unknown) => {
    throw startError(error);
  });
  announce(context, served);
  await untilAborted(context.signal);
  await served.close();
  return 0;
}

/** Why the system would not let a role start, in our words: such errors carry Node's codes, not ours. */
export function startError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof HeadpondError) return error;
  const [code, advice] = systemErrors[String((error as NodeJS.ErrnoException).code)] ?? [];
  return code === undefined
    ? error
    : new HeadpondError(code, `cannot start: ${error.message}: ${advice}`, { cause: error });
}

const systemErrors: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  EADDRINUSE: ["unavailable", "another process listens there: stop it, or choose another address"],
  EADDRNOTAVAIL: ["invalid", "this machine does not have that address"],
  EACCES: ["denied", "give this user the right to it, or choose another"],
  EPERM: ["denied", "give this user the right to it, or choose another"],
  EROFS: ["read-only", "choose a directory that can be written"],
  ENOSPC: ["no-space", "make room, then start again"],
  EDQUOT: ["no-space", "raise the quota, then start again"],
  ENOTDIR: ["not-a-directory", "choose a directory"],
  EEXIST: ["not-a-directory", "choose a directory"],
  EMFILE: ["overloaded", "raise the limit of open files (ulimit -n)"],
};

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
