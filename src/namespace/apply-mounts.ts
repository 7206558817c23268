/** Mounting, and taking listings of under stores into the namespace. */

import type { ListedRow } from "../base/file.ts";
import type { MountId } from "../base/ids.ts";
import { isWithin, joinPath, type Path, rootPath } from "../base/path.ts";
import { type CommandOf, type Failed, type ResultOf, syncRowsMax } from "./command.ts";
import { fail, isFailed, nameProblem, pathProblem, quote } from "./failure.ts";
import type { Inode } from "./inode.ts";
import type { Tree } from "./tree.ts";

export const mountsMax = 1000;
const optionsBytesMax = 64 * 1024;

export function applyMount(tree: Tree, command: CommandOf<"mount">): ResultOf<"mount"> {
  const { registry, state } = tree;
  const { path, uri, options, secretOptions, readOnly } = command;
  if (path === rootPath) return fail("invalid", "nothing can be mounted at /: mount at a directory, e.g. /data");
  if (registry.mountAt(path) !== undefined) return fail("already-exists", `${quote(path)} is a mount already`);
  if (registry.mounts().length >= mountsMax) return fail("overloaded", `there are ${mountsMax} mounts already`);
  if (Buffer.byteLength(uri) + Buffer.byteLength(JSON.stringify(options)) > optionsBytesMax) {
    return fail("invalid", `URI and options of the mount have more than ${optionsBytesMax} bytes`);
  }
  const underWay = registry.intentTouching(path);
  if (underWay !== undefined) {
    return fail(
      "unavailable",
      `a ${underWay.kind} of ${quote(underWay.path)} is under way: ${quote(path)} cannot be mounted until it ends`,
    );
  }
  const existing = tree.resolve(path);
  if (existing !== undefined && !existing.isDirectory)
    return fail("not-a-directory", `${quote(path)} is a file: mount at a directory`);
  if (existing !== undefined && existing.childCount > 0) {
    return fail("not-empty", `${quote(path)} has ${existing.childCount} children: mount at an empty directory`);
  }
  const point = existing ?? tree.makeDirectories(path, { mode: 0o755, owner: "root", group: "root" });
  if (isFailed(point)) return point;
  const id = state.header.nextMountId++ as MountId;
  state.inodes.touch(point);
  point.mountId = id;
  point.version = state.header.version;
  registry.addMount({
    id,
    path,
    inodeId: point.id,
    uri,
    options,
    secretOptions,
    readOnly,
    madeDirectory: existing === undefined,
  });
  tree.changedTree();
  return { ok: true, inodeId: point.id, version: point.version, mountId: id };
}

export function applyUnmount(
  tree: Tree,
  command: CommandOf<"unmount">,
  giveUp: (intentId: number) => void,
): ResultOf<"unmount"> {
  const { registry, state } = tree;
  const { path, force } = command;
  const mount = registry.mountAt(path);
  if (mount === undefined) return fail("not-found", `${quote(path)} is no mount`);
  const inner = registry.mounts().find((other) => other.id !== mount.id && isWithin(other.path, path));
  if (inner !== undefined) return fail("invalid", `the mount ${quote(inner.path)} lies inside: unmount that first`);
  const intents = registry.intents().filter((intent) => intent.mountId === mount.id);
  if (intents.length > 0 && !force) {
    return fail(
      "unavailable",
      `${intents.length} changes below ${quote(path)} are under way: try again, or force it to give them up`,
    );
  }
  for (const intent of intents) giveUp(intent.id);
  const point = state.inodes.get(mount.inodeId) as Inode;
  const parent = tree.parentOf(point) as Inode;
  registry.removeMount(mount.id);
  state.inodes.touch(point);
  point.mountId = 0 as MountId;
  if (point.childCount > 0 || mount.madeDirectory) {
    const { name, mode, owner, group, attributes } = point;
    tree.detach(point, false);
    if (!mount.madeDirectory) tree.add(parent, name, true, { mode, owner, group }).attributes = attributes;
  } else {
    point.version = state.header.version;
    point.syncedMs = 0;
  }
  tree.changedTree();
  return { ok: true, mountId: mount.id };
}

export function applySyncRows(tree: Tree, command: CommandOf<"sync-rows">): ResultOf<"sync-rows"> {
  const { mountId, directoryInodeId, listingBeganVersion: began, rows } = command;
  if (rows.length > syncRowsMax) return fail("invalid", `${rows.length} rows in one sync, more than ${syncRowsMax}`);
  const found = syncedDirectory(tree, directoryInodeId);
  if (isFailed(found)) return found;
  const { directory, path: directoryPath } = found;
  if (tree.state.inodes.mountIdBelow(directory) !== mountId) {
    return fail("not-found", `${quote(directoryPath)} is not under mount ${mountId} any more`);
  }
  const counts: Record<RowOutcome, number> = { added: 0, changed: 0, dropped: 0, same: 0 };
  for (const row of rows) {
    const path = joinPath(directoryPath, row.name);
    // Names that no path can spell are left out: object keys may be anything.
    const impossible = nameProblem(row.name) !== undefined || pathProblem(path) !== undefined;
    counts[impossible ? "dropped" : syncRow(tree, directory, path, row, began)]++;
  }
  const { added, changed, dropped } = counts;
  return { ok: true, added, changed, removed: 0, dropped };
}

type RowOutcome = "added" | "changed" | "dropped" | "same";

function syncRow(tree: Tree, directory: Inode, path: Path, row: ListedRow, began: number): RowOutcome {
  const { state, registry } = tree;
  const child = state.inodes.child(directory, row.name);
  const underWay = registry.intentAbove(path);
  // A file that is being written over keeps its content until then: the one that its store shows. The writer may be dead,
  // or its bytes may be in the store already and its word not here.
  const isWrittenOver = underWay?.kind === "create" && underWay.path === path && child?.complete === true;
  // What else is being changed right now is described by its intent, not by a listing.
  if (underWay !== undefined && !isWrittenOver) return "dropped";
  if (child === undefined) {
    if (directory.childRemovedVersion > began) return "dropped";
    addRow(tree, directory, row);
    return "added";
  }
  if (child.mountId !== 0) return "dropped";
  const isDirectory = row.kind === "directory";
  if (child.isDirectory && isDirectory) return "same";
  if (child.version > began || (child.contentVersionPending !== 0 && !isWrittenOver)) return "dropped";
  if (child.isDirectory !== isDirectory) {
    if (registry.mountWithin(path) !== undefined || registry.intentTouching(path) !== undefined) return "dropped";
    tree.detach(child, true);
    addRow(tree, directory, row);
    return "changed";
  }
  if (child.etag === row.etag && child.sizeBytes === row.sizeBytes) {
    if (row.digest === undefined || child.digest !== undefined) return "same";
    state.inodes.touch(child);
    child.digest = row.digest;
    child.version = state.header.version;
    return "changed";
  }
  state.inodes.touch(child);
  child.contentVersionIssued++;
  child.version = state.header.version;
  setContent(tree, child, row);
  return "changed";
}

function addRow(tree: Tree, directory: Inode, row: ListedRow): void {
  const { owner, group } = directory;
  const isDirectory = row.kind === "directory";
  const inode = tree.add(directory, row.name, isDirectory, { mode: isDirectory ? 0o755 : 0o644, owner, group });
  if (isDirectory) {
    inode.modifiedMs = row.modifiedMs;
    return;
  }
  inode.contentVersionIssued = 1;
  setContent(tree, inode, row);
}

function setContent(tree: Tree, inode: Inode, row: ListedRow): void {
  tree.state.header.sizeBytes += row.sizeBytes - inode.sizeBytes;
  inode.contentVersion = inode.contentVersionIssued;
  inode.sizeBytes = row.sizeBytes;
  inode.etag = row.etag;
  inode.modifiedMs = row.modifiedMs;
  inode.digest = row.digest;
}

export function applySyncEnd(tree: Tree, command: CommandOf<"sync-end">): ResultOf<"sync-end"> {
  const { directoryInodeId, listingBeganVersion: began, goneNames, finished } = command;
  if (goneNames.length > syncRowsMax)
    return fail("invalid", `${goneNames.length} names in one sync-end, more than ${syncRowsMax}`);
  const found = syncedDirectory(tree, directoryInodeId);
  if (isFailed(found)) return found;
  const { directory, path: directoryPath } = found;
  const { state, registry } = tree;
  const done = { ok: true as const, added: 0, changed: 0, removed: 0, dropped: 0 };
  for (const name of goneNames) {
    const child = state.inodes.child(directory, name);
    if (child === undefined) continue;
    const path = joinPath(directoryPath, name);
    if (
      child.version > began ||
      registry.mountWithin(path) !== undefined ||
      registry.intentTouching(path) !== undefined
    ) {
      done.dropped++;
      continue;
    }
    tree.detach(child, true);
    done.removed++;
  }
  if (finished) {
    state.inodes.touch(directory);
    directory.syncedMs = state.header.nowMs;
  }
  return done;
}

function syncedDirectory(tree: Tree, id: number): { readonly directory: Inode; readonly path: Path } | Failed {
  const directory = tree.state.inodes.get(id);
  const path = directory?.isDirectory === true ? tree.pathOf(directory) : undefined;
  if (directory === undefined || path === undefined) return fail("not-found", `inode ${id} is no directory any more`);
  if (tree.state.inodes.mountIdBelow(directory) === 0) return fail("no-mount", `${quote(path)} is under no mount`);
  return { directory, path };
}
