/** What directories hand down to all below them: mount, pin, replication target. Kept on their objects, valid for one epoch of the tree. */

import type { MountId } from "../base/ids.ts";
import type { Inode } from "./inode.ts";

/** Brings the `inherited` fields of a directory, and of those above it, up to date. */
export function inherit(directory: Inode, epoch: number, get: (id: number) => Inode | undefined): void {
  // Without recursion: renames can nest directories deeper than any path that names them.
  const stale: Inode[] = [];
  let at: Inode | undefined = directory;
  while (at !== undefined && at.inheritedEpoch !== epoch) {
    stale.push(at);
    at = at.parentId === 0 ? undefined : get(at.parentId);
  }
  for (let i = stale.length - 1; i >= 0; i--) {
    const inode = stale[i] as Inode;
    const parent: Inode | undefined = i === stale.length - 1 ? at : stale[i + 1];
    inode.inheritedMountId = inode.mountId !== 0 ? inode.mountId : (parent?.inheritedMountId ?? (0 as MountId));
    inode.inheritedPinId = inode.pinned ? inode.id : (parent?.inheritedPinId ?? 0);
    inode.inheritedReplicasId = inode.replicasMax !== 0 ? inode.id : (parent?.inheritedReplicasId ?? 0);
    inode.inheritedEpoch = epoch;
  }
}
