/**
 * Models: the topmost directories in which files with weights lie, and on which worker each of them is READY. READY means
 * that the worker holds every file of the model whole, as the block map shows at the moment of the answer. Which
 * directories are models is remembered while the namespace does not change, and for a moment while it does.
 */

import type { ModelStatus } from "../base/cluster.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { WorkerId } from "../base/ids.ts";
import { modelOf, modelRoots } from "../base/model-roots.ts";
import { isWithin, type Path, relativePath } from "../base/path.ts";
import type { Clock } from "../io/clock.ts";
import { type BlockMap, coverageBytes } from "./block-map.ts";
import type { Core } from "./core.ts";
import { commitOf } from "./revisions.ts";
import type { TreeFiles } from "./tree-files.ts";
import type { WorkerRegistry } from "./worker-registry.ts";

export type ModelLimits = {
  /** Inodes that one look at the namespace visits; models behind are not seen, and that is logged as a metric. */
  readonly visitedMax: number;
  readonly modelsMax: number;
  readonly rememberedMs: number;
};

/** What cost a millisecond to find may be ten milliseconds old: small trees are always looked at anew. */
const rememberedPerCost = 10;

export const modelLimits: ModelLimits = { visitedMax: 500_000, modelsMax: 10_000, rememberedMs: 1000 };

type Model = {
  readonly path: Path;
  readonly commit: string;
  readonly bytes: number;
  readonly files: readonly FileDescriptor[];
};

type Found = {
  readonly path: Path;
  readonly version: number;
  readonly atMs: number;
  /** How long it took to find. */
  readonly costMs: number;
  readonly models: readonly Model[];
};

class TooMany extends Error {}

export class Models {
  readonly #core: Core;
  readonly #files: TreeFiles;
  readonly #blockMap: BlockMap;
  readonly #registry: WorkerRegistry;
  readonly #clock: Clock;
  readonly #limits: ModelLimits;
  #found: Found | undefined;
  #finding: Promise<Found> | undefined;

  constructor(dependencies: {
    readonly core: Core;
    readonly files: TreeFiles;
    readonly blockMap: BlockMap;
    readonly registry: WorkerRegistry;
    readonly clock: Clock;
    readonly limits?: Partial<ModelLimits>;
  }) {
    this.#core = dependencies.core;
    this.#files = dependencies.files;
    this.#blockMap = dependencies.blockMap;
    this.#registry = dependencies.registry;
    this.#clock = dependencies.clock;
    this.#limits = { ...modelLimits, ...dependencies.limits };
  }

  /** Models at or below `path`, in the order of their paths. */
  async list(path: Path, limit: number): Promise<ModelStatus[]> {
    const { models } = await this.#all();
    return models
      .filter((model) => isWithin(model.path, path))
      .slice(0, limit)
      .map((model) => this.#statusOf(model));
  }

  async #all(): Promise<Found> {
    const found = this.#found;
    if (found !== undefined) {
      if (found.version === this.#core.namespace.version) return found;
      const rememberedMs = Math.min(this.#limits.rememberedMs, found.costMs * rememberedPerCost);
      if (this.#clock.monotonicMs() - found.atMs < rememberedMs) return found;
    }
    this.#finding ??= this.#find().finally(() => {
      this.#finding = undefined;
    });
    return this.#finding;
  }

  async #find(): Promise<Found> {
    const atMs = this.#clock.monotonicMs();
    const { version } = this.#core.namespace;
    const files: FileDescriptor[] = [];
    let visited = 0;
    try {
      await this.#files.forEach(
        "/" as Path,
        (status) => {
          if (++visited > this.#limits.visitedMax) throw new TooMany();
          const file = this.#files.describe(status);
          if (file === undefined) return;
          files.push(file);
        },
        undefined,
      );
    } catch (error) {
      if (!(error instanceof TooMany)) throw error;
    }
    const found = {
      path: "/" as Path,
      version,
      atMs,
      costMs: this.#clock.monotonicMs() - atMs,
      models: groupByModel(files, this.#limits.modelsMax),
    };
    this.#found = found;
    return found;
  }

  #statusOf(model: Model): ModelStatus {
    const held = new Map<WorkerId, { bytes: number; complete: number }>();
    for (const { inodeId, contentVersion, sizeBytes, blockSizeBytes } of model.files) {
      this.#blockMap.forEachHolder(inodeId, contentVersion, (id, coverage) => {
        const part = held.get(id) ?? { bytes: 0, complete: 0 };
        part.bytes += coverageBytes(coverage, sizeBytes, blockSizeBytes);
        if (coverage.complete) part.complete++;
        held.set(id, part);
      });
    }
    const places: ModelStatus["places"] = this.#registry.serving().map(({ id, address }) => {
      const { bytes, complete } = held.get(id) ?? { bytes: 0, complete: 0 };
      const state = complete === model.files.length ? "READY" : bytes > 0 || complete > 0 ? "FILLING" : "ABSENT";
      return { worker: id, place: address.place, state, bytes };
    });
    places.sort((a, b) => (a.worker < b.worker ? -1 : 1));
    return { path: model.path, version: model.commit, bytes: model.bytes, files: model.files.length, places };
  }
}

function groupByModel(files: readonly FileDescriptor[], max: number): Model[] {
  const roots = modelRoots(files.map(({ path }) => path));
  const groups = new Map<Path, FileDescriptor[]>();
  for (const file of files) {
    const root = modelOf(file.path, roots);
    if (root === undefined) continue;
    const group = groups.get(root);
    if (group === undefined) groups.set(root, [file]);
    else group.push(file);
  }
  return [...groups]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .slice(0, max)
    .map(([path, group]) => ({
      path,
      commit: commitOf(group.map((file) => ({ path: relativePath(file.path, path), file }))),
      bytes: group.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      files: group,
    }));
}
