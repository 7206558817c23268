/**
 * The files of a shared directory that have no name among the objects yet, in a directory of their own on the same file system; and
 * a marker of this process, by whose presence it knows that the directory is still the one that it opened. Names begin
 * with a random mark of the process, so that no two ever share one. Whatever is older than a day was left behind by a process that died.
 */

import { HeadpondError } from "../base/errors.ts";
import { type Clock, sleepBy } from "../io/clock.ts";
import type { Disk, DiskFile } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";

export type TemporaryFilesDependencies = {
  /** Made if absent; its parent must exist. */
  readonly directory: string;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
};

const hourMs = 60 * 60 * 1000;
const leftoverAgeMs = 24 * hourMs;
/** The marker is written anew so often, and leftovers are sought. */
const careIntervalMs = hourMs;
/** Leftovers that one round removes. */
const leftoversMax = 1000;
const closeTimeoutMs = 2000;
/** Removals under way at once, beside which nobody is told to wait. */
const discardsMax = 64;

export class TemporaryFiles {
  readonly #directory: string;
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #mark = crypto.randomUUID();
  readonly #stop = new AbortController();
  readonly #discards = new Set<Promise<void>>();
  #marker: DiskFile | undefined;
  #care: Promise<void> = Promise.resolve();
  #count = 0;

  private constructor({ directory, disk, clock, logger }: TemporaryFilesDependencies) {
    this.#directory = directory;
    this.#disk = disk;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Tries what everything rests on, too: that a second link of one name fails. */
  static async open(dependencies: TemporaryFilesDependencies): Promise<TemporaryFiles> {
    const files = new TemporaryFiles(dependencies);
    await files.#open();
    return files;
  }

  /** A durable file filled by `fill`; its path. Nothing is left when it fails. */
  async make(fill: (file: DiskFile) => Promise<unknown>): Promise<string> {
    if (this.#discards.size >= discardsMax) await Promise.race(this.#discards);
    const path = this.#path(`${++this.#count}`);
    const file = await this.#disk.open(path, "create");
    try {
      await fill(file);
      await file.datasync();
    } catch (error) {
      await file.close();
      this.discard(path);
      throw error;
    }
    await file.close();
    return path;
  }

  /** Removes it, without anybody waiting: the object has its own name by now, or will never have one. */
  discard(path: string): void {
    const discard: Promise<void> = this.#disk.unlink(path).then(
      () => void this.#discards.delete(discard),
      (error: unknown) => {
        this.#discards.delete(discard);
        this.#logger.warn("shared store: a temporary file could not be removed, a later round will", { path, error });
      },
    );
    this.#discards.add(discard);
  }

  async isMarkerThere(): Promise<boolean> {
    try {
      await this.#disk.stat(this.#path("marker"));
      return true;
    } catch (error) {
      const code = errnoOf(error);
      if (code === "ENOENT" || code === "ENOTDIR") return false;
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#stop.abort();
    // What hangs is left to itself: it is collected a day later.
    await Promise.race([this.#clear(), this.#clock.sleep(closeTimeoutMs)]);
  }

  async #clear(): Promise<void> {
    await this.#care;
    await Promise.all(this.#discards);
    await this.#marker?.close();
    await this.#disk.unlink(this.#path("marker")).catch(() => {});
  }

  async #open(): Promise<void> {
    await this.#disk.makeDirectory(this.#directory);
    this.#marker = await this.#disk.open(this.#path("marker"), "create");
    const probe = await this.make(async () => {});
    try {
      await this.#tryLinks(probe);
    } catch (error) {
      await this.close();
      throw error;
    } finally {
      this.discard(probe);
    }
    this.#care = this.#takeCare();
  }

  async #tryLinks(probe: string): Promise<void> {
    const to = this.#path("probe");
    const answers: string[] = [];
    for (let turn = 0; turn < 2; turn++) {
      const answer = this.#disk.link(probe, to).then(
        () => "done",
        (error: unknown) => errnoOf(error) ?? String(error),
      );
      answers.push(await answer);
    }
    await this.#disk.unlink(to).catch(() => {});
    if (answers[0] === "done" && answers[1] === "EEXIST") return;
    throw new HeadpondError(
      "unsupported",
      `a shared journal cannot be kept in ${this.#directory}: two hard links to one name gave ${answers.join(", ")}, not one success and EEXIST: use another file system`,
    );
  }

  async #takeCare(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await this.#marker?.write(new Uint8Array(1), 0);
        await this.#collect();
      } catch (error) {
        this.#logger.warn("shared store: leftovers could not be collected", { directory: this.#directory, error });
      }
      // By a timer: it must not keep a process alive.
      await sleepBy((callback) => this.#clock.timer(careIntervalMs, callback), this.#stop.signal).catch(() => {});
    }
  }

  async #collect(): Promise<void> {
    let removed = 0;
    for (const name of await this.#disk.list(this.#directory)) {
      if (removed >= leftoversMax || this.#stop.signal.aborted) break;
      if (name.startsWith(this.#mark)) continue;
      const path = `${this.#directory}/${name}`;
      try {
        const { modifiedMs } = await this.#disk.stat(path);
        if (this.#clock.wallMs() - modifiedMs < leftoverAgeMs) continue;
        await this.#disk.unlink(path);
        removed++;
      } catch (error) {
        // Its owner, or another collector, was quicker.
        if (errnoOf(error) !== "ENOENT") throw error;
      }
    }
    if (removed > 0) this.#logger.info("shared store: removed files of processes that died", { removed });
  }

  #path(name: string): string {
    return `${this.#directory}/${this.#mark}-${name}`;
  }
}

function errnoOf(error: unknown): string | undefined {
  return (error as { readonly code?: string } | undefined)?.code;
}
