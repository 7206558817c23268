/** Jobs, revisions, settings and the feature level: documents that the state keeps for others, without reading them. */

import type { JobId } from "../base/ids.ts";
import { type CommandOf, type ResultOf, revisionFilesMax, revisionsKeptMax } from "./command.ts";
import { fail, quote } from "./failure.ts";
import { featureLevelLimit } from "./feature-level.ts";
import {
  jobPrefix,
  jobProgressPrefix,
  keptVersionPrefix,
  revisionPrefix,
  rowKey,
  settingPrefix,
  textKey,
} from "./keys.ts";
import type { Tree } from "./tree.ts";

export const documentBytesMax = 1024 * 1024;
export const jobsMax = 10_000;
const settingKeyBytesMax = 255;
const revisionBytesMax = 8 * 1024 * 1024;

export function applyPutJob(tree: Tree, command: CommandOf<"put-job">): ResultOf<"put-job"> {
  const { rows, header } = tree.state;
  const problem = documentProblem(command.document);
  if (problem !== undefined) return fail("invalid", `job: ${problem}`);
  let { jobId } = command;
  if (jobId === undefined) {
    if (header.jobCount >= jobsMax) return fail("overloaded", `there are ${jobsMax} jobs already: remove old ones`);
    jobId = header.nextJobId++ as JobId;
    header.jobCount++;
  } else if (rows.get(rowKey(jobPrefix, jobId)) === undefined) {
    return fail("not-found", `no job ${jobId}`);
  }
  rows.set(rowKey(jobPrefix, jobId), Buffer.from(command.document));
  return { ok: true, jobId };
}

export function applyJobProgress(tree: Tree, command: CommandOf<"job-progress">): ResultOf<"job-progress"> {
  const { rows } = tree.state;
  const { jobId, progress } = command;
  const problem = documentProblem(progress);
  if (problem !== undefined) return fail("invalid", `progress of job ${jobId}: ${problem}`);
  if (rows.get(rowKey(jobPrefix, jobId)) === undefined) return fail("not-found", `no job ${jobId}`);
  rows.set(rowKey(jobProgressPrefix, jobId), Buffer.from(progress));
  return { ok: true };
}

export function applyRemoveJob(tree: Tree, command: CommandOf<"remove-job">): ResultOf<"remove-job"> {
  const { rows, header } = tree.state;
  const { jobId } = command;
  if (rows.get(rowKey(jobPrefix, jobId)) === undefined) return fail("not-found", `no job ${jobId}`);
  rows.set(rowKey(jobPrefix, jobId), undefined);
  rows.set(rowKey(jobProgressPrefix, jobId), undefined);
  header.jobCount--;
  return { ok: true };
}

export function applyRecordRevision(tree: Tree, command: CommandOf<"record-revision">): ResultOf<"record-revision"> {
  const { rows, header, inodes } = tree.state;
  const { directoryInodeId, commit, files, metadata } = command;
  const directory = inodes.get(directoryInodeId);
  if (directory?.isDirectory !== true || tree.pathOf(directory) === undefined) {
    return fail("not-found", `inode ${directoryInodeId} is no directory any more`);
  }
  if (!/^[0-9a-f]{40}$/.test(commit)) return fail("invalid", `commit ${quote(commit)} is not 40 hexadecimal digits`);
  if (files.length > revisionFilesMax)
    return fail("invalid", `${files.length} files in a revision, more than ${revisionFilesMax}`);
  const row = Buffer.from(JSON.stringify({ commit, recordedMs: header.nowMs, metadata, files }));
  if (row.length > revisionBytesMax)
    return fail("invalid", `a revision of ${row.length} bytes, more than ${revisionBytesMax}`);
  rows.set(rowKey(revisionPrefix, directoryInodeId, header.version), row);
  for (const file of files) {
    const key = rowKey(keptVersionPrefix, file.inodeId, file.contentVersion, directoryInodeId, header.version);
    rows.set(key, Buffer.from(JSON.stringify(file)));
  }
  tree.dropRevisions(directoryInodeId, revisionsKeptMax);
  return { ok: true };
}

export function applySetSetting(tree: Tree, command: CommandOf<"set-setting">): ResultOf<"set-setting"> {
  const { key, value } = command;
  const bytes = Buffer.byteLength(key);
  if (bytes === 0 || bytes > settingKeyBytesMax)
    return fail("invalid", `setting ${quote(key)}: its name has ${bytes} bytes, not 1 to 255`);
  if (value !== null && Buffer.byteLength(value) > documentBytesMax) {
    return fail("invalid", `setting ${quote(key)} has more than ${documentBytesMax} bytes`);
  }
  tree.state.rows.set(textKey(settingPrefix, key), value === null ? undefined : Buffer.from(value));
  return { ok: true };
}

export function applySetFeatureLevel(
  tree: Tree,
  command: CommandOf<"set-feature-level">,
): ResultOf<"set-feature-level"> {
  const { header } = tree.state;
  const { level } = command;
  if (!Number.isSafeInteger(level) || level < header.featureLevel || level > featureLevelLimit) {
    return fail(
      "invalid",
      `feature level ${level} is not within ${header.featureLevel} (the current one) to ${featureLevelLimit}`,
    );
  }
  header.featureLevel = level;
  return { ok: true, level };
}

function documentProblem(document: string): string | undefined {
  if (typeof document !== "string") return "it is no text";
  const bytes = Buffer.byteLength(document);
  return bytes > documentBytesMax ? `it has ${bytes} bytes, more than ${documentBytesMax}` : undefined;
}
