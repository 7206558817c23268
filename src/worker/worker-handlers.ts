/** The framed RPC of the data port: small reads, free, verify. */

import { HeadpondError } from "../base/errors.ts";
import type { Handlers } from "../rpc/server.ts";
import type { WorkerMethods } from "../rpc/worker-service.ts";
import type { BlockCache } from "./block-cache.ts";
import type { Descriptors } from "./descriptors.ts";
import type { Fetcher } from "./fetcher.ts";
import type { FillBuffers } from "./fill-buffers.ts";
import type { Reader } from "./reader.ts";
import { scrub } from "./scrub.ts";

export function workerHandlers({
  cache,
  fetcher,
  buffers,
  reader,
  descriptors,
}: {
  readonly cache: BlockCache;
  readonly fetcher: Fetcher;
  readonly buffers: FillBuffers;
  readonly reader: Reader;
  readonly descriptors: Descriptors;
}): Handlers<WorkerMethods> {
  return {
    read: async ({ id, position, length }, { signal }) => {
      const file = await descriptors.find(id);
      if (position > file.sizeBytes) {
        throw new HeadpondError("invalid", `${file.path} has ${file.sizeBytes} bytes: ${position} lies behind its end`);
      }
      const bytes = new Uint8Array(Math.min(length, file.sizeBytes - position));
      let filled = 0;
      await reader.read(
        file,
        { position, length: bytes.length, signal },
        {
          write: async (piece) => {
            bytes.set(piece, filled);
            filled += piece.length;
          },
        },
      );
      return { bytes };
    },
    free: async ({ ids }) => ({ bytes: await cache.free(ids) }),
    verify: async ({ ids }, { signal }) => {
      const files = ids === undefined ? [...cache.list()] : ids.flatMap((id) => cache.get(id) ?? []);
      return scrub(files, { buffers, fetcher }, signal);
    },
  };
}
