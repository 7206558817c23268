/** What the outside sees of an inode: its status, and the descriptor of a file version. */

import { blockSizeBytesDefault } from "../base/blocks.ts";
import type { FileDescriptor, FileStatus } from "../base/file.ts";
import { fileVersionId, type InodeId } from "../base/ids.ts";
import { joinPath, type Path, relativePath, rootPath } from "../base/path.ts";
import type { RevisionFile } from "./command.ts";
import type { Inode } from "./inode.ts";
import { keptVersionPrefix, keyNumber, rowKey } from "./keys.ts";
import type { Tree } from "./tree.ts";

/** `path` must be where the inode is. */
export function statusOf(tree: Tree, inode: Inode, path: Path): FileStatus {
  const { inodes } = tree.state;
  const { isDirectory } = inode;
  const holder = isDirectory ? inode : tree.parentOf(inode);
  if (holder !== undefined) inodes.inherit(holder);
  const mountId = holder?.inheritedMountId ?? 0;
  const replicasId = inode.replicasMax !== 0 ? inode.id : (holder?.inheritedReplicasId ?? 0);
  const status: FileStatus = {
    path,
    kind: isDirectory ? "directory" : "file",
    inodeId: inode.id,
    version: inode.version,
    sizeBytes: inode.sizeBytes,
    mode: inode.mode,
    owner: inode.owner,
    group: inode.group,
    createdMs: inode.createdMs,
    modifiedMs: inode.modifiedMs,
    attributes: inode.attributes,
    cachedBytes: 0,
    contentVersion: inode.contentVersion,
    complete: inode.complete,
    pinned: inode.pinned || (holder !== undefined && holder.inheritedPinId !== 0),
  };
  if (isDirectory) status.childCount = inode.childCount;
  if (inode.etag !== "") status.etag = inode.etag;
  if (inode.digest !== undefined) status.digest = inode.digest;
  if (inode.ttlExpiresMs !== 0) status.ttl = { expiresMs: inode.ttlExpiresMs, action: inode.ttlAction };
  if (mountId !== 0) {
    const mount = tree.registry.mount(mountId);
    if (mount !== undefined) status.mount = mount.path;
  }
  if (replicasId !== 0) {
    const from = replicasId === inode.id ? inode : inodes.get(replicasId);
    if (from !== undefined) status.replicas = { min: from.replicasMin, max: from.replicasMax };
  }
  return status;
}

/** The descriptor of the content that readers of an inode see now. */
export function describeVersion(tree: Tree, inodeId: InodeId, contentVersion: number): FileDescriptor | undefined {
  const inode = tree.state.inodes.get(inodeId);
  if (inode === undefined || inode.isDirectory || !inode.complete || inode.contentVersion !== contentVersion)
    return undefined;
  const path = tree.pathOf(inode);
  const mount = tree.registry.mount(tree.mountIdOf(inode));
  if (path === undefined || mount === undefined) return undefined;
  const pinned = inode.pinned || pinIdBelow(tree, tree.parentOf(inode)) !== 0;
  const descriptor: FileDescriptor = {
    id: fileVersionId(inodeId, contentVersion),
    inodeId,
    contentVersion,
    path,
    sizeBytes: inode.sizeBytes,
    blockSizeBytes: blockSizeBytesDefault,
    mountId: mount.id,
    key: relativePath(path, mount.path),
    etag: inode.etag,
    modifiedMs: inode.modifiedMs,
    pinned,
  };
  if (inode.digest !== undefined) descriptor.digest = inode.digest;
  return descriptor;
}

/** The descriptor of a content that only a kept revision still names. */
export function describeKept(tree: Tree, inodeId: InodeId, contentVersion: number): FileDescriptor | undefined {
  const [row] = tree.state.rows.list(rowKey(keptVersionPrefix, inodeId, contentVersion), 1);
  if (row === undefined) return undefined;
  const file = JSON.parse(row.value.toString("utf8")) as RevisionFile;
  const directory = tree.state.inodes.get(keyNumber(row.key, 2));
  const directoryPath = directory === undefined ? undefined : tree.pathOf(directory);
  if (directory === undefined || directoryPath === undefined) return undefined;
  const { sizeBytes, mountId, key, etag, modifiedMs, digest } = file;
  const descriptor: FileDescriptor = {
    id: fileVersionId(inodeId, contentVersion),
    inodeId,
    contentVersion,
    path: joinPath(directoryPath ?? rootPath, file.path),
    sizeBytes,
    blockSizeBytes: blockSizeBytesDefault,
    mountId,
    key,
    etag,
    modifiedMs,
    pinned: pinIdBelow(tree, directory) !== 0,
  };
  if (digest !== undefined) descriptor.digest = digest;
  return descriptor;
}

/** The directory that pins what lies in `directory`; 0: none. */
export function pinIdBelow(tree: Tree, directory: Inode | undefined): number {
  if (directory === undefined) return 0;
  tree.state.inodes.inherit(directory);
  return directory.inheritedPinId;
}
