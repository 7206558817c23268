/** The files of a directory tree as the caches name them: what loads, revisions, models and `free` work on. */

import { HeadpondError } from "../base/errors.ts";
import type { FileDescriptor, FileStatus } from "../base/file.ts";
import { fileVersionId, type InodeId, type MountId } from "../base/ids.ts";
import { type Path, relativePath } from "../base/path.ts";
import type { Core } from "./core.ts";
import type { JobFiles } from "./job-planner.ts";
import type { TimeSlices } from "./time-slices.ts";

const pageRows = 500;

export class TreeFiles implements JobFiles {
  readonly #core: Core;
  readonly #slices: TimeSlices;
  readonly #blockSizeBytes: number;

  constructor(dependencies: { readonly core: Core; readonly slices: TimeSlices; readonly blockSizeBytes: number }) {
    this.#core = dependencies.core;
    this.#slices = dependencies.slices;
    this.#blockSizeBytes = dependencies.blockSizeBytes;
  }

  async collect(path: Path, max: number, signal: AbortSignal | undefined): Promise<FileDescriptor[]> {
    const { sync } = this.#core;
    const aborted = signal ?? new AbortController().signal;
    const mount = this.#core.mountOf(path);
    if (mount !== undefined) await sync.freshen(path, mount, aborted);
    else for (const below of this.#mountsBelow(path)) await sync.freshen(below.path, below, aborted);
    return this.known(path, max, signal);
  }

  /** As `collect`, but directories that were listed before are taken as they are. */
  async collectListed(path: Path, max: number, signal: AbortSignal): Promise<FileDescriptor[]> {
    const { sync } = this.#core;
    const mount = this.#core.mountOf(path);
    if (mount !== undefined) await sync.ensureTree(path, mount, signal);
    else for (const below of this.#mountsBelow(path)) await sync.ensureTree(below.path, below, signal);
    return this.known(path, max, signal);
  }

  leftOutBelow(path: Path): number {
    return this.#core.sync.leftOutBelow(path);
  }

  /** Complete files at or below `path` that the namespace knows, in the order of a depth-first walk. */
  async known(path: Path, max: number, signal: AbortSignal | undefined): Promise<FileDescriptor[]> {
    const files: FileDescriptor[] = [];
    await this.forEach(
      path,
      (status) => {
        const file = this.describe(status);
        if (file === undefined) return;
        if (files.length >= max) {
          throw new HeadpondError("invalid", `${path} has more than ${max} files: take its directories one by one`);
        }
        files.push(file);
      },
      signal,
    );
    return files;
  }

  /** Every inode at or below `path`, in slices of time. Throws `not-found`. */
  async forEach(path: Path, visit: (status: FileStatus) => void, signal: AbortSignal | undefined): Promise<void> {
    const { namespace } = this.#core;
    const status = namespace.stat(path);
    if (status.kind === "file") {
      visit(status);
      return;
    }
    function* rows(): Generator<FileStatus> {
      for (const page of namespace.walk(path, pageRows)) yield* page;
    }
    await this.#slices.forEach(rows(), visit, signal);
  }

  current(inodeId: InodeId, contentVersion: number): FileDescriptor | undefined {
    const status = this.#core.namespace.get(inodeId);
    return status?.contentVersion === contentVersion ? this.describe(status) : undefined;
  }

  /** Undefined of directories and of files that are being written. */
  describe(status: FileStatus): FileDescriptor | undefined {
    if (status.kind !== "file" || !status.complete) return undefined;
    const mount = this.#core.mountOfStatus(status);
    const { inodeId, contentVersion, path, sizeBytes, modifiedMs, pinned, digest } = status;
    return {
      id: fileVersionId(inodeId, contentVersion),
      inodeId,
      contentVersion,
      path,
      sizeBytes,
      blockSizeBytes: this.#blockSizeBytes,
      // Outside mounts a file has no bytes, so nobody will ask where they are.
      mountId: mount?.id ?? (0 as MountId),
      key: mount === undefined ? "" : relativePath(path, mount.path),
      etag: status.etag ?? "",
      modifiedMs,
      pinned,
      ...(digest === undefined ? {} : { digest }),
    };
  }

  #mountsBelow(path: Path): ReturnType<Core["mounts"]> {
    return this.#core.mounts().filter((mount) => path === "/" || mount.path.startsWith(`${path}/`));
  }
}
