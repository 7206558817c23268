/**
 * A directory as the shared store of a journal: a local disk, or a network file system that all masters mount.
 *
 * An object is written to a file of its own, flushed, and then given its name by a hard link, which is exclusive and shows it
 * whole or not at all; the directory is flushed before anybody is told, many creates by one flush. What this store has read
 * is durable before what it creates afterwards: a log can never go on behind something that a crash takes away. And
 * a name is only called absent while the directory is certain to be the one that was opened: an unmounted one would deny everything.
 *
 * Left out: locks and leases, which NFS keeps badly. Two files beside the objects, in `.headpond`: what is being written, and a
 * marker of each process. What a process that died leaves there is collected by the next ones.
 */

import { HeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import type { Clock } from "../io/clock.ts";
import type { Disk, DiskFile } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { CallWatch, type WatchedCall } from "./call-watch.ts";
import { DurableNames } from "./durable-names.ts";
import { checkMount, isVolatileMount, mountOf } from "./shared-mount.ts";
import { objectBytesMax, type SharedObject, type SharedStore } from "./shared-store.ts";
import { checkedPrefix, checkSharedName, isSharedPart, parentOfName } from "./shared-store-names.ts";
import { TemporaryFiles } from "./temporary-files.ts";

export type SharedDirectoryLimits = {
  /** Without progress for so long, a call is given up. */
  readonly callTimeoutMs: number;
  /** Calls that were given up and still hang; beyond it new ones are refused. */
  readonly hungCallsMax: number;
  /** Directories of which objects were read, and whose names are made durable no sooner than needed. */
  readonly seenDirectoriesMax: number;
};

export const sharedDirectoryLimitsDefault: SharedDirectoryLimits = {
  callTimeoutMs: 10_000,
  hungCallsMax: 3,
  seenDirectoriesMax: 16,
};

export type SharedDirectoryDependencies = {
  /** Absolute; must exist: an empty directory where a file system is not mounted must not become a store. */
  readonly root: string;
  readonly disk: Disk;
  /** Of the files that `upload` reads and `download` writes; absent: the same. */
  readonly localDisk?: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Uses a file system that is not known to be fit. */
  readonly trusted?: boolean;
  readonly limits?: Partial<SharedDirectoryLimits>;
};

const copyChunkBytes = MiB;
/** Directories known to exist, so that they are not made again. */
const knownDirectoriesMax = 256;
/** Somebody may remove an empty directory between our making and our using it. */
const linkAttemptsMax = 3;
const openAttemptsMax = 3;

export class SharedDirectory implements SharedStore {
  readonly uri: string;
  /** A flush serves all that wait for it; more at once only wait for the threads of the process. */
  readonly parallelCalls = 8;
  readonly #root: string;
  readonly #disk: Disk;
  readonly #localDisk: Disk;
  readonly #watch: CallWatch;
  readonly #limits: SharedDirectoryLimits;
  readonly #names: DurableNames;
  readonly #temporaries: TemporaryFiles;
  /** With objects that others may have made and not yet flushed. */
  readonly #seen = new Set<string>();
  readonly #knownDirectories = new Set<string>();
  #isClosed = false;

  private constructor(dependencies: SharedDirectoryDependencies, root: string, temporaries: TemporaryFiles) {
    const { disk, localDisk, clock, limits } = dependencies;
    this.uri = `file://${dependencies.root}`;
    this.#root = root;
    this.#disk = disk;
    this.#localDisk = localDisk ?? disk;
    this.#limits = { ...sharedDirectoryLimitsDefault, ...limits };
    const { callTimeoutMs, hungCallsMax } = this.#limits;
    this.#watch = new CallWatch({ clock, timeoutMs: callTimeoutMs, hungMax: hungCallsMax, store: this.uri });
    this.#names = new DurableNames(disk);
    this.#temporaries = temporaries;
  }

  /** Throws `not-found`, `not-a-directory`, `unsupported` (a file system that cannot keep the promises), `denied`, `no-space`. */
  static async open(dependencies: SharedDirectoryDependencies): Promise<SharedDirectory> {
    const { root, disk, clock, logger, trusted = false } = dependencies;
    try {
      const real = await disk.realPath(root).catch((error: unknown) => {
        if (!isAbsence(error)) throw error;
        throw new HeadpondError("not-found", `${root} does not exist: make the directory, or mount what belongs there`);
      });
      if ((await disk.stat(real)).kind !== "directory") {
        throw new HeadpondError("not-a-directory", `${root} is not a directory: a shared journal needs one`);
      }
      const mount = await mountOf(disk, real);
      if (mount !== undefined && !trusted) checkMount(mount, root);
      if (mount !== undefined && isVolatileMount(mount)) {
        logger.warn("shared store: the directory is in memory, a reboot loses the journal", { root, type: mount.type });
      }
      const temporaries = await TemporaryFiles.open({ directory: `${real}/.headpond`, disk, clock, logger });
      return new SharedDirectory(dependencies, real, temporaries);
    } catch (error) {
      throw translate(error, `file://${root}`, "open", false);
    }
  }

  create(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<"created" | "exists"> {
    return this.#call("create", name, signal, async (call) => {
      if (bytes.length > objectBytesMax) {
        throw new HeadpondError("invalid", `${name} has ${bytes.length} bytes, more than ${objectBytesMax}`);
      }
      return this.#publish(name, call, (file) => file.write(bytes, 0));
    });
  }

  read(name: string, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    return this.#call("read", name, signal, async (call) => {
      // Opened anew each time: that is when NFS asks its server.
      const file = await this.#openIfAny(name);
      if (file === undefined) return undefined;
      try {
        const { sizeBytes } = await file.stat();
        if (sizeBytes > objectBytesMax) {
          throw new HeadpondError(
            "corrupt",
            `${this.uri}: ${name} has ${sizeBytes} bytes, more than ${objectBytesMax}`,
          );
        }
        const bytes = new Uint8Array(sizeBytes);
        await this.#fill(file, bytes, 0, name);
        await this.#noteSeen(name, call);
        return bytes;
      } finally {
        await file.close();
      }
    });
  }

  async list(prefix: string, after: string, limit: number, signal?: AbortSignal): Promise<readonly SharedObject[]> {
    return this.#call("list", checkedPrefix(prefix), signal, async (call) => {
      const directory = this.#path(checkedPrefix(prefix));
      let leaves: readonly string[];
      try {
        leaves = await this.#disk.list(directory);
      } catch (error) {
        if (!isAbsence(error)) throw error;
        await this.#checkStillHere();
        return [];
      }
      const names = leaves.filter(isSharedPart).map((leaf) => `${checkedPrefix(prefix)}/${leaf}`);
      const wanted = names.filter((name) => name > after).sort(compareNames);
      const found: SharedObject[] = [];
      for (const name of wanted) {
        if (found.length >= limit) break;
        call.progress();
        const stat = await this.#disk.stat(this.#path(name)).catch((error: unknown) => {
          if (isAbsence(error)) return undefined;
          throw error;
        });
        if (stat?.kind === "file") found.push({ name, sizeBytes: stat.sizeBytes });
      }
      return found;
    });
  }

  remove(name: string, signal?: AbortSignal): Promise<void> {
    return this.#call("remove", name, signal, async (call) => {
      call.mayHaveHappened = true;
      try {
        await this.#disk.unlink(this.#path(name));
      } catch (error) {
        if (!isAbsence(error)) throw error;
        await this.#checkStillHere();
        return;
      }
      const directory = parentOfName(name);
      if (!directory.includes("/")) return;
      // The directory of an epoch goes with its last slot; whoever creates in it meanwhile makes it again.
      await this.#disk.removeDirectory(this.#path(directory)).then(
        () => void this.#knownDirectories.delete(this.#path(directory)),
        () => {},
      );
    });
  }

  upload(name: string, path: string, signal?: AbortSignal): Promise<"created" | "exists"> {
    return this.#call("upload", name, signal, async (call) => {
      const source = await this.#localDisk.open(path, "read");
      try {
        return await this.#publish(name, call, (file) => copy(source, file, call));
      } finally {
        await source.close();
      }
    });
  }

  download(name: string, path: string, signal?: AbortSignal): Promise<{ readonly bytes: number } | undefined> {
    return this.#call("download", name, signal, async (call) => {
      const source = await this.#openIfAny(name);
      if (source === undefined) return undefined;
      try {
        const { sizeBytes } = await source.stat();
        const target = await this.#localDisk.open(path, "create");
        try {
          const bytes = await copy(source, target, call);
          if (bytes !== sizeBytes) {
            throw new HeadpondError("unavailable", `${this.uri}: ${name} gave ${bytes} of its ${sizeBytes} bytes`);
          }
          await target.datasync();
        } catch (error) {
          await target.close();
          await this.#localDisk.unlink(path).catch(() => {});
          throw error;
        }
        await target.close();
        await this.#localDisk.syncDirectory(path.slice(0, Math.max(1, path.lastIndexOf("/"))));
        await this.#noteSeen(name, call);
        return { bytes: sizeBytes };
      } finally {
        await source.close();
      }
    });
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#temporaries.close();
  }

  async #publish(
    name: string,
    call: WatchedCall,
    fill: (file: DiskFile) => Promise<unknown>,
  ): Promise<"created" | "exists"> {
    const temporary = await this.#temporaries.make(fill);
    try {
      call.progress();
      const directory = this.#path(parentOfName(name));
      const answer = await this.#link(temporary, name, directory, call);
      // Also when it exists: its maker may have died before it was durable, and we may go on behind it.
      this.#names.mark(directory);
      for (const seen of this.#seen) this.#names.mark(seen);
      this.#seen.clear();
      await this.#names.settleAll();
      return answer;
    } finally {
      this.#temporaries.discard(temporary);
    }
  }

  async #link(temporary: string, name: string, directory: string, call: WatchedCall): Promise<"created" | "exists"> {
    for (let attempt = 1; ; attempt++) {
      try {
        // May fail so, too, while somebody removes it.
        await this.#ensureDirectory(directory);
        call.progress();
        call.mayHaveHappened = true;
        await this.#disk.link(temporary, this.#path(name));
        return "created";
      } catch (error) {
        if (errnoOf(error) === "EEXIST") return "exists";
        if (refusedLinks.has(errnoOf(error) ?? "")) call.mayHaveHappened = false;
        if (errnoOf(error) !== "ENOENT" || attempt >= linkAttemptsMax) throw error;
        this.#knownDirectories.delete(directory);
      }
    }
  }

  /** With the directories above it, each durable. */
  async #ensureDirectory(directory: string): Promise<void> {
    if (directory === this.#root || this.#knownDirectories.has(directory)) return;
    await this.#disk.makeDirectory(directory);
    // Whoever made them may not have flushed them.
    for (let at = directory; at !== this.#root; ) {
      at = at.slice(0, at.lastIndexOf("/"));
      this.#names.mark(at);
      await this.#names.settle(at);
    }
    if (this.#knownDirectories.size >= knownDirectoriesMax) this.#knownDirectories.clear();
    this.#knownDirectories.add(directory);
  }

  async #openIfAny(name: string): Promise<DiskFile | undefined> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#disk.open(this.#path(name), "read");
      } catch (error) {
        // NFS remembered a file that is gone: asked again, its server says what the name means now.
        if (errnoOf(error) === "ESTALE" && attempt < openAttemptsMax) continue;
        if (!isAbsence(error)) throw error;
        await this.#checkStillHere();
        return undefined;
      }
    }
  }

  /** Throws if the path leads to another directory by now: what is absent there says nothing. */
  async #checkStillHere(): Promise<void> {
    if (await this.#temporaries.isMarkerThere()) return;
    throw new HeadpondError(
      "unavailable",
      `${this.uri} is another directory than the one that was opened: it was unmounted, mounted over or replaced: mount it again and restart`,
    );
  }

  async #noteSeen(name: string, call: WatchedCall): Promise<void> {
    const directory = this.#path(parentOfName(name));
    // With names of our own that are not durable yet this may be one of them: whoever reads it back takes it for written.
    if (this.#names.isPending(directory)) {
      await this.#names.settle(directory);
      return;
    }
    this.#seen.add(directory);
    if (this.#seen.size <= this.#limits.seenDirectoriesMax) return;
    for (const seen of this.#seen) this.#names.mark(seen);
    this.#seen.clear();
    call.progress();
    await this.#names.settleAll();
  }

  async #fill(file: DiskFile, bytes: Uint8Array, position: number, name: string): Promise<void> {
    for (let filled = 0; filled < bytes.length; ) {
      const count = await file.read(bytes.subarray(filled), position + filled);
      if (count === 0) {
        throw new HeadpondError("unavailable", `${this.uri}: ${name} gave ${filled} of its ${bytes.length} bytes`);
      }
      filled += count;
    }
  }

  async #call<T>(
    what: string,
    name: string,
    signal: AbortSignal | undefined,
    body: (call: WatchedCall) => Promise<T>,
  ): Promise<T> {
    checkSharedName(name);
    if (this.#isClosed) throw new HeadpondError("cancelled", `${this.uri} is closed: ${what} ${name} was not begun`);
    return this.#watch.run(`${what} ${name}`, signal, body, (error, mayHaveHappened) =>
      translate(error, this.uri, `${what} ${name}`, mayHaveHappened),
    );
  }

  #path(name: string): string {
    return name === "" ? this.#root : `${this.#root}/${name}`;
  }
}

async function copy(source: DiskFile, target: DiskFile, call: WatchedCall): Promise<number> {
  const buffer = new Uint8Array(copyChunkBytes);
  for (let position = 0; ; ) {
    const count = await source.read(buffer, position);
    if (count === 0) return position;
    await target.write(buffer.subarray(0, count), position);
    position += count;
    call.progress();
  }
}

/** A link that failed so has not been made. Others, of a server that did not answer, may have been. */
const refusedLinks: ReadonlySet<string> = new Set([
  "ENOSPC",
  "EDQUOT",
  "EACCES",
  "EPERM",
  "EROFS",
  "ENOENT",
  "EMLINK",
  "ENAMETOOLONG",
]);

function translate(error: unknown, store: string, what: string, mayHaveHappened: boolean): HeadpondError {
  const outcome = mayHaveHappened ? "unknown" : "none";
  if (error instanceof HeadpondError) {
    return error.outcome === outcome ? error : new HeadpondError(error.code, error.message, { cause: error, outcome });
  }
  const errno = errnoOf(error) ?? "";
  const text = `${store}: ${what}: ${error instanceof Error ? error.message : String(error)}`;
  if (errno === "ENOSPC" || errno === "EDQUOT") {
    return new HeadpondError("no-space", `${text}: make room there`, { cause: error, outcome });
  }
  if (errno === "EACCES" || errno === "EPERM" || errno === "EROFS") {
    return new HeadpondError("denied", `${text}: this process must be able to write there`, { cause: error, outcome });
  }
  return new HeadpondError("unavailable", text, { cause: error, outcome });
}

function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function isAbsence(error: unknown): boolean {
  return errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR";
}

function errnoOf(error: unknown): string | undefined {
  return (error as { readonly code?: string } | undefined)?.code;
}
