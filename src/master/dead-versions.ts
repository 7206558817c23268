/**
 * Finds file versions that workers hold and nobody can read any more: replaced contents that no kept revision names, and
 * removed files. They are freed after a grace time, and only by a leader that has committed something in its term: it
 * has all that was ever acknowledged, so what it does not know is dead, not news that has not arrived. Contents that are
 * still being written are newer than what the namespace shows, and are left alone.
 */

import { isHeadpondError } from "../base/errors.ts";
import type { FileVersionId, WorkerId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { Namespace } from "../namespace/namespace.ts";
import type { BlockMap, MappedVersion } from "./block-map.ts";

export type DeadVersionLimits = {
  readonly sliceVersions: number;
  readonly graceMs: number;
  /** Versions found dead and not freed yet; more are found in later rounds. */
  readonly waitingMax: number;
};

export const deadVersionLimits: DeadVersionLimits = { sliceVersions: 2000, graceMs: 60_000, waitingMax: 100_000 };

export class DeadVersions {
  readonly #namespace: Namespace;
  readonly #blockMap: BlockMap;
  readonly #clock: Clock;
  readonly #limits: DeadVersionLimits;
  /** Monotonic times when they were found dead. */
  readonly #found = new Map<FileVersionId, number>();
  #cursor = 0;

  constructor(dependencies: {
    readonly namespace: Namespace;
    readonly blockMap: BlockMap;
    readonly clock: Clock;
    readonly limits?: Partial<DeadVersionLimits>;
  }) {
    this.#namespace = dependencies.namespace;
    this.#blockMap = dependencies.blockMap;
    this.#clock = dependencies.clock;
    this.#limits = { ...deadVersionLimits, ...dependencies.limits };
  }

  get waitingCount(): number {
    return this.#found.size;
  }

  reset(): void {
    this.#found.clear();
    this.#cursor = 0;
  }

  /** Looks at the next slice; returns what is to be freed now. */
  step(): Map<WorkerId, FileVersionId[]> {
    const nowMs = this.#clock.monotonicMs();
    const orders = new Map<WorkerId, FileVersionId[]>();
    const { versions, next } = this.#blockMap.slice(this.#cursor, this.#limits.sliceVersions);
    this.#cursor = next;
    for (const version of versions) {
      if (!this.#isDead(version)) {
        this.#found.delete(version.id);
        continue;
      }
      const foundMs = this.#found.get(version.id);
      if (foundMs === undefined) {
        if (this.#found.size < this.#limits.waitingMax) this.#found.set(version.id, nowMs);
        continue;
      }
      if (nowMs - foundMs < this.#limits.graceMs) continue;
      // Told again after another grace time, if the workers still have it then.
      this.#found.set(version.id, nowMs);
      for (const id of this.#blockMap.holders(version.inodeId, version.contentVersion)) {
        const list = orders.get(id);
        if (list === undefined) orders.set(id, [version.id]);
        else list.push(version.id);
      }
    }
    // Versions that are gone from the map are not visited any more: whole rounds forget them.
    if (next === 0) this.#forgetUnmapped();
    return orders;
  }

  #isDead({ id, inodeId, contentVersion }: MappedVersion): boolean {
    if (inodeId >= this.#namespace.nextInodeId) return false;
    const status = this.#namespace.get(inodeId);
    if (status !== undefined && status.contentVersion <= contentVersion) return false;
    try {
      this.#namespace.describe(id);
      return false;
    } catch (error) {
      if (!isHeadpondError(error, "not-found")) throw error;
      return true;
    }
  }

  #forgetUnmapped(): void {
    for (const id of this.#found.keys()) {
      const [inodeId, contentVersion] = id.split("-").map(Number);
      if (this.#blockMap.holders(inodeId as never, contentVersion ?? 0).length === 0) this.#found.delete(id);
    }
  }
}
