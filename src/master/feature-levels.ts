/**
 * Keeps what only newer masters understand out of the log until all of them do (namespace/feature-level.ts). The leader raises the
 * cluster's level by itself when every member, learners included, has told that its software understands the next one; a member that
 * was never heard of counts as one that does not.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Journal } from "../journal/journal.ts";
import type { Command } from "../namespace/command.ts";
import { featureLevelMax, featureLevelOf } from "../namespace/feature-level.ts";

export type FeatureLevelsDependencies = {
  readonly namespace: { readonly featureLevel: number };
  readonly journal: Pick<Journal<unknown>, "cluster" | "onMembersChange">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** What this software understands; others in tests. */
  readonly understood?: number;
  readonly levelOf?: (command: Command) => number;
};

/** Proposes the new level; rejects when it could not. */
export type RaiseLevel = (level: number) => Promise<unknown>;

/** Members are looked at when they change, and so often if nobody says that they do. */
const intervalMs = 5000;

export class FeatureLevels {
  readonly #deps: FeatureLevelsDependencies;
  readonly #understood: number;
  readonly #levelOf: (command: Command) => number;
  #stopping: AbortController | undefined;
  #loop: Promise<void> = Promise.resolve();
  #wake: () => void = () => {};

  constructor(dependencies: FeatureLevelsDependencies) {
    this.#deps = dependencies;
    this.#understood = dependencies.understood ?? featureLevelMax;
    this.#levelOf = dependencies.levelOf ?? featureLevelOf;
    const { journal } = dependencies;
    const wake = (): void => this.#wake();
    if (journal.onMembersChange === undefined) journal.cluster?.onMembersChange(wake);
    else journal.onMembersChange(wake);
  }

  /** Throws `unsupported` when the cluster's level does not allow `command` yet. */
  check(command: Command): void {
    const level = this.#levelOf(command);
    const { featureLevel } = this.#deps.namespace;
    if (level <= featureLevel) return;
    throw new HeadpondError(
      "unsupported",
      `${command.kind} needs feature level ${level}, the cluster has ${featureLevel}: ${this.#obstacle(level)}`,
      { details: { featureLevel, needed: level } },
    );
  }

  /** Begins to raise the level whenever it can be: while this master leads. */
  start(raise: RaiseLevel): void {
    this.#stopping = new AbortController();
    this.#loop = this.#run(raise, this.#stopping.signal);
  }

  async stop(): Promise<void> {
    this.#stopping?.abort(new HeadpondError("cancelled", "this master leads no more"));
    this.#stopping = undefined;
    await this.#loop;
  }

  async #run(raise: RaiseLevel, signal: AbortSignal): Promise<void> {
    const { clock, logger, namespace } = this.#deps;
    while (!signal.aborted) {
      const woken = new AbortController();
      this.#wake = () => woken.abort();
      const level = this.#commonLevel();
      if (level > namespace.featureLevel) {
        try {
          await raise(level);
          logger.info("all masters understand a newer feature level: it is in force", { level });
        } catch (error) {
          if (!isHeadpondError(error)) throw error;
          if (!signal.aborted)
            logger.warn("the feature level could not be raised yet", { level, error: error.message });
        }
      }
      await clock.sleep(intervalMs, AbortSignal.any([signal, woken.signal])).catch(() => {});
    }
  }

  /** Highest level that all masters understand. */
  #commonLevel(): number {
    const { journal, namespace } = this.#deps;
    let common = this.#understood;
    for (const member of journal.cluster?.members() ?? []) {
      common = Math.min(common, member.featureLevel ?? namespace.featureLevel);
    }
    return common;
  }

  #obstacle(level: number): string {
    if (this.#understood < level) return `this master understands ${this.#understood}: update it`;
    const members = this.#deps.journal.cluster?.members() ?? [];
    const older = members.filter(({ featureLevel }) => featureLevel === undefined || featureLevel < level);
    if (older.length === 0) return "it is being raised, try again in a moment";
    const names = older.map(
      ({ id, featureLevel }) => `${id} ${featureLevel === undefined ? "was not heard of" : `has ${featureLevel}`}`,
    );
    return `${names.join(", ")}: update or remove ${older.length === 1 ? "it" : "them"}`;
  }
}
