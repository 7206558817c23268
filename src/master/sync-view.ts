/** What the metadata sync reads of the namespace, and the adapter that reads it there. */

import type { FileStatus } from "../base/file.ts";
import type { InodeId, MountId } from "../base/ids.ts";
import { joinPath, type Path } from "../base/path.ts";
import type { Namespace } from "../namespace/namespace.ts";
import type { KnownChild } from "./listing-merge.ts";

export type SyncedMount = {
  readonly id: MountId;
  readonly path: Path;
  readonly uri: string;
  readonly options: Readonly<Record<string, string>>;
  readonly readOnly: boolean;
};

export type SyncedInode = {
  readonly inodeId: InodeId;
  readonly kind: "file" | "directory";
  /** False: it is being written through Headpond, and no listing can tell anything about it. */
  readonly complete: boolean;
  /** Of a directory: the state's time when a listing was last taken in as a whole; 0: never. */
  readonly syncedMs: number;
};

export interface SyncView {
  /** Counts applied commands. */
  readonly version: number;
  inode(path: Path): SyncedInode | undefined;
  child(directory: Path, name: string): KnownChild | undefined;
  /** At most `limit` children behind `afterName`, in the order of names. Throws `not-found` when the directory has gone. */
  children(directory: Path, afterName: string | undefined, limit: number): readonly KnownChild[];
}

export class NamespaceSyncView implements SyncView {
  readonly #namespace: Namespace;

  constructor(namespace: Namespace) {
    this.#namespace = namespace;
  }

  get version(): number {
    return this.#namespace.version;
  }

  inode(path: Path): SyncedInode | undefined {
    const status = this.#namespace.find(path);
    if (status === undefined) return undefined;
    const { inodeId, kind, complete } = status;
    return { inodeId, kind, complete, syncedMs: kind === "directory" ? this.#namespace.syncedMs(inodeId) : 0 };
  }

  child(directory: Path, name: string): KnownChild | undefined {
    const status = this.#namespace.find(joinPath(directory, name));
    return status === undefined ? undefined : knownChild(status);
  }

  children(directory: Path, afterName: string | undefined, limit: number): readonly KnownChild[] {
    return this.#namespace
      .list(directory, { limit, ...(afterName === undefined ? {} : { afterName }) })
      .map(knownChild);
  }
}

function knownChild(status: FileStatus): KnownChild {
  return {
    name: status.path.slice(status.path.lastIndexOf("/") + 1),
    kind: status.kind,
    sizeBytes: status.sizeBytes,
    etag: status.etag ?? "",
    hasDigest: status.digest !== undefined,
    complete: status.complete,
  };
}
