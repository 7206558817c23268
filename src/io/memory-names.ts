/**
 * What a `MemoryDisk` consists of: files with a durable and a current content, and a tree of names with a durable and a
 * current form. Every change since the last sync is kept in order, so that a crash can choose among them.
 */

import type { Random } from "../base/random.ts";
import { SparseBytes } from "./sparse-bytes.ts";

/** The unit that a disk writes whole or not at all. */
const sectorBytes = 512;

type DataChange =
  | { readonly kind: "write"; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly sizeBytes: number };

export class MemoryFileNode {
  readonly inode: number;
  modifiedMs: number;
  /** What readers see. */
  content = new SparseBytes();
  /** What is certain to survive: `content` without the changes in `#unsynced`. */
  #durable = new SparseBytes();
  #unsynced: DataChange[] = [];

  constructor(inode: number, nowMs: number) {
    this.inode = inode;
    this.modifiedMs = nowMs;
  }

  write(bytes: Uint8Array, position: number, nowMs: number): void {
    this.content.write(bytes, position);
    // Not slice(): that of a Buffer is a view, and its owner goes on writing into it.
    this.#unsynced.push({ kind: "write", position, bytes: new Uint8Array(bytes) });
    this.modifiedMs = nowMs;
  }

  truncate(sizeBytes: number, nowMs: number): void {
    this.content.truncate(sizeBytes);
    this.#unsynced.push({ kind: "truncate", sizeBytes });
    this.modifiedMs = nowMs;
  }

  sync(): void {
    for (const change of this.#unsynced) {
      if (change.kind === "write") this.#durable.write(change.bytes, change.position);
      else this.#durable.truncate(change.sizeBytes);
    }
    this.#unsynced = [];
  }

  crash(random: Random): void {
    for (const change of this.#unsynced) {
      const fate = random.pick(["kept", "lost", "torn"] as const);
      if (fate === "lost") continue;
      if (change.kind === "truncate") this.#durable.truncate(change.sizeBytes);
      else if (fate === "kept") this.#durable.write(change.bytes, change.position);
      else this.#tear(change.bytes, change.position, random);
    }
    this.#unsynced = [];
    this.content = this.#durable.copy();
  }

  #tear(bytes: Uint8Array, position: number, random: Random): void {
    for (let offset = 0; offset < bytes.length; ) {
      const at = position + offset;
      const sector = bytes.subarray(offset, offset + sectorBytes - (at % sectorBytes));
      if (random.chance(0.5)) this.#durable.write(sector, at);
      offset += sector.length;
    }
  }
}

export class MemoryDirectory {
  readonly inode: number;
  entries = new Map<string, MemoryNode>();
  durable = new Map<string, MemoryNode>();

  constructor(inode: number) {
    this.inode = inode;
  }
}

export type MemoryNode = MemoryFileNode | MemoryDirectory;

/** `name` in `directory` now means `node`, or nothing. */
type NameChange = {
  readonly directory: MemoryDirectory;
  readonly name: string;
  readonly node: MemoryNode | undefined;
};

type Found = { readonly directory: MemoryDirectory; readonly name: string; readonly node: MemoryNode | undefined };

export class NameTree {
  readonly #root = new MemoryDirectory(1);
  /** Groups of changes, each atomic, in the order in which they were made. */
  #unsynced: (readonly NameChange[])[] = [];
  #nextInode = 2;

  makeFile(nowMs: number): MemoryFileNode {
    return new MemoryFileNode(this.#nextInode++, nowMs);
  }

  /** Changes names, all or none. */
  change(group: readonly NameChange[]): void {
    apply(group, (directory) => directory.entries);
    this.#unsynced.push(group);
  }

  /** `node` is absent if only the last name does not exist. Throws `ENOENT` or `ENOTDIR` for the names before it. */
  find(path: string, operation: string): Found {
    const names = path.split("/").filter((name) => name !== "" && name !== ".");
    const last = names.pop();
    if (last === undefined) return { directory: this.#root, name: "", node: this.#root };
    let directory = this.#root;
    for (const name of names) {
      const next = directory.entries.get(name);
      if (next === undefined) throw diskError("ENOENT", operation, path);
      if (!(next instanceof MemoryDirectory)) throw diskError("ENOTDIR", operation, path);
      directory = next;
    }
    return { directory, name: last, node: directory.entries.get(last) };
  }

  findIfAny(path: string): Found | undefined {
    try {
      return this.find(path, "stat");
    } catch {
      return undefined;
    }
  }

  findDirectory(path: string, operation: string): MemoryDirectory {
    const { node } = this.find(path, operation);
    if (node === undefined) throw diskError("ENOENT", operation, path);
    if (!(node instanceof MemoryDirectory)) throw diskError("ENOTDIR", operation, path);
    return node;
  }

  makeDirectory(path: string): void {
    let at = "";
    for (const part of path.split("/")) {
      if (part === "") continue;
      at += `/${part}`;
      const { directory, name, node } = this.find(at, "mkdir");
      if (node instanceof MemoryFileNode) throw diskError("EEXIST", "mkdir", path);
      if (node === undefined) this.change([{ directory, name, node: new MemoryDirectory(this.#nextInode++) }]);
    }
  }

  rename(from: string, to: string): void {
    const source = this.find(from, "rename");
    const target = this.find(to, "rename");
    if (source.node === undefined) throw diskError("ENOENT", "rename", from);
    if (source.node === target.node) return;
    if (`${to}/`.startsWith(`${from}/`)) throw diskError("EINVAL", "rename", to);
    if (source.node instanceof MemoryDirectory) {
      if (target.node instanceof MemoryFileNode) throw diskError("ENOTDIR", "rename", to);
      if ((target.node?.entries.size ?? 0) > 0) throw diskError("ENOTEMPTY", "rename", to);
    } else if (target.node instanceof MemoryDirectory) throw diskError("EISDIR", "rename", to);
    this.change([
      { directory: source.directory, name: source.name, node: undefined },
      { directory: target.directory, name: target.name, node: source.node },
    ]);
  }

  /** Children first, as a real removal goes: a crash may leave a part of it. */
  removeTree(directory: MemoryDirectory, name: string, node: MemoryNode): void {
    if (node instanceof MemoryDirectory) {
      for (const [childName, child] of [...node.entries]) this.removeTree(node, childName, child);
    }
    this.change([{ directory, name, node: undefined }]);
  }

  /** Makes all changes in `directory` durable, and the earlier ones elsewhere that they build on. */
  sync(directory: MemoryDirectory): void {
    const directories = new Set([directory]);
    const synced = new Set<readonly NameChange[]>();
    for (const group of this.#unsynced.toReversed()) {
      if (!group.some((change) => directories.has(change.directory))) continue;
      synced.add(group);
      for (const change of group) directories.add(change.directory);
    }
    for (const group of this.#unsynced) if (synced.has(group)) apply(group, ({ durable }) => durable);
    this.#unsynced = this.#unsynced.filter((group) => !synced.has(group));
  }

  crash(random: Random): void {
    const survivors = random.between(0, this.#unsynced.length);
    for (const group of this.#unsynced.slice(0, survivors)) apply(group, ({ durable }) => durable);
    this.#unsynced = [];
    const revert = (directory: MemoryDirectory): void => {
      directory.entries = new Map(directory.durable);
      for (const node of directory.entries.values()) if (node instanceof MemoryDirectory) revert(node);
    };
    revert(this.#root);
  }

  /** Every file that has a name, once. */
  files(): Set<MemoryFileNode> {
    const result = new Set<MemoryFileNode>();
    const walk = (directory: MemoryDirectory): void => {
      for (const node of directory.entries.values()) {
        if (node instanceof MemoryDirectory) walk(node);
        else result.add(node);
      }
    };
    walk(this.#root);
    return result;
  }
}

/** An error as node:fs makes them: `code` is what programs look at. */
export function diskError(code: string, operation: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${operation} '${path}'`), { code });
}

function apply(group: readonly NameChange[], form: (directory: MemoryDirectory) => Map<string, MemoryNode>): void {
  for (const { directory, name, node } of group) {
    if (node === undefined) form(directory).delete(name);
    else form(directory).set(name, node);
  }
}
