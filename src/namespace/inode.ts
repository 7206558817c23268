/**
 * An inode in memory and its row on disk (docs/formats/namespace.md). The object is changed in place, and only after
 * `InodeTable.touch`; the fields of bookkeeping belong to the table and are no part of the state.
 */

import type { Attributes, ContentDigest, FileKind, TtlAction } from "../base/file.ts";
import type { InodeId, MountId } from "../base/ids.ts";
import type { ByteReader, ByteWriter } from "./bytes.ts";
import { readDigest, name as readName, readRecord, writeDigest, writeRecord } from "./command-codec.ts";

export const noAttributes: Attributes = Object.freeze({});

/** Names below a directory that the store does not hold yet; 0: the name is gone. */
export type NameChanges = Map<string, number>;

export class Inode {
  // What every request that passes through a directory looks at comes first, side by side in memory.
  readonly id: InodeId;
  readonly isDirectory: boolean;
  /** False once the cache has let go of the object: whoever kept a reference must look it up again. Bookkeeping, as is `removed`. */
  live = true;
  removed = false;
  referenced = true;
  /** 0: the root of the namespace, or of a removed tree that is not reclaimed yet. */
  parentId = 0;
  /** What is inherited from above, valid while `inheritedEpoch` is the table's epoch; bookkeeping. */
  inheritedEpoch = -1;
  inheritedMountId = 0 as MountId;
  /** The nearest directory above (or itself) that is pinned; 0: none. */
  inheritedPinId = 0;
  inheritedReplicasId = 0;

  name = "";
  version = 0;
  mode = 0;
  owner = "";
  group = "";
  createdMs = 0;
  modifiedMs = 0;
  attributes: Attributes = noAttributes;
  pinned = false;
  /** 0: none. */
  ttlExpiresMs = 0;
  ttlAction: TtlAction = "free";
  replicasMin = 0;
  /** 0: no target of its own. */
  replicasMax = 0;

  // Of a file.
  sizeBytes = 0;
  /** The content that readers see. */
  contentVersion = 0;
  /** Highest content version ever handed out for it; >= contentVersion. */
  contentVersionIssued = 0;
  /** The content that is being written; 0: none. */
  contentVersionPending = 0;
  complete = true;
  etag = "";
  digest: ContentDigest | undefined = undefined;

  // Of a directory.
  childCount = 0;
  /** `version` of the state when a child last went other than by a sync: an older listing must not bring it back. */
  childRemovedVersion = 0;
  /** When a listing of the under store was last taken in as a whole; 0: never. */
  syncedMs = 0;
  /** Of a mount point; 0: none. */
  mountId = 0 as MountId;

  // Bookkeeping of the table.
  dirty = false;
  /** Frozen for a flush: 0 no, 1 its row is not encoded yet, 2 encoded and on its way to the store. */
  frozen: 0 | 1 | 2 = 0;
  /** The row as frozen, when the object changed before the flush came to it. */
  frozenRow: Buffer | undefined = undefined;
  frozenRemoved = false;
  /** Of a directory all of whose names are in the name filter: the filter's epoch. */
  filterEpoch = 0;
  names: NameChanges | undefined = undefined;
  frozenNames: NameChanges | undefined = undefined;
  /** Of a directory: its newest file among the fresh rows, and among those that are frozen; 0: none. */
  freshLast = 0;
  frozenFreshLast = 0;
  /** Names of all these, in order, for listings; undefined after a change. */
  sortedNames: readonly string[] | undefined = undefined;
  /** Hash of the row as counted in the digest. */
  hashLow = 0;
  hashHigh = 0;
  /** The parent's object, as a hint: check `live` and its id. */
  parent: Inode | undefined = undefined;

  constructor(id: InodeId, isDirectory: boolean) {
    this.id = id;
    this.isDirectory = isDirectory;
  }

  get kind(): FileKind {
    return this.isDirectory ? "directory" : "file";
  }
}

const isDirectoryFlag = 1;
const completeFlag = 2;
const pinnedFlag = 4;
const ttlFlag = 8;
const replicasFlag = 16;
const digestFlag = 32;
const attributesFlag = 64;
const etagFlag = 128;
const pendingFlag = 256;
const mountFlag = 512;
const childRemovedFlag = 1024;
const syncedFlag = 2048;
const ttlDeleteFlag = 4096;

export function writeInode(w: ByteWriter, inode: Inode): void {
  const hasAttributes = inode.attributes !== noAttributes;
  w.varint(
    (inode.isDirectory ? isDirectoryFlag : 0) |
      (inode.complete ? completeFlag : 0) |
      (inode.pinned ? pinnedFlag : 0) |
      (inode.ttlExpiresMs !== 0 ? ttlFlag | (inode.ttlAction === "delete" ? ttlDeleteFlag : 0) : 0) |
      (inode.replicasMax !== 0 ? replicasFlag : 0) |
      (inode.digest !== undefined ? digestFlag : 0) |
      (hasAttributes ? attributesFlag : 0) |
      (inode.etag !== "" ? etagFlag : 0) |
      (inode.contentVersionPending !== 0 || inode.contentVersionIssued !== inode.contentVersion ? pendingFlag : 0) |
      (inode.mountId !== 0 ? mountFlag : 0) |
      (inode.childRemovedVersion !== 0 ? childRemovedFlag : 0) |
      (inode.syncedMs !== 0 ? syncedFlag : 0),
  );
  w.varint(inode.parentId);
  w.string(inode.name);
  w.varint(inode.version);
  w.varint(inode.mode);
  w.string(inode.owner);
  w.string(inode.group);
  w.uint48(inode.createdMs);
  w.uint48(inode.modifiedMs);
  if (inode.isDirectory) {
    w.varint(inode.childCount);
    if (inode.childRemovedVersion !== 0) w.varint(inode.childRemovedVersion);
    if (inode.syncedMs !== 0) w.uint48(inode.syncedMs);
    if (inode.mountId !== 0) w.varint(inode.mountId);
  } else {
    w.varint(inode.sizeBytes);
    w.varint(inode.contentVersion);
    if (inode.contentVersionPending !== 0 || inode.contentVersionIssued !== inode.contentVersion) {
      w.varint(inode.contentVersionIssued);
      w.varint(inode.contentVersionPending);
    }
    if (inode.etag !== "") w.string(inode.etag);
    if (inode.digest !== undefined) writeDigest(w, inode.digest);
  }
  if (inode.ttlExpiresMs !== 0) w.uint48(inode.ttlExpiresMs);
  if (inode.replicasMax !== 0) {
    w.varint(inode.replicasMin);
    w.varint(inode.replicasMax);
  }
  if (hasAttributes) writeRecord(w, inode.attributes);
}

/** Throws `corrupt`. */
export function readInode(r: ByteReader, id: InodeId): Inode {
  const flags = r.varint();
  const inode = new Inode(id, (flags & isDirectoryFlag) !== 0);
  inode.parentId = r.varint();
  inode.name = r.string();
  readFields(r, inode, flags);
  return inode;
}

/**
 * Reads a file's row into an object that was used for another one, whose bookkeeping nobody looks at; the name is left out. Returns false of
 * a directory.
 */
export function readFileInto(r: ByteReader, inode: Inode, id: InodeId): boolean {
  const flags = r.varint();
  if ((flags & isDirectoryFlag) !== 0) return false;
  (inode as { id: InodeId }).id = id;
  inode.parentId = r.varint();
  r.skipString();
  readFields(r, inode, flags);
  return true;
}

/** Sets all of an object that is not its name or bookkeeping. */
function readFields(r: ByteReader, inode: Inode, flags: number): void {
  inode.complete = (flags & completeFlag) !== 0;
  inode.pinned = (flags & pinnedFlag) !== 0;
  inode.version = r.varint();
  inode.mode = r.varint();
  inode.owner = readName(r);
  inode.group = readName(r);
  inode.createdMs = r.uint48();
  inode.modifiedMs = r.uint48();
  if (inode.isDirectory) {
    inode.childCount = r.varint();
    inode.childRemovedVersion = (flags & childRemovedFlag) !== 0 ? r.varint() : 0;
    inode.syncedMs = (flags & syncedFlag) !== 0 ? r.uint48() : 0;
    inode.mountId = ((flags & mountFlag) !== 0 ? r.varint() : 0) as MountId;
  } else {
    inode.sizeBytes = r.varint();
    inode.contentVersion = r.varint();
    inode.contentVersionIssued = (flags & pendingFlag) !== 0 ? r.varint() : inode.contentVersion;
    inode.contentVersionPending = (flags & pendingFlag) !== 0 ? r.varint() : 0;
    inode.etag = (flags & etagFlag) !== 0 ? r.string() : "";
    inode.digest = (flags & digestFlag) !== 0 ? readDigest(r) : undefined;
  }
  inode.ttlExpiresMs = (flags & ttlFlag) !== 0 ? r.uint48() : 0;
  inode.ttlAction = (flags & ttlDeleteFlag) !== 0 ? "delete" : "free";
  inode.replicasMin = (flags & replicasFlag) !== 0 ? r.varint() : 0;
  inode.replicasMax = (flags & replicasFlag) !== 0 ? r.varint() : 0;
  inode.attributes = (flags & attributesFlag) !== 0 ? readRecord(r) : noAttributes;
}

/** Where the name's bytes are in the row that `findName` looked at last: an object per call would cost more than the search. */
export let nameStart = 0;
export let nameEnd = 0;

/** Finds the name in a row, and returns the parent's id. The row is one of ours: it is not checked. */
export function findName(row: Buffer, start: number): number {
  let at = start;
  while ((row[at++] as number) >= 0x80);
  let parentId = 0;
  let factor = 1;
  let byte: number;
  do {
    byte = row[at++] as number;
    parentId += (byte & 0x7f) * factor;
    factor *= 128;
  } while (byte >= 0x80);
  let length = 0;
  factor = 1;
  do {
    byte = row[at++] as number;
    length += (byte & 0x7f) * factor;
    factor *= 128;
  } while (byte >= 0x80);
  nameStart = at;
  nameEnd = at + length;
  return parentId;
}

/** Whether the row that begins at `start` is of an inode that has this name in this directory. */
export function rowIsNamed(row: Buffer, start: number, directoryId: number, name: string): boolean {
  if (findName(row, start) !== directoryId) return false;
  const { length } = name;
  // UTF-8 has at least as many bytes as there are units.
  if (nameEnd - nameStart < length) return false;
  for (let i = 0; i < length; i++) {
    const unit = name.charCodeAt(i);
    if (unit >= 0x80) return row.toString("utf8", nameStart, nameEnd) === name;
    if (unit !== row[nameStart + i]) return false;
  }
  return nameEnd - nameStart === length;
}

/**
 * Names in the order of their UTF-8 bytes, which is that of the store: as JavaScript compares, save that surrogates come
 * after all else.
 */
export function compareNames(a: string, b: string): number {
  if (a === b) return 0;
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) {
      if (x >= 0xd800 && y >= 0xd800) {
        const xIsSurrogate = x < 0xe000;
        if (xIsSurrogate !== y < 0xe000) return xIsSurrogate ? 1 : -1;
      }
      return x - y;
    }
  }
  return a.length - b.length;
}
