/** Ends of changes under mounts: the under store has them, or never will. */

import type { ErrorDocument } from "../base/errors.ts";
import { frozenAttributes, renamed } from "./apply-files.ts";
import type { CommandOf, CommandResult, Failed, ResultOf } from "./command.ts";
import { fail, isFailed, quote } from "./failure.ts";
import type { Inode } from "./inode.ts";
import { type Intent, undoneError } from "./registry.ts";
import { splitPath, type Tree } from "./tree.ts";

/** Puts the final result in the place of the first one, which said that the request waits. */
export type Amend = (intent: Intent, result: CommandResult) => void;

export function applyFinishIntent(
  tree: Tree,
  command: CommandOf<"finish-intent">,
  amend: Amend,
): ResultOf<"finish-intent"> {
  const intent = tree.registry.intent(command.intentId);
  if (intent === undefined) return fail("not-found", `no change ${command.intentId} is under way: it ended already`);
  if (command.outcome === "undone") {
    giveUpIntent(tree, intent, command.error ?? undoneError, amend);
    return intent.inodeId === undefined ? { ok: true } : { ok: true, inodeId: intent.inodeId };
  }
  if (intent.kind === "create") {
    return fail("invalid", `the content of ${quote(intent.path)} ends with complete, which says what was written`);
  }
  tree.registry.removeIntent(intent);
  const result = finishDone(tree, intent);
  amend(intent, result);
  return "inodeId" in result ? { ok: true, inodeId: result.inodeId } : { ok: true };
}

export function giveUpIntent(tree: Tree, intent: Intent, error: ErrorDocument, amend: Amend): void {
  tree.registry.removeIntent(intent);
  // A create was answered when it began; whoever writes the content learns its end from `complete`.
  if (intent.kind === "create") undoContent(tree, intent);
  else amend(intent, { ok: false, error });
}

function undoContent(tree: Tree, intent: Intent): void {
  const inode = intent.inodeId === undefined ? undefined : tree.state.inodes.get(intent.inodeId);
  if (inode === undefined || inode.contentVersionPending !== intent.contentVersion) return;
  if (!inode.complete) {
    if (tree.pathOf(inode) !== undefined) tree.detach(inode, false);
    return;
  }
  tree.state.inodes.touch(inode);
  inode.contentVersionPending = 0;
  inode.version = tree.state.header.version;
}

function finishDone(tree: Tree, intent: Intent): ResultOf<"mkdir"> | ResultOf<"remove"> | ResultOf<"rename"> {
  switch (intent.kind) {
    case "mkdir":
      return finishMkdir(tree, intent);
    case "remove":
      return finishRemove(tree, intent);
    default:
      return finishRename(tree, intent);
  }
}

function finishMkdir(tree: Tree, intent: Intent): ResultOf<"mkdir"> {
  // A sync may have shown it already.
  const existing = tree.resolve(intent.path);
  if (existing !== undefined) {
    return existing.isDirectory
      ? { ok: true, inodeId: existing.id, version: existing.version, created: true }
      : fail("already-exists", `${quote(intent.path)} exists`);
  }
  const { parent: parentPath, name } = splitPath(intent.path);
  const like = intent.ownership ?? { mode: 0o755, owner: "root", group: "root" };
  const parent = tree.makeDirectories(parentPath, like);
  if (isFailed(parent)) return parent;
  const inode = tree.add(parent, name, true, like);
  inode.attributes = frozenAttributes(intent.attributes ?? {});
  return { ok: true, inodeId: inode.id, version: inode.version, created: true };
}

function finishRemove(tree: Tree, intent: Intent): ResultOf<"remove"> {
  const inode = stillThere(tree, intent);
  const { version } = tree.state.header;
  const done = {
    ok: true as const,
    inodeId: intent.inodeId as Inode["id"],
    version,
    removed: intent.isDirectory ? ("directory" as const) : ("file" as const),
  };
  // Gone already when a sync saw the under store without it: then the wish is fulfilled, too.
  if (inode !== undefined) tree.detach(inode, false);
  return done;
}

function finishRename(tree: Tree, intent: Intent): ResultOf<"rename"> {
  const to = intent.toPath ?? intent.path;
  const inode = stillThere(tree, intent);
  if (inode === undefined) return goneMeanwhile(intent);
  const { parent: parentPath, name } = splitPath(to);
  const parent = tree.directory(parentPath);
  if (parent === undefined) return tree.missing(parentPath);
  const target = tree.state.inodes.child(parent, name);
  if (target !== undefined) tree.detach(target, false);
  tree.move(inode, parent, name);
  return renamed(inode, tree.state.header.version, target);
}

function stillThere(tree: Tree, intent: Intent): Inode | undefined {
  const inode = tree.resolve(intent.path);
  return inode !== undefined && inode.id === intent.inodeId ? inode : undefined;
}

function goneMeanwhile(intent: Intent): Failed {
  return fail("not-found", `${quote(intent.path)} went while it was renamed`);
}
