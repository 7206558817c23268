/**
 * What a load would do: which workers take part, how much they already hold, how much must leave the under store, and the
 * time below which no schedule can come. Pure: files are added one by one, so that a large model is planned in slices.
 *
 * Bytes leave the under store once per egress domain (a region): a domain reads what none of its live workers holds.
 */

import { blockCount } from "../base/blocks.ts";
import type { LoadPlan } from "../base/cluster.ts";
import { type ErrorCode, HeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { FileVersionId, WorkerId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { egressDomain, matchesPlace, type Place, parsePlaceSelector } from "../base/place.ts";
import { formatBytes } from "../base/units.ts";
import { type BlockMap, coverageBytes } from "./block-map.ts";

export type PlannedWorker = {
  readonly id: WorkerId;
  readonly place: Place;
  readonly capacityBytes: number;
  /** Of its cache: what no eviction may take (pinned, being read). */
  readonly keptBytes?: number;
  /** What running jobs still have to bring in there, the files of `except` left out. Asked only for workers that have to take a load. */
  readonly promisedBytes?: (except: ReadonlySet<FileVersionId>) => number;
};

export type LoadRates = {
  /** Of the under store, for all workers of a domain together; undefined: assumed. Bytes per second. */
  readonly originBytesPerSecond?: number;
  /** Of one worker's network card. */
  readonly linkBytesPerSecond?: number;
};

/** Taken when nothing is configured: a 10 Gbit/s network. */
const assumedBytesPerSecond = 1.25e9;

export class LoadPlanner {
  readonly #path: Path;
  readonly #to: string;
  readonly #blockMap: BlockMap;
  readonly #rates: LoadRates;
  readonly #live: ReadonlyMap<WorkerId, PlannedWorker>;
  /** Bytes of the model that each live worker holds. */
  readonly #held = new Map<WorkerId, number>();
  /** Live workers and the bytes that they hold together, per domain. */
  readonly #domains = new Map<string, { readonly workers: Set<WorkerId>; heldBytes: number }>();
  readonly #versions = new Set<FileVersionId>();
  #files = 0;
  #bytes = 0;
  #blocks = 0;
  #obstacle: ErrorCode | undefined;

  /** Throws `invalid` when `to` selects nothing that could exist. */
  constructor(dependencies: {
    readonly path: Path;
    readonly to: string;
    readonly live: readonly PlannedWorker[];
    readonly blockMap: BlockMap;
    readonly rates?: LoadRates;
  }) {
    parsePlaceSelector(dependencies.to);
    this.#path = dependencies.path;
    this.#to = dependencies.to;
    this.#blockMap = dependencies.blockMap;
    this.#rates = dependencies.rates ?? {};
    this.#live = new Map(dependencies.live.map((worker) => [worker.id, worker]));
    for (const { id, place } of dependencies.live) {
      const domain = this.#domains.get(egressDomain(place)) ?? { workers: new Set<WorkerId>(), heldBytes: 0 };
      domain.workers.add(id);
      this.#domains.set(egressDomain(place), domain);
    }
  }

  add(file: FileDescriptor): void {
    const { inodeId, contentVersion, sizeBytes, blockSizeBytes } = file;
    this.#files++;
    this.#versions.add(file.id);
    this.#bytes += sizeBytes;
    this.#blocks += blockCount(sizeBytes, blockSizeBytes);
    let held = false;
    this.#blockMap.forEachHolder(inodeId, contentVersion, (id, coverage) => {
      if (!this.#live.has(id)) return;
      held = true;
      const bytes = coverageBytes(coverage, sizeBytes, blockSizeBytes);
      this.#held.set(id, (this.#held.get(id) ?? 0) + bytes);
    });
    if (!held) return;
    for (const domain of this.#domains.values()) {
      const union = this.#blockMap.union(inodeId, contentVersion, domain.workers);
      domain.heldBytes += coverageBytes(union, sizeBytes, blockSizeBytes);
    }
  }

  finish(): LoadPlan {
    const problems: string[] = [];
    const chosen = this.#choose(problems);
    if (problems.length > 0) this.#obstacle = "unavailable";
    if (this.#files === 0) {
      problems.push(`there is no file at or below ${this.#path}`);
      this.#obstacle = "not-found";
    }
    let cachedBytes = 0;
    let missingMax = 0;
    for (const worker of chosen) {
      const held = this.#heldBy(worker);
      cachedBytes += held;
      missingMax = Math.max(missingMax, this.#bytes - held);
      const lack = this.#lackOf(worker);
      if (lack === undefined) continue;
      this.#obstacle ??= "no-space";
      problems.push(lack);
    }
    const domains = new Set(chosen.map(({ place }) => egressDomain(place)));
    let originBytes = 0;
    let originMax = 0;
    for (const domain of domains) {
      const missing = this.#bytes - (this.#domains.get(domain)?.heldBytes ?? 0);
      originBytes += missing;
      originMax = Math.max(originMax, missing);
    }
    const rates = this.#ratesOf();
    return {
      path: this.#path,
      files: this.#files,
      bytes: this.#bytes,
      blocks: this.#blocks,
      cachedBytes,
      originBytes,
      boundSeconds: Math.max(originMax / rates.originBytesPerSecond, missingMax / rates.linkBytesPerSecond),
      rates,
      workers: chosen.map(({ id }) => id),
      problems,
    };
  }

  /** After `finish`. Throws when the plan has problems: `not-found`, `unavailable` (workers) or `no-space`. */
  refuseProblems({ problems, path }: LoadPlan): void {
    if (this.#obstacle === undefined) return;
    throw new HeadpondError(this.#obstacle, `cannot load ${path}: ${problems.join("; ")}`);
  }

  #choose(problems: string[]): readonly PlannedWorker[] {
    const live = [...this.#live.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    const selector = parsePlaceSelector(this.#to);
    if (live.length === 0) {
      problems.push("no worker is live: start one, or wait until it has registered");
      return [];
    }
    if (selector.kind === "match") {
      const matching = live.filter(({ place }) => matchesPlace(place, selector));
      if (matching.length === 0) problems.push(`none of the ${live.length} live workers is in ${this.#to}`);
      return matching;
    }
    if (selector.kind === "all") return live;
    if (selector.kind === "workers") {
      const absent = selector.ids.filter((id) => !this.#live.has(id as WorkerId));
      if (absent.length > 0) problems.push(`${absent.join(", ")} ${absent.length === 1 ? "is" : "are"} not live`);
      return live.filter(({ id }) => selector.ids.includes(id));
    }
    if (selector.count > live.length) {
      problems.push(`${selector.count} workers were asked for, ${live.length} are live`);
    }
    // Those with room for it; of them those that already hold most, then those with most room, so that as little as possible has to move.
    const lacking = new Set(live.filter((worker) => this.#lackOf(worker) !== undefined));
    const byMerit = live.sort(
      (a, b) =>
        Number(lacking.has(a)) - Number(lacking.has(b)) || this.#heldBy(b) - this.#heldBy(a) || roomOf(b) - roomOf(a),
    );
    return byMerit.slice(0, selector.count).sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Why the load cannot fit; undefined: it can. What is held of it may be part of what is kept. */
  #lackOf(worker: PlannedWorker): string | undefined {
    const { id, capacityBytes, keptBytes = 0 } = worker;
    const promisedBytes = worker.promisedBytes?.(this.#versions) ?? 0;
    const othersBytes = Math.max(0, keptBytes - this.#heldBy(worker));
    if (this.#bytes + othersBytes + promisedBytes <= capacityBytes) return undefined;
    const taken = [
      ...(othersBytes === 0 ? [] : [`${formatBytes(othersBytes)} are pinned or in use`]),
      ...(promisedBytes === 0 ? [] : [`${formatBytes(promisedBytes)} are promised to running jobs`]),
    ];
    return (
      `worker ${id} has a cache of ${formatBytes(capacityBytes)} (${capacityBytes} B), ` +
      `${taken.length === 0 ? "" : `of which ${taken.join(" and ")}, `}the load takes ` +
      `${formatBytes(this.#bytes)} (${this.#bytes} B): give it more, or choose other workers`
    );
  }

  #heldBy({ id }: PlannedWorker): number {
    return this.#held.get(id) ?? 0;
  }

  /** A bound is what the machines allow, not what was measured lately: an idle cluster has measured nothing of worth. */
  #ratesOf(): LoadPlan["rates"] {
    const origin = pickRate(this.#rates.originBytesPerSecond);
    const link = pickRate(this.#rates.linkBytesPerSecond);
    return {
      originBytesPerSecond: origin.rate,
      linkBytesPerSecond: link.rate,
      source: origin.source === link.source ? origin.source : `origin ${origin.source}, link ${link.source}`,
    };
  }
}

function roomOf({ capacityBytes, keptBytes = 0 }: PlannedWorker): number {
  return capacityBytes - keptBytes;
}

function pickRate(configured: number | undefined): { readonly rate: number; readonly source: string } {
  if (configured !== undefined && configured > 0) return { rate: configured, source: "configured" };
  return { rate: assumedBytesPerSecond, source: "assumed" };
}
