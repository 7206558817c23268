/** Reads held blocks back and compares them with their checksums; damaged ones are dropped and fetched again. */

import { isHeadpondError } from "../base/errors.ts";
import type { BlockIndex } from "../base/ids.ts";
import type { CachedFile } from "./cached-file.ts";
import type { Fetcher } from "./fetcher.ts";
import type { FillBuffers } from "./fill-buffers.ts";
import { loadUrgency } from "./slots.ts";

export type ScrubResult = { readonly blocks: number; readonly bytes: number; readonly damaged: number };

export async function scrub(
  files: Iterable<CachedFile>,
  { buffers, fetcher }: { readonly buffers: FillBuffers; readonly fetcher: Fetcher },
  signal: AbortSignal,
): Promise<ScrubResult> {
  let blocks = 0;
  let bytes = 0;
  let damaged = 0;
  for (const file of files) {
    file.acquire();
    try {
      for (let block = 0 as BlockIndex; block < file.blockCount; block++) {
        if (!file.has(block)) continue;
        const buffer = await buffers.take(signal);
        try {
          await file.readBlock(block, buffer);
        } catch (error) {
          if (!isHeadpondError(error, "corrupt")) throw error;
          damaged++;
        } finally {
          buffers.give(buffer);
        }
        blocks++;
        bytes += file.blockLength(block);
        if (file.has(block)) continue;
        // Who reads it next may be luckier than we; that it was damaged is told all the same.
        await fetcher.start(file, block, { urgency: loadUrgency(0) }).stored.catch(() => {});
      }
    } finally {
      file.release();
    }
  }
  return { blocks, bytes, damaged };
}
