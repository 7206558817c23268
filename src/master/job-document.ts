/**
 * A load job as the journal keeps it: JSON, so that a newer master reads what an older one wrote. The files of a job are
 * its file versions, packed (`packVersions`): what they are called and where they lie is looked up when it is resumed.
 */

import Type, { type Static } from "typebox";
import { Compile } from "typebox/compile";
import { JobFailure, JobState, JobWorkerProgress, LoadPlan } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import type { InodeId, JobId } from "../base/ids.ts";
import { Count, PathSchema, TimeMs } from "../base/schema.ts";

/** As the state has it. */
export type StoredJob = { readonly id: JobId; readonly document: string; readonly progress: string | undefined };

/** Journals take commands of 1 MiB. */
export const jobDocumentBytesMax = 1_000_000;
/** Failures that are kept of one job; how many there were besides is said in `reason`. */
export const jobFailuresMax = 1000;

/**
 * What a request for a load asks for: journaled first, under the request's origin, so that it must not say anything that
 * another attempt of the same request would say differently. The plan follows.
 */
export const JobSeed = Type.Object({
  format: Type.Literal(1),
  kind: Type.Literal("load"),
  path: PathSchema,
  to: Type.String(),
  priority: Type.Integer(),
  pin: Type.Boolean(),
  state: Type.Literal("planning"),
});
export type JobSeed = Static<typeof JobSeed>;

export const JobDocument = Type.Object({
  format: Type.Literal(1),
  kind: Type.Literal("load"),
  path: PathSchema,
  to: Type.String(),
  priority: Type.Integer(),
  pin: Type.Boolean(),
  state: JobState,
  createdMs: TimeMs,
  startedMs: Type.Optional(TimeMs),
  finishedMs: Type.Optional(TimeMs),
  reason: Type.Optional(Type.String()),
  /** Why it could not even begin. */
  planError: Type.Optional(Type.Object({ code: Type.String(), message: Type.String(), retryable: Type.Boolean() })),
  plan: LoadPlan,
  /** `packVersions`. */
  versions: Type.String(),
  failed: Type.Array(JobFailure),
  failedCount: Count,
  /** Of a job that has ended: the last numbers. */
  workers: Type.Optional(Type.Array(JobWorkerProgress)),
  /** Of a job that has ended: bytes that workers which it did not choose read from the under store for those that it did. */
  relayedOriginBytes: Type.Optional(Count),
  /** Bytes per second over the whole run, once it has ended. */
  rate: Type.Optional(Type.Number()),
  /** How often it was started: 1, and once more for each retry. */
  runs: Count,
});
export type JobDocument = Static<typeof JobDocument>;

/** What is journaled now and then of a running job: the origin bytes counted so far survive a change of leader. */
export const JobMark = Type.Object({
  origin: Type.Record(Type.String(), Type.Object({ incarnation: Type.String(), absolute: Count, counted: Count })),
  /** Bytes read from the under store by other workers, as owners of blocks. */
  relayed: Type.Optional(Count),
});
export type JobMark = Static<typeof JobMark>;

const documentCheck = Compile(JobDocument);
const markCheck = Compile(JobMark);
const seedCheck = Compile(JobSeed);

/** Undefined when the document is that of a job with a plan. */
export function readJobSeed(text: string): JobSeed | undefined {
  const value = parse(text);
  return seedCheck.Check(value) && !Object.hasOwn(value, "plan") ? value : undefined;
}

/** What is known of a job before its plan is made. */
export function unplanned(seed: JobSeed, createdMs: number): JobDocument {
  const rates = { originBytesPerSecond: 0, linkBytesPerSecond: 0, source: "none" };
  const sizes = { files: 0, bytes: 0, blocks: 0, cachedBytes: 0, originBytes: 0, boundSeconds: 0 };
  const plan: LoadPlan = { path: seed.path, ...sizes, rates, workers: [], problems: [] };
  return { ...seed, createdMs, plan, versions: "", failed: [], failedCount: 0, runs: 1 };
}

/** Throws `invalid` when the job is too large to be kept. */
export function writeJobDocument(document: JobDocument): string {
  const text = JSON.stringify(document);
  if (Buffer.byteLength(text) > jobDocumentBytesMax) {
    throw new HeadpondError(
      "invalid",
      `the load of ${document.path} has ${document.plan.files} files on ${document.plan.workers.length} workers, too many ` +
        "for one job: load its directories one by one",
    );
  }
  return text;
}

/** Throws `corrupt` when it is not one that this version of the software can read. */
export function readJobDocument(id: JobId, text: string): JobDocument {
  const value = parse(text);
  if (!documentCheck.Check(value)) throw new HeadpondError("corrupt", `job ${id} cannot be read by this version`);
  return value;
}

/** A mark that cannot be read is no mark: it only improves numbers. */
export function readJobMark(text: string): JobMark {
  const value = parse(text);
  return markCheck.Check(value) ? value : { origin: {} };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

export type VersionKey = { readonly inodeId: InodeId; readonly contentVersion: number };

/**
 * File versions as text of about 3 characters each: in the order of their inodes, base 36, `difference to the inode
 * before`, and `.contentVersion` unless it is 1; separated by spaces.
 */
export function packVersions(versions: readonly VersionKey[]): string {
  const sorted = [...versions].sort((a, b) => a.inodeId - b.inodeId);
  let before = 0;
  return sorted
    .map(({ inodeId, contentVersion }) => {
      const difference = (inodeId - before).toString(36);
      before = inodeId;
      return contentVersion === 1 ? difference : `${difference}.${contentVersion.toString(36)}`;
    })
    .join(" ");
}

export function unpackVersions(text: string): VersionKey[] {
  let inodeId = 0;
  if (text === "") return [];
  return text.split(" ").map((item) => {
    const [difference, contentVersion] = item.split(".");
    inodeId += Number.parseInt(difference ?? "", 36);
    return {
      inodeId: inodeId as InodeId,
      contentVersion: contentVersion === undefined ? 1 : Number.parseInt(contentVersion, 36),
    };
  });
}
