/** Small TypeBox helpers, so that ids keep their brands in schemas. A schema is written once: type, check and OpenAPI follow. */

import Type, { type Static, type TSchema } from "typebox";
import type {
  BlockIndex,
  ClusterId,
  FileVersionId,
  InodeId,
  JobId,
  MasterId,
  MountId,
  SessionId,
  WorkerId,
} from "./ids.ts";
import type { Path } from "./path.ts";
import type { Place } from "./place.ts";

const wholeNumber = { minimum: 0, maximum: Number.MAX_SAFE_INTEGER };

/** A whole number from 0 to 2^53 - 1. */
export const Count = Type.Integer(wholeNumber);
/** Milliseconds since 1970. */
export const TimeMs = Type.Integer(wholeNumber);
export const InodeIdSchema = Type.Unsafe<InodeId>(Count);
export const MountIdSchema = Type.Unsafe<MountId>(Count);
export const JobIdSchema = Type.Unsafe<JobId>(Count);
export const SessionIdSchema = Type.Unsafe<SessionId>(Count);
export const BlockIndexSchema = Type.Unsafe<BlockIndex>(Count);
export const WorkerIdSchema = Type.Unsafe<WorkerId>(Type.String({ minLength: 1, maxLength: 128 }));
export const MasterIdSchema = Type.Unsafe<MasterId>(Type.String({ minLength: 1, maxLength: 128 }));
export const ClusterIdSchema = Type.Unsafe<ClusterId>(Type.String({ minLength: 1, maxLength: 64 }));
export const FileVersionIdSchema = Type.Unsafe<FileVersionId>(Type.String({ minLength: 3, maxLength: 40 }));
export const PlaceSchema = Type.Unsafe<Place>(Type.String({ minLength: 7, maxLength: 255 }));
/** A path as a server answers it. Paths in requests are plain strings: the server parses them. */
export const PathSchema = Type.Unsafe<Path>(Type.String({ minLength: 1, maxLength: 4096 }));
export const BytesSchema = Type.Unsafe<Uint8Array>({});

/** A closed set of strings. */
export function oneOf<const T extends readonly string[]>(...values: T): ReturnType<typeof Type.Unsafe<T[number]>> {
  return Type.Unsafe<T[number]>({ type: "string", enum: [...values] });
}

export type { Static, TSchema };
