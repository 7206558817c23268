/** A job as the outside sees it, and as it is kept when it has ended. */

import type { JobFailure, JobStatus, JobWorkerProgress, LoadPlan } from "../base/cluster.ts";
import type { JobId } from "../base/ids.ts";
import { type JobDocument, writeJobDocument } from "./job-document.ts";

/** The outside's view of a job, from its document and its last numbers. */
export function jobStatus(
  id: JobId,
  document: JobDocument,
  numbers: {
    readonly workers: readonly JobWorkerProgress[];
    readonly rate: number;
    readonly elapsedSeconds: number;
    readonly failed: readonly JobFailure[];
    readonly relayedOriginBytes: number;
    readonly etaSeconds?: number;
  },
): JobStatus {
  const { plan } = document;
  const sum = (of: (worker: JobWorkerProgress) => number): number =>
    numbers.workers.reduce((total, worker) => total + of(worker), 0);
  const originBytes = numbers.relayedOriginBytes + sum(({ originBytes: bytes }) => bytes);
  return {
    id,
    kind: "load",
    path: document.path,
    to: document.to,
    state: document.state,
    priority: document.priority,
    createdMs: document.createdMs,
    ...(document.startedMs === undefined ? {} : { startedMs: document.startedMs }),
    ...(document.finishedMs === undefined ? {} : { finishedMs: document.finishedMs }),
    bytesDone: sum(({ bytesDone }) => bytesDone),
    bytesTotal: sum(({ bytesTotal }) => bytesTotal),
    uniqueBytes: plan.bytes,
    rate: numbers.rate,
    efficiency: plan.boundSeconds === 0 ? 0 : plan.boundSeconds / numbers.elapsedSeconds,
    boundSeconds: plan.boundSeconds,
    ...(numbers.etaSeconds === undefined ? {} : { etaSeconds: numbers.etaSeconds }),
    originBytes,
    originAmplification: amplification(originBytes, plan),
    workers: [...numbers.workers],
    failed: [...numbers.failed],
    ...(document.reason === undefined ? {} : { reason: document.reason }),
  };
}

/** Origin bytes over those that had to leave the under store; when none had to, every byte read counts on top of 1. */
function amplification(originBytes: number, plan: LoadPlan): number {
  if (plan.originBytes > 0) return originBytes / plan.originBytes;
  return plan.bytes === 0 ? 1 : 1 + originBytes / plan.bytes;
}

/** A document that has outgrown its limit by its failures loses the end of their list, never the end of the job. */
export function endedText(document: JobDocument): string {
  for (let kept = document.failed.length; ; kept = Math.floor(kept / 2)) {
    try {
      return writeJobDocument({ ...document, failed: document.failed.slice(0, kept) });
    } catch (error) {
      if (kept === 0) throw error;
    }
  }
}

export function endedStatus(id: JobId, document: JobDocument): JobStatus {
  const elapsedMs = (document.finishedMs ?? document.createdMs) - (document.startedMs ?? document.createdMs);
  return jobStatus(id, document, {
    workers: document.workers ?? [],
    rate: document.rate ?? 0,
    elapsedSeconds: Math.max(0.001, elapsedMs / 1000),
    failed: document.failed,
    relayedOriginBytes: document.relayedOriginBytes ?? 0,
  });
}
