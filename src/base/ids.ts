/** Branded ids: a number that names an inode cannot be passed where one that names a mount is wanted. */

import { HeadpondError } from "./errors.ts";

declare const brand: unique symbol;
export type Brand<T, Name extends string> = T & { readonly [brand]: Name };

/** Names an inode for ever: never used again, also not after removal. The root is 1. */
export type InodeId = Brand<number, "InodeId">;
/** Names a mount for ever. */
export type MountId = Brand<number, "MountId">;
export type JobId = Brand<number, "JobId">;
/** A client's session: the scope of its sequence numbers. */
export type SessionId = Brand<number, "SessionId">;
/** Chosen by the operator or drawn at random on the first start, kept in the worker's directory. */
export type WorkerId = Brand<string, "WorkerId">;
export type MasterId = Brand<string, "MasterId">;
export type ClusterId = Brand<string, "ClusterId">;
/** Position of a block in its file, from 0. */
export type BlockIndex = Brand<number, "BlockIndex">;

/**
 * Names one immutable content of a file: `"<inodeId>-<contentVersion>"`, e.g. `"42-3"`. It is the unit of caching:
 * blocks, bitmaps and READY belong to a file version, so bytes of two contents can never be mixed.
 */
export type FileVersionId = Brand<string, "FileVersionId">;

export const rootInodeId = 1 as InodeId;

export function fileVersionId(inodeId: InodeId, contentVersion: number): FileVersionId {
  return `${inodeId}-${contentVersion}` as FileVersionId;
}

/** Checks text from outside: it becomes part of files' names, lists and addresses. Throws `invalid`. */
export function parseMasterId(text: unknown): MasterId {
  if (typeof text === "string" && /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text)) return text as MasterId;
  const shown = JSON.stringify(text)?.slice(0, 80);
  throw new HeadpondError(
    "invalid",
    `${shown} is no id of a master: take at most 63 letters, digits, ".", "_" and "-"`,
  );
}

/** Checks text from outside. Throws `invalid`. */
export function parseClusterId(text: string): ClusterId {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text)) return text as ClusterId;
  const shown = JSON.stringify(text.slice(0, 80));
  throw new HeadpondError("invalid", `${shown} is no id of a cluster: take what \`uuidgen\` prints`);
}

/** Checks text from outside. Throws `invalid`. */
export function parseFileVersionId(text: string): {
  id: FileVersionId;
  inodeId: InodeId;
  contentVersion: number;
} {
  const match = /^([1-9][0-9]{0,15})-([1-9][0-9]{0,15})$/.exec(text);
  if (match === null) throw new HeadpondError("invalid", `not a file version id: ${JSON.stringify(text.slice(0, 64))}`);
  return { id: text as FileVersionId, inodeId: Number(match[1]) as InodeId, contentVersion: Number(match[2]) };
}
