/** Work in slices: the rows of removed trees, old request ids, TTLs that are over. */

import type { InodeId } from "../base/ids.ts";
import { relativePath } from "../base/path.ts";
import { setTtl } from "./apply-attributes.ts";
import { type CommandOf, type ResultOf, requestIdKeptMs, type TouchedInode } from "./command.ts";
import { fail } from "./failure.ts";
import type { Inode } from "./inode.ts";
import { detachedPrefix, keyNumber, requestIdPrefix, requestTimePrefix, rowKey, textKey, ttlPrefix } from "./keys.ts";
import { intentsMax } from "./registry.ts";
import type { Tree } from "./tree.ts";

export const sliceMax = 10_000;

export function applyReclaim(tree: Tree, command: CommandOf<"reclaim">): ResultOf<"reclaim"> {
  const limit = sliceLimit(command.limit);
  if (limit === undefined) return fail("invalid", `a slice of ${command.limit} is not within 1 to ${sliceMax}`);
  const files: InodeId[] = [];
  let left = limit;
  while (left > 0) {
    const [row] = tree.state.rows.list(detachedPrefix, 1);
    if (row === undefined) break;
    left -= reclaimTree(tree, keyNumber(row.key, 0), row.value.toString("utf8"), left, files);
  }
  left -= forgetRequestIds(tree, left);
  const more = tree.state.rows.list(detachedPrefix, 1).length > 0 || oldRequestIds(tree, 1).length > 0;
  return { ok: true, reclaimed: limit - left, files, more };
}

/** Frees up to `limit` children of a detached directory, and in the end itself. The row remembers how far it came. */
function reclaimTree(tree: Tree, id: number, afterName: string, limit: number, files: InodeId[]): number {
  const { inodes, rows } = tree.state;
  const root = inodes.get(id);
  const key = rowKey(detachedPrefix, id);
  if (root === undefined) {
    rows.set(key, undefined);
    return 1;
  }
  let freed = 0;
  let last = afterName;
  for (const { name, inodeId } of inodes.list(root, afterName === "" ? undefined : afterName, limit)) {
    const child = inodes.get(inodeId);
    inodes.unlink(root, name);
    last = name;
    freed++;
    if (child === undefined) continue;
    if (child.childCount > 0) {
      inodes.touch(child);
      child.parentId = 0;
      rows.set(rowKey(detachedPrefix, child.id), Buffer.alloc(0));
      continue;
    }
    if (!child.isDirectory) files.push(child.id);
    tree.free(child);
  }
  inodes.touch(root);
  root.childCount -= freed;
  if (freed < limit) {
    rows.set(key, undefined);
    tree.free(root);
    return freed + 1;
  }
  rows.set(key, Buffer.from(last));
  return freed;
}

/** How many request ids may be forgotten at once, beside a command that brings a new one. */
export function forgetRequestIds(tree: Tree, limit: number): number {
  const old = oldRequestIds(tree, limit);
  for (const { key, value } of old) {
    tree.state.rows.set(key, undefined);
    tree.state.rows.set(textKey(requestIdPrefix, value.toString("utf8")), undefined);
    tree.state.header.requestIdCount--;
  }
  return old.length;
}

function oldRequestIds(tree: Tree, limit: number): { key: Buffer; value: Buffer }[] {
  if (limit <= 0 || tree.state.header.requestIdCount === 0) return [];
  const { nowMs } = tree.state.header;
  const rows = tree.state.rows.list(requestTimePrefix, limit);
  return rows.filter(({ key }) => keyNumber(key, 0) + requestIdKeptMs < nowMs);
}

export function applyExpireTtl(tree: Tree, command: CommandOf<"expire-ttl">): ResultOf<"expire-ttl"> {
  const limit = sliceLimit(command.limit);
  if (limit === undefined) return fail("invalid", `a slice of ${command.limit} is not within 1 to ${sliceMax}`);
  const { rows, header, inodes } = tree.state;
  const due = rows.list(ttlPrefix, limit + 1).filter(({ key }) => keyNumber(key, 0) <= header.nowMs);
  const free: TouchedInode[] = [];
  const removed: TouchedInode[] = [];
  const intents: number[] = [];
  for (const { key } of due.slice(0, limit)) {
    const inode = inodes.get(keyNumber(key, 1));
    const path = inode === undefined ? undefined : tree.pathOf(inode);
    if (inode === undefined || path === undefined) {
      // Within a removed tree: what is left of it is reclaimed anyhow.
      rows.set(key, undefined);
      if (inode !== undefined) {
        inodes.touch(inode);
        inode.ttlExpiresMs = 0;
        inode.ttlAction = "free";
      }
      continue;
    }
    const action = inode.ttlAction;
    inodes.touch(inode);
    inode.version = header.version;
    setTtl(tree, inode, 0, "free");
    const touched = { inodeId: inode.id, path };
    if (action === "free") {
      free.push(touched);
      continue;
    }
    // A mount made below it since keeps a directory alive.
    if (tree.registry.mountWithin(path) !== undefined) continue;
    const intentId = beginRemoval(tree, inode, touched);
    if (intentId === undefined) {
      tree.detach(inode, false);
      removed.push(touched);
    } else if (intentId !== 0) {
      intents.push(intentId);
    }
  }
  return { ok: true, free, removed, intents, more: due.length > limit };
}

/** The intent of removing what lies under a mount; undefined outside mounts; 0 when it must wait, with its TTL put off. */
function beginRemoval(tree: Tree, inode: Inode, { path, inodeId }: TouchedInode): number | undefined {
  const { header } = tree.state;
  const mount = tree.registry.mount(tree.mountIdOf(inode));
  if (mount === undefined) return undefined;
  if (tree.registry.intentTouching(path) !== undefined || tree.registry.intentCount >= intentsMax || mount.readOnly) {
    setTtl(tree, inode, header.nowMs + ttlPutOffMs, "delete");
    return 0;
  }
  // Several may begin in one command, so its version alone is no id.
  const id = header.nextIntentId++;
  tree.registry.addIntent({
    id,
    kind: "remove",
    mountId: mount.id,
    path,
    key: relativePath(path, mount.path),
    inodeId,
    isDirectory: inode.isDirectory,
    recursive: true,
    startedMs: header.nowMs,
  });
  return id;
}

const ttlPutOffMs = 60_000;

function sliceLimit(limit: number): number | undefined {
  return Number.isSafeInteger(limit) && limit >= 1 && limit <= sliceMax ? limit : undefined;
}
