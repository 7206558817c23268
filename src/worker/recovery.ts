/**
 * What a cache directory holds after a start. Only blocks count whose index records are whole; everything else is named in
 * a finding and dropped, never served: a torn or flipped record and all behind it, an index of another version under this
 * name, data without an index, an index without data, blocks behind the end of a truncated data file. What damage in
 * a data file's middle did is found when the block is first read (`CachedFile.readBlock`).
 */

import { blockRange } from "../base/blocks.ts";
import { HeadpondError } from "../base/errors.ts";
import type { BlockIndex } from "../base/ids.ts";
import { type FileVersionId, parseFileVersionId } from "../base/ids.ts";
import { MiB } from "../base/units.ts";
import type { Disk } from "../io/disk.ts";
import { decodeIndex, type IndexState } from "./block-index.ts";
import type { CacheDirectory } from "./cache-directory.ts";
import { type IndexFilePosition, unlinkIfThere } from "./index-file.ts";

/** A larger index is not ours: 12 bytes for each of the most blocks, twice, and room. */
const indexBytesMax = 64 * MiB;
/** Files looked at at once. */
const parallelMax = 16;

export type RecoveredFile = {
  readonly state: IndexState;
  /** Where to append; undefined: the index must be written anew. */
  readonly indexEnd: IndexFilePosition | undefined;
};

export type Recovery = {
  readonly files: readonly RecoveredFile[];
  /** One sentence for each thing that was wrong, with the file's name. */
  readonly findings: readonly string[];
};

/** Throws what the disk threw when the directory cannot be listed. */
export async function recoverDirectory(directory: CacheDirectory): Promise<Recovery> {
  const { disk } = directory;
  const names = [...(await disk.list(directory.versionsPath))].sort();
  const findings: string[] = [];
  const files: RecoveredFile[] = [];
  const indexes = new Set<string>();
  const datas = new Set<string>();
  for (const name of names) {
    const match = /^(.*)\.(index|data)$/.exec(name);
    const id = match?.[1];
    if (id !== undefined && isVersionId(id)) (match?.[2] === "index" ? indexes : datas).add(id);
    else if (name.endsWith(".index.new")) await unlinkIfThere(disk, `${directory.versionsPath}/${name}`);
    else findings.push(`${name}: not a name of this cache; left alone`);
  }
  const work = [...indexes];
  const run = async (): Promise<void> => {
    for (let id = work.pop(); id !== undefined; id = work.pop()) {
      const found = await recoverFile(directory, id as FileVersionId, datas.has(id), findings);
      if (found !== undefined) files.push(found);
    }
  };
  await Promise.all(Array.from({ length: parallelMax }, run));
  for (const id of datas) {
    if (indexes.has(id)) continue;
    // A fill that was cut off before its first mark leaves one behind: no damage, but nothing to trust either.
    findings.push(`${id}.data: no index vouches for it; dropped`);
    await unlinkIfThere(disk, directory.dataPath(id as FileVersionId));
  }
  return { files, findings };
}

async function recoverFile(
  directory: CacheDirectory,
  id: FileVersionId,
  hasData: boolean,
  findings: string[],
): Promise<RecoveredFile | undefined> {
  const { disk } = directory;
  const drop = async (why: string): Promise<undefined> => {
    findings.push(`${id}.index: ${why}; the version was dropped`);
    await unlinkIfThere(disk, directory.indexPath(id));
    await unlinkIfThere(disk, directory.dataPath(id));
    return undefined;
  };
  let bytes: Uint8Array;
  try {
    bytes = await readIndex(disk, directory.indexPath(id));
  } catch (error) {
    if (error instanceof HeadpondError) return drop(error.message);
    findings.push(`${id}.index: cannot be read (${String(error)}); left out of service`);
    return undefined;
  }
  const { state, validBytes, chain, finding } = decodeIndex(bytes);
  if (state === undefined) return drop(finding ?? "it is empty");
  if (state.descriptor.id !== id) return drop(`it is the index of ${state.descriptor.id}`);
  if (finding !== undefined) {
    findings.push(`${id}.index: ${finding}; ${state.durable.count} of ${state.durable.length} blocks are trusted`);
  }
  if (!hasData && state.durable.length > 0) return drop("its data file is missing");
  let damaged = finding !== undefined;
  if (hasData) {
    const { sizeBytes } = await disk.stat(directory.dataPath(id));
    if (sizeBytes !== state.descriptor.sizeBytes) {
      const lost = dropBehind(state, sizeBytes);
      findings.push(
        `${id}.data: ${sizeBytes} bytes, not ${state.descriptor.sizeBytes}; ${lost} blocks behind its end were dropped`,
      );
      damaged = true;
    }
  }
  if (state.durable.count === 0 && state.durable.length > 0 && !state.pinned) return drop("no block of it is trusted");
  if (!state.durable.isFull) state.digestVerified = false;
  return { state, indexEnd: damaged ? undefined : { bytes: validBytes, chain } };
}

function dropBehind(state: IndexState, dataBytes: number): number {
  const { sizeBytes, blockSizeBytes } = state.descriptor;
  let lost = 0;
  for (let block = 0 as BlockIndex; block < state.durable.length; block++) {
    const { position, length } = blockRange(block, sizeBytes, blockSizeBytes);
    if (position + length > dataBytes && state.durable.delete(block)) lost++;
  }
  return lost;
}

async function readIndex(disk: Disk, path: string): Promise<Uint8Array> {
  const file = await disk.open(path, "read");
  try {
    const { sizeBytes } = await file.stat();
    if (sizeBytes > indexBytesMax) throw new HeadpondError("corrupt", `${sizeBytes} bytes are no index`);
    const bytes = new Uint8Array(sizeBytes);
    for (let at = 0; at < sizeBytes; ) {
      const count = await file.read(bytes.subarray(at), at);
      if (count === 0) return bytes.subarray(0, at);
      at += count;
    }
    return bytes;
  } finally {
    await file.close();
  }
}

function isVersionId(text: string): boolean {
  try {
    parseFileVersionId(text);
    return true;
  } catch {
    return false;
  }
}
