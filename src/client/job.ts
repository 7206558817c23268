/** A load job from the outside: what was planned, what it does now, how it ends. */

import type { JobStatus, LoadPlan } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import type { JobId } from "../base/ids.ts";
import { masterService } from "../rpc/master-service.ts";
import type { CallOptions, MasterCalls } from "./master-calls.ts";

/** Watches that break (a new leader) are taken up again, so many times without a word from the master in between. */
const watchAttemptsMax = 20;

export class LoadJob {
  readonly id: JobId;
  readonly plan: LoadPlan;
  /** As the job began. */
  readonly started: JobStatus;
  readonly #masters: MasterCalls;

  constructor(masters: MasterCalls, started: JobStatus, plan: LoadPlan) {
    this.#masters = masters;
    this.id = started.id;
    this.plan = plan;
    this.started = started;
  }

  status(options?: CallOptions): Promise<JobStatus> {
    return this.#masters.call(masterService.methods.job, { id: this.id }, { ...options, readOnly: true });
  }

  /** Where the job is, about every `intervalMs`, until it has ended; the last status is the final one. */
  progress(options: { readonly intervalMs?: number; readonly signal?: AbortSignal } = {}): AsyncGenerator<JobStatus> {
    return watchJob(this.#masters, this.id, options);
  }

  /** Its final status. A job that did not wholly succeed is answered, not thrown. */
  async done(options: { readonly signal?: AbortSignal } = {}): Promise<JobStatus> {
    let last = this.started;
    for await (const status of this.progress(options)) last = status;
    return last;
  }

  cancel(options?: CallOptions): Promise<JobStatus> {
    return this.#masters.call(masterService.methods.cancelJob, { id: this.id }, options);
  }
}

export function isJobOver(status: JobStatus): boolean {
  return status.state !== "planning" && status.state !== "running";
}

export async function* watchJob(
  masters: MasterCalls,
  id: JobId,
  options: { readonly intervalMs?: number; readonly signal?: AbortSignal },
): AsyncGenerator<JobStatus> {
  const { intervalMs, signal } = options;
  const request = intervalMs === undefined ? { id } : { id, intervalMs };
  for (let attempt = 0; attempt < watchAttemptsMax; attempt++) {
    try {
      for await (const status of masters.openStream(
        masterService.methods.watchJob,
        request,
        signal === undefined ? {} : { signal },
      )) {
        attempt = 0;
        yield status;
        if (isJobOver(status)) return;
      }
    } catch (error) {
      if (signal?.aborted === true || !(error instanceof HeadpondError) || !error.retryable) throw error;
    }
  }
  throw new HeadpondError("unavailable", `job ${id}: the masters do not tell its progress: ask again with jobs show`);
}
