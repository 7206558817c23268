/** What a file is to the outside (`FileStatus`) and to the caches (`FileDescriptor`). */

import Type, { type Static } from "typebox";
import { Count, FileVersionIdSchema, InodeIdSchema, MountIdSchema, oneOf, PathSchema, TimeMs } from "./schema.ts";

/** A digest of a whole file that its under store vouches for. `value` is hexadecimal, lower case. */
export const ContentDigest = Type.Object({
  algorithm: oneOf("sha256", "crc32", "crc32c"),
  value: Type.String({ pattern: "^[0-9a-f]{8,64}$" }),
});
export type ContentDigest = Static<typeof ContentDigest>;

export const FileKind = oneOf("file", "directory");
export type FileKind = Static<typeof FileKind>;

/** User attributes: at most 4 KiB a value, 64 KiB an inode. */
export const Attributes = Type.Record(Type.String(), Type.String());
export type Attributes = Static<typeof Attributes>;

/** What happens when a TTL is over: the cached bytes go, or the file itself. */
export const TtlAction = oneOf("free", "delete");
export type TtlAction = Static<typeof TtlAction>;

/** Inode and path as people and programs see them (surface.md: `fs stat`, rows of `fs ls`). */
export const FileStatus = Type.Object({
  path: PathSchema,
  kind: FileKind,
  inodeId: InodeIdSchema,
  /** Raised by every change of the inode itself; a directory's also by a child that comes or goes. */
  version: Count,
  /** 0 of a directory. */
  sizeBytes: Count,
  /** POSIX permission bits. */
  mode: Count,
  owner: Type.String(),
  group: Type.String(),
  createdMs: TimeMs,
  modifiedMs: TimeMs,
  attributes: Attributes,
  /** Of a file: bytes of the current content that at least one live worker holds. Filled in by the master, 0 in the state. */
  cachedBytes: Count,
  /** Raised when the bytes change. */
  contentVersion: Count,
  /** False while a file is being written through to its under store. */
  complete: Type.Boolean(),
  pinned: Type.Boolean(),
  ttl: Type.Optional(Type.Object({ expiresMs: TimeMs, action: TtlAction })),
  replicas: Type.Optional(Type.Object({ min: Count, max: Count })),
  /** Path of the mount that holds it. */
  mount: Type.Optional(PathSchema),
  etag: Type.Optional(Type.String()),
  digest: Type.Optional(ContentDigest),
  /** Of a directory. */
  childCount: Type.Optional(Count),
});
export type FileStatus = Static<typeof FileStatus>;

/**
 * One immutable content of a file: all that a worker needs to fetch, check and serve it. It is written beside the
 * cached blocks, so that a worker can serve what it holds while no master can be reached.
 */
export const FileDescriptor = Type.Object({
  id: FileVersionIdSchema,
  inodeId: InodeIdSchema,
  contentVersion: Count,
  /** Where the file was when it was described; for messages only. */
  path: PathSchema,
  sizeBytes: Count,
  blockSizeBytes: Count,
  mountId: MountIdSchema,
  /** The object's key, relative to the mount. */
  key: Type.String(),
  /** The under store's identity of this content: every read is conditional on it. */
  etag: Type.String(),
  modifiedMs: TimeMs,
  digest: Type.Optional(ContentDigest),
  pinned: Type.Boolean(),
});
export type FileDescriptor = Static<typeof FileDescriptor>;

export const MountInfo = Type.Object({
  id: MountIdSchema,
  path: PathSchema,
  /** Without secrets. */
  uri: Type.String(),
  readOnly: Type.Boolean(),
  /** Without the values of secrets. */
  options: Type.Record(Type.String(), Type.String()),
});
export type MountInfo = Static<typeof MountInfo>;

/** One object or directory that a listing of an under store showed; `namespace` turns rows into inodes. */
export const ListedRow = Type.Object({
  name: Type.String(),
  kind: FileKind,
  sizeBytes: Count,
  etag: Type.String(),
  modifiedMs: TimeMs,
  digest: Type.Optional(ContentDigest),
});
export type ListedRow = Static<typeof ListedRow>;
