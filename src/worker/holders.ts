/**
 * Who in this domain holds a block already. Asked by an owner before it reads the origin: after the list of workers has
 * changed, or when it stands in for a dead owner, others may have received the block. What peers answer is kept for a short
 * time; a cold file under a list that has not changed for a while costs one question to a master and none to peers.
 */

import type { BlockBitmap } from "../base/blocks.ts";
import type { BlockIndex, FileVersionId, WorkerId } from "../base/ids.ts";
import type { Clock } from "../io/clock.ts";
import type { CachedFile } from "./cached-file.ts";
import type { Members } from "./members.ts";

/** Peers asked for what they hold of one file. */
const peersMax = 16;
/** How long an answer counts while blocks change hands quickly, i.e. when an owner has just died or come back. */
const freshMs = 50;
/**
 * So long after a change of the list others may still be at what was theirs before: who stood in for a dead owner fetches
 * some of its blocks, and whoever had not seen it return passes it over for a while (`members.ts`).
 */
const handoverMs = 10_000;
/** How long it counts otherwise. */
const keptMs = 60_000;
const filesMax = 1000;

export type HoldersDependencies = {
  readonly self: WorkerId;
  readonly members: Members;
  readonly clock: Clock;
  /** Workers that hold any of it, as a master knows; undefined: no master answered. */
  readonly ask: (id: FileVersionId) => Promise<readonly WorkerId[] | undefined>;
  readonly holdings: (worker: WorkerId, file: CachedFile) => Promise<BlockBitmap | undefined>;
};

type Answer = {
  readonly listVersion: number;
  readonly askedMs: number;
  readonly maps: Promise<ReadonlyMap<WorkerId, BlockBitmap>>;
};

export class Holders {
  readonly #deps: HoldersDependencies;
  readonly #answers = new Map<FileVersionId, Answer>();

  constructor(dependencies: HoldersDependencies) {
    this.#deps = dependencies;
  }

  /** Workers of the domain that hold the block. `urgent`: an owner is dead, only fresh answers count. */
  async find(file: CachedFile, block: BlockIndex, urgent: boolean): Promise<readonly WorkerId[]> {
    const maps = await this.#answer(file, urgent).maps;
    return [...maps].filter(([, map]) => map.has(block)).map(([worker]) => worker);
  }

  /** Workers of the domain that hold any of the file, and what. */
  all(file: CachedFile): Promise<ReadonlyMap<WorkerId, BlockBitmap>> {
    return this.#answer(file, false).maps;
  }

  #answer(file: CachedFile, urgent: boolean): Answer {
    const { members, clock } = this.#deps;
    const now = clock.monotonicMs();
    const known = this.#answers.get(file.id);
    if (known !== undefined && known.listVersion === members.version) {
      const isMoving = urgent || members.unchangedForMs < handoverMs;
      if (now - known.askedMs < (isMoving ? freshMs : keptMs)) return known;
    }
    const answer = { listVersion: members.version, askedMs: now, maps: this.#askAll(file) };
    this.#answers.delete(file.id);
    this.#answers.set(file.id, answer);
    const oldest = this.#answers.keys().next().value;
    if (this.#answers.size > filesMax && oldest !== undefined) this.#answers.delete(oldest);
    return answer;
  }

  async #askAll(file: CachedFile): Promise<ReadonlyMap<WorkerId, BlockBitmap>> {
    const { self, members, ask, holdings } = this.#deps;
    const named = (await ask(file.id)) ?? members.peers();
    const asked = named
      .filter((worker) => worker !== self && members.isInDomain(worker) && !members.isSuspected(worker))
      .slice(0, peersMax);
    const maps = new Map<WorkerId, BlockBitmap>();
    await Promise.all(
      asked.map(async (worker) => {
        const map = await holdings(worker, file);
        if (map !== undefined) maps.set(worker, map);
      }),
    );
    return maps;
  }
}
