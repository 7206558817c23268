/**
 * What a worker's data port answers. One port, two protocols, told apart by the first bytes of a connection:
 *
 * - HTTP/1.1 for bulk:
 *   - `GET|HEAD /v1/files/<fileVersionId>` with `Range`: verified bytes for readers. `ETag: "<fileVersionId>"`.
 *     `404` the version is unknown, `410` its content is no longer to be had, `429` + `Retry-After` busy.
 *   - `GET /v1/blocks/<fileVersionId>/<blockIndex>?workers=<version>&by=<workerId>` for peers: the block's bytes while they
 *     arrive, unverified, then the trailer (or, when known beforehand, the header) `x-headpond-xxh64` with the checksum.
 *     `409`: this worker does not take itself for the owner under that list of workers
 *     and does not hold the block.
 *     Also in the query: `after=<workerId>,...` (better owners that the asker could not reach), `held=1` (only if you have it),
 *     `urgency=<n>`. The header `x-headpond-descriptor` (JSON, base64url) says what the version is, for a worker that can
 *     reach no master; every refusal carries `x-headpond-workers`, the version of the list that it was decided by.
 *   - `GET /v1/holdings/<fileVersionId>`: the bitmap of held blocks. `HEAD /v1/alive`: a sign of life, `204`.
 *   - `PUT /v1/objects/<mountId>?key=<key>&ifAbsent=<bool>`: writes the body through to the under store, whole or not at
 *     all; answers `{ sizeBytes, etag, modifiedMs, digest? }`. `x-headpond-sha256` (optional) must be the body's.
 *   Errors are `ErrorDocument`s with the table's status.
 * - framed RPC for small reads and status: this service.
 */

import Type from "typebox";
import { Count, FileVersionIdSchema } from "../base/schema.ts";
import { bytes, service, unary } from "./method.ts";

/** Larger reads go over HTTP. */
export const smallReadBytesMax = 1024 * 1024;

export const workerService = service("headpond.worker", 1, {
  /** Verified bytes, at most `smallReadBytesMax`, fewer only at the end of the file. */
  read: unary(
    "read",
    Type.Object({
      id: FileVersionIdSchema,
      position: Count,
      length: Type.Integer({ minimum: 0, maximum: smallReadBytesMax }),
    }),
    Type.Object({ bytes: bytes(smallReadBytesMax) }),
  ),
  /** Drops what is held of these versions, unless pinned or open. */
  free: unary(
    "free",
    Type.Object({ ids: Type.Array(FileVersionIdSchema, { maxItems: 10_000 }) }),
    Type.Object({ bytes: Count }),
  ),
  /** Reads every block of these versions (absent: of all), compares checksums, drops and refetches damaged ones. */
  verify: unary(
    "verify",
    Type.Object({ ids: Type.Optional(Type.Array(FileVersionIdSchema, { maxItems: 10_000 })) }),
    Type.Object({ blocks: Count, bytes: Count, damaged: Count }),
  ),
});
export type WorkerMethods = typeof workerService.methods;
