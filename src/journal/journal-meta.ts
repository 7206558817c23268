/**
 * `journal.json` in a journal's directory (docs/formats/wal.md): whose journal it is. And the small files beside it
 * that are replaced as a whole: each is JSON with a checksum, written to a temporary name, flushed and renamed.
 */

import { HeadpondError } from "../base/errors.ts";
import type { ClusterId } from "../base/ids.ts";
import type { Disk } from "../io/disk.ts";
import { crc32 } from "../io/hash.ts";

const metaName = "journal.json";
const formatVersion = 1;
const maxFileBytes = 64 * 1024;

export type JournalMeta = {
  readonly formatVersion: number;
  readonly clusterId: ClusterId;
  readonly createdMs: number;
};

/** The parts of a journal's directory. */
export function walDirectory(directory: string): string {
  return `${directory}/wal`;
}

export function checkpointDirectory(directory: string): string {
  return `${directory}/checkpoints`;
}

export function lockPath(directory: string): string {
  return `${directory}/lock`;
}

export async function writeMeta(disk: Disk, directory: string, clusterId: ClusterId, createdMs: number): Promise<void> {
  await writeCheckedJson(disk, directory, metaName, { formatVersion, clusterId, createdMs });
}

/** Throws `not-found` if the directory was never formatted, `corrupt` or `unsupported`. */
export async function readMeta(disk: Disk, directory: string): Promise<JournalMeta> {
  const path = `${directory}/${metaName}`;
  const found = await readCheckedJson(disk, path);
  if (found === undefined) {
    throw new HeadpondError(
      "not-found",
      `${directory}: no journal here (${metaName} is missing): run "headpond format" first`,
    );
  }
  const version = found["formatVersion"];
  const clusterId = found["clusterId"];
  const createdMs = found["createdMs"];
  if (version !== formatVersion) {
    throw new HeadpondError(
      "unsupported",
      `${path}: journal format version ${String(version)}, this program reads ${formatVersion}`,
    );
  }
  if (typeof clusterId !== "string" || typeof createdMs !== "number") {
    throw new HeadpondError("corrupt", `${path}: cluster id or time of creation is missing`);
  }
  return { formatVersion, clusterId: clusterId as ClusterId, createdMs };
}

/** Replaces `directory/name` atomically and durably. */
export async function writeCheckedJson(
  disk: Disk,
  directory: string,
  name: string,
  value: Readonly<Record<string, unknown>>,
): Promise<void> {
  const path = `${directory}/${name}`;
  const body = JSON.stringify(value);
  const text = JSON.stringify({ crc32: crc32(body).toString(16).padStart(8, "0"), value });
  const file = await disk.open(`${path}.new`, "open-or-create");
  try {
    await file.truncate(0);
    await file.write(Buffer.from(`${text}\n`, "utf8"), 0);
    await file.datasync();
  } finally {
    await file.close();
  }
  await disk.rename(`${path}.new`, path);
  await disk.syncDirectory(directory);
}

/** `undefined` if there is no such file. Throws `corrupt`. */
export async function readCheckedJson(
  disk: Disk,
  path: string,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  const text = await readText(disk, path);
  if (text === undefined) return undefined;
  try {
    const document = JSON.parse(text) as { crc32?: unknown; value?: unknown };
    const value = document.value as Record<string, unknown>;
    const expected = crc32(JSON.stringify(value)).toString(16).padStart(8, "0");
    // Written again, the text is the same to the byte: a change that JSON overlooks is found too.
    if (document.crc32 === expected && text === `${JSON.stringify({ crc32: expected, value })}\n`) return value;
  } catch {
    // Not even JSON: the same answer.
  }
  throw new HeadpondError("corrupt", `${path}: offset 0: damaged (its checksum does not match)`, {
    details: { file: path, offset: 0 },
  });
}

async function readText(disk: Disk, path: string): Promise<string | undefined> {
  let file: Awaited<ReturnType<Disk["open"]>>;
  try {
    file = await disk.open(path, "read");
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    // Not by the size that stat gives: files of the kernel say 0.
    const bytes = Buffer.alloc(maxFileBytes);
    let used = 0;
    for (let count = -1; count !== 0 && used < bytes.length; used += count)
      count = await file.read(bytes.subarray(used), used);
    return bytes.toString("utf8", 0, used);
  } finally {
    await file.close();
  }
}

/** The running kernel's id of its boot; `undefined` where there is none (not Linux, a disk in memory). */
export async function readBootId(disk: Disk): Promise<string | undefined> {
  try {
    const text = await readText(disk, "/proc/sys/kernel/random/boot_id");
    return text === undefined || text.trim() === "" ? undefined : text.trim();
  } catch {
    return undefined;
  }
}
