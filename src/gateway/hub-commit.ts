/**
 * One commit of a repository: its files and directories, looked up by path. It never changes, so it answers "no such
 * entry" as surely as it answers entries.
 *
 * Object ids. A file whose store vouches for its SHA-256 is shown as an LFS file under that digest. Any other gets 40
 * hexadecimal digits derived from what identifies its version at its under store: stable for ever, different when the
 * bytes differ, but not the Git hash of its content, which nobody knows without reading it.
 */

import type { Revision } from "../base/cluster.ts";
import type { FileDescriptor } from "../base/file.ts";
import { digestHex } from "../io/hash.ts";

export type HubFile = {
  readonly kind: "file";
  readonly path: string;
  readonly file: FileDescriptor;
  /** What clients name the file's bytes by: 64 digits (SHA-256) or 40. */
  readonly oid: string;
  /** Of a file whose digest is known. */
  readonly sha256: string | undefined;
};

export type HubDirectory = { readonly kind: "directory"; readonly path: string; readonly oid: string };
export type HubEntry = HubFile | HubDirectory;

export class HubCommit {
  readonly commit: string;
  readonly modifiedMs: number;
  /** In the order of their paths. */
  readonly files: readonly HubFile[];
  readonly sizeBytes: number;
  readonly #entries = new Map<string, HubEntry>();
  /** Entries directly below a directory; `""` is the root. */
  readonly #children = new Map<string, HubEntry[]>();

  constructor(revision: Revision) {
    this.commit = revision.commit;
    this.#children.set("", []);
    const files = revision.files.map(({ path, file }) => hubFile(path, file));
    this.files = files.sort((a, b) => compareText(a.path, b.path));
    this.sizeBytes = files.reduce((sum, { file }) => sum + file.sizeBytes, 0);
    this.modifiedMs = files.reduce((latest, { file }) => Math.max(latest, file.modifiedMs), 0);
    for (const file of this.files) this.#add(file);
    for (const children of this.#children.values()) children.sort((a, b) => compareText(a.path, b.path));
  }

  /** Entries that it keeps in memory. */
  get weight(): number {
    return this.#entries.size + 1;
  }

  entry(path: string): HubEntry | undefined {
    return this.#entries.get(path);
  }

  /** Below a directory, in the order of paths; `undefined` if there is no such directory. */
  list(directory: string, recursive: boolean): readonly HubEntry[] | undefined {
    const children = this.#children.get(directory);
    if (children === undefined || !recursive) return children;
    const result: HubEntry[] = [];
    const collect = (entries: readonly HubEntry[]): void => {
      for (const entry of entries) {
        result.push(entry);
        if (entry.kind === "directory") collect(this.#children.get(entry.path) ?? []);
      }
    };
    collect(children);
    return result;
  }

  #add(entry: HubEntry): void {
    this.#entries.set(entry.path, entry);
    const slash = entry.path.lastIndexOf("/");
    const parent = slash < 0 ? "" : entry.path.slice(0, slash);
    const siblings = this.#children.get(parent);
    if (siblings !== undefined) {
      siblings.push(entry);
      return;
    }
    this.#children.set(parent, [entry]);
    this.#add({ kind: "directory", path: parent, oid: digestHex("sha1", `directory\0${this.commit}\0${parent}`) });
  }
}

function hubFile(path: string, file: FileDescriptor): HubFile {
  const { digest } = file;
  const sha256 = digest?.algorithm === "sha256" && digest.value.length === 64 ? digest.value : undefined;
  return { kind: "file", path, file, oid: sha256 ?? derivedOid(file), sha256 };
}

/** Of the object that the version was read from, and of nothing that a rename or an attribute changes. */
function derivedOid(file: FileDescriptor): string {
  const { mountId, key, etag, sizeBytes } = file;
  return digestHex("sha256", JSON.stringify(["headpond version", mountId, key, etag, sizeBytes])).slice(0, 40);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
