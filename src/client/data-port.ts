/** What the SDK needs of a worker's data port (rpc/worker-service.ts): `worker-data-port.ts` is the real one. */

import { HeadpondError } from "../base/errors.ts";
import type { ContentDigest, FileDescriptor } from "../base/file.ts";
import type { MountId } from "../base/ids.ts";

export type DataRange = {
  /** `host:port` of the data port. */
  readonly address: string;
  readonly file: FileDescriptor;
  readonly position: number;
  readonly length: number;
  readonly signal?: AbortSignal | undefined;
};

export type ObjectPut = {
  readonly address: string;
  readonly mountId: MountId;
  readonly key: string;
  readonly ifAbsent: boolean;
  readonly body: AsyncIterable<Uint8Array>;
  readonly sizeBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** The object as its under store has it now. */
export type WrittenObject = {
  readonly sizeBytes: number;
  readonly etag: string;
  readonly modifiedMs: number;
  readonly digest?: ContentDigest;
};

export interface DataPort {
  /**
   * Verified bytes in order; of a whole file whose store gave a digest, the last block only after the digest matched. A chunk is only valid until the next one is asked for. Ends early without an error never;
   * rejects with `unavailable` when the worker cannot be reached or cuts, `not-found` when it does not know the version,
   * `compacted` when the content is no longer to be had, `overloaded` with `retryAfterMs` when it is busy.
   */
  stream(range: DataRange): AsyncIterable<Uint8Array>;
  /** At most `smallReadBytesMax` bytes, over framed RPC. The bytes belong to the caller. */
  read(range: DataRange): Promise<Uint8Array>;
  /** Writes one object through to its under store. Takes nothing of `body` before the worker has been reached. */
  put(object: ObjectPut): Promise<WrittenObject>;
  close(): Promise<void>;
}

/** A worker says of content that it can have no more that its version does not match, and that it is gone. */
export function asGone(error: HeadpondError): HeadpondError {
  if (error.code !== "version-mismatch" || error.details?.["gone"] !== true) return error;
  return new HeadpondError("compacted", error.message, { cause: error });
}
