/**
 * Changes of the namespace for watchers. The last changes are kept in a ring, as the commands that made them; a watcher
 * that asks for older ones is told `compacted` and has to look at the tree itself (docs/decisions/0060): the log has the
 * commands, but not which of them succeeded. The ring begins anew with each leader.
 */

import { HeadpondError } from "../base/errors.ts";
import type { InodeId } from "../base/ids.ts";
import { isWithin, type Path } from "../base/path.ts";
import type { Command, CommandResult } from "../namespace/command.ts";
import type { Intent } from "../namespace/registry.ts";
import type { ChangeEvent } from "../rpc/master-service.ts";
import { ChangeRing, changeEvent } from "./change-ring.ts";
import { PushQueue } from "./push-queue.ts";

export type EventLimits = {
  readonly keptMax: number;
  readonly watchersMax: number;
  /** Events that one watcher may be behind. */
  readonly queuedMax: number;
};

export const eventLimits: EventLimits = { keptMax: 65_536, watchersMax: 1000, queuedMax: 100_000 };

type Watcher = { readonly path: Path; readonly queue: PushQueue<ChangeEvent> };

export class EventLog {
  readonly #limits: EventLimits;
  readonly #pathOf: (inodeId: InodeId) => Path | undefined;
  readonly #intentOf: (id: number) => Intent | undefined;
  #ring: ChangeRing;
  /** Everything from this index on is in the ring. */
  #firstIndex = 1;
  #lastIndex = 0;
  readonly #watchers = new Set<Watcher>();

  constructor(dependencies: {
    readonly pathOf: (inodeId: InodeId) => Path | undefined;
    readonly intentOf: (id: number) => Intent | undefined;
    readonly limits?: Partial<EventLimits>;
  }) {
    this.#pathOf = dependencies.pathOf;
    this.#intentOf = dependencies.intentOf;
    this.#limits = { ...eventLimits, ...dependencies.limits };
    this.#ring = new ChangeRing(this.#limits.keptMax);
  }

  get watcherCount(): number {
    return this.#watchers.size;
  }

  /** A leader begins behind `appliedIndex`. */
  begin(appliedIndex: number): void {
    this.#ring = new ChangeRing(this.#limits.keptMax);
    this.#firstIndex = appliedIndex + 1;
    this.#lastIndex = appliedIndex;
    this.end(new HeadpondError("compacted", "another master leads now: look at the tree, then watch again"));
  }

  /** Ends all watchers. */
  end(error?: Error): void {
    for (const { queue } of this.#watchers) queue.end(error);
    this.#watchers.clear();
  }

  /** An intent as it was before `finish-intent` is applied, which forgets it. */
  intentBefore(command: Command): Intent | undefined {
    return command.kind === "finish-intent" ? this.#intentOf(command.intentId) : undefined;
  }

  applied(index: number, command: Command, result: CommandResult, intent?: Intent): void {
    this.#lastIndex = Math.max(this.#lastIndex, index);
    if (!result.ok) return;
    // What waits for its under store is told when it has happened.
    if ("intentId" in result && result.intentId !== undefined) return;
    const inodeId = "inodeId" in result ? result.inodeId : 0;
    switch (command.kind) {
      case "create":
      case "mkdir":
        if ("created" in result && result.created) this.#add(index, command, "created", command.path, inodeId);
        return;
      case "complete":
        this.#add(index, command, "completed", this.#pathOf(command.inodeId), inodeId);
        return;
      case "remove":
        this.#add(index, command, "removed", command.path, inodeId);
        return;
      case "rename":
        this.#add(index, command, "renamed", command.from, inodeId, command.to);
        return;
      case "set-attributes":
      case "pin":
      case "ttl":
      case "replicas":
        this.#add(index, command, "changed", command.path, inodeId);
        return;
      case "mount":
        this.#add(index, command, "mounted", command.path, inodeId);
        return;
      case "unmount":
        this.#add(index, command, "unmounted", command.path, inodeId);
        return;
      case "sync-rows":
      case "sync-end": {
        const { directoryInodeId } = command;
        const changed = "added" in result && (result.added > 0 || result.changed > 0 || result.removed > 0);
        if (changed) this.#add(index, command, "changed", this.#pathOf(directoryInodeId), directoryInodeId);
        return;
      }
      case "finish-intent":
        if (intent !== undefined && command.outcome === "done") this.#addOfIntent(index, command, intent, inodeId);
        return;
      default:
    }
  }

  /** From `fromIndex` on (absent: from now). Throws `compacted` or `overloaded`. Ends when the signal fires. */
  async *watch(
    path: Path,
    fromIndex: number | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<{ events: ChangeEvent[]; index: number }> {
    if (fromIndex !== undefined && fromIndex < this.#firstIndex) {
      throw new HeadpondError(
        "compacted",
        `changes before ${this.#firstIndex} are not kept: look at the tree, then watch`,
        {
          details: { firstIndex: this.#firstIndex },
        },
      );
    }
    if (this.#watchers.size >= this.#limits.watchersMax) {
      throw new HeadpondError("overloaded", `there are ${this.#watchers.size} watchers already`);
    }
    const queue = new PushQueue<ChangeEvent>({ name: `changes below ${path}`, limit: this.#limits.queuedMax });
    const watcher = { path, queue };
    const onAbort = (): void => queue.end();
    const past = fromIndex === undefined ? [] : this.#past(path, fromIndex);
    const index = this.#lastIndex;
    this.#watchers.add(watcher);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      // The first item says from where on the watcher sees everything.
      yield { events: past, index };
      for await (const event of queue) yield { events: [event], index: event.index };
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#watchers.delete(watcher);
    }
  }

  #past(path: Path, fromIndex: number): ChangeEvent[] {
    return this.#ring.since(fromIndex).filter((event) => concerns(event, path));
  }

  #addOfIntent(index: number, command: Command, intent: Intent, inodeId: number): void {
    const { kind, path } = intent;
    if (kind === "mkdir") this.#add(index, command, "created", path, inodeId);
    else if (kind === "remove") this.#add(index, command, "removed", path, inodeId);
    else if (kind === "rename") this.#add(index, command, "renamed", path, inodeId, intent.toPath);
  }

  /** An inode that is nowhere any more has no path, and nothing to tell. */
  #add(index: number, command: Command, kind: string, path: Path | undefined, inodeId: number, to?: Path): void {
    if (path === undefined) return;
    const gone = this.#ring.push(index, command.timeMs, kind, path, to, inodeId);
    if (gone >= this.#firstIndex) this.#firstIndex = gone + 1;
    if (this.#watchers.size === 0) return;
    const event = changeEvent(index, command.timeMs, kind, path, to, inodeId);
    for (const watcher of this.#watchers) if (concerns(event, watcher.path)) watcher.queue.push(event);
  }
}

function concerns(event: ChangeEvent, path: Path): boolean {
  return isWithin(event.path, path) || (event.to !== undefined && isWithin(event.to, path));
}
