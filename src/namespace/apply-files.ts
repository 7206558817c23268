/** The commands that make, move and remove files and directories. Under a mount they begin an intent (apply-intents.ts). */

import type { MountId } from "../base/ids.ts";
import { isWithin, lastSlash, type Path, relativePath, rootPath } from "../base/path.ts";
import type { CommandOf, Failed, ResultOf } from "./command.ts";
import { attributesProblem, fail, isFailed, nameProblem, pathProblem, quote } from "./failure.ts";
import { type Inode, noAttributes } from "./inode.ts";
import { type Intent, intentsMax, type MountRow } from "./registry.ts";
import { splitPath, type Tree } from "./tree.ts";

export function applyCreate(tree: Tree, command: CommandOf<"create">): ResultOf<"create"> {
  const { state } = tree;
  const { path } = command;
  if (path === rootPath) return directoryInTheWay(path, command.exclusive);
  const slash = lastSlash(path);
  const name = path.slice(slash + 1);
  let parent = tree.directoryAt(path, slash);
  if (parent === undefined && !command.recursive) return tree.missing(splitPath(path).parent);
  if (parent !== undefined) {
    const existing = state.inodes.child(parent, name);
    if (existing !== undefined) return createOver(tree, command, parent, existing);
  }
  const problem = nameProblem(name) ?? pathProblem(path) ?? attributesProblem(command.attributes);
  if (problem !== undefined) return fail("invalid", problem);
  const mount = parent === undefined ? tree.registry.mountHolding(path) : mountOf(tree, parent);
  if (mount === undefined && command.forWriting) return noMount(path);
  if (mount !== undefined) {
    const refusal = refuseChange(tree, mount, path, false);
    if (refusal !== undefined) return refusal;
  }
  if (parent === undefined) {
    const made = tree.makeDirectories(splitPath(path).parent, { ...command, mode: directoryMode(command.mode) });
    if (isFailed(made)) return made;
    parent = made;
  }
  const inode = tree.add(parent, name, false, command);
  inode.attributes = frozenAttributes(command.attributes);
  inode.contentVersion = 1;
  inode.contentVersionIssued = 1;
  if (mount === undefined) {
    return { ok: true, inodeId: inode.id, version: inode.version, created: true, contentVersion: 1 };
  }
  inode.complete = false;
  inode.contentVersionPending = 1;
  return beginContent(tree, command, mount, inode, true);
}

function createOver(tree: Tree, command: CommandOf<"create">, parent: Inode, existing: Inode): ResultOf<"create"> {
  const { path } = command;
  if (existing.isDirectory) return directoryInTheWay(path, command.exclusive);
  if (command.exclusive) return fail("already-exists", `${quote(path)} exists`);
  const mount = mountOf(tree, parent);
  if (mount === undefined && command.forWriting) return noMount(path);
  if (mount === undefined || !command.forWriting) {
    const { id: inodeId, version, contentVersion } = existing;
    return { ok: true, inodeId, version, created: false, contentVersion };
  }
  // Two writers of one path: the later one wins, as in an object store, and the earlier one's `complete` is refused.
  const open = tree.registry.intentAt(path);
  const superseded = open?.kind === "create" ? open : undefined;
  const refusal = refuseChange(tree, mount, path, false, superseded?.id);
  if (refusal !== undefined) return refusal;
  if (superseded !== undefined) tree.registry.removeIntent(superseded);
  tree.state.inodes.touch(existing);
  existing.contentVersionIssued++;
  existing.contentVersionPending = existing.contentVersionIssued;
  existing.version = tree.state.header.version;
  return beginContent(tree, command, mount, existing, false);
}

function noMount(path: Path): Failed {
  return fail("no-mount", `${quote(path)} is under no mount: it can hold no bytes; mount an under store above it`);
}

function beginContent(
  tree: Tree,
  command: CommandOf<"create">,
  mount: MountRow,
  inode: Inode,
  created: boolean,
): ResultOf<"create"> {
  const key = relativePath(command.path, mount.path);
  const contentVersion = inode.contentVersionPending;
  const intentId = beginIntent(tree, command, {
    kind: "create",
    mountId: mount.id,
    path: command.path,
    key,
    inodeId: inode.id,
    isDirectory: false,
    contentVersion,
  });
  const { id: inodeId, version } = inode;
  return { ok: true, inodeId, version, created, contentVersion, mountId: mount.id, key, intentId };
}

export function applyComplete(tree: Tree, command: CommandOf<"complete">): ResultOf<"complete"> {
  const { state, registry } = tree;
  const { inodeId, contentVersion } = command;
  const inode = state.inodes.get(inodeId);
  const path = inode === undefined || inode.isDirectory ? undefined : tree.pathOf(inode);
  if (inode === undefined || path === undefined) {
    return fail("not-found", `inode ${inodeId} is no file: it was removed while it was written`);
  }
  if (inode.contentVersionPending !== contentVersion) {
    if (inode.complete && inode.contentVersion === contentVersion && inode.etag === command.etag) {
      return { ok: true, inodeId, version: inode.version };
    }
    if (tree.mountIdOf(inode) === 0) return noMount(path);
    return fail(
      "version-mismatch",
      `${quote(path)}: content ${contentVersion} is not being written (superseded or given up)`,
      {
        contentVersion: inode.contentVersion,
      },
    );
  }
  state.inodes.touch(inode);
  state.header.sizeBytes += command.sizeBytes - inode.sizeBytes;
  inode.contentVersion = contentVersion;
  inode.contentVersionPending = 0;
  inode.complete = true;
  inode.sizeBytes = command.sizeBytes;
  inode.etag = command.etag;
  inode.digest = command.digest;
  inode.modifiedMs = command.modifiedMs;
  inode.version = state.header.version;
  const intent = registry.intentAt(path);
  if (intent?.kind === "create" && intent.inodeId === inodeId) registry.removeIntent(intent);
  return { ok: true, inodeId, version: inode.version };
}

export function applyMkdir(tree: Tree, command: CommandOf<"mkdir">): ResultOf<"mkdir"> {
  const { path } = command;
  const existing = tree.resolve(path);
  if (existing !== undefined) {
    if (!existing.isDirectory || command.exclusive || !command.recursive)
      return fail("already-exists", `${quote(path)} exists`);
    return { ok: true, inodeId: existing.id, version: existing.version, created: false };
  }
  const { parent: parentPath, name } = splitPath(path);
  let parent = tree.directory(parentPath);
  if (parent === undefined && !command.recursive) return tree.missing(parentPath);
  const problem = nameProblem(name) ?? pathProblem(path) ?? attributesProblem(command.attributes);
  if (problem !== undefined) return fail("invalid", problem);
  const mount = parent === undefined ? tree.registry.mountHolding(path) : mountOf(tree, parent);
  if (mount !== undefined) {
    const refusal = refuseChange(tree, mount, path, false);
    if (refusal !== undefined) return refusal;
  }
  if (parent === undefined) {
    const made = tree.makeDirectories(parentPath, command);
    if (isFailed(made)) return made;
    parent = made;
  }
  if (mount === undefined) {
    const inode = tree.add(parent, name, true, command);
    inode.attributes = frozenAttributes(command.attributes);
    return { ok: true, inodeId: inode.id, version: inode.version, created: true };
  }
  const { header } = tree.state;
  const intentId = beginIntent(tree, command, {
    kind: "mkdir",
    mountId: mount.id,
    path,
    key: relativePath(path, mount.path),
    isDirectory: true,
    ownership: { mode: command.mode, owner: command.owner, group: command.group },
    attributes: command.attributes,
  });
  return { ok: true, inodeId: parent.id, version: header.version, created: true, intentId };
}

export function applyRemove(tree: Tree, command: CommandOf<"remove">): ResultOf<"remove"> {
  const { path, recursive } = command;
  const inode = tree.resolve(path);
  if (inode === undefined) return tree.missing(path);
  if (path === rootPath) return fail("invalid", "the root directory cannot be removed");
  if (command.ifVersion !== undefined && command.ifVersion !== inode.version)
    return versionMismatch(path, inode, command.ifVersion);
  if (command.expect === "file" && inode.isDirectory) return fail("is-a-directory", `${quote(path)} is a directory`);
  if (command.expect === "directory" && !inode.isDirectory) return fail("not-a-directory", `${quote(path)} is a file`);
  if (inode.childCount > 0 && !recursive) {
    return fail("not-empty", `${quote(path)} has ${inode.childCount} children: remove it recursively`);
  }
  const mountWithin = tree.registry.mountWithin(path);
  if (mountWithin !== undefined) {
    return fail("invalid", `${quote(path)} holds the mount ${quote(mountWithin.path)}: unmount that first`);
  }
  const { id: inodeId, kind } = inode;
  const { header } = tree.state;
  const mount = mountOf(tree, tree.parentOf(inode) as Inode);
  if (mount === undefined) {
    tree.detach(inode, false);
    return { ok: true, inodeId, version: header.version, removed: kind };
  }
  const refusal = refuseChange(tree, mount, path, true);
  if (refusal !== undefined) return refusal;
  const intentId = beginIntent(tree, command, {
    kind: "remove",
    mountId: mount.id,
    path,
    key: relativePath(path, mount.path),
    inodeId,
    isDirectory: inode.isDirectory,
    recursive,
  });
  return { ok: true, inodeId, version: header.version, removed: kind, intentId };
}

export function applyRename(tree: Tree, command: CommandOf<"rename">): ResultOf<"rename"> {
  const { from, to, replace } = command;
  const inode = tree.resolve(from);
  if (inode === undefined) return tree.missing(from);
  if (from === rootPath || to === rootPath) return fail("invalid", "the root directory cannot be renamed or replaced");
  const { parent: parentPath, name } = splitPath(to);
  const problem = nameProblem(name) ?? pathProblem(to);
  if (problem !== undefined) return fail("invalid", problem);
  const parent = tree.directory(parentPath);
  if (parent === undefined) return tree.missing(parentPath);
  const { header, inodes } = tree.state;
  if (from === to) {
    return replace
      ? { ok: true, inodeId: inode.id, version: inode.version }
      : fail("already-exists", `${quote(to)} exists`);
  }
  if (isWithin(to, from)) return fail("invalid", `${quote(from)} cannot be moved into itself (${quote(to)})`);
  const moved = tree.registry.mountWithin(from) ?? tree.registry.mountAt(to);
  if (moved !== undefined) {
    return fail(
      "invalid",
      `${quote(moved.path)} is a mount: unmount it before renaming ${quote(from)} to ${quote(to)}`,
    );
  }
  const target = inodes.child(parent, name);
  if (target !== undefined) {
    const refusal = refuseReplacing(inode, target, to, replace);
    if (refusal !== undefined) return refusal;
  }
  const fromMountId = inodes.mountIdBelow(tree.parentOf(inode) as Inode);
  const toMountId = inodes.mountIdBelow(parent);
  if (fromMountId !== toMountId) {
    const where = (id: MountId): string =>
      id === 0 ? "no mount" : `mount ${quote(tree.registry.mount(id)?.path ?? "")}`;
    return fail(
      "unsupported",
      `${quote(from)} is under ${where(fromMountId)}, ${quote(to)} under ${where(toMountId)}: copy and remove instead`,
    );
  }
  const mount = tree.registry.mount(fromMountId);
  if (mount === undefined) {
    if (target !== undefined) tree.detach(target, false);
    tree.move(inode, parent, name);
    return renamed(inode, header.version, target);
  }
  const refusal = refuseChange(tree, mount, from, true) ?? refuseChange(tree, mount, to, true);
  if (refusal !== undefined) return refusal;
  const intentId = beginIntent(tree, command, {
    kind: "rename",
    mountId: mount.id,
    path: from,
    key: relativePath(from, mount.path),
    toPath: to,
    toKey: relativePath(to, mount.path),
    inodeId: inode.id,
    isDirectory: inode.isDirectory,
    replace,
  });
  return { ...renamed(inode, header.version, target), intentId };
}

export function renamed(inode: Inode, version: number, target: Inode | undefined): Exclude<ResultOf<"rename">, Failed> {
  const done = { ok: true as const, inodeId: inode.id, version };
  return target === undefined ? done : { ...done, replacedInodeId: target.id };
}

function refuseReplacing(inode: Inode, target: Inode, to: Path, replace: boolean): Failed | undefined {
  if (!replace) return fail("already-exists", `${quote(to)} exists`);
  if (inode.isDirectory && !target.isDirectory)
    return fail("not-a-directory", `${quote(to)} is a file: a directory cannot replace it`);
  if (!inode.isDirectory && target.isDirectory)
    return fail("is-a-directory", `${quote(to)} is a directory: a file cannot replace it`);
  if (target.childCount > 0)
    return fail("not-empty", `${quote(to)} has ${target.childCount} children: it cannot be replaced`);
  return undefined;
}

/** Why a change under a mount cannot begin. `tree`: it also concerns what lies below `path`. */
function refuseChange(
  tree: Tree,
  mount: MountRow,
  path: Path,
  wholeTree: boolean,
  exceptIntentId?: number,
): Failed | undefined {
  if (mount.readOnly) return fail("read-only", `${quote(path)} is under the read-only mount ${quote(mount.path)}`);
  const other = wholeTree ? tree.registry.intentTouching(path) : tree.registry.intentAbove(path);
  if (other !== undefined && other.id !== exceptIntentId) {
    return fail(
      "unavailable",
      `a ${other.kind} of ${quote(other.path)} is under way: ${quote(path)} cannot change until it ends`,
      {
        intentId: other.id,
      },
    );
  }
  if (tree.registry.intentCount >= intentsMax) {
    return fail("overloaded", `${intentsMax} changes under mounts are under way already: try again later`);
  }
  return undefined;
}

export function versionMismatch(path: Path, inode: Inode, expected: number): Failed {
  return fail("version-mismatch", `${quote(path)}: version is ${inode.version}, not ${expected}`, {
    version: inode.version,
  });
}

/** The mount that holds what lies in the directory. */
function mountOf(tree: Tree, directory: Inode): MountRow | undefined {
  const id = tree.state.inodes.mountIdBelow(directory);
  return id === 0 ? undefined : tree.registry.mount(id);
}

function directoryInTheWay(path: Path, exclusive: boolean): Failed {
  return exclusive
    ? fail("already-exists", `${quote(path)} exists`)
    : fail("is-a-directory", `${quote(path)} is a directory`);
}

/** Parents that a create makes on the way can be entered by whoever can read the file. */
function directoryMode(fileMode: number): number {
  return fileMode | ((fileMode & 0o444) >> 2);
}

export function frozenAttributes(attributes: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  for (const _key in attributes) return attributes;
  return noAttributes;
}

type BeginningIntent = Omit<Intent, "id" | "startedMs" | "origin" | "requestId">;

/** Returns the id of the new intent, which remembers who asked: its end decides the answer. */
function beginIntent(
  tree: Tree,
  command: CommandOf<"create" | "mkdir" | "remove" | "rename">,
  intent: BeginningIntent,
): number {
  const { header } = tree.state;
  const id = header.nextIntentId++;
  tree.registry.addIntent({
    id,
    ...intent,
    startedMs: header.nowMs,
    ...(command.origin === undefined ? {} : { origin: command.origin }),
    ...(command.requestId === undefined ? {} : { requestId: command.requestId }),
  });
  return id;
}
