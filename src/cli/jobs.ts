/** `jobs ls|show|watch|cancel|retry`. */

import { HeadpondError } from "../base/errors.ts";
import type { JobId } from "../base/ids.ts";
import { formatBytes, formatDuration } from "../base/units.ts";
import { action, type Commands, leaf } from "./command.ts";
import { formatTime } from "./fs-list.ts";
import { follow, jobExitCode, showJob } from "./load.ts";

export function addJobs({ program, signal }: Commands): void {
  const jobs = program.command("jobs").description("load jobs");
  leaf(jobs, "ls", "jobs, newest first", "headpond jobs ls").action(
    action(signal, async (context) => {
      const list = await context.client().jobs({ signal });
      context.output.result(list, () =>
        context.output.table(list, [
          { title: "ID", value: (row) => String(row.id), align: "right" },
          { title: "STATE", value: (row) => context.output.state(row.state) },
          { title: "PATH", value: (row) => row.path },
          { title: "TO", value: (row) => row.to },
          {
            title: "DONE",
            value: (row) => `${formatBytes(row.bytesDone)} of ${formatBytes(row.bytesTotal)}`,
            align: "right",
          },
          {
            title: "RATE",
            value: (row) => (row.state === "running" ? `${formatBytes(row.rate)}/s` : "-"),
            align: "right",
          },
          {
            title: "ETA",
            value: (row) => (row.etaSeconds === undefined ? "-" : formatDuration(row.etaSeconds * 1000)),
            align: "right",
          },
          { title: "CREATED", value: (row) => formatTime(row.createdMs) },
        ]),
      );
      return 0;
    }),
  );
  leaf(jobs, "show <id>", "one job with its workers and failures", "headpond jobs show 3 --json").action(
    action(signal, async (context, _flags, word: string) => {
      const job = await context.client().job(parseJobId(word), { signal });
      context.output.result(job, () => showJob(context, job));
      return 0;
    }),
  );
  leaf(jobs, "watch <id>", "follow a job to its end", "headpond jobs watch 3").action(
    action(signal, async (context, _flags, word: string) => {
      const job = await follow(context, await context.client().job(parseJobId(word), { signal }));
      context.output.result(job, () => showJob(context, job));
      return jobExitCode(job);
    }),
  );
  leaf(jobs, "cancel <id>", "stop a job; what has arrived stays", "headpond jobs cancel 3").action(
    action(signal, async (context, _flags, word: string) => {
      const job = await context.client().cancelJob(parseJobId(word), { signal });
      context.output.result(job, () => context.output.line(`job ${job.id} ${job.state}`));
      return 0;
    }),
  );
  leaf(jobs, "retry <id>", "try the failed files of a job again", "headpond jobs retry 3").action(
    action(signal, async (context, _flags, word: string) => {
      const job = await follow(context, await context.client().retryJob(parseJobId(word), { signal }));
      context.output.result(job, () => showJob(context, job));
      return jobExitCode(job);
    }),
  );
}

function parseJobId(word: string): JobId {
  if (!/^[1-9][0-9]{0,14}$/.test(word))
    throw new HeadpondError("invalid", `${word} is no job id: see headpond jobs ls`);
  return Number(word) as JobId;
}
