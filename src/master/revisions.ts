/**
 * What the Hub calls a commit: all files of a directory tree at one moment, named by a digest of their relative paths,
 * sizes and etags, so the same content has the same name for ever. Commits that were asked for are kept in the state for
 * a while, so that a reader who has resolved one can still open its files after the directory has moved on.
 */

import type { Revision } from "../base/cluster.ts";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import { fileVersionId, type InodeId } from "../base/ids.ts";
import { joinPath, type Path, relativePath } from "../base/path.ts";
import { Digest } from "../io/hash.ts";
import type { Logger } from "../io/logger.ts";
import { revisionFilesMax } from "../namespace/command.ts";
import type { Core } from "./core.ts";
import type { TreeFiles } from "./tree-files.ts";

type Snapshot = { readonly version: number; readonly commit: string; readonly files: Revision["files"] };

const cachedMax = 100;

export class Revisions {
  readonly #core: Core;
  readonly #files: TreeFiles;
  readonly #logger: Logger;
  readonly #blockSizeBytes: number;
  /** Valid while the namespace has the version that they were taken at. */
  readonly #cache = new Map<Path, Snapshot>();

  constructor(dependencies: {
    readonly core: Core;
    readonly files: TreeFiles;
    readonly logger: Logger;
    readonly blockSizeBytes: number;
  }) {
    this.#core = dependencies.core;
    this.#files = dependencies.files;
    this.#logger = dependencies.logger;
    this.#blockSizeBytes = dependencies.blockSizeBytes;
  }

  /** `main` and `HEAD` are what is there now. Throws `not-found` for a commit that is neither current nor kept. */
  async find(path: Path, revision: string, signal: AbortSignal): Promise<Revision> {
    const status = await this.#core.statFresh(path);
    if (status.kind !== "directory")
      throw new HeadpondError("not-a-directory", `${path} is a file: it has no revisions`);
    const now = await this.#snapshot(path, signal);
    if (revision === "main" || revision === "HEAD" || revision === now.commit) {
      await this.#record(status.inodeId, now);
      return { path, commit: now.commit, current: true, files: now.files };
    }
    const kept = this.#core.namespace.documents.revisions(status.inodeId).find(({ commit }) => commit === revision);
    if (kept === undefined) {
      throw new HeadpondError(
        "not-found",
        `${path} has no revision ${JSON.stringify(revision)}: its commit now is ${now.commit}`,
      );
    }
    const files = kept.files.map((file) => ({
      path: file.path,
      file: {
        id: fileVersionId(file.inodeId as InodeId, file.contentVersion),
        inodeId: file.inodeId,
        contentVersion: file.contentVersion,
        path: joinPath(path, file.path),
        sizeBytes: file.sizeBytes,
        blockSizeBytes: this.#blockSizeBytes,
        mountId: file.mountId,
        key: file.key,
        etag: file.etag,
        modifiedMs: file.modifiedMs,
        pinned: false,
        ...(file.digest === undefined ? {} : { digest: file.digest }),
      },
    }));
    return { path, commit: kept.commit, current: false, files };
  }

  async #snapshot(path: Path, signal: AbortSignal): Promise<Snapshot> {
    const cached = this.#cache.get(path);
    const { namespace } = this.#core;
    if (cached?.version === namespace.version) return cached;
    const files = await this.#files.collectListed(path, revisionFilesMax, signal);
    const { version } = namespace;
    const relative = files.map((file) => ({ path: relativePath(file.path, path), file }));
    const snapshot = { version, commit: commitOf(relative), files: relative };
    this.#cache.delete(path);
    this.#cache.set(path, snapshot);
    if (this.#cache.size > cachedMax) {
      for (const oldest of this.#cache.keys()) {
        this.#cache.delete(oldest);
        break;
      }
    }
    return snapshot;
  }

  async #record(directoryInodeId: InodeId, { commit, files }: Snapshot): Promise<void> {
    const { namespace, proposer } = this.#core;
    if (!this.#core.leads || files.length === 0) return;
    if (namespace.documents.revisions(directoryInodeId).at(-1)?.commit === commit) return;
    try {
      await proposer.propose({
        kind: "record-revision",
        directoryInodeId,
        commit,
        files: files.map(({ path, file }) => ({
          path,
          inodeId: file.inodeId,
          contentVersion: file.contentVersion,
          sizeBytes: file.sizeBytes,
          mountId: file.mountId,
          key: file.key,
          etag: file.etag,
          modifiedMs: file.modifiedMs,
          ...(file.digest === undefined ? {} : { digest: file.digest }),
        })),
        metadata: "{}",
        timeMs: proposer.nowMs(),
      });
    } catch (error) {
      // Too large to be kept: it can be read as long as it is current.
      if (!isHeadpondError(error, "invalid")) throw error;
      this.#logger.warn("a revision is too large to be kept", { commit, files: files.length });
    }
  }
}

/** SHA-1 over the sorted lines `path NUL size NUL etag LF`. */
export function commitOf(files: readonly { readonly path: string; readonly file: FileDescriptor }[]): string {
  const digest = new Digest("sha1");
  const lines = files.map(({ path, file }) => `${path}\0${file.sizeBytes}\0${file.etag}\n`).sort();
  for (const line of lines) digest.update(line);
  return digest.hex();
}
