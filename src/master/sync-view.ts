/** What the metadata sync reads of the namespace. */

import type { InodeId, MountId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
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
  child(directoryId: InodeId, name: string): KnownChild | undefined;
  /** At most `limit` children behind `afterName`, in the order of names. */
  children(directoryId: InodeId, afterName: string | undefined, limit: number): readonly KnownChild[];
}
