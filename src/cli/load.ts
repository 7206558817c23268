/**
 * `load`: brings a model onto workers and watches it arrive; `free`: lets cached bytes go. A load first shows its plan,
 * then progress against the bound, and ends with who has what. It exits 0 only when every chosen worker holds every
 * byte, checked; 5 when some of it failed, or some objects cannot be named here.
 */

import type { JobStatus, LoadPlan } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import { parsePath } from "../base/path.ts";
import { formatBytes, formatDuration } from "../base/units.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";
import { parseCount } from "./fs-list.ts";
import { ProgressBar } from "./progress.ts";

const progressIntervalMs = 200;
const failuresShownMax = 20;
/** The exit code of what was done in part. */
const partlyDone = 5;

export function addLoad({ program, signal }: Commands): void {
  leaf(program, "load <path>", "bring a file or tree onto workers", "headpond load /models/org/name --to all")
    .option("--to <places>", "all, a number of workers, or e.g. zone=a", "all")
    .option("--plan", "only say what it would do")
    .option("--priority <p>", "0 (least) to 9", "5")
    .option("--pin", "keep the bytes against eviction")
    .option("--detach", "do not wait")
    .action(
      action(signal, async (context, flags, word: string) => {
        const path = parsePath(word);
        const request = { to: String(flags["to"]), priority: parseCount(String(flags["priority"]), "--priority") };
        const client = context.client();
        if (flags["plan"] === true) {
          const plan = await client.planLoad(path, { ...request, signal });
          context.output.result(plan, () => showPlan(context, plan));
          return plan.problems.length === 0 ? 0 : 1;
        }
        const load = await client.load(path, { ...request, pin: flags["pin"] === true, signal });
        const job = load.started;
        if (!context.output.json) showPlan(context, load.plan);
        if (flags["detach"] === true) {
          context.output.result(job, () => context.output.line(`job ${job.id}: headpond jobs watch ${job.id}`));
          return 0;
        }
        const finished = await follow(context, job);
        context.output.result(finished, () => showJob(context, finished));
        const code = jobExitCode(finished);
        return code === 0 && (load.plan.inexpressible ?? 0) > 0 ? partlyDone : code;
      }),
    );
  leaf(program, "free <path>", "let the cached bytes of a file or tree go", "headpond free /models/org/old").action(
    action(signal, async (context, _flags, word: string) => {
      const freed = await context.client().free(parsePath(word), { signal });
      context.output.result(freed, () => {
        context.output.line(`freed ${formatBytes(freed.bytes)} of ${freed.files} files`);
        if (freed.skippedPinned > 0) context.output.line(`${freed.skippedPinned} pinned files were kept`);
      });
      return 0;
    }),
  );
}

/** Watches a job to its end; shows progress to people, NDJSON nowhere: a load answers one document. */
export async function follow(context: Context, job: JobStatus): Promise<JobStatus> {
  const bar = new ProgressBar(context.output, () => context.clock.monotonicMs());
  let last = job;
  for await (const status of context
    .client()
    .watchJob(job.id, { intervalMs: progressIntervalMs, signal: context.signal })) {
    last = status;
    bar.update({
      label: `loading ${status.path}`,
      bytesDone: status.bytesDone,
      bytesTotal: status.bytesTotal,
      rate: status.rate,
      etaSeconds: status.etaSeconds,
      note: status.efficiency > 0 ? `${Math.round(status.efficiency * 100)} % of bound` : undefined,
    });
  }
  bar.clear();
  if (last.state === "planning" || last.state === "running") {
    throw new HeadpondError(
      "unavailable",
      `job ${last.id} goes on, but the master stopped answering: headpond jobs watch ${last.id}`,
    );
  }
  return last;
}

export function showPlan(context: Context, plan: LoadPlan): void {
  const { output } = context;
  output.facts([
    [
      "plan",
      `${plan.files} files, ${formatBytes(plan.bytes)} in ${plan.blocks} blocks → ${plan.workers.length} workers`,
    ],
    ["there already", formatBytes(plan.cachedBytes)],
    ["from origin", formatBytes(plan.originBytes)],
    [
      "bound",
      plan.boundSeconds === 0
        ? "nothing to move"
        : `${formatDuration(plan.boundSeconds * 1000)} (${plan.rates.source})`,
    ],
  ]);
  if (plan.inexpressible !== undefined) {
    output.line(
      `left out: ${plan.inexpressible} objects whose names the namespace cannot express; the leader's log names them`,
    );
  }
  for (const problem of plan.problems) output.line(`cannot: ${problem}`);
}

export function showJob(context: Context, job: JobStatus): void {
  const { output } = context;
  output.table(job.workers, [
    { title: "WORKER", value: (row) => row.worker },
    { title: "STATE", value: (row) => output.state(row.ready ? "READY" : "FILLING") },
    { title: "FILES", value: (row) => `${row.filesDone}/${row.filesTotal}`, align: "right" },
    {
      title: "BYTES",
      value: (row) => `${formatBytes(row.bytesDone)} of ${formatBytes(row.bytesTotal)}`,
      align: "right",
    },
    { title: "FROM ORIGIN", value: (row) => formatBytes(row.originBytes), align: "right" },
  ]);
  const ended = job.finishedMs ?? job.createdMs;
  const seconds = Math.max(0.001, (ended - (job.startedMs ?? job.createdMs)) / 1000);
  output.line();
  output.facts([
    ["job", `${job.id} ${output.state(job.state)}${job.reason === undefined ? "" : ` (${job.reason})`}`],
    [
      "origin / unique bytes",
      `${job.originAmplification.toFixed(2)} (${formatBytes(job.originBytes)} read from the under store)`,
    ],
    ...(job.finishedMs === undefined
      ? []
      : [["time", `${formatDuration(seconds * 1000)}, ${formatBytes(job.bytesDone / seconds)}/s in all`] as const]),
  ]);
  for (const failure of job.failed.slice(0, failuresShownMax)) {
    output.line(`failed: ${failure.path} on ${failure.worker}: ${failure.message} (${failure.code})`);
  }
  if (job.failed.length > failuresShownMax) output.line(`... and ${job.failed.length - failuresShownMax} more`);
  if (job.failed.length > 0) output.line(`try again: headpond jobs retry ${job.id}`);
}

export function jobExitCode(job: JobStatus): number {
  switch (job.state) {
    case "succeeded":
    case "planning":
    case "running":
      return 0;
    case "partial":
      return partlyDone;
    case "failed":
    case "cancelled":
      return 1;
    default:
      return job.state satisfies never;
  }
}
