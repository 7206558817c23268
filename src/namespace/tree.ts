/**
 * Paths, and the elementary changes of the tree that all commands are made of: add, move, detach, free. They keep parents'
 * versions, counts and times, and the cache of resolved paths.
 */

import type { InodeId, MountId } from "../base/ids.ts";
import { joinPath, lastSlash, type Path, pathNames, rootPath } from "../base/path.ts";
import type { Failed } from "./command.ts";
import { fail, nameProblem, pathProblem, quote } from "./failure.ts";
import { Inode } from "./inode.ts";
import { detachedPrefix, keptVersionPrefix, revisionPrefix, rowKey, ttlPrefix } from "./keys.ts";
import { PathCache } from "./path-cache.ts";
import { Registry } from "./registry.ts";
import type { State } from "./state.ts";

export type NewInode = { readonly mode: number; readonly owner: string; readonly group: string };

export class Tree {
  readonly state: State;
  readonly registry: Registry;
  readonly #directories: PathCache;

  constructor(state: State, cachedDirectoriesMax: number) {
    this.state = state;
    this.registry = new Registry(state.rows);
    this.#directories = new PathCache(cachedDirectoriesMax);
  }

  resolve(path: Path): Inode | undefined {
    if (path === rootPath) return this.state.root;
    const slash = lastSlash(path);
    const parent = this.directoryAt(path, slash);
    return parent === undefined ? undefined : this.state.inodes.child(parent, path.slice(slash + 1));
  }

  /** As `resolve`, to be looked at at once (`InodeTable.peek`). */
  peek(path: Path): Inode | undefined {
    if (path === rootPath) return this.state.root;
    const slash = lastSlash(path);
    const parent = this.directoryAt(path, slash);
    return parent === undefined ? undefined : this.state.inodes.peek(parent, path.slice(slash + 1));
  }

  directory(path: Path): Inode | undefined {
    return path === rootPath ? this.state.root : this.directoryAt(path, path.length);
  }

  /** The directory that the first `length` characters of a path name; 0: the root. */
  directoryAt(path: Path, length: number): Inode | undefined {
    if (length === 0) return this.state.root;
    const cached = this.#directories.get(path, length);
    if (cached !== undefined) return cached;
    const own = path.slice(0, length) as Path;
    const inode = this.resolve(own);
    if (inode?.isDirectory !== true) return undefined;
    this.#directories.set(own, inode);
    return inode;
  }

  /** Why `path`, which does not resolve to what was wanted, does not. */
  missing(path: Path): Failed {
    let at: Path = rootPath;
    for (const name of pathNames(path)) {
      const inode = this.resolve(at);
      if (inode === undefined) break;
      if (!inode.isDirectory)
        return fail("not-a-directory", `${quote(at)} is a file: ${quote(path)} cannot be below it`);
      at = joinPath(at, name);
    }
    const inode = this.resolve(at);
    if (inode !== undefined) return fail("not-a-directory", `${quote(path)} is a file`);
    return fail(
      "not-found",
      at === path ? `no such path: ${quote(path)}` : `no such path: ${quote(path)} (${quote(at)} is missing)`,
    );
  }

  /** Where an inode is; undefined once it or something above it was removed. */
  pathOf(inode: Inode): Path | undefined {
    if (inode.id === 1) return rootPath;
    let path = "";
    let at: Inode | undefined = inode;
    while (at !== undefined && at.id !== 1) {
      if (at.parentId === 0) return undefined;
      path = `/${at.name}${path}`;
      at = this.state.inodes.parentOf(at);
    }
    return at === undefined ? undefined : (path as Path);
  }

  parentOf(inode: Inode): Inode | undefined {
    return this.state.inodes.parentOf(inode);
  }

  /** The mount that holds an inode (a mount point is held by its own). */
  mountIdOf(inode: Inode): MountId {
    if (inode.isDirectory) return this.state.inodes.mountIdBelow(inode);
    const parent = this.parentOf(inode);
    return parent === undefined ? (0 as MountId) : this.state.inodes.mountIdBelow(parent);
  }

  /** Makes what is missing of `path`, as directories. */
  makeDirectories(path: Path, like: NewInode): Inode | Failed {
    const existing = this.resolve(path);
    if (existing !== undefined) {
      return existing.isDirectory ? existing : fail("not-a-directory", `${quote(path)} is a file`);
    }
    const problem = pathProblem(path);
    if (problem !== undefined) return fail("invalid", problem);
    const names = pathNames(path);
    // All names are checked first: a refused command leaves nothing behind.
    for (const name of names) {
      const wrong = nameProblem(name);
      if (wrong !== undefined) return fail("invalid", wrong);
    }
    let at: Path = rootPath;
    let directory = this.state.root;
    for (const name of names) {
      const child = this.state.inodes.child(directory, name);
      at = joinPath(at, name);
      if (child === undefined) directory = this.add(directory, name, true, like);
      else if (child.isDirectory) directory = child;
      else return fail("not-a-directory", `${quote(at)} is a file: ${quote(path)} cannot be below it`);
    }
    return directory;
  }

  /** A new inode under a name that is free and was checked. The caller sets what else it needs at once. */
  add(parent: Inode, name: string, isDirectory: boolean, like: NewInode): Inode {
    const { inodes, header } = this.state;
    const inode = new Inode(this.state.newInodeId(), isDirectory);
    inode.parentId = parent.id;
    inode.parent = parent;
    inode.name = name;
    inode.version = header.version;
    inode.mode = like.mode;
    inode.owner = like.owner;
    inode.group = like.group;
    inode.createdMs = header.nowMs;
    inode.modifiedMs = header.nowMs;
    if (isDirectory) header.directoryCount++;
    else header.fileCount++;
    inodes.insert(inode, parent);
    this.#childCame(parent, 1);
    return inode;
  }

  /** Moves an inode to a free name. */
  move(inode: Inode, parent: Inode, name: string): void {
    const { inodes, header } = this.state;
    const from = this.parentOf(inode) as Inode;
    inodes.unlink(from, inode.name);
    inodes.link(parent, name, inode.id);
    inodes.touch(inode);
    inode.parentId = parent.id;
    inode.name = name;
    inode.version = header.version;
    this.#childCame(from, -1);
    from.childRemovedVersion = header.version;
    this.#childCame(parent, 1);
    if (inode.isDirectory) this.changedTree();
  }

  /**
   * Takes an inode, with all below it, out of the tree at once. What has children is reclaimed in slices later. `bySync`: the under store
   * does not have it any more, so no listing can bring it back by mistake.
   */
  detach(inode: Inode, bySync: boolean): void {
    const { inodes, header, rows } = this.state;
    const parent = this.parentOf(inode) as Inode;
    inodes.unlink(parent, inode.name);
    this.#childCame(parent, -1);
    if (!bySync) parent.childRemovedVersion = header.version;
    if (inode.childCount === 0) {
      this.free(inode);
      return;
    }
    inodes.touch(inode);
    inode.parentId = 0;
    inode.version = header.version;
    rows.set(rowKey(detachedPrefix, inode.id), Buffer.alloc(0));
    this.changedTree();
  }

  /** Removes the inode itself, which has no name and no children any more. */
  free(inode: Inode): void {
    const { inodes, header, rows } = this.state;
    if (inode.ttlExpiresMs !== 0) rows.set(rowKey(ttlPrefix, inode.ttlExpiresMs, inode.id), undefined);
    if (inode.isDirectory) {
      header.directoryCount--;
      this.dropRevisions(inode.id, 0);
    } else {
      header.fileCount--;
      header.sizeBytes -= inode.sizeBytes;
    }
    inodes.remove(inode);
  }

  /** Forgets all but the last `keep` revisions of a directory. */
  dropRevisions(directoryId: InodeId, keep: number): void {
    const { rows } = this.state;
    const kept = rows.list(rowKey(revisionPrefix, directoryId), Number.POSITIVE_INFINITY);
    for (const { key, value } of kept.slice(0, Math.max(0, kept.length - keep))) {
      const number = key.readUIntBE(7, 6);
      const { files } = JSON.parse(value.toString("utf8")) as {
        files: { inodeId: number; contentVersion: number }[];
      };
      for (const { inodeId, contentVersion } of files) {
        rows.set(rowKey(keptVersionPrefix, inodeId, contentVersion, directoryId, number), undefined);
      }
      rows.set(key, undefined);
    }
  }

  /** A directory moved, went, or changed what it hands down. */
  changedTree(): void {
    this.state.inodes.epoch++;
    this.#directories.clear();
  }

  #childCame(parent: Inode, change: 1 | -1): void {
    const { inodes, header } = this.state;
    inodes.touch(parent);
    parent.childCount += change;
    parent.version = header.version;
    parent.modifiedMs = header.nowMs;
  }
}

/** Parent and name of a path other than `/`. */
export function splitPath(path: Path): { readonly parent: Path; readonly name: string } {
  const slash = lastSlash(path);
  return { parent: slash === 0 ? rootPath : (path.slice(0, slash) as Path), name: path.slice(slash + 1) };
}
