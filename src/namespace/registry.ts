/**
 * Mounts and open intents, decoded and in memory beside their rows: few, and asked for by every change.
 */

import type { ErrorDocument } from "../base/errors.ts";
import type { InodeId, MountId } from "../base/ids.ts";
import { isWithin, type Path, parentPath } from "../base/path.ts";
import type { Origin } from "./command.ts";
import { intentPrefix, mountPrefix, rowKey } from "./keys.ts";
import type { RowTable } from "./row-table.ts";

export type MountRow = {
  readonly id: MountId;
  readonly path: Path;
  readonly inodeId: InodeId;
  readonly uri: string;
  readonly options: Readonly<Record<string, string>>;
  readonly secretOptions: readonly string[];
  readonly readOnly: boolean;
  /** Whether the mount made its directory, so that unmounting takes it away again. */
  readonly madeDirectory: boolean;
};

/** A change under a mount that is not complete: the under store may or may not have it yet. */
export type Intent = {
  readonly id: number;
  readonly kind: "create" | "mkdir" | "remove" | "rename";
  readonly mountId: MountId;
  readonly path: Path;
  /** Relative to the mount. */
  readonly key: string;
  /** Of a rename. */
  readonly toPath?: Path;
  readonly toKey?: string;
  /** What is created, removed or renamed; of a mkdir: absent. */
  readonly inodeId?: InodeId;
  readonly isDirectory: boolean;
  /** Of a create: the content being written. */
  readonly contentVersion?: number;
  /** Of a remove. */
  readonly recursive?: boolean;
  /** Of a rename. */
  readonly replace?: boolean;
  /** Of a mkdir. */
  readonly ownership?: { readonly mode: number; readonly owner: string; readonly group: string };
  readonly attributes?: Readonly<Record<string, string>>;
  readonly startedMs: number;
  readonly origin?: Origin;
  readonly requestId?: string;
};

export const intentsMax = 100_000;

export class Registry {
  readonly #rows: RowTable;
  readonly #mounts = new Map<number, MountRow>();
  readonly #intents = new Map<number, Intent>();
  /** Intents by each path they hold. */
  readonly #held = new Map<Path, Intent>();

  constructor(rows: RowTable) {
    this.#rows = rows;
    for (const { value } of rows.list(mountPrefix, Number.POSITIVE_INFINITY)) {
      const mount = JSON.parse(value.toString("utf8")) as MountRow;
      this.#mounts.set(mount.id, mount);
    }
    for (const { value } of rows.list(intentPrefix, Number.POSITIVE_INFINITY)) {
      this.#remember(JSON.parse(value.toString("utf8")) as Intent);
    }
  }

  get mountCount(): number {
    return this.#mounts.size;
  }

  /** In the order of their ids. */
  mounts(): MountRow[] {
    return [...this.#mounts.values()].sort((a, b) => a.id - b.id);
  }

  mount(id: number): MountRow | undefined {
    return this.#mounts.get(id);
  }

  mountAt(path: Path): MountRow | undefined {
    for (const mount of this.#mounts.values()) if (mount.path === path) return mount;
    return undefined;
  }

  /** The innermost mount that holds `path`, which need not exist. */
  mountHolding(path: Path): MountRow | undefined {
    let best: MountRow | undefined;
    for (const mount of this.#mounts.values()) {
      if (isWithin(path, mount.path) && (best === undefined || mount.path.length > best.path.length)) best = mount;
    }
    return best;
  }

  /** A mount at or below `path`: such a directory can be neither moved nor removed. */
  mountWithin(path: Path): MountRow | undefined {
    let first: MountRow | undefined;
    for (const mount of this.#mounts.values()) {
      if (isWithin(mount.path, path) && (first === undefined || mount.id < first.id)) first = mount;
    }
    return first;
  }

  addMount(mount: MountRow): void {
    this.#mounts.set(mount.id, mount);
    this.#rows.set(rowKey(mountPrefix, mount.id), Buffer.from(JSON.stringify(mount)));
  }

  removeMount(id: MountId): void {
    this.#mounts.delete(id);
    this.#rows.set(rowKey(mountPrefix, id), undefined);
  }

  get intentCount(): number {
    return this.#intents.size;
  }

  /** In the order of their ids, which is that of their beginning. */
  intents(): Intent[] {
    return [...this.#intents.values()].sort((a, b) => a.id - b.id);
  }

  intent(id: number): Intent | undefined {
    return this.#intents.get(id);
  }

  intentAt(path: Path): Intent | undefined {
    return this.#held.get(path);
  }

  /** An intent that holds `path` or changes a directory above it. */
  intentAbove(path: Path): Intent | undefined {
    if (this.#intents.size === 0) return undefined;
    let at: Path | undefined = path;
    while (at !== undefined) {
      const intent = this.#held.get(at);
      if (intent !== undefined) return intent;
      at = parentPath(at);
    }
    return undefined;
  }

  /** The oldest intent that holds `path`, something above or something below it. */
  intentTouching(path: Path): Intent | undefined {
    let first: Intent | undefined = this.intentAbove(path);
    if (first !== undefined || this.#intents.size === 0) return first;
    for (const [held, intent] of this.#held) {
      if (isWithin(held, path) && (first === undefined || intent.id < first.id)) first = intent;
    }
    return first;
  }

  addIntent(intent: Intent): void {
    this.#remember(intent);
    this.#rows.set(rowKey(intentPrefix, intent.id), Buffer.from(JSON.stringify(intent)));
  }

  removeIntent(intent: Intent): void {
    this.#intents.delete(intent.id);
    if (this.#held.get(intent.path) === intent) this.#held.delete(intent.path);
    if (intent.toPath !== undefined && this.#held.get(intent.toPath) === intent) this.#held.delete(intent.toPath);
    this.#rows.set(rowKey(intentPrefix, intent.id), undefined);
  }

  #remember(intent: Intent): void {
    this.#intents.set(intent.id, intent);
    this.#held.set(intent.path, intent);
    if (intent.toPath !== undefined) this.#held.set(intent.toPath, intent);
  }
}

/** What `finish-intent` says of an undone change without a reason. */
export const undoneError: ErrorDocument = {
  code: "under-store",
  message: "the under store refused the change",
  retryable: true,
  outcome: "none",
};
