/** The commands that change what an inode says of itself: attributes, pin, TTL, replicas. None touches an under store. */

import { rootPath } from "../base/path.ts";
import { frozenAttributes, versionMismatch } from "./apply-files.ts";
import type { CommandOf, ResultOf } from "./command.ts";
import { pinIdBelow } from "./describe.ts";
import { attributesProblem, fail, quote } from "./failure.ts";
import type { Inode } from "./inode.ts";
import { rowKey, ttlPrefix } from "./keys.ts";
import type { Tree } from "./tree.ts";

const ttlMaxMs = 100 * 365 * 86_400_000;
const replicasMax = 10_000;
const modeMax = 0o7777;

export function applySetAttributes(tree: Tree, command: CommandOf<"set-attributes">): ResultOf<"set-attributes"> {
  const { path, ifVersion } = command;
  const inode = tree.resolve(path);
  if (inode === undefined) return tree.missing(path);
  if (ifVersion !== undefined && ifVersion !== inode.version) return versionMismatch(path, inode, ifVersion);
  if (command.mode !== undefined && (command.mode < 0 || command.mode > modeMax)) {
    return fail("invalid", `mode ${command.mode} is not within 0 to 0o7777`);
  }
  const setKeys = Object.keys(command.set);
  let { attributes } = inode;
  if (setKeys.length > 0 || command.remove.length > 0) {
    const changed = new Map(Object.entries(attributes));
    for (const key of command.remove) changed.delete(key);
    for (const key of setKeys) changed.set(key, command.set[key] as string);
    attributes = Object.fromEntries([...changed].sort(([a], [b]) => (a < b ? -1 : 1)));
    const problem = attributesProblem(attributes);
    if (problem !== undefined) return fail("invalid", `${quote(path)}: ${problem}`);
  }
  change(tree, inode);
  inode.attributes = frozenAttributes(attributes);
  if (command.mode !== undefined) inode.mode = command.mode;
  if (command.owner !== undefined) inode.owner = command.owner;
  if (command.group !== undefined) inode.group = command.group;
  if (command.modifiedMs !== undefined) inode.modifiedMs = command.modifiedMs;
  return done(inode);
}

export function applyPin(tree: Tree, command: CommandOf<"pin">): ResultOf<"pin"> {
  const { path, pinned } = command;
  const inode = tree.resolve(path);
  if (inode === undefined) return tree.missing(path);
  if (!pinned && !inode.pinned) {
    const by = pinnedAbove(tree, inode);
    if (by !== undefined) return fail("invalid", `${quote(path)} is pinned by its directory ${quote(by)}: unpin that`);
  }
  if (inode.pinned === pinned) return done(inode);
  change(tree, inode);
  inode.pinned = pinned;
  if (inode.isDirectory) tree.state.inodes.epoch++;
  return done(inode);
}

export function applyTtl(tree: Tree, command: CommandOf<"ttl">): ResultOf<"ttl"> {
  const { path, ttlMs, action } = command;
  const inode = tree.resolve(path);
  if (inode === undefined) return tree.missing(path);
  if (ttlMs !== null && !(ttlMs >= 0 && ttlMs <= ttlMaxMs))
    return fail("invalid", `a TTL of ${ttlMs} ms is not within 0 to 100 years`);
  if (ttlMs !== null && action === "delete") {
    if (path === rootPath) return fail("invalid", "the root directory cannot be deleted by a TTL");
    const mountWithin = tree.registry.mountWithin(path);
    if (mountWithin !== undefined) {
      return fail(
        "invalid",
        `${quote(path)} holds the mount ${quote(mountWithin.path)}: it cannot be deleted by a TTL`,
      );
    }
    const mount = tree.registry.mount(tree.mountIdOf(inode));
    if (mount?.readOnly === true)
      return fail("read-only", `${quote(path)} is under the read-only mount ${quote(mount.path)}`);
  }
  change(tree, inode);
  setTtl(tree, inode, ttlMs === null ? 0 : tree.state.header.nowMs + Math.floor(ttlMs), action);
  return done(inode);
}

/** `expiresMs` 0: none. The inode must be touched. */
export function setTtl(tree: Tree, inode: Inode, expiresMs: number, action: "free" | "delete"): void {
  const { rows } = tree.state;
  if (inode.ttlExpiresMs !== 0) rows.set(rowKey(ttlPrefix, inode.ttlExpiresMs, inode.id), undefined);
  if (expiresMs !== 0) rows.set(rowKey(ttlPrefix, expiresMs, inode.id), Buffer.alloc(0));
  inode.ttlExpiresMs = expiresMs;
  inode.ttlAction = expiresMs === 0 ? "free" : action;
}

export function applyReplicas(tree: Tree, command: CommandOf<"replicas">): ResultOf<"replicas"> {
  const { path, min, max } = command;
  const inode = tree.resolve(path);
  if (inode === undefined) return tree.missing(path);
  if (!Number.isSafeInteger(min) || !Number.isSafeInteger(max) || min < 0 || max < min || max > replicasMax) {
    return fail("invalid", `${min} to ${max} replicas: give whole numbers, 0 <= min <= max <= ${replicasMax}`);
  }
  change(tree, inode);
  inode.replicasMin = min;
  inode.replicasMax = max;
  if (inode.isDirectory) tree.state.inodes.epoch++;
  return done(inode);
}

/** The path of the directory above that pins an inode. */
function pinnedAbove(tree: Tree, inode: Inode): string | undefined {
  const id = pinIdBelow(tree, tree.parentOf(inode));
  const by = id === 0 ? undefined : tree.state.inodes.get(id);
  return by === undefined ? undefined : tree.pathOf(by);
}

function change(tree: Tree, inode: Inode): void {
  tree.state.inodes.touch(inode);
  inode.version = tree.state.header.version;
}

function done(inode: Inode): { ok: true; inodeId: Inode["id"]; version: number } {
  return { ok: true, inodeId: inode.id, version: inode.version };
}
