/**
 * Whether the state that the machine finds on its own disk can be believed. It is not flushed with every commit (the
 * log is), so a crash of the computer, unlike one of the process, may leave any mixture of its pages. `state.json`
 * beside the log remembers under which boot of the kernel the state was last used, and whether it was flushed and left
 * cleanly since. An unclean state from another boot is rebuilt from checkpoint and log.
 */

import type { Disk } from "../io/disk.ts";
import type { Logger } from "../io/logger.ts";
import { readCheckedJson, writeCheckedJson } from "./journal-meta.ts";

const fileName = "state.json";
const divergedName = "diverged.json";

export class StateTrust {
  readonly #disk: Disk;
  readonly #directory: string;
  /** `undefined`: the kernel does not say, so every unclean start counts as a reboot. */
  readonly #bootId: string | undefined;
  readonly #logger: Logger;

  constructor(options: { disk: Disk; directory: string; bootId: string | undefined; logger: Logger }) {
    this.#disk = options.disk;
    this.#directory = options.directory;
    this.#bootId = options.bootId;
    this.#logger = options.logger;
  }

  /** Why the state must be rebuilt, or `undefined` if it can be used as it is. */
  async doubt(): Promise<string | undefined> {
    let mark: Readonly<Record<string, unknown>> | undefined;
    try {
      mark = await readCheckedJson(this.#disk, `${this.#directory}/${fileName}`);
    } catch (error) {
      // Not knowing is no damage to the log: rebuilding is always right.
      this.#logger.warn("the mark of the state is damaged", {
        error: error instanceof Error ? error.message : String(error),
      });
      return "its mark is damaged";
    }
    if (mark === undefined) return "it was never marked";
    if (mark["rebuilding"] === true) return "it was being rebuilt";
    if (mark["clean"] === true) return undefined;
    if (this.#bootId === undefined) return "it was not left cleanly and the kernel gives no boot id";
    if (mark["bootId"] !== this.#bootId) return "the computer was restarted while it was in use";
    return undefined;
  }

  /** What was found out of the state in an earlier life: that it differs from the other masters'. */
  async diverged(): Promise<string | undefined> {
    const mark = await readCheckedJson(this.#disk, `${this.#directory}/${divergedName}`);
    return mark === undefined ? undefined : String(mark["details"]);
  }

  async markDiverged(details: string): Promise<void> {
    await writeCheckedJson(this.#disk, this.#directory, divergedName, { details });
  }

  /** Another master's state has taken its place. */
  async clearDiverged(): Promise<void> {
    await this.#disk.removeTree(`${this.#directory}/${divergedName}`);
    await this.#disk.syncDirectory(this.#directory);
  }

  /** To be durable before the state is replaced: half a state is none. */
  async markRebuilding(): Promise<void> {
    await writeCheckedJson(this.#disk, this.#directory, fileName, { rebuilding: true });
  }

  /** To be durable before the state changes. */
  async markInUse(): Promise<void> {
    await this.#write(false);
  }

  /** Only after the state was flushed. */
  async markClean(): Promise<void> {
    await this.#write(true);
  }

  async #write(clean: boolean): Promise<void> {
    await writeCheckedJson(this.#disk, this.#directory, fileName, { bootId: this.#bootId ?? "", clean });
  }
}
